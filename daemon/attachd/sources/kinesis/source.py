"""Kinesis as a source of deliveries: takes its share of the shards, hands their records out, settles them.

Acknowledged or quarantined, a record is finished; a shard's checkpoint follows its contiguous finished prefix, within
a second. A released record is handed out again here, after its time; the checkpoint stays behind it, the records after
it do not. When a lease is another's, what is in hand of its shard is no longer ours to settle.
"""

import heapq
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Final

import anyio
import structlog

from attachd.errors import Transient
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release
from attachd.ports import Leases, Stream
from attachd.progress import Progress
from attachd.sources.kinesis.shard import Entry
from attachd.sources.kinesis.share import Share
from attachd.sources.kinesis.timing import Timing
from attachd.sources.quarantine import Aside
from attachd.streams import Edge

_AGAIN_SECONDS: Final = 5.0
_SAID: Final = 3  # troubles

log = structlog.get_logger(__name__)


class KinesisSource:
    """One stream.

    Args:
        stream: the stream.
        leases: who reads which of its shards.
        aside: where bodies go that can never succeed; without it they stay in the stream, and the log says where.
        owner: our name in the lease table; nobody else's, not even our own of an earlier life.
        start: where to begin in a stream that was never read: an edge, or a moment.
        timing: see there.
        progress: where the tasks report.
        now: the wall clock, for deliveries alone.
        dice: jitter.
    """

    polls = 1

    def __init__(
        self,
        stream: Stream,
        leases: Leases,
        *,
        aside: Aside | None,
        owner: str,
        start: Edge | float,
        timing: Timing,
        progress: Progress,
        now: Callable[[], float],
        dice: random.Random,
    ) -> None:
        self.name = stream.name
        self._stream = stream
        self._leases = leases
        self._aside = aside
        self._poll_seconds = timing.poll
        self._now = now
        self._share = Share(
            stream,
            leases,
            hand=self._hand,
            owner=owner,
            start=start,
            timing=timing,
            progress=progress,
            dice=dice,
        )
        self._ready: deque[Entry] = deque()
        self._later: list[tuple[float, int, Entry]] = []
        self._number = count()
        self._arrived = anyio.Event()
        self._draining = False

    # ── ports.Source ───────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``."""
        self._draining = False
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._stream.open())
            await stack.enter_async_context(self._leases.open())
            if self._aside is not None:
                await stack.enter_async_context(self._aside.open())
            else:
                log.warning(
                    "kinesis.no_quarantine",
                    stream=self.name,
                    next="what can never succeed is logged by its sequence number, and left in the stream",
                )
            await stack.enter_async_context(self._share.working())
            yield
        self._ready.clear()
        self._later.clear()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        until = anyio.current_time() + self._poll_seconds
        while not (entries := list(self._due(limit))) and anyio.current_time() < until and not self._draining:
            with anyio.move_on_at(min(until, self._later[0][0]) if self._later else until):
                await self._arrived.wait()
        if not entries and (trouble := self._share.standstill) is not None:
            raise Transient(trouble.reason, f"receiving from {self.name}: {trouble.detail}")
        return [self._delivery(entry) for entry in entries]

    @property
    def trouble(self) -> Sequence[str]:
        """See ``ports.Source``. A shard that fails must not make the others wait for its poll's backoff."""
        said = [str(error) for error in self._share.trouble]
        return said if len(said) <= _SAID else [*said[:_SAID], f"and {len(said) - _SAID} more of its shards"]

    def drain(self) -> None:
        """See ``ports.Source``. A shard of which nobody has anything in hand is the next worker's at once."""
        self._draining = True
        self._share.drain()
        self._wake()

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``.

        Returns when the shard's window knows; the checkpoint follows within a second, as far as all before is finished.

        Raises:
            Transient: ``not_ours``: the lease is another's by now, who begins at the checkpoint.
        """
        entry = delivery.handle
        if not isinstance(entry, Entry) or not entry.in_hand or entry.attempts != delivery.attempt:
            return  # settled before
        if not entry.shard.ours:
            self._take_back(entry)
            raise Transient("not_ours", f"shard {entry.shard.id} is another's by now")
        match disposition:
            case Acknowledge():
                self._finish(entry)
            case Release(after=after):
                self._release(entry, after)
            case Quarantine(reason=reason):
                await self._quarantine(entry, reason)

    @property
    def behind(self) -> float:
        """Seconds between a shard's newest record and the last that was read, where that is longest."""
        return max((held.behind for held in self._share.held.values()), default=0.0)

    @property
    def shards(self) -> int:
        """How many are leased to us."""
        return len(self._share.held)

    # ── deliveries ─────────────────────────────────────────────────────────────────────────────

    def _due(self, limit: int) -> Iterator[Entry]:
        now = anyio.current_time()
        while limit > 0 and not self._draining:
            if self._later and self._later[0][0] <= now:
                entry = heapq.heappop(self._later)[2]
            elif self._ready:
                entry = self._ready.popleft()
                entry.shard.handed_out()
            else:
                return
            if entry.shard.ours:
                limit -= 1
                yield entry

    def _delivery(self, entry: Entry) -> Delivery:
        entry.attempts += 1
        entry.in_hand = True
        entry.shard.in_hand += 1
        return Delivery(self.name, entry.id, entry.body, self._now(), entry.attempts, entry)

    def _hand(self, entry: Entry) -> None:
        self._ready.append(entry)
        self._wake()

    @staticmethod
    def _take_back(entry: Entry) -> None:
        entry.in_hand = False
        entry.shard.taken_back()

    def _finish(self, entry: Entry) -> None:
        self._take_back(entry)
        entry.shard.finish(entry.position)

    def _release(self, entry: Entry, after: float) -> None:
        self._take_back(entry)
        heapq.heappush(self._later, (anyio.current_time() + after, next(self._number), entry))
        self._wake()

    async def _quarantine(self, entry: Entry, reason: str) -> None:
        try:
            kept = self._aside is not None and await self._aside.put(entry.body, entry.id, reason)
        except BaseException:  # cancelled, too: whatever kept it from being kept, it comes again
            self._release(entry, _AGAIN_SECONDS)
            raise
        if not kept:
            log.error(
                "kinesis.quarantined",
                stream=self.name,
                shard=entry.shard.id,
                sequence_number=str(entry.position),
                reason=reason,
                next="read on; for as long as the stream keeps it, it can be read at that sequence number",
            )
        self._finish(entry)

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()
