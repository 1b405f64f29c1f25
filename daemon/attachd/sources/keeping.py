"""What is in hand of an SQS queue, kept: extended at half-life, in batches, until it is let go of.

Nobody else is handed it meanwhile; and an extension never undoes a release, nor one handle another.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import anyio
import structlog

from attachd.errors import Transient
from attachd.model import Delivery
from attachd.progress import Progress
from attachd.sources.calls import NOT_OURS

_BATCH: Final = 10  # entries in one call (API reference)
_EXTENDERS: Final = 8

log = structlog.get_logger(__name__)


class Tried(Protocol):
    """The source's one retry."""

    async def __call__(self, attempt: Callable[[], Awaitable[None]], until: float) -> None:
        """Try until then."""
        ...


class Keeper:
    """The deliveries in hand, by message.

    Args:
        name: the source's.
        visibility_seconds: how long a message stays ours from its receipt or extension.
        extend: extends messages for so long, by their handles; answers for each with None or the reason it failed with.
        tried: tries again.
        progress: where it reports.
        stall_seconds: how long it may be silent beyond half-life.
    """

    def __init__(
        self,
        name: str,
        visibility_seconds: int,
        extend: Callable[[Sequence[str]], Awaitable[Sequence[str | None]]],
        tried: Tried,
        *,
        progress: Progress,
        stall_seconds: float,
    ) -> None:
        self._name = name
        self._visibility_seconds = visibility_seconds
        self._half_life = visibility_seconds / 2
        self._extend = extend
        self._tried = tried
        self._progress = progress
        self._stall_seconds = stall_seconds
        self._in_hand: dict[str, Delivery] = {}
        self._extending: dict[str, anyio.Event] = {}

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Keep these from now on. The same message again is its newest handle: older ones may no longer delete."""
        self._in_hand.update((delivery.id, delivery) for delivery in deliveries)

    def newest(self, delivery: Delivery) -> Delivery:
        """The delivery with its message's newest handle."""
        return self._in_hand.get(delivery.id, delivery)

    def forget(self, delivery: Delivery) -> None:
        """Extend it no more; but its message, if that has come again meanwhile."""
        if self._has(delivery):
            del self._in_hand[delivery.id]

    async def let_go(self, delivery: Delivery) -> None:
        """Extend it no more, and let an extension that is under way end: it would undo the release."""
        self.forget(delivery)
        while (answered := self._extending.get(delivery.id)) is not None:
            await answered.wait()

    async def run(self) -> None:
        """Extend everything in hand at half-life, for ever. Who gets stuck here is named."""
        task = f"keep {self._name}"
        report = self._progress.reporter(task, self._half_life + self._stall_seconds)
        begun = anyio.current_time()
        try:
            while True:
                # From beginning to beginning: what a round takes must not put off the next one.
                begun = max(begun + self._half_life, anyio.current_time())
                await anyio.sleep_until(begun)
                await self._round(begun + self._half_life, report)
                report()
        finally:
            self._progress.done(task)

    async def _round(self, until: float, report: Callable[[], None]) -> None:
        """Extend all, a few calls at once; what could not be kept is told in one line, however much it is."""
        kept = list(self._in_hand.values())
        batches = deque(kept[i : i + _BATCH] for i in range(0, len(kept), _BATCH))
        lost: list[tuple[Delivery, str]] = []

        async def one_by_one() -> None:
            while batches and anyio.current_time() < until:
                lost.extend(await self.extend(batches.popleft()))
                report()

        async with anyio.create_task_group() as extenders:
            for _ in range(_EXTENDERS):
                extenders.start_soon(one_by_one)
        lost += [(delivery, "no time left") for batch in batches for delivery in batch]
        if lost:
            log.warning(
                "sqs.not_extended",
                source=self._name,
                messages=len(lost),
                message=lost[0][0].id,
                reason=lost[0][1],
                next="the queue may hand them out again; the journal's claim keeps that harmless",
            )

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[tuple[Delivery, str]]:
        """Extend up to ten; those that could not be, and why."""
        left = deliveries
        lost: list[tuple[Delivery, str]] = []

        async def once() -> None:
            nonlocal left
            # Settled, or handed out anew, since it was listed: extending it now would undo that.
            left = list(filter(self._has, left))
            answers = list(zip(left, await self._extended(left), strict=True))
            for delivery in [delivery for delivery, reason in answers if reason == NOT_OURS]:
                lost.append((delivery, NOT_OURS))
                self.forget(delivery)
            failed = [(delivery, reason) for delivery, reason in answers if reason not in {None, NOT_OURS}]
            left = [delivery for delivery, _ in failed]
            if failed:
                raise Transient(str(failed[0][1]), "the batch's entry failed")

        try:
            await self._tried(once, anyio.current_time() + self._visibility_seconds / 4)
        except Transient as error:
            lost += [(delivery, error.reason) for delivery in left]
        return lost

    def _has(self, delivery: Delivery) -> bool:
        """Whether this very delivery, and so this handle, is the one in hand."""
        return self._in_hand.get(delivery.id) is delivery

    async def _extended(self, deliveries: Sequence[Delivery]) -> Sequence[str | None]:
        if not deliveries:
            return ()
        answered = anyio.Event()
        self._extending.update((delivery.id, answered) for delivery in deliveries)
        try:
            return await self._extend([str(delivery.handle) for delivery in deliveries])
        finally:
            for delivery in deliveries:
                del self._extending[delivery.id]
            answered.set()
