"""Writes ``docs/reference.md`` from the code: ``make docs``. A test fails while the file is out of date."""

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from attachd import failures, settings
from attachd.disposition import dispose
from attachd.metrics import Metrics
from attachd.model import Outcome

TABLES: dict[str, type[BaseModel]] = {
    '[source] type = "sqs"': settings.SqsSource,
    '[source] type = "kinesis"': settings.KinesisSource,
    '[[sources]] type = "sweep"': settings.SweepSource,
    '[journal] type = "sqlite"': settings.SqliteJournal,
    '[journal] type = "dynamodb"': settings.DynamoJournal,
    '[journal] type = "memory"': settings.MemoryJournal,
    "[quota]": settings.Quota,
    "[waiting]": settings.Waiting,
    "[[instances]]": settings.Instance,
    "[[bots]]": settings.Bot,
    "timers of a bot": settings.Timers,
    "[[rules]]": settings.Rule,
    "active of a rule": settings.Active,
    "[otherwise]": settings.Otherwise,
    '[runtimes.NAME] type = "webhook"': settings.WebhookRuntime,
    '[runtimes.NAME] type = "sqs"': settings.SqsRuntime,
    '[runtimes.NAME] type = "python"': settings.PythonRuntime,
    "a secret": settings.SecretRef,
    "[service]": settings.Service,
    "[health]": settings.Health,
    "[logging]": settings.Logging,
}


def reference() -> str:
    """The whole page."""
    return "\n".join([*_head(), *_configuration(), *_outcomes(), *_failures(), *_metrics()]) + "\n"


def _head() -> Iterator[str]:
    yield "<!-- written by docs/generate.py: `make docs` -->"
    yield "# Reference"


def _configuration() -> Iterator[str]:
    yield "\n## Configuration\n"
    yield "Annotated, with examples: [config/attachd.toml](../config/attachd.toml)."
    for title, model in TABLES.items():
        yield f"\n### `{title}`\n"
        yield f"{model.__doc__}\n"
        yield "| key | type | default | |"
        yield "|---|---|---|---|"
        for key, field in model.model_fields.items():
            yield f"| `{field.alias or key}` | {_type(field)} | {_default(field)} | {field.description or ''} |"


def _type(field: FieldInfo) -> str:
    if "Seconds" in repr(field.metadata) or any(
        "_seconds" in repr(m) for m in (*field.metadata, field.annotation)
    ):
        return "duration"
    return _named(field.annotation)


def _named(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        kind, *marks = typing.get_args(annotation)
        return "duration" if any("_seconds" in repr(mark) for mark in marks) else _named(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_named(a) for a in typing.get_args(annotation) if a is not type(None))
    if origin is typing.Annotated:
        return _named(typing.get_args(annotation)[0])
    if origin is tuple:
        return f"a list of {_named(typing.get_args(annotation)[0])}"
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "Path": "path",
        "SecretRef": "a secret",
        "bool": "true or false",
        "datetime": "date and time",
    }
    return names.get(getattr(annotation, "__name__", ""), "table")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, tuple | dict):
        return f"`{json.dumps(field.default)}`"
    return "–" if field.default is None or isinstance(field.default, BaseModel) else f"`{field.default}`"


def _failures() -> Iterator[str]:
    yield "\n## Failures\n"
    yield "What every way in which a call to Amazon Connect can fail means (`attachd.failures`). A try that fails without"
    yield "being ambiguous had no effect for certain. Everybody is told by the delivery's line and `attachd_attach_tries`.\n"
    yield "| what happened | reason | ambiguous | then | and told to |"
    yield "|---|---|---|---|---|"
    without_an_answer = {
        "endpoint not found or not reachable (DNS, TCP)": failures.UNREACHABLE,
        "certificate not accepted (TLS)": failures.TLS,
        "no answer in time": failures.TIMEOUT,
        "connection lost on the way": failures.CONNECTION,
        "a reply that cannot be read": failures.MALFORMED,
        "no credentials, or a role that cannot be assumed": failures.CREDENTIALS,
        "another 401 or 403": failures.CREDENTIALS,
        "another 5xx": failures.INTERNAL,
    }
    for what, failure in (*failures.ERRORS.items(), *without_an_answer.items()):
        called = f"`{what}`" if what in failures.ERRORS else what
        ambiguous = "yes" if failure.ambiguous else ""
        yield f"| {called} | `{failure.reason}` | {ambiguous} | {failure.then} | {failure.told} |"


def _outcomes() -> Iterator[str]:
    yield "\n## Outcomes\n"
    yield "How a delivery ends, and what its source is told. What to do about each: [operations.md](operations.md).\n"
    yield "| outcome | disposition |"
    yield "|---|---|"
    for outcome in Outcome:
        disposition = dispose(outcome, "", None, release_seconds=5)
        yield f"| `{outcome.value}` | {type(disposition).__name__.lower()} |"


def _metrics() -> Iterator[str]:
    yield "\n## Metrics\n"
    yield "At `/metrics`, in the Prometheus text format, beside `process_*`.\n"
    yield "| metric | type | labels | |"
    yield "|---|---|---|---|"
    for metric in vars(Metrics()).values():
        if hasattr(metric, "_labelnames"):
            labels = ", ".join(f"`{name}`" for name in metric._labelnames) or "–"
            suffix = "_total" if metric._type == "counter" else ""
            yield f"| `{metric._name}{suffix}` | {metric._type} | {labels} | {metric._documentation} |"


if __name__ == "__main__":
    (Path(__file__).parent / "reference.md").write_text(reference())
