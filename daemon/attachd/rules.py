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
    bots: tuple[Bot, ...]
    priority: int = 0
    patience: float = 60.0
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of one event, for ``attachd explain``."""

    rule: str
    matched: bool
    why: str


# A bot cannot join beside an agent, and these begin beside one, or are no customer's chat (admin guide,
# "Customize chat flow experiences by integrating custom participants"; "step-by-step guides").
_AGENT_METHODS: Final = {"TRANSFER", "QUEUE_TRANSFER", "MONITOR", "DISCONNECT"}


#: As which participant a bot joins a contact of a channel (API reference, CreateParticipant).
ROLES: Final = {"CHAT": "CUSTOM_BOT", "VOICE": "CUSTOMER"}


def unfit(contact: Contact) -> str | None:
    """Why no bot may be attached to such a contact, whatever the rules say; None if one may."""
    if contact.channel == "VOICE":
        return _unfit_call(contact)
    if contact.channel != "CHAT":
        return f"channel is {contact.channel or 'missing'}: only CHAT takes a custom bot"
    if contact.subtype == "connect:Guide":
        return "a step-by-step guide runs as a chat, but no customer is in it"
    if contact.initiation_method in _AGENT_METHODS:
        return f"initiation method is {contact.initiation_method}: an agent is there, or expected"
    return None


def _unfit_call(contact: Contact) -> str | None:
    """Only a WebRTC call takes a further participant, and by its initial contact.

    Each that joins makes a contact of its own, which must not be given another in turn (admin guide, "Integrate
    in-app, web, video calling, and screen sharing").
    """
    if contact.initiation_method != "WEBRTC_API":
        return (
            f"initiation method is {contact.initiation_method}: of calls, only WEBRTC_API takes a participant"
        )
    if contact.previous_id is not None or contact.initial_id != contact.id:
        return "not the call's initial contact: somebody joined by it"
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
            role = ROLES[event.contact.channel]
            rule = next(
                (r for r in self._rules if r.bots[0].role == role and r.when.matches(event.document)), None
            )
        if rule is None:
            raise Permanent(Outcome.NO_BOT, detail="no rule matched")
        return Choice(rule.bots, rule.name, rule.priority, rule.patience, rule.fallback)

    def explain(self, event: ContactEvent) -> Iterator[Verdict]:
        """Rule by rule, what matched and where it stopped.

        Raises:
            Permanent: ``too_large`` if the event is beyond what can be matched.
        """
        for rule in self._rules:
            with _matchable():
                mismatch = rule.when.explain(event.document)
            why = "every field matches" if mismatch is None else str(mismatch)
            matched = mismatch is None
            if matched and rule.bots[0].role != ROLES.get(event.contact.channel):
                matched, why = (
                    False,
                    f"its bot joins as {rule.bots[0].role}, which this channel does not take",
                )
            yield Verdict(rule.name, matched=matched, why=why)


@contextmanager
def _matchable() -> Iterator[None]:
    try:
        yield
    except EventError as error:
        raise Permanent(Outcome.TOO_LARGE, detail=f"the event cannot be matched: {error}") from None
