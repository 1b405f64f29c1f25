"""When a rule holds: held to an independent account of days and hours, over the days on which clocks change too."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attachd.schedules import DAYS, Hours, Window, time_zone, told

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Asia/Kathmandu",  # 5:45 off
    "Africa/Casablanca",  # winter time in Ramadan
    "Pacific/Apia",  # left a day out in 2011
    "UTC",
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.integers(int(datetime(2010, 1, 1, tzinfo=UTC).timestamp()), 2_100_000_000).map(float)
minutes = st.integers(0, 1439)
parts = (
    st.tuples(minutes, st.integers(0, 1440)).filter(lambda part: part[0] != part[1]).map(lambda p: Hours(*p))
)
days = st.frozensets(st.integers(0, 6), min_size=1)


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def spelled_out(window: Window, moment: float) -> bool:
    """The same by listing: is the wall clock's minute among those that the window's days hold?"""
    there = datetime.fromtimestamp(moment, window.zone).replace(tzinfo=None, second=0, microsecond=0, fold=0)
    midnight = there.replace(hour=0, minute=0)
    for begun in (midnight, midnight - timedelta(days=1)):
        for part in window.hours:
            length = (part.end - part.start) % 1440 or 1440
            first = begun + timedelta(minutes=part.start)
            if begun.weekday() in window.days and first <= there < first + timedelta(minutes=length):
                return True
    return False


@given(zones, days, st.lists(parts, min_size=1, max_size=3), moments)
def test_a_window_holds_the_minutes_of_its_days_by_the_wall_clock(
    zone: ZoneInfo, some: frozenset[int], hours: list[Hours], moment: float
) -> None:
    window = Window(zone, some, tuple(hours))
    assert window.holds(moment) is spelled_out(window, moment)


@given(zones, minutes, minutes, moments)
def test_a_day_and_the_night_that_goes_with_it_share_all_time_between_them(
    zone: ZoneInfo, one: int, other: int, moment: float
) -> None:
    if one != other:
        day, night = (Window(zone, hours=(Hours(*pair),)) for pair in ((one, other), (other, one)))
        assert day.holds(moment) is not night.holds(moment)


@given(zones, moments)
def test_every_moment_is_on_exactly_one_day(zone: ZoneInfo, moment: float) -> None:
    assert sum(Window(zone, frozenset([day])).holds(moment) for day in range(7)) == 1


@given(moments, moments, moments, zones)
@example(5e8, 5e8 + 1, 5e8 + 1, ZoneInfo("UTC"))
def test_the_beginning_is_in_and_the_end_is_out(
    one: float, other: float, moment: float, zone: ZoneInfo
) -> None:
    begins, ends = sorted((one, other))
    assert Window(zone, begins=begins, ends=ends).holds(moment) is (begins <= moment < ends)


@pytest.mark.parametrize(
    ("day", "hours", "lasts"),
    [
        ("2026-03-28", "09:00-17:00", 8),
        ("2026-03-29", "09:00-17:00", 8),  # 02:00 is 03:00
        ("2026-10-25", "09:00-17:00", 8),  # 03:00 is 02:00
        ("2026-03-29", "00:00-24:00", 23),
        ("2026-10-25", "00:00-24:00", 25),
        ("2026-03-29", "02:00-03:00", 0),  # no clock shows it
        ("2026-10-25", "02:00-03:00", 2),  # every clock shows it twice
        ("2026-03-28", "22:00-06:00", 7),
        ("2026-10-24", "22:00-06:00", 9),
    ],
)
def test_hours_are_the_wall_clocks_when_clocks_change_too(day: str, hours: str, lasts: int) -> None:
    weekday = datetime.fromisoformat(day).weekday()
    window = Window(ZoneInfo("Europe/Berlin"), frozenset([weekday]), (Hours.of(hours),))
    noon_before = at(f"{day}T00:00") - 6 * 3600
    assert sum(window.holds(noon_before + 60 * n) for n in range(48 * 60)) == 60 * lasts


def test_the_end_of_a_night_belongs_to_the_day_on_which_it_began() -> None:
    friday_night = Window(ZoneInfo("Europe/Berlin"), frozenset([4]), (Hours.of("22:00-06:00"),))
    assert friday_night.holds(at("2026-07-04T03:00"))  # a Saturday
    assert not friday_night.holds(at("2026-07-03T03:00"))
    assert not friday_night.holds(at("2026-07-04T23:00"))


@pytest.mark.parametrize(
    "text", ["9-17", "09:00", "24:00-06:00", "10:00-24:30", "10:00-10:00", "25:00-26:00", ""]
)
def test_what_are_no_hours_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write '"):
        Hours.of(text)


@pytest.mark.parametrize(
    "name", ["Europe/Bärlin", "", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 500]
)
def test_what_is_no_time_zone_is_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(ValueError, match="write one like 'Europe/Berlin'"):
        time_zone(name)


def test_why_a_rule_does_not_hold_is_told_in_its_own_time() -> None:
    window = Window(
        ZoneInfo("Europe/Berlin"), frozenset([0, 1]), (Hours.of("09:00-17:00"),), ends=at("2026-07-06T00:00")
    )
    assert told(at("2026-07-04T21:05"), (window,)) == (
        "the event is of sat 2026-07-04 21:05 in Europe/Berlin; "
        "active mon tue 09:00-17:00 until mon 2026-07-06 00:00 Europe/Berlin"
    )
    assert DAYS[datetime(2026, 7, 4, tzinfo=UTC).weekday()] == "sat"


def test_a_machine_without_the_tz_database_is_told_what_it_lacks() -> None:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    try:
        with pytest.raises(ValueError, match="no tz database: install the package tzdata"):
            time_zone("Pacific/Apia")
    finally:
        zoneinfo.reset_tzpath(to=before)
