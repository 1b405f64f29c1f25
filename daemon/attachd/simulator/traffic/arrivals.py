"""When customers come: seconds from the start, from the dice given, never decreasing, without an end unless there is one.

Pure arithmetic; who comes and what they do is not known here.
"""

import random
import re
from collections.abc import Iterator
from math import inf

import msgspec

_DAY_HOURS = 24
_MOST_PER_SECOND = 10_000.0
_HOUR_SECONDS = 3600.0
_UNITS = {"s": 1.0, "min": 60.0, "h": _HOUR_SECONDS}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|min|h)")
_BURST = re.compile(r"(\d+)(?:/(\d+(?:\.\d+)?)(s|min|h))?")


class _Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the kinds of arrivals share: their table in a scenario names its `kind`."""


class Constant(_Arrivals, frozen=True, tag="constant"):
    """One after the other, evenly."""

    per_second: float

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        _require_rate("per_second", self.per_second)

    def instants(self, _dice: random.Random) -> Iterator[float]:
        """Yield n / rate for every n."""
        number = 0
        while True:
            yield number / self.per_second
            number += 1


class Poisson(_Arrivals, frozen=True, tag="poisson"):
    """Independently of each other, as people do: the gaps are exponential."""

    per_second: float

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        _require_rate("per_second", self.per_second)

    def instants(self, dice: random.Random) -> Iterator[float]:
        """Yield sums of exponential gaps."""
        at = 0.0
        while True:
            at += dice.expovariate(self.per_second)
            yield at


class Burst(_Arrivals, frozen=True, tag="burst"):
    """Many at once; again and again, if `every_seconds` says how often."""

    chats: int
    every_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse a burst of nobody, or one without a pause."""
        _require_positive("chats", self.chats)
        if self.every_seconds is not None:
            _require_positive("every_seconds", self.every_seconds)
            _require_rate("chats and every_seconds", self.chats / self.every_seconds)

    def instants(self, _dice: random.Random) -> Iterator[float]:
        """Yield each burst's moment as often as it has chats."""
        burst = 0
        while burst == 0 or self.every_seconds is not None:
            for _ in range(self.chats):
                yield burst * (self.every_seconds or 0.0)
            burst += 1


class Day(_Arrivals, frozen=True, tag="day"):
    """A day's curve, Poisson with a rate that changes; day after day.

    `per_hour` has the chats per hour at 0:00, 1:00, … 23:00, with straight lines between and round midnight; `speed` plays
    that many seconds of the day in one; `from_hour` is the time of day at the start.
    """

    per_hour: tuple[float, ...]
    speed: float = 1.0
    from_hour: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no day."""
        if len(self.per_hour) != _DAY_HOURS:
            raise ValueError(f"per_hour must have {_DAY_HOURS} numbers, not {len(self.per_hour)}")
        if not all(0 <= each < inf for each in self.per_hour) or not any(self.per_hour):
            raise ValueError("per_hour must have numbers from 0, and one above")
        _require_positive("speed", self.speed)
        _require_rate("per_hour and speed", max(self.per_hour) * self.speed / _HOUR_SECONDS)
        if not 0 <= self.from_hour < _DAY_HOURS:
            raise ValueError(f"from_hour must be from 0 to below {_DAY_HOURS}, not {self.from_hour}")

    def rate(self, seconds: float) -> float:
        """Return the chats per second, so many seconds after the start."""
        hour = (self.from_hour + seconds * self.speed / _HOUR_SECONDS) % _DAY_HOURS
        before = int(hour)
        left, right = self.per_hour[before], self.per_hour[(before + 1) % _DAY_HOURS]
        return (left + (right - left) * (hour - before)) * self.speed / _HOUR_SECONDS

    def instants(self, dice: random.Random) -> Iterator[float]:
        """Thin a Poisson process of the highest rate: keep each instant with probability rate / highest."""
        highest = max(self.per_hour) * self.speed / _HOUR_SECONDS
        for at in Poisson(highest).instants(dice):
            if dice.random() * highest < self.rate(at):
                yield at


Arrivals = Constant | Poisson | Burst | Day


def parse_arrivals(text: str) -> Arrivals:
    """Read `constant:2/s`, `poisson:30/min`, `burst:50` or `burst:50/5min`; raise ValueError for anything else."""
    kind, _, value = text.partition(":")
    if kind == "burst" and (found := _BURST.fullmatch(value)):
        every = float(found[2]) * _UNITS[found[3]] if found[2] else None
        return Burst(int(found[1]), every)
    if kind in {"constant", "poisson"} and (found := _RATE.fullmatch(value)):
        per_second = float(found[1]) / _UNITS[found[2]]
        return Constant(per_second) if kind == "constant" else Poisson(per_second)
    raise ValueError(f"expected constant:2/s, poisson:30/min, burst:50 or burst:50/5min, got {text!r}")


def _require_rate(name: str, per_second: float) -> None:
    """Refuse what no machine plays: it would only fall behind, ever further."""
    if not 0 < per_second <= _MOST_PER_SECOND:
        raise ValueError(
            f"{name} must be above 0 and at most {_MOST_PER_SECOND:g} a second, not {per_second:g}"
        )


def _require_positive(name: str, value: float) -> None:
    if not 0 < value < inf:
        raise ValueError(f"{name} must be above 0, not {value}")
