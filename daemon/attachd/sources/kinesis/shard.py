"""One shard: read it, hand its records out in order, keep its lease, write its checkpoint.

Two tasks, so that neither waits for the other: one reads, the other alone writes the lease. A handler that stalls
stalls the checkpoint and in the end the reading; the lease is renewed all the while.
"""

import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog

from attachd.errors import Transient
from attachd.ports import Leases, Stream
from attachd.progress import Progress
from attachd.retry import Backoff
from attachd.sources.kinesis.aggregation import bodies
from attachd.sources.kinesis.timing import Timing
from attachd.sources.kinesis.window import Window
from attachd.spells import TOLD_AGAIN, Spell
from attachd.streams import Batch, Lease, Position

_WAITING: Final = 500  # records read and not yet handed out: beyond these a shard is not read on
_UNFINISHED: Final = (
    10_000  # records past the checkpoint: one that is released again and again holds no more up
)
_READ_BACKOFF: Final = Backoff(first=1.0, cap=20.0)
_WRITE_BACKOFF: Final = Backoff(first=0.2, cap=2.0)

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """A record, or a part of an aggregated one, until it is finished. What a delivery's handle is."""

    shard: "Held"
    position: Position
    body: bytes = field(repr=False)
    attempts: int = 0
    in_hand: bool = False

    @property
    def id(self) -> str:
        """Says where it is, so that it can be found in the stream."""
        sub = f".{self.position.sub}" if self.position.sub else ""
        return f"{self.shard.id}:{self.position}{sub}"


class Held:
    """A shard that is leased to us.

    Args:
        lease: as we wrote it when we took it.
        taken_at: when we began to write it, on the event loop's clock.
        stream: where the records are.
        leases: where the lease is.
        hand: takes each record, in order.
        timing: see there.
        progress: where the tasks report.
        dice: jitter.

    Attributes:
        in_hand: how many of its records somebody has in hand.
        trouble: why the shard cannot be read, or its lease not be written, at present.
    """

    def __init__(
        self,
        lease: Lease,
        taken_at: float,
        *,
        stream: Stream,
        leases: Leases,
        hand: Callable[[Entry], None],
        timing: Timing,
        progress: Progress,
        dice: random.Random,
    ) -> None:
        self.id = lease.shard
        self.lease = lease
        self.in_hand = 0
        self.trouble: dict[str, Transient] = {}
        self._lost = False
        self._written_at = taken_at
        self._behind = 0.0
        self._read_at = taken_at
        self._stream = stream
        self._leases = leases
        self._hand = hand
        self._timing = timing
        self._progress = progress
        self._dice = dice
        self._window = Window()
        self._read_to = lease.position
        self._waiting = 0
        self._children: frozenset[str] | None = None
        self._replaced = False
        self._stopping = False
        self._draining = False
        self._changed = anyio.Event()

    @property
    def ours(self) -> bool:
        """Whether its records may still be handed out and settled.

        By the clock, too: whoever was frozen for longer than the lease wakes up with everything as it was.
        """
        return not self._lost and anyio.current_time() < self._written_at + self._timing.trust

    @property
    def behind(self) -> float:
        """Seconds between what was read last and the shard's newest, at most: it grows while nothing is read."""
        return self._behind + anyio.current_time() - self._read_at

    async def run(self) -> None:
        """Work on the shard until it has ended, is another's, or ``stop`` is called."""
        log.info(
            "kinesis.shard_taken", stream=self._stream.name, shard=self.id, checkpoint=self.lease.checkpoint
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read)
                await self._keep()
                tasks.cancel_scope.cancel()
        finally:
            self._lost = True
            for task in ("read", "lease"):
                self._progress.done(self._task(task))

    def stop(self) -> None:
        """Write the checkpoint and let go."""
        self._stopping = True
        self._wake()

    def drain(self) -> None:
        """Likewise, once nobody has anything of it in hand."""
        self._draining = True
        self._wake()

    def handed_out(self) -> None:
        """One of the records waiting is in somebody's hand."""
        self._waiting -= 1
        self._wake()

    def taken_back(self) -> None:
        """Somebody has it in hand no more."""
        self.in_hand -= 1
        self._wake()

    def finish(self, position: Position) -> None:
        """That record is done with."""
        self._window.finish(position)
        self._wake()

    # ── the lease ──────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        """Renew the lease and move its checkpoint: in one place, for two writers of a counter shut each other out."""
        report = self._progress.reporter(self._task("lease"), self._timing.stall)
        unanswered: Lease | None = None
        failures = 0
        while not self._lost:
            await self._wait_for_a_reason_to_write(failures)
            report()
            # A write whose answer was lost is repeated as it was: it may have happened.
            unanswered = unanswered or self._next()
            began = anyio.current_time()
            try:
                kept = await self._put(unanswered)
            except Transient as error:
                failures += 1
                self.trouble["lease"] = error
                log.warning("kinesis.lease_not_written", shard=self.id, reason=str(error), next="again soon")
                continue
            failures = 0
            self.trouble.pop("lease", None)
            if not kept:
                self._lost = True
                log.warning(
                    "kinesis.lease_lost",
                    stream=self._stream.name,
                    shard=self.id,
                    next="no longer ours; whoever takes it begins at the checkpoint, and the journal knows what was done",
                )
                return
            self.lease, self._written_at, unanswered = unanswered, began, None
            if self.lease.owner is None or self.lease.finished:
                log.info("kinesis.shard_left", shard=self.id, checkpoint=self.lease.checkpoint)
                return

    def _next(self) -> Lease:
        if self._replaced:
            return self.lease.begun_anew()
        lease, prefix = self.lease, self._window.prefix
        if self._children is not None and not self._window:
            lease = lease.ended(self._children)
        elif prefix is not None and prefix != lease.position:
            lease = lease.finished_to(prefix)
        elif not self._leaving:
            lease = lease.renewed()
        return lease.released() if self._leaving or lease.finished else lease

    @property
    def _leaving(self) -> bool:
        return self._stopping or self._replaced or (self._draining and not self.in_hand)

    async def _put(self, lease: Lease) -> bool:
        """Write it while the old one can be trusted; after that it is lost, whatever the store would say."""
        with anyio.move_on_at(self._written_at + self._timing.trust):
            return await self._leases.put(lease, self.lease)
        return False

    async def _wait_for_a_reason_to_write(self, failures: int) -> None:
        if failures:
            await anyio.sleep(_WRITE_BACKOFF.delay(failures, None, self._dice))
            return
        while True:
            due = self._written_at + self._timing.renewal
            if self._leaving or (self._children is not None and not self._window):
                return
            if self._window.prefix not in {None, self.lease.position}:
                due = min(due, self._written_at + self._timing.checkpoint)
            if anyio.current_time() >= due:
                return
            with anyio.move_on_at(due):
                await self._changed.wait()

    # ── the records ────────────────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        failures, spell = 0, Spell()
        while self._children is None and not self._replaced:
            self._report_reading()
            try:
                # Always from the last record, however the reading broke off: never from the configured start.
                async with aclosing(self._stream.read(self.id, self._read_to or self.lease.start)) as batches:
                    async for batch in batches:
                        failures = 0
                        self.trouble.pop("read", None)
                        if (over := spell.succeeded(anyio.current_time())) is not None:
                            log.info("kinesis.read_answers", shard=self.id, **over.told)
                        self._take(batch)
                        await self._room()
                        self._report_reading()
            except Transient as error:
                if error.reason == "no_such_shard" and await self._trimmed():
                    continue
                if error.reason == "no_such_position":
                    self._begin_anew()
                    continue
                failures += 1
                self.trouble["read"] = error
                delay = _READ_BACKOFF.delay(failures, error.after, self._dice)
                if spell.failed(str(error), anyio.current_time()):
                    log.warning("kinesis.read_failed", shard=self.id, reason=str(error), next=TOLD_AGAIN)
                await anyio.sleep(delay)
        self._progress.done(self._task("read"))

    def _take(self, batch: Batch) -> None:
        self._behind, self._read_at = batch.behind, anyio.current_time()
        for record in batch.records:
            parts = bodies(record.data)
            for sub, body in enumerate(parts):
                position = Position(record.sequence, sub, record.written)
                if self._read_to is None or position > self._read_to:
                    self._window.add(position)
                    self._read_to = position
                    self._waiting += 1
                    self._hand(Entry(self, position, body))
            whole = Position(record.sequence, 0, record.written)
            if not parts and (self._read_to is None or whole > self._read_to):
                self._read_to = whole
                self._window.add(whole)
                self._window.finish(whole)
        if batch.ended:
            self._children = batch.children
        self._wake()

    async def _room(self) -> None:
        """Wait while enough is read. There is nothing to report then: what holds it up does."""
        while self._waiting >= _WAITING or len(self._window) >= _UNFINISHED:
            self._progress.done(self._task("read"))
            if len(self._window) >= _UNFINISHED:
                self._held_up()
            await self._changed.wait()
        self.trouble.pop("room", None)

    def _held_up(self) -> None:
        if "room" in self.trouble or (first := self._window.first) is None:
            return
        where = f"{self.id}:{first}"
        self.trouble["room"] = Transient("held_up", f"{len(self._window)} records are read past {where}")
        log.error(
            "kinesis.shard_held_up",
            stream=self._stream.name,
            shard=self.id,
            first_unfinished=where,
            records=len(self._window),
            next="the shard is not read on before that record is finished: its deliveries say what it waits for",
        )

    async def _trimmed(self) -> bool:
        """Whether the stream is there and the shard is not: older than the retention, and lost."""
        try:
            listing = await self._stream.shards()
        except Transient:
            return False
        if not listing.shards or any(shard.id == self.id for shard in listing.shards):
            return False
        log.error(
            "kinesis.shard_trimmed",
            stream=self._stream.name,
            shard=self.id,
            checkpoint=self.lease.checkpoint,
            next="what was not read is lost: it was older than the stream's retention; its children go on",
        )
        self._children = frozenset()
        self._wake()
        return True

    def _begin_anew(self) -> None:
        log.error(
            "kinesis.stream_replaced",
            stream=self._stream.name,
            shard=self.id,
            checkpoint=self.lease.checkpoint,
            next="the stream says that this is no place in it, as of one that was deleted and made again: "
            "the shard begins with its oldest record",
        )
        self._replaced = True
        self._wake()

    def _report_reading(self) -> None:
        self._progress.reporter(self._task("read"), self._timing.stall)

    def _task(self, what: str) -> str:
        return f"{what} {self._stream.name}/{self.id}"

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
