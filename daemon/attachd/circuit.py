"""A circuit breaker, as arithmetic: is the other side there, and when is it worth another look?

Pure: the time is an argument. Closed while calls succeed; open after so many failures in a row, or when the other
side says so itself; half-open when that time is over: then one call goes through, and decides.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Final

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 15.0


@dataclass(slots=True)
class Circuit:
    """The state of one peer. Times are of any one monotonic clock, in seconds.

    Attributes:
        failures: so many in a row open it.
        first: seconds it stays open the first time; doubled each time a probe fails.
        longest: seconds it stays open at most.
        why: what opened it; empty while it is closed.
    """

    failures: int = 3
    first: float = _FIRST_SECONDS
    longest: float = _LONGEST_SECONDS
    why: str = ""
    _failed: int = field(default=0, init=False)
    _opened: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)
    _probing: bool = field(default=False, init=False)

    def wait(self, now: float) -> float:
        """Seconds until a call may go through; infinity while a probe is under way."""
        if not self.why:
            return 0.0
        return inf if self._probing else max(0.0, self._until - now)

    @property
    def closed(self) -> bool:
        """Whether calls go through freely."""
        return not self.why

    def enter(self) -> None:
        """A call goes through; while the circuit is not closed, it is the probe."""
        self._probing = bool(self.why)

    def leave(self) -> None:
        """A call that went through is over; a probe that ended without a verdict leaves room for another."""
        self._probing = False

    def succeeded(self) -> None:
        """A call succeeded: whatever was wrong is over."""
        self.why, self._failed, self._opened, self._probing = "", 0, 0, False

    def failed(self, why: str, now: float) -> None:
        """A call failed in a way that tells of the other side, not of the call."""
        self._failed += 1
        if self.why or self._failed >= self.failures:
            self.open(why, now)

    def open(self, why: str, now: float, seconds: float | None = None) -> None:
        """Let nothing through for so long; by default longer each time.

        A failure while it is open already, of a call that went through before, changes nothing; nor does anything
        once it is open for ever.
        """
        if self.why and (self._until == inf or (not self._probing and now < self._until and seconds is None)):
            return
        if seconds is None:
            seconds = min(self.longest, self.first * 2 ** min(self._opened, 30))
        self._opened += 1
        self.why, self._until, self._probing = why, now + seconds, False
