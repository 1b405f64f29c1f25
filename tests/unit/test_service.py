"""Pulls, slots, settling and the drain, on in-memory ports and virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from attachd.errors import Transient
from attachd.model import Acknowledge, Delivery, Disposition, Handoff, Outcome, Quarantine, Release
from attachd.progress import Progress
from attachd.quota import Rate
from attachd.service import Limits, Service
from attachd.testing import Line, MemoryConnect, MemoryRuntime, MemorySource

EPOCH = 1_800_000_000.0
Build = Callable[..., bytes]
Background = Mapping[str, Callable[[Callable[[], None]], Coroutine[Any, Any, None]]]


def clock() -> float:
    return asyncio.get_running_loop().time()


class SlowRuntime(MemoryRuntime):
    """Takes so long over each hand-off."""

    seconds = 0.0

    async def offer(self, handoff: Handoff) -> int | None:
        await anyio.sleep(self.seconds)
        return await super().offer(handoff)


class World:
    """A service in memory, and what it is connected to."""

    def __init__(self, limits: Limits | None = None, rate: Rate | None = None) -> None:
        self.source = MemorySource()
        self.connect = MemoryConnect()
        self.runtime = SlowRuntime()
        self.progress = Progress(clock)
        self.line = Line(
            lambda: EPOCH + clock(),
            attacher=self.connect,
            runtimes={"ava": self.runtime},
            rate=rate or Rate(1000, 1000),
        )
        self.metrics, self.pipeline, self.room = self.line.metrics, self.line.pipeline, self.line.room
        self.service = self.rebuilt(self.source, limits=limits)

    def rebuilt(
        self,
        *sources: MemorySource,
        own: Sequence[MemorySource] = (),
        limits: Limits | None = None,
        background: Background | None = None,
    ) -> Service:
        """Another service over the same line."""
        return Service(
            sources=sources,
            own=own,
            pipeline=self.pipeline,
            background=background or self.line.background,
            metrics=self.metrics,
            progress=self.progress,
            limits=limits or Limits(),
            dice=random.Random(1),
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The service runs inside the block and is told to stop at its end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.service.run)
            yield
            self.service.stop()

    def outcomes(self) -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.metrics.outcomes.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def received(self) -> float:
        value = self.metrics.registry.get_sample_value(
            "attachd_deliveries_received_total", {"source": "memory"}
        )
        return value or 0.0


async def test_each_delivery_is_settled_once_as_its_outcome_says(contact_event: Build) -> None:
    world = World()
    attached = world.source.add(contact_event("c-1"))
    poison = world.source.add(b"no json")
    async with world.serving():
        await anyio.sleep(1)
    settled = {delivery.id: disposition for delivery, disposition in world.source.settled}
    assert settled[attached] == Acknowledge()
    assert isinstance(settled[poison], Quarantine)
    assert world.source.quarantine[0][0] == b"no json"
    assert world.source.quarantine[0][1].startswith("not_json: ")
    assert len(world.source) == 0


async def test_the_sum_of_outcomes_equals_the_deliveries_received(contact_event: Build) -> None:
    world = World()
    for i in range(40):
        world.source.add(contact_event(f"c-{i // 2}", "INITIATED" if i % 2 else "CONNECTED_TO_SYSTEM"))
        world.source.add(b"{}")
    async with world.serving():
        await anyio.sleep(1)
    assert world.received() == 80
    assert sum(world.outcomes().values()) == 80
    assert world.outcomes() == {"attached": 20, "duplicate": 20, "not_a_contact_event": 40}
    assert world.metrics.registry.get_sample_value("attachd_deliveries_in_hand") == 0


async def test_no_more_is_received_than_there_are_slots_for(contact_event: Build) -> None:
    world = World(Limits(in_hand=3))
    world.runtime.seconds = 2.0
    for i in range(10):
        world.source.add(contact_event(f"c-{i}"))
    async with world.serving():
        await anyio.sleep(1)
        assert world.source.invisible == 3
        await anyio.sleep(2)
        assert world.source.invisible == 3
        await anyio.sleep(10)
    assert len(world.runtime.accepted) == 10


async def test_while_nobody_more_may_wait_polls_are_slow_and_ends_are_heard_all_the_same(
    contact_event: Build,
) -> None:
    world, crowded = World(), True
    world.service = world.rebuilt(world.source, limits=Limits(crowded=lambda: crowded))
    for number in range(100):
        world.source.add(contact_event(f"c-{number}", "DISCONNECTED"))
    async with world.serving():
        await anyio.sleep(4.5)
        assert world.outcomes() == {"noted": 50}
        crowded = False
        await anyio.sleep(1)
        assert world.outcomes() == {"noted": 100}


async def test_a_stop_lets_what_is_in_hand_finish(contact_event: Build) -> None:
    world = World()
    world.runtime.seconds = 3.0
    world.source.add(contact_event("c-1"))
    async with world.serving():
        await anyio.sleep(1)
        assert world.runtime.accepted == {}
    assert len(world.runtime.accepted) == 1
    assert clock() < 3.0 + 5.0 + 0.1  # the hand-off, then at most the poll


async def test_what_is_still_in_hand_when_the_drain_ends_is_released_at_once(contact_event: Build) -> None:
    world = World(Limits(drain_seconds=8.0))
    world.runtime.seconds = 12.0
    world.source.add(contact_event("c-1"))
    async with world.serving():
        await anyio.sleep(1)
    assert [disposition for _, disposition in world.source.settled] == [Release(0.0)]
    assert world.outcomes() == {"interrupted": 1}
    assert len(world.source) == 1
    assert world.source.invisible == 0
    assert clock() == pytest.approx(9.0)


async def test_a_stop_gives_back_at_once_what_no_participant_was_asked_for_and_finishes_the_rest(
    contact_event: Build,
) -> None:
    world = World(rate=Rate(1, 1))
    world.runtime.seconds = 3.0
    for number in range(1000):
        world.source.add(contact_event(f"c-{number}"))
    async with world.serving():
        await anyio.sleep(1.5)
    assert world.outcomes()["attached"] == 2
    assert (len(world.source), world.source.invisible) == (998, 0)
    assert clock() < 1.5 + 3.0 + 0.1


async def test_what_a_stop_gives_back_is_given_back_a_few_at_a_time(contact_event: Build) -> None:
    """All at once, they would keep each other waiting, journal and source, until nobody waits any more."""

    class Slow(MemorySource):
        under_way = most = 0

        async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await anyio.sleep(0.5)
            await super().settle(delivery, disposition)
            self.under_way -= 1

    world = World(rate=Rate(0.001, 1))
    source = Slow()
    world.service = world.rebuilt(source)
    for number in range(1000):
        source.add(contact_event(f"c-{number}"))
    async with world.serving():
        await anyio.sleep(1)
    assert source.most <= 110  # with those that the last poll brought
    assert (source.invisible, len(source)) == (0, 999)
    assert 1 + 0.5 * 10 <= clock() < 1 + 0.5 * 12


async def test_what_a_poll_still_brings_after_the_stop_is_released_at_once(contact_event: Build) -> None:
    world = World()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.service.run)
        await anyio.sleep(1)
        world.service.stop()
        await anyio.sleep(1)
        world.source.add(contact_event("c-1"))
    assert [disposition for _, disposition in world.source.settled] == [Release(0.0)]
    assert world.connect.requests == []
    assert clock() == pytest.approx(2.0)


async def test_a_second_stop_ends_the_drain_at_once(contact_event: Build) -> None:
    world = World(Limits(drain_seconds=60))
    world.runtime.seconds = 12.0
    world.source.add(contact_event("c-1"))
    async with world.serving():
        await anyio.sleep(1)
        world.service.stop()
        await anyio.sleep(6)
        assert world.source.settled == []
    assert [disposition for _, disposition in world.source.settled] == [Release(0.0)]
    assert clock() == pytest.approx(7.0)


async def test_a_poll_that_fails_makes_the_service_unready_until_one_succeeds() -> None:
    world = World()
    world.source.faults.extend([Transient("unreachable", "no route to the queue")] * 3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.service.run)
        await anyio.sleep(0.0001)
        assert world.service.trouble == ["source memory: unreachable: no route to the queue"]
        assert not world.service.ready.is_set()
        with anyio.fail_after(60):
            await world.service.ready.wait()
        assert world.service.trouble == []
        world.service.stop()
        assert world.service.trouble == ["draining: no new chats are taken"]


async def test_an_outage_of_a_source_is_a_line_a_minute_in_the_log_and_one_when_it_is_over() -> None:
    world = World()
    world.source.faults.extend([Transient("not_found", "the queue is gone")] * 30)
    with capture_logs() as said:
        async with world.serving():
            with anyio.fail_after(600):
                await world.service.ready.wait()
    told = [line for line in said if line["event"].startswith("source.")]
    assert [line["event"] for line in told[-1:]] == ["source.answers"]
    assert told[-1]["failures"] == 30
    assert {line["event"] for line in told[:-1]} == {"source.poll_failed"}
    assert 1 <= len(told) - 1 <= 1 + told[-1]["seconds"] / 60


async def test_a_source_of_our_own_making_is_served_and_says_nothing_of_whether_events_come(
    contact_event: Build,
) -> None:
    world = World()
    queue, own = MemorySource("queue"), MemorySource("own")
    queue.faults.extend(Transient("access_denied", "no") for _ in range(3))
    own.add(contact_event("c-1"))
    world.service = world.rebuilt(queue, own=[own])
    async with world.serving():
        await anyio.sleep(0.01)
        assert [disposition for _, disposition in own.settled] == [Acknowledge()]
        assert not world.service.ready.is_set()
        assert world.service.trouble == ["source queue: access_denied: no"]
        assert world.metrics.registry.get_sample_value("attachd_source_up", {"source": "own"}) is None


async def test_of_several_sources_one_that_fails_is_named_and_the_others_are_served(
    contact_event: Build,
) -> None:
    world = World()
    good, bad = MemorySource("good"), MemorySource("bad")
    bad.faults.extend(Transient("access_denied", "no") for _ in range(3))
    good.add(contact_event("c-1"))
    world.service = world.rebuilt(good, bad)

    def up(name: str) -> float | None:
        return world.metrics.registry.get_sample_value("attachd_source_up", {"source": name})

    async with world.serving():
        with anyio.fail_after(1):
            await world.service.ready.wait()
        assert (
            [trouble for trouble in world.service.trouble if "bad" in trouble] == world.service.trouble != []
        )
        assert (up("good"), up("bad")) == (1, 0)
        await anyio.sleep(120)
        assert len(world.runtime.accepted) == 1
        assert (world.service.trouble, up("bad")) == ([], 1)


class Sharded(MemorySource):
    """A part of it may fail, and it is told when the drain begins."""

    trouble: Sequence[str] = ("access_denied: GetRecords of shard 3",)  # type: ignore[assignment]
    drained_at: float | None = None

    def drain(self) -> None:
        self.drained_at = anyio.current_time()


async def test_a_source_of_which_a_part_fails_is_polled_as_ever_and_the_service_says_so() -> None:
    world = World()
    source = Sharded("stream")
    world.service = world.rebuilt(source)
    async with world.serving():
        with anyio.fail_after(6):
            await world.service.ready.wait()
        assert world.service.trouble == ["source stream: access_denied: GetRecords of shard 3"]
        source.trouble = ()
        assert world.service.trouble == []


async def test_a_drain_is_told_to_the_sources_when_it_begins() -> None:
    world = World()
    source = Sharded("stream")
    world.service = world.rebuilt(source)
    async with world.serving():
        await anyio.sleep(1)
        assert source.drained_at is None
        world.service.stop()
        assert source.drained_at == anyio.current_time()


async def test_a_source_is_polled_by_as_many_as_it_says(contact_event: Build) -> None:
    class Counting(MemorySource):
        polls = 3
        under_way = most = 0

        async def receive(self, limit: int) -> Sequence[Delivery]:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                return await super().receive(limit)
            finally:
                self.under_way -= 1

    world = World()
    source = Counting()
    world.service = world.rebuilt(source)
    for number in range(50):
        source.add(contact_event(f"c-{number}"))
    async with world.serving():
        await anyio.sleep(20)
        assert (source.most, len(source.settled), len(world.runtime.accepted)) == (3, 50, 50)


async def test_a_defect_in_the_line_releases_the_delivery_and_spares_the_others(contact_event: Build) -> None:
    world = World()
    world.connect.faults.append(RuntimeError("a defect"))
    world.source.add(contact_event("c-1"))
    world.source.add(contact_event("c-2"))
    async with world.serving():
        await anyio.sleep(30)
    assert world.outcomes() == {"failed": 1, "attached": 2}
    assert len(world.source) == 0


class StuckSource(MemorySource):
    """Its polls never end."""

    async def receive(self, limit: int) -> Sequence[Delivery]:
        await anyio.sleep(10_000)
        return await super().receive(limit)


async def test_a_poll_that_never_ends_is_named_and_given_up() -> None:
    world = World(Limits(stall_seconds=60))
    stuck = StuckSource()
    world.service = world.rebuilt(stuck, limits=Limits(stall_seconds=60))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.service.run)
        await anyio.sleep(61)
        assert world.service.trouble == ["source memory: a poll did not end in 60 s"]
        tasks.cancel_scope.cancel()


async def test_a_background_task_that_stops_reporting_is_named() -> None:
    world = World()

    async def hangs(report: Callable[[], None]) -> None:
        report()
        await anyio.sleep_forever()

    world.service = world.rebuilt(
        world.source, limits=Limits(stall_seconds=60), background={"hanging": hangs}
    )
    async with world.serving():
        await anyio.sleep(59)
        assert world.progress.stalled() == []
        await anyio.sleep(2)
        assert world.progress.stalled() == ["hanging"]


class UnsettlingSource(MemorySource):
    """Settling raises."""

    error: Exception = ZeroDivisionError("no adapter may raise this")

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        del delivery, disposition
        raise self.error


async def test_a_defect_in_settling_ends_the_service_instead_of_leaving_it_deaf(contact_event: Build) -> None:
    world = World()
    broken = UnsettlingSource()
    broken.add(contact_event("c-1"))
    world.service = world.rebuilt(broken)
    with pytest.raises(ExceptionGroup):
        await world.service.run()
    assert clock() < 6.0


async def test_a_settle_that_is_not_confirmed_is_counted_and_the_event_comes_again(
    contact_event: Build,
) -> None:
    world = World()

    source = UnsettlingSource()
    source.error = Transient("throttled")
    source.add(contact_event("c-1"))
    world.service = world.rebuilt(source)
    async with world.serving():
        await anyio.sleep(1)
    assert world.outcomes() == {Outcome.ATTACHED.value: 1}
    assert world.metrics.registry.get_sample_value("attachd_settle_failures_total", {"source": "memory"}) == 1
    assert len(source) == 1


async def test_a_source_that_cannot_be_settled_with_makes_the_service_unready(contact_event: Build) -> None:
    world = World()
    source = UnsettlingSource()
    source.error = Transient("AccessDenied", "no permission to delete")
    source.add(contact_event("c-1"))
    world.service = world.rebuilt(source)
    async with world.serving():
        await anyio.sleep(1)
        assert world.service.trouble == [
            "source memory: cannot settle: AccessDenied: no permission to delete"
        ]


async def test_a_delivery_that_could_not_be_settled_and_never_comes_again_is_no_trouble_for_ever(
    contact_event: Build,
) -> None:
    """Its answer was lost, and not the delete; or it went to the dead letters."""
    world = World()
    source = UnsettlingSource()
    source.error = Transient("timeout")
    source.add(contact_event("c-1"))
    world.service = world.rebuilt(source)
    async with world.serving():
        await anyio.sleep(60)
        assert world.service.trouble == ["source memory: cannot settle: timeout"]
        await anyio.sleep(600)
        assert world.service.trouble == []


async def test_a_delivery_that_is_anothers_by_now_is_counted_and_no_trouble_of_ours(
    contact_event: Build,
) -> None:
    world = World()
    source = UnsettlingSource()
    source.error = Transient("not_ours", "the shard is another's by now")
    source.add(contact_event("c-1"))
    world.service = world.rebuilt(source)
    async with world.serving():
        await anyio.sleep(1)
        assert world.service.trouble == []
    assert world.metrics.unsettled.labels("memory")._value.get() == 1


async def test_a_delivery_that_fails_again_and_again_stays_away_longer_and_longer(
    contact_event: Build,
) -> None:
    world = World(Limits(release_seconds=5))
    world.connect.faults.extend([RuntimeError("a defect")] * 9)
    world.source.add(contact_event("c-1"))
    async with world.serving():
        await anyio.sleep(600)
    stays = [disposition.after for _, disposition in world.source.settled if isinstance(disposition, Release)]
    assert stays == [5, 10, 20, 40]  # then it is out of patience
