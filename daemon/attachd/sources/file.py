"""Contact events from a file or standard input, one JSON document a line: for rehearsals, replays and tests.

Nothing can be given back to a file, so what is released comes again from memory; ``finished`` is set once every line has
been read and settled. Lines are read one by one, in a thread, as they are asked for.
"""

from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import BinaryIO

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from attachd.errors import Misconfigured
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release

_READ_AHEAD = 100

log = structlog.get_logger(__name__)


class FileSource:
    """One file, read once.

    Args:
        name: its name, for logs and metrics.
        opening: opens the file, for bytes; closed at the end.
        poll_seconds: how long a poll waits for a first line.

    Attributes:
        finished: set once every line has been read, handed out and settled.
    """

    polls = 1
    trouble = ()

    def __init__(self, name: str, opening: Callable[[], BinaryIO], *, poll_seconds: float = 1.0) -> None:
        self.name = name
        self.finished = anyio.Event()
        self._opening = opening
        self._poll_seconds = poll_seconds
        self._lines: MemoryObjectReceiveStream[Delivery] | None = None
        self._again: list[tuple[float, Delivery]] = []
        self._stirred = anyio.Event()
        self._in_hand: set[str] = set()
        self._exhausted = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``."""
        try:
            file = self._opening()
        except OSError as error:
            raise Misconfigured([f"{self.name}: {error.strerror}"]) from None
        self._again, self._in_hand, self._exhausted = [], set(), False
        send, self._lines = anyio.create_memory_object_stream[Delivery](_READ_AHEAD)
        with file, self._lines:
            async with anyio.create_task_group() as reading:
                reading.start_soon(self._read, file, send)
                yield
                reading.cancel_scope.cancel()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        if self._lines is None:
            raise RuntimeError("the source is not open")
        until = anyio.current_time() + self._poll_seconds
        while not (ready := self._due(limit)) and anyio.current_time() < until:
            self._stirred = anyio.Event()
            with anyio.move_on_at(min([until, *(at for at, _ in self._again)])):
                await self._stirred.wait()
        self._in_hand |= {delivery.id for delivery in ready}
        return ready

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``. What is quarantined is told in the log."""
        if delivery.id not in self._in_hand:
            return  # settled before
        self._in_hand.discard(delivery.id)
        match disposition:
            case Release(after=after):
                again = replace(delivery, attempt=delivery.attempt + 1)
                self._again.append((anyio.current_time() + after, again))
            case Quarantine(reason=reason):
                log.warning("line.quarantined", source=self.name, line=delivery.id, reason=reason)
            case Acknowledge():
                pass
        self._stir()

    def drain(self) -> None:
        """See ``ports.Source``. Nobody else waits for the lines."""

    def _due(self, limit: int) -> list[Delivery]:
        now = anyio.current_time()
        ready = [delivery for at, delivery in self._again if at <= now][:limit]
        taken = {delivery.id for delivery in ready}
        self._again = [(at, delivery) for at, delivery in self._again if delivery.id not in taken]
        while self._lines is not None and len(ready) < limit:
            try:
                ready.append(self._lines.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                break
        return ready

    async def _read(self, file: BinaryIO, send: MemoryObjectSendStream[Delivery]) -> None:
        number = 0
        async with send:
            while line := await anyio.to_thread.run_sync(file.readline, abandon_on_cancel=True):
                number += 1
                if body := line.removeprefix(BOM_UTF8 if number == 1 else b"").strip():
                    await send.send(Delivery(self.name, str(number), body, received_at=0.0))
                    self._stir()
        self._exhausted = True
        self._stir()

    def _stir(self) -> None:
        waiting = self._lines.statistics().current_buffer_used if self._lines else 0
        if self._exhausted and not (waiting or self._again or self._in_hand):
            self.finished.set()
        self._stirred.set()
