"""The account's rate for one API, as arithmetic: GCRA, the generic cell rate algorithm, and what throttles teach it.

Pure: the time goes in, the wait comes out. One number of state, the theoretical arrival time (TAT), stands
for the whole bucket; there is no timer to drift and nothing to refill. ``waiting`` does the waiting.

Amazon Connect's quotas are token buckets, a rate and a burst per API, account and Region (admin guide,
"Connect Customer service quotas": CreateParticipant 5/s, burst 8).

A throttle tells that the bucket on the other side is empty, so ours is emptied too; that alone mends a bucket that
was only out of step. The rate is cut as well, by a tenth, and comes back by itself as the cube of the time: it stays
close to what has just been granted, then reaches for the whole. Only where nothing at all gets through, the cuts grow.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

#: What one throttle leaves of the rate, and one more if nothing has got through since.
_CUT: Final = 0.9
_DEEP_CUT: Final = 0.6
#: The least that is left of the rate, and of it in calls a second: recovery is found by calling.
_FLOOR: Final = 0.2
_FLOOR_PER_SECOND: Final = 1.0
#: From a cut back to the whole.
RECOVERY_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_second`` tokens a second, at most ``burst`` of them at once."""

    per_second: float
    burst: float

    def wait(self, tat: float, now: float) -> float:
        """Seconds until a token is there; 0 when one is."""
        return max(0.0, tat - (self.burst - 1) / self.per_second - now)

    def take(self, tat: float, now: float) -> float:
        """The TAT once a token has been taken at ``now``."""
        return max(tat, now) + 1 / self.per_second

    def available(self, tat: float, now: float) -> int:
        """How many tokens could be taken at ``now``, one after the other."""
        return max(0, int(self.burst - self.lent(tat, now) + 1e-9))

    def lent(self, tat: float, now: float) -> float:
        """Tokens taken and not yet earned back."""
        return max(0.0, tat - now) * self.per_second

    def part(self, rate: float, burst: float) -> "Rate":
        """A part of it; the burst is never less than the one token that every call needs."""
        return Rate(self.per_second * rate, max(1.0, self.burst * burst))


class Quota:
    """A rate, what has been taken of it, and what throttles have shown. Times are of any one monotonic clock, in seconds.

    Args:
        rate: what may be taken.
        spent_at: when all of the burst was last known to be spent; never, unless given. Give the start of the
            process: its predecessor may have spent it a moment ago.

    Attributes:
        taken: tokens taken so far.
    """

    def __init__(self, rate: Rate, *, spent_at: float = float("-inf")) -> None:
        self._whole = rate
        self._rate = rate
        self._shut = False
        self._tat = spent_at + rate.burst / rate.per_second
        self._cut_to = 1.0
        self._cut_at = float("-inf")
        self._granted_since = True
        self.taken = 0

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0 when one is. While the rate recovers it may turn out shorter."""
        self._turn_to(now)
        return inf if self._shut else self._rate.wait(self._tat, now)

    def take(self, now: float) -> None:
        """Spend a token. The caller has seen that ``wait`` is 0."""
        self._turn_to(now)
        self._tat = self._rate.take(self._tat, now)
        self.taken += 1

    def give_back(self) -> None:
        """Return the token just taken: nothing was called."""
        self._tat -= 1 / self._rate.per_second
        self.taken -= 1

    def available(self, now: float) -> int:
        """Tokens that could be spent now."""
        self._turn_to(now)
        return self._rate.available(self._tat, now)

    def change(self, rate: Rate | None, now: float) -> None:
        """Have another rate from now on, as when the quota was looked up or shared; what is lent stays lent.

        None is no rate at all, until there is one again.
        """
        self._shut = rate is None
        if rate is None:
            return
        self._turn_to(now)
        self._whole = rate
        self._turn_to(now)

    def granted(self) -> None:
        """A call got through."""
        self._granted_since = True

    def throttled(self, sent_at: float, now: float) -> None:
        """A call that left at ``sent_at`` was refused for its rate.

        Calls that left before the last cut tell nothing new.
        """
        if sent_at < self._cut_at:
            return
        cut = _CUT if self._granted_since else _DEEP_CUT
        floor = max(_FLOOR, min(1.0, _FLOOR_PER_SECOND / self._whole.per_second))
        self._cut_to = max(floor, self._fraction(now) * cut)
        self._cut_at = now
        self._granted_since = False
        self._turn_to(now)
        self._tat = max(self._tat, now + self._rate.burst / self._rate.per_second)

    def recovering(self, now: float) -> bool:
        """Whether the rate is less than the whole, and growing."""
        return self._fraction(now) < 1.0

    def estimate(self, now: float) -> float:
        """Calls a second that are thought to be granted."""
        self._turn_to(now)
        return 0.0 if self._shut else self._rate.per_second

    def _fraction(self, now: float) -> float:
        """How much of the rate is in force: a cube, flat at first, whole after ``RECOVERY_SECONDS``."""
        passed = min(1.0, max(0.0, now - self._cut_at) / RECOVERY_SECONDS)
        return self._cut_to + (1 - self._cut_to) * passed**3

    def _turn_to(self, now: float) -> None:
        """Put the rate of this moment in force. Tokens lent stay lent, whatever they now take to earn back."""
        fraction = self._fraction(now)
        rate = self._whole if fraction == 1.0 else Rate(self._whole.per_second * fraction, self._whole.burst)
        if rate != self._rate:
            lent = self._rate.lent(self._tat, now)
            self._rate = rate
            self._tat = now + lent / rate.per_second
