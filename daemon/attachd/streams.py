"""The nouns of a sharded stream: positions, shards, records, leases, and the moves that a lease allows.

Pure: no I/O, no clock. A lease is a row of the Kinesis Client Library's lease table, in its words ("Lease table" in
the Amazon Kinesis developer guide; ``DynamoDBLeaseSerializer`` in awslabs/amazon-kinesis-client), so that such an
application can go on where attachd stopped, and the other way round.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

SHARD_END: Final = "SHARD_END"


class Edge(StrEnum):
    """A place to begin that is no record; the same words in the API, in the lease table and in the settings."""

    TRIM_HORIZON = "TRIM_HORIZON"  # the oldest record that is kept
    LATEST = "LATEST"  # what is put from now on
    AT_TIMESTAMP = "AT_TIMESTAMP"  # what was put at a moment or later


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A record's place in its shard. Compared as integers: as text, "9" would come after "10".

    Attributes:
        sequence: the Kinesis record's sequence number.
        sub: which of an aggregated record's, from 0; a plain record's is 0.
        written: the sequence number as the stream wrote it, if otherwise than we would: it wants it back like that.
    """

    sequence: int
    sub: int = 0
    written: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return self.written or str(self.sequence)


Start = Position | float | Edge
"""Where to read on: after that position, from that moment (seconds since the epoch), or from an edge."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the stream lists it. ``parents``: one after a split, two after a merge."""

    id: str
    parents: frozenset[str] = frozenset()
    closed: bool = False
    hash_range: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All the shards there are, and the stream's own clock when it said so."""

    shards: tuple[Shard, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Record:
    """A Kinesis record, as it was put. ``written``: its sequence number, as in ``Position``."""

    sequence: int
    data: bytes = field(repr=False)
    written: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read brought.

    Attributes:
        records: in order.
        behind: seconds between what was read and the shard's newest.
        ended: the shard is closed, and this was the last of it.
        children: what follows a shard that has ended, as far as the stream says.
    """

    records: tuple[Record, ...] = ()
    behind: float = 0.0
    ended: bool = False
    children: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lease:
    """Who reads a shard, and how far everything in it is finished.

    Attributes:
        shard: leaseKey; the shard's id.
        checkpoint: a sequence number in decimal, an ``Edge``, or SHARD_END. Everything up to it is finished.
        sub: checkpointSubSequenceNumber.
        owner: leaseOwner; nobody's if None.
        counter: leaseCounter. Every write adds one: its standing still is how a dead owner is known.
        switches: ownerSwitchesSinceCheckpoint.
        parents: parentShardId, a set.
        children: childShardIds, a set; known once the shard has ended.
        hash_range: startingHashKey and endingHashKey.
        since: ours, and unknown to the library: the moment that LATEST or AT_TIMESTAMP meant when the lease was
            made, so that a restart before the first record skips nothing.
    """

    shard: str
    checkpoint: str
    sub: int = 0
    owner: str | None = None
    counter: int = 0
    switches: int = 0
    parents: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    hash_range: tuple[str, str] | None = None
    since: float | None = None

    @property
    def position(self) -> Position | None:
        """The last finished record, if there is one."""
        return (
            Position(int(self.checkpoint), self.sub, self.checkpoint) if self.checkpoint.isdecimal() else None
        )

    @property
    def finished(self) -> bool:
        """Whether the shard has ended and all of it is finished."""
        return self.checkpoint == SHARD_END

    @property
    def start(self) -> Start:
        """Where to read on."""
        if (position := self.position) is not None:
            return position
        if self.checkpoint in {Edge.LATEST, Edge.AT_TIMESTAMP} and self.since is not None:
            return self.since
        # AT_TIMESTAMP of a library's application does not say which: better all than too little.
        return Edge.LATEST if self.checkpoint == Edge.LATEST else Edge.TRIM_HORIZON

    def taken(self, owner: str) -> "Lease":
        """Ours from now on."""
        switched = self.owner is not None and self.owner != owner
        return replace(
            self, owner=owner, counter=self.counter + 1, switches=self.switches + (1 if switched else 0)
        )

    def renewed(self) -> "Lease":
        """Still ours."""
        return replace(self, counter=self.counter + 1)

    def finished_to(self, position: Position) -> "Lease":
        """Still ours, and everything up to that position finished.

        Raises:
            ValueError: that would be a step back.
        """
        if self.finished or (self.position is not None and position < self.position):
            raise ValueError(f"checkpoint {self.checkpoint} cannot go back to {position}")
        return replace(self, checkpoint=str(position), sub=position.sub, counter=self.counter + 1, switches=0)

    def ended(self, children: Iterable[str]) -> "Lease":
        """The shard has ended, and all of it is finished."""
        return replace(
            self,
            checkpoint=SHARD_END,
            sub=0,
            counter=self.counter + 1,
            switches=0,
            children=self.children | frozenset(children),
        )

    def begun_anew(self) -> "Lease":
        """Nobody's, and nothing of the shard finished: it is not the shard that this was the lease of."""
        return replace(self.released(), checkpoint=Edge.TRIM_HORIZON, sub=0, switches=0, since=None)

    def released(self) -> "Lease":
        """Nobody's, for the next one to take at once."""
        return replace(self, owner=None, counter=self.counter + 1)
