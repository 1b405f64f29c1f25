"""A stream's consumer, in virtual time, over a stream and a lease table in memory.

R1 to R9 are the defects that were reproduced in another consumer; the tests that need the wire for theirs are in
``tests/integration/test_kinesis.py``.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from attachd.errors import Transient
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release
from attachd.progress import Progress
from attachd.sources.kinesis import shard as one_shard
from attachd.sources.kinesis.shard import Held
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.timing import Timing
from attachd.streams import SHARD_END, Edge, Lease, Listing, Position
from attachd.testing import MemoryLeases, MemoryStream
from unit.kpl import aggregated

FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))
LEASE_SECONDS = 10.0


@dataclass
class Kept:
    """A quarantine in memory."""

    bodies: list[tuple[bytes, str]] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def put(self, body: bytes, message_id: str, reason: str) -> bool:
        assert message_id
        await anyio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.pop()
        self.bodies.append((body, reason))
        return True


def consumer(
    stream: MemoryStream,
    leases: MemoryLeases,
    owner: str = "us",
    *,
    start: Edge | float = Edge.TRIM_HORIZON,
    aside: Kept | None = None,
    poll: float = 5.0,
    progress: Progress | None = None,
) -> KinesisSource:
    return KinesisSource(
        stream,
        leases,
        aside=aside,
        owner=owner,
        start=start,
        timing=Timing(poll=poll, lease=LEASE_SECONDS),
        progress=progress or Progress(anyio.current_time),
        now=lambda: 0.0,
        dice=random.Random(owner),
    )


async def everything(source: KinesisSource, *, polls: int = 1) -> list[Delivery]:
    """What there is, until so many polls in a row bring nothing."""
    received: list[Delivery] = []
    empty = 0
    while empty < polls:
        batch = await source.receive(10)
        received += batch
        empty = 0 if batch else empty + 1
    return received


async def settle(
    source: KinesisSource, deliveries: Sequence[Delivery], disposition: Disposition | None = None
) -> None:
    for delivery in deliveries:
        await source.settle(delivery, disposition or Acknowledge())


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def numbered(stream: MemoryStream, count: int, shard: str = FIRST, *, of: int = 0) -> list[bytes]:
    put = [b"%d" % n for n in range(of, of + count)]
    for body in put:
        stream.put(body, shard)
    return put


# ── the nine ───────────────────────────────────────────────────────────────────────────────────


async def test_r1_a_handler_that_stalls_for_34_seconds_loses_nothing() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    put = numbered(stream, 40)
    source, rival = consumer(stream, leases), consumer(stream, leases, "rival")
    async with source.open(), rival.open():
        received = list(await source.receive(10))
        await anyio.sleep(34)  # nothing is settled, nothing asked for
        await settle(source, received)
        rest = await everything(source)
        assert bodies(received + rest) == put
        await settle(source, rest)
        assert list(await rival.receive(10)) == []
    assert leases.rows[FIRST].position == Position(40)
    assert leases.rows[FIRST].switches == 0


async def test_r2_a_record_that_can_never_succeed_halts_nothing_and_is_not_read_again() -> None:
    stream, leases, aside = MemoryStream(), MemoryLeases(), Kept()
    stream.put(b"good")
    stream.put(b"\xf3\x89\x9a\xc2 not what it says")
    stream.put(b"better")
    async with consumer(stream, leases, aside=aside).open():
        pass
    source = consumer(stream, leases, aside=aside)
    async with source.open():
        good, bad, better = await everything(source)
        await settle(source, [good, better])
        await settle(source, [bad], Quarantine("not_json"))
    assert aside.bodies == [(b"\xf3\x89\x9a\xc2 not what it says", "not_json")]
    source = consumer(stream, leases, aside=aside)
    async with source.open():
        assert await everything(source) == []


async def test_r3_a_record_on_one_of_ten_idle_shards_is_there_within_a_read() -> None:
    stream = MemoryStream(shards=10)
    source = consumer(stream, MemoryLeases())
    async with source.open():
        assert await everything(source) == []
        for shard in range(10):
            stream.put(b"now", f"shardId-{shard:012d}")
            began = anyio.current_time()
            (delivery,) = await source.receive(10)
            assert anyio.current_time() - began <= stream.pace_seconds
            await source.settle(delivery, Acknowledge())


async def test_r4_a_reading_that_breaks_off_before_the_first_record_skips_none() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 3)
    await anyio.sleep(60)
    async with consumer(stream, leases, start=Edge.LATEST).open():
        await anyio.sleep(3)  # made at LATEST; nothing was put, nothing read
    await anyio.sleep(60)
    put = numbered(stream, 6, of=3)
    stream.faults[FIRST].append(Transient("iterator_expired"))
    source = consumer(stream, leases, start=Edge.LATEST)
    async with source.open():
        assert bodies(await everything(source, polls=3)) == put


async def test_r5_a_shard_whose_reading_fails_over_and_over_is_read_again_and_said_to_be_failing() -> None:
    stream = MemoryStream()
    stream.faults[FIRST].extend([Transient("iterator_expired"), *[Transient("throttled")] * 4])
    stream.put(b"{}")
    source = consumer(stream, MemoryLeases(), poll=1.0)
    async with source.open():
        with pytest.raises(Transient) as failed:
            await source.receive(10)
        assert failed.value.reason in {"iterator_expired", "throttled"}
        received: list[Delivery] = []
        with anyio.fail_after(60):
            while not received:
                try:
                    received += await source.receive(10)
                except Transient:
                    continue
        assert bodies(received) == [b"{}"]
        assert source._share.trouble == []


async def test_a_shard_that_fails_is_told_and_makes_no_other_wait() -> None:
    stream, leases = MemoryStream(shards=2), MemoryLeases()
    stream.faults[FIRST].extend(Transient("InvalidArgumentException") for _ in range(100))
    source = consumer(stream, leases)
    async with source.open():
        assert await source.receive(10) == []  # and raises nothing, after which the line would back off
        assert source.trouble == ["InvalidArgumentException"]
        stream.faults[SECOND].extend(Transient("throttled") for _ in range(100))
        await anyio.sleep(1.5)
        with pytest.raises(Transient):  # nothing works now
            await source.receive(10)
        stream.faults.clear()
        await anyio.sleep(30)
        assert source.trouble == []


async def test_a_shard_falls_behind_by_the_second_while_it_is_not_read() -> None:
    stream, leases = MemoryStream(shards=2), MemoryLeases()
    source = consumer(stream, leases)
    async with source.open():
        await anyio.sleep(60)
        assert source.behind <= stream.pace_seconds
        stream.faults[FIRST].extend(Transient("access_denied") for _ in range(1000))
        await anyio.sleep(60)
        assert source.behind == pytest.approx(60, abs=1.5)


async def test_a_shard_that_cannot_be_read_is_a_line_a_minute_in_the_log_and_one_when_it_is_over() -> None:
    stream = MemoryStream()
    source = consumer(stream, MemoryLeases())
    with capture_logs() as said:
        async with source.open():
            stream.faults[FIRST].extend(Transient("not_found") for _ in range(40))
            await anyio.sleep(1200)
    told = [line for line in said if line["event"].startswith("kinesis.read_")]
    assert (told[-1]["event"], told[-1]["failures"]) == ("kinesis.read_answers", 40)
    assert {line["event"] for line in told[:-1]} == {"kinesis.read_failed"}
    assert 1 < len(told) - 1 <= 1 + told[-1]["seconds"] / 60


async def test_a_record_that_is_never_finished_stops_its_shard_in_the_end_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(one_shard, "_UNFINISHED", 50)
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 1000)
    source = consumer(stream, leases)
    with capture_logs() as said:
        async with source.open():
            (first,) = await source.receive(1)
            await source.settle(first, Release(3600.0))
            rest = await everything(source)
            await settle(source, rest)
            assert 50 <= len(rest) < 1000 + 50
            stream.put(b"more")
            assert await source.receive(10) == []
            assert source.trouble == [f"held_up: {len(rest) + 1} records are read past {FIRST}:1"]
            assert [
                line["first_unfinished"] for line in said if line["event"] == "kinesis.shard_held_up"
            ] == [f"{FIRST}:1"]
            await anyio.sleep(3600)
            (again,) = await source.receive(1)
            await source.settle(again, Acknowledge())
            assert bodies(await everything(source)) == [b"more"]
            assert source.trouble == []


async def test_whoever_was_frozen_for_longer_than_its_lease_hands_nothing_out_when_it_wakes_up() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    held = Held(
        Lease(FIRST, "TRIM_HORIZON", owner="us"),
        anyio.current_time(),
        stream=stream,
        leases=leases,
        hand=lambda _: None,
        timing=Timing(lease=LEASE_SECONDS),
        progress=Progress(anyio.current_time),
        dice=random.Random(1),
    )
    await anyio.sleep(6.9)
    assert held.ours
    await anyio.sleep(0.2)  # none of its tasks has run meanwhile
    assert not held.ours


async def test_r6_a_child_waits_for_both_its_parents() -> None:
    stream = MemoryStream(shards=2)
    stream.put(b"one", FIRST)
    stream.put(b"two", SECOND)
    child = stream.merge(FIRST, SECOND)
    stream.put(b"child", child)
    source = consumer(stream, MemoryLeases())
    async with source.open():
        parents = await everything(source)
        assert sorted(bodies(parents)) == [b"one", b"two"]
        await source.settle(parents[0], Acknowledge())
        await anyio.sleep(30)
        assert await everything(source) == []
        await source.settle(parents[1], Acknowledge())
        assert bodies(await everything(source)) == [b"child"]


async def test_r8_a_record_that_looks_like_control_data_is_a_record() -> None:
    stream = MemoryStream()
    for body in (b"__CHECKPOINT__", b"SHARD_END", b"TRIM_HORIZON", b""):
        stream.put(body)
    source = consumer(stream, MemoryLeases())
    async with source.open():
        assert bodies(await everything(source)) == [b"__CHECKPOINT__", b"SHARD_END", b"TRIM_HORIZON", b""]


async def test_r9_a_closed_shard_is_not_replayed_at_a_restart() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 5)
    stream.split(FIRST)
    for expected in (5, 0, 0):
        source = consumer(stream, leases)
        async with source.open():
            received = await everything(source)
            assert len(received) == expected
            await settle(source, received)
            await anyio.sleep(2)
    assert leases.rows[FIRST].checkpoint == SHARD_END
    assert leases.rows[FIRST].children == {SECOND, THIRD}


# ── checkpoints ────────────────────────────────────────────────────────────────────────────────


async def test_the_checkpoint_is_the_contiguous_finished_prefix_and_nothing_beyond() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 5)
    source = consumer(stream, leases)
    async with source.open():
        received = await everything(source)
        await settle(source, [received[0], received[1], received[3], received[4]])
        await anyio.sleep(3)
        assert leases.rows[FIRST].position == Position(2)
    again = consumer(stream, leases)
    async with again.open():
        assert bodies(await everything(again)) == [b"2", b"3", b"4"]


async def test_what_is_finished_at_the_stop_is_in_the_checkpoint_and_the_lease_is_nobodys() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 3)
    source = consumer(stream, leases)
    async with source.open():
        await settle(source, await everything(source))
    assert leases.rows[FIRST].position == Position(3)
    assert leases.rows[FIRST].owner is None


async def test_a_released_record_comes_again_after_its_time_and_holds_up_no_other() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 2)
    source = consumer(stream, leases)
    async with source.open():
        first, second = await source.receive(10)
        await source.settle(first, Release(20.0))
        await source.settle(second, Acknowledge())
        stream.put(b"2")
        (third,) = await source.receive(10)
        await source.settle(third, Acknowledge())
        released = anyio.current_time()
        while not (again := await source.receive(10)):
            pass
        assert 19 <= anyio.current_time() - released <= 20
        assert (again[0].id, again[0].attempt) == (first.id, 2)
        assert leases.rows[FIRST].checkpoint == Edge.TRIM_HORIZON
        await source.settle(again[0], Acknowledge())
        await anyio.sleep(2)
        assert leases.rows[FIRST].position == Position(3)


async def test_a_body_that_the_quarantine_does_not_take_comes_again() -> None:
    stream, leases, aside = MemoryStream(), MemoryLeases(), Kept()
    aside.faults.append(Transient("timeout"))
    stream.put(b"bad")
    source = consumer(stream, leases, aside=aside)
    async with source.open():
        (delivery,) = await source.receive(10)
        with pytest.raises(Transient):
            await source.settle(delivery, Quarantine("not_json"))
        while not (again := await source.receive(10)):
            pass
        await source.settle(again[0], Quarantine("not_json"))
    assert aside.bodies == [(b"bad", "not_json")]
    assert leases.rows[FIRST].position == Position(1)


async def test_a_shard_is_not_read_on_while_nobody_takes_what_it_brought() -> None:
    stream = MemoryStream()
    numbered(stream, 5000)
    progress = Progress(anyio.current_time)
    source = consumer(stream, MemoryLeases(), progress=progress)
    async with source.open():
        await anyio.sleep(300)
        assert len(source._ready) <= 1500
        assert progress.stalled() == []  # what holds it up reports, not what waits
        assert len(await everything(source)) == 5000


@settings(max_examples=40, deadline=None)
@given(st.data())
async def test_whatever_is_settled_in_whatever_order_nothing_is_skipped(data: st.DataObject) -> None:
    """Law: what was finished and what a successor gets are, together, all that was put, each shard's in order."""
    stream, leases = MemoryStream(shards=2), MemoryLeases()
    put = {FIRST: numbered(stream, 8, FIRST), SECOND: numbered(stream, 8, SECOND, of=8)}
    finished: set[bytes] = set()
    source = consumer(stream, leases)
    async with source.open():
        order = data.draw(st.permutations(await everything(source)))
        for delivery in order[: data.draw(st.integers(0, len(order)))]:
            await source.settle(delivery, Acknowledge())
            finished.add(delivery.body)
        leases.down = data.draw(st.booleans())  # as if killed: nothing more is written
    leases.down = False
    await anyio.sleep(LEASE_SECONDS)
    successor = consumer(stream, leases, "successor")
    async with successor.open():
        got = bodies(await everything(successor, polls=4))
    for shard_bodies in put.values():
        theirs = [body for body in got if body in shard_bodies]
        assert theirs == shard_bodies[len(shard_bodies) - len(theirs) :]
        assert set(shard_bodies) <= finished | set(theirs)


# ── where to begin ─────────────────────────────────────────────────────────────────────────────


async def test_trim_horizon_begins_with_the_oldest_latest_with_what_comes_and_a_moment_with_it() -> None:
    await anyio.sleep(100)
    stream = MemoryStream()
    stream.put(b"old")
    await anyio.sleep(100)
    moment = anyio.current_time()
    stream.put(b"recent")
    await anyio.sleep(100)
    starts: dict[Edge | float, list[bytes]] = {
        Edge.TRIM_HORIZON: [b"old", b"recent"],
        Edge.LATEST: [],
        moment: [b"recent"],
    }
    for start, expected in starts.items():
        source = consumer(stream, MemoryLeases(), start=start)
        async with source.open():
            assert bodies(await everything(source)) == expected


async def test_with_latest_a_closed_shard_is_the_past_and_what_comes_of_an_open_one_is_not() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    numbered(stream, 3)
    child, sibling = stream.split(FIRST)
    await anyio.sleep(10)
    source = consumer(stream, leases, start=Edge.LATEST)
    async with source.open():
        stream.put(b"new", child)
        grandchild, _ = stream.split(child)
        stream.put(b"newer", grandchild)
        received = await everything(source)
        assert bodies(received) == [b"new"]
        await settle(source, received)
        assert bodies(await everything(source, polls=3)) == [b"newer"]
    assert FIRST not in leases.rows
    assert leases.rows[sibling].checkpoint == Edge.LATEST


async def test_from_a_moment_on_a_child_does_not_begin_before_it_either() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    stream.put(b"0")
    child, _ = stream.split(FIRST)
    stream.put(b"1", child)
    await anyio.sleep(100)
    moment = anyio.current_time()
    stream.put(b"2", child)
    source = consumer(stream, leases, start=moment)
    async with source.open():
        assert bodies(await everything(source, polls=3)) == [b"2"]


async def test_a_shard_that_was_trimmed_while_nobody_read_it_holds_up_no_child() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    stream.put(b"0")
    source = consumer(stream, leases)
    async with source.open():
        await settle(source, await everything(source))
    child, _ = stream.split(FIRST)
    stream.put(b"1", child)
    stream.trim(FIRST)
    source = consumer(stream, leases, start=Edge.LATEST)
    async with source.open():
        assert bodies(await everything(source, polls=3)) == [b"1"]
        await anyio.sleep(20)
        assert FIRST not in leases.rows  # finished, and nothing can ask for it again


# ── resharding ─────────────────────────────────────────────────────────────────────────────────


async def test_the_shards_of_a_stream_that_was_made_again_under_its_name_begin_at_their_beginning() -> None:
    stream = MemoryStream(shards=3)
    leases = MemoryLeases(
        {
            FIRST: Lease(FIRST, SHARD_END, counter=5),  # it was split, in that other life
            SECOND: Lease(SECOND, "4711", counter=5),
            THIRD: Lease(THIRD, "3", counter=5),
        }
    )
    expected = {*numbered(stream, 5), *numbered(stream, 5, SECOND, of=5), *numbered(stream, 5, THIRD, of=10)}
    stream.faults[SECOND].append(Transient("no_such_position"))
    source = consumer(stream, leases)
    async with source.open():
        await anyio.sleep(30)  # a listing may be late: what has ended is not begun again because of one
        assert leases.rows[FIRST].finished
        await anyio.sleep(60)
        received = await everything(source)
        await settle(source, received)
        assert set(bodies(received)) == expected
    assert [lease.position for _, lease in sorted(leases.rows.items())] == [
        Position(5),
        Position(10),
        Position(15),
    ]


async def test_a_record_of_a_child_never_comes_before_its_parents_are_finished() -> None:
    stream, leases = MemoryStream(shards=2), MemoryLeases()
    source = consumer(stream, leases)
    finished: set[str] = set()
    order: list[str] = []
    parents = {
        shard.id: shard.parents
        for shard in (await _reshard(stream)).shards  # split, merge, and both, with records in all
    }
    async with source.open():
        while batch := await everything(source, polls=2):
            for delivery in batch:
                shard = delivery.id.partition(":")[0]
                assert all(lease.finished for p in parents[shard] if (lease := leases.rows.get(p)))
                order.append(delivery.id)
                finished.add(delivery.id)
                await source.settle(delivery, Acknowledge())
            await anyio.sleep(2)
    assert len(finished) == len(order) == 10 * len(parents)


async def _reshard(stream: MemoryStream) -> Listing:
    numbered(stream, 10, FIRST)
    numbered(stream, 10, SECOND)
    left, right = stream.split(FIRST)
    numbered(stream, 10, left)
    numbered(stream, 10, right)
    merged = stream.merge(right, SECOND)
    numbered(stream, 10, merged)
    for shard in stream.split(merged):
        numbered(stream, 10, shard)
    return await stream.shards()


# ── aggregated records ─────────────────────────────────────────────────────────────────────────


async def test_an_aggregated_record_half_finished_goes_on_with_the_other_half() -> None:
    stream, leases = MemoryStream(), MemoryLeases()
    stream.put(aggregated(b"a", b"b", b"c"))
    stream.put(aggregated())
    stream.put(b"plain")
    source = consumer(stream, leases)
    async with source.open():
        received = await everything(source)
        assert bodies(received) == [b"a", b"b", b"c", b"plain"]
        assert len({delivery.id for delivery in received}) == 4
        await settle(source, received[:2])
    assert leases.rows[FIRST].position == Position(1, 1)
    source = consumer(stream, leases)
    async with source.open():
        received = await everything(source)
        assert bodies(received) == [b"c", b"plain"]
        await settle(source, received)
    assert leases.rows[FIRST].position == Position(3)
