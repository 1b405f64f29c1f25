"""What tables must agree on: names that are referred to are there, roles fit channels, sources keep out of each other's way."""

from collections.abc import Iterable, Mapping
from typing import Any

from attachd.settings.fields import channels
from attachd.settings.sources import APPLICATION, label
from attachd.settings.wording import did_you_mean, place


def problems_between(data: Mapping[str, Any]) -> Iterable[str]:
    """Names that are referred to and not there, or there twice."""
    yield from _sources(data.get("source"), data.get("sources") or ())
    bots, rules, runtimes = (data.get(key) or () for key in ("bots", "rules", "runtimes"))
    if not (_tables(bots) and _tables(rules) and isinstance(runtimes, Mapping)):
        return
    names = [bot.get("name") for bot in bots]
    for kind, called in (("bots", names), ("rules", [rule.get("name") for rule in rules])):
        for name in sorted({str(n) for n in called if n is not None and called.count(n) > 1}):
            yield f"[[{kind}]]: the name {name!r} stands there twice"
    roles = {bot["name"]: bot.get("role", "CUSTOM_BOT") for bot in bots if isinstance(bot.get("name"), str)}
    for i, rule in enumerate(rules):
        listed: Any = [rule["bot"]] if isinstance(rule.get("bot"), str) else rule.get("bot") or ()
        for bot in listed:
            if isinstance(bot, str) and bot not in names:
                hint = did_you_mean(bot, [str(n) for n in names])
                yield f"{place(('rules', i, 'bot'), data)}: there is no bot named {bot!r}{hint}"
        for problem in _unfit(
            rule.get("when"), [roles[bot] for bot in listed if isinstance(bot, str) and bot in roles]
        ):
            yield f"{place(('rules', i, 'bot'), data)}: {problem}"
    for i, bot in enumerate(bots):
        if isinstance(runtime := bot.get("runtime"), str) and runtime not in runtimes:
            hint = did_you_mean(runtime, runtimes)
            yield f"{place(('bots', i, 'runtime'), data)}: there is no table [runtimes.{runtime}]{hint}"


def _sources(source: object, sources: object) -> Iterable[str]:
    if source is None and not sources:
        yield "[source]: missing"
    if source is not None and sources:
        yield "[source] and [[sources]]: write one source as [source], several as [[sources]], and not both"
    if not _tables(sources):
        return
    tables: list[Mapping[str, Any]] = list(sources)  # type: ignore[call-overload]
    names = [label(table) for table in tables]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"[[sources]]: the name {name!r} stands there twice: give each a 'name' of its own"
    leases = [table.get("application", APPLICATION) for table in tables if table.get("type") == "kinesis"]
    for name in sorted({str(name) for name in leases if leases.count(name) > 1}):
        yield f"[[sources]]: two streams cannot share the leases of {name!r}: give each an 'application' of its own"


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
