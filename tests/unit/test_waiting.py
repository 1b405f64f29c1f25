"""The room before the quota: order, patience, calling away, and no token lost or spent in vain."""

import asyncio
import contextlib
import gc
import math
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from attachd.errors import Permanent, Transient
from attachd.model import Outcome
from attachd.quota import Quota, Rate
from attachd.waiting import Room

FOREVER = math.inf


class Lobby:
    """A room, its pump, and who came out of it when and how."""

    def __init__(self, rate: float = 1.0, burst: int = 1) -> None:
        self.depths: list[int] = []
        self.quota = Quota(Rate(rate, burst))
        self.room = Room(self.quota, on_depth=self.depths.append)
        self.admitted: list[tuple[str, float]] = []
        self.left: dict[str, tuple[Outcome, float]] = {}
        self.cancelled: list[str] = []
        self.reports = 0

    async def wait(self, name: str, *, priority: int = 0, since: float = 0.0, until: float = FOREVER) -> None:
        try:
            await self.room.admit(name, gates=(), priority=priority, since=since, until=until)
        except Permanent as error:
            self.left[name] = (error.outcome, anyio.current_time())
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        else:
            self.admitted.append((name, anyio.current_time()))

    def report(self) -> None:
        self.reports += 1
        if self.reports > 200_000:
            raise AssertionError("the pump spins")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as background:
            background.start_soon(self.room.run, self.report)
            yield
            background.cancel_scope.cancel()

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.admitted]


# ── order ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_higher_priority_goes_first_and_among_equals_the_older() -> None:
    lobby = Lobby()
    async with anyio.create_task_group() as chats:
        for name, priority, since in [("d", 0, 9), ("b", 5, 7), ("a", 5, 3), ("e", -1, 0), ("c", 0, 8)]:

            async def one(name: str = name, priority: int = priority, since: int = since) -> None:
                await lobby.wait(name, priority=priority, since=since)

            chats.start_soon(one)
        await anyio.sleep(0.0)
        async with lobby.running():
            await anyio.sleep(10)
    assert lobby.order == ["a", "b", "c", "d", "e"]
    assert [at for _, at in lobby.admitted] == pytest.approx([0, 1, 2, 3, 4], abs=1e-5)


async def test_equals_of_the_same_age_go_in_the_order_they_came() -> None:
    lobby = Lobby(rate=128.0)
    names = [f"c-{n}" for n in range(20)]
    async with anyio.create_task_group() as chats:
        for name in names:
            chats.start_soon(lobby.wait, name)
            await anyio.sleep(0.0)
        async with lobby.running():
            await anyio.sleep(10)
    assert lobby.order == names


async def test_who_comes_later_and_is_more_urgent_overtakes_those_who_wait() -> None:
    lobby = Lobby(rate=0.5)
    async with lobby.running(), anyio.create_task_group() as chats:
        for name in ("first", "second", "third"):
            chats.start_soon(lobby.wait, name)
            await anyio.sleep(0.0)
        await anyio.sleep(0.5)
        await lobby.room.admit("urgent", gates=(), priority=1, since=99.0, until=FOREVER)
        assert anyio.current_time() == pytest.approx(2.0, abs=1e-5)
    assert lobby.order == ["first", "second", "third"]


async def test_a_token_that_is_there_is_given_at_once() -> None:
    lobby = Lobby(rate=5, burst=8)
    async with lobby.running():
        for n in range(8):
            await lobby.wait(f"c-{n}")
        assert anyio.current_time() == 0.0


# ── patience, calling away, cancellation ───────────────────────────────────────────────────────


async def test_who_is_out_of_patience_leaves_at_that_moment_without_a_token() -> None:
    lobby = Lobby(rate=0.01)
    async with lobby.running():
        await lobby.wait("served")
        spent = lobby.quota._tat
        await lobby.wait("impatient", until=anyio.current_time() + 30)
        assert lobby.left == {"impatient": (Outcome.EXPIRED, 30.0)}
        assert lobby.quota._tat == spent
        assert len(lobby.room) == 0


async def test_who_comes_out_of_patience_is_not_served_even_if_a_token_is_there() -> None:
    lobby = Lobby()
    async with lobby.running():
        await lobby.wait("late", until=-1.0)
        await lobby.wait("just", until=anyio.current_time())
        assert {name: outcome for name, (outcome, _) in lobby.left.items()} == {
            "late": Outcome.EXPIRED,
            "just": Outcome.EXPIRED,
        }
        assert lobby.quota.available(anyio.current_time()) == 1


@pytest.mark.parametrize("outcome", [Outcome.ENDED, Outcome.QUEUED, Outcome.AGENT_JOINED])
async def test_who_is_called_away_leaves_at_once_with_that_outcome_and_no_token(outcome: Outcome) -> None:
    lobby = Lobby(rate=0.01)
    async with lobby.running():
        await lobby.wait("served")
        spent = lobby.quota._tat
        async with anyio.create_task_group() as chats:
            chats.start_soon(lobby.wait, "gone")
            await anyio.sleep(3)
            assert lobby.room.call_away("gone", outcome)
        assert lobby.left == {"gone": (outcome, 3.0)}
        assert lobby.quota._tat == spent


async def test_only_who_waits_can_be_called_away_and_only_once() -> None:
    lobby = Lobby(rate=0.01)
    assert not lobby.room.call_away("nobody", Outcome.ENDED)
    async with lobby.running():
        await lobby.wait("served")
        assert not lobby.room.call_away("served", Outcome.ENDED)
        async with anyio.create_task_group() as chats:
            chats.start_soon(lobby.wait, "gone")
            await anyio.sleep(1)
            assert lobby.room.call_away("gone", Outcome.ENDED)
            assert not lobby.room.call_away("gone", Outcome.QUEUED)
    assert lobby.left["gone"][0] is Outcome.ENDED


async def test_a_call_at_the_moment_of_the_grant_does_not_take_the_token_back() -> None:
    lobby = Lobby()
    async with anyio.create_task_group() as chats:
        chats.start_soon(lobby.wait, "c-1")
        await anyio.sleep(0.0)
        lobby.room._call_next(anyio.current_time())
        assert not lobby.room.call_away("c-1", Outcome.ENDED)
    assert lobby.order == ["c-1"]


async def test_a_grant_at_the_moment_patience_ends_is_one_or_the_other_and_never_half() -> None:
    lobby = Lobby(rate=1.0)
    async with lobby.running():
        await lobby.wait("first")
        spent = lobby.quota._tat
        await lobby.wait("edge", until=1.0)
        granted = lobby.order == ["first", "edge"]
        assert granted != ("edge" in lobby.left)
        assert (lobby.quota._tat > spent) is granted


async def test_cancellation_leaves_no_seat_and_costs_no_token() -> None:
    lobby = Lobby(rate=0.01)
    async with lobby.running():
        await lobby.wait("served")
        spent = lobby.quota._tat
        async with anyio.create_task_group() as chats:
            for n in range(10):
                chats.start_soon(lobby.wait, f"c-{n}")
            await anyio.sleep(1)
            assert len(lobby.room) == 10
            chats.cancel_scope.cancel()
        assert len(lobby.room) == 0
        assert len(lobby.cancelled) == 10
        assert lobby.quota._tat == spent


async def test_a_contact_that_left_may_come_again() -> None:
    lobby = Lobby(rate=0.1)
    async with lobby.running():
        await lobby.wait("served")
        await lobby.wait("c-1", until=anyio.current_time() + 1)
        await lobby.wait("c-1")
    assert lobby.left["c-1"] == (Outcome.EXPIRED, 1.0)
    assert lobby.admitted[-1] == ("c-1", 10.0)


# ── depth, and the pump ────────────────────────────────────────────────────────────────────────


async def test_the_depth_is_reported_whenever_it_changes() -> None:
    lobby = Lobby(rate=0.1)
    async with lobby.running():
        await lobby.wait("served")
        async with anyio.create_task_group() as chats:
            chats.start_soon(lobby.wait, "a")
            chats.start_soon(lobby.wait, "b")
            await anyio.sleep(1)
            lobby.room.call_away("a", Outcome.ENDED)
        await anyio.sleep(1)
    assert lobby.depths == [1, 0, 1, 2, 1, 0]
    assert len(lobby.room) == 0


async def test_nobody_is_admitted_while_nobody_pumps() -> None:
    lobby = Lobby()
    await lobby.wait("c-1", until=50.0)
    assert lobby.left["c-1"] == (Outcome.EXPIRED, 50.0)


async def test_the_pump_reports_at_least_every_second_whether_it_waits_for_chats_or_for_tokens() -> None:
    lobby = Lobby(rate=0.01)
    gaps: list[float] = []
    last = 0.0

    def report() -> None:
        nonlocal last
        gaps.append(anyio.current_time() - last)
        last = anyio.current_time()

    async with anyio.create_task_group() as background:
        background.start_soon(lobby.room.run, report)
        await anyio.sleep(20)
        await lobby.wait("served")
        await lobby.wait("impatient", until=50.0)
        background.cancel_scope.cancel()
    assert max(gaps) <= 1.0 + 1e-5
    assert len(gaps) <= 60


@pytest.mark.parametrize("rate", [0.3, 1 / 3, 0.7, 3.0, 5.0, 7.0, 11.0, 333.0])
async def test_the_pump_never_spins(rate: float) -> None:
    lobby = Lobby(rate=rate, burst=3)
    count, looked = 40, 0

    def report() -> None:
        nonlocal looked
        looked += 1
        if looked > 10_000:
            raise AssertionError("the pump spins")

    async with anyio.create_task_group() as background:
        background.start_soon(lobby.room.run, report)
        async with anyio.create_task_group() as chats:
            for n in range(count):
                chats.start_soon(lobby.wait, f"c-{n}")
        background.cancel_scope.cancel()
    # One look a grant, a few a wait (rounding), one a second besides.
    assert looked <= 6 * count + 2 * anyio.current_time() + 10
    assert lobby.admitted[-1][1] == pytest.approx((count - 3) / rate, abs=1e-3)


@pytest.mark.real_time
async def test_the_pump_does_not_spin_on_the_real_clock_either() -> None:
    lobby = Lobby(rate=50.0)
    async with lobby.running():
        async with anyio.create_task_group() as chats:
            for n in range(10):
                chats.start_soon(lobby.wait, f"c-{n}")
        await anyio.sleep(0.05)
    assert lobby.reports <= 80


# ── many ───────────────────────────────────────────────────────────────────────────────────────


async def test_twenty_thousand_wait_in_little_memory_and_leave_at_exactly_the_rate() -> None:
    count, rate, burst = 20_000, 1024.0, 8
    lobby = Lobby(rate, burst)
    async with anyio.create_task_group() as chats:
        with _allocations() as allocated:
            for n in range(count):
                chats.start_soon(lobby.wait, f"c-{n}")
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            assert len(lobby.room) == count
            per_seat = allocated() / count
        async with lobby.running():
            while len(lobby.room):  # noqa: ASYNC110 - virtual time; each look is a second of it
                await anyio.sleep(1)
    assert per_seat < 8192  # its task, coroutines, deadline, event and seat
    times = [at for _, at in lobby.admitted]
    assert lobby.order == [f"c-{n}" for n in range(count)]
    assert times[burst - 1] == 0.0
    assert times[-1] == pytest.approx((count - burst) / rate, abs=1e-2)
    for n in range(burst, count, 997):
        assert times[n] == pytest.approx((n + 1 - burst) / rate, abs=1e-2)


async def test_a_thousand_who_expired_in_front_cost_the_one_behind_them_nothing() -> None:
    lobby = Lobby(rate=0.1)
    async with lobby.running():
        await lobby.wait("served")
        async with anyio.create_task_group() as chats:
            for n in range(1000):

                async def impatient(name: str = f"c-{n}") -> None:
                    await lobby.wait(name, priority=1, until=9.999)

                chats.start_soon(impatient)
            chats.start_soon(lobby.wait, "patient")
    assert lobby.admitted == [("served", 0.0), ("patient", 10.0)]
    assert len(lobby.left) == 1000


async def test_who_left_is_forgotten_even_while_others_keep_overtaking() -> None:
    """Starved and expired chats must not pile up for as long as more urgent ones keep coming."""
    lobby = Lobby(rate=1.0)
    async with lobby.running(), anyio.create_task_group() as chats:
        for n in range(300):

            async def urgent(name: str = f"urgent-{n}") -> None:
                await lobby.wait(name, priority=9)

            chats.start_soon(urgent)
        for n in range(200):
            for k in range(10):

                async def starved(name: str = f"starved-{n}-{k}") -> None:
                    await lobby.wait(name, until=anyio.current_time() + 2)

                chats.start_soon(starved)
            await anyio.sleep(1)
        assert len(lobby.left) > 1900
        assert sum(len(row.seats) for row in lobby.room._rows) == len(lobby.room)
        chats.cancel_scope.cancel()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.sampled_from([0.5, 2.0, 4.0]), burst=st.integers(1, 8))
async def test_whoever_leaves_when_and_how_every_token_spent_is_one_chat_admitted(
    seed: int, rate: float, burst: int
) -> None:
    """Comings, goings, calls and grants on a coarse grid of moments, so that many fall on the same one."""
    dice = random.Random(seed)
    quota, lobby, start = Quota(Rate(rate, burst)), Lobby(), anyio.current_time()
    lobby.room = Room(quota, on_depth=lobby.depths.append)
    names = [f"c-{n}" for n in range(40)]

    async def one(name: str, arrives: float, patience: float, drained: float) -> None:
        await anyio.sleep_until(start + arrives)
        with anyio.move_on_at(start + drained):
            priority = dice.choice([0, 0, 1])
            await lobby.wait(name, priority=priority, since=arrives, until=start + arrives + patience)

    async with lobby.running(), anyio.create_task_group() as chats:
        for name in names:
            arrives = dice.choice([0, 0, 1, 2, 3])
            chats.start_soon(one, name, arrives, dice.choice([1, 2, 4, 30]), dice.choice([2, 3, 99, 99]))
        for moment in range(8):
            await anyio.sleep_until(start + moment)
            for name in dice.sample(names, 3):
                lobby.room.call_away(name, Outcome.ENDED)
    endings = [*lobby.order, *lobby.left, *lobby.cancelled]
    assert sorted(set(endings)) == sorted(names)
    assert len(endings) == len(names)
    # A chat cancelled at the very moment of its grant takes the token with it: it was spent for that chat.
    assert len(lobby.admitted) <= quota.taken <= len(lobby.admitted) + len(lobby.cancelled)
    assert quota.taken == len(lobby.admitted) or lobby.cancelled
    assert len(lobby.room) == 0
    assert lobby.depths[-1] == 0
    assert min(lobby.depths) >= 0


@contextmanager
def _allocations() -> Iterator[Callable[[], int]]:
    """How many bytes have been allocated since, and are still."""
    gc.collect()
    tracemalloc.start(1)
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


# ── gates ──────────────────────────────────────────────────────────────────────────────────────


class Door:
    """A gate with a handle."""

    def __init__(self, room: Room, *, opened: bool = True) -> None:
        self._room = room
        self._open = opened
        self.inside = 0

    def wait(self, _now: float) -> float:
        return 0.0 if self._open else FOREVER

    def enter(self) -> None:
        assert self._open
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    def turn(self, *, opened: bool) -> None:
        self._open = opened
        self._room.stir()


async def test_who_waits_at_a_shut_gate_holds_up_nobody_and_costs_no_token() -> None:
    lobby = Lobby(rate=5, burst=8)
    shut, ajar = Door(lobby.room, opened=False), Door(lobby.room)
    went: list[str] = []

    async def go(name: str, *gates: Door) -> None:
        gate = await lobby.room.admit(name, gates=gates, priority=0, since=0.0, until=FOREVER)
        went.append(f"{name} by {gate}")

    async with lobby.running(), anyio.create_task_group() as chats:
        chats.start_soon(go, "first", shut)
        await anyio.sleep(1)
        chats.start_soon(go, "second", ajar)
        await anyio.sleep(1)
        chats.start_soon(go, "either", shut, ajar)
        await anyio.sleep(10)
        assert went == ["second by 0", "either by 1"]
        assert lobby.room.spent == 2
        shut.turn(opened=True)
        await anyio.sleep(0.01)
        assert went[2:] == ["first by 0"]
    assert (shut.inside, ajar.inside) == (1, 2)


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_chat_cancelled_at_the_moment_of_its_grant_does_not_stay_in_the_gate(
    *,
    cancelled_first: bool,
) -> None:
    lobby = Lobby()
    door = Door(lobby.room)

    async def come_and_go() -> None:
        await lobby.room.admit("c-1", gates=(door,), priority=0, since=0.0, until=FOREVER)
        door.leave()

    async with anyio.create_task_group() as chats:
        chats.start_soon(come_and_go)
        await anyio.sleep(0.0)
        if cancelled_first:  # it has not noticed yet
            chats.cancel_scope.cancel()
        lobby.room._call_next(anyio.current_time())
        assert door.inside == 1
        chats.cancel_scope.cancel()
    assert door.inside == 0


async def test_a_full_room_sends_newcomers_away_for_a_while() -> None:
    lobby = Lobby(rate=0.01)
    lobby.room = Room(Quota(Rate(0.01, 1)), full=lambda: len(lobby.room) >= 2)
    async with lobby.running(), anyio.create_task_group() as chats:
        await lobby.wait("served")
        for name in ("a", "b"):
            chats.start_soon(lobby.wait, name)
        await anyio.sleep(1)
        with pytest.raises(Permanent, match="2 wait already") as full:
            await lobby.room.admit("c", gates=(), priority=0, since=0.0, until=FOREVER)
        assert full.value.outcome is Outcome.DEFERRED
        chats.cancel_scope.cancel()


# ── newest first ───────────────────────────────────────────────────────────────────────────────


async def test_when_not_all_can_be_served_in_time_the_newest_go_first_and_back_again() -> None:
    lobby = Lobby(rate=1.0)
    async with lobby.running(), anyio.create_task_group() as chats:

        async def come(name: str) -> None:
            now = anyio.current_time()
            await lobby.wait(name, since=now, until=now + 10)

        for n in range(40):
            chats.start_soon(come, f"crowd-{n}")
        await anyio.sleep(5.5)
        chats.start_soon(come, "newest")
        await anyio.sleep(1)
        assert lobby.order[-1] == "newest"
        await anyio.sleep(20)  # the crowd is gone, served or not
        served = len(lobby.order)
        for n in range(5):
            chats.start_soon(come, f"calm-{n}")
            await anyio.sleep(0.01)
        await anyio.sleep(6)
        assert lobby.order[served:] == [f"calm-{n}" for n in range(5)]


async def test_the_order_does_not_flutter_while_the_backlog_is_near_what_patience_allows() -> None:
    lobby = Lobby(rate=1.0)
    async with lobby.running(), anyio.create_task_group() as chats:

        async def come(name: str) -> None:
            now = anyio.current_time()
            await lobby.wait(name, since=now, until=now + 10)

        for n in range(12):
            chats.start_soon(come, f"c-{n:02}")
            await anyio.sleep(0.01)
        await anyio.sleep(12)
    served = [int(name[2:]) for name in lobby.order]
    newest = served[1:6]  # until five are left, which drain in half the patience
    assert newest == sorted(newest, reverse=True)
    assert served[-4:] == sorted(served[-4:])


async def test_a_refusal_for_another_reason_says_that_the_rate_was_granted() -> None:
    lobby = Lobby(rate=5.0)
    room = lobby.room

    async def call(error: Exception) -> None:
        await anyio.sleep(0.001)
        with pytest.raises(type(error)), room.spending():
            raise error

    await call(Transient("throttled"))
    await call(Permanent(Outcome.REFUSED))
    await call(Transient("throttled"))
    assert room.granted_rate == pytest.approx(
        5 * 0.9 * 0.9, rel=0.01
    )  # gentle cuts: calls got through between


async def test_an_outage_of_connect_is_told_once_a_minute_and_at_its_end_and_makes_unready_while_anybody_calls() -> (
    None
):
    room = Room(Quota(Rate(5.0, 8)), name="CreateParticipant 1/r")

    async def call(error: Exception | None) -> None:
        await anyio.sleep(1)
        with contextlib.suppress(Transient), room.spending():
            if error is not None:
                raise error

    with capture_logs() as said:
        for _ in range(4):
            await call(Transient("throttled"))
        await call(None)
        assert (said, room.trouble) == ([], None)
        for _ in range(70):
            await call(Transient("connect_unavailable", "CreateParticipant answered 503"))
        assert (
            room.trouble
            == "Amazon Connect, CreateParticipant 1/r: no call gets through: connect_unavailable: CreateParticipant answered 503"
        )
        await call(None)
        assert room.trouble is None
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("connect.failing", "warning"),
        ("connect.failing", "warning"),
        ("connect.answers", "info"),
    ]
    for _ in range(5):
        await call(Transient("timeout"))
    assert room.trouble is not None
    await anyio.sleep(60)
    assert room.trouble is None, "nobody called for a minute: nobody knows"


async def test_what_the_instances_circuit_tells_the_room_does_not_tell_again() -> None:
    room = Room(Quota(Rate(5.0, 8)))
    with capture_logs() as said:
        for _ in range(20):
            with pytest.raises(Transient), room.spending():
                raise Transient("access_denied")
    assert (said, room.trouble) == ([], None)


async def test_priority_goes_before_age_in_either_order() -> None:
    lobby = Lobby(rate=1.0)
    async with lobby.running(), anyio.create_task_group() as chats:
        for n in range(30):

            async def one(name: str = f"c-{n}", priority: int = n % 2) -> None:
                now = anyio.current_time()
                await lobby.wait(name, priority=priority, since=now, until=now + 10)

            chats.start_soon(one)
            await anyio.sleep(0.0)
        await anyio.sleep(20)
    assert lobby.order[1:]
    assert all(int(name[2:]) % 2 for name in lobby.order[1:])


async def test_overload_goes_to_those_who_can_still_be_served() -> None:
    """Twice the rate for five minutes, thirty seconds of patience: the tokens go to chats that have most of it left."""
    lobby, ages = Lobby(rate=5.0, burst=8), []
    async with lobby.running(), anyio.create_task_group() as chats:

        async def come(name: str) -> None:
            since = anyio.current_time()
            await lobby.wait(name, since=since, until=since + 30)
            if name not in lobby.left and anyio.current_time() <= 300:
                ages.append(anyio.current_time() - since)

        for n in range(3000):
            chats.start_soon(come, f"c-{n}")
            await anyio.sleep(0.1)
    assert len(lobby.order) >= 5 * 300
    assert sum(age > 25 for age in ages) <= 0.03 * len(ages)
    assert sorted(ages)[len(ages) // 2] < 5


async def test_two_who_wait_for_one_contact_are_two_who_wait() -> None:
    lobby = Lobby(rate=0.01)
    async with lobby.running(), anyio.create_task_group() as chats:
        await lobby.wait("served")
        for _ in range(2):
            chats.start_soon(lobby.wait, "c-1")
        await anyio.sleep(1)
        assert len(lobby.room) == 2
        assert lobby.room.call_away("c-1", Outcome.ENDED)
        await anyio.sleep(1)
        assert len(lobby.room) == 0
        assert not lobby.room.call_away("c-1", Outcome.ENDED)
