"""The service around the line: slots, pulls, one task a delivery, settling in one place, the drain.

stop asked for → polls end by themselves → what they still bring is released at once
→ what is in hand gets the drain's seconds → the rest is released, unsettled nothing
"""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
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
from attachd.traces import Trace

_NOT_POLLED: Final = "not polled yet"
_PULL_BATCH: Final = 10
_SETTLE_SECONDS: Final = 10.0
_MAX_DOUBLINGS: Final = 5
_PULL_BACKOFF: Final = Backoff(first=0.5, cap=20.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, and how long to go on when told to stop.

    Attributes:
        in_hand: deliveries received and not settled, at most.
        drain_seconds: for what is in hand when the stop comes.
        release_seconds: how long a failed delivery stays away, unless it says otherwise.
        stall_seconds: a task that has not come round for so long counts as stuck.
    """

    in_hand: int = 1000
    drain_seconds: float = 60.0
    release_seconds: float = 5.0
    stall_seconds: float = 60.0


class _Slots:
    """Places for deliveries in hand: taken before receiving, so that nothing is fetched that cannot be held."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._closed = False
        self._changed = anyio.Event()

    async def take(self, most: int) -> int:
        """Wait for a place; as many as are free, up to ``most``. None at all once closed."""
        await anyio.lowlevel.checkpoint()  # polls are shielded: this is where a cancelled pull ends
        while self._free == 0 and not self._closed:
            await self._changed.wait()
        if self._closed:
            return 0
        taken = min(most, self._free)
        self._free -= taken
        return taken

    def give(self, count: int) -> None:
        self._free += count
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


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
        self._slots = _Slots(limits.in_hand)
        self._work = anyio.CancelScope()
        self._stopping = anyio.Event()
        self.ready = anyio.Event()
        self._unsettled: dict[str, str] = {}
        self._polled: dict[str, str | None] = {source.name: _NOT_POLLED for source in sources}
        for source in sources:
            metrics.source_up.labels(source.name).set_function(partial(self._up, source.name))

    @property
    def trouble(self) -> list[str]:
        """Why the service is not ready, a sentence each; none when it is."""
        if self._stopping.is_set():
            return ["draining: no new chats are taken"]
        polls = [f"source {name}: {why}" for name, why in self._polled.items() if why is not None]
        parts = [
            f"source {source.name}: {why}"
            for source in self._sources
            if self._polled.get(source.name) is None
            for why in source.trouble
        ]
        return [*polls, *parts] + [
            f"source {name}: cannot settle: {why}" for name, why in self._unsettled.items()
        ]

    def _up(self, name: str) -> bool:
        return self._polled[name] is None and name not in self._unsettled

    @property
    def draining(self) -> bool:
        """Whether the stop has been asked for."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Drain: no new deliveries; what is in hand gets the drain's seconds. A second call ends it at once."""
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
            if source.name in self._polled:
                self._polled[source.name] = error
            polled = self._polled.values()
            if None in polled and _NOT_POLLED not in polled:
                self.ready.set()  # a source that fails must not keep systemd from the others
            if failures:
                delay = _PULL_BACKOFF.delay(failures, None, self._dice)
                log.warning(
                    "source.poll_failed", source=source.name, reason=error, next=f"again in {delay:.1f} s"
                )
                with anyio.move_on_after(delay):
                    await self._stopping.wait()

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
        trail = Trail()
        result = Result(Outcome.INTERRUPTED, "the drain ended before the delivery did")
        try:
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
            await self._settle(source, delivery, result, trail)
            self._slots.give(1)

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
        self._unsettled.pop(source.name, None)
        if unsettled is not None:
            if not theirs:  # that another has it now is no trouble of ours
                self._unsettled[source.name] = unsettled
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
