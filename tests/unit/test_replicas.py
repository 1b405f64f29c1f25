"""Who lives, and whose share is how large: the arithmetic, then many replicas at once in virtual time."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from attachd.errors import Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Entry, Stage
from attachd.model import Beat
from attachd.replicas import BEAT_SECONDS, DEAD_SECONDS, EVEN, Peers, Replicas, due

BURST = 8
LAW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


# ── what is due ────────────────────────────────────────────────────────────────────────────────

groups = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 500)), min_size=1, max_size=20).map(
    lambda rows: [Beat(f"r{i}", count, waiting, 0.0) for i, (count, waiting) in enumerate(rows)]
)


@settings(deadline=None)
@given(beats=groups, seats=st.integers(1, 10))
def test_what_is_due_to_all_adds_up_to_the_whole(beats: list[Beat], seats: int) -> None:
    dues = [due(beat.owner, beats, seats) for beat in beats]
    assert sum(dues) == pytest.approx(1.0)
    assert sum(share > 0 for share in dues) == min(seats, len(beats))


@settings(deadline=None)
@given(beats=groups, dice=st.randoms())
def test_what_is_due_does_not_depend_on_the_order_in_which_the_others_are_read(
    beats: list[Beat], dice: random.Random
) -> None:
    shuffled = dice.sample(beats, len(beats))
    assert [due(b.owner, beats, BURST) for b in beats] == [due(b.owner, shuffled, BURST) for b in beats]


@pytest.mark.parametrize(
    ("waiting", "shares"),
    [
        ([0], [1.0]),
        ([7], [1.0]),
        ([0, 0, 0, 0], [0.25] * 4),
        ([9, 0], [0.95, 0.05]),
        ([30, 10, 0, 0], [0.7, 0.25, 0.025, 0.025]),
    ],
)
def test_the_share_follows_what_waits_and_nobody_is_left_with_nothing(
    waiting: list[int], shares: list[float]
) -> None:
    beats = [Beat(f"r{i}", 1, many, 0.0) for i, many in enumerate(waiting)]
    assert [due(beat.owner, beats, BURST) for beat in beats] == pytest.approx(shares)


@settings(deadline=None)
@given(
    many=st.integers(9, 30), busy=st.sets(st.integers(0, 29)), seats=st.integers(1, 8), start=st.integers(1)
)
def test_of_more_replicas_than_the_burst_everyone_with_contacts_waiting_has_a_turn(
    many: int, busy: set[int], seats: int, start: int
) -> None:
    seated: set[str] = set()
    for count in range(start, start + 5 * many):
        beats = [Beat(f"r{i:02}", count, int(i in busy), 0.0) for i in range(many)]
        seated |= {beat.owner for beat in beats if due(beat.owner, beats, seats) > 0}
    assert seated >= {f"r{i:02}" for i in busy if i < many}


def test_of_more_replicas_than_the_burst_those_with_contacts_waiting_come_first() -> None:
    beats = [Beat(f"r{i:02}", 1, int(i in {3, 11}), 0.0) for i in range(12)]
    shares = [due(beat.owner, beats, 2) for beat in beats]
    assert [i for i, share in enumerate(shares) if share] == [3, 11]


# ── who lives ──────────────────────────────────────────────────────────────────────────────────


def _owners(beats: Sequence[Beat]) -> list[str]:
    return [beat.owner for beat in beats]


def test_a_replica_whose_count_stands_still_for_six_seconds_is_dead_and_lives_again_when_it_moves() -> None:
    peers = Peers()
    peers.hear([Beat("a", 5, 0, 0.0)], 100.0, 101.0)
    peers.hear([Beat("a", 5, 9, 0.5)], 106.9, 107.0)
    assert (_owners(peers.living), peers.next_death) == (["a"], 107.0)
    peers.hear([Beat("a", 5, 9, 0.5)], 107.0, 107.1)
    assert (peers.living, _owners(peers.dead)) == ([], ["a"])
    peers.hear([Beat("a", 6, 9, 0.5)], 109.0, 109.1)
    assert (_owners(peers.living), peers.dead) == (["a"], [])


def test_who_heard_nothing_for_a_minute_calls_nobody_dead_who_moved_meanwhile() -> None:
    peers = Peers()
    peers.hear([Beat("a", 1, 0, 0.0), Beat("b", 1, 0, 0.0)], 0.0, 0.0)
    assert _owners(peers.living) == ["a", "b"]
    peers.hear([Beat("a", 2, 0, 0.0), Beat("b", 1, 0, 0.0)], 60.0, 60.0)
    assert (_owners(peers.living), _owners(peers.dead)) == (["a"], ["b"])


def test_a_replica_that_has_left_is_neither_living_nor_dead() -> None:
    peers = Peers()
    peers.hear([Beat("a", 1, 0, 0.0)], 0.0, 0.0)
    peers.hear([], 2.0, 2.0)
    assert (peers.living, peers.dead) == ([], [])


# ── many of them ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Fate:
    """What becomes of one beat: how long it takes there and back, and whether the write or the answer is lost."""

    there: float = 0.0
    back: float = 0.0
    lost: bool = False
    unanswered: bool = False


@dataclass
class Board:
    """What several replicas share, and what goes wrong on the way to it."""

    rows: dict[str, Beat] = field(default_factory=dict)
    down: bool = False
    cut: set[str] = field(default_factory=set)
    fates: dict[str, list[Fate]] = field(default_factory=dict)
    usual: Fate = Fate()


class Line(MemoryJournal):
    """One replica's way to the board, which is read row by row, at different moments, as a careless store would."""

    def __init__(self, board: Board, owner: str) -> None:
        super().__init__()
        self._board = board
        self._owner = owner

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        rows, fates = self._board.rows, self._board.fates.get(self._owner)
        fate = fates.pop(0) if fates else self._board.usual
        await anyio.sleep(fate.there)
        self._check(lost=fate.lost)
        if beat.owner not in rows or rows[beat.owner].count <= beat.count:
            rows[beat.owner] = beat
        read = []
        for owner in list(rows):
            await anyio.sleep(fate.back / len(rows))
            if owner in rows:
                read.append(rows[owner])
        self._check(lost=fate.unanswered)
        return read

    async def retire(self, beat: Beat) -> None:
        self._check()
        if beat.owner in self._board.rows and self._board.rows[beat.owner].count <= beat.count:
            del self._board.rows[beat.owner]

    def _check(self, *, lost: bool = False) -> None:
        if lost or self._board.down or self._owner in self._board.cut:
            raise Transient("journal", "down")


@dataclass
class Fleet:
    """Replicas on one board, their shares in force, and the law that those add up to at most one."""

    board: Board = field(default_factory=Board)
    burst: int = BURST
    shares: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    replicas: dict[str, Replicas] = field(default_factory=dict)
    scopes: dict[str, anyio.CancelScope] = field(default_factory=dict)

    async def live(self, owner: str, at: float = 0.0) -> None:
        """One replica's life, until it is ended or killed."""
        await anyio.sleep(at)

        def on_share(share: float, _count: int) -> None:
            self.shares[owner] = share
            assert sum(self.shares.values()) <= 1 + 1e-9, self.shares

        one = Replicas(
            Line(self.board, owner),
            owner,
            seats=lambda: self.burst,
            waiting=lambda: self.waiting.get(owner, 0),
            on_share=on_share,
        )
        with anyio.CancelScope() as self.scopes[owner]:
            while True:
                try:
                    async with one.joined():
                        self.replicas[owner] = one
                        await one.run()
                except Transient:
                    await anyio.sleep(1)  # a service manager starts it again
        self.shares.pop(owner, None)

    def leave(self, owner: str) -> None:
        self.scopes[owner].cancel()
        self.shares.pop(owner, None)

    def kill(self, owner: str) -> None:
        """SIGKILL: it says nothing more, not even that it goes."""
        self.board.cut.add(owner)
        self.leave(owner)

    def dues(self) -> dict[str, float]:
        beats = [Beat(owner, 1, self.waiting.get(owner, 0), 0.0) for owner in self.shares]
        return {beat.owner: due(beat.owner, beats, self.burst) for beat in beats}

    @asynccontextmanager
    async def running(self, *starts: float) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            for number, at in enumerate(starts):
                tasks.start_soon(self.live, f"r{number}", at)
            yield
            tasks.cancel_scope.cancel()


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


fates = st.builds(
    Fate, there=st.floats(0, 0.7), back=st.floats(0, 0.7), lost=st.booleans(), unanswered=st.booleans()
)
lives = st.lists(
    st.tuples(
        st.floats(0, 20),  # when it starts
        st.floats(5, 40),  # how long it lives
        st.sampled_from(["leave", "kill"]),
        st.lists(
            fates, max_size=20
        ),  # what becomes of its beats: of every other one, so that it is not given up
        st.lists(st.sampled_from([0, 0, 1, 10, 1000]), min_size=1, max_size=20),  # what waits, by the second
    ),
    min_size=1,
    max_size=10,
)


@LAW
@given(lives=lives, burst=st.sampled_from([2, 8]))
async def test_shares_never_add_up_to_more_than_the_whole_whatever_is_late_or_lost_and_settle_within_ten_seconds(
    lives: list[tuple[float, float, str, list[Fate], list[int]]], burst: int
) -> None:
    """The law stands in ``Fleet.live``: it is asserted at every change of any share."""
    fleet = Fleet(burst=burst)

    async def happen(owner: str, at: float, lasting: float, end: str, demands: list[int]) -> None:
        await anyio.sleep(at)
        for second in range(int(lasting)):
            fleet.waiting[owner] = demands[second % len(demands)]
            await anyio.sleep(1)
        getattr(fleet, end)(owner)

    async with fleet.running(*(life[0] for life in lives)):
        async with anyio.create_task_group() as happenings:
            for number, (at, lasting, end, told, demands) in enumerate(lives[:-1]):
                fleet.board.fates[f"r{number}"] = [x for fate in told for x in (fate, Fate(fate.there))]
                happenings.start_soon(happen, f"r{number}", at + 1e-3, lasting, end, demands)
            await anyio.sleep(30)
        fleet.waiting = {"r0": 3}
        await anyio.sleep(10)
        assert fleet.shares == pytest.approx(fleet.dues())
        assert sum(fleet.shares.values()) == pytest.approx(1.0)


@LAW
@given(
    demands=st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), max_size=30),
    starts=st.lists(st.floats(0, 5), min_size=4, max_size=4),
)
async def test_nobody_who_has_its_part_is_starved_however_wildly_demand_moves(
    demands: list[list[int]], starts: list[float]
) -> None:
    fleet = Fleet()
    async with fleet.running(*starts):
        await anyio.sleep(12)
        for demand in demands:
            fleet.waiting = {f"r{i}": many for i, many in enumerate(demand)}
            await anyio.sleep(0.7)
            assert min(fleet.shares.values()) >= EVEN / 4 - 1e-9


async def test_a_single_replica_has_everything_from_its_first_moment(fleet: Fleet) -> None:
    async with fleet.running(0.0):
        await anyio.sleep(0.001)
        assert fleet.shares == {"r0": 1.0}


async def test_how_many_there_are_is_told_when_it_changes_and_not_that_one_that_starts_is_alone(
    fleet: Fleet,
) -> None:
    with capture_logs() as said:
        async with fleet.running(0.0):
            await anyio.sleep(20)
        assert [line for line in said if line["event"] == "replicas"] == []
        async with fleet.running(0.0, 0.5):
            await anyio.sleep(20)
    assert 2 in [line["count"] for line in said if line["event"] == "replicas"]


async def test_on_a_journal_for_one_process_the_whole_quota_is_ours() -> None:
    told: list[tuple[float, int]] = []
    one = Replicas(
        MemoryJournal(),
        "us",
        seats=lambda: BURST,
        waiting=lambda: 0,
        on_share=lambda share, count: told.append((share, count)),
    )
    async with one.joined():
        assert (one.share, one.count) == (1.0, 1)
        assert told[-1] == (1.0, 1)
        assert not await one.alive("an earlier start")


async def test_one_that_joins_has_its_share_after_the_others_next_beat(fleet: Fleet) -> None:
    async with fleet.running(0.0, 0.5, 21.0):
        await anyio.sleep(20)
        assert fleet.shares == {"r0": 0.5, "r1": 0.5}
        await anyio.sleep(1 + 2 * BEAT_SECONDS)
        assert fleet.shares == pytest.approx(dict.fromkeys(["r0", "r1", "r2"], 1 / 3))


async def test_what_a_clean_stop_leaves_is_taken_within_a_beat(fleet: Fleet) -> None:
    async with fleet.running(0.0, 0.5):
        await anyio.sleep(10)
        fleet.leave("r1")
        await anyio.sleep(BEAT_SECONDS)
        assert (fleet.shares, list(fleet.board.rows)) == ({"r0": 1.0}, ["r0"])


@LAW
@given(offset=st.floats(0, 2), after=st.floats(0, 2), there=st.floats(0, 0.1))
@example(offset=1.0, after=1.9, there=0.1)
async def test_what_a_dead_one_had_is_taken_within_nine_seconds_and_its_row_removed(
    offset: float, after: float, there: float
) -> None:
    fleet = Fleet()
    fleet.board.usual = Fate(there=there, back=2 * there)
    async with fleet.running(0.0, offset, offset / 3):
        await anyio.sleep(10 + after)
        fleet.kill("r1")
        await anyio.sleep(9)
        assert fleet.shares == {"r0": 0.5, "r2": 0.5}
        assert set(fleet.board.rows) == {"r0", "r2"}


async def test_the_share_follows_demand_within_three_beats(fleet: Fleet) -> None:
    async with fleet.running(0.0, 0.7):
        await anyio.sleep(10)
        fleet.waiting = {"r0": 100}
        await anyio.sleep(3 * BEAT_SECONDS)
        assert fleet.shares == pytest.approx({"r0": 0.95, "r1": 0.05})
        fleet.waiting = {"r1": 50}
        await anyio.sleep(3 * BEAT_SECONDS)
        assert fleet.shares == pytest.approx({"r0": 0.05, "r1": 0.95})


async def test_while_the_journal_is_out_of_reach_the_last_share_stays_and_the_log_says_so_once(
    fleet: Fleet,
) -> None:
    async with fleet.running(0.0, 0.7):
        fleet.waiting = {"r0": 3, "r1": 1}
        await anyio.sleep(10)
        before = dict(fleet.shares)
        with capture_logs() as logs:
            fleet.board.down = True
            await anyio.sleep(3)
            fleet.waiting = {"r1": 9}
            await anyio.sleep(60)
            fleet.waiting = {"r0": 3, "r1": 1}
            assert fleet.shares == before
            fleet.board.down = False
            await anyio.sleep(10)
        assert fleet.shares == pytest.approx(before)
    said = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert sorted(said) == ["replicas.heard_again"] * 2 + ["replicas.not_heard"] * 2
    assert {line.get("next") for line in logs} > {"the last share stays in force until the journal answers"}


async def test_one_that_was_cut_off_keeps_its_share_and_asks_anew_when_it_is_back() -> None:
    fleet = Fleet()
    async with fleet.running(0.0, 0.7):
        await anyio.sleep(10)
        fleet.board.cut.add("r1")
        kept = fleet.shares.pop("r1")  # the exception to the law, which the module's docstring tells
        await anyio.sleep(15)
        assert (fleet.shares, fleet.replicas["r1"].share) == ({"r0": 1.0}, kept)
        fleet.board.cut.clear()
        await anyio.sleep(2 * BEAT_SECONDS)
        assert fleet.shares == {"r0": 0.5, "r1": 0.5}


async def test_with_more_replicas_than_the_burst_each_has_its_turn() -> None:
    fleet = Fleet(burst=3)
    had: dict[str, int] = {}
    async with fleet.running(*(0.25 * i for i in range(8))):
        await anyio.sleep(20)
        for _ in range(160):
            await anyio.sleep(1)
            for owner, share in fleet.shares.items():
                had[owner] = had.get(owner, 0) + (share > 0)
    assert len(had) == 8
    assert min(had.values()) >= 20


# ── alive ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_owner_lives_from_before_its_first_claim_until_six_seconds_after_its_last_beat(
    fleet: Fleet,
) -> None:
    async with fleet.running(0.0, 5.1):
        await anyio.sleep(5.05)
        us = fleet.replicas["r0"]
        assert not await us.alive("a uuid of long ago")
        await anyio.sleep(0.1)
        assert await us.alive("r1"), "it came after our last beat, and may claim already"
        await anyio.sleep(10)
        fleet.kill("r1")
        await anyio.sleep(DEAD_SECONDS - BEAT_SECONDS)
        assert await us.alive("r1")
        await anyio.sleep(2 * BEAT_SECONDS)
        assert not await us.alive("r1")


async def test_an_owner_that_was_never_seen_to_move_has_six_seconds_to_do_so(fleet: Fleet) -> None:
    fleet.board.rows["a predecessor"] = Beat("a predecessor", 77, 0, 1.0)
    async with fleet.running(0.0):
        await anyio.sleep(DEAD_SECONDS - 0.1)
        assert await fleet.replicas["r0"].alive("a predecessor")
        assert fleet.shares == {"r0": 0.0}
        await anyio.sleep(0.2)
        assert not await fleet.replicas["r0"].alive("a predecessor")
        assert fleet.shares == {"r0": 1.0}


async def test_an_owner_that_nobody_knows_is_looked_for_once_however_many_ask(fleet: Fleet) -> None:
    async with fleet.running(0.0, 0.0):
        await anyio.sleep(3)
        before = fleet.board.rows["r0"].count
        async with anyio.create_task_group() as asks:
            for _ in range(50):
                asks.start_soon(fleet.replicas["r0"].alive, "a uuid of long ago")
                asks.start_soon(fleet.replicas["r0"].alive, "r1")
        assert fleet.board.rows["r0"].count == before + 1


async def test_who_cannot_look_does_not_know(fleet: Fleet) -> None:
    async with fleet.running(0.0):
        await anyio.sleep(3)
        fleet.board.down = True
        with pytest.raises(Transient, match="down"):
            await fleet.replicas["r0"].alive("somebody")


async def test_progress_is_reported_whether_or_not_the_journal_answers() -> None:
    board, reports = Board(), [0.0]
    one = Replicas(Line(board, "us"), "us", seats=lambda: BURST, waiting=lambda: 0)
    with anyio.move_on_after(60):
        async with one.joined():
            board.down = True
            await one.run(lambda: reports.append(anyio.current_time()))
    assert max(later - earlier for earlier, later in pairwise(reports)) <= BEAT_SECONDS


def test_a_beat_holds_no_more_than_it_must() -> None:
    assert set(Beat.__slots__) == {"owner", "count", "waiting", "reserved"}
    assert Entry("c", Stage.CLAIMED, 1, 0.0).owner is None
