"""One rule: what it asks of an event beside its pattern, and what it gives.

Pure: the event tells the time, and salts and keys are the only chance there is. Which rule is asked, and what becomes
of a rule that cannot tell without the contact's attributes, is ``rules``'s business.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from attachd import safety, schedules, splits
from attachd.effects import UPDATED, Effect, effect
from attachd.errors import Permanent
from attachd.model import Bot, Choice, ContactEvent, Outcome
from attachd.patterns import Pattern
from attachd.patterns.compile import spelled
from attachd.patterns.event import Wanted, flatten

#: Where attributes stand beside the event: ``attributes.vip``.
ATTRIBUTES: Final = "attributes"
_LONGEST_TAG: Final = 64  # of a text that somebody else wrote; RFC 5646 asks for room for 35
INITIAL_CONTACT: Final = "detail.initialContactId"


@dataclass(frozen=True, slots=True)
class Chance:
    """What a rule leaves to chance, and for whom it is the same chance again.

    Attributes:
        arms: bots by their weights; one of them goes before the rule's other bots.
        percent: so many of a hundred chats are the rule's; the others go on to the next rule.
        sticky: the path of a value; with the same value the same chance.
        salt: keeps the chances of two rules apart; the rule's name, unless given.
    """

    arms: tuple[tuple[Bot, int], ...] = ()
    percent: float = 100.0
    sticky: str = INITIAL_CONTACT
    salt: str | None = None


@dataclass(frozen=True, slots=True)
class Looks:
    """What a rule changes of its bots' recipes.

    Attributes:
        names: display names by language tag, and ``default``.
        language: the path of the language tag.
        topic: the SNS topic that the chat is streamed to.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    language: str = "detail.tags.language"
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: whom it is for, and what they get.

    Attributes:
        bots: in order of preference, after the one that chance chooses; none at all, and the rule says "no bot".
        active: any of these windows; always, if there is none.
        include: kinds of contact that are left out otherwise, of ``safety.INCLUDABLE``.
    """

    name: str
    when: Pattern
    bots: tuple[Bot, ...]
    priority: int = 0
    patience: float = 60.0
    fallback: str | None = None
    chance: Chance = Chance()
    looks: Looks = Looks()
    active: tuple[schedules.Window, ...] = ()
    include: frozenset[str] = frozenset()

    @property
    def every_bot(self) -> tuple[Bot, ...]:
        """Those in order of preference, and those that chance may choose."""
        return (*self.bots, *(bot for bot, _ in self.chance.arms))

    @property
    def role(self) -> str | None:
        """As which participant its bots join; None if it has none."""
        return next((bot.role for bot in (*self.bots, *(bot for bot, _ in self.chance.arms))), None)


class Unknown(Exception):
    """Somebody asks for an attribute, and they have not been read."""


class Seen:
    """An event, and the contact's attributes if they have been read."""

    def __init__(self, event: ContactEvent, attributes: Mapping[str, str] | None) -> None:
        self.event = event
        self.attributes = attributes
        self.document = (
            event.document if attributes is None else {**event.document, ATTRIBUTES: dict(attributes)}
        )

    def text(self, path: str) -> str | None:
        """The first value at a path, as text; None if there is none, or only null.

        Raises:
            Unknown: it is an attribute's, and they have not been read.
        """
        if self.attributes is None and of_attributes(path):
            raise Unknown
        values = (value for value, _ in flatten(self.document, Wanted.of([path])).values.get(path, ()))
        found = next((value for value in values if value is not None), None)
        return found if found is None or isinstance(found, str) else spelled(found)

    def key(self, rule: Rule) -> str:
        """What decides the rule's chance: the value at its path, or the chat's first contact."""
        return self.text(rule.chance.sticky) or self.event.contact.initial_id


def stopped(rule: Rule, seen: Seen) -> tuple[str, str]:
    """Where a rule whose pattern matches ends all the same, and why; two empty texts if it decides."""
    contact, event = seen.event.contact, seen.event
    if rule.role is not None and rule.role != safety.ROLES.get(contact.channel):
        return "role", f"its bot joins as {rule.role}, which this channel does not take"
    kinds = safety.kinds(contact)
    if effect(contact.channel, event.type) is not Effect.OPENS:
        if event.type != UPDATED:
            return "left out", f"{event.type} opens no {contact.channel} contact"
        kinds |= {"updates"}
    if rule.role is not None and (left_out := sorted(kinds - rule.include)):
        return "left out", f"it does not include {left_out[0]}: {safety.reason(left_out[0], contact)}"
    if rule.active and not any(window.holds(event.time) for window in rule.active):
        return "active", schedules.told(event.time, rule.active)
    chance = rule.chance
    if chance.percent < 100 and not splits.within(chance.percent, _salt(rule), seen.key(rule)):  # noqa: PLR2004 - all
        return (
            "percent",
            f"it is for {chance.percent:g} of 100 by {chance.sticky}, and this is not among them",
        )
    return "", ""


def choice(rule: Rule, seen: Seen) -> Choice:
    """What the rule gives.

    Raises:
        Permanent: no bot; it says so.
        Unknown: it cannot say without attributes.
    """
    if rule.role is None:
        raise Permanent(Outcome.NO_BOT, detail=f"rule {rule.name!r} says no bot")
    bots = dict.fromkeys(bot.name for bot in rule.bots)
    by_name = {bot.name: bot for bot in (*rule.bots, *(bot for bot, _ in rule.chance.arms))}
    if rule.chance.arms:
        won = splits.winner(
            {bot.name: weight for bot, weight in rule.chance.arms}, _salt(rule), seen.key(rule)
        )
        bots = {won: None, **bots}
    return Choice(
        tuple(_dressed(by_name[name], rule.looks, seen) for name in bots),
        rule.name,
        rule.priority,
        rule.patience,
        rule.fallback,
    )


def _dressed(bot: Bot, looks: Looks, seen: Seen) -> Bot:
    """A bot as the rule wants it to look."""
    if looks.topic is not None:
        bot = replace(bot, recipe=replace(bot.recipe, streaming_topic=looks.topic))
    if not looks.names:
        return bot
    names = {tag.casefold(): name for tag, name in looks.names.items()}
    tag = "default" if set(names) == {"default"} else _lookup(seen.text(looks.language) or "", names)
    return replace(bot, display_name=names.get(tag, bot.display_name))


def _lookup(language: str, tags: Iterable[str]) -> str:
    """The longest of the tags that a language tag begins with (RFC 4647, lookup); ``default`` if there is none."""
    known = set(tags)
    subtags = language[:_LONGEST_TAG].replace("_", "-").casefold().split("-")
    while subtags:
        if (tag := "-".join(subtags)) in known:
            return tag
        subtags.pop()
    return "default"


def gives(rule: Rule, seen: Seen) -> str:
    """What a rule that decides gives, in words."""
    try:
        chosen = choice(rule, seen)
    except Permanent:
        return "every field matches: no bot"
    split = f"; split by {rule.chance.sticky}" if rule.chance.arms else ""
    return f"every field matches: {', '.join(bot.name for bot in chosen.bots)}{split}"


def _salt(rule: Rule) -> str:
    return rule.name if rule.chance.salt is None else rule.chance.salt


def of_attributes(path: str) -> bool:
    """Whether a path leads to the contact's attributes."""
    return path == ATTRIBUTES or path.startswith(f"{ATTRIBUTES}.")
