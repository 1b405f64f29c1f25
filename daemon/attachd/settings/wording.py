"""Errors in the words of the file: ``[[rules]] 2 'web chat', bot``.

No value of the file is quoted unless it is a name: it may be a secret that stands in the wrong place.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from attachd.settings.routing import Active, Otherwise, Rule
from attachd.settings.sources import DEFAULT_SOURCE, SOURCES
from attachd.settings.tables import (
    Bot,
    DynamoJournal,
    Health,
    Instance,
    Logging,
    MemoryJournal,
    PythonRuntime,
    Quota,
    Service,
    Settings,
    SqliteJournal,
    SqsRuntime,
    Timers,
    Waiting,
    WebhookRuntime,
)

#: The models of each table of the file, for their keys.
TABLES: Final[Mapping[str, tuple[type[BaseModel], ...]]] = {
    "source": SOURCES,
    "sources": SOURCES,
    "journal": (MemoryJournal, SqliteJournal, DynamoJournal),
    "quota": (Quota,),
    "waiting": (Waiting,),
    "instances": (Instance, Quota),
    "bots": (Bot, Timers),
    "rules": (Rule, Active),
    "otherwise": (Otherwise,),
    "runtimes": (WebhookRuntime, SqsRuntime, PythonRuntime),
    "service": (Service,),
    "health": (Health,),
    "logging": (Logging,),
}


def sentence(details: ErrorDetails, data: Mapping[str, Any]) -> str:
    """Where it is wrong, and what."""
    key = str(details["loc"][-1])
    match details["type"]:
        case "extra_forbidden":
            what = f"there is no such key{did_you_mean(key, _keys(details['loc']))}"
        case "missing":
            what = "missing"
        case "union_tag_not_found":
            what = "'type' is missing"
        case "union_tag_invalid":
            what = f"unknown type; there are {details.get('ctx', {}).get('expected_tags', '')}"
        case "tuple_type" if len(details["loc"]) == 1:
            what = f"write each with two brackets, [[{key}]]"
        case "model_type" | "model_attributes_type" | "dict_type":
            what = "this is a table, with keys of its own"
        case _:
            what = details["msg"].removeprefix("Value error, ")
    return f"{place(details['loc'], data)}: {what}"


def place(loc: tuple[int | str, ...], data: Mapping[str, Any]) -> str:
    """``('rules', 1, 'bot')`` → ``[[rules]] 2 'web chat', bot``."""
    here: Any = data
    words: list[str] = []
    for i, step in enumerate(loc):
        if isinstance(here, Mapping) and step == here.get("type", DEFAULT_SOURCE) and step not in here:
            continue  # pydantic names the branch of a union by its tag, which is in no file
        if isinstance(step, int) and isinstance(here, Mapping):
            continue  # nor is there a list where one thing alone may stand for it
        is_list = i + 1 < len(loc) and isinstance(loc[i + 1], int)
        inside = here.get(step) if isinstance(here, Mapping) else None
        if i == 0:
            words.append(f"[[{step}]]" if is_list else f"[{step}]" if step in TABLES else str(step))
            here = inside
        elif isinstance(step, int):
            here = here[step] if isinstance(here, list | tuple) and step < len(here) else None
            name = here.get("name") if isinstance(here, Mapping) else None
            words.append(f"{step + 1} {name!r}," if name else f"{step + 1},")
        else:
            words.append(str(step))
            here = inside
    return " ".join(words).rstrip(",")


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    if len(loc) == 1:
        return list(Settings.model_fields)
    return sorted({key for model in TABLES.get(str(loc[0]), ()) for key in _spelled(model)})


def _spelled(model: type[BaseModel]) -> Iterable[str]:
    return (field.alias or key for key, field in model.model_fields.items())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of the names that are known, or all of them; to be set behind a sentence."""
    known = [name for name in known if name not in {word, "None"}]
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else ""
