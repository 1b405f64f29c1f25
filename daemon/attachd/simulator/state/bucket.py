"""The token bucket by which AWS meters an API: pure arithmetic, time is an argument."""


class Bucket:
    """Holds at most `burst` calls and regains `rate` of them a second; starts full."""

    def __init__(self, rate: float, burst: float, *, throttled_calls_spend: bool = False) -> None:
        self._rate = rate
        self._burst = burst
        self._throttled_calls_spend = throttled_calls_spend
        self._left = burst
        self._as_of: float | None = None

    def take(self, now: float) -> bool:
        """Admit one call at `now` (seconds), or refuse it; a clock that steps back refills nothing."""
        elapsed = 0.0 if self._as_of is None else max(0.0, now - self._as_of)
        self._as_of = now
        self._left = min(self._burst, self._left + elapsed * self._rate)
        # A hair of tolerance: 0.2 s at 5/s must be worth one whole call whatever binary fractions say.
        if self._left >= 1 - 1e-9:
            self._left = max(0.0, self._left - 1)
            return True
        if self._throttled_calls_spend:
            self._left = 0.0
        return False

    def give_back(self) -> None:
        """Return the call just taken."""
        self._left = min(self._burst, self._left + 1)
