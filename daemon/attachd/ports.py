"""The seams: what the line needs of the world, and nothing that it does not.

A port is what two implementations share: one that does I/O and one in memory (``attachd.testing``), both held
to one contract suite (``tests/contract``). Adapters raise ``Transient``, ``Permanent`` and ``Misconfigured``
only; a foreign exception that leaves an adapter is a defect.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attachd.lifecycle import Entry
from attachd.model import AttachRequest, Beat, Delivery, Disposition, Handoff, Participant


class Source(Protocol):
    """Where deliveries come from. It never decides anything.

    ``receive`` and ``settle`` are called only while ``open()`` is entered. Everything received and not yet
    settled stays ours: the source keeps it from other consumers (visibility timeout, lease) until it is
    settled, through the drain as well.
    """

    name: str

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


class Attacher(Protocol):
    """Amazon Connect, as far as the line needs it. One call each; the retries are the line's."""

    async def attach(self, request: AttachRequest) -> Participant:
        """CreateParticipant, once.

        Raises:
            Transient: worth another try; ``ambiguous`` if the participant may exist all the same.
            Permanent: Connect refuses for good.
        """
        ...

    async def dismiss(self, participant: Participant) -> None:
        """Connect the participant and disconnect it, so that the contact flow takes its branch and goes on.

        Raises:
            Transient: Connect did not answer.
            Permanent: the participant is gone already.
        """
        ...


class Runtime(Protocol):
    """A bot's runtime: takes a participant over and speaks for it."""

    async def offer(self, handoff: Handoff) -> None:
        """Offer the participant, once; returns when the runtime has accepted, now or before.

        The runtime may see the same ``handoff.key`` more than once and must take it only once.

        Raises:
            Transient: not now; ``after`` if the runtime said when.
            Permanent: never: refused, or the runtime is retired.
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
