"""Our share of a stream's shards: finds them, takes leases, has each worked on, hands all over at the end."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from attachd.errors import Transient
from attachd.ports import Leases, Stream
from attachd.progress import Progress
from attachd.retry import Backoff
from attachd.sources.kinesis.assignment import Watch, choose, plan
from attachd.sources.kinesis.shard import Entry, Held
from attachd.sources.kinesis.timing import Timing
from attachd.spells import TOLD_AGAIN, Spell
from attachd.streams import Edge, Lease

_LET_GO_SECONDS: Final = 5.0
_REOPENED_SECONDS: Final = 60.0
_AGAIN: Final = Backoff(first=0.5, cap=20.0)

log = structlog.get_logger(__name__)


class Share:
    """The shards of a stream that are ours.

    Args:
        stream: the stream.
        leases: who reads which of its shards.
        hand: takes each record, each shard's in order.
        owner: our name in the lease table; nobody else's, not even our own of an earlier life.
        start: where to begin in a stream that was never read.
        timing: see there.
        progress: where the tasks report.
        dice: jitter.

    Attributes:
        held: the shards at work, by id.
    """

    def __init__(
        self,
        stream: Stream,
        leases: Leases,
        *,
        hand: Callable[[Entry], None],
        owner: str,
        start: Edge | float,
        timing: Timing,
        progress: Progress,
        dice: random.Random,
    ) -> None:
        self.held: dict[str, Held] = {}
        self._stream = stream
        self._leases = leases
        self._hand = hand
        self._owner = owner
        self._start = start
        self._timing = timing
        self._progress = progress
        self._dice = dice
        self._watch = Watch(timing.expiry)
        self._reopened: dict[str, float] = {}
        self._trouble: dict[str, Transient] = {}
        self._closing = False
        self._hurried = anyio.Event()

    @property
    def trouble(self) -> list[Transient]:
        """What does not work at present."""
        shards = (error for held in self.held.values() for error in held.trouble.values())
        return [*self._trouble.values(), *shards]

    @property
    def standstill(self) -> Transient | None:
        """Why nothing at all can be handed out, if that is so."""
        if not self.held:
            return next(iter(self._trouble.values()), None)
        reads = [held.trouble.get("read") for held in self.held.values()]
        return None if None in reads else reads[0]

    def drain(self) -> None:
        """Take nothing more, and hand over what nobody has anything in hand of."""
        self._closing = True
        for held in self.held.values():
            held.drain()
        self._hurry()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work on the shards until this is left; entered once the first share was tried for."""
        self._closing = False
        self._trouble.clear()
        async with anyio.create_task_group() as background:
            # Shielded: leases are kept, and what is in hand can be settled, while everything around it is cancelled.
            scope = anyio.CancelScope(shield=True)
            await background.start(self._work, scope)
            try:
                yield
            finally:
                self._closing = True
                scope.deadline = anyio.current_time() + _LET_GO_SECONDS
                for held in self.held.values():
                    held.stop()
                self._hurry()

    async def _work(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with scope:
            async with anyio.create_task_group() as shards:
                discovering = anyio.create_task_group()
                async with discovering:
                    await discovering.start(self._repeat, "discover", self._timing.discover, self._discover)
                    # Not cut off: a lease that was taken unheard would be nobody's until it lapses.
                    balance = partial(self._balance, shards)
                    await self._repeat("balance", self._timing.round, balance, task_status=task_status)
                    discovering.cancel_scope.cancel()
        for round_ in ("discover", "balance"):
            self._progress.done(self._task(round_))

    async def _repeat(
        self,
        what: str,
        period: float,
        work: Callable[[], Awaitable[None]],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do it until we close; started once it was tried. A shard that ends calls for the next round at once."""
        tried, failures, spell = False, 0, Spell()
        while not self._closing:
            hurried = self._hurried
            self._progress.reporter(self._task(what), self._timing.stall)
            try:
                await work()
                self._trouble.pop(what, None)
                failures = 0
                if (over := spell.succeeded(anyio.current_time())) is not None:
                    log.info("kinesis.round_answers", round=what, stream=self._stream.name, **over.told)
            except Transient as error:
                self._trouble[what] = error
                failures += 1
                if spell.failed(str(error), anyio.current_time()):
                    log.warning(
                        "kinesis.round_failed",
                        round=what,
                        stream=self._stream.name,
                        reason=str(error),
                        next=TOLD_AGAIN,
                    )
            if not tried:
                task_status.started()
                tried = True
            delay = period * self._dice.uniform(0.9, 1.0)
            if failures:
                delay = min(delay, _AGAIN.delay(failures, None, self._dice))
            with anyio.move_on_after(delay):
                await hurried.wait()

    async def _discover(self) -> None:
        """Make the leases that the stream's shards call for, and drop those that nobody needs."""
        listing = await self._stream.shards()
        plans = plan(listing, await self._leases.all(), self._start)
        for lease in plans.make:
            await self._leases.put(lease, None)
        for lease in (*plans.drop, *self._of_another_stream(plans.reopened)):
            await self._leases.drop(lease)
        if plans.make:
            self._hurry()

    def _of_another_stream(self, leases: Collection[Lease]) -> Iterator[Lease]:
        """Those whose shard has been listed as open for so long that the listing is not just a late one."""
        now = anyio.current_time()
        self._reopened = {lease.shard: self._reopened.get(lease.shard, now) for lease in leases}
        for lease in leases:
            if now - self._reopened[lease.shard] >= _REOPENED_SECONDS:
                log.error(
                    "kinesis.stream_replaced",
                    stream=self._stream.name,
                    shard=lease.shard,
                    checkpoint=lease.checkpoint,
                    next="the shard is open, as in a stream that was deleted and made again: it begins with its oldest record",
                )
                yield lease

    async def _balance(self, shards: TaskGroup) -> None:
        """Take what is ours to take."""
        leases = await self._leases.all()
        dead = self._watch.dead(leases, anyio.current_time())
        for lease in choose(leases, dead, self.held.keys(), self._owner, self._dice):
            if self._closing:
                return
            taken, began = lease.taken(self._owner), anyio.current_time()
            if await self._leases.put(taken, lease):
                held = self._hold(taken, began)
                shards.start_soon(self._see_through, held)
                if self._closing:
                    held.stop()

    def _hold(self, lease: Lease, taken_at: float) -> Held:
        held = self.held[lease.shard] = Held(
            lease,
            taken_at,
            stream=self._stream,
            leases=self._leases,
            hand=self._hand,
            timing=self._timing,
            progress=self._progress,
            dice=self._dice,
        )
        return held

    async def _see_through(self, held: Held) -> None:
        try:
            await held.run()
        finally:
            del self.held[held.id]
        if held.lease.finished:
            self._hurry()

    def _task(self, what: str) -> str:
        return f"{what} {self._stream.name}"

    def _hurry(self) -> None:
        self._hurried.set()
        self._hurried = anyio.Event()
