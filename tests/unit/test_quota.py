"""GCRA's laws: what is granted in any window, when the next one is there, and that nothing is wasted."""

import bisect
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attachd.quota import Quota, Rate

rates = st.builds(
    Rate,
    per_second=st.floats(0.01, 1000) | st.sampled_from([0.5, 1.0, 2.0, 5.0]),
    burst=st.integers(1, 50),
)
starts = st.sampled_from([0.0, 1.0, 12_345.678, 5e6])
gaps = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.2, 1.0, 7.0]) | st.floats(0, 3), max_size=80)

EPS = 1e-4  # of a token; times near 5e6 s are exact to 1e-9 s, and eighty takes at 1000/s add that up


def _arrivals(start: float, gaps: list[float]) -> list[float]:
    times = [start]
    for gap in gaps:
        times.append(times[-1] + gap)
    return times


def _granted(rate: Rate, arrivals: list[float]) -> list[float]:
    """Who asks is granted a token if one is there; nobody waits."""
    quota, granted = Quota(rate), []
    for now in arrivals:
        if quota.wait(now) == 0:
            quota.take(now)
            granted.append(now)
    return granted


def _assert_within_bounds(rate: Rate, granted: list[float]) -> None:
    for first, since in enumerate(granted):
        for count, until in enumerate(granted[first:], start=1):
            assert count <= rate.burst + rate.per_second * (until - since) + EPS


@given(rates, starts, gaps)
def test_no_window_of_any_length_sees_more_than_burst_and_rate_times_length(
    rate: Rate, start: float, gaps: list[float]
) -> None:
    _assert_within_bounds(rate, _granted(rate, _arrivals(start, gaps)))


@given(rates, starts, st.integers(1, 120))
def test_the_greedy_taker_gets_exactly_burst_and_rate_times_length(
    rate: Rate, start: float, count: int
) -> None:
    quota, now = Quota(rate), start
    for n in range(1, count + 1):
        while (wait := quota.wait(now)) > 0:
            now = max(now + wait, math.nextafter(now, math.inf))
        quota.take(now)
        assert now - start == pytest.approx(max(0, n - rate.burst) / rate.per_second, abs=1e-6)


@given(rates, starts, gaps, st.floats(0, 1))
def test_no_token_is_held_back_that_the_bounds_allow(
    rate: Rate, start: float, gaps: list[float], part: float
) -> None:
    """If one more take were within every window's bound by a clear margin, it is granted."""
    granted = _granted(rate, _arrivals(start, gaps))
    now = granted[-1] + part * 3 / rate.per_second
    quota = Quota(rate)
    for at in granted:
        quota.take(at)
    assume(
        all(
            len(granted) - index + 1 <= rate.burst + rate.per_second * (now - since) - EPS
            for index, since in enumerate(granted)
        )
    )
    assert quota.wait(now) == 0


@given(rates, starts, gaps, st.floats(0, 5))
def test_to_wait_as_long_as_said_suffices_and_less_does_not(
    rate: Rate, start: float, gaps: list[float], later: float
) -> None:
    quota = Quota(rate)
    for at in _arrivals(start, gaps):
        if quota.wait(at) == 0:
            quota.take(at)
    now = start + sum(gaps) + later
    wait = quota.wait(now)
    assert wait >= 0
    assert quota.wait(now + wait) <= 1e-9 * max(1.0, now)
    if wait > EPS:
        assert quota.wait(now + wait * 0.999) > 0


@given(rates, starts, gaps)
def test_the_wait_is_known_in_advance(rate: Rate, start: float, gaps: list[float]) -> None:
    """To ask changes nothing: the wait shrinks by exactly what has passed."""
    quota = Quota(rate)
    for at in (arrivals := _arrivals(start, gaps)):
        if quota.wait(at) == 0:
            quota.take(at)
    now = arrivals[-1]
    first = quota.wait(now)
    for passed in (0.0, 0.1, 0.5, 2.0):
        assert quota.wait(now + passed) == pytest.approx(max(0.0, first - passed), abs=1e-6)


@given(rates, starts, gaps, st.floats(0, 5))
def test_available_is_how_many_can_be_taken_one_after_the_other(
    rate: Rate, start: float, gaps: list[float], later: float
) -> None:
    quota = Quota(rate)
    for at in _arrivals(start, gaps):
        if quota.wait(at) == 0:
            quota.take(at)
    now = start + sum(gaps) + later
    available = quota.available(now)
    assert 0 <= available <= rate.burst
    for _ in range(available):
        assert quota.wait(now) <= 1e-9 * max(1.0, now)
        quota.take(now)
    assert quota.available(now - 1e-6) == 0  # a moment earlier, so that rounding does not decide
    if available < rate.burst:
        assert quota.wait(now) <= (1 + EPS) / rate.per_second + 1e-9 * max(1.0, now)


@given(rates, starts)
def test_a_quota_never_touched_has_its_whole_burst_and_no_more(rate: Rate, start: float) -> None:
    quota = Quota(rate)
    assert quota.available(start) == rate.burst
    assert quota.wait(start) == 0
    for _ in range(rate.burst):
        assert quota.wait(start) <= 1e-9 * max(1.0, start)
        quota.take(start)
    assert quota.wait(start) == pytest.approx(1 / rate.per_second, abs=1e-6)


@given(rates, starts, gaps, st.floats(0, 1e9))
def test_an_idle_quota_does_not_save_up_beyond_its_burst(
    rate: Rate, start: float, gaps: list[float], idle: float
) -> None:
    arrivals = _arrivals(start, gaps)
    quota = Quota(rate)
    for at in arrivals:
        if quota.wait(at) == 0:
            quota.take(at)
    assert quota.available(arrivals[-1] + idle) <= rate.burst


@given(rates, starts, gaps)
def test_taking_without_waiting_is_paid_back_and_never_makes_a_negative(
    rate: Rate, start: float, gaps: list[float]
) -> None:
    """A caller that overdraws finds no token until the debt is worked off."""
    quota = Quota(rate)
    arrivals = _arrivals(start, gaps)
    for at in arrivals:
        quota.take(at)
    now = arrivals[-1]
    assert quota.available(now) >= 0
    debt = quota.wait(now)
    assert debt >= 0
    assert quota.available(now + debt + 1.001 / rate.per_second) >= 1


def test_the_documented_quota_of_create_participant() -> None:
    quota = Quota(Rate(5, 8))
    asks = [0.0] * 10 + [n / 1000 for n in range(1, 2002)]
    granted = []
    for now in asks:
        if quota.wait(now) == 0:
            quota.take(now)
            granted.append(now)
    assert granted[:8] == [0.0] * 8
    assert bisect.bisect(granted, 1.0 + 1e-3) == 8 + 5
    assert bisect.bisect(granted, 2.0 + 1e-3) == 8 + 10


def test_a_new_process_takes_the_burst_for_spent() -> None:
    quota = Quota(Rate(5, 8), spent_at=100.0)
    assert quota.wait(100.0) == pytest.approx(0.2)
    assert quota.available(100.0 + 8 / 5) == 8
