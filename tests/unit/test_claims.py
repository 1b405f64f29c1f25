"""One contact, one hand: over a real journal in memory, and over scripted ones where races are lost."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest

from attachd.claims import Claim, Claims
from attachd.effects import Effect
from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import CLOSING, LAPSE_SECONDS, Entry, Stage
from attachd.model import Outcome
from attachd.settings import Service

EPOCH = 1_800_000_000.0
WINDOW = 15.0

Happening = Callable[[], Awaitable[object]]


def _now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


class Journal(MemoryJournal):
    """A journal with living rivals, in which things happen around a ``put``."""

    def __init__(self) -> None:
        super().__init__()
        self.living: set[str] = set()
        self.before_put: list[Happening] = []
        self.after_put: list[Happening] = []
        self.puts: list[Entry] = []
        self.purges: list[float] = []
        self.faults: list[Exception] = []

    async def put(self, entry: Entry) -> Entry:
        self.puts.append(entry)
        if self.before_put:
            await self.before_put.pop(0)()
        if self.faults:
            raise self.faults.pop(0)
        stored = await super().put(entry)
        if self.after_put:
            await self.after_put.pop(0)()
        return stored

    async def lives(self, owner: str) -> bool:
        return owner in self.living

    async def purge(self, before: float) -> int:
        self.purges.append(before)
        if self.faults:
            raise self.faults.pop(0)
        return await super().purge(before)

    def entry(self, contact_id: str = "c-1") -> Entry:
        return self._entries[contact_id]


@pytest.fixture
def journal() -> Journal:
    return Journal()


def _claims(journal: Journal, owner: str = "us") -> Claims:
    return Claims(journal, owner, _now, alive=journal.lives)


# ── one hand at a time ─────────────────────────────────────────────────────────────────────────


async def test_deliveries_of_one_contact_go_one_after_the_other_and_those_of_others_beside_them(
    journal: Journal,
) -> None:
    claims, log = _claims(journal), []

    async def deliver(contact_id: str, name: str) -> None:
        async with claims.hold(contact_id):
            log.append((name, "in", anyio.current_time()))
            await anyio.sleep(1)
            log.append((name, "out", anyio.current_time()))

    async with anyio.create_task_group() as deliveries:
        for contact_id, name in [("c-1", "a"), ("c-1", "b"), ("c-1", "c"), ("c-2", "d")]:
            deliveries.start_soon(deliver, contact_id, name)
    times = {name: at for name, what, at in log if what == "in"}
    assert times == {"a": 0.0, "b": 1.0, "c": 2.0, "d": 0.0}


async def test_a_duplicate_is_told_so_only_when_the_delivery_it_repeats_has_ended(journal: Journal) -> None:
    claims, told = _claims(journal), []

    async def first() -> None:
        async with claims.hold("c-1") as claim:
            await _hand_off(claim)
            await anyio.sleep(5)

    async def second() -> None:
        with pytest.raises(Permanent) as refusal:
            async with claims.hold("c-1"):
                pass
        told.append((refusal.value.outcome, anyio.current_time()))

    async with anyio.create_task_group() as deliveries:
        deliveries.start_soon(first)
        await anyio.sleep(1)
        deliveries.start_soon(second)
    assert told == [(Outcome.DUPLICATE, 5.0)]


@pytest.mark.parametrize("error", [Transient("busy"), Permanent(Outcome.EXPIRED), RuntimeError("a defect")])
async def test_whoever_fails_lets_go_and_the_next_delivery_takes_over(
    journal: Journal, error: Exception
) -> None:
    claims = _claims(journal)
    with pytest.raises(type(error)):
        async with claims.hold("c-1"):
            raise error
    assert (journal.entry().stage, journal.entry().owner) == (Stage.CLAIMED, None)
    async with claims.hold("c-1"):
        assert journal.entry().owner == "us"


@pytest.mark.parametrize("outcome", Outcome)
async def test_closing_outcomes_close_the_contact_and_all_others_release_it(
    journal: Journal, outcome: Outcome
) -> None:
    claims = _claims(journal)
    with pytest.raises(Permanent):  # noqa: PT012 - the error must leave the block
        async with claims.hold("c-1") as claim:
            await claim.begin("b", "r")
            raise Permanent(outcome)
    entry = journal.entry()
    assert entry.owner is None
    if outcome in CLOSING:
        assert (entry.stage, entry.reason) == (Stage.CLOSED, outcome.value)
    else:
        assert (entry.stage, entry.reason, entry.requested_at) == (Stage.ATTACHING, None, _now())


async def test_a_contact_that_left_in_good_order_is_written_no_more(journal: Journal) -> None:
    async with _claims(journal).hold("c-1") as claim:
        await _hand_off(claim)
        writes = len(journal.puts)
    assert len(journal.puts) == writes
    assert journal.entry().stage is Stage.HANDED_OFF


async def test_every_move_is_written_before_it_is_relied_on(journal: Journal) -> None:
    async with _claims(journal).hold("c-1") as claim:
        assert journal.entry() == claim.entry
        await claim.begin("b", "r")
        assert journal.entry() == claim.entry
        assert (claim.entry.bot, claim.entry.rule) == ("b", "r")
        await claim.move(Stage.ATTACHED, participant_id="p-1")
        assert journal.entry() == claim.entry


# ── rivals ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_contact_in_a_living_rivals_hand_is_left_to_it_for_a_while(journal: Journal) -> None:
    journal.living.add("them")
    async with _claims(journal, "them").hold("c-1"):
        with pytest.raises(Transient) as refusal:
            async with _claims(journal, "us").hold("c-1"):
                raise AssertionError("two hands")
        assert (refusal.value.reason, refusal.value.after) == ("held_elsewhere", 8.0)
        assert journal.entry().owner == "them"


async def test_a_contact_that_a_living_rival_has_handed_over_is_a_duplicate_and_not_waited_for(
    journal: Journal,
) -> None:
    journal.living.add("them")
    async with _claims(journal, "them").hold("c-1") as claim:
        await claim.begin("b", "r")
        await claim.move(Stage.ATTACHED, participant_id="p-1")
        await claim.accepted("ava")
    with pytest.raises(Permanent) as refusal:
        async with _claims(journal, "us").hold("c-1"):
            raise AssertionError("a second bot")
    assert refusal.value.outcome is Outcome.DUPLICATE


async def test_a_dead_rivals_contact_is_taken_over_with_what_it_asked_of_connect(journal: Journal) -> None:
    await journal.put(
        Entry(
            "c-1",
            Stage.ATTACHED,
            1,
            EPOCH,
            owner="them",
            generation=2,
            requested_at=EPOCH,
            participant_id="p",
        )
    )
    async with _claims(journal).hold("c-1") as claim:
        assert (claim.entry.owner, claim.entry.stage, claim.entry.generation) == ("us", Stage.ATTACHED, 2)
        assert claim.entry.requested_at == EPOCH


async def test_our_own_contact_is_taken_again_without_asking_whether_we_live(journal: Journal) -> None:
    journal.living.add("us")
    await journal.put(Entry("c-1", Stage.CLAIMED, 1, EPOCH, owner="us"))
    async with _claims(journal).hold("c-1") as claim:
        assert claim.entry.version == 2


async def test_who_loses_the_race_for_a_new_contact_finds_the_winner(journal: Journal) -> None:
    journal.living.add("them")
    journal.before_put.append(
        lambda: MemoryJournal.put(journal, Entry("c-1", Stage.CLAIMED, 1, EPOCH, owner="them"))
    )
    with pytest.raises(Transient, match="held_elsewhere"):
        async with _claims(journal).hold("c-1"):
            raise AssertionError("two hands")


async def test_who_loses_the_race_to_an_end_learns_the_end(journal: Journal) -> None:
    journal.before_put.append(
        lambda: MemoryJournal.put(journal, Entry("c-1", Stage.ENDED, 1, EPOCH, reason="queued"))
    )
    with pytest.raises(Permanent) as refusal:
        async with _claims(journal).hold("c-1"):
            raise AssertionError("ended")
    assert refusal.value.outcome is Outcome.QUEUED


async def test_a_move_of_a_claim_that_was_taken_away_is_refused_and_the_taker_is_not_disturbed(
    journal: Journal,
) -> None:
    with pytest.raises(Transient, match="claim_lost"):  # noqa: PT012 - the error must leave the block
        async with _claims(journal).hold("c-1") as claim:
            theirs = replace(journal.entry(), owner="them", version=2)
            await MemoryJournal.put(journal, theirs)
            await claim.begin("b", "r")
    assert journal.entry().owner == "them"


# ── ends ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("effect", "outcome"),
    [
        (Effect.ENDS, Outcome.ENDED),
        (Effect.QUEUES, Outcome.QUEUED),
        (Effect.AGENT, Outcome.AGENT_JOINED),
    ],
)
async def test_an_end_while_the_contact_is_held_makes_every_next_step_raise(
    journal: Journal, effect: Effect, outcome: Outcome
) -> None:
    claims = _claims(journal)
    with pytest.raises(Permanent):  # noqa: PT012 - the error must leave the block
        async with claims.hold("c-1") as claim:
            claim.check()
            await claims.end("c-1", effect)
            for step in (
                lambda: _checked(claim),
                lambda: claim.begin("b", "r"),
                lambda: claim.move(Stage.ATTACHED),
            ):
                with pytest.raises(Permanent) as refusal:
                    await step()
                assert refusal.value.outcome is outcome
            claim.check()
    assert journal.entry().stage is Stage.ENDED
    assert len(journal.puts) == 2


async def test_an_end_by_another_process_is_learnt_with_the_next_write(journal: Journal) -> None:
    ours, theirs = _claims(journal), _claims(journal, "them")
    with pytest.raises(Permanent) as refusal:  # noqa: PT012 - the error must leave the block
        async with ours.hold("c-1") as claim:
            await theirs.end("c-1", Effect.ENDS)
            await claim.begin("b", "r")
    assert refusal.value.outcome is Outcome.ENDED


async def test_an_end_that_loses_its_race_is_written_over_the_winner(journal: Journal) -> None:
    await journal.put(Entry("c-1", Stage.CLAIMED, 1, EPOCH, owner="them"))
    journal.before_put.append(
        lambda: MemoryJournal.put(journal, Entry("c-1", Stage.ATTACHING, 2, EPOCH, owner="them"))
    )
    await _claims(journal).end("c-1", Effect.ENDS)
    assert (journal.entry().stage, journal.entry().version) == (Stage.ENDED, 3)


async def test_an_end_is_written_once_and_a_second_one_not_at_all(journal: Journal) -> None:
    claims = _claims(journal)
    await claims.end("c-1", Effect.QUEUES)
    await claims.end("c-1", Effect.ENDS)
    assert len(journal.puts) == 1
    assert journal.entry().reason == "queued"


async def test_an_end_seen_while_a_write_was_under_way_is_not_forgotten_when_its_answer_comes(
    journal: Journal,
) -> None:
    """The write is stored, the end is stored after it, and only then does the answer to the write arrive."""
    claims = _claims(journal)
    with pytest.raises(Permanent) as refusal:  # noqa: PT012 - the error must leave the block
        async with claims.hold("c-1") as claim:
            journal.after_put.append(lambda: claims.end("c-1", Effect.ENDS))
            await claim.begin("b", "r")
            claim.check()
            raise AssertionError("the end was forgotten, and a token is spent in vain")
    assert refusal.value.outcome is Outcome.ENDED


async def test_an_end_while_the_claim_itself_is_being_written_is_not_missed(journal: Journal) -> None:
    claims = _claims(journal)
    journal.after_put.append(lambda: claims.end("c-1", Effect.ENDS))
    with pytest.raises(Permanent) as refusal:  # noqa: PT012 - the error must leave the block
        async with claims.hold("c-1") as claim:
            claim.check()
            raise AssertionError("the end was missed, and the contact waits for a token in vain")
    assert refusal.value.outcome is Outcome.ENDED


# ── the window ─────────────────────────────────────────────────────────────────────────────────


async def test_a_request_without_effect_leaves_the_window_closed(journal: Journal) -> None:
    async with _claims(journal).hold("c-1") as claim:
        await claim.begin("b", "r")
        claim.unspent()
        await anyio.sleep(20)
        entry = await claim.begin("b", "r")
        assert (entry.generation, entry.requested_at) == (1, _now())


async def test_a_request_without_effect_does_not_undo_an_earlier_one_that_may_have_had_one(
    journal: Journal,
) -> None:
    """Ambiguous first, throttled second: the participant may exist since the first, and its clock runs."""
    async with _claims(journal).hold("c-1") as claim:
        await claim.begin("b", "r")  # times out: it may have had its effect
        await anyio.sleep(4)
        await claim.begin("b", "r")  # throttled: this one had none
        claim.unspent()
        await anyio.sleep(1)
        entry = await claim.begin("b", "r")
        assert entry.requested_at == EPOCH
        await anyio.sleep(LAPSE_SECONDS - 5)
        claim.unspent()
        entry = await claim.begin("b", "r")
        assert entry.generation == 2


async def test_one_that_may_be_ours_and_does_not_lapse_by_itself_is_given_up_when_it_must_have(
    journal: Journal,
) -> None:
    async with _claims(journal).hold("c-1") as claim:
        await claim.begin("b", "r", lapses=False)
        await anyio.sleep(4)
        await claim.begin("b", "r", lapses=False)
        with pytest.raises(Transient) as waits:
            claim.perhaps_ours("402")
        assert waits.value.after == pytest.approx(LAPSE_SECONDS - 4)
        await anyio.sleep(LAPSE_SECONDS)
        await claim.begin("b", "r", lapses=False)
        with pytest.raises(Transient) as over:
            claim.perhaps_ours("402")
        assert over.value.after == 0
        assert (await claim.begin("b", "r", lapses=False)).generation == 2


# ── letting go ─────────────────────────────────────────────────────────────────────────────────


async def test_the_release_survives_cancellation(journal: Journal) -> None:
    async def slow() -> None:
        await anyio.sleep(1)

    with anyio.move_on_after(5):
        async with _claims(journal).hold("c-1"):
            journal.before_put.append(slow)
            await anyio.sleep_forever()
    assert journal.entry().owner is None
    assert anyio.current_time() == 6.0


async def test_a_journal_that_hangs_does_not_hold_up_the_drain(journal: Journal) -> None:
    with anyio.move_on_after(5):
        async with _claims(journal).hold("c-1"):
            journal.before_put.append(anyio.sleep_forever)
            await anyio.sleep_forever()
    assert anyio.current_time() <= 10.0


async def test_a_release_that_fails_hides_nothing_and_the_next_delivery_of_this_process_takes_over(
    journal: Journal,
) -> None:
    claims = _claims(journal)
    journal.living.add("us")
    with pytest.raises(RuntimeError, match="the reason"):  # noqa: PT012 - the error must leave the block
        async with claims.hold("c-1"):
            journal.faults.append(Transient("journal"))
            raise RuntimeError("the reason")
    assert journal.entry().owner == "us"
    async with claims.hold("c-1"):
        pass
    assert journal.entry().owner is None


async def test_a_claim_that_cannot_be_written_leaves_nobody_waiting(journal: Journal) -> None:
    claims = _claims(journal)
    journal.faults.append(Transient("journal"))
    with pytest.raises(Transient):
        async with claims.hold("c-1"):
            raise AssertionError("no claim")
    with anyio.fail_after(1):
        async with claims.hold("c-1"):
            pass


# ── compact ────────────────────────────────────────────────────────────────────────────────────


async def test_contacts_long_unchanged_are_forgotten_and_others_are_not(journal: Journal) -> None:
    await journal.put(Entry("old", Stage.ENDED, 1, EPOCH - 101))
    await journal.put(Entry("new", Stage.ENDED, 1, EPOCH - 99))
    with anyio.move_on_after(0.5):
        await _claims(journal).compact(100, lambda: None)
    assert set(journal._entries) == {"new"}


async def test_forgetting_goes_on_after_a_journal_that_did_not_answer(journal: Journal) -> None:
    journal.faults.append(Transient("journal"))
    with anyio.move_on_after(300):
        await _claims(journal).compact(100, lambda: None)
    assert len(journal.purges) >= 3


async def test_the_journals_keeper_reports_more_often_than_the_shortest_stall_that_can_be_configured(
    journal: Journal,
) -> None:
    reports: list[float] = []
    with anyio.move_on_after(300):
        await _claims(journal).compact(100, lambda: reports.append(anyio.current_time()))
    longest = max(later - earlier for earlier, later in pairwise(reports))
    assert longest < _shortest_stall()


def _shortest_stall() -> float:
    for seconds in range(1, 1000):
        try:
            return Service(stall=seconds).stall
        except ValueError:
            continue
    raise AssertionError("no stall is accepted")


async def _hand_off(claim: Claim) -> None:
    await claim.begin("b", "r")
    await claim.move(Stage.ATTACHED, participant_id="p-1")
    await claim.move(Stage.HANDED_OFF)


async def _checked(claim: Claim) -> None:
    claim.check()
