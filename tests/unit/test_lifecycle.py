"""The table of moves, walked; and the laws of claiming, releasing, beginning and ending."""

import itertools
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd import lifecycle
from attachd.effects import DEPARTURES, EFFECTS, Effect
from attachd.lifecycle import (
    CLOSING,
    MOVES,
    Entry,
    IllegalMove,
    Stage,
    begin,
    claim,
    client_token,
    end,
    move,
    release,
)
from attachd.model import Outcome

NOW = 1_800_000_000.0
WINDOW = 15.0

entries = st.builds(
    Entry,
    contact_id=st.just("c-1"),
    stage=st.sampled_from(Stage),
    version=st.integers(1, 1000),
    changed_at=st.just(NOW),
    owner=st.none() | st.just("somebody"),
    generation=st.integers(1, 9),
    requested_at=st.none() | st.floats(NOW - 100, NOW),
    participant_id=st.none() | st.just("p-1"),
    bot=st.none() | st.just("b"),
    rule=st.none() | st.just("r"),
)
departures = st.sampled_from(sorted(DEPARTURES, key=lambda effect: effect.name))


def _entry(stage: Stage, **changes: object) -> Entry:
    return replace(Entry("c-1", stage, version=7, changed_at=NOW - 1, owner="us"), **changes)  # type: ignore[arg-type]


PAIRS = list(itertools.product(Stage, Stage))
ALLOWED = [(a, b) for a, b in PAIRS if b in MOVES[a]]
FORBIDDEN = [(a, b) for a, b in PAIRS if b not in MOVES[a]]


def test_the_table_knows_every_stage() -> None:
    assert set(MOVES) == {None, *Stage}


@pytest.mark.parametrize("stage", Stage)
def test_the_picture_names_every_stage(stage: Stage) -> None:
    assert stage.value in (lifecycle.__doc__ or "")


@pytest.mark.parametrize(("here", "there"), ALLOWED)
def test_an_allowed_move_moves_and_counts(here: Stage, there: Stage) -> None:
    before = _entry(here)
    after = move(before, there, NOW, reason="because")
    assert after == replace(before, stage=there, version=8, changed_at=NOW, reason="because")


@pytest.mark.parametrize(("here", "there"), FORBIDDEN)
def test_any_other_move_is_refused_and_leaves_no_trace(here: Stage, there: Stage) -> None:
    entry = _entry(here)
    before = asdict(entry)
    with pytest.raises(IllegalMove, match=f"c-1 cannot go from {here} to {there}"):
        move(entry, there, NOW)
    assert asdict(entry) == before


def test_every_stage_but_the_last_may_end_and_nothing_leaves_the_end() -> None:
    assert all(Stage.ENDED in moves for stage, moves in MOVES.items() if stage is not Stage.ENDED)
    assert MOVES[Stage.ENDED] == set()


def test_every_stage_can_be_reached() -> None:
    reached: set[Stage | None] = {None}
    while more := {there for here in reached for there in MOVES[here]} - reached:
        reached |= more
    assert reached == {None, *Stage}


def test_an_entry_has_no_room_for_a_credential() -> None:
    assert not [field.name for field in fields(Entry) if "token" in field.name or "secret" in field.name]


def test_what_was_closed_is_opened_to_anybody_and_asks_connect_anew() -> None:
    closed = _entry(
        Stage.CLOSED, owner=None, generation=2, requested_at=NOW - 90, participant_id="p", reason="unserved"
    )
    assert lifecycle.reopen(closed, NOW) == replace(
        closed,
        stage=Stage.CLAIMED,
        version=8,
        changed_at=NOW,
        generation=3,
        requested_at=None,
        participant_id=None,
        reason=None,
    )
    never_asked = _entry(Stage.CLOSED, owner=None, generation=2)
    assert lifecycle.reopen(never_asked, NOW).generation == 2


# ── claim and release ──────────────────────────────────────────────────────────────────────────


def test_a_contact_never_seen_is_claimed_at_version_one() -> None:
    assert claim(None, "c-1", "us", NOW) == Entry(
        "c-1", Stage.CLAIMED, version=1, changed_at=NOW, owner="us", generation=1
    )


@pytest.mark.parametrize("stage", [Stage.CLAIMED, Stage.ATTACHING, Stage.ATTACHED])
def test_an_unfinished_contact_changes_hands_and_keeps_what_was_asked_of_connect(stage: Stage) -> None:
    before = _entry(stage, generation=3, requested_at=NOW - 4, participant_id="p-1", owner="a dead process")
    assert claim(before, "c-1", "us", NOW) == replace(before, owner="us", version=8, changed_at=NOW)


@pytest.mark.parametrize("stage", [Stage.HANDED_OFF, Stage.CLOSED])
def test_a_finished_contact_makes_its_delivery_a_duplicate(stage: Stage) -> None:
    assert claim(_entry(stage), "c-1", "us", NOW) is Outcome.DUPLICATE


@given(departures)
def test_an_ended_contact_ends_its_delivery_by_the_same_reason(effect: Effect) -> None:
    tombstone = end(None, "c-1", effect, NOW)
    assert claim(tombstone, "c-1", "us", NOW) is DEPARTURES[effect]


def test_an_end_without_a_reason_is_an_end() -> None:
    assert claim(_entry(Stage.ENDED, reason=None), "c-1", "us", NOW) is Outcome.ENDED


@given(entries)
def test_a_released_contact_has_no_owner_and_loses_nothing_else(entry: Entry) -> None:
    assert release(entry, NOW) == replace(entry, owner=None, version=entry.version + 1, changed_at=NOW)


@given(entries, st.sampled_from(["us", "them"]))
def test_claiming_what_was_released_is_the_same_as_claiming_it(entry: Entry, owner: str) -> None:
    direct, detour = claim(entry, "c-1", owner, NOW), claim(release(entry, NOW), "c-1", owner, NOW)
    if isinstance(direct, Entry):
        assert isinstance(detour, Entry)
        assert replace(detour, version=direct.version) == direct
    else:
        assert detour is direct


# ── begin ──────────────────────────────────────────────────────────────────────────────────────


def test_the_first_request_opens_the_window() -> None:
    entry = begin(_entry(Stage.CLAIMED), NOW, WINDOW)
    assert (entry.stage, entry.generation, entry.requested_at) == (Stage.ATTACHING, 1, NOW)


@pytest.mark.parametrize("stage", [Stage.CLAIMED, Stage.ATTACHING, Stage.ATTACHED])
@pytest.mark.parametrize(
    ("age", "generation"), [(0.0, 1), (14.999, 1), (15.0, 2), (15.001, 2), (90_000.0, 2)]
)
def test_the_same_generation_while_its_window_is_open_and_the_next_one_after(
    stage: Stage, age: float, generation: int
) -> None:
    before = _entry(stage, requested_at=NOW - age, participant_id="p-1")
    after = begin(before, NOW, WINDOW)
    assert after.generation == generation
    assert after.requested_at == (NOW - age if generation == 1 else NOW)
    assert after.participant_id == ("p-1" if generation == 1 else None)


@given(entries.filter(lambda entry: Stage.ATTACHING in MOVES[entry.stage]))
def test_after_begin_the_window_of_the_generation_is_always_open(entry: Entry) -> None:
    after = begin(entry, NOW, WINDOW)
    assert after.requested_at is not None
    assert after.requested_at <= NOW < after.requested_at + WINDOW
    assert after.generation in {entry.generation, entry.generation + 1}
    assert after.version == entry.version + 1


@pytest.mark.parametrize("stage", [Stage.HANDED_OFF, Stage.CLOSED, Stage.ENDED])
def test_what_is_finished_is_not_begun_again(stage: Stage) -> None:
    with pytest.raises(IllegalMove):
        begin(_entry(stage), NOW, WINDOW)


# ── the client token ───────────────────────────────────────────────────────────────────────────

ids = st.text(st.characters(codec="utf-8", exclude_characters="|"), min_size=1, max_size=256)
requests = st.tuples(ids, ids, st.integers(1, 10_000))


@given(requests)
def test_the_client_token_is_the_same_every_time_and_fits_the_api(request: tuple[str, str, int]) -> None:
    token = client_token(*request)
    assert token == client_token(*request)
    assert 0 < len(token) <= 500
    assert token.isascii()


@given(st.lists(requests, unique=True, max_size=20))
def test_the_client_token_differs_wherever_instance_contact_or_generation_do(
    several: list[tuple[str, str, int]],
) -> None:
    assert len({client_token(*request) for request in several}) == len(several)


def test_the_client_token_does_not_change_from_release_to_release() -> None:
    assert client_token("i", "c", 1) == "df547209bec7870c81c186095e7fd9fd48e3d5fa749d4e80bbedbc20ccc94c96"


# ── end ────────────────────────────────────────────────────────────────────────────────────────


@given(departures)
def test_the_end_of_an_unknown_contact_is_a_tombstone(effect: Effect) -> None:
    assert end(None, "c-1", effect, NOW) == Entry(
        "c-1", Stage.ENDED, version=1, changed_at=NOW, reason=DEPARTURES[effect].value
    )


@given(entries, departures, departures)
def test_to_end_twice_changes_nothing(entry: Entry, first: Effect, second: Effect) -> None:
    ended = end(entry, "c-1", first, NOW)
    if ended is not None:
        assert end(ended, "c-1", second, NOW + 1) is None


@given(entries, departures)
def test_an_end_is_one_write_without_an_owner_or_no_write(entry: Entry, effect: Effect) -> None:
    ended = end(entry, "c-1", effect, NOW)
    if ended is not None:
        assert ended == replace(
            entry,
            stage=Stage.ENDED,
            version=entry.version + 1,
            changed_at=NOW,
            owner=None,
            reason=DEPARTURES[effect].value,
        )


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("effect", DEPARTURES)
def test_all_but_being_queued_after_the_bot_came_ends_a_contact(stage: Stage, effect: Effect) -> None:
    changes_nothing = stage is Stage.ENDED or (
        effect is Effect.QUEUES and stage in {Stage.HANDED_OFF, Stage.CLOSED}
    )
    assert (end(_entry(stage), "c-1", effect, NOW) is None) is changes_nothing


def test_every_event_that_departs_has_its_outcome_and_no_other_has() -> None:
    effects = {what for of_channel in EFFECTS.values() for what in of_channel.values()}
    assert set(DEPARTURES) == effects - {Effect.OPENS, Effect.NOTHING}


def test_a_chat_that_waits_for_an_agent_may_come_back_and_one_that_is_over_may_not() -> None:
    assert {Outcome.ENDED, Outcome.AGENT_JOINED} <= CLOSING
    assert Outcome.QUEUED not in CLOSING
