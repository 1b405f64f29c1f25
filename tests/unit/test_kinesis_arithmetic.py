"""What is pure in the stream's consumer: the window, aggregated records, a lease's moves, the plan of leases."""

import hashlib
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attachd.sources.kinesis.aggregation import bodies
from attachd.sources.kinesis.assignment import plan
from attachd.sources.kinesis.window import Window
from attachd.streams import SHARD_END, Edge, Lease, Listing, Position, Shard
from unit.kpl import aggregated, chunk, message, sealed, varint

FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))

# ── the window ─────────────────────────────────────────────────────────────────────────────────


@given(
    st.sets(st.tuples(st.integers(0, 2**128), st.integers(0, 3)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_prefix_is_the_last_record_before_the_first_unfinished_one(
    places: set[tuple[int, int]], dice: random.Random
) -> None:
    window = Window()
    positions = [Position(*place) for place in sorted(places)]
    for position in positions:
        window.add(position)
    finished: set[Position] = set()
    for position in dice.sample(positions, len(positions)):
        before = window.prefix
        grown = window.finish(position)
        finished.add(position)
        expected = None
        for candidate in positions:
            if candidate not in finished:
                break
            expected = candidate
        assert window.prefix == expected
        assert grown == (before != expected)
        assert not window.finish(position)
    assert len(window) == 0
    assert window._finished == set()


def test_sequence_numbers_are_compared_as_the_integers_they_are() -> None:
    assert Position(int("9")) < Position(int("10"))
    assert Position(10, 1) < Position(10, 2) < Position(11)


def test_a_sequence_number_is_given_back_as_the_stream_wrote_it() -> None:
    padded = "0000000179529294443500000000942"
    lease = Lease(FIRST, "TRIM_HORIZON").finished_to(Position(int(padded), 1, padded))
    assert (lease.checkpoint, str(lease.start)) == (padded, padded)
    assert lease.position == Position(int(padded), 1)
    assert str(Position(7)) == "7"


def test_a_record_that_does_not_come_after_the_last_is_refused() -> None:
    window = Window()
    window.add(Position(10, 1))
    for backward in (Position(9), Position(10), Position(10, 1)):
        with pytest.raises(ValueError, match="does not come after"):
            window.add(backward)
    window.finish(Position(10, 1))
    with pytest.raises(ValueError, match="does not come after"):
        window.add(Position(10, 1))


# ── aggregated records ─────────────────────────────────────────────────────────────────────────


@given(st.lists(st.binary(max_size=200)), st.booleans())
def test_what_was_put_together_is_taken_apart(parts: list[bytes], tagged: bool) -> None:  # noqa: FBT001 - drawn
    assert bodies(aggregated(*parts, tagged=tagged)) == parts


def test_a_field_of_another_wire_type_is_passed_over() -> None:
    strange = (
        varint(9 << 3 | 1) + b"8 bytes!" + varint(10 << 3 | 5) + b"four" + varint(11 << 3) + varint(2**63)
    )
    assert bodies(sealed(strange + message(b"a") + chunk(12, b"unknown"))) == [b"a"]


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xf3\x89\x9a\xc2")
@example(b"\xf3\x89\x9a\xc2" + b"short")
@example(aggregated(b"a")[:-1] + b"\x00")
@example(b"\xf3\x89\x9a\xc3" + aggregated(b"a")[4:])
def test_what_is_not_aggregated_or_is_damaged_is_the_record_it_is(data: bytes) -> None:
    assert bodies(data) == [data]


@given(st.binary(max_size=60))
@example(varint(3 << 3 | 2) + varint(1000) + b"cut off")
@example(varint(3 << 3 | 2) + b"\xff" * 11)
@example(chunk(3, varint(1 << 3) + varint(0)))
@example(varint(3 << 3 | 3))
def test_a_sealed_buffer_that_is_no_message_raises_nothing(buffer: bytes) -> None:
    data = sealed(buffer)
    assert hashlib.md5(buffer, usedforsecurity=False).digest() == data[-16:]
    parts = bodies(data)
    assert parts == [data] or all(part in buffer for part in parts)


# ── a lease's moves ────────────────────────────────────────────────────────────────────────────


def test_every_move_of_a_lease_moves_its_counter() -> None:
    lease = Lease(FIRST, Edge.TRIM_HORIZON, owner="other")
    taken = lease.taken("us")
    assert (taken.owner, taken.counter, taken.switches) == ("us", 1, 1)
    assert (taken.renewed().counter, taken.renewed().switches) == (2, 1)
    moved = taken.finished_to(Position(7, 2))
    assert (moved.checkpoint, moved.sub, moved.counter, moved.switches) == ("7", 2, 2, 0)
    assert (moved.released().owner, moved.released().counter) == (None, 3)
    ended = moved.ended([SECOND])
    assert (ended.checkpoint, ended.sub, set(ended.children)) == (SHARD_END, 0, {SECOND})


def test_a_checkpoint_never_goes_back() -> None:
    lease = Lease(FIRST, "10", sub=1)
    assert lease.finished_to(Position(10, 1)).position == Position(10, 1)
    for backward in (Position(9), Position(10)):
        with pytest.raises(ValueError, match="cannot go back"):
            lease.finished_to(backward)
    with pytest.raises(ValueError, match="cannot go back"):
        lease.ended([]).finished_to(Position(11))


@pytest.mark.parametrize(
    ("lease", "start"),
    [
        (Lease(FIRST, "10", sub=1), Position(10, 1)),
        (Lease(FIRST, Edge.TRIM_HORIZON), Edge.TRIM_HORIZON),
        (Lease(FIRST, Edge.LATEST), Edge.LATEST),
        (Lease(FIRST, Edge.LATEST, since=5.0), 5.0),
        (Lease(FIRST, Edge.AT_TIMESTAMP, since=5.0), 5.0),
        (Lease(FIRST, Edge.AT_TIMESTAMP), Edge.TRIM_HORIZON),
        (Lease(FIRST, "10", since=5.0), Position(10)),
    ],
)
def test_a_lease_says_where_to_read_on(lease: Lease, start: object) -> None:
    assert lease.start == start


# ── the plan ───────────────────────────────────────────────────────────────────────────────────


@st.composite
def families(draw: st.DrawFn) -> list[Shard]:
    """A stream's shards after any splits and merges, some of the oldest trimmed."""
    shards = [Shard(f"shardId-{n:012d}") for n in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(0, 5))):
        live = [shard for shard in shards if not shard.closed]
        parents = draw(st.lists(st.sampled_from(live), min_size=1, max_size=min(2, len(live)), unique=True))
        closed = {shard.id for shard in parents}
        shards = [Shard(s.id, s.parents, s.closed or s.id in closed, s.hash_range) for s in shards]
        children = 2 if len(parents) == 1 else 1
        shards += [Shard(f"shardId-{len(shards) + n:012d}", frozenset(closed)) for n in range(children)]
    trimmed = draw(st.integers(0, sum(shard.closed for shard in shards)))
    gone = {shard.id for shard in [shard for shard in shards if shard.closed][:trimmed]}
    return [shard for shard in shards if shard.id not in gone]


@given(families(), st.sampled_from([Edge.TRIM_HORIZON, Edge.LATEST, 1000.0]))
def test_however_a_stream_was_resharded_every_open_shard_comes_to_be_leased_once_and_after_its_parents(
    shards: list[Shard], start: Edge | float
) -> None:
    listing = Listing(tuple(shards), at=2000.0)
    table: dict[str, Lease] = {}
    for _ in range(len(shards) + 1):
        made = plan(listing, table.values(), start).make
        for lease in made:
            assert lease.shard not in table
            assert all(table[parent].finished for parent in lease.parents if parent in table)
            table[lease.shard] = lease
        for lease in [lease for lease in table.values() if not lease.finished]:
            if next(shard for shard in shards if shard.id == lease.shard).closed:
                table[lease.shard] = lease.ended([])
    leased = set(table)
    open_ = {shard.id for shard in shards if not shard.closed}
    assert leased >= open_
    if start is Edge.LATEST:
        assert leased == open_
    else:
        assert leased == {shard.id for shard in shards}
    assert plan(listing, table.values(), start).make == ()


def test_a_finished_lease_is_dropped_when_the_stream_has_forgotten_its_shard_and_never_made_again() -> None:
    shards = (Shard(SECOND, frozenset({FIRST})), Shard(THIRD, frozenset({FIRST})))
    leases = [Lease(FIRST, SHARD_END), Lease(SECOND, "5"), Lease(THIRD, "6")]
    assert plan(Listing(shards, 0.0), leases, Edge.TRIM_HORIZON).drop == (leases[0],)
    again = plan(Listing((Shard(FIRST, closed=True), *shards), 0.0), leases[1:], Edge.TRIM_HORIZON)
    assert (again.make, again.drop) == ((), ())


def test_an_empty_listing_drops_nothing() -> None:
    leases = [Lease(FIRST, SHARD_END)]
    assert plan(Listing((), 0.0), leases, Edge.TRIM_HORIZON).drop == ()


def test_two_that_start_at_once_plan_the_same() -> None:
    """The second sees a part of what the first has made, and takes the rest to be as new as that."""
    shards = Listing((Shard(FIRST), Shard(SECOND)), 2000.0)
    made = plan(shards, [], Edge.LATEST).make
    assert [lease.checkpoint for lease in made] == [Edge.LATEST, Edge.LATEST]
    assert plan(shards, made[:1], Edge.LATEST).make == made[1:]


def test_what_appears_in_a_stream_that_was_read_begins_at_its_beginning() -> None:
    leases = [Lease(FIRST, "5")]
    (lease,) = plan(Listing((Shard(FIRST), Shard(SECOND)), 2000.0), leases, Edge.LATEST).make
    assert lease == Lease(SECOND, Edge.TRIM_HORIZON)
