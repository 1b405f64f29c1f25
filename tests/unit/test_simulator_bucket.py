"""The quota's arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.simulator.state.bucket import Bucket

gaps = st.lists(st.floats(min_value=0, max_value=3), max_size=200)


@given(gaps)
def test_no_window_ever_admits_more_than_burst_plus_rate_times_its_length(gaps: list[float]) -> None:
    bucket, now, admitted = Bucket(5, 8), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now):
            admitted.append(now)
    for index, since in enumerate(admitted):
        for count, until in enumerate(admitted[index:], 1):
            assert count <= 8 + 5 * (until - since) + 1e-6


@given(st.integers(min_value=1, max_value=500))
def test_a_caller_at_exactly_the_rate_is_never_refused(calls: int) -> None:
    bucket = Bucket(5, 8)
    assert all(bucket.take(number * 0.2) for number in range(calls))


@pytest.mark.parametrize(("spend", "admitted"), [(False, True), (True, False)])
def test_whether_throttled_calls_spend_quota_is_a_dial(*, spend: bool, admitted: bool) -> None:
    bucket = Bucket(1, 1, throttled_calls_spend=spend)
    assert bucket.take(0)
    assert not bucket.take(0.75)
    assert bucket.take(1.25) is admitted


def test_a_clock_that_steps_back_refills_nothing() -> None:
    bucket = Bucket(1, 1)
    assert bucket.take(100)
    assert not bucket.take(50)
    assert not bucket.take(50.5)
    assert bucket.take(51)
