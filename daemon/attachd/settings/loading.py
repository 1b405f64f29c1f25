"""Reading a configuration file, and saying everything that is wrong with it at once.

Each sentence names the file, the table and the key, in the words of the file: ``[[rules]] 2 'web chat', bot``.
No value of the file is quoted unless it is a name: it may be a secret that stands in the wrong place.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from attachd.errors import Misconfigured
from attachd.settings.tables import (
    ENV_PREFIX,
    Bot,
    DynamoJournal,
    Health,
    Instance,
    Logging,
    MemoryJournal,
    PythonRuntime,
    Quota,
    Rule,
    Service,
    Settings,
    SqliteJournal,
    SqsSource,
    Timers,
    Waiting,
    WebhookRuntime,
    channels,
)

_TABLES: Final[Mapping[str, tuple[type[BaseModel], ...]]] = {
    "source": (SqsSource,),
    "journal": (MemoryJournal, SqliteJournal, DynamoJournal),
    "quota": (Quota,),
    "waiting": (Waiting,),
    "instances": (Instance, Quota),
    "bots": (Bot, Timers),
    "rules": (Rule,),
    "runtimes": (WebhookRuntime, PythonRuntime),
    "service": (Service,),
    "health": (Health,),
    "logging": (Logging,),
}


def load(path: Path) -> Settings:
    """Read and judge a configuration file, and the environment that overrides it.

    Args:
        path: the TOML file.

    Raises:
        Misconfigured: with a sentence for every error found, each naming file, table and key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # tomllib's and UTF-8's errors are ValueErrors
        raise Misconfigured([f"{path}: {error}"]) from None
    problems = list(_strange_environment(os.environ))
    unknown = [key for key in data if key not in Settings.model_fields]
    problems += [f"{path}: {key}: there is no such key{_did_you_mean(key, _TABLES)}" for key in unknown]
    known = {key: value for key, value in data.items() if key not in unknown}
    settings: Settings | None = None
    try:
        settings = Settings(**known)
    except ValidationError as error:
        problems += [f"{path}: {_sentence(details, known)}" for details in _apt(error.errors())]
    except SettingsError as error:
        problems += [f"environment: {error}"]
    judged = known if settings is None else settings.model_dump()
    problems += [f"{path}: {problem}" for problem in _dangling(judged)]
    if settings is None or problems:
        raise Misconfigured(problems)
    return settings


def _apt(errors: list[ErrorDetails]) -> Iterable[ErrorDetails]:
    """Without the complaint that a list is too short of which only the items are bad."""
    inside = {details["loc"][:i] for details in errors for i in range(1, len(details["loc"]))}
    return (details for details in errors if details["type"] != "too_short" or details["loc"] not in inside)


def _strange_environment(environ: Mapping[str, str]) -> Iterable[str]:
    """A misspelt override would be silently ignored otherwise."""
    for name in environ:
        table = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.startswith(ENV_PREFIX) and table not in Settings.model_fields:
            yield f"environment variable {name}: there is no table {table!r}{_did_you_mean(table, _TABLES)}"


def _dangling(data: Mapping[str, Any]) -> Iterable[str]:
    """Names that are referred to and not there, or there twice."""
    bots, rules, runtimes = (data.get(key) or () for key in ("bots", "rules", "runtimes"))
    if not (_tables(bots) and _tables(rules) and isinstance(runtimes, Mapping)):
        return
    names = [bot.get("name") for bot in bots]
    for kind, called in (("bots", names), ("rules", [rule.get("name") for rule in rules])):
        for name in sorted({str(n) for n in called if n is not None and called.count(n) > 1}):
            yield f"[[{kind}]]: the name {name!r} stands there twice"
    roles = {bot.get("name"): bot.get("role", "CUSTOM_BOT") for bot in bots}
    for i, rule in enumerate(rules):
        listed: Any = [rule["bot"]] if isinstance(rule.get("bot"), str) else rule.get("bot") or ()
        for bot in listed:
            if isinstance(bot, str) and bot not in names:
                hint = _did_you_mean(bot, [str(n) for n in names])
                yield f"{_place(('rules', i, 'bot'), data)}: there is no bot named {bot!r}{hint}"
        for problem in _unfit(rule.get("when"), [roles[bot] for bot in listed if bot in roles]):
            yield f"{_place(('rules', i, 'bot'), data)}: {problem}"
    for i, bot in enumerate(bots):
        if isinstance(runtime := bot.get("runtime"), str) and runtime not in runtimes:
            hint = _did_you_mean(runtime, runtimes)
            yield f"{_place(('bots', i, 'runtime'), data)}: there is no table [runtimes.{runtime}]{hint}"


def _unfit(when: object, roles: list[Any]) -> Iterable[str]:
    """Role against channel: CUSTOM_BOT joins chats, CUSTOMER joins WebRTC calls (API reference, CreateParticipant)."""
    if len(set(roles)) > 1:
        yield "its bots join in different roles: write a rule for each"
        return
    channel = {"CUSTOM_BOT": "CHAT", "CUSTOMER": "VOICE"}.get(roles[0]) if roles else None
    # One that matches neither is misspelt: `check` warns of it in better words.
    if channel is not None and (matched := channels(when)) and channel not in matched:
        yield f"a bot with role {roles[0]} joins only {channel} contacts, which 'when' leaves out"


def _tables(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def _sentence(details: ErrorDetails, data: Mapping[str, Any]) -> str:
    key = str(details["loc"][-1])
    match details["type"]:
        case "extra_forbidden":
            what = f"there is no such key{_did_you_mean(key, _keys(details['loc']))}"
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
    return f"{_place(details['loc'], data)}: {what}"


def _place(loc: tuple[int | str, ...], data: Mapping[str, Any]) -> str:
    """``('rules', 1, 'bot')`` → ``[[rules]] 2 'web chat', bot``."""
    here: Any = data
    words: list[str] = []
    for i, step in enumerate(loc):
        if isinstance(here, Mapping) and step == here.get("type") and step not in here:
            continue  # pydantic names the branch of a union by its tag, which is in no file
        if isinstance(step, int) and isinstance(here, Mapping):
            continue  # nor is there a list where one thing alone may stand for it
        is_list = i + 1 < len(loc) and isinstance(loc[i + 1], int)
        inside = here.get(step) if isinstance(here, Mapping) else None
        if i == 0:
            words.append(f"[[{step}]]" if is_list else f"[{step}]" if step in _TABLES else str(step))
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
    return sorted({key for model in _TABLES.get(str(loc[0]), ()) for key in model.model_fields})


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    known = [name for name in known if name not in {word, "None"}]
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else ""
