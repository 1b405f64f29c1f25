"""A buffer with a way out to one AWS service, so that no API answer waits for it.

Copies of an item leave when they are due, and none holds up another. What is refused is tried again if the owner says
so; a full buffer drops; nobody is told but the counts and the log. It knows nothing of what it carries.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Protocol

import anyio
import structlog
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

_BUFFERED = 100_000
_LONGEST_SECONDS = 86400.0  # AWS: EventBridge, retry policy: 24 hours
_DRAIN_SECONDS = 5.0

_log = structlog.get_logger(__name__)

Items = list[dict[str, Any]]
Send = Callable[[Items], Awaitable[set[int]]]
"""Sends a batch and returns the places in it of what was refused; raises BotoCoreError or ClientError if all is."""


class Adapter(Protocol):
    """How one kind of target takes a batch."""

    service: str
    most: int
    """The largest batch."""

    async def send(self, client: Any, items: Items) -> set[int]:
        """Send a batch by a client of the service; see `Send`."""


@dataclass(slots=True)
class Sent:
    """What became of an item: the delay in seconds of each copy (none: lost), and when those arrived that did."""

    item: dict[str, Any]
    delays: tuple[float, ...]
    delivered_at: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Copy:
    sent: Sent
    first_due: float
    attempts: int = 0


def never(_attempts: int) -> None:
    """Try nothing again."""


class Outlet:
    """Takes items without blocking, lets each copy go when it is due, and counts what became of them.

    Delays are of the loop's clock; `now` dates what has arrived. `retry_after` tells how many seconds after so many
    failed attempts the next is made, or None for never. `run` ends once `close` has been called and what was due has
    been tried once more; copies not due yet stay `pending`.
    """

    def __init__(
        self,
        send: Send,
        most: int,
        *,
        now: Callable[[], float],
        retry_after: Callable[[int], float | None] = never,
    ) -> None:
        self._send = send
        self._most = most
        self._now = now
        self._retry_after = retry_after
        self._copies: list[tuple[float, int, _Copy]] = []  # a heap: due, order of coming
        self._pushed = 0
        self._woken = anyio.Event()
        self._closed = False
        self._offered = self._lost = self._published = self._retried = self._dropped = self._failed = 0

    def offer(self, item: dict[str, Any], delays: tuple[float, ...] = (0.0,)) -> Sent:
        """Hold a copy for each delay until it is due; drop what does not fit."""
        sent = Sent(item, delays)
        self._offered += 1
        self._lost += not delays
        for delay in delays:
            if len(self._copies) >= _BUFFERED:
                self._dropped += 1
                _log.warning("simulator.event_dropped", event_id=item.get("id") or item.get("Id"))
            else:
                due = anyio.current_time() + delay
                self._push(due, _Copy(sent, due))
        return sent

    def counts(self) -> dict[str, int]:
        """Return how many items were offered and lost, and what became of the copies of the others."""
        return {
            "offered": self._offered,
            "lost": self._lost,
            "published": self._published,
            "pending": len(self._copies),
            "dropped": self._dropped,
            "failed": self._failed,
            "retried": self._retried,
        }

    def close(self) -> None:
        """Take no more, and let `run` end: what waits to be tried again is tried at once, for the last time."""
        self._closed = True
        now = anyio.current_time()
        self._copies = [(now if copy.attempts else due, number, copy) for due, number, copy in self._copies]
        heapify(self._copies)
        self._woken.set()

    async def run(self) -> None:
        """Deliver until closed."""
        while True:
            batch = self._due()
            if batch:
                await self._deliver(batch)
            elif self._closed:
                return
            else:
                self._woken = anyio.Event()
                with anyio.CancelScope(deadline=self._copies[0][0] if self._copies else inf):
                    await self._woken.wait()

    def _push(self, due: float, copy: _Copy) -> None:
        self._pushed += 1
        heappush(self._copies, (due, self._pushed, copy))
        self._woken.set()

    def _due(self) -> list[_Copy]:
        now = anyio.current_time()
        batch: list[_Copy] = []
        while self._copies and self._copies[0][0] <= now and len(batch) < self._most:
            batch.append(heappop(self._copies)[2])
        return batch

    async def _deliver(self, batch: list[_Copy]) -> None:
        refused = set(range(len(batch)))
        try:
            refused = await self._send([copy.sent.item for copy in batch])
        except (BotoCoreError, ClientError) as error:
            _log.warning("simulator.events_not_published", error=str(error))
        finally:  # cancelled, too: what is not known to have arrived is settled as refused
            for place, copy in enumerate(batch):
                self._settle(copy, arrived=place not in refused)

    def _settle(self, copy: _Copy, *, arrived: bool) -> None:
        if arrived:
            self._published += 1
            copy.sent.delivered_at.append(self._now())
            return
        copy.attempts += 1
        wait = self._retry_after(copy.attempts)
        due = anyio.current_time() + (wait or 0.0)
        if wait is None or self._closed or due - copy.first_due > _LONGEST_SECONDS:
            self._failed += 1
        else:
            self._retried += 1
            self._push(due, copy)


@asynccontextmanager
async def opened(
    to: Adapter,
    region: str,
    *,
    now: Callable[[], float],
    retry_after: Callable[[int], float | None] = never,
) -> AsyncIterator[Outlet]:
    """Run an outlet; on leaving, what is due is sent, for at most five seconds.

    Credentials and endpoints come from where every AWS tool takes them, the Region too; `region` is the
    instance's, for when nothing is configured.
    """
    session = get_session()
    where = session.get_config_variable("region") or region
    async with (
        session.create_client(to.service, region_name=where) as client,
        anyio.create_task_group() as tasks,
    ):
        outlet = Outlet(lambda items: to.send(client, items), to.most, now=now, retry_after=retry_after)
        tasks.start_soon(outlet.run)
        try:
            yield outlet
        finally:
            outlet.close()
            tasks.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS
