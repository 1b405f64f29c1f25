"""attach, call by call: what a request may have done already, what a refusal means, and what costs a token."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from attachd.errors import Permanent, Transient
from attachd.logs import Trail
from attachd.model import AttachRequest, Bot, Connection, ContactState, Delivery, Outcome, Participant, Recipe
from attachd.patterns import compile_pattern
from attachd.pipeline import Result
from attachd.quota import Rate
from attachd.recipe import judged
from attachd.rules import Rule, Rules
from attachd.testing import Line, MemoryConnect, MemoryRuntime

EPOCH = 1_800_000_000.0
CHATS = compile_pattern('{"detail":{"channel":["CHAT"]}}')
PLAIN = Recipe()
TOPIC = "arn:aws:sns:eu-central-1:111122223333:chats"
Build = Callable[..., bytes]


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


def passed() -> float:
    return asyncio.get_running_loop().time()


class Forgetful(MemoryConnect):
    """Connect as it may be, for all that anybody knows: a repeated ClientToken is refused like any second participant."""

    async def attach(self, request: AttachRequest) -> Participant:
        if request.contact_id in self.made and self._there(request.contact_id):
            self.requests.append(request)
            raise Permanent(Outcome.OCCUPIED, "quota_exceeded", "402")
        return await super().attach(request)


class Town:
    """A line with one bot."""

    def __init__(self, connect: MemoryConnect, recipe: Recipe = PLAIN, patience: float = 120) -> None:
        self.connect, self.runtime = connect, MemoryRuntime(connect=connect)
        self.rules = Rules([Rule("chat", CHATS, (Bot("b", "B", "ava", recipe=recipe),), patience=patience)])
        self.line = self.process("us")

    def process(self, owner: str) -> Line:
        return Line(now, attacher=self.connect, runtimes={"ava": self.runtime}, rules=self.rules, owner=owner)

    async def carry(self, body: bytes) -> Result:
        async with self.line.running():
            return await self.line.pipeline.carry(Delivery("t", "m", body, received_at=0), Trail())


def lose_the_next_answer(connect: MemoryConnect) -> None:
    attach = connect.attach

    async def lost(request: AttachRequest) -> Participant:
        connect.attach = attach  # type: ignore[method-assign]
        await attach(request)
        raise Transient("timeout", ambiguous=True)

    connect.attach = lost  # type: ignore[method-assign]


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(connect=True)], ids=["lapses", "connected by us"])
async def test_a_participant_of_our_own_whose_answer_was_lost_is_waited_out_and_the_chat_gets_the_next(
    contact_event: Build, recipe: Recipe
) -> None:
    town = Town(Forgetful(lapse_seconds=15), recipe)
    lose_the_next_answer(town.connect)
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert list(town.runtime.accepted) == ["c-1_2"]
    assert 21 <= passed() < 25
    assert len(town.connect.requests) <= 4  # the lost one, a refused one, perhaps one that lapsed, the next


async def test_a_chat_that_somebody_else_occupies_is_left_at_once(contact_event: Build) -> None:
    town = Town(MemoryConnect())
    town.connect.faults.append(Permanent(Outcome.OCCUPIED, "quota_exceeded"))
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.OCCUPIED
    assert passed() < 1


async def test_a_chat_whose_bot_took_it_and_was_not_heard_is_told_as_such(contact_event: Build) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    offer = town.runtime.offer

    async def unheard(handoff: object) -> int | None:
        await offer(handoff)  # type: ignore[arg-type]
        raise Transient("timeout", ambiguous=True)

    town.runtime.offer = unheard  # type: ignore[method-assign]
    result = await town.carry(contact_event("c-1"))
    assert result.outcome is Outcome.OCCUPIED
    assert "perhaps by the bot itself" in result.reason
    assert len(town.connect.made) == 1


@pytest.mark.parametrize("back_at", [130.0, 3600.0])
async def test_a_bot_that_we_connected_is_seen_through_even_when_its_event_comes_back_after_patience(
    contact_event: Build, back_at: float
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15), Recipe(connect=True))
    town.runtime.down = Transient("unreachable")
    with anyio.move_on_after(5):  # the drain ends while it is offered
        await town.carry(contact_event("c-1"))
    await anyio.sleep(back_at - passed())
    town.runtime.down = None
    town.line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.runtime},
        rules=town.rules,
        journal=town.line.journal,
    )
    assert (await town.carry(contact_event("c-1", at=EPOCH))).outcome is Outcome.ATTACHED
    assert list(town.runtime.accepted) == ["c-1_1"]


async def test_a_bot_that_we_connected_and_nobody_will_speak_for_is_sent_away_after_patience(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15), Recipe(connect=True))
    town.runtime.down = Transient("unreachable")
    with anyio.move_on_after(5):
        await town.carry(contact_event("c-1"))
    await anyio.sleep(200)
    town.runtime.down = None
    town.runtime.faults.extend([Transient("runtime_500")] * 500)
    town.line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.runtime},
        rules=town.rules,
        journal=town.line.journal,
    )
    assert (await town.carry(contact_event("c-1", at=EPOCH))).outcome is Outcome.UNSERVED
    assert town.connect.dismissed == [town.connect.made["c-1"].id]


async def test_a_chat_is_streamed_by_its_first_contact(contact_event: Build) -> None:
    town = Town(MemoryConnect(), Recipe(streaming_topic=TOPIC))
    await town.carry(contact_event("c-2", initialContactId="c-1"))
    assert town.connect.streams == {"c-1": {TOPIC}}


async def test_timers_are_set_before_the_first_participant_and_not_again_after_a_restart(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15), Recipe(timers={"IDLE": 5}))
    town.runtime.down = Transient("unreachable")
    with anyio.move_on_after(3):
        await town.carry(contact_event("c-1"))
    assert town.connect.timers.pop("c-1") == {"IDLE": 5}
    town.runtime.down = None
    town.line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.runtime},
        rules=town.rules,
        journal=town.line.journal,
    )
    await town.carry(contact_event("c-1"))
    assert town.connect.timers == {}


async def test_a_token_that_grew_old_over_the_recipe_is_given_back_and_bought_anew(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(), Recipe(streaming_topic=TOPIC))

    async def slow(*_: str) -> None:
        await anyio.sleep(2)

    town.connect.stream = slow  # type: ignore[method-assign,assignment]
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert (town.line.room.spent, len(town.connect.requests)) == (1, 1)


async def test_a_refusal_that_cannot_be_looked_into_stands(contact_event: Build) -> None:
    town = Town(MemoryConnect())
    town.connect.faults.append(Permanent(Outcome.OCCUPIED, "conflict"))

    async def denied(*_: str) -> ContactState:
        raise Transient("access_denied", "DescribeContact")

    town.connect.describe = denied  # type: ignore[method-assign,assignment]
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.OCCUPIED
    assert len(town.connect.requests) == 1


async def test_a_refused_chat_says_nothing_against_its_instance(contact_event: Build) -> None:
    town = Town(MemoryConnect())
    town.connect.faults.append(Transient("access_denied"))
    town.connect.faults.append(Permanent(Outcome.REFUSED, "invalid_request"))
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.REFUSED
    assert town.line.instances.trouble == []  # Connect let us in and judged the request


STATE = ContactState(connected=True, queued=True, agent=False, ended=False)


def test_a_call_that_is_refused_beside_its_agent_stays_refused() -> None:
    refusal = Permanent(Outcome.REFUSED, "invalid_request")
    assert (
        judged(refusal, ContactState(connected=True, queued=True, agent=True, ended=False), "CUSTOMER")
        is refusal
    )
    assert isinstance(judged(refusal, STATE, "CUSTOMER"), Transient)


# ── found by a review, by running it ───────────────────────────────────────────────────────────


async def test_a_lapse_counts_from_the_last_request_that_may_have_made_the_participant(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    town.connect.faults.append(Transient("timeout", ambiguous=True, after=9.0))  # the first had no effect
    town.runtime.faults.extend([Transient("runtime_500", after=3.0)] * 2)
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED
    assert len({request.client_token for request in town.connect.requests}) <= 2


async def test_a_chat_that_waited_long_for_its_token_does_not_repeat_a_request_whose_window_closes(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    town.connect.faults.append(Transient("timeout", ambiguous=True))
    async with town.line.running(), anyio.create_task_group() as chats:
        chats.start_soon(
            town.line.pipeline.carry, Delivery("t", "m", contact_event("c-1"), received_at=0), Trail()
        )
        await anyio.sleep(0.01)
        town.line.room.change(None)  # no token for anybody
        await anyio.sleep(16)
        town.line.room.change(Rate(5, 8))
    assert list(town.runtime.accepted) == ["c-1_2"]
    first, second = (r.client_token for r in town.connect.requests)
    assert first != second


async def test_dismissing_never_leaves_a_participant_connected(contact_event: Build) -> None:
    """DisconnectParticipant is granted half as often as CreateParticipantConnection."""
    town = Town(MemoryConnect(lapse_seconds=15))
    town.runtime.faults.extend([Permanent(Outcome.UNSERVED, "runtime_refused")] * 60)
    town.line._others["DisconnectParticipant"].change(Rate(3, 5))
    async with town.line.running(), anyio.create_task_group() as chats:
        for n in range(60):
            delivery = Delivery("t", "m", contact_event(f"c-{n}"), received_at=0)
            chats.start_soon(town.line.pipeline.carry, delivery, Trail())
    assert town.connect._connected == set(town.connect.dismissed)
    assert town.connect.dismissed


async def test_a_disconnect_that_fails_is_tried_again(contact_event: Build) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    town.runtime.faults.append(Permanent(Outcome.UNSERVED, "runtime_refused"))
    disconnect, failed = town.connect.disconnect, [Transient("connect_internal", ambiguous=True)]

    async def flaky(connection: Connection) -> None:
        if failed:
            raise failed.pop()
        await disconnect(connection)

    town.connect.disconnect = flaky  # type: ignore[method-assign]
    await town.carry(contact_event("c-1"))
    assert len(town.connect.dismissed) == 1


async def test_a_dismissed_participant_whose_connecting_was_not_heard_of_does_not_stay_connected(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    town.runtime.faults.append(Permanent(Outcome.UNSERVED, "runtime_refused"))
    connect, unheard = town.connect.connect, [Transient("timeout", ambiguous=True)]

    async def flaky(participant: Participant) -> Connection:
        connection = await connect(participant)
        if unheard:
            await anyio.sleep(6)
            raise unheard.pop()
        return connection

    town.connect.connect = flaky  # type: ignore[method-assign]
    await town.carry(contact_event("c-1"))
    assert town.connect._connected == set(town.connect.dismissed)
    assert town.connect.dismissed


async def test_bots_that_we_connected_are_fetched_and_sent_away_whatever_their_runtime_does(
    contact_event: Build,
) -> None:
    town = Town(MemoryConnect(lapse_seconds=15), Recipe(connect=True), patience=40)
    town.runtime.down = Transient("unreachable")
    with anyio.move_on_after(2):
        async with town.line.running(), anyio.create_task_group() as chats:
            for n in range(8):
                delivery = Delivery("t", "m", contact_event(f"c-{n}"), received_at=0)
                chats.start_soon(town.line.pipeline.carry, delivery, Trail())
    connected = set(town.connect._connected)
    assert len(connected) > 2
    town.line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.runtime},
        rules=town.rules,
        journal=town.line.journal,
    )
    async with town.line.running(), anyio.create_task_group() as chats:
        for n in range(8):
            delivery = Delivery("t", "m", contact_event(f"c-{n}"), received_at=0)
            chats.start_soon(town.line.pipeline.carry, delivery, Trail())
    assert connected <= set(town.connect.dismissed)


async def test_a_bot_whose_chats_cannot_be_streamed_takes_no_other_bots_chats_with_it(
    contact_event: Build,
) -> None:
    connect, runtime = MemoryConnect(), MemoryRuntime()

    async def denied(*_: str) -> None:
        raise Transient("access_denied", "StartContactStreaming")

    connect.stream = denied  # type: ignore[method-assign,assignment]
    streamed = compile_pattern('{"detail":{"channel":["CHAT"],"tags":{"kind":["streamed"]}}}')
    rules = Rules(
        [
            Rule("streamed", streamed, (Bot("s", "S", "ava", recipe=Recipe(streaming_topic=TOPIC)),)),
            Rule("plain", CHATS, (Bot("p", "P", "ava"),)),
        ]
    )
    line = Line(now, attacher=connect, runtimes={"ava": runtime}, rules=rules)
    async with line.running(), anyio.create_task_group() as chats:
        for n in range(40):
            tags = {"kind": "streamed" if n % 2 else "plain"}
            body = contact_event(f"c-{n}", at=now(), tags=tags)
            chats.start_soon(line.pipeline.carry, Delivery("t", "m", body, received_at=0), Trail())
            await anyio.sleep(0.5)
        assert line.instances.trouble
    assert sorted(runtime.accepted) == sorted(f"c-{n}_1" for n in range(0, 40, 2))


async def test_an_outage_of_connect_costs_no_generations(contact_event: Build) -> None:
    town = Town(MemoryConnect(lapse_seconds=15), patience=300)
    attach = town.connect.attach

    async def out(request: AttachRequest) -> Participant:
        if passed() < 100:
            raise Transient("connect_internal", ambiguous=True)
        return await attach(request)

    town.connect.attach = out  # type: ignore[method-assign]
    assert (await town.carry(contact_event("c-1"))).outcome is Outcome.ATTACHED


async def test_a_participant_stays_its_bots_whatever_the_rules_have_come_to_say(contact_event: Build) -> None:
    town = Town(MemoryConnect(lapse_seconds=15))
    town.runtime.down = Transient("unreachable")
    with anyio.move_on_after(2):
        await town.carry(contact_event("c-1"))
    town.runtime.down = None
    other = MemoryRuntime(connect=town.connect)
    renamed, new = Bot("b", "Another name", "ava"), Bot("new", "New", "other")
    never = compile_pattern('{"detail":{"channel":["CHAT"],"tags":{"never":["yes"]}}}')
    line = Line(
        now,
        attacher=town.connect,
        runtimes={"ava": town.runtime, "other": other},
        rules=Rules([Rule("never", never, (renamed,)), Rule("chat", CHATS, (new,), patience=120)]),
        journal=town.line.journal,
    )
    async with line.running():
        await line.pipeline.carry(Delivery("t", "m", contact_event("c-1"), received_at=0), Trail())
    assert (list(town.runtime.accepted), other.offers) == (["c-1_1"], [])
    assert {(r.client_token, r.display_name) for r in town.connect.requests} == {
        (town.connect.requests[0].client_token, "B")
    }
