"""The simulator's time: whose clock it is, and who waits for it. Only here does anything wait.

The time may be the machine's, a test's callable, or a `ManualClock`, which stands still until it is moved.
"""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

import anyio
import anyio.lowlevel
import structlog

_log = structlog.get_logger(__name__)
_TICK_SECONDS = 0.05
_SLICE_SECONDS = 0.05
_END = 253_370_764_800.0  # the year 9999, kept free for what expires and for clocks that are ahead


class ManualClock:
    """Time that passes only when told to; call it to read it, in seconds since the epoch."""

    def __init__(self, at: float) -> None:
        """Stand at `at`; raises ValueError outside the years 1970 to 9998."""
        _require_writable(at)
        self._at = at
        self._listeners: list[Callable[[], object]] = []

    def __call__(self) -> float:
        """Return what time it is."""
        return self._at

    def advance(self, seconds: float) -> None:
        """Let time pass, and all that is due in it happen; raises ValueError for less than none."""
        self.set(self._at + seconds)

    def set(self, at: float) -> None:
        """Let time pass until `at`, as `turn` does, and all that is due in it happen."""
        self.turn(at)
        for listener in self._listeners:
            listener()

    def turn(self, at: float) -> None:
        """Have it be `at`, and tell nobody yet; raises ValueError if that has passed, or is after the year 9998."""
        if at < self._at:
            raise ValueError("time does not go back")
        _require_writable(at)
        self._at = at

    def tell(self, listener: Callable[[], object]) -> None:
        """Call `listener` whenever time has passed."""
        self._listeners.append(listener)


def _require_writable(at: float) -> None:
    if not 0 <= at < _END:  # nor is NaN
        raise ValueError("the time must be from the year 1970 to the year 9998")


class Timekeeper:
    """Sees to it that what is due happens: in the world, and to the answers which come late.

    A machine's or a test's clock is looked at when something is due and every 50 ms while anything is waited for,
    since it may jump; a ManualClock tells. A timer and no task, so that a simulator without an events target may be
    entered and left in different tasks.
    """

    def __init__(
        self,
        now: Callable[[], float],
        advance: Callable[[float, float], bool],
        due: Callable[[], float | None],
    ) -> None:
        """Call `advance` with the time as it passes, and with the seconds it may work before it returns False.

        `due` tells when it is next wanted.
        """
        self.now = now
        self._advance = advance
        self._due = due
        self._waiting: list[tuple[float, int, anyio.Event]] = []
        self._waited = 0
        self._hoping: list[tuple[Callable[[], bool], anyio.Event]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = anyio.Event()
        if isinstance(now, ManualClock):
            now.tell(self.catch_up)

    def catch_up(self, within_seconds: float = inf) -> bool:
        """Let what is due happen; once stopped nothing does any more, and the truth stands still.

        Returns whether all is done, which it may not be if it was to be done within some seconds.
        """
        if self._stopped.is_set():
            return True
        now = self.now()
        if not self._advance(now, within_seconds):
            return False
        while self._waiting and self._waiting[0][0] <= now:
            heappop(self._waiting)[2].set()
        self._look()
        return True

    async def caught_up(self) -> None:
        """Let what is due by now happen, in slices, so that signals and other connections are heard between them."""
        now = self.now()
        while not self._stopped.is_set() and not self._advance(now, _SLICE_SECONDS):
            await anyio.lowlevel.checkpoint()

    async def until(self, at: float) -> None:
        """Wait until it is `at`, or the simulator stops; with infinity, only for that."""
        if at == inf:
            await self._stopped.wait()
        if self._stopped.is_set() or at <= self.now():
            return
        reached = anyio.Event()
        self._waited += 1
        heappush(self._waiting, (at, self._waited, reached))
        self.wind()
        await reached.wait()

    async def until_so(self, so: Callable[[], bool]) -> None:
        """Wait until `so` holds, which is looked at when time has passed or something has happened; or for the end."""
        if self._stopped.is_set() or so():
            return
        held = anyio.Event()
        self._hoping.append((so, held))
        await held.wait()

    def wind(self) -> None:
        """See to it that somebody looks at the time, if there is anything to wait for; something may have happened."""
        self._look()
        if isinstance(self.now, ManualClock) or self._stopped.is_set():
            return
        due = min(self._due() or inf, self._waiting[0][0] if self._waiting else inf)
        if due == inf:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + min(_TICK_SECONDS, max(0.0, due - self.now()))
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._tick)

    def stop(self) -> None:
        """Stand still, and keep nobody waiting."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        for _, _, reached in self._waiting:
            reached.set()
        for _, held in self._hoping:
            held.set()
        self._waiting.clear()
        self._hoping.clear()

    def _look(self) -> None:
        for hope in [hope for hope in self._hoping if hope[0]()]:
            self._hoping.remove(hope)
            hope[1].set()

    def _tick(self) -> None:
        self._timer = None
        try:
            self.catch_up(_SLICE_SECONDS)
        except Exception as error:  # noqa: BLE001 - time goes on; the text may quote what somebody said
            _log.error("simulator.time_broken", error=type(error).__name__)
        finally:
            self.wind()
