"""Contact events on their way out, to EventBridge, Kinesis or SQS, each with the `mishaps` dealt to it.

What the target refuses is tried again as EventBridge would.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attachd.simulator.delivery import Delivery, Target
from attachd.simulator.outlets.outlet import Outlet, Sent, opened
from attachd.simulator.outlets.targets import adapter
from attachd.simulator.state.mishaps import delays_of, retry_after


class Publisher:
    """Takes contact events without blocking, and keeps what became of each."""

    def __init__(self, outlet: Outlet, delivery: Delivery, seed: int) -> None:
        self._outlet = outlet
        self._delivery = delivery
        self._seed = seed
        self._ordinals: dict[str, int] = {}  # by contact
        self.sent: list[Sent] = []
        self.counts = outlet.counts

    def offer(self, event: dict[str, Any]) -> None:
        """Deal an event its mishaps and let it go."""
        contact_id = event["detail"]["contactId"]
        ordinal = self._ordinals.get(contact_id, 0)
        self._ordinals[contact_id] = ordinal + 1
        delays = delays_of(self._delivery, self._seed, contact_id, ordinal)
        self.sent.append(self._outlet.offer(event, delays))


@asynccontextmanager
async def publishing(
    target: Target, region: str, *, now: Callable[[], float], delivery: Delivery, seed: int
) -> AsyncIterator[Publisher]:
    """Run a publisher; on leaving it drains as its outlet does."""
    async with opened(adapter(target), region, now=now, retry_after=retry_after) as outlet:
        yield Publisher(outlet, delivery, seed)
