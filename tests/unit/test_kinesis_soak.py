"""Memory over a long run: what is finished is forgotten."""

import gc
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio

from attachd.model import Acknowledge, Release
from attachd.streams import Batch, Lease, Listing, Position, Record, Shard, Start
from attachd.testing import MemoryLeases, MemoryStream
from unit.test_kinesis import consumer

RECORDS = 30_000
SHARDS = 4


class Endless(MemoryStream):
    """Makes its records when they are read, and keeps none."""

    def __init__(self) -> None:
        super().__init__(shards=0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def shards(self) -> Listing:
        return Listing(tuple(Shard(f"shardId-{n:012d}") for n in range(SHARDS)), anyio.current_time())

    async def read(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        assert shard_id
        at = start.sequence if isinstance(start, Position) else 0
        while True:
            await anyio.sleep(1.0)
            yield Batch(tuple(Record(at + n, b"x" * 2000) for n in range(1000)))
            at += 1000


async def test_a_long_run_keeps_nothing_of_what_is_finished() -> None:
    leases = MemoryLeases()
    leases.writes = Forgetful()
    source = consumer(Endless(), leases)
    measured: list[int] = []
    tracemalloc.start()
    try:
        async with source.open():
            for n in range(RECORDS):
                if n % (RECORDS // 6) == 0:
                    gc.collect()
                    measured.append(tracemalloc.get_traced_memory()[0])
                deliveries = await source.receive(1)
                for delivery in deliveries:
                    released = n % 50 == 0 and delivery.attempt == 1
                    await source.settle(delivery, Release(1.0) if released else Acknowledge())
    finally:
        tracemalloc.stop()
    first, *rest = measured[1:]
    assert max(rest) - first < 6_000_000, measured  # a batch or two: what is read ahead comes and goes
    assert sum(lease.position.sequence for lease in leases.rows.values() if lease.position) > RECORDS * 0.9


class Forgetful(list[Lease]):
    """The table's record of its writes is the test's, and not to be measured."""

    def append(self, _: Lease, /) -> None:
        return
