"""The one retry: when the next try comes, and when none does."""

import asyncio
import random
from collections import deque

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import Outcome
from attachd.retry import Backoff, retrying

backoffs = st.builds(Backoff, first=st.floats(0.001, 10), cap=st.floats(0.001, 600))


class Ceiling(random.Random):
    """Dice that always fall on the highest number."""

    def uniform(self, _a: float, b: float) -> float:
        return b


class Calls:
    """Fails as scripted, then answers; remembers when it was asked."""

    def __init__(self, *faults: Exception, takes: float = 0.0) -> None:
        self.faults = deque(faults)
        self.at: list[float] = []
        self.takes = takes

    async def __call__(self) -> str:
        self.at.append(anyio.current_time())
        await anyio.sleep(self.takes)
        if self.faults:
            raise self.faults.popleft()
        return "answer"


# ── arithmetic ─────────────────────────────────────────────────────────────────────────────────


@given(backoffs, st.integers(1, 10_000), st.none() | st.floats(0, 1e6), st.integers())
def test_a_delay_is_at_least_what_the_peer_asked_and_at_most_the_cap_or_that(
    backoff: Backoff, tries: int, after: float | None, seed: int
) -> None:
    delay = backoff.delay(tries, after, random.Random(seed))
    assert (after or 0.0) <= delay <= max(after or 0.0, backoff.cap)
    assert delay <= max(after or 0.0, backoff.first * 2.0 ** min(tries - 1, 60))


@given(backoffs, st.integers(1, 50), st.integers())
def test_the_jitter_comes_from_the_dice_alone(backoff: Backoff, tries: int, seed: int) -> None:
    assert backoff.delay(tries, None, random.Random(seed)) == backoff.delay(tries, None, random.Random(seed))


@given(backoffs, st.integers(1, 50))
def test_the_ceiling_doubles_up_to_the_cap(backoff: Backoff, tries: int) -> None:
    assert backoff.delay(tries, None, Ceiling()) == min(backoff.cap, backoff.first * 2 ** (tries - 1))


def test_the_jitter_is_full() -> None:
    dice, backoff = random.Random(0), Backoff(first=1.0, cap=1.0)
    delays = [backoff.delay(1, None, dice) for _ in range(2000)]
    assert min(delays) < 0.01
    assert max(delays) > 0.99
    assert sum(delays) / len(delays) == pytest.approx(0.5, abs=0.03)


# ── waiting ────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_success_is_the_answer_and_comes_at_the_sum_of_the_delays() -> None:
    calls = Calls(*[Transient("busy")] * 5)
    backoff = Backoff(first=0.5, cap=3.0)
    assert await retrying(calls, backoff=backoff, until=100.0, dice=Ceiling()) == "answer"
    assert calls.at == [0.0, 0.5, 1.5, 3.5, 6.5, 9.5]


async def test_a_success_at_once_takes_no_time() -> None:
    await retrying(Calls(), backoff=Backoff(), until=100.0, dice=Ceiling())
    assert asyncio.get_running_loop().time() == 0.0


async def test_what_the_peer_asked_for_is_waited_even_beyond_the_cap() -> None:
    calls = Calls(Transient("busy", after=30.0))
    await retrying(calls, backoff=Backoff(cap=1.0), until=100.0, dice=Ceiling())
    assert calls.at == [0.0, 30.0]


async def test_no_try_starts_at_or_past_the_deadline_and_nobody_waits_for_it_in_vain() -> None:
    calls = Calls(*[Transient(f"busy-{n}") for n in range(99)])
    with pytest.raises(Transient, match="busy-2"):
        await retrying(calls, backoff=Backoff(first=1.0, cap=9.0), until=7.0, dice=Ceiling())
    assert calls.at == [0.0, 1.0, 3.0]
    assert anyio.current_time() == 3.0


async def test_a_deadline_that_has_passed_still_gives_one_try() -> None:
    calls = Calls(Transient("busy"))
    with pytest.raises(Transient):
        await retrying(calls, backoff=Backoff(), until=-1.0, dice=Ceiling())
    assert len(calls.at) == 1


async def test_the_deadline_does_not_cut_a_try_short() -> None:
    calls = Calls(takes=50.0)
    assert await retrying(calls, backoff=Backoff(), until=1.0, dice=Ceiling()) == "answer"


@pytest.mark.parametrize(
    "error",
    [Permanent(Outcome.REFUSED), Misconfigured(["no"]), ValueError("a defect"), TimeoutError()],
)
async def test_anything_but_transient_passes_at_once(error: Exception) -> None:
    calls = Calls(Transient("busy"), error)
    with pytest.raises(type(error)) as raised:
        await retrying(calls, backoff=Backoff(first=1.0), until=100.0, dice=Ceiling())
    assert raised.value is error
    assert calls.at == [0.0, 1.0]


async def test_cancellation_ends_the_wait_between_two_tries() -> None:
    calls = Calls(*[Transient("busy")] * 9)
    with anyio.move_on_after(2.5):
        await retrying(calls, backoff=Backoff(first=2.0, cap=2.0), until=100.0, dice=Ceiling())
    assert calls.at == [0.0, 2.0]
    assert anyio.current_time() == 2.5


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.none() | st.floats(0, 20), max_size=12), st.floats(0.1, 60), st.integers(0, 2**32), backoffs
)
async def test_every_try_starts_before_the_deadline_and_not_before_it_was_asked_to(
    afters: list[float | None], patience: float, seed: int, backoff: Backoff
) -> None:
    start = anyio.current_time()
    calls = Calls(*[Transient("busy", after=after) for after in afters])
    try:
        await retrying(calls, backoff=backoff, until=start + patience, dice=random.Random(seed))
    except Transient:
        assert len(calls.at) <= len(afters)
    else:
        assert len(calls.at) == len(afters) + 1
    assert all(at < start + patience + 1e-5 for at in calls.at)
    for earlier, later, after in zip(calls.at, calls.at[1:], afters, strict=False):
        assert (after or 0.0) - 1e-5 <= later - earlier <= max(after or 0.0, backoff.cap) + 1e-5
