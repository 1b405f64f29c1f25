"""GCRA's laws: what is granted in any window, when the next one is there, and that nothing is wasted."""

import bisect
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attachd.quota import RECOVERY_SECONDS, Quota, Rate

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
    for _ in range(int(rate.burst)):
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


# ── what throttles teach ───────────────────────────────────────────────────────────────────────


class Server:
    """The bucket on the other side; other applications may draw on it, too."""

    def __init__(self, rate: Rate, *, others_per_second: float = 0.0) -> None:
        self._quota = Quota(rate)
        self._others = others_per_second
        self._served = 0.0
        self.storm = False

    def grants(self, now: float) -> bool:
        while self._others and self._served + 1 / self._others <= now:
            self._served += 1 / self._others
            if self._quota.wait(self._served) == 0:
                self._quota.take(self._served)
        if self.storm or self._quota.wait(now) > 1e-9:
            return False
        self._quota.take(now)
        return True


def _calls(quota: Quota, server: Server, since: float, until: float) -> list[tuple[float, bool]]:
    """Whoever may call does, at once; when and whether it was granted."""
    now, calls = since, []
    while (now := max(now + quota.wait(now), math.nextafter(now, math.inf))) < until:
        quota.take(now)
        granted = server.grants(now)
        if granted:
            quota.granted()
        else:
            quota.throttled(now, now)
        calls.append((now, granted))
    return calls


def test_a_lone_throttle_costs_a_tenth_and_the_whole_is_back_after_the_recovery() -> None:
    quota = Quota(Rate(5, 8))
    quota.take(0.0)
    quota.throttled(0.0, 0.1)
    assert quota.estimate(0.1) == pytest.approx(4.5)
    assert quota.available(0.1) == 0
    assert 4.5 <= quota.estimate(0.1 + RECOVERY_SECONDS / 2) < 5
    assert quota.estimate(0.1 + RECOVERY_SECONDS) == 5


def test_throttles_of_calls_that_left_before_the_cut_cut_no_further() -> None:
    quota = Quota(Rate(5, 8))
    for _ in range(8):
        quota.take(0.0)
    for n in range(8):
        quota.throttled(0.0, 0.1 + n / 100)
    assert quota.estimate(0.2) == pytest.approx(4.5, rel=0.01)


@given(st.floats(1, 50), st.integers(1, 20), st.floats(1, 120))
def test_a_storm_is_met_with_few_calls_and_the_whole_rate_is_back_within_five_seconds(
    per_second: float, burst: int, seconds: float
) -> None:
    rate = Rate(per_second, burst)
    quota, server = Quota(rate), Server(rate)
    server.storm = True
    stormy = _calls(quota, server, 0.0, seconds)
    assert len(stormy) <= burst + 25 + 1.6 * max(0.2 * per_second, 1.0) * seconds
    server.storm = False
    after = _calls(quota, server, seconds, seconds + 10)
    full = [at for at, granted in after if granted and at >= seconds + 5]
    assert len(full) >= per_second * 5 - 2


@given(st.floats(0.1, 0.7))
def test_beside_another_application_nearly_all_that_it_leaves_is_used_with_few_throttles(part: float) -> None:
    rate = Rate(5, 8)
    quota, server = Quota(rate), Server(rate, others_per_second=5 * part)
    calls = _calls(quota, server, 0.0, 300.0)
    granted = sum(ok for _, ok in calls)
    assert granted >= 0.9 * (1 - part) * 5 * 300
    assert len(calls) - granted <= 0.25 * len(calls)


@given(rates, starts, gaps, st.lists(st.integers(0, 79), max_size=5))
def test_throttles_never_make_more_be_taken(
    rate: Rate, start: float, gaps: list[float], throttled: list[int]
) -> None:
    quota, granted = Quota(rate), []
    for n, now in enumerate(_arrivals(start, gaps)):
        if quota.wait(now) == 0:
            quota.take(now)
            granted.append(now)
        if n in throttled:
            quota.throttled(now, now)
    _assert_within_bounds(rate, granted)


@given(rates, rates, starts, gaps, st.integers(0, 80))
def test_a_change_of_rate_gives_nothing_away(
    rate: Rate, other: Rate, start: float, gaps: list[float], change: int
) -> None:
    """Never more than the larger of the two bursts and rates would give."""
    quota, granted = Quota(rate), []
    for n, now in enumerate(_arrivals(start, gaps)):
        if n == change:
            quota.change(other, now)
        if quota.wait(now) == 0:
            quota.take(now)
            granted.append(now)
    larger = Rate(max(rate.per_second, other.per_second), max(rate.burst, other.burst))
    _assert_within_bounds(larger, granted)
