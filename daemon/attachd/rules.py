"""Rules × event → a bot and the rule that chose it, or no bot and the reason.

Pure: never a clock read, never I/O. First match wins, in the order of the configuration.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from attachd.errors import Permanent
from attachd.model import Bot, Choice, Contact, ContactEvent, Outcome
from attachd.patterns import EventError, Pattern


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: whom it is for, and what they get."""

    name: str
    when: Pattern
    bot: Bot
    priority: int = 0
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of one event, for ``attachd explain``."""

    rule: str
    matched: bool
    why: str


# A bot cannot join beside an agent, and these begin beside one, or are no customer's chat (admin guide,
# "Customize chat flow experiences by integrating custom participants"; "step-by-step guides").
_AGENT_METHODS: Final = {"TRANSFER", "QUEUE_TRANSFER", "MONITOR", "DISCONNECT"}


def unfit(contact: Contact) -> str | None:
    """Why no bot may be attached to such a contact, whatever the rules say; None if one may."""
    if contact.channel != "CHAT":
        return f"channel is {contact.channel or 'missing'}: only CHAT takes a custom bot"
    if contact.subtype == "connect:Guide":
        return "a step-by-step guide runs as a chat, but no customer is in it"
    if contact.initiation_method in _AGENT_METHODS:
        return f"initiation method is {contact.initiation_method}: an agent is there, or expected"
    return None


class Rules:
    """The rules in force."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)

    def choose(self, event: ContactEvent) -> Choice:
        """The first rule that matches decides.

        Raises:
            Permanent: ``no_bot``, with the reason; ``too_large`` if the event is beyond what can be matched.
        """
        if (reason := unfit(event.contact)) is not None:
            raise Permanent(Outcome.NO_BOT, detail=reason)
        with _matchable():
            rule = next((rule for rule in self._rules if rule.when.matches(event.document)), None)
        if rule is None:
            raise Permanent(Outcome.NO_BOT, detail="no rule matched")
        return Choice(rule.bot, rule.name, rule.priority, rule.patience)

    def explain(self, event: ContactEvent) -> Iterator[Verdict]:
        """Rule by rule, what matched and where it stopped.

        Raises:
            Permanent: ``too_large`` if the event is beyond what can be matched.
        """
        for rule in self._rules:
            with _matchable():
                mismatch = rule.when.explain(event.document)
            why = "every field matches" if mismatch is None else str(mismatch)
            yield Verdict(rule.name, matched=mismatch is None, why=why)


@contextmanager
def _matchable() -> Iterator[None]:
    try:
        yield
    except EventError as error:
        raise Permanent(Outcome.TOO_LARGE, detail=f"the event cannot be matched: {error}") from None
