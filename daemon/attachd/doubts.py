"""What the rules of a configuration say that can hardly be meant: warnings, each as good as proved.

``patterns.lint`` looks at patterns, and knows no rules; here is what it must be told of them, and what only rules can
have wrong: kinds of contact asked for and not included, windows that are over, shares of nobody.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from attachd import safety
from attachd import settings as s
from attachd.contact_fields import CHANNELS, CONTACT_EVENT, EVENT_TYPES, INITIATION_METHODS
from attachd.effects import UPDATED, Effect, effect
from attachd.model import Contact
from attachd.patterns import Pattern, compile_pattern
from attachd.patterns.lint import Finding, Known, doubtful, lint
from attachd.patterns.operators import Between, Exactly, LeafTest, Truth
from attachd.patterns.parse import Branch, Field
from attachd.patterns.service import refusals

#: Where rules may ask for what: the event, and the contact's attributes beside it.
KNOWN: Final[Known] = {**CONTACT_EVENT, "attributes": {"*": None}}

_FORGOTTEN: Final = (
    "a chat is forgotten before it is too old for a bot, and a late event could bring it a second one: "
    "let [service] keep be longer"
)

_TEXTS: Final = ("detail.tags.", "attributes.")


def doubts(config: s.Settings, now: float, *, eventbridge: bool = False) -> list[Finding]:
    """Everything doubtful, in the order of the rules.

    Args:
        config: the configuration.
        now: the time, in seconds since the epoch.
        eventbridge: also what EventBridge would refuse, and attachd takes.
    """
    tables = {table.name: table for table in config.rules}
    channels = {name: _channel(table, config) for name, table in tables.items()}

    def decides(earlier: str, later: str) -> bool:
        one, other = tables[earlier], tables[later]
        return (
            one.percent == 100  # noqa: PLR2004 - all of them
            and (not one.active or one.active == other.active)
            and _takes(one) >= _takes(other)
            and channels[earlier] in {None, channels[later]}
        )

    found = lint({name: table.when for name, table in tables.items()}, KNOWN, decides)
    for table in tables.values():
        found += (
            Finding(table.name, path, said) for path, said in _of_rule(table, channels[table.name], now)
        )
        if table.attach_within >= config.service.keep:
            found.append(Finding(table.name, "attach_within", _FORGOTTEN))
        if eventbridge:
            found += (Finding(table.name, *said) for said in refusals(table.when, _fields(table)))
    order = {name: number for number, name in enumerate(tables)}
    return sorted(found, key=lambda finding: order[finding.name])


def _takes(table: s.Rule) -> set[str]:
    """Which of the kinds that are left out otherwise; a rule for no bot leaves nothing out."""
    return set(safety.INCLUDABLE) if table.no_bot else set(table.include)


def _channel(table: s.Rule, config: s.Settings) -> str | None:
    """The channel that the rule's bots join; None if it has none, and so is for any."""
    named = {*table.bot, *table.split}
    role = next((bot.role for bot in config.bots if bot.name in named), None)
    return next((channel for channel, of_it in safety.ROLES.items() if of_it == role), None)


def _of_rule(table: s.Rule, channel: str | None, now: float) -> Iterator[tuple[str, str]]:
    if table.percent == 0:
        yield "", "it never decides: it is for 0 of 100"
    ends = [window.ends for window in (active.window() for active in table.active)]
    if ends and all(end is not None and end <= now for end in ends):
        yield "", "it never decides: its time is over"
    yield from _of_paths(table)
    for field in _fields(table):
        if field.path.startswith(_TEXTS) and not all(_may_fit_text(test) for test in field.tests):
            yield field.path, 'tags and attributes are text: no number, true, false or null fits; write "5"'
    if channel is None:
        return
    said = [_never(branch, table, channel) for branch in _pattern(table).branches]
    if all(said):
        yield from dict.fromkeys(one for one in said if one)


def _of_paths(table: s.Rule) -> Iterator[tuple[str, str]]:
    """What is drawn by, and whose language counts, where there can hardly be any such value."""
    if (table.split or 0 < table.percent < 100) and (said := doubtful(table.sticky, KNOWN)):  # noqa: PLR2004 - all
        yield "sticky", f"the chat's first contact decides, not {table.sticky}: {said}"
    if table.display_name.keys() - {"default"} and (said := doubtful(table.language, KNOWN)):
        yield "language", f"every chat gets the default name, whatever {table.language}: {said}"


def _may_fit_text(test: LeafTest) -> bool:
    return not isinstance(test, Between | Truth) and (
        not isinstance(test, Exactly) or isinstance(test.value, str)
    )


def _fields(table: s.Rule) -> Iterable[Field]:
    return dict.fromkeys(field for branch in _pattern(table).branches for field in branch)


def _never(branch: Branch, table: s.Rule, channel: str) -> tuple[str, str] | None:
    """Why the rule takes no event that this branch of its pattern does, if that is so."""
    for field in branch:
        if field.path == "detail.eventType":
            types = _accepted(field, EVENT_TYPES)
            takes = {one for one in EVENT_TYPES if effect(channel, one) is Effect.OPENS}
            takes |= {UPDATED} if "updates" in table.include else set()
            if types and not types & takes:
                return field.path, f"it never decides: rules are asked of {' and '.join(sorted(takes))} alone"
        if field.path == "detail.channel" and (asked := _accepted(field, CHANNELS)) and channel not in asked:
            return field.path, f"it never decides: its bots join {channel} contacts alone"
        if field.path == "detail.initiationMethod":
            kinds = [safety.kinds(_contact(method)) for method in _accepted(field, INITIATION_METHODS)]
            missing = sorted({kind for of_one in kinds for kind in of_one - set(table.include)})
            if kinds and all(of_one - set(table.include) for of_one in kinds):
                return field.path, _not_included(missing)
        guides = field.path.startswith("detail.segmentAttributes.connect:Subtype") and all(
            isinstance(test, Exactly) and test.value == "connect:Guide" for test in field.tests
        )
        if guides and "guides" not in table.include:
            return field.path, _not_included(["guides"])
    return None


def _not_included(kinds: list[str]) -> str:
    listed = ", ".join(f'"{kind}"' for kind in kinds)
    return f"it never decides: such contacts are left out unless it says include = [{listed}]"


def _accepted(field: Field, values: tuple[str, ...]) -> set[str]:
    return {value for value in values if any(test.accepts(value) for test in field.tests)}


def _contact(method: str) -> Contact:
    return Contact("", "", "CHAT", "", initiation_method=method)


def _pattern(table: s.Rule) -> Pattern:
    return compile_pattern(table.when)
