"""The seams: what the line needs of the world, and nothing that it does not.

A port is what two implementations share: one that does I/O and one in memory (``attachd.testing``), both held
to one contract suite (``tests/contract``). Adapters raise ``Transient``, ``Permanent`` and ``Misconfigured``
only; a foreign exception that leaves an adapter is a defect.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attachd.lifecycle import ALL, Entry, Wanted
from attachd.model import (
    AttachRequest,
    Beat,
    ChatEnded,
    Connection,
    ContactState,
    Delivery,
    Disposition,
    Handoff,
    Participant,
)
from attachd.streams import Batch, Lease, Listing, Start


class Source(Protocol):
    """Where deliveries come from. It never decides anything.

    ``receive`` and ``settle`` are called only while ``open()`` is entered. Everything received and not yet
    settled stays ours: the source keeps it from other consumers (visibility timeout, lease) until it is
    settled, through the drain as well.

    Attributes:
        name: what logs and metrics call it; no other source's.
        polls: how many ``receive`` may be under way at once.
        trouble: what of it does not work at present, a sentence each, though the rest of it does.
    """

    name: str
    polls: int

    @property
    def trouble(self) -> Sequence[str]: ...  # noqa: D102 - see above

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect, check that the source is there, keep what is in hand until it is left.

        Raises:
            Misconfigured: the source does not exist. It is never created.
        """
        ...

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries; waits for the first one, but not longer than the poll, then returns none.

        Not to be cancelled: a poll that is cut off in mid hand-over strands its messages. It returns by
        itself within the poll's wait.

        Raises:
            Transient: the source does not answer; ask again later.
        """
        ...

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """Do with the delivery as the disposition says; returns when the source has confirmed it.

        Raises:
            Transient: not confirmed. The source hands the delivery out again.
        """
        ...

    def drain(self) -> None:
        """No further ``receive`` will be called: let go at once of what nobody has in hand, for others to have.

        May be called at any time, and twice. What is in hand stays ours, and is settled as ever.
        """
        ...


class Attacher(Protocol):
    """Amazon Connect, as far as the line needs it. One call each; the retries are the line's.

    Every call raises ``Transient`` if it is worth another try (``ambiguous`` if it may have had its effect all the
    same), ``Permanent`` if Connect refuses for good.
    """

    async def attach(self, request: AttachRequest) -> Participant:
        """CreateParticipant, once."""
        ...

    async def stream(self, instance_id: str, contact_id: str, topic: str, client_token: str) -> None:
        """Have the chat's messages published to this SNS topic; the same ClientToken the same stream."""
        ...

    async def set_timers(self, instance_id: str, contact_id: str, timers: Mapping[str, int]) -> None:
        """Set the customer's idle timers, minutes by TimerType. Only before the chat has a bot."""
        ...

    async def read_attributes(self, instance_id: str, initial_contact_id: str) -> Mapping[str, str]:
        """The user attributes of the chat that began with this contact."""
        ...

    async def connect(self, participant: Participant) -> Connection:
        """Connect the participant. ``Permanent`` (``participant_gone``) if its 15 s are over."""
        ...

    async def disconnect(self, connection: Connection) -> None:
        """Disconnect a connected participant, so that the contact flow takes its branch and goes on."""
        ...

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:
        """Where the contact is."""
        ...


class Runtime(Protocol):
    """A bot's runtime: takes a participant over and speaks for it."""

    async def offer(self, handoff: Handoff) -> int | None:
        """Offer the participant, once; returns when the runtime has accepted, now or before.

        The runtime may see the same ``handoff.key`` more than once and must take it only once.

        Returns:
            How many chats the bot has open, if the runtime says so.

        Raises:
            Transient: not now; ``after`` if the runtime said when.
            Permanent: never: refused, or the runtime is retired.
        """
        ...

    async def ended(self, farewell: ChatEnded) -> None:
        """Tell the runtime, once, that a chat which it took is over; returns when it has heard, now or before.

        At once if it does not want to know. The runtime may see the same ``farewell.key`` more than once.

        Raises:
            Transient: not now; ``after`` if the runtime said when.
            Permanent: it will not hear of it.
        """
        ...

    async def probe(self) -> None:
        """Ask whether the runtime is there, without offering anything.

        Raises:
            Transient: it is not.
        """
        ...


class Journal(Protocol):
    """What is known of contacts, kept over restarts. Knows no rules: those are ``lifecycle``'s."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the store, with sole use of it where it is for one process only.

        Raises:
            Misconfigured: it cannot be opened, or another process has it.
            Transient: it cannot be opened now.
        """
        ...

    async def get(self, contact_id: str) -> Entry | None:
        """The contact's entry, if there is one.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def put(self, entry: Entry) -> Entry:
        """Write the entry if nothing, or the version before it, is stored; return what is stored afterwards.

        The caller lost the race if that is not the entry it gave. Durable when it returns.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def purge(self, before: float) -> int:
        """Forget entries last changed before that time; returns how many. None where the store does so itself."""
        ...

    def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """The entries that are wanted, in no order; one that changes meanwhile may come twice, or be missing.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def forget(self, entry: Entry) -> bool:
        """Forget a contact if this is what is stored of it; whether it was.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def recall(self, contact_id: str) -> None:
        """Have whoever serves from this journal take the contact up again.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def recalled(self) -> Sequence[str]:
        """The contacts that were recalled; each is told once, to one process.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def at_work(self) -> frozenset[str]:
        """The owners that are at work, as a bystander sees it; may take seconds of watching.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """Make known that this replica lives, and read what every replica said last, this one included.

        Written before it is read: of two that beat at once, one at least reads the other's. A beat that comes
        late never replaces one with a higher count. A journal for one process knows of no other.

        Raises:
            Transient: the store does not answer; the beat may be known all the same.
        """
        ...

    async def retire(self, beat: Beat) -> None:
        """Forget a replica, unless it has beaten again since that beat.

        Raises:
            Transient: the store does not answer.
        """
        ...


class Stream(Protocol):
    """A sharded stream, as far as its consumer needs it: which shards there are, and what is in each."""

    name: str

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect.

        Raises:
            Misconfigured: the stream does not exist. It is never created.
        """
        ...

    async def shards(self) -> Listing:
        """All the shards, those that are closed and still kept too.

        Raises:
            Transient: the stream does not answer, or answered only in part.
        """
        ...

    def read(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        """The shard's records in order, for ever, or until a batch says that the shard has ended.

        The record at a ``Position`` itself comes again, since only a part of it may be finished. There is a batch
        every few seconds, an empty one if nothing has come.

        Raises:
            Transient: the reading has broken off; read again from the last record. ``no_such_shard`` if the shard,
                or the whole stream, is not there; ``no_such_position`` if it is, and the position is not one of its.
        """
        ...


class Leases(Protocol):
    """Who reads which shard, and how far it is finished. Knows no rules: those are ``streams.Lease``'s moves."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Open the store.

        Raises:
            Misconfigured: it cannot be opened, or is not there. A table is never created.
            Transient: it cannot be opened now.
        """
        ...

    async def all(self) -> Sequence[Lease]:
        """Every lease, as last written by anybody.

        Raises:
            Transient: the store does not answer.
        """
        ...

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        """Write the lease if owner and counter stored are those of ``was`` (None: nothing is stored).

        Says whether the lease is stored now: then ``lease`` is what the writer holds, and otherwise somebody else has
        it. Durable when it returns.

        Raises:
            Transient: the store does not answer; the write may have happened, and may be repeated as it is.
        """
        ...

    async def drop(self, lease: Lease) -> None:
        """Forget the lease, if it is stored with that counter.

        Raises:
            Transient: the store does not answer.
        """
        ...
