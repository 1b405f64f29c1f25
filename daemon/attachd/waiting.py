"""The room before a quota: who goes next, who gives up, who is called away.

A contact waits here for two things at once: a gate that is open (a runtime that is there and has a place) and a token
of the quota. Both are taken at the moment of leaving, for the contact that is first *then*: one that ended, expired
or was called away costs nothing, and one whose gates are shut holds up nobody.

Order: priority (higher first), then age: older first, as long as everybody can still be served in time. When the
backlog would take longer to drain than chats have patience, newer first (adaptive LIFO): first come, first served
would then give every chat its bot just as its customer gives up.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, Protocol

import anyio
import structlog

from attachd.errors import Permanent, Transient
from attachd.failures import OF_THE_INSTANCE
from attachd.model import Outcome
from attachd.quota import Quota, Rate
from attachd.seats import Seat, Seats, before
from attachd.spells import Spell

_TICK_SECONDS: Final = 1e-6  # a wait that rounding has left over must still move the clock
_LOOK_SECONDS: Final = 1.0
_RECOVERING_LOOK_SECONDS: Final = 0.25  # a rate that recovers makes a wait shorter than it was thought
#: Back to oldest first only once the backlog drains in this part of the patience, so that the order does not flutter.
_CALM: Final = 0.5
#: A throttle now and then is how the rate is found; so many calls in a row, of whatever contacts, are an outage.
_SPELL: Final = 5

log = structlog.get_logger(__name__)


class Gate(Protocol):
    """What else must be true of a contact's way before a token is spent on it."""

    def wait(self, now: float) -> float:
        """Seconds until it may open: 0 when it is open, infinity when something must happen first."""
        ...

    def enter(self) -> None:
        """One contact goes in; ``wait`` was 0."""
        ...

    def leave(self) -> None:
        """It goes out again."""
        ...


class _State(Enum):
    WAITING = "waiting"
    GRANTED = "granted"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class _Seat(Seat):
    contact_id: str
    until: float
    gates: tuple[Gate, ...]
    called: anyio.Event = field(default_factory=anyio.Event)
    state: _State = _State.WAITING
    outcome: Outcome = Outcome.EXPIRED
    gate: Gate | None = None


class Room:
    """The waiting room of one quota. ``run()`` calls contacts in and must be running for any to be admitted.

    Args:
        quota: what tokens are taken of.
        name: for the log.
        full: whether nobody more may wait; who comes then is sent away for a while.
        on_depth: told how many wait whenever that changes.
    """

    def __init__(
        self,
        quota: Quota,
        *,
        name: str = "",
        full: Callable[[], bool] = lambda: False,
        on_depth: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._quota = quota
        self.name = name
        self._full = full
        self._on_depth = on_depth
        self._spell = Spell(_SPELL)
        self._rows: Seats[_Seat, Gate] = Seats()
        self._seats: dict[str, list[_Seat]] = {}
        self._taken = 0
        self._stirred = anyio.Event()
        self._rationed = False  # the run waits for a token: no newcomer can change that
        self._newest_first = False
        self._patience = inf
        self._count = 0

    def __len__(self) -> int:
        return self._taken

    async def admit(
        self, contact_id: str, *, gates: tuple[Gate, ...], priority: int, since: float, until: float
    ) -> int:
        """Wait for a gate and a token; when this returns, one has been spent for this contact.

        Args:
            contact_id: who waits.
            gates: in order of preference; the contact goes through the first that is open. None at all is no gate.
            priority: higher goes first.
            since: the contact's age is counted from here; any clock, the same for all.
            until: patience ends here, on the event loop's clock.

        Returns:
            Which of the gates it has entered, by its index; the caller leaves it.

        Raises:
            Permanent: the contact left without a token: called away, or out of patience (``expired``); or the
                room is full (``deferred``).
        """
        if self._full():
            raise Permanent(
                Outcome.DEFERRED, "waiting_room_full", f"{self._taken} wait already"
            )  # back to its source at once: what is in hand must leave room for events that end chats
        seat = self._sit_down(contact_id, gates, (-priority, since), until)
        try:
            with anyio.move_on_at(until):  # if it has passed already, no seat is called any more
                await seat.called.wait()
        except BaseException:
            if seat.state is _State.GRANTED and seat.gate is not None:
                seat.gate.leave()  # cancelled at the moment of the grant: nobody else will leave it
            raise
        finally:
            if seat.state is _State.WAITING:  # out of patience, or cancelled by the drain
                self._leave(seat)
        if seat.state is _State.GONE:
            raise Permanent(seat.outcome, detail="left the waiting room without a token")
        return 0 if seat.gate is None else gates.index(seat.gate)

    def call_away(self, contact_id: str, outcome: Outcome) -> bool:
        """Let the contact leave at once, with that outcome and no token; whether it was waiting."""
        seats = list(self._seats.get(contact_id, ()))
        for seat in seats:
            seat.outcome = outcome
            self._leave(seat)
            seat.called.set()
        return bool(seats)

    def stir(self) -> None:
        """A gate may have opened: look again."""
        self._stirred.set()

    def give_back(self) -> None:
        """Return a token: nothing was called."""
        self._quota.give_back()
        self.stir()

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Round the call that the token was spent on: what becomes of it teaches the quota."""
        sent_at = anyio.current_time()
        try:
            yield
        except Transient as error:
            if error.reason == "throttled":
                self._quota.throttled(sent_at, anyio.current_time())
            if error.reason not in OF_THE_INSTANCE:  # of those its circuit tells
                self._failed(str(error))
            raise
        except Permanent:
            self._got_through()
            raise
        self._got_through()

    def _failed(self, why: str) -> None:
        if self._spell.failed(why, anyio.current_time()):
            log.warning(
                "connect.failing",
                room=self.name,
                reason=why,
                waiting=self._taken,
                next="each chat tries again while its rule's patience lasts; told once a minute",
            )

    def _got_through(self) -> None:
        self._quota.granted()
        if (over := self._spell.succeeded(anyio.current_time())) is not None:
            log.info("connect.answers", room=self.name, **over.told)

    @property
    def trouble(self) -> str | None:
        """Why no call gets through, in a sentence; None when calls do, or nobody called lately."""
        why = self._spell.why(anyio.current_time())
        return None if why is None else f"Amazon Connect, {self.name}: no call gets through: {why}"

    def change(self, rate: Rate | None) -> None:
        """Have another rate from now on; None at all for None."""
        self._quota.change(rate, anyio.current_time())
        self.stir()

    @property
    def spent(self) -> int:
        """Tokens spent so far."""
        return self._quota.taken

    @property
    def granted_rate(self) -> float:
        """Calls a second that are thought to be granted."""
        return self._quota.estimate(anyio.current_time())

    @property
    def drain_eta_seconds(self) -> float:
        """How long those who wait will take, at the rate of this moment."""
        if not self._taken:
            return 0.0
        return self._taken / rate if (rate := self.granted_rate) else inf

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Call contacts in as gates and quota allow, for ever. Reports progress each time it has looked."""
        while True:
            report()
            self._stirred = anyio.Event()
            delay = self._delay(anyio.current_time())
            if delay > 0:
                with anyio.move_on_after(min(max(delay, _TICK_SECONDS), _LOOK_SECONDS)):
                    await self._stirred.wait()
                continue
            self._call_next(anyio.current_time())
            await anyio.lowlevel.checkpoint()  # let whoever was called go before the next

    def _delay(self, now: float) -> float:
        """Seconds until somebody may go, or until it is time to look again."""
        token = self._quota.wait(now)
        self._rationed = token > 0
        if self._rationed:
            return min(token, _RECOVERING_LOOK_SECONDS if self._quota.recovering(now) else inf)
        return min((_wait(row.gates, now) for row in self._rows), default=inf)

    def _call_next(self, now: float) -> None:
        """Spend a token on the first who is still there; who is out of patience is let go on the way."""
        while (choice := self._next(now)) is not None:
            seat, gate = choice
            if now >= seat.until:
                self._leave(seat)
                seat.called.set()
                continue
            self._quota.take(now)
            if gate is not None:
                gate.enter()
            seat.gate, seat.state = gate, _State.GRANTED
            self._forget(seat)
            seat.called.set()
            return

    def _next(self, now: float) -> tuple[_Seat, Gate | None] | None:
        """Who goes next, and through which gate."""
        best: tuple[_Seat, Gate | None] | None = None
        newest = self._newest_first
        for row in self._rows:
            if _wait(row.gates, now) > 0:
                continue
            seat = row.first(newest=newest)
            if best is None or before(seat, best[0], newest=newest):
                best = seat, next((gate for gate in row.gates if gate.wait(now) == 0), None)
        return best

    def _sit_down(
        self, contact_id: str, gates: tuple[Gate, ...], rank: tuple[int, float], until: float
    ) -> _Seat:
        self._count += 1
        seat = _Seat((*rank, self._count), contact_id, until, gates)
        self._seats.setdefault(contact_id, []).append(seat)
        self._taken += 1
        self._rows.add(seat, gates)
        self._hear_patience(until - anyio.current_time())
        self._changed()
        if not self._rationed:
            self._stirred.set()
        return seat

    def _hear_patience(self, seconds: float) -> None:
        """Newcomers' patience, as a moving average: rules differ, and an old event says nothing of the others."""
        if seconds > 0:
            self._patience = seconds if self._patience == inf else 0.9 * self._patience + 0.1 * seconds

    def _leave(self, seat: _Seat) -> None:
        seat.state = _State.GONE
        self._forget(seat)

    def _forget(self, seat: _Seat) -> None:
        seats = self._seats[seat.contact_id]
        seats.remove(seat)
        if not seats:
            del self._seats[seat.contact_id]
        self._taken -= 1
        self._rows.remove(seat, seat.gates)
        self._changed()

    def _changed(self) -> None:
        """The backlog is another: choose the order that serves it best."""
        self._on_depth(self._taken)
        eta = self.drain_eta_seconds
        newest_first = eta > self._patience * (_CALM if self._newest_first else 1.0)
        if newest_first is not self._newest_first:
            self._newest_first = newest_first
            tell = log.warning if newest_first else log.info
            tell(
                "waiting.newest_first" if newest_first else "waiting.oldest_first",
                room=self.name,
                waiting=self._taken,
                drain_eta_seconds=None if eta == inf else round(eta, 1),
                next="those who came last are served first: the oldest could not be served in time"
                if newest_first
                else "everybody who waits can be served in time again",
            )


def _wait(gates: tuple[Gate, ...], now: float) -> float:
    """Seconds until one of them may open; 0 if there are none."""
    return min((gate.wait(now) for gate in gates), default=0.0)
