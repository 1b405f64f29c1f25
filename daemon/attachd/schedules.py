"""When a rule holds: days, hours of the day in a time zone, a beginning and an end.

Pure: the moment is told, never asked for. It is turned into the wall clock's time there, which always has one answer; so
09:00-17:00 is eight hours on the days on which clocks change as well, and an hour that a clock leaves out or shows
twice is in or out as its wall time says.
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from re import compile as regex
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS: Final = regex(r"([01]\d|2[0-4]):([0-5]\d)\s*[-\N{EN DASH}]\s*([01]\d|2[0-4]):([0-5]\d)")
_DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of the day, in minutes after midnight: from ``start`` to before ``end``; through midnight if that is less."""

    start: int
    end: int

    @classmethod
    def of(cls, text: str) -> "Hours":
        """``"09:00-17:00"``, ``"22:00-06:00"``, ``"18:00-24:00"``.

        Raises:
            ValueError: it is none, with a sentence.
        """
        found = _HOURS.fullmatch(text.strip())
        start, end = (
            (60 * int(found[1]) + int(found[2]), 60 * int(found[3]) + int(found[4])) if found else (-1, -1)
        )
        if found is None or start >= _DAY_MINUTES or end > _DAY_MINUTES:
            raise ValueError("not hours of a day: write '09:00-17:00', or '22:00-06:00' through midnight")
        if start == end:
            raise ValueError("begins when it ends: for the whole day write '00:00-24:00'")
        return cls(start, end)

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Window:
    """When a rule holds.

    Attributes:
        zone: whose wall clock counts.
        days: 0 for Monday to 6; hours that go through midnight belong to the day on which they begin.
        hours: any of them.
        begins: from that moment on, in seconds since the epoch.
        ends: before that moment.
    """

    zone: tzinfo
    days: frozenset[int] = frozenset(range(7))
    hours: tuple[Hours, ...] = (Hours(0, _DAY_MINUTES),)
    begins: float | None = None
    ends: float | None = None

    def holds(self, moment: float) -> bool:
        """Whether the moment, in seconds since the epoch, lies in it."""
        if self.begins is not None and moment < self.begins:
            return False
        if self.ends is not None and moment >= self.ends:
            return False
        there = datetime.fromtimestamp(moment, self.zone)
        today, minute = there.weekday(), 60 * there.hour + there.minute
        for part in self.hours:
            if part.start < part.end:
                if today in self.days and part.start <= minute < part.end:
                    return True
            elif minute >= part.start:
                if today in self.days:
                    return True
            elif minute < part.end and (today - 1) % 7 in self.days:
                return True
        return False

    def __str__(self) -> str:
        """In the words of the file: ``mon tue 09:00-17:00 Europe/Berlin``."""
        named = "" if len(self.days) == len(DAYS) else " ".join(DAYS[day] for day in sorted(self.days))
        moments = (
            f"{word} {_spelled(moment, self.zone)}"
            for word, moment in (("from", self.begins), ("until", self.ends))
            if moment is not None
        )
        return " ".join(filter(None, (named, *map(str, self.hours), *moments, str(self.zone))))


def told(moment: float, windows: tuple[Window, ...]) -> str:
    """Why a rule does not hold then: the wall clock's time in each zone, and the windows."""
    zones = {str(window.zone): window.zone for window in windows}
    now = ", ".join(f"{_spelled(moment, zone)} in {name}" for name, zone in zones.items())
    return f"the event is of {now}; active {' or '.join(map(str, windows))}"


def time_zone(name: str) -> ZoneInfo:
    """A time zone by its name in the tz database.

    Raises:
        ValueError: there is none, with a sentence.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        if not available_timezones():
            raise ValueError("this machine has no tz database: install the package tzdata") from None
        raise ValueError(
            "no time zone of the tz database: write one like 'Europe/Berlin', or 'UTC'"
        ) from None


def _spelled(moment: float, zone: tzinfo) -> str:
    there = datetime.fromtimestamp(moment, zone)
    return f"{DAYS[there.weekday()]} {there:%Y-%m-%d %H:%M}"
