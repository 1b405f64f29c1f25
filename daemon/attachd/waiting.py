"""The room before the quota: who goes next, who gives up, who is called away.

A contact waits here for a token and for nothing else. The token is bought at the moment of leaving, for the
contact that is first *then*: a contact that ended, expired or was called away costs none. Order: priority
(higher first), then age (older first).
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import anyio

from attachd.errors import Permanent
from attachd.model import Outcome
from attachd.quota import Quota

_TICK_SECONDS: Final = 1e-6  # a wait that rounding has left over must still move the clock
_SPARE_SEATS: Final = 64


class _State(Enum):
    WAITING = "waiting"
    GRANTED = "granted"
    GONE = "gone"


@dataclass(slots=True, order=True)
class _Seat:
    rank: tuple[float, float, int]
    contact_id: str = field(compare=False)
    until: float = field(compare=False)
    called: anyio.Event = field(compare=False)
    state: _State = field(default=_State.WAITING, compare=False)
    outcome: Outcome = field(default=Outcome.EXPIRED, compare=False)


class Room:
    """The waiting room of one quota. ``run()`` calls contacts in and must be running for any to be admitted."""

    def __init__(self, quota: Quota, *, on_depth: Callable[[int], None] = lambda _: None) -> None:
        self._quota = quota
        self._on_depth = on_depth
        self._queue: list[_Seat] = []
        self._seats: dict[str, _Seat] = {}
        self._arrived = anyio.Event()
        self._count = 0

    def __len__(self) -> int:
        return len(self._seats)

    async def admit(self, contact_id: str, *, priority: int, since: float, until: float) -> None:
        """Wait for a token; one has been spent for this contact when this returns.

        Args:
            contact_id: who waits; at most one seat a contact.
            priority: higher goes first.
            since: the contact's age is counted from here; any clock, the same for all.
            until: patience ends here, on the event loop's clock.

        Raises:
            Permanent: the contact left without a token: called away, or out of patience (``expired``).
        """
        self._count += 1
        seat = _Seat((-priority, since, self._count), contact_id, until, anyio.Event())
        self._seats[contact_id] = seat
        heapq.heappush(self._queue, seat)
        self._on_depth(len(self))
        self._arrived.set()
        try:
            with anyio.move_on_at(until):  # if it has passed already, no seat is called any more
                await seat.called.wait()
        finally:
            if seat.state is _State.WAITING:  # out of patience, or cancelled by the drain
                self._leave(seat)
        if seat.state is _State.GONE:
            raise Permanent(seat.outcome, detail="left the waiting room without a token")

    def call_away(self, contact_id: str, outcome: Outcome) -> bool:
        """Let the contact leave at once, with that outcome and no token; whether it was waiting."""
        seat = self._seats.get(contact_id)
        if seat is None:
            return False
        seat.outcome = outcome
        self._leave(seat)
        seat.called.set()
        return True

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Call contacts in as the quota allows, for ever. Reports progress each time it has looked."""
        while True:
            report()
            if not self._queue:
                self._arrived = anyio.Event()
                with anyio.move_on_after(1.0):  # only to report progress while the room is empty
                    await self._arrived.wait()
                continue
            delay = self._quota.wait(anyio.current_time())
            if delay > 0:
                await anyio.sleep(min(max(delay, _TICK_SECONDS), 1.0))
                continue
            self._call_next()
            await anyio.lowlevel.checkpoint()  # let whoever was called go before the next

    def _call_next(self) -> None:
        """Spend a token on the first who is still there; who is out of patience is let go on the way."""
        while self._queue:
            seat = heapq.heappop(self._queue)
            if seat.state is _State.GONE:
                continue
            now = anyio.current_time()
            if now >= seat.until:
                self._leave(seat)
            else:
                self._quota.take(now)
                seat.state = _State.GRANTED
                self._forget(seat)
            seat.called.set()
            if seat.state is _State.GRANTED:
                return

    def _leave(self, seat: _Seat) -> None:
        seat.state = _State.GONE
        self._forget(seat)

    def _forget(self, seat: _Seat) -> None:
        del self._seats[seat.contact_id]
        if len(self._queue) > 2 * len(self._seats) + _SPARE_SEATS:  # whoever left early is still in the heap
            self._queue = [waiting for waiting in self._queue if waiting.state is _State.WAITING]
            heapq.heapify(self._queue)
        self._on_depth(len(self))
