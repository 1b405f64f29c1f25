"""A spell of failures: told when it begins, once a minute while it lasts, and when it is over; not at every try."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

#: What lasts is told again after so long.
_AGAIN_SECONDS: Final = 60.0
TOLD_AGAIN: Final = "tried again and again, ever more slowly, and told once a minute"
#: Nobody tried for so long: what failed then says nothing of now.
_STALE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Over:
    """A spell that was told, and has ended.

    Attributes:
        failures: how many there were.
        seconds: from the first to the success that ended it.
    """

    failures: int
    seconds: float

    @property
    def told(self) -> Mapping[str, float]:
        """For the log."""
        return {"failures": self.failures, "seconds": round(self.seconds, 1)}


class Spell:
    """Failures in a row of whatever may be tried again. Times are any clock's, the same for all calls.

    Args:
        least: so many in a row make a spell; fewer are told to nobody.
    """

    def __init__(self, least: int = 1) -> None:
        self._least = least
        self._why: str | None = None
        self._failures = 0
        self._began = self._last = self._told = -inf

    def failed(self, why: str, now: float) -> bool:
        """Take in a failure; whether it is to be told."""
        if self._failures == 0 or now >= self._last + _STALE_SECONDS:
            self._failures, self._began, self._told = 0, now, -inf
        self._failures += 1
        self._why, self._last = why, now
        if self._failures < self._least or now < self._told + _AGAIN_SECONDS:
            return False
        self._told = now
        return True

    def succeeded(self, now: float) -> Over | None:
        """Take in a success; the spell that it ended, if one was told."""
        over = Over(self._failures, now - self._began) if self._failures and self._told > -inf else None
        self._failures = 0
        return over

    def why(self, now: float) -> str | None:
        """What fails at present; None when nothing does, or nobody tried lately."""
        lasts = self._failures >= self._least and now < self._last + _STALE_SECONDS
        return self._why if lasts else None
