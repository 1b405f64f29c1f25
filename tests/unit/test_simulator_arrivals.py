"""When customers come: the laws of each kind of arrivals."""

import random
from itertools import islice, pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.simulator.traffic.arrivals import Arrivals, Burst, Constant, Day, Poisson, parse_arrivals
from attachd.simulator.traffic.plan import Traffic

RATES = st.floats(0.01, 1000)
CURVES = st.lists(st.floats(0, 5000), min_size=24, max_size=24).filter(lambda curve: max(curve) > 1)
ANY = st.one_of(
    st.builds(Constant, RATES),
    st.builds(Poisson, RATES),
    st.builds(Burst, st.integers(1, 50), st.none() | st.floats(0.1, 100)),
    st.builds(
        Day,
        per_hour=CURVES.map(tuple),
        speed=st.floats(1, 7_000),
        from_hour=st.floats(0, 24, exclude_max=True),
    ),
)


def first(arrivals: Arrivals, count: int, seed: int = 0) -> list[float]:
    return list(islice(arrivals.instants(random.Random(seed)), count))


def within(arrivals: Arrivals, seconds: float, seed: int = 0) -> list[float]:
    return list(Traffic(arrivals, seconds=seconds).instants(str(seed)))


@given(ANY, st.integers())
def test_instants_never_decrease_begin_at_the_start_or_later_and_are_the_seeds(
    arrivals: Arrivals, seed: int
) -> None:
    instants = first(arrivals, 60, seed)
    assert all(earlier <= later for earlier, later in pairwise([0.0, *instants]))
    assert instants == first(arrivals, 60, seed)


@given(ANY, st.integers(0, 80), st.floats(0, 100))
def test_nobody_comes_after_the_last_chat_or_the_last_second(
    arrivals: Arrivals, chats: int, seconds: float
) -> None:
    instants = list(Traffic(arrivals, chats=chats, seconds=seconds).instants("seed"))
    assert len(instants) <= chats
    assert all(at < seconds for at in instants)
    both = [at for at in islice(Traffic(arrivals).instants("seed"), chats) if at < seconds]
    assert instants == both


@given(RATES)
def test_a_constant_rate_has_even_gaps(per_second: float) -> None:
    instants = first(Constant(per_second), 50)
    assert instants[0] == 0
    assert all(abs(b - a - 1 / per_second) < 1e-6 for a, b in pairwise(instants))


@given(st.integers(1, 40), st.floats(0.5, 100), st.integers(1, 5))
def test_a_burst_brings_all_at_once_and_again(chats: int, every: float, times: int) -> None:
    instants = first(Burst(chats, every), chats * times)
    assert [instants.count(burst * every) for burst in range(times)] == [chats] * times
    assert first(Burst(chats), 1000) == [0.0] * chats


def test_another_seed_has_other_instants() -> None:
    assert first(Poisson(2), 10, seed=1) != first(Poisson(2), 10, seed=2)


@pytest.mark.parametrize("per_second", [0.5, 20])
def test_poisson_has_the_mean_and_the_variance_of_poisson(per_second: float) -> None:
    windows = [len(within(Poisson(per_second), 10, seed)) for seed in range(1000)]
    expected = per_second * 10
    mean = sum(windows) / 1000
    variance = sum((count - mean) ** 2 for count in windows) / 999
    assert abs(mean - expected) < 5 * sqrt(expected / 1000)
    assert 0.8 < variance / expected < 1.2


def test_a_day_has_in_each_hour_what_its_curve_says() -> None:
    curve = (*[0.0] * 7, 100.0, 300.0, 600.0, 500.0, 400.0, *[200.0] * 8, 50.0, 0.0, 0.0, 0.0)
    day = Day(per_hour=curve, speed=60, from_hour=6)
    counts, days = [0] * 24, 40
    for at in within(day, days * 86400 / 60):
        counts[int(6 + at * 60 / 3600) % 24] += 1
    for hour, count in enumerate(counts):
        expected = days * (curve[hour] + curve[(hour + 1) % 24]) / 2  # straight lines between the points
        assert abs(count - expected) <= 5 * sqrt(expected), hour


@given(
    st.lists(st.just(0.0) | st.floats(0.01, 100), min_size=24, max_size=24).filter(any),
    st.floats(0, 24, exclude_max=True),
    st.floats(0, 86400),
)
def test_a_days_rate_lies_between_its_hours_and_comes_again_every_day(
    curve: list[float], from_hour: float, seconds: float
) -> None:
    day = Day(per_hour=tuple(curve), from_hour=from_hour)
    assert 0 <= day.rate(seconds) <= max(curve) / 3600 * (1 + 1e-9)
    assert day.rate(0) == pytest.approx(day.rate(86400), abs=1e-6)
    hour = int(from_hour)
    assert Day(per_hour=tuple(curve), from_hour=hour).rate(0) == curve[hour] / 3600


@pytest.mark.parametrize(
    ("text", "arrivals"),
    [
        ("constant:2/s", Constant(2)),
        ("poisson:30/min", Poisson(0.5)),
        ("poisson:0.5/h", Poisson(0.5 / 3600)),
        ("burst:50", Burst(50)),
        ("burst:50/5min", Burst(50, 300)),
    ],
)
def test_arrivals_are_read_from_a_word(text: str, arrivals: Arrivals) -> None:
    assert parse_arrivals(text) == arrivals


@pytest.mark.parametrize(
    "text",
    ["", "poisson", "poisson:2", "poisson:0/s", "burst:0", "burst:2/0s", "day:1", "constant:-1/s", "x:1/s"],
)
def test_a_word_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected constant:2/s|must be above 0"):
        parse_arrivals(text)
