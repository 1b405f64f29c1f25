"""A stream and a lease table in memory: what ``ports.Stream`` and ``ports.Leases`` promise, on the event loop's clock."""

from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio

from attachd.errors import Transient
from attachd.sources.kinesis import memory
from attachd.streams import Batch, Edge, Lease, Listing, Position, Record, Shard, Start


@dataclass(slots=True)
class _Log:
    """A shard of a stream in memory."""

    shard: Shard
    records: list[tuple[float, Record]] = field(default_factory=list)


class MemoryStream:
    """A stream whose shards can be split and merged, on the event loop's clock.

    Attributes:
        reads: from where each shard was read, in order.
        faults: by shard, exceptions to raise from the next reads of it; by "" from ``shards``.
        pace_seconds: how long a read waits for records before it brings an empty batch.
    """

    def __init__(self, name: str = "stream", shards: int = 1, *, pace_seconds: float = 1.0) -> None:
        self.name = name
        self.pace_seconds = pace_seconds
        self.reads: list[tuple[str, Start]] = []
        self.faults: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self._logs: dict[str, _Log] = {}
        self._sequence = 0
        self._arrived = anyio.Event()
        for _ in range(shards):
            self._grow()

    def put(self, body: bytes, shard_id: str = "") -> Position:
        """Add a record to that shard, or to the first that is open; says where it is."""
        log = self._logs[shard_id] if shard_id else next(x for x in self._logs.values() if not x.shard.closed)
        if log.shard.closed:
            raise ValueError(f"{log.shard.id} is closed")
        self._sequence += 1
        record = Record(self._sequence, body)
        log.records.append((anyio.current_time(), record))
        self._wake()
        return Position(record.sequence)

    def split(self, shard_id: str) -> tuple[str, str]:
        """Close the shard; its two children."""
        self._close(shard_id)
        return self._grow(shard_id), self._grow(shard_id)

    def merge(self, shard_id: str, adjacent_id: str) -> str:
        """Close both; their child."""
        self._close(shard_id)
        self._close(adjacent_id)
        return self._grow(shard_id, adjacent_id)

    def trim(self, shard_id: str) -> None:
        """The shard is older than the retention."""
        del self._logs[shard_id]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Stream``."""
        yield

    async def shards(self) -> Listing:
        """See ``ports.Stream``."""
        await anyio.lowlevel.checkpoint()
        if self.faults[""]:
            raise self.faults[""].popleft()
        return Listing(tuple(log.shard for log in self._logs.values()), anyio.current_time())

    async def read(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        """See ``ports.Stream``."""
        self.reads.append((shard_id, start))
        await anyio.lowlevel.checkpoint()
        at: int | None = None
        while True:
            if self.faults[shard_id]:
                raise self.faults[shard_id].popleft()
            if (log := self._logs.get(shard_id)) is None:
                raise Transient("no_such_shard", shard_id)
            at = self._begin(log, start) if at is None else at
            records = tuple(record for _, record in log.records[at : at + 1000])
            at += len(records)
            ended = log.shard.closed and at == len(log.records)
            children = frozenset(x.shard.id for x in self._logs.values() if shard_id in x.shard.parents)
            yield Batch(
                records, 0.0 if at == len(log.records) else 1.0, ended, children if ended else frozenset()
            )
            if ended:
                return
            if at == len(log.records):
                with anyio.move_on_after(self.pace_seconds):
                    await self._arrived.wait()

    @staticmethod
    def _begin(log: _Log, start: Start) -> int:
        match start:
            case Position(sequence=sequence):
                return sum(record.sequence < sequence for _, record in log.records)
            case Edge.TRIM_HORIZON:
                return 0
            case Edge():
                return len(log.records)
            case moment:
                return sum(at < moment for at, _ in log.records)

    def _grow(self, *parents: str) -> str:
        shard_id = f"shardId-{len(self._logs):012d}"
        self._logs[shard_id] = _Log(Shard(shard_id, frozenset(parents)))
        return shard_id

    def _close(self, shard_id: str) -> None:
        log = self._logs[shard_id]
        if log.shard.closed:
            raise ValueError(f"{shard_id} is closed")
        log.shard = replace(log.shard, closed=True)
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()


@dataclass
class MemoryLeases:
    """A lease table in memory, for as many workers as share it.

    Attributes:
        rows: the table.
        writes: every write that was let through, in order.
        faults: exceptions to raise from the next calls.
        down: while set, no call is answered: a partition.
    """

    rows: dict[str, Lease] = field(default_factory=dict)
    writes: list[Lease] = field(default_factory=list)
    faults: deque[Exception] = field(default_factory=deque)
    down: bool = False

    def __post_init__(self) -> None:
        self._kept = memory.MemoryLeases(self.rows)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Leases``."""
        yield

    async def all(self) -> Sequence[Lease]:
        """See ``ports.Leases``."""
        await self._reach()
        return await self._kept.all()

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        """See ``ports.Leases``."""
        await self._reach()
        before = self.rows.get(lease.shard)
        kept = await self._kept.put(lease, was)
        if self.rows.get(lease.shard) is not before:
            self.writes.append(lease)
        return kept

    async def drop(self, lease: Lease) -> None:
        """See ``ports.Leases``."""
        await self._reach()
        await self._kept.drop(lease)

    async def _reach(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.down:
            await anyio.sleep(2.0)
            raise Transient("timeout", "the lease table does not answer")
        if self.faults:
            raise self.faults.popleft()
