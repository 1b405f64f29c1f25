"""Public in-memory ports, and a line over them, for this project's tests and for yours.

Each keeps its port's contract (``tests/contract`` holds both it and the real adapter to one suite), records
what it was asked, and fails on request.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf

import anyio

from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.model import (
    Acknowledge,
    AttachRequest,
    Beat,
    ChatEnded,
    Connection,
    ContactState,
    Delivery,
    Disposition,
    Handoff,
    Outcome,
    Participant,
    Quarantine,
    Release,
    Secret,
)


@dataclass(slots=True)
class _Message:
    delivery: Delivery
    visible_at: float = 0.0
    attempts: int = 0


class MemorySource:
    """A queue with a visibility timeout, on the event loop's clock; what is in hand is kept for as long as open.

    Attributes:
        settled: what was settled, in order, and how.
        quarantine: bodies put aside, with the reason.
        faults: exceptions to raise from the next calls of ``receive``.
    """

    polls = 1
    trouble = ()

    def __init__(self, name: str = "memory", *, poll_seconds: float = 5.0) -> None:
        self.name = name
        self.settled: list[tuple[Delivery, Disposition]] = []
        self.quarantine: list[tuple[bytes, str]] = []
        self.faults: deque[Exception] = deque()
        self._poll_seconds = poll_seconds
        self._messages: dict[str, _Message] = {}
        self._arrived = anyio.Event()

    def add(self, body: bytes) -> str:
        """Put a message on the queue; returns its id."""
        message_id = f"{self.name}-{len(self._messages) + len(self.settled) + 1}"
        self._messages[message_id] = _Message(Delivery(self.name, message_id, body, received_at=0.0))
        self._wake()
        return message_id

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def invisible(self) -> int:
        """Messages in somebody's hand."""
        now = anyio.current_time()
        return sum(message.visible_at > now for message in self._messages.values())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``. What is not settled at the end is visible again."""
        try:
            yield
        finally:
            for message in self._messages.values():
                if message.visible_at == float("inf"):
                    message.visible_at = 0.0

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        if self.faults:
            raise self.faults.popleft()
        until = anyio.current_time() + self._poll_seconds
        while not (ready := self._ready()) and anyio.current_time() < until:
            wake_at = min([until, *(m.visible_at for m in self._messages.values())])
            with anyio.move_on_at(wake_at):
                await self._arrived.wait()
        return [self._hand_out(message) for message in ready[:limit]]

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``."""
        self.settled.append((delivery, disposition))
        match disposition:
            case Acknowledge():
                self._messages.pop(delivery.id, None)
            case Release(after=after):
                if (message := self._messages.get(delivery.id)) is not None:
                    message.visible_at = anyio.current_time() + after
                    self._wake()
            case Quarantine(reason=reason):
                self._messages.pop(delivery.id, None)
                self.quarantine.append((delivery.body, reason))

    def drain(self) -> None:
        """See ``ports.Source``. Whatever is not in hand is visible."""

    def _ready(self) -> list[_Message]:
        now = anyio.current_time()
        return [message for message in self._messages.values() if message.visible_at <= now]

    def _hand_out(self, message: _Message) -> Delivery:
        message.attempts += 1
        message.visible_at = float("inf")
        return replace(message.delivery, attempt=message.attempts, received_at=anyio.current_time())

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()


@dataclass
class MemoryConnect:
    """Amazon Connect: one custom participant a contact, the same ClientToken the same participant.

    Attributes:
        requests: every call of ``attach``, in order, refused ones too.
        made: the participants by contact.
        dismissed: the ids of those that were connected and disconnected.
        streams: the topics by contact.
        timers: the timers by contact.
        states: what ``describe`` answers by contact; otherwise that the customer is there and nobody else.
        described: the contacts asked for, in order.
        faults: exceptions to raise from the next calls of ``attach``, before any effect.
        connect_faults: the same for ``connect``.
        attributes: user attributes by initial contact.
        attributes_read: the initial contacts whose attributes were asked for, in order.
        attribute_faults: exceptions to raise from the next calls of ``read_attributes``.
        lapse_seconds: a participant that has not connected by then is dropped, as Connect does after 15 s; never unless
            set, since runtimes in memory do not connect unless told to.
        marker: what every token begins with, to be searched for.
    """

    requests: list[AttachRequest] = field(default_factory=list)
    made: dict[str, Participant] = field(default_factory=dict)
    dismissed: list[str] = field(default_factory=list)
    streams: dict[str, set[str]] = field(default_factory=dict)
    timers: dict[str, dict[str, int]] = field(default_factory=dict)
    states: dict[str, ContactState] = field(default_factory=dict)
    described: list[str] = field(default_factory=list)
    faults: deque[Exception] = field(default_factory=deque)
    connect_faults: deque[Exception] = field(default_factory=deque)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    attributes_read: list[str] = field(default_factory=list)
    attribute_faults: deque[Exception] = field(default_factory=deque)
    lapse_seconds: float = inf
    marker: str = "token"
    _connected: set[str] = field(default_factory=set)
    _made_at: dict[str, float] = field(default_factory=dict)
    _by_token: dict[str, Participant] = field(default_factory=dict)

    async def attach(self, request: AttachRequest) -> Participant:
        """See ``ports.Attacher``."""
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()
        if (known := self._by_token.get(request.client_token)) is not None:
            return known
        if self._there(request.contact_id):
            raise Permanent(Outcome.OCCUPIED, "quota_exceeded", "a custom participant is there already")
        participant = Participant(
            id=f"participant-{len(self._by_token) + 1}",
            token=Secret(f"{self.marker}-{request.client_token[:8]}"),
            expiry="2026-01-02T00:00:00Z",
        )
        self.made[request.contact_id] = self._by_token[request.client_token] = participant
        self._made_at[participant.id] = anyio.current_time()
        return participant

    def join(self, participant: Participant) -> None:
        """The bot connects.

        Raises:
            Permanent: its participant has lapsed.
        """
        if self._lapsed(participant):
            raise Permanent(Outcome.UNSERVED, "participant_gone")
        self._connected.add(participant.id)

    def _there(self, contact_id: str) -> bool:
        return contact_id in self.made and not self._lapsed(self.made[contact_id])

    def _lapsed(self, participant: Participant) -> bool:
        if participant.id in self._connected:
            return False
        return anyio.current_time() - self._made_at[participant.id] > self.lapse_seconds

    async def stream(self, _instance_id: str, contact_id: str, topic: str, _client_token: str) -> None:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        self.streams.setdefault(contact_id, set()).add(topic)

    async def set_timers(self, _instance_id: str, contact_id: str, timers: Mapping[str, int]) -> None:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        self.timers[contact_id] = dict(timers)

    async def read_attributes(self, _instance_id: str, initial_contact_id: str) -> Mapping[str, str]:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        self.attributes_read.append(initial_contact_id)
        if self.attribute_faults:
            raise self.attribute_faults.popleft()
        return self.attributes.get(initial_contact_id, {})

    async def connect(self, participant: Participant) -> Connection:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        if self.connect_faults:
            raise self.connect_faults.popleft()
        self.join(participant)
        return Connection(Secret(f"{self.marker}-connection-{participant.id}"), "2026-01-02T00:00:00Z")

    async def disconnect(self, connection: Connection) -> None:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        self.dismissed.append(connection.token.reveal().partition("-connection-")[2])

    async def describe(self, _instance_id: str, contact_id: str) -> ContactState:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        self.described.append(contact_id)
        there = ContactState(connected=True, queued=False, agent=False, ended=False)
        return self.states.get(contact_id, there)


@dataclass
class MemoryRuntime:
    """A runtime that accepts each key once.

    Attributes:
        accepted: what it took, by key.
        ends: the chats that it was told were over, by key.
        offers: the keys of every offer, in order, refused ones too.
        faults: exceptions to raise when it is next offered or told something.
        down: as long as it is set, every offer, every end and every probe fails with it.
        chats: how many chats it says to have; nothing unless set.
        connect: where its bots join when they accept; nowhere unless set.
    """

    accepted: dict[str, Handoff] = field(default_factory=dict)
    ends: dict[str, ChatEnded] = field(default_factory=dict)
    offers: list[str] = field(default_factory=list)
    faults: deque[Transient | Permanent] = field(default_factory=deque)
    down: Transient | None = None
    chats: int | None = None
    connect: MemoryConnect | None = None

    async def offer(self, handoff: Handoff) -> int | None:
        """See ``ports.Runtime``."""
        self.offers.append(handoff.key)
        await self._answer()
        if self.connect is not None and handoff.key not in self.accepted:
            self.connect.join(handoff.participant)
        self.accepted.setdefault(handoff.key, handoff)
        return self.chats

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""
        await self._answer()
        self.ends.setdefault(farewell.key, farewell)

    async def _answer(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.down is not None:
            raise self.down
        if self.faults:
            raise self.faults.popleft()

    async def probe(self) -> None:
        """See ``ports.Runtime``."""
        await anyio.lowlevel.checkpoint()
        if self.down is not None:
            raise self.down


class MemoryTable(MemoryJournal):
    """One journal for several replicas in one process, as a DynamoDB table is for several processes."""

    def __init__(self) -> None:
        super().__init__()
        self._beats: dict[str, Beat] = {}

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``."""
        await anyio.lowlevel.checkpoint()
        self._beats[beat.owner] = beat
        return list(self._beats.values())

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        await anyio.lowlevel.checkpoint()
        self._beats.pop(beat.owner, None)

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``."""
        return frozenset(self._beats)
