"""What tables must agree on: names that are referred to are there, once; what belongs together fits together.

Judged on the plain data, since a file of which one table is wrong should be told what else is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attachd.settings.fields import channels
from attachd.settings.sources import APPLICATION, label
from attachd.settings.wording import did_you_mean, place

_CHANNELS = {"CUSTOM_BOT": "CHAT", "CUSTOMER": "VOICE"}


def problems_between(data: Mapping[str, Any]) -> Iterable[str]:
    """Everything that no table is wrong about alone, a sentence each."""
    yield from _sources(data.get("source"), data.get("sources") or ())
    bots, rules, instances = (data.get(key) or () for key in ("bots", "rules", "instances"))
    runtimes = data.get("runtimes") or {}
    if not (_tables(bots) and _tables(rules) and _tables(instances) and isinstance(runtimes, Mapping)):
        return
    otherwise = (
        [{"name": "otherwise", **data["otherwise"]}] if isinstance(data.get("otherwise"), Mapping) else []
    )
    for kind, key, tables in (
        ("bots", "name", bots),
        ("rules", "name", [*rules, *otherwise]),
        ("instances", "arn", instances),
    ):
        for name in _twice(table.get(key) for table in tables):
            yield f"[[{kind}]]: the {key} {name!r} stands there twice"
    known = {bot.get("name"): bot for bot in bots if isinstance(bot.get("name"), str)}
    for i, rule in enumerate(rules):
        yield from _of_decision(("rules", i), rule, data, known)
    for table in otherwise:
        yield from _of_decision(("otherwise",), table, data, known)
    for i, bot in enumerate(bots):
        where = place(("bots", i, "runtime"), data)
        yield from _unknown(where, "table [runtimes.{}]", [bot.get("runtime")], runtimes)
        yield from (f"{place(('bots', i, 'streaming_topic'), data)}: {p}" for p in _afar(bot, instances))
    yield from _two_quotas(instances)


def _sources(source: object, sources: object) -> Iterable[str]:
    if source is None and not sources:
        yield "[source]: missing"
    if source is not None and sources:
        yield "[source] and [[sources]]: write one source as [source], several as [[sources]], and not both"
    if not _tables(sources):
        return
    tables: list[Mapping[str, Any]] = list(sources)  # type: ignore[call-overload]
    for name in _twice(label(table) for table in tables):
        yield f"[[sources]]: the name {name!r} stands there twice: give each a 'name' of its own"
    streams = [table for table in tables if table.get("type") == "kinesis"]
    for name in _twice(table.get("application", APPLICATION) for table in streams):
        yield f"[[sources]]: two streams cannot share the leases of {name!r}: give each an 'application' of its own"


def _of_decision(
    loc: tuple[int | str, ...], rule: Mapping[str, Any], data: Mapping[str, Any], known: Mapping[Any, Any]
) -> Iterable[str]:
    """A rule, or ``[otherwise]``, against the bots and runtimes that it names."""
    chosen: list[Mapping[str, Any]] = []
    for key in ("bot", "split"):
        where, value = place((*loc, key), data), rule.get(key) or ()
        named = [bot for bot in ([value] if isinstance(value, str) else value) if isinstance(bot, str)]
        yield from _unknown(where, "bot named {}", named, known)
        yield from (f"{where}: {bot!r} stands there twice" for bot in _twice(named))
        chosen += [known[bot] for bot in named if bot in known]
    where = place((*loc, "bot" if rule.get("bot") else "split"), data)
    yield from (f"{where}: {problem}" for problem in _unfit(rule.get("when"), chosen))
    where, fallback = place((*loc, "fallback"), data), rule.get("fallback")
    yield from _unknown(where, "table [runtimes.{}]", [fallback], data.get("runtimes") or {})
    if fallback is not None and any(bot.get("runtime") == fallback for bot in chosen):
        yield f"{where}: {fallback!r} is the bot's own runtime already"
    topic = place((*loc, "streaming_topic"), data)
    yield from (f"{topic}: {problem}" for problem in _afar(rule, data.get("instances") or ()))
    if rule.get("streaming_topic") and any(bot.get("role") == "CUSTOMER" for bot in chosen):
        yield f"{topic}: only chats are streamed, and its bots join calls: role = 'CUSTOMER'"


def _twice(names: Iterable[object]) -> list[str]:
    return sorted(
        name for name, count in Counter(n for n in names if isinstance(n, str)).items() if count > 1
    )


def _unknown(where: str, what: str, names: Iterable[object], known: Mapping[Any, Any]) -> Iterable[str]:
    for name in names:
        if isinstance(name, str) and name not in known:
            shown = what.format(repr(name) if what.startswith("bot") else name)
            yield f"{where}: there is no {shown}{did_you_mean(name, [str(n) for n in known])}"


def _unfit(when: object, bots: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Role against channel: CUSTOM_BOT joins chats, CUSTOMER joins WebRTC calls (API reference, CreateParticipant)."""
    if len({bot.get("connect", False) is True for bot in bots}) > 1:
        yield "attachd connects some of its bots and not the others: write a rule for each"
    roles = {role for bot in bots if isinstance(role := bot.get("role", "CUSTOM_BOT"), str)}
    if len(roles) > 1:
        yield "its bots join in different roles: write a rule for each"
    elif roles:
        (role,) = roles
        channel = _CHANNELS.get(role)
        # One that matches neither is misspelt: `check` warns of it in better words.
        if channel is not None and (matched := channels(when)) and channel not in matched:
            yield f"a bot with role {role} joins only {channel} contacts, which 'when' leaves out"


def _afar(bot: Mapping[str, Any], instances: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """A chat is streamed to a topic of its instance's own Region (admin guide, "Enable real-time chat message streaming")."""
    regions = {_region(table.get("arn")) for table in instances} - {""}
    topic = _region(bot.get("streaming_topic"))
    if topic and regions and topic not in regions:
        yield f"a topic in {topic}, and no instance is there: they are in {', '.join(sorted(regions))}"


def _two_quotas(instances: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    quotas: dict[tuple[str, str], Any] = {}
    for table in instances:
        arn, quota = table.get("arn"), table.get("quota")
        if not isinstance(arn, str) or quota is None or arn.count(":") < 5:  # noqa: PLR2004 - parts of an ARN
            continue
        account = arn.split(":")[4], _region(arn)
        if quotas.setdefault(account, quota) != quota:
            yield (
                f"[[instances]]: two quotas for account {account[0]} in {account[1]}, whose instances share one: "
                "write it with one of them"
            )


def _region(arn: object) -> str:
    """``arn:P:SERVICE:REGION:…``."""
    parts = arn.split(":") if isinstance(arn, str) else []
    return parts[3] if len(parts) > 3 else ""  # noqa: PLR2004 - parts of an ARN


def _tables(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)
