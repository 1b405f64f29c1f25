"""The service around the line: slots, pulls, one task a delivery, settling in one place, the drain.

stop asked for → polls end by themselves → what they still bring is released at once
→ what no participant was asked for is given back, a few at a time → the others get the drain's seconds
→ the rest is released, unsettled nothing
"""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
import structlog
from anyio.abc import TaskGroup

from attachd.disposition import dispose, severity
from attachd.errors import Transient
from attachd.logs import Trail
from attachd.metrics import Metrics
from attachd.model import Delivery, Outcome
from attachd.pipeline import Pipeline, Result
from attachd.ports import Source
from attachd.progress import Progress
from attachd.retry import Backoff
from attachd.slots import Slots
from attachd.spells import TOLD_AGAIN, Spell
from attachd.standing import Standing
from attachd.traces import Trace

_PULL_BATCH: Final = 10
_GIVEN_BACK_AT_ONCE: Final = 100
_SETTLE_SECONDS: Final = 10.0
_MAX_DOUBLINGS: Final = 5
_CROWDED_SECONDS: Final = 1.0
_PULL_BACKOFF: Final = Backoff(first=0.5, cap=20.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, and how long to go on when told to stop.

    Attributes:
        in_hand: deliveries received and not settled, at most.
        drain_seconds: for what has begun when the stop comes.
        release_seconds: how long a failed delivery stays away, unless it says otherwise.
        stall_seconds: a task that has not come round for so long counts as stuck.
        crowded: whether nobody more may wait; then polls are slow, since most of what they bring must be put off.
    """

    in_hand: int = 1000
    drain_seconds: float = 60.0
    release_seconds: float = 5.0
    stall_seconds: float = 60.0
    crowded: Callable[[], bool] = lambda: False


@dataclass(slots=True, eq=False)
class _Carried:
    """A delivery on its way down the line."""

    trail: Trail = field(default_factory=Trail)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    settled: anyio.Event = field(default_factory=anyio.Event)

    @property
    def begun(self) -> bool:
        """Whether Connect may have been asked for a participant."""
        return "attach" in self.trail.seconds


class Service:
    """Pulls from the sources, carries each delivery down the line, settles it.

    Args:
        sources: where deliveries come from.
        own: likewise, of attachd's own making: they say nothing of whether events reach it.
        pipeline: the line.
        background: what else must run meanwhile; each gets a function to report its progress with.
        metrics: what is counted.
        progress: where the pulls report.
        limits: how much at once, how long to drain.
        dice: jitter.
        trace: takes each delivery's canonical line, too.

    Attributes:
        ready: set once every source has been polled, and one of them with success.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        own: Sequence[Source] = (),
        pipeline: Pipeline,
        background: Mapping[str, Callable[[Callable[[], None]], Coroutine[Any, Any, None]]],
        metrics: Metrics,
        progress: Progress,
        limits: Limits,
        dice: random.Random,
        trace: Trace = lambda _: None,
    ) -> None:
        self._sources = [*sources, *own]
        self._pipeline = pipeline
        self._background = background
        self._metrics = metrics
        self._progress = progress
        self._limits = limits
        self._dice = dice
        self._trace = trace
        self._slots = Slots(limits.in_hand)
        self._work = anyio.CancelScope()
        self._stopping = anyio.Event()
        self.ready = anyio.Event()
        self._carried: set[_Carried] = set()
        self._standings = {each.name: Standing(each, counts=each not in own) for each in self._sources}
        self._spells = {each.name: Spell() for each in self._sources}
        for source in sources:
            metrics.source_up.labels(source.name).set_function(partial(self._up, source.name))

    @property
    def trouble(self) -> list[str]:
        """Why the service is not ready, a sentence each; none when it is."""
        if self._stopping.is_set():
            return ["draining: no new chats are taken"]
        now = anyio.current_time()
        return [sentence for standing in self._standings.values() for sentence in standing.trouble(now)]

    def _up(self, name: str) -> bool:
        return self._standings[name].up(anyio.current_time())

    @property
    def draining(self) -> bool:
        """Whether the stop has been asked for."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Drain: no new deliveries; what has begun gets the drain's seconds. A second call ends it at once."""
        wait = 0.0 if self._stopping.is_set() else self._limits.drain_seconds
        self._work.deadline = anyio.current_time() + wait
        self._stopping.set()
        self._slots.close()
        for source in self._sources:
            source.drain()

    async def run(self) -> None:
        """Work until ``stop()``, then drain.

        Raises:
            Misconfigured: a source is not there.
        """
        async with AsyncExitStack() as stack:
            for source in self._sources:
                await stack.enter_async_context(source.open())
            async with anyio.create_task_group() as background:
                for name, task in self._background.items():
                    background.start_soon(task, self._progress.reporter(name, self._limits.stall_seconds))
                with self._work:
                    async with anyio.create_task_group() as work:
                        work.start_soon(self._give_back)
                        for source in self._sources:
                            for number in range(source.polls):
                                work.start_soon(self._pull, source, number, work)
                background.cancel_scope.cancel()

    async def _pull(self, source: Source, number: int, work: TaskGroup) -> None:
        task = f"pull {source.name}" + (f" {number + 1}" if number else "")
        failures = 0
        while (slots := await self._slots.take(_PULL_BATCH)) > 0:
            self._progress.reporter(task, self._limits.stall_seconds)
            deliveries, error = await self._receive(source, slots)
            # While the pull waits for slots it has nothing to report: what holds them does.
            self._progress.done(task)
            self._slots.give(slots - len(deliveries))
            for delivery in deliveries:
                work.start_soon(self._see_through, source, delivery)
            failures = failures + 1 if error else 0
            self._standings[source.name].polled(error)
            self._tell(source, error)
            self._judge_readiness()
            if failures:
                delay = _PULL_BACKOFF.delay(failures, None, self._dice)
                with anyio.move_on_after(delay):
                    await self._stopping.wait()
            elif self._limits.crowded():
                # Not at all, and no end would be heard of; at full speed, and each receipt of what cannot wait yet brings
                # it nearer to the queue's dead letters.
                with anyio.move_on_after(_CROWDED_SECONDS):
                    await self._stopping.wait()

    def _tell(self, source: Source, error: str | None) -> None:
        """An outage of a source lasts thousands of polls; the log has a line a minute of it, and one when it is over."""
        spell, now = self._spells[source.name], anyio.current_time()
        if error is not None:
            if spell.failed(error, now):
                log.warning(
                    "source.poll_failed",
                    source=source.name,
                    reason=error,
                    next=TOLD_AGAIN,
                )
        elif (over := spell.succeeded(now)) is not None:
            log.info("source.answers", source=source.name, **over.told)

    def _judge_readiness(self) -> None:
        """A source that fails must not keep systemd from the others."""
        counted = [standing for standing in self._standings.values() if standing.counts]
        if any(standing.reached for standing in counted) and not any(each.awaited for each in counted):
            self.ready.set()

    async def _receive(self, source: Source, slots: int) -> tuple[Sequence[Delivery], str | None]:
        """One poll, never cut off in mid hand-over: the drain lets it end by itself."""
        try:
            with anyio.fail_after(self._limits.stall_seconds, shield=True):
                deliveries = await source.receive(slots)
        except Transient as error:
            self._metrics.receive_errors.labels(source.name, error.reason).inc()
            return (), str(error)
        except TimeoutError:
            self._metrics.receive_errors.labels(source.name, "stuck").inc()
            return (), f"a poll did not end in {self._limits.stall_seconds:.0f} s"
        self._metrics.received.labels(source.name).inc(len(deliveries))
        self._metrics.in_hand.inc(len(deliveries))
        return deliveries, None

    async def _see_through(self, source: Source, delivery: Delivery) -> None:
        """One delivery, from receipt to its one outcome."""
        carried = _Carried()
        trail = carried.trail
        result = Result(Outcome.INTERRUPTED, "the drain ended before the delivery did")
        self._carried.add(carried)
        try:
            with carried.scope:
                if not self._stopping.is_set():
                    result = await self._pipeline.carry(delivery, trail)
        except Exception as error:
            log.exception(
                "delivery.defect",
                message=delivery.id,
                contact=trail.fields.get("contact"),
                next="released; please report this",
            )
            result = Result(Outcome.FAILED, type(error).__name__)
        finally:
            self._carried.discard(carried)
            await self._settle(source, delivery, result, trail)
            self._slots.give(1)
            carried.settled.set()

    async def _give_back(self) -> None:
        """After the stop, let go of what no participant was asked for: who goes on is served sooner by another.

        All at once, they would wait for one another, at the journal and at the source, until nobody waits any more.
        """
        await self._stopping.wait()
        waiting = list(self._carried)

        async def one_by_one() -> None:
            while waiting:
                carried = waiting.pop()
                if not carried.begun:
                    carried.scope.cancel()
                    await carried.settled.wait()

        async with anyio.create_task_group() as hands:
            for _ in range(_GIVEN_BACK_AT_ONCE):
                hands.start_soon(one_by_one)

    async def _settle(self, source: Source, delivery: Delivery, result: Result, trail: Trail) -> None:
        """The one place that acknowledges, releases or quarantines."""
        disposition = dispose(
            result.outcome,
            result.reason,
            result.after,
            release_seconds=self._limits.release_seconds * 2 ** min(delivery.attempt - 1, _MAX_DOUBLINGS),
        )
        unsettled: str | None = f"no answer in {_SETTLE_SECONDS:.0f} s"
        theirs = False
        with anyio.move_on_after(_SETTLE_SECONDS, shield=True):
            try:
                await source.settle(delivery, disposition)
                unsettled = None
            except Transient as error:
                unsettled, theirs = str(error), error.reason == "not_ours"
        # That another has it now is no trouble of ours.
        self._standings[source.name].settled(None if theirs else unsettled, anyio.current_time())
        if unsettled is not None:
            self._metrics.unsettled.labels(source.name).inc()
            log.warning(
                "delivery.not_settled",
                message=delivery.id,
                contact=trail.fields.get("contact"),
                reason=unsettled,
                next="the source hands it out again",
            )
        self._metrics.outcomes.labels(source.name, result.outcome.value).inc()
        self._metrics.in_hand.dec()
        for station, seconds in trail.seconds.items():
            self._metrics.stations.labels(station).observe(seconds)
        line = {
            "source": source.name,
            "message": delivery.id,
            "attempt": delivery.attempt,
            "outcome": result.outcome.value,
            "reason": result.reason,
            "disposition": type(disposition).__name__.lower(),
            "settled": unsettled is None,
        } | trail.line()
        getattr(log, severity(result.outcome))("delivery", **line)
        self._trace(line)
