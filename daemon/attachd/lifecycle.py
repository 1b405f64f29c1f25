"""A contact's stages, the one table of allowed moves, and who may make them.

Pure: an entry and the time go in, the next entry or a refusal comes out. Storing it, and racing for it, is
the journal's and ``claims``'s business. A move that the table does not allow raises and changes nothing.

    (none) ──► claimed ──► attaching ──► attached ──► handed_off ──► ended
      │           │         ▲  │ ▲          │  │                       ▲
      │           ▼         │  │ └─next gen─┘  │                       │
      │        closed ◄─────┼──┴───────────────┘                       │
      └─────────────────────┴──── any stage may end ───────────────────┘

An operator may open a ``closed`` contact again (``attachd contacts retry``): it is ``claimed`` by nobody then.
``ended`` for a contact that was never seen is a tombstone: the end came first, events being unordered.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Final

from attachd.effects import DEPARTURES, Effect
from attachd.model import Outcome

# Connect drops a custom participant that has not connected 15 s after CreateParticipant (admin guide, "Customize
# chat flow experiences by integrating custom participants"). When that was we know from both sides only: no sooner
# than our request left, no later than our client gave up on it.
WINDOW_SECONDS: Final = 15.0
#: A request may have its effect until its time-outs are over (2 s to connect, 4 s to read).
LAPSE_SECONDS: Final = WINDOW_SECONDS + 6.0
#: A try that begins later than this leaves a runtime no time.
USEFUL_SECONDS: Final = WINDOW_SECONDS - 4.0


#: Outcomes that end a contact for good: no later event of it is tried again.
CLOSING: Final = frozenset(
    {Outcome.REFUSED, Outcome.OCCUPIED, Outcome.UNSERVED, Outcome.ENDED, Outcome.AGENT_JOINED}
)


class Stage(StrEnum):
    """How far a contact has come."""

    CLAIMED = "claimed"  # ours to serve; nothing has been asked of Connect
    ATTACHING = "attaching"  # a CreateParticipant may have left
    ATTACHED = "attached"  # Connect made the participant
    HANDED_OFF = "handed_off"  # the runtime has it
    CLOSED = "closed"  # done with, without a bot
    ENDED = "ended"  # the contact is over, or beyond the reach of a bot


#: Nothing is to be done any more for a contact that has come so far.
FINAL: Final = frozenset({Stage.HANDED_OFF, Stage.CLOSED, Stage.ENDED})
UNFINISHED: Final = frozenset(Stage) - FINAL

MOVES: Final = {
    None: {Stage.CLAIMED, Stage.ENDED},
    Stage.CLAIMED: {Stage.CLAIMED, Stage.ATTACHING, Stage.CLOSED, Stage.ENDED},
    Stage.ATTACHING: {Stage.ATTACHING, Stage.ATTACHED, Stage.CLOSED, Stage.ENDED},
    Stage.ATTACHED: {Stage.ATTACHED, Stage.ATTACHING, Stage.HANDED_OFF, Stage.CLOSED, Stage.ENDED},
    Stage.HANDED_OFF: {Stage.ENDED},
    Stage.CLOSED: {Stage.CLAIMED, Stage.ENDED},
    Stage.ENDED: set[Stage](),
}


class IllegalMove(Exception):
    """A move that the table does not allow: a defect of ours, never of the world's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal keeps of a contact. Never a credential.

    Attributes:
        contact_id: the segment's contact id.
        stage: how far it has come.
        version: counts the writes; a write replaces only the version it was made from.
        changed_at: when it was last written.
        owner: the process that has it in hand; None when nobody has.
        generation: counts the participants asked for. It is part of the ClientToken.
        requested_at: when this generation's first CreateParticipant that may have had an effect left.
        participant_id: this generation's participant.
        bot: the bot chosen.
        rule: the rule that chose it.
        reason: why it closed or ended.
        runtime: who has it, once it is handed over.
        instance_arn: the instance that it is on.
        since: when the event happened that opened it, which a rule's patience is counted from.
        asked_at: when this generation's last request left that may have made the participant.
        display_name: what this generation's participant is called.
    """

    contact_id: str
    stage: Stage
    version: int
    changed_at: float
    owner: str | None = None
    generation: int = 1
    requested_at: float | None = None
    participant_id: str | None = None
    bot: str | None = None
    rule: str | None = None
    reason: str | None = None
    runtime: str | None = None
    instance_arn: str | None = None
    since: float | None = None
    asked_at: float | None = None
    display_name: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for.

    Attributes:
        stages: in one of these stages.
        bot: with this bot; with any or none, unless given.
        since: last changed then or later.
        before: last changed earlier than that.
    """

    stages: frozenset[Stage] = frozenset(Stage)
    bot: str | None = None
    since: float = -inf
    before: float = inf

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        return (
            entry.stage in self.stages
            and self.bot in {None, entry.bot}
            and self.since <= entry.changed_at < self.before
        )


#: Every entry.
ALL: Final = Wanted()


def move(entry: Entry, stage: Stage, now: float, **changes: object) -> Entry:
    """The entry one move on.

    Raises:
        IllegalMove: the table does not allow it.
    """
    if stage not in MOVES[entry.stage]:
        raise IllegalMove(f"contact {entry.contact_id} cannot go from {entry.stage} to {stage}")
    return replace(entry, stage=stage, version=entry.version + 1, changed_at=now, **changes)  # type: ignore[arg-type]


def claim(
    entry: Entry | None,
    contact_id: str,
    owner: str,
    now: float,
    *,
    instance_arn: str | None = None,
    since: float | None = None,
) -> Entry | Outcome:
    """Take a contact in hand, or say how its delivery ends instead.

    Whether another owner still lives is for the caller to judge: only a claim that is free, or whose owner is
    gone, may be written.
    """
    if entry is None:
        return Entry(
            contact_id,
            Stage.CLAIMED,
            version=1,
            changed_at=now,
            owner=owner,
            instance_arn=instance_arn,
            since=since,
        )
    match entry.stage:
        case Stage.HANDED_OFF | Stage.CLOSED:
            return Outcome.DUPLICATE
        case Stage.ENDED:
            return Outcome(entry.reason or Outcome.ENDED)
        case Stage.CLAIMED | Stage.ATTACHING | Stage.ATTACHED:
            return replace(entry, owner=owner, version=entry.version + 1, changed_at=now)


def release(entry: Entry, now: float) -> Entry:
    """Let go of a contact that is not finished; what was asked of Connect stays on record."""
    return replace(entry, owner=None, version=entry.version + 1, changed_at=now)


def reopen(entry: Entry, now: float) -> Entry:
    """Let a contact that was closed without a bot be claimed again; what was asked of Connect lapsed, or is not ours."""
    fresh = next_generation(entry) if entry.requested_at is not None else entry
    return move(fresh, Stage.CLAIMED, now, owner=None, reason=None)


def next_generation(entry: Entry) -> Entry:
    """This generation's participant is gone, for certain: the next request asks for a new one."""
    return replace(
        entry, generation=entry.generation + 1, requested_at=None, asked_at=None, participant_id=None
    )


def lapses_at(entry: Entry, lapse: float = LAPSE_SECONDS) -> float:
    """When this generation's participant has surely lapsed: any of its requests may be the one that made it."""
    return max(entry.requested_at or 0.0, entry.asked_at or 0.0) + lapse


def begin(entry: Entry, now: float, lapse: float = LAPSE_SECONDS) -> Entry:
    """Go to ``attaching``: the same generation until it has surely lapsed, the next one after.

    Before that the same ClientToken repeats the same request, so that a crash or a timeout cannot make a second
    participant. Past it the first participant's token is dead, so the next generation asks for a new one.
    """
    if entry.requested_at is None:
        return move(entry, Stage.ATTACHING, now, requested_at=now, asked_at=now)
    if now < lapses_at(entry, lapse):
        # Once we have seen the participant, a repeated request makes none.
        asked_at = now if entry.participant_id is None else entry.asked_at
        return move(entry, Stage.ATTACHING, now, asked_at=asked_at)
    return move(next_generation(entry), Stage.ATTACHING, now, requested_at=now, asked_at=now)


def closing(entry: Entry, now: float, useful: float = USEFUL_SECONDS, lapse: float = LAPSE_SECONDS) -> float:
    """Seconds until this generation has surely lapsed, if too little is left for a runtime to connect; else 0.

    The same generation is of no use any more then, and the next one may not be asked for yet.
    """
    if entry.requested_at is None or now < entry.requested_at + useful:
        return 0.0
    return max(0.0, lapses_at(entry, lapse) - now)


def accept(entry: Entry, runtime: str, now: float) -> Entry:
    """The runtime has it. A chat that was only queued meanwhile has its bot all the same: a customer queue flow may hold both."""
    if entry.stage is Stage.ENDED and entry.reason == Outcome.QUEUED:
        return replace(
            entry,
            stage=Stage.HANDED_OFF,
            version=entry.version + 1,
            changed_at=now,
            reason=None,
            runtime=runtime,
        )
    return move(entry, Stage.HANDED_OFF, now, runtime=runtime)


def handoff_key(entry: Entry) -> str:
    """The runtime's idempotency key for this generation's participant: the same after any crash, on any machine."""
    return f"{entry.contact_id}_{entry.generation}"


def client_token(instance_id: str, contact_id: str, generation: int) -> str:
    """CreateParticipant's idempotency token: the same after any crash, on any machine; 64 characters."""
    return hashlib.sha256(f"{instance_id}|{contact_id}|{generation}".encode()).hexdigest()


def end(entry: Entry | None, contact_id: str, effect: Effect, now: float) -> Entry | None:
    """The entry after an event that ends or changes the chat; None where it changes nothing.

    A chat that already has its bot is not ended by being queued: a customer queue flow may hold both.
    """
    reason = DEPARTURES[effect].value
    if entry is None:
        return Entry(contact_id, Stage.ENDED, version=1, changed_at=now, reason=reason)
    if entry.stage is Stage.ENDED:
        return None
    if effect is Effect.QUEUES and entry.stage in {Stage.HANDED_OFF, Stage.CLOSED}:
        return None
    return move(entry, Stage.ENDED, now, owner=None, reason=reason)
