"""hand off: the bot's own runtime, then the fallback, inside the window."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from attachd.claims import Claims
from attachd.effects import Effect
from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Stage
from attachd.logs import Trail
from attachd.model import Bot, ChatEnded, Delivery, Handoff, Outcome
from attachd.patterns import compile_pattern
from attachd.pipeline import Result
from attachd.rules import Rule, Rules
from attachd.testing import Line, MemoryConnect, MemoryRuntime

EPOCH = 1_800_000_000.0
CHATS = compile_pattern('{"detail":{"channel":["CHAT"]}}')
Build = Callable[..., bytes]
REFUSED = Permanent(Outcome.UNSERVED, "runtime_refused")
RETIRED = Permanent(Outcome.UNSERVED, "runtime_retired")


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


class Town:
    """A line whose rule has a fallback."""

    def __init__(self, patience: float = 20.0) -> None:
        self.connect = MemoryConnect(lapse_seconds=15)
        self.ava, self.sorry = MemoryRuntime(connect=self.connect), MemoryRuntime(connect=self.connect)
        self.journal = MemoryJournal()
        bot = Bot("concierge", "Ava", "ava")
        rule = Rule("chat", CHATS, (bot,), patience=patience, fallback="sorry")
        self.line = Line(
            now,
            attacher=self.connect,
            runtimes={"ava": self.ava, "sorry": self.sorry},
            rules=Rules([rule]),
            journal=self.journal,
            max_chats={"concierge": 10},
        )

    async def carry(self, body: bytes, *, attempt: int = 1) -> Result:
        delivery = Delivery("t", "m", body, received_at=0, attempt=attempt)
        async with self.line.running():
            return await self.line.pipeline.carry(delivery, Trail())

    async def taken_by(self) -> str | None:
        entry = await self.journal.get("c-1")
        assert entry is not None
        return entry.runtime if entry.stage is Stage.HANDED_OFF else None


async def test_a_runtime_that_takes_the_chat_is_the_only_one_that_is_asked(contact_event: Build) -> None:
    town = Town()
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert (town.ava.offers, town.sorry.offers) == (["c-1_1"], [])
    assert await town.taken_by() == "ava"
    assert town.line.gates.open_chats("concierge") == 1


@pytest.mark.parametrize("refusal", [REFUSED, RETIRED])
async def test_what_the_bots_runtime_refuses_for_good_the_fallback_is_offered_at_once(
    contact_event: Build, refusal: Permanent
) -> None:
    town = Town()
    town.ava.faults.append(refusal)
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert now() < EPOCH + 1
    assert list(town.sorry.accepted) == ["c-1_1"]
    assert await town.taken_by() == "sorry"
    assert town.line.gates.open_chats("concierge") == 0  # it is none of the bot's chats


async def test_a_runtime_that_is_not_there_leaves_the_fallback_its_part_of_the_window(
    contact_event: Build,
) -> None:
    town = Town()
    town.ava.down = Transient("unreachable")
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert EPOCH + 5 < now() < EPOCH + 9
    assert list(town.sorry.accepted) == ["c-1_1"]


@pytest.mark.parametrize("then", [None, Transient("unreachable")], ids=["silent", "and then away"])
async def test_no_fallback_is_asked_beside_a_bot_that_may_have_taken_the_chat_unheard(
    contact_event: Build, then: Transient | None
) -> None:
    town = Town()
    offer = town.ava.offer

    async def unheard(handoff: Handoff) -> None:
        await offer(handoff)
        if then is None:
            await anyio.sleep_forever()
        town.ava.down, town.ava.offer = then, offer  # type: ignore[method-assign]
        raise Transient("timeout", ambiguous=True)

    town.ava.offer = unheard  # type: ignore[method-assign]
    await town.carry(contact_event("c-1"))
    assert list(town.ava.accepted) == ["c-1_1"]
    assert town.sorry.offers == []


async def test_no_fallback_is_asked_after_a_restart_beside_a_bot_that_may_have_taken_the_chat(
    contact_event: Build,
) -> None:
    town = Town()
    offer = town.ava.offer

    async def dies(handoff: Handoff) -> None:
        await offer(handoff)
        await anyio.sleep_forever()

    town.ava.offer = dies  # type: ignore[method-assign]
    with anyio.move_on_after(1):
        await town.carry(contact_event("c-1"))
    town.ava.offer, town.ava.down = offer, Transient("unreachable")  # type: ignore[method-assign]
    again = Town()
    again.connect, again.journal = town.connect, town.journal
    again.line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.ava, "sorry": town.sorry},
        rules=town.line.rules,
        journal=town.journal,
    )
    await again.carry(contact_event("c-1"))
    assert list(town.ava.accepted) == ["c-1_1"]
    assert town.sorry.offers == []


async def test_a_fallback_that_is_full_or_away_is_left_alone(contact_event: Build) -> None:
    town = Town()
    town.ava.faults.extend([REFUSED, REFUSED])
    town.sorry.faults.append(Transient("runtime_busy", after=60.0))
    await town.carry(contact_event("c-1"))
    offers = len(town.sorry.offers)
    assert (await town.carry(contact_event("c-2", at=now()))).outcome is Outcome.UNSERVED
    assert len(town.sorry.offers) == offers


async def test_a_participant_that_neither_takes_is_dismissed(contact_event: Build) -> None:
    town = Town()
    town.ava.down = town.sorry.down = Transient("unreachable")
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.UNSERVED
    assert town.connect.dismissed == [town.connect.made["c-1"].id]
    assert town.ava.offers
    assert town.sorry.offers


async def test_a_runtime_that_was_only_away_is_asked_again_while_there_is_patience(
    contact_event: Build,
) -> None:
    town = Town(patience=120)
    town.ava.faults.extend([Transient("runtime_500", after=4.0)] * 2)
    town.sorry.faults.append(REFUSED)
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert town.ava.accepted
    assert town.connect.dismissed == []


async def test_a_chat_that_ends_meanwhile_is_offered_to_nobody_else_and_not_dismissed(
    contact_event: Build,
) -> None:
    town = Town()
    town.ava.down = Transient("unreachable", after=3.0)
    async with town.line.running(), anyio.create_task_group() as chats:
        delivery = Delivery("t", "m", contact_event("c-1"), received_at=0)
        chats.start_soon(town.line.pipeline.carry, delivery, Trail())
        await anyio.sleep(1)
        end = Delivery("t", "m-2", contact_event("c-1", "DISCONNECTED"), received_at=0)
        await town.line.pipeline.carry(end, Trail())
    assert town.sorry.offers == []
    assert town.connect.dismissed == []


# ── what a bot has ─────────────────────────────────────────────────────────────────────────────


async def test_a_chat_whose_end_another_replica_read_while_it_was_offered_leaves_no_place_taken(
    contact_event: Build,
) -> None:
    town = Town()
    offer = town.ava.offer

    async def ends_meanwhile(handoff: Handoff) -> int | None:
        told = await offer(handoff)
        await Claims(town.journal, "another", now).end("c-1", Effect.ENDS)
        return told

    town.ava.offer = ends_meanwhile  # type: ignore[method-assign]
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert town.line.gates.open_chats("concierge") == 0


async def test_being_queued_takes_no_bot_away_and_its_end_does(contact_event: Build) -> None:
    town = Town()
    for event_type, open_chats in (("INITIATED", 1), ("QUEUED", 1), ("DISCONNECTED", 0)):
        await town.carry(contact_event("c-1", event_type))
        assert town.line.gates.open_chats("concierge") == open_chats


async def test_a_window_that_a_refused_request_opened_never_opened(contact_event: Build) -> None:
    town = Town()
    town.connect.faults.append(Transient("throttled", after=5.0))
    await town.carry(contact_event("c-1"))
    (handoff,) = town.ava.accepted.values()
    assert handoff.connect_by == pytest.approx(EPOCH + 20, abs=1)


async def test_while_a_participant_may_be_there_only_its_own_bot_is_asked_for_and_the_next_one_after(
    contact_event: Build,
) -> None:
    connect = MemoryConnect(lapse_seconds=15)
    connect.faults.append(Transient("timeout", ambiguous=True, after=1.0))
    ava, max_ = MemoryRuntime(connect=connect), MemoryRuntime(connect=connect)
    bots = (Bot("first", "First", "ava"), Bot("second", "Second", "max"))
    line = Line(
        now,
        attacher=connect,
        runtimes={"ava": ava, "max": max_},
        rules=Rules([Rule("chat", CHATS, bots, patience=120)]),
    )
    async with line.running(), anyio.create_task_group() as chats:
        delivery = Delivery("t", "m", contact_event("c-1"), received_at=0)
        chats.start_soon(line.pipeline.carry, delivery, Trail())
        await anyio.sleep(0.5)
        line.gates.heard("ava", Transient("runtime_busy", after=100.0))
        await anyio.sleep(20)
        assert len(connect.requests) == 1
    assert list(max_.accepted) == ["c-1_2"]
    assert now() < EPOCH + 30  # as soon as the first one's had surely lapsed
    names: dict[str, set[str]] = {}
    for request in connect.requests:
        names.setdefault(request.client_token, set()).add(request.display_name)
    assert list(names.values()) == [{"First"}, {"Second"}]


# ── farewell ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("event_type", "reason"), [("DISCONNECTED", "ended"), ("CONNECTED_TO_AGENT", "agent_joined")]
)
async def test_the_runtime_that_has_a_chat_is_told_once_that_it_is_over(
    contact_event: Build, event_type: str, reason: str
) -> None:
    town = Town()
    await town.carry(contact_event("c-1"))
    for _ in range(2):  # events come twice
        assert (await town.carry(contact_event("c-1", event_type))).outcome is Outcome.NOTED
    ((key, told),) = town.ava.ends.items()
    assert (key, told.bot, told.generation, told.reason) == ("c-1_1_ended", "concierge", 1, reason)
    assert town.sorry.ends == {}


@pytest.mark.parametrize("event_type", ["DISCONNECTED", "CONNECTED_TO_AGENT"])
async def test_an_end_that_comes_again_is_told_again_since_who_recorded_it_may_have_died_before_he_told(
    contact_event: Build, event_type: str
) -> None:
    town = Town()
    await town.carry(contact_event("c-1"))
    end = contact_event("c-1", event_type)
    town.ava.down = Transient("unreachable")
    with anyio.move_on_after(1):
        await town.carry(end)
    town.ava.down = None
    await town.carry(end)
    await town.carry(contact_event("c-1", "QUEUED"), attempt=2)
    assert town.ava.ends == {}, "another event of the same end, and no repetition of this one"
    await town.carry(end, attempt=2)
    assert list(town.ava.ends) == ["c-1_1_ended"]


async def test_the_fallback_that_took_a_chat_is_the_one_that_is_told(contact_event: Build) -> None:
    town = Town()
    town.ava.faults.append(REFUSED)
    await town.carry(contact_event("c-1"))
    await town.carry(contact_event("c-1", "DISCONNECTED"))
    assert (list(town.ava.ends), list(town.sorry.ends)) == ([], ["c-1_1_ended"])


async def test_nobody_is_told_of_a_chat_that_no_runtime_had(contact_event: Build) -> None:
    town = Town()
    town.ava.down = town.sorry.down = Transient("unreachable")
    await town.carry(contact_event("c-1"))
    town.ava.down = town.sorry.down = None
    for contact_id in ("c-1", "c-2"):
        await town.carry(contact_event(contact_id, "DISCONNECTED"))
    assert town.ava.ends == town.sorry.ends == {}


async def test_a_runtime_that_does_not_hear_of_an_end_is_told_again_for_some_seconds_and_holds_nothing_up(
    contact_event: Build,
) -> None:
    town = Town()
    await town.carry(contact_event("c-1"))
    await town.carry(contact_event("c-2"))
    town.ava.down = Transient("unreachable")
    began = now()
    assert (await town.carry(contact_event("c-1", "DISCONNECTED"))).outcome is Outcome.NOTED
    assert now() - began < 25
    assert town.ava.ends == {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(town.carry, contact_event("c-2", "DISCONNECTED"))
        await anyio.sleep(5)
        town.ava.down = None
    assert list(town.ava.ends) == ["c-2_1_ended"]


async def test_a_runtime_whose_circuit_is_open_is_told_of_ends_once_a_probe_has_come_back(
    contact_event: Build,
) -> None:
    town = Town()
    await town.carry(contact_event("c-1"))
    tell, tried = town.ava.ended, list[float]()

    async def tried_at(farewell: ChatEnded) -> None:
        tried.append(now())
        await tell(farewell)

    town.ava.ended = tried_at  # type: ignore[method-assign]
    opened = now()
    town.line.gates.heard("ava", Transient("draining", after=5.0))
    await town.carry(contact_event("c-1", "DISCONNECTED"))
    (once,) = tried
    assert once >= opened + 5
    assert list(town.ava.ends) == ["c-1_1_ended"]


async def test_being_queued_while_the_runtime_says_yes_takes_nothing_away(contact_event: Build) -> None:
    town = Town()
    offer = town.ava.offer

    async def queued_meanwhile(handoff: Handoff) -> int | None:
        told = await offer(handoff)
        await town.line.pipeline.carry(
            Delivery("t", "m-2", contact_event("c-1", "QUEUED"), received_at=0), Trail()
        )
        return told

    town.ava.offer = queued_meanwhile  # type: ignore[method-assign]
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert await town.taken_by() == "ava"
    assert town.line.gates.open_chats("concierge") == 1
    await town.carry(contact_event("c-1", "DISCONNECTED"))
    assert list(town.ava.ends) == ["c-1_1_ended"]
    assert town.line.gates.open_chats("concierge") == 0


async def test_a_chat_that_ends_while_the_runtime_says_yes_is_told_of(contact_event: Build) -> None:
    town = Town()
    offer = town.ava.offer

    async def ends_meanwhile(handoff: Handoff) -> int | None:
        told = await offer(handoff)
        await town.line.pipeline.carry(
            Delivery("t", "m-2", contact_event("c-1", "DISCONNECTED"), received_at=0), Trail()
        )
        return told

    town.ava.offer = ends_meanwhile  # type: ignore[method-assign]
    await town.carry(contact_event("c-1"))
    assert list(town.ava.ends) == ["c-1_1_ended"]
    assert town.line.gates.open_chats("concierge") == 0
