"""Logs: how they look, what may never be in them, and the one canonical line a delivery leaves.

A participant token is a password. ``Secret`` already refuses to be shown; the redaction here is the second
line, for whatever is not wrapped in one.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import structlog

from attachd.model import Secret

#: Keys whose values never reach a log, in any casing and with any separators.
SENSITIVE: Final = frozenset(
    {"token", "participanttoken", "connectiontoken", "secret", "authorization", "bearer", "xamzbearer"}
)

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Trail:
    """What happened to one delivery, gathered along the line and logged once, at its end."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._started = time.monotonic()

    def note(self, **fields: Any) -> None:
        """Add what a station learned; None is left out."""
        self.fields.update({key: value for key, value in fields.items() if value is not None})

    @contextmanager
    def station(self, name: str) -> Iterator[None]:
        """Time a station of the line, named from when it is entered; one that is passed several times adds up."""
        before = self.seconds.setdefault(name, 0.0)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = before + time.monotonic() - started

    def line(self) -> dict[str, Any]:
        """The canonical line's fields: what was noted, then milliseconds a station and in all."""
        stations = {f"{name}_ms": round(1000 * seconds, 1) for name, seconds in self.seconds.items()}
        return self.fields | stations | {"total_ms": round(1000 * (time.monotonic() - self._started), 1)}


def configure(level: str, style: Literal["json", "console"]) -> None:
    """Send every log line, ours and the libraries', to standard error in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, _headed, structlog.processors.JSONRenderer(default=repr)]
        if style == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    # botocore and aiohttp print whole requests at DEBUG, bearer headers included: never below WARNING.
    for library in ("botocore", "aiobotocore", "aiohttp", "asyncio"):
        logging.getLogger(library).setLevel(max(_LEVELS[level], logging.WARNING))


def _headed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: what people look for first stands first."""
    return {key: event[key] for key in ("timestamp", "level", "event") if key in event} | dict(event)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: blank what is secret by type or by name, however deep."""
    for key, value in event.items():
        event[key] = _blank(key, value)
    return event


def _blank(key: str, value: Any) -> Any:
    if isinstance(value, Secret) or key.lower().replace("_", "").replace("-", "") in SENSITIVE:
        return "[redacted]"
    if isinstance(value, dict):
        return {k: _blank(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_blank("", item) for item in value]
    return value
