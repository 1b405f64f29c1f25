"""Several workers and one lease table, in virtual time: balance, death, theft, partitions; and what is lost: nothing."""

import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.errors import Transient
from attachd.model import Acknowledge, Delivery, Disposition, Release
from attachd.progress import Progress
from attachd.sources.kinesis.assignment import Watch, choose
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.timing import Timing
from attachd.streams import Batch, Edge, Lease, Start
from attachd.testing import MemoryLeases, MemoryStream

LEASE_SECONDS = 10.0
FIRST = "shardId-000000000000"


class Line:
    """The way to the lease table that one worker has, which can be cut."""

    def __init__(self, leases: MemoryLeases) -> None:
        self._leases = leases
        self.cut = False
        self.open = leases.open

    async def _reach(self) -> None:
        if self.cut:
            await anyio.sleep(2.0)
            raise Transient("timeout")

    async def all(self) -> list[Lease]:
        await self._reach()
        return list(await self._leases.all())

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        await self._reach()
        return await self._leases.put(lease, was)

    async def drop(self, lease: Lease) -> None:
        await self._reach()
        await self._leases.drop(lease)


@dataclass
class Worker:
    """A replica that takes what comes and settles it at once."""

    fleet: "Fleet"
    name: str
    handled: list[Delivery] = field(default_factory=list)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    leaving: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self.line = Line(self.fleet.leases)
        self.progress = Progress(anyio.current_time)
        self.source = KinesisSource(
            self.fleet.stream,
            self.line,
            aside=None,
            owner=self.name,
            start=Edge.TRIM_HORIZON,
            timing=Timing(poll=1.0, lease=LEASE_SECONDS),
            progress=self.progress,
            now=lambda: 0.0,
            dice=random.Random(self.name),
        )

    async def run(self) -> None:
        dice = random.Random(self.name)
        async with self.source.open():
            while not self.leaving.is_set():
                with suppress(Transient):
                    received = await self.source.receive(10)
                    for delivery in received:
                        self.fleet.note(delivery)
                    for delivery in received:
                        self.handled.append(delivery)
                        await anyio.sleep(dice.choice([0.0, 0.0, 0.0, 0.2]))
                        with suppress(Transient):  # it is another's by now
                            await self.source.settle(delivery, Acknowledge())
            self.source.drain()
        self.left.set()

    @property
    def shards(self) -> set[str]:
        return {lease.shard for lease in self.fleet.leases.rows.values() if lease.owner == self.name}

    def kill(self) -> None:
        """It writes nothing more, as after kill -9."""
        self.line.cut = True
        self.leaving.set()


@dataclass
class Turn:
    """When one worker, over one lease, handed records of a shard out first and last; a later owner's counter is higher."""

    shard: str
    counter: int
    first: float
    last: float = 0.0


class Fleet:
    def __init__(self, tasks: TaskGroup, shards: int) -> None:
        self.stream = MemoryStream(shards=shards)
        self.leases = MemoryLeases()
        self.workers: list[Worker] = []
        self.wrong: list[str] = []
        self._last: dict[object, int] = {}
        self._turns: dict[object, Turn] = {}
        self._tasks = tasks

    def grow(self, count: int = 1) -> list[Worker]:
        made = [Worker(self, f"worker-{len(self.workers) + n}") for n in range(count)]
        self.workers += made
        for worker in made:
            self._tasks.start_soon(worker.run)
        return made

    def put(self, bodies: Iterable[bytes], dice: random.Random) -> None:
        for body in list(bodies):
            self.stream.put(body, dice.choice(self.open_shards))

    async def close(self) -> None:
        for worker in self.workers:
            worker.leaving.set()
        for worker in self.workers:
            await worker.left.wait()

    def note(self, delivery: Delivery) -> None:
        """Every record that is handed out is held to the order it was put in."""
        shard = delivery.handle.shard  # type: ignore[attr-defined]  # the consumer's own
        sequence = int(delivery.id.partition(":")[2])
        if sequence <= self._last.get(shard, 0):
            self.wrong.append(f"{delivery.id} came after {self._last[shard]}")
        self._last[shard] = sequence
        turn = self._turns.setdefault(shard, Turn(shard.id, shard.lease.counter, anyio.current_time()))
        turn.last = anyio.current_time()
        for parent in self.stream._logs[shard.id].shard.parents:
            if not {record.data for _, record in self.stream._logs[parent].records} <= self.handled:
                self.wrong.append(f"{delivery.id} came before the end of {parent}")

    @property
    def overlap(self) -> float:
        """For how long, at most, somebody handed out records of a shard of which a later owner had handed some out."""
        turns = sorted(self._turns.values(), key=lambda turn: (turn.shard, turn.counter))
        return max(
            (
                earlier.last - later.first
                for n, earlier in enumerate(turns)
                for later in turns[n + 1 :]
                if earlier.shard == later.shard
            ),
            default=0.0,
        )

    @property
    def open_shards(self) -> list[str]:
        return [log.shard.id for log in self.stream._logs.values() if not log.shard.closed]

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if not worker.leaving.is_set()]

    @property
    def handled(self) -> set[bytes]:
        return {delivery.body for worker in self.workers for delivery in worker.handled}

    def befall(self, event: str, dice: random.Random) -> None:
        """Something that happens to fleets."""
        match event:
            case "put":
                self.put((b"%d" % (len(self.stored) + n) for n in range(20)), dice)
            case "join":
                self.grow()
            case "kill" if self.alive:
                dice.choice(self.alive).kill()
            case "stop" if self.alive:
                dice.choice(self.alive).leaving.set()
            case "split":
                self.stream.split(dice.choice(self.open_shards))
            case "merge" if len(self.open_shards) > 1:
                self.stream.merge(*dice.sample(self.open_shards, 2))
            case "cut" if self.alive:
                dice.choice(self.alive).line.cut = True
            case "mend":
                for worker in self.alive:
                    worker.line.cut = False

    @property
    def stored(self) -> set[bytes]:
        return {record.data for log in self.stream._logs.values() for _, record in log.records}


async def test_three_replicas_on_twelve_shards_are_balanced_within_30_seconds_whoever_came_first() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 12)
        fleet.grow()
        await anyio.sleep(20)
        assert len(fleet.workers[0].shards) == 12
        fleet.grow(2)
        await anyio.sleep(30)
        assert [len(worker.shards) for worker in fleet.workers] == [4, 4, 4]
        before = [worker.shards for worker in fleet.workers]
        await anyio.sleep(120)
        assert [worker.shards for worker in fleet.workers] == before  # and nobody steals for nothing
        await fleet.close()


async def test_the_shards_of_a_replica_that_is_killed_are_anothers_within_the_lease() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 12)
        fleet.grow(3)
        await anyio.sleep(30)
        killed, *rest = fleet.workers
        orphans = killed.shards
        assert len(orphans) == 4
        killed.kill()
        await anyio.sleep(LEASE_SECONDS)
        assert killed.shards == set()
        assert sorted(len(worker.shards) for worker in rest) == [6, 6]
        await fleet.close()


async def test_a_replica_that_stops_hands_its_shards_over_at_once() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 12)
        fleet.grow(2)
        await anyio.sleep(30)
        leaver, stayer = fleet.workers
        leaver.leaving.set()
        await leaver.left.wait()
        assert leaver.shards == set()
        await anyio.sleep(2)
        assert len(stayer.shards) == 12
        await fleet.close()


async def test_a_replica_that_drains_hands_over_at_once_what_nobody_has_in_hand_and_the_rest_when_it_is_settled() -> (
    None
):
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 3)
        fleet.stream.put(b"slow", FIRST)
        leaver = Worker(fleet, "leaver")
        async with leaver.source.open():
            await anyio.sleep(2)
            (slow,) = await leaver.source.receive(10)
            async with anyio.create_task_group() as polls:
                polls.start_soon(leaver.source.receive, 10)
                await anyio.sleep(0.01)
                began = anyio.current_time()
                leaver.source.drain()
            assert anyio.current_time() == began  # a poll that is under way does not hold the stop up
            (stayer,) = fleet.grow()
            await anyio.sleep(2)
            assert leaver.shards == {FIRST}
            fleet.stream.put(b"quick", "shardId-000000000002")
            fleet.stream.put(b"next", FIRST)
            await anyio.sleep(10)
            assert stayer.shards == fleet.stream._logs.keys() - {FIRST}
            assert fleet.handled == {b"quick"}
            await leaver.source.settle(slow, Acknowledge())
            await anyio.sleep(2)
            assert fleet.handled == {b"quick", b"next"}  # and not the slow one again
        await fleet.close()


async def test_a_worker_never_steals_from_itself() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 5)
        (worker,) = fleet.grow()
        await anyio.sleep(300)
        assert {lease.switches for lease in fleet.leases.rows.values()} == {0}
        assert {
            shard for shard, _ in Counter(read for read, _ in fleet.stream.reads).items()
        } == worker.shards
        assert len(fleet.stream.reads) == 5
        await fleet.close()


async def test_what_was_taken_from_a_worker_it_does_not_take_back_before_it_has_let_go() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 4)
        (worker,) = fleet.grow()
        await anyio.sleep(10.3)  # between two renewals
        for shard, lease in fleet.leases.rows.items():
            fleet.leases.rows[shard] = lease.taken("thief")
        await anyio.sleep(30)  # by then the thief, who renews nothing, has died
        assert len(worker.shards) == 4
        assert worker.source.shards == 4
        assert len(fleet.stream.reads) == 8  # each of them once before it was taken, and once after
        await fleet.close()


async def test_a_worker_that_cannot_write_lets_go_before_another_may_take() -> None:
    """Neither knows the other's clock; there is no moment at which both hand the shard's records out."""
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 1)
        (first,) = fleet.grow()
        await anyio.sleep(5)
        (second,) = fleet.grow()
        await anyio.sleep(5)
        first.line.cut = True
        overlaps = 0
        for _ in range(200):
            await anyio.sleep(0.1)
            overlaps += bool(first.source._share.held) and bool(second.source._share.held)
        assert overlaps == 0
        assert second.shards == {FIRST}
        first.line.cut = False
        await anyio.sleep(20)
        assert second.shards == {FIRST}
        await fleet.close()


async def test_what_is_in_hand_of_a_lost_shard_can_no_longer_be_settled_and_comes_to_the_new_owner() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 1)
        for n in range(5):
            fleet.stream.put(b"%d" % n)
        loser = Worker(fleet, "loser")
        async with loser.source.open():
            received = list(await loser.source.receive(3))
            await loser.source.settle(received[0], Acknowledge())
            await anyio.sleep(3)
            stolen = fleet.leases.rows[FIRST].taken("thief")
            fleet.leases.rows[FIRST] = stolen
            await anyio.sleep(3)
            ways: list[Disposition] = [Acknowledge(), Release(1.0)]
            for delivery, disposition in zip(received[1:], ways, strict=True):
                with pytest.raises(Transient) as refused:
                    await loser.source.settle(delivery, disposition)
                assert refused.value.reason == "not_ours"
            assert list(await loser.source.receive(10)) == []
            assert fleet.leases.rows[FIRST] == stolen  # no write of the loser's went through


async def test_a_write_whose_answer_was_lost_costs_no_lease() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 1)
        (worker,) = fleet.grow()
        await anyio.sleep(5)
        put = fleet.leases.put

        async def forgetful(lease: Lease, was: Lease | None) -> bool:
            await put(lease, was)
            raise Transient("timeout", ambiguous=True)

        worker.line.put = forgetful  # type: ignore[method-assign]
        await anyio.sleep(3)
        fleet.stream.put(b"{}")  # the checkpoint moves, while the write before it is unanswered
        await anyio.sleep(1)
        worker.line.put = put  # type: ignore[method-assign]
        await anyio.sleep(5)
        assert worker.shards == {FIRST}
        assert len(fleet.stream.reads) == 1
        assert fleet.leases.rows[FIRST].position is not None
        await fleet.close()


async def test_every_task_reports_and_the_one_that_stands_still_is_named() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 2)
        (worker,) = fleet.grow()
        await anyio.sleep(300)
        assert worker.progress.stalled() == []

        async def never(_: Lease, __: Lease | None) -> bool:
            await anyio.sleep_forever()
            return False

        async def nothing() -> list[Lease]:
            await anyio.sleep_forever()
            return []

        worker.line.put, worker.line.all = never, nothing  # type: ignore[method-assign, assignment]
        await anyio.sleep(120)
        assert worker.progress.stalled() == ["balance stream", "discover stream"]
        tasks.cancel_scope.cancel()


class Mute(MemoryStream):
    """Its reads never bring anything, not even an empty batch."""

    async def read(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        self.reads.append((shard_id, start))
        await anyio.sleep_forever()
        yield Batch()


async def test_a_shard_that_is_read_and_never_answers_is_named() -> None:
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 0)
        fleet.stream = Mute(shards=1)
        (worker,) = fleet.grow()
        await anyio.sleep(55)
        assert worker.progress.stalled() == []
        await anyio.sleep(10)
        assert worker.progress.stalled() == [f"read stream/{FIRST}"]
        await fleet.close()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    events=st.lists(
        st.sampled_from(["put", "join", "kill", "stop", "split", "merge", "cut", "mend", "wait"]), max_size=25
    ),
)
async def test_whatever_happens_to_the_fleet_every_record_is_handled_in_order_and_by_one_at_a_time_but_for_a_lease(
    seed: int, events: list[str]
) -> None:
    dice = random.Random(seed)
    async with anyio.create_task_group() as tasks:
        fleet = Fleet(tasks, 3)
        fleet.grow(2)
        for event in [*events, "put", "join", "mend"]:
            fleet.befall(event, dice)
            await anyio.sleep(dice.choice([0.1, 1.0, 12.0]))
        await anyio.sleep(60 + 12 * len(fleet.stream._logs))
        await fleet.close()
    assert fleet.handled == fleet.stored
    assert fleet.wrong == []
    assert fleet.overlap <= Timing(lease=LEASE_SECONDS).trust


# ── the arithmetic of shares ───────────────────────────────────────────────────────────────────


@given(
    owners=st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=30),
    workers=st.sets(st.sampled_from(["a", "b", "c", "d"]), min_size=1),
    seed=st.integers(0, 2**32),
)
def test_however_the_leases_lie_the_workers_come_to_fair_shares_and_stay_there(
    owners: list[str | None], workers: set[str], seed: int
) -> None:
    dice = random.Random(seed)
    table = {
        f"shardId-{n:03d}": Lease(f"shardId-{n:03d}", "1", owner=owner) for n, owner in enumerate(owners)
    }
    dead = {lease.shard for lease in table.values() if lease.owner not in workers}

    def held(worker: str) -> set[str]:
        return {lease.shard for lease in table.values() if lease.owner == worker}

    def round_() -> int:
        moved = 0
        for worker in sorted(workers):
            for lease in choose(table.values(), dead, held(worker), worker, dice):
                table[lease.shard] = lease.taken(worker)
                dead.discard(lease.shard)
                moved += 1
        return moved

    for _ in range(len(owners) + 5):
        round_()
    counts = [len(held(worker)) for worker in workers]
    assert sum(counts) == len(owners)
    assert max(counts) - min(counts) <= 1
    assert round_() == 0


def test_an_owner_is_dead_when_its_counter_stands_still_on_our_clock_and_not_before() -> None:
    watch = Watch(8.0)
    lease = Lease(FIRST, "1", owner="other", counter=7)
    assert watch.dead([lease], 1000.0) == set()
    assert watch.dead([lease], 1007.9) == set()
    assert watch.dead([lease.renewed()], 1007.95) == set()
    assert watch.dead([lease.renewed()], 1015.9) == set()
    assert watch.dead([lease.renewed()], 1015.95) == {FIRST}


def test_the_times_of_a_lease_leave_no_moment_with_two_owners() -> None:
    timing = Timing(lease=LEASE_SECONDS)
    assert timing.trust < timing.expiry
    assert timing.renewal < timing.trust / 2  # a renewal may fail once
    assert timing.expiry + 2 * timing.round <= timing.lease
