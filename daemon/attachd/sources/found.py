"""Chats that a source has found by itself: the event that should have come, and the deliveries that are made of it."""

import heapq
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Final

import anyio
import structlog

from attachd.decode import DETAIL_TYPE
from attachd.model import Contact, Delivery, Disposition, Quarantine, Release

#: The event that opens a contact of this channel; of a chat the first.
_OPENS: Final = {"VOICE": "CONNECTED_TO_AGENT"}

log = structlog.get_logger(__name__)


class Found:
    """Deliveries of a source's own making: handed out once, and again when they are released.

    Args:
        by: the source, for the log.
    """

    def __init__(self, by: str) -> None:
        self._by = by
        self._ready: deque[Delivery] = deque()
        self._later: list[tuple[float, int, Delivery]] = []
        self._number = count()
        self._in_hand: set[str] = set()
        self._arrived = anyio.Event()
        self._taken = anyio.Event()

    def __bool__(self) -> bool:
        """Whether any waits to be handed out for the first time."""
        return bool(self._ready)

    def add(self, delivery: Delivery) -> None:
        """Hand it out now."""
        self._ready.append(delivery)
        self._wake()

    async def due(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries; waits so long for the first one."""
        until = anyio.current_time() + seconds
        while not (due := self._due(limit)) and anyio.current_time() < until:
            with anyio.move_on_at(min(until, self._later[0][0]) if self._later else until):
                await self._arrived.wait()
        self._in_hand |= {delivery.id for delivery in due}
        return due

    def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``. What is released is handed out once more; nobody else has the event to keep it."""
        if delivery.id not in self._in_hand:
            return
        self._in_hand.remove(delivery.id)
        match disposition:
            case Release(after=after):
                again = replace(delivery, attempt=delivery.attempt + 1)
                heapq.heappush(self._later, (anyio.current_time() + after, next(self._number), again))
                self._wake()
            case Quarantine(reason=reason):
                log.warning("found.quarantined", source=self._by, contact=delivery.id, reason=reason)

    async def all_taken(self) -> None:
        """Wait until everything new has been handed out."""
        while self._ready:
            self._taken = anyio.Event()
            await self._taken.wait()

    def clear(self) -> None:
        """Forget all of them."""
        self._ready.clear()
        self._later.clear()
        self._in_hand.clear()

    def _due(self, limit: int) -> list[Delivery]:
        due: list[Delivery] = []
        while len(due) < limit and self._later and self._later[0][0] <= anyio.current_time():
            due.append(heapq.heappop(self._later)[2])
        while len(due) < limit and self._ready:
            due.append(self._ready.popleft())
        if not self._ready:
            self._taken.set()
        return due

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = anyio.Event()


def opening(contact: Contact, time: float, found_by: str) -> bytes:
    """The event that opens the contact, as EventBridge would have delivered it at that time."""
    _, _, _, region, account, _ = contact.instance_arn.split(":", 5)
    detail = {
        "eventType": _OPENS.get(contact.channel, "INITIATED"),
        "contactId": contact.id,
        "initialContactId": contact.initial_id,
        "previousContactId": contact.previous_id,
        "channel": contact.channel,
        "instanceArn": contact.instance_arn,
        "initiationMethod": contact.initiation_method,
        "initiationTimestamp": None if contact.initiated_at is None else _iso(contact.initiated_at),
        "segmentAttributes": {
            name: {"valueString": value} for name, value in contact.segment_attributes.items()
        },
        "tags": dict(contact.tags),
    }
    return json.dumps(
        {
            "version": "0",
            "id": f"{found_by}-{contact.id}",
            "detail-type": DETAIL_TYPE,
            "source": "aws.connect",
            "account": account,
            "time": _iso(time),
            "region": region,
            "resources": [f"{contact.instance_arn}/contact/{contact.id}", contact.instance_arn],
            "detail": {name: value for name, value in detail.items() if value is not None},
        }
    ).encode()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
