"""Many small requests in few calls: whoever asks waits for its own entry's answer.

No timer: while the senders' calls are under way, the next batches gather.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from attachd.errors import Transient

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    answered: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None


class Batcher(Generic[T]):
    """Gathers items into calls of at most ``limit``. ``run()`` must be running.

    Args:
        call: sends a batch; answers per item with None, or the code it failed with.
        limit: the most that one call takes.
        senders: how many calls may be under way at once.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[str | None]]],
        limit: int,
        *,
        senders: int = 8,
    ) -> None:
        self._call = call
        self._senders = senders
        self._limit = limit
        self._queue: list[_Waiting[T]] = []
        self._arrived = anyio.Event()

    async def do(self, item: T) -> None:
        """Send the item with the next batch; returns when its entry has succeeded.

        Raises:
            Transient: the entry failed.
            Exception: whatever the call raised.
        """
        waiting = _Waiting(item)
        self._queue.append(waiting)
        self._arrived.set()
        await waiting.answered.wait()
        if waiting.error is not None:
            raise waiting.error

    async def run(self) -> None:
        """Send batches for ever, a few at a time."""
        async with anyio.create_task_group() as senders:
            for _ in range(self._senders):
                senders.start_soon(self._send_forever)

    async def _send_forever(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived = anyio.Event()
            while self._queue:
                batch, self._queue = self._queue[: self._limit], self._queue[self._limit :]
                await self._send(batch)

    async def _send(self, batch: Sequence[_Waiting[T]]) -> None:
        try:
            codes = await self._call([waiting.item for waiting in batch])
        except Exception as error:  # noqa: BLE001 - handed to every caller, who knows what to make of it
            for waiting in batch:
                waiting.error = error
        else:
            for waiting, code in zip(batch, codes, strict=True):
                waiting.error = Transient(code, "the batch's entry failed") if code is not None else None
        for waiting in batch:
            waiting.answered.set()
