"""The nouns: frozen data that the stations pass to each other.

Nothing here does anything: no I/O, no clock, no callables held. Times are seconds since the Unix epoch, UTC.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn


class Secret:
    """A bearer credential that refuses to be shown, stored or copied by accident.

    ``reveal()`` is the one way in, so that every use can be found by searching for it. ``repr``, ``str`` and
    ``format`` show a placeholder, and so does whatever prints them, tracebacks and ``json.dumps(default=str)``
    included; pickling, copying, hashing, JSON and msgspec encoding raise. Two are compared in a time that tells
    nothing of where they differ.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The credential itself. Call it only where it goes on the wire."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(…)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not to be pickled or copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not to be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is not to be pickled or copied")

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a Secret has no kinds, which might show it")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return False
        mine, theirs = (value.encode("utf-8", "surrogatepass") for value in (self.__value, other.reveal()))
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]  # a secret in a set is a secret in memory for no reason


class Outcome(StrEnum):
    """How a delivery ends: exactly one each, and their sum is the deliveries received."""

    # The chat has its bot.
    ATTACHED = "attached"
    DUPLICATE = "duplicate"  # an earlier delivery saw this contact through
    # Nothing was to be done.
    NO_BOT = "no_bot"  # no rule chose one
    NOTED = "noted"  # an event that ends or changes a chat, taken into the journal
    IGNORED = "ignored"  # an event type that changes nothing for us
    UNKNOWN_TYPE = "unknown_event_type"
    # The contact left, or ran out of time, before a token was spent on it.
    ENDED = "ended"
    QUEUED = "queued"  # it waits for an agent
    AGENT_JOINED = "agent_joined"
    EXPIRED = "expired"  # older than the rule's patience
    # Connect or the runtime said no, for good.
    REFUSED = "refused"  # Connect refuses the request
    OCCUPIED = "occupied"  # Connect says that the chat has, or cannot have, a custom participant
    UNSERVED = "unserved"  # no runtime took the participant; it was connected and disconnected
    # Not now.
    DEFERRED = "deferred"
    INTERRUPTED = "interrupted"  # the drain ended before it did
    FAILED = "failed"  # a defect of ours: logged with its traceback, released
    # Bodies that are not for us.
    NOT_JSON = "not_json"
    NOT_A_CONTACT_EVENT = "not_a_contact_event"
    TOO_LARGE = "too_large"
    NO_CONTACT_ID = "no_contact_id"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event as a source handed it over.

    Attributes:
        source: the source's name.
        id: the source's own id of the message, for logs.
        body: the bytes, untouched.
        received_at: when we got it.
        attempt: how often the source has handed this message out, this time included.
        handle: what the source needs to settle it; opaque to everybody else, and never logged.
    """

    source: str
    id: str
    body: bytes
    received_at: float
    attempt: int = 1
    handle: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The event is done with: delete it, or move the checkpoint past it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Hand the event out again, ``after`` seconds from now."""

    after: float


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The event can never succeed: keep it aside, with the reason, and go on."""

    reason: str


Disposition = Acknowledge | Release | Quarantine


@dataclass(frozen=True, slots=True)
class Contact:
    """A chat segment, as its events describe it (admin guide, "Amazon Connect contact events").

    ``initial_id`` is the contact's own id where the event names none: both documented CHAT samples leave it
    out for a first contact. ``segment_attributes`` are flattened to their plain values.
    """

    id: str
    instance_arn: str
    channel: str
    initial_id: str
    previous_id: str | None = None
    related_id: str | None = None
    initiation_method: str | None = None
    initiated_at: float | None = None
    segment_attributes: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def instance_id(self) -> str:
        """The last part of ``arn:P:connect:R:A:instance/I``."""
        return self.instance_arn.rpartition("/")[2]

    @property
    def subtype(self) -> str | None:
        """``connect:Chat``, ``connect:SMS``, ``connect:Guide`` …, where the event says."""
        value = self.segment_attributes.get("connect:Subtype")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """A decoded contact event. ``document`` is the whole event, as rules see it."""

    id: str
    type: str
    time: float
    contact: Contact
    document: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done for a bot beside CreateParticipant.

    Attributes:
        streaming_topic: StartContactStreaming to this SNS topic first.
        timers: UpdateParticipantRoleConfig first: the customer's timers, minutes by TimerType.
        connect: CreateParticipantConnection afterwards; the runtime is handed a connection token.
    """

    streaming_topic: str | None = None
    timers: Mapping[str, int] = field(default_factory=dict)
    connect: bool = False

    @property
    def prepares(self) -> bool:
        """Whether anything must be called before CreateParticipant."""
        return self.streaming_topic is not None or bool(self.timers)


@dataclass(frozen=True, slots=True)
class Bot:
    """A bot that can be attached.

    ``role`` and ``capabilities`` go into CreateParticipant as they are (API reference, ParticipantDetails).
    """

    name: str
    display_name: str
    runtime: str
    role: str = "CUSTOM_BOT"
    capabilities: Mapping[str, str] = field(default_factory=dict)
    recipe: Recipe = Recipe()


@dataclass(frozen=True, slots=True)
class Choice:
    """The bots that the rules choose for an event, in order of preference, by which rule.

    ``priority``: higher goes first where chats wait. ``patience``: an event older than so many seconds gets no
    bot any more. ``fallback``: the runtime that is offered a participant that the bot's own does not take.
    """

    bots: tuple[Bot, ...]
    rule: str
    priority: int = 0
    patience: float = 60.0
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Everything that CreateParticipant takes."""

    instance_id: str
    contact_id: str
    client_token: str
    display_name: str
    role: str = "CUSTOM_BOT"
    capabilities: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """A participant's connection. ``expiry`` is Connect's own ISO 8601 text: a day."""

    token: Secret
    expiry: str


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant that CreateParticipant made. ``expiry`` is Connect's own ISO 8601 text.

    ``connection`` is there if the bot's recipe has us connect it.
    """

    id: str
    token: Secret
    expiry: str
    connection: Connection | None = None


@dataclass(frozen=True, slots=True)
class ContactState:
    """What DescribeContact tells of a contact, as far as a bot's place in it goes; and the contact itself."""

    connected: bool
    queued: bool
    agent: bool
    ended: bool
    contact: Contact | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Handoff:
    """What a runtime needs to become the participant.

    Attributes:
        key: stable over every retry and restart; the runtime's idempotency key.
        connect_by: when Connect stops accepting the token: 15 s after our request left.
    """

    key: str
    contact: Contact
    bot: Bot
    rule: str
    generation: int
    participant: Participant
    connect_by: float


@dataclass(frozen=True, slots=True)
class ChatEnded:
    """What a runtime is told of a chat that it took, once the chat is over or beyond a bot's reach.

    Attributes:
        key: stable over every retry and restart, and none of a hand-off's.
        bot: its name.
        generation: of the hand-off that the runtime accepted.
        reason: ``ended``, or ``agent_joined``.
    """

    key: str
    contact: Contact
    bot: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What a replica says of itself to the others on the same journal.

    Attributes:
        owner: the replica; a name new with every start.
        count: goes up with every beat.
        waiting: how many contacts wait there for the account's quota.
        reserved: the part of the account's rate, 0 to 1, of which it uses no more.
    """

    owner: str
    count: int
    waiting: int
    reserved: float
