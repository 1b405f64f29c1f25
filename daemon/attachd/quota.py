"""The account's rate for one API, as arithmetic: GCRA, the generic cell rate algorithm.

Pure: the time goes in, the wait comes out. One number of state, the theoretical arrival time (TAT), stands
for the whole bucket; there is no timer to drift and nothing to refill. ``waiting`` does the waiting.

Amazon Connect's quotas are token buckets, a rate and a burst per API, account and Region (admin guide,
"Connect Customer service quotas": CreateParticipant 5/s, burst 8).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_second`` tokens a second, at most ``burst`` of them at once."""

    per_second: float
    burst: int

    def wait(self, tat: float, now: float) -> float:
        """Seconds until a token is there; 0 when one is."""
        return max(0.0, tat - (self.burst - 1) / self.per_second - now)

    def take(self, tat: float, now: float) -> float:
        """The TAT once a token has been taken at ``now``."""
        return max(tat, now) + 1 / self.per_second

    def available(self, tat: float, now: float) -> int:
        """How many tokens could be taken at ``now``, one after the other."""
        lent = max(0.0, tat - now) * self.per_second
        return max(0, int(self.burst - lent + 1e-9))


class Quota:
    """A rate and what has been taken of it. Times are of any one monotonic clock, in seconds.

    Args:
        rate: what may be taken.
        spent_at: when all of the burst was last known to be spent; never, unless given. Give the start of the
            process: its predecessor may have spent it a moment ago.
    """

    def __init__(self, rate: Rate, *, spent_at: float = float("-inf")) -> None:
        self.rate = rate
        self._tat = spent_at + rate.burst / rate.per_second

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0 when one is."""
        return self.rate.wait(self._tat, now)

    def take(self, now: float) -> None:
        """Spend a token. The caller has seen that ``wait`` is 0."""
        self._tat = self.rate.take(self._tat, now)

    def available(self, now: float) -> int:
        """Tokens that could be spent now."""
        return self.rate.available(self._tat, now)
