"""The line, on in-memory ports and virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Stage, client_token
from attachd.logs import Trail
from attachd.model import (
    AttachRequest,
    Bot,
    ContactState,
    Delivery,
    Handoff,
    Outcome,
    Participant,
    Recipe,
)
from attachd.patterns import compile_pattern
from attachd.pipeline import Result
from attachd.quota import Rate
from attachd.rule import Looks
from attachd.rules import Rule, Rules
from attachd.runtimes import payload
from attachd.testing import Line, MemoryConnect, MemoryRuntime, MemoryTable

INSTANCE_ID = "5a3b9c1e-0000-4000-8000-0123456789ab"
EPOCH = 1_800_000_000.0
Build = Callable[..., bytes]


class World:
    """A line and everything around it, in memory."""

    def __init__(self, *, rate: float = 5, burst: int = 8, patience: float = 60.0, owner: str = "us") -> None:
        self.connect = MemoryConnect()
        self.runtime = MemoryRuntime()
        self.journal = MemoryJournal()
        self._rate, self._patience = Rate(rate, burst), patience
        self._running = False
        self.restarted(owner)

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def restarted(self, owner: str) -> None:
        """A line of a new process over the same journal, Connect and runtime."""
        bots = (Bot("concierge", "Ava", "ava"),)
        chats = compile_pattern('{"detail":{"channel":["CHAT"]}}')
        rules = Rules([Rule("chat", chats, bots, patience=self._patience)])
        self.line = Line(
            self.now,
            attacher=self.connect,
            runtimes={"ava": self.runtime},
            rules=rules,
            journal=self.journal,
            owner=owner,
            rate=self._rate,
        )
        self.room, self.pipeline = self.line.room, self.line.pipeline

    def patience(self, seconds: float) -> None:
        self._patience = seconds
        self.restarted("us")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """With the waiting room calling contacts in."""
        self._running = True
        async with self.line.running():
            try:
                yield
            finally:
                self._running = False

    async def carry(self, body: bytes) -> Result:
        async with AsyncExitStack() as stack:
            if not self._running:
                await stack.enter_async_context(self.running())
            return await self.pipeline.carry(Delivery("test", "m-1", body, received_at=self.now()), Trail())


@pytest.fixture
def world() -> World:
    return World()


async def test_an_opening_event_ends_with_a_bot_that_the_runtime_accepted(
    world: World, contact_event: Build
) -> None:
    result = await world.carry(contact_event("c-1"))
    assert result.outcome is Outcome.ATTACHED
    (handoff,) = world.runtime.accepted.values()
    assert handoff.contact.id == "c-1"
    assert handoff.participant == world.connect.made["c-1"]
    assert handoff.connect_by == EPOCH + 15.0
    entry = await world.journal.get("c-1")
    assert entry is not None
    assert (entry.stage, entry.bot, entry.rule, entry.generation) == (
        Stage.HANDED_OFF,
        "concierge",
        "chat",
        1,
    )


async def test_the_second_opening_event_of_a_contact_is_a_duplicate_and_costs_no_call(
    world: World, contact_event: Build
) -> None:
    await world.carry(contact_event("c-1", "INITIATED"))
    result = await world.carry(contact_event("c-1", "CONNECTED_TO_SYSTEM"))
    assert result.outcome is Outcome.DUPLICATE
    assert len(world.connect.requests) == 1


async def test_two_events_of_one_contact_at_once_attach_one_bot(world: World, contact_event: Build) -> None:
    results: list[Result] = []

    async def carry(event_type: str) -> None:
        results.append(await world.carry(contact_event("c-1", event_type)))

    async with world.running(), anyio.create_task_group() as both:
        both.start_soon(carry, "INITIATED")
        both.start_soon(carry, "CONNECTED_TO_SYSTEM")
    assert sorted(r.outcome for r in results) == [Outcome.ATTACHED, Outcome.DUPLICATE]
    assert len(world.connect.requests) == 1


async def test_a_duplicate_takes_over_when_the_first_delivery_failed(
    world: World, contact_event: Build
) -> None:
    world.runtime.faults.extend([])
    world.connect.faults.append(RuntimeError("a defect in the first delivery"))
    results: list[Result | str] = []

    async def carry(event_type: str) -> None:
        try:
            results.append(await world.carry(contact_event("c-1", event_type)))
        except RuntimeError:
            results.append("defect")

    async with world.running(), anyio.create_task_group() as both:
        both.start_soon(carry, "INITIATED")
        both.start_soon(carry, "CONNECTED_TO_SYSTEM")
    assert results[0] == "defect"
    assert isinstance(results[1], Result)
    assert results[1].outcome is Outcome.ATTACHED


@pytest.mark.parametrize(
    ("event_type", "outcome"),
    [
        ("DISCONNECTED", Outcome.ENDED),
        ("COMPLETED", Outcome.ENDED),
        ("QUEUED", Outcome.QUEUED),
        ("CONNECTED_TO_AGENT", Outcome.AGENT_JOINED),
    ],
)
async def test_an_end_that_came_first_leaves_a_tombstone_and_no_call_is_spent(
    world: World, contact_event: Build, event_type: str, outcome: Outcome
) -> None:
    assert (await world.carry(contact_event("c-1", event_type))).outcome is Outcome.NOTED
    assert (await world.carry(contact_event("c-1"))).outcome is outcome
    assert world.connect.requests == []


async def test_a_contact_that_ends_while_it_waits_leaves_at_once_without_a_token(
    contact_event: Build,
) -> None:
    world = World(rate=0.1, burst=1)
    results: dict[str, Result] = {}

    async def carry(contact_id: str) -> None:
        results[contact_id] = await world.carry(contact_event(contact_id))

    async with world.running():
        async with anyio.create_task_group() as chats:
            chats.start_soon(carry, "c-1")
            chats.start_soon(carry, "c-2")
            await anyio.sleep(2)
            assert list(results) == ["c-1"]
            await world.carry(contact_event("c-2", "DISCONNECTED"))
        assert results["c-2"].outcome is Outcome.ENDED
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert len(world.connect.requests) == 1


async def test_a_contact_out_of_patience_expires_without_a_token(contact_event: Build) -> None:
    world = World(rate=0.01, burst=1, patience=30)
    async with world.running():
        await world.carry(contact_event("c-1"))
        result = await world.carry(contact_event("c-2"))
        assert result.outcome is Outcome.EXPIRED
        assert asyncio.get_running_loop().time() == pytest.approx(30.0)
    assert [r.contact_id for r in world.connect.requests] == ["c-1"]


async def test_an_event_a_day_late_expires_at_once(world: World, contact_event: Build) -> None:
    result = await world.carry(contact_event("c-1", at=EPOCH - 86_400))
    assert result.outcome is Outcome.EXPIRED
    assert world.connect.requests == []


async def test_every_try_buys_a_token_and_a_throttled_one_keeps_its_client_token(
    world: World, contact_event: Build
) -> None:
    world.connect.faults.extend([Transient("throttled"), Transient("throttled")])
    result = await world.carry(contact_event("c-1"))
    assert result.outcome is Outcome.ATTACHED
    assert len(world.connect.requests) == world.room.spent == 3
    assert len({request.client_token for request in world.connect.requests}) == 1


async def test_an_ambiguous_failure_repeats_the_same_client_token_while_the_window_is_open(
    world: World, contact_event: Build
) -> None:
    world.connect.faults.append(Transient("timeout", ambiguous=True))
    await world.carry(contact_event("c-1"))
    first, second = world.connect.requests
    assert first == second


async def test_after_the_window_the_next_generation_asks_with_a_new_client_token(
    world: World, contact_event: Build
) -> None:
    world.connect.faults.append(Transient("timeout", ambiguous=True, after=16.0))
    result = await world.carry(contact_event("c-1"))
    first, second = world.connect.requests
    assert result.outcome is Outcome.ATTACHED
    assert first.client_token != second.client_token
    (handoff,) = world.runtime.accepted.values()
    assert handoff.generation == 2
    assert handoff.connect_by == world.now() + 15.0


async def test_a_window_that_is_as_good_as_closed_is_waited_out_and_costs_nothing(
    world: World, contact_event: Build
) -> None:
    await _die_after_create_participant(world, contact_event)
    await anyio.sleep(14 - asyncio.get_running_loop().time())
    world.connect.made.clear()  # Connect drops the participant that never connected
    world.restarted("another start")
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert world.now() == pytest.approx(EPOCH + 21.0, abs=0.1)
    assert list(world.runtime.accepted) == ["c-1_2"]
    assert len(world.connect.requests) == 2
    assert world.connect.dismissed == []


async def test_a_participant_that_came_too_late_to_be_offered_does_not_cost_the_chat_its_bot(
    world: World, contact_event: Build
) -> None:
    attach = world.connect.attach

    async def slow(request: AttachRequest) -> Participant:
        world.connect.attach = attach  # type: ignore[method-assign]
        participant = await attach(request)
        await anyio.sleep(14)
        return participant

    world.connect.attach = slow  # type: ignore[method-assign]
    world.connect.lapse_seconds = 15
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert (world.runtime.offers, world.connect.dismissed) == (["c-1_2"], [])


async def test_no_new_participant_is_asked_for_while_the_old_one_may_still_live(
    world: World, contact_event: Build
) -> None:
    """Connect's 15 s begin with the effect, which may come as late as our time-outs."""
    await _die_after_create_participant(world, contact_event)
    await anyio.sleep(16 - asyncio.get_running_loop().time())
    world.restarted("another start")
    results: list[Result] = []

    async def carry() -> None:
        results.append(await world.carry(contact_event("c-1")))

    async with world.running(), anyio.create_task_group() as chat:
        chat.start_soon(carry)
        await anyio.sleep(3)
        assert len(world.connect.requests) == 1
        world.connect.made.clear()  # now it has lapsed
    assert results[0].outcome is Outcome.ATTACHED
    assert list(world.runtime.accepted) == ["c-1_2"]


async def test_an_end_that_the_journal_will_not_take_still_calls_the_contact_away(
    contact_event: Build,
) -> None:
    world = World(rate=0.1, burst=1)
    results: dict[str, Result] = {}

    async def carry(contact_id: str) -> None:
        results[contact_id] = await world.carry(contact_event(contact_id))

    async def down(contact_id: str) -> None:
        raise Transient("journal", contact_id)

    async with world.running():
        async with anyio.create_task_group() as chats:
            chats.start_soon(carry, "c-1")
            chats.start_soon(carry, "c-2")
            await anyio.sleep(2)
            world.journal.get = down  # type: ignore[method-assign]
            assert (await world.carry(contact_event("c-2", "DISCONNECTED"))).outcome is Outcome.DEFERRED
        assert results["c-2"].outcome is Outcome.ENDED
        assert len(world.connect.requests) == 1


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:59", "2999-01-01T00:00:00Z"])
async def test_an_event_from_a_time_to_come_is_an_event_of_now(
    world: World, contact_event: Build, moment: str
) -> None:
    event = json.loads(contact_event("c-1"))
    event["time"] = event["detail"]["initiationTimestamp"] = moment
    body = json.dumps(event).encode()
    assert (await world.carry(body)).outcome is Outcome.ATTACHED
    (handoff,) = world.runtime.accepted.values()
    assert b"connect_by" in payload.attached(handoff, world.now())


async def test_connect_by_counts_from_the_first_request_that_may_have_had_an_effect(
    world: World, contact_event: Build
) -> None:
    world.connect.faults.append(Transient("timeout", ambiguous=True, after=4.0))
    await world.carry(contact_event("c-1"))
    (handoff,) = world.runtime.accepted.values()
    assert handoff.connect_by == EPOCH + 15.0


async def test_a_contact_that_ends_between_two_tries_costs_no_second_token(
    world: World, contact_event: Build
) -> None:
    world.connect.faults.append(Transient("throttled", after=5.0))
    results: list[Result] = []

    async def carry() -> None:
        results.append(await world.carry(contact_event("c-1")))

    async with world.running(), anyio.create_task_group() as chat:
        chat.start_soon(carry)
        await anyio.sleep(1)
        available = world.room._quota.available(anyio.current_time())
        await world.carry(contact_event("c-1", "DISCONNECTED"))
    assert results[0].outcome is Outcome.ENDED
    assert len(world.connect.requests) == 1
    assert world.room._quota.available(anyio.current_time()) >= available


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.OCCUPIED])
async def test_a_refusal_by_connect_ends_the_contact_for_good(
    world: World, contact_event: Build, outcome: Outcome
) -> None:
    world.connect.faults.append(Permanent(outcome, "no"))
    assert (await world.carry(contact_event("c-1"))).outcome is outcome
    assert (await world.carry(contact_event("c-1", "CONNECTED_TO_SYSTEM"))).outcome is Outcome.DUPLICATE
    assert len(world.connect.requests) == 1


async def test_a_busy_runtime_is_offered_again_with_the_same_key(world: World, contact_event: Build) -> None:
    world.runtime.faults.extend([Transient("runtime_busy", after=1.0), Transient("runtime_busy", after=1.0)])
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert world.runtime.offers == ["c-1_1"] * 3


async def test_a_participant_that_nobody_takes_is_dismissed_before_the_window_closes(
    world: World, contact_event: Build
) -> None:
    world.patience(20)  # no time for another generation
    world.runtime.faults.extend([Transient("unreachable")] * 500)
    result = await world.carry(contact_event("c-1"))
    assert result.outcome is Outcome.UNSERVED
    assert "(unreachable)" in result.reason
    assert world.connect.dismissed == [world.connect.made["c-1"].id]
    assert world.now() < EPOCH + 15.0
    entry = await world.journal.get("c-1")
    assert entry is not None
    assert (entry.stage, entry.reason) == (Stage.CLOSED, "unserved")


async def test_a_runtime_that_refuses_for_good_is_asked_once(world: World, contact_event: Build) -> None:
    world.runtime.faults.append(Permanent(Outcome.UNSERVED, "runtime_refused"))
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.UNSERVED
    assert len(world.runtime.offers) == 1
    assert len(world.connect.dismissed) == 1


async def test_after_a_crash_inside_the_window_the_same_participant_is_handed_off(
    world: World, contact_event: Build
) -> None:
    await _die_after_create_participant(world, contact_event)
    await anyio.sleep(5)
    world.restarted("another start")
    result = await world.carry(contact_event("c-1"))
    assert result.outcome is Outcome.ATTACHED
    assert len({request.client_token for request in world.connect.requests}) == 1
    (handoff,) = world.runtime.accepted.values()
    assert handoff.connect_by == EPOCH + 15.0


async def test_after_a_crash_beyond_the_window_the_next_generation_is_attached(
    world: World, contact_event: Build
) -> None:
    await _die_after_create_participant(world, contact_event)
    await anyio.sleep(20)
    world.connect.made.clear()  # Connect dropped the participant that never connected
    world.restarted("another start")
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert len({request.client_token for request in world.connect.requests}) == 2
    assert list(world.runtime.accepted) == ["c-1_2"]


# ── gates, generations, second looks, recipes ──────────────────────────────────────────────────


class Joining(World):
    """A world whose bots join, and in which a participant that nobody joins for 15 s is gone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.connect.lapse_seconds = 15
        self.runtime.connect = self.connect


async def test_a_participant_that_nobody_took_lapses_and_the_chat_gets_another_while_it_has_patience(
    contact_event: Build,
) -> None:
    world = Joining(patience=120)
    world.runtime.down = Transient("unreachable")
    results: list[Result] = []

    async def carry() -> None:
        results.append(await world.carry(contact_event("c-1")))

    async with world.running(), anyio.create_task_group() as chat:
        chat.start_soon(carry)
        await anyio.sleep(40)
        assert len(world.connect.requests) == 1  # its circuit is open: no participant is made in vain
        world.runtime.down = None
    assert [result.outcome for result in results] == [Outcome.ATTACHED]
    assert list(world.runtime.accepted) == ["c-1_2"]
    assert world.connect.dismissed == []


async def test_generations_come_to_an_end(contact_event: Build) -> None:
    world = Joining(patience=600)

    async def offer(_handoff: Handoff) -> None:
        raise Transient("runtime_500")

    world.runtime.offer = offer  # type: ignore[assignment,method-assign]
    result = await world.carry(contact_event("c-1"))
    assert result.outcome is Outcome.UNSERVED
    assert [r.client_token for r in world.connect.requests] == [
        client_token(INSTANCE_ID, "c-1", generation) for generation in (1, 2, 3)
    ]
    assert len(world.connect.dismissed) == 1  # the last: the flow goes on


async def test_while_the_runtime_is_down_no_participant_is_made(contact_event: Build) -> None:
    world = Joining(patience=300)
    world.runtime.down = Transient("unreachable")
    async with world.running(), anyio.create_task_group() as chats:
        for n in range(40):
            chats.start_soon(world.carry, contact_event(f"c-{n}"))
        await anyio.sleep(60)
        assert len(world.connect.requests) <= 10  # those under way before three offers in a row had failed
        world.runtime.down = None
    assert {key.partition("_")[0] for key in world.runtime.accepted} == {f"c-{n}" for n in range(40)}
    assert len(world.runtime.accepted) == 40


async def test_a_runtime_that_says_when_is_left_alone_until_then(contact_event: Build) -> None:
    world = Joining(patience=300)
    world.runtime.faults.append(Transient("runtime_busy", after=8.0))
    async with world.running(), anyio.create_task_group() as chats:
        chats.start_soon(world.carry, contact_event("c-1"))
        await anyio.sleep(0.5)
        chats.start_soon(world.carry, contact_event("c-2"))
        await anyio.sleep(7)
        assert [r.contact_id for r in world.connect.requests] == ["c-1"]
    assert list(world.runtime.accepted) == ["c-1_1", "c-2_1"]


async def test_the_next_bot_of_the_rule_takes_over_while_the_first_ones_runtime_is_not_there(
    contact_event: Build,
) -> None:
    connect, ava, max_ = MemoryConnect(), MemoryRuntime(down=Transient("unreachable")), MemoryRuntime()
    line = Line(
        lambda: EPOCH + asyncio.get_running_loop().time(),
        attacher=connect,
        runtimes={"ava": ava, "max": max_},
    )
    line.gates.heard("ava", Transient("runtime_busy", after=5.0))
    async with line.running():
        result = await line.pipeline.carry(
            Delivery("test", "m", contact_event("c-1"), received_at=0), Trail()
        )
    assert result.outcome is Outcome.ATTACHED
    assert [handoff.bot.name for handoff in max_.accepted.values()] == ["max bot"]
    assert ava.offers == []


async def test_a_bot_with_all_its_chats_gets_no_further_one_until_one_ends(contact_event: Build) -> None:
    runtime = MemoryRuntime()
    line = Line(
        lambda: EPOCH + asyncio.get_running_loop().time(),
        runtimes={"ava": runtime},
        max_chats={"ava bot": 2},
    )

    async def carry(contact_id: str, event_type: str = "INITIATED") -> None:
        body = contact_event(contact_id, event_type)
        await line.pipeline.carry(Delivery("test", contact_id, body, received_at=0), Trail())

    async with line.running(), anyio.create_task_group() as chats:
        for n in range(3):
            chats.start_soon(carry, f"c-{n}")
        await anyio.sleep(10)
        assert len(runtime.accepted) == 2
        await carry(next(iter(runtime.accepted)).partition("_")[0], "DISCONNECTED")
        await anyio.sleep(0.1)
        assert len(runtime.accepted) == 3


async def test_access_denied_stops_all_calls_of_the_instance_and_is_told(contact_event: Build) -> None:
    world = World(patience=600)
    world.connect.faults.extend([Transient("access_denied")] * 3)
    async with world.running(), anyio.create_task_group() as chats:
        for n in range(20):
            chats.start_soon(world.carry, contact_event(f"c-{n}"))
        await anyio.sleep(1)
        assert len(world.connect.requests) <= 8  # one burst was on its way
        assert any("access_denied" in sentence for sentence in world.line.instances.trouble)
    assert len(world.runtime.accepted) == 20
    assert world.line.instances.trouble == []


STATE = ContactState(connected=True, queued=False, agent=False, ended=False)


@pytest.mark.parametrize(
    ("reason", "state", "outcome"),
    [
        ("conflict", replace(STATE, ended=True), Outcome.ENDED),
        ("conflict", replace(STATE, agent=True), Outcome.AGENT_JOINED),
        ("conflict", STATE, Outcome.OCCUPIED),
        ("quota_exceeded", replace(STATE, ended=True), Outcome.ENDED),
        ("quota_exceeded", replace(STATE, connected=False), Outcome.OCCUPIED),
    ],
)
async def test_a_refusal_for_the_contacts_sake_is_looked_into_once(
    world: World, contact_event: Build, reason: str, state: ContactState, outcome: Outcome
) -> None:
    world.connect.faults.append(Permanent(Outcome.OCCUPIED, reason))
    world.connect.states["c-1"] = state
    assert (await world.carry(contact_event("c-1"))).outcome is outcome
    assert world.connect.described == ["c-1"]
    assert (await world.carry(contact_event("c-1", "CONNECTED_TO_SYSTEM"))).outcome is Outcome.DUPLICATE
    assert len(world.connect.requests) == 1


async def test_a_bot_that_came_before_its_customer_waits_for_them(world: World, contact_event: Build) -> None:
    world.connect.faults.append(Permanent(Outcome.OCCUPIED, "conflict"))
    world.connect.states["c-1"] = replace(STATE, connected=False)
    assert (await world.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert len(world.connect.requests) == 2


def connecting(recipe: Recipe) -> Line:
    bot = Bot("concierge", "Ava", "ava", recipe=recipe)
    chats = compile_pattern('{"detail":{"channel":["CHAT"]}}')
    runtime = MemoryRuntime()
    return Line(
        lambda: EPOCH + asyncio.get_running_loop().time(),
        attacher=MemoryConnect(),
        runtimes={"ava": runtime},
        rules=Rules([Rule("chat", chats, (bot,), patience=120)]),
    )


async def test_the_recipe_streams_sets_timers_and_connects(contact_event: Build) -> None:
    topic = "arn:aws:sns:eu-central-1:111122223333:chats"
    line = connecting(Recipe(streaming_topic=topic, timers={"IDLE": 5}, connect=True))
    async with line.running():
        result = await line.pipeline.carry(Delivery("t", "m", contact_event("c-1"), received_at=0), Trail())
    connect, runtime = line.attacher, line.gates.runtimes["ava"].runtime
    assert isinstance(connect, MemoryConnect)
    assert isinstance(runtime, MemoryRuntime)
    assert result.outcome is Outcome.ATTACHED
    assert (connect.streams, connect.timers) == ({"c-1": {topic}}, {"c-1": {"IDLE": 5}})
    (handoff,) = runtime.accepted.values()
    data = json.loads(payload.attached(handoff, EPOCH))["data"]
    assert set(data["participant"]) == {"id", "connection_token", "expiry"}


async def test_a_participant_that_attachd_connected_is_offered_as_long_as_there_is_patience(
    contact_event: Build,
) -> None:
    line = connecting(Recipe(connect=True))
    connect, runtime = line.attacher, line.gates.runtimes["ava"].runtime
    assert isinstance(connect, MemoryConnect)
    assert isinstance(runtime, MemoryRuntime)
    connect.lapse_seconds = 15
    async with line.running(), anyio.create_task_group() as chats:
        runtime.down = Transient("unreachable")
        delivery = Delivery("t", "m", contact_event("c-1"), received_at=0)
        chats.start_soon(line.pipeline.carry, delivery, Trail())
        await anyio.sleep(60)
        runtime.down = None
    assert list(runtime.accepted) == ["c-1_1"]
    assert len(connect.requests) == 1


async def test_a_connection_that_came_too_late_costs_a_generation_and_not_the_chat(
    contact_event: Build,
) -> None:
    line = connecting(Recipe(connect=True))
    connect = line.attacher
    assert isinstance(connect, MemoryConnect)
    connect.connect_faults.append(Permanent(Outcome.UNSERVED, "participant_gone"))
    connect.lapse_seconds = 0
    async with line.running():
        result = await line.pipeline.carry(Delivery("t", "m", contact_event("c-1"), received_at=0), Trail())
    assert result.outcome is Outcome.ATTACHED
    assert len({request.client_token for request in connect.requests}) == 2


async def test_being_queued_ends_the_wait_only_if_it_is_to(contact_event: Build) -> None:
    runtime = MemoryRuntime()
    line = Line(
        lambda: EPOCH + asyncio.get_running_loop().time(),
        runtimes={"ava": runtime},
        rate=Rate(0.1, 1),
        leave_when_queued=False,
    )

    async def carry(contact_id: str, event_type: str = "INITIATED") -> None:
        body = contact_event(contact_id, event_type)
        await line.pipeline.carry(Delivery("test", contact_id, body, received_at=0), Trail())

    async with line.running(), anyio.create_task_group() as chats:
        chats.start_soon(carry, "c-1")
        chats.start_soon(carry, "c-2")
        await anyio.sleep(1)
        await carry("c-2", "QUEUED")
    assert sorted(runtime.accepted) == ["c-1_1", "c-2_1"]


async def test_a_webrtc_call_gets_its_participant_once_its_agent_is_there_and_only_by_its_first_contact(
    contact_event: Build,
) -> None:
    guide = Bot("guide", "Guide", "ava", role="CUSTOMER", capabilities={"Video": "SEND"})
    rule = Rule("calls", compile_pattern('{"detail":{"channel":["VOICE"]}}'), (guide,))
    connect = MemoryConnect()
    line = Line(lambda: EPOCH + asyncio.get_running_loop().time(), attacher=connect, rules=Rules([rule]))

    async def carry(contact_id: str, event_type: str, **detail: str) -> Outcome:
        body = contact_event(
            contact_id, event_type, channel="VOICE", **{"initiationMethod": "WEBRTC_API"} | detail
        )
        result = await line.pipeline.carry(Delivery("test", contact_id, body, received_at=0), Trail())
        return result.outcome

    async with line.running():
        assert await carry("call", "INITIATED") is Outcome.IGNORED
        assert await carry("call", "CONNECTED_TO_AGENT") is Outcome.ATTACHED
        following = {"initialContactId": "call", "previousContactId": "call"}
        assert await carry("joined", "CONNECTED_TO_AGENT", **following) is Outcome.NO_BOT
        for event_type in (
            "CONNECTED_TO_AGENT",
            "DISCONNECTED",
        ):  # a telephone's: the journal has no part in it
            expected = Outcome.IGNORED if event_type == "DISCONNECTED" else Outcome.NO_BOT
            assert await carry("phone", event_type, initiationMethod="INBOUND") is expected
        assert await line.journal.get("phone") is None
    assert [(r.contact_id, r.role, dict(r.capabilities)) for r in connect.requests] == [
        ("call", "CUSTOMER", {"Video": "SEND"})
    ]


# ── found by a review, by running it ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("back_at", [10, 16, 30, 50])
async def test_a_chat_whose_bot_was_connected_before_a_crash_is_handed_over_whenever_its_event_comes_back(
    contact_event: Build, back_at: float
) -> None:
    connect, runtime, journal = MemoryConnect(lapse_seconds=15), MemoryRuntime(), MemoryTable()
    bot = Bot("concierge", "Ava", "ava", recipe=Recipe(connect=True))
    plain = Bot("plain", "Max", "ava")
    chats = compile_pattern('{"detail":{"channel":["CHAT"]}}')
    rules = Rules([Rule("chat", chats, (bot, plain), patience=300)])

    def line(owner: str) -> Line:
        return Line(
            lambda: EPOCH + asyncio.get_running_loop().time(),
            attacher=connect,
            runtimes={"ava": runtime},
            rules=rules,
            journal=journal,
            owner=owner,
        )

    delivery = Delivery("t", "m", contact_event("c-1"), received_at=0)
    runtime.faults.append(Transient("never answered", after=9.0))
    first = line("first")
    async with first.running():
        with anyio.move_on_after(2):
            await first.pipeline.carry(delivery, Trail())
    await anyio.sleep(back_at - asyncio.get_running_loop().time())
    second = line("second")
    async with second.running():
        result = await second.pipeline.carry(delivery, Trail())
    assert result.outcome is Outcome.ATTACHED
    assert [handoff.bot.name for handoff in runtime.accepted.values()] == ["concierge"]
    assert len({request.client_token for request in connect.requests}) == 1


async def test_a_runtimes_word_on_its_chats_does_not_shut_a_bot_for_ever(contact_event: Build) -> None:
    runtime = MemoryRuntime(chats=25)
    line = Line(
        lambda: EPOCH + asyncio.get_running_loop().time(),
        runtimes={"ava": runtime},
        max_chats={"ava bot": 10},
    )
    async with line.running():
        for n in range(2):
            body = contact_event(f"c-{n}", at=EPOCH + asyncio.get_running_loop().time())
            result = await line.pipeline.carry(Delivery("t", "m", body, received_at=0), Trail())
            assert result.outcome is Outcome.ATTACHED
            runtime.chats = None
            await anyio.sleep(61)


async def test_what_is_done_before_the_call_and_fails_costs_no_token(contact_event: Build) -> None:
    topic = "arn:aws:sns:eu-central-1:111122223333:chats"
    line = connecting(Recipe(streaming_topic=topic))

    async def denied(*_: str) -> None:
        raise Transient("access_denied", "StartContactStreaming")

    line.attacher.stream = denied  # type: ignore[assignment,method-assign]
    async with line.running(), anyio.create_task_group() as chats:
        for n in range(20):
            delivery = Delivery("t", "m", contact_event(f"c-{n}"), received_at=0)
            chats.start_soon(line.pipeline.carry, delivery, Trail())
        await anyio.sleep(60)
        assert any("access_denied" in sentence for sentence in line.instances.trouble)
        assert line.room.spent == 0
        chats.cancel_scope.cancel()


async def test_timers_that_cannot_be_set_cost_no_chat_its_bot(contact_event: Build) -> None:
    line = connecting(Recipe(timers={"IDLE": 5}))

    async def denied(*_: object) -> None:
        raise Transient("connect_internal", ambiguous=True)

    line.attacher.set_timers = denied  # type: ignore[assignment,method-assign]
    async with line.running():
        result = await line.pipeline.carry(Delivery("t", "m", contact_event("c-1"), received_at=0), Trail())
    assert result.outcome is Outcome.ATTACHED
    assert line.room.spent == 1


async def test_a_chat_that_ends_while_it_is_offered_is_offered_no_more(contact_event: Build) -> None:
    world = Joining(patience=300)
    world.runtime.down = Transient("unreachable")
    async with world.running(), anyio.create_task_group() as chats:
        chats.start_soon(world.carry, contact_event("c-1"))
        await anyio.sleep(3)
        await world.carry(contact_event("c-1", "DISCONNECTED"))
        offers = len(world.runtime.offers)
        await anyio.sleep(20)
        assert len(world.runtime.offers) <= offers + 1
        assert world.runtime.accepted == {}


async def test_places_for_hand_offs_are_passed_on_at_once(contact_event: Build) -> None:
    line = Line(lambda: EPOCH + asyncio.get_running_loop().time(), rate=Rate(1000, 1000))
    line.gates.runtimes["ava"].places.most = 1
    async with line.running():
        async with anyio.create_task_group() as chats:
            for n in range(20):
                delivery = Delivery("t", "m", contact_event(f"c-{n}"), received_at=0)
                chats.start_soon(line.pipeline.carry, delivery, Trail())
        assert asyncio.get_running_loop().time() < 1


async def _die_after_create_participant(world: World, contact_event: Build) -> None:
    """Stop dead between CreateParticipant and hand-off: nothing of the first process runs any more."""
    world.runtime.faults.append(Transient("never answered", after=5.0))
    journal_before_cleanup: dict[str, Any] = {}
    with anyio.move_on_after(0.1):
        async with anyio.create_task_group() as process:
            process.start_soon(world.carry, contact_event("c-1"))
            await anyio.sleep(0.05)
            journal_before_cleanup = dict(world.journal._entries)
            process.cancel_scope.cancel()
    world.journal._entries = journal_before_cleanup
    entry = await world.journal.get("c-1")
    assert entry is not None
    assert (entry.stage, entry.owner) == (Stage.ATTACHED, "us")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"no json", Outcome.NOT_JSON),
        (b"\xff\xfe", Outcome.NOT_JSON),
        (b"[" * 100_000, Outcome.NOT_JSON),
        (b"[]", Outcome.NOT_A_CONTACT_EVENT),
        (
            b'{"detail-type":"EC2 Instance State-change Notification","detail":{}}',
            Outcome.NOT_A_CONTACT_EVENT,
        ),
        (b" " * 1_048_577, Outcome.TOO_LARGE),
    ],
)
async def test_a_body_that_is_no_contact_event_ends_as_its_own_outcome(
    world: World, body: bytes, outcome: Outcome
) -> None:
    assert (await world.carry(body)).outcome is outcome


async def test_a_contact_event_without_an_id_or_of_an_unknown_type_ends_as_its_own_outcome(
    world: World, contact_event: Build
) -> None:
    assert (await world.carry(contact_event(""))).outcome is Outcome.NO_CONTACT_ID
    assert (await world.carry(contact_event("c-1", "TELEPORTED"))).outcome is Outcome.UNKNOWN_TYPE
    assert (await world.carry(contact_event("c-1", "CONTACT_DATA_UPDATED"))).outcome is Outcome.IGNORED


@pytest.mark.parametrize(
    "detail",
    [
        {"initiationMethod": "TRANSFER"},
        {"segmentAttributes": {"connect:Subtype": {"ValueString": "connect:Guide"}}},
    ],
)
async def test_what_is_no_customer_chat_gets_no_bot(
    world: World, contact_event: Build, detail: dict[str, Any]
) -> None:
    result = await world.carry(contact_event("c-1", **detail))
    assert result.outcome is Outcome.NO_BOT
    assert world.connect.requests == []


async def test_both_casings_of_an_event_are_the_same_event(world: World, contact_event: Build) -> None:
    event = json.loads(contact_event("c-1"))
    event["detail"] = {key[:1].upper() + key[1:]: value for key, value in event["detail"].items()}
    assert (await world.carry(json.dumps(event).encode())).outcome is Outcome.ATTACHED


# ── rules that ask for the contact's attributes ────────────────────────────────────────────────


def asking(**changes: Any) -> tuple[Line, MemoryConnect]:
    vips = compile_pattern('{"detail":{"channel":["CHAT"]},"attributes":{"vip":["yes"]}}')
    only_vips = Rule("VIPs", vips, (Bot("concierge", "Ava", "ava"),), **changes)
    connect = MemoryConnect()
    return Line(
        lambda: EPOCH + asyncio.get_running_loop().time(), attacher=connect, rules=Rules([only_vips])
    ), connect


async def outcome(line: Line, body: bytes) -> Outcome:
    return (await line.pipeline.carry(Delivery("t", "m", body, received_at=0), Trail())).outcome


async def test_attributes_are_read_once_a_contact_whatever_it_comes_to(contact_event: Build) -> None:
    line, connect = asking()
    connect.attributes["vip"] = {"vip": "yes"}
    async with line.running(), anyio.create_task_group() as events:
        for contact in ("vip", "no-vip"):
            for kind in ("INITIATED", "CONNECTED_TO_SYSTEM"):
                events.start_soon(outcome, line, contact_event(contact, kind))
    assert sorted(connect.attributes_read) == ["no-vip", "vip"]
    assert list(connect.made) == ["vip"]


async def test_the_attributes_are_those_of_the_chats_first_contact(contact_event: Build) -> None:
    line, connect = asking()
    connect.attributes["first"] = {"vip": "yes"}
    async with line.running():
        assert await outcome(line, contact_event("later", initialContactId="first")) is Outcome.ATTACHED
    assert connect.attributes_read == ["first"]


async def test_an_event_that_no_attribute_could_change_asks_for_none(contact_event: Build) -> None:
    line, connect = asking()
    async with line.running():
        assert await outcome(line, contact_event("c-1", initiationMethod="MONITOR")) is Outcome.NO_BOT
    assert connect.attributes_read == []


async def test_attributes_that_cannot_be_read_are_asked_for_again_while_there_is_patience(
    contact_event: Build,
) -> None:
    line, connect = asking(patience=30.0)
    connect.attributes["c-1"] = {"vip": "yes"}
    connect.attribute_faults.extend([Transient("throttled"), Transient("connect_internal")])
    async with line.running():
        assert await outcome(line, contact_event("c-1")) is Outcome.ATTACHED
        connect.attribute_faults.extend([Transient("throttled", after=20.0)] * 2)
        assert await outcome(line, contact_event("c-2")) is Outcome.DEFERRED
        assert await outcome(line, contact_event("c-2", at=EPOCH - 40)) is Outcome.EXPIRED
    assert connect.attributes_read == ["c-1"] * 3 + ["c-2"] * 2


async def test_a_contact_that_connect_does_not_know_is_refused(contact_event: Build) -> None:
    line, connect = asking()
    connect.attribute_faults.append(Permanent(Outcome.REFUSED, "not_found"))
    async with line.running():
        assert await outcome(line, contact_event("c-1")) is Outcome.REFUSED


async def test_a_chat_whose_flow_sets_the_attribute_later_gets_its_bot_then(contact_event: Build) -> None:
    line, connect = asking(include=frozenset({"updates"}))
    async with line.running():
        assert await outcome(line, contact_event("c-1")) is Outcome.NO_BOT
        connect.attributes["c-1"] = {"vip": "yes"}
        assert await outcome(line, contact_event("c-1", "CONTACT_DATA_UPDATED")) is Outcome.ATTACHED
        assert await outcome(line, contact_event("c-1", "CONTACT_DATA_UPDATED")) is Outcome.DUPLICATE
        assert await outcome(line, contact_event("c-2", "CONNECTED_TO_AGENT")) is Outcome.NOTED
        connect.attributes["c-2"] = {"vip": "yes"}
        assert await outcome(line, contact_event("c-2", "CONTACT_DATA_UPDATED")) is Outcome.AGENT_JOINED
    assert [request.contact_id for request in connect.requests] == ["c-1"]


async def test_without_a_rule_that_includes_them_updates_change_nothing(contact_event: Build) -> None:
    line, connect = asking()
    async with line.running():
        assert await outcome(line, contact_event("c-1", "CONTACT_DATA_UPDATED")) is Outcome.IGNORED
    assert connect.attributes_read == []


async def test_one_bot_looks_as_the_rule_of_each_chat_wants_it(contact_event: Build) -> None:
    bot = Bot("concierge", "Ava", "ava")
    german = Rule(
        "German",
        compile_pattern('{"detail":{"tags":{"language":[{"prefix":"de"}]}}}'),
        (bot,),
        looks=Looks({"de": "Ava (Bot)"}, topic="arn:aws:sns:eu-central-1:111122223333:german"),
    )
    rest = Rule("rest", compile_pattern('{"detail":{"channel":["CHAT"]}}'), (bot,))
    connect = MemoryConnect()
    line = Line(lambda: EPOCH, attacher=connect, rules=Rules([german, rest]))
    async with line.running():
        await outcome(line, contact_event("c-1", tags={"language": "fr"}))
        await outcome(line, contact_event("c-2", tags={"language": "de-AT"}))
    assert [request.display_name for request in connect.requests] == ["Ava", "Ava (Bot)"]
    assert list(connect.streams) == ["c-2"]
