"""The gates before the clock: circuits, caps, and what a runtime says of itself."""

from math import inf

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.circuit import Circuit
from attachd.errors import Permanent, Transient
from attachd.gates import Gates, RuntimeGate
from attachd.model import Bot, Outcome
from attachd.places import OpenChats, Places
from attachd.testing import MemoryRuntime

DOWN = Transient("unreachable", "nobody listens")


# ── a circuit ──────────────────────────────────────────────────────────────────────────────────


def test_a_circuit_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    circuit = Circuit(failures=3)
    for _ in range(2):
        circuit.failed("down", 0.0)
    circuit.succeeded()
    for _ in range(2):
        circuit.failed("down", 0.0)
    assert circuit.closed
    circuit.failed("down", 0.0)
    assert (circuit.closed, circuit.why) == (False, "down")
    assert circuit.wait(0.0) == 1.0


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    circuit, now, waits = Circuit(failures=1, first=1.0, longest=15.0), 0.0, []
    circuit.failed("down", now)
    for _ in range(6):
        waits.append(circuit.wait(now))
        now += waits[-1]
        circuit.enter()
        circuit.failed("down", now)
    assert waits == [1, 2, 4, 8, 15, 15]


def test_one_probe_goes_through_at_a_time_and_a_success_closes() -> None:
    circuit = Circuit(failures=1)
    circuit.failed("down", 0.0)
    assert circuit.wait(1.0) == 0
    circuit.enter()
    assert circuit.wait(1.0) == inf
    circuit.succeeded()
    assert circuit.wait(1.0) == 0
    assert circuit.closed


def test_a_probe_that_ends_without_a_verdict_leaves_room_for_another() -> None:
    circuit = Circuit(failures=1)
    circuit.failed("down", 0.0)
    circuit.enter()
    circuit.leave()
    assert circuit.wait(1.0) == 0


def test_late_failures_of_calls_that_went_through_before_do_not_prolong_the_wait() -> None:
    circuit = Circuit(failures=1)
    circuit.failed("down", 0.0)
    for _ in range(50):
        circuit.failed("down", 0.5)
    assert circuit.wait(1.0) == 0


@given(st.lists(st.sampled_from(["fail", "ok", "enter", "leave", "say", "wait"]), max_size=60))
def test_whatever_happens_a_circuit_lets_somebody_through_in_time_once_nobody_is_inside(
    steps: list[str],
) -> None:
    circuit, now = Circuit(failures=2, first=1.0, longest=15.0), 0.0
    for step in steps:
        match step:
            case "fail":
                circuit.failed("down", now)
            case "ok":
                circuit.succeeded()
            case "enter" if circuit.wait(now) == 0:
                circuit.enter()
            case "leave":
                circuit.leave()
            case "say":
                circuit.open("draining", now, 5.0)
            case _:
                now += 1.0
        assert (circuit.wait(now) > 0) <= bool(circuit.why)
    circuit.leave()
    assert circuit.wait(now + 15.0) == 0


# ── caps ───────────────────────────────────────────────────────────────────────────────────────


def test_places_are_taken_and_given_back() -> None:
    places = Places(2)
    places.enter()
    assert places.wait(0.0) == 0
    places.enter()
    assert places.wait(0.0) == inf
    places.leave()
    assert places.wait(0.0) == 0


def test_a_chat_counts_from_the_way_in_until_it_ends_or_expires() -> None:
    chats = OpenChats(1, expire_seconds=100)
    chats.enter()
    assert chats.wait(0.0) == inf
    chats.opened("c-1", 0.0)
    chats.leave()
    assert chats.wait(40.0) == 60.0
    assert chats.wait(100.0) == 0
    chats.opened("c-2", 100.0)
    assert chats.ended("c-2")
    assert not chats.ended("c-2")
    assert chats.wait(100.0) == 0


@given(st.lists(st.sampled_from("abcdef")), st.integers(0, 10))
def test_the_runtimes_own_word_counts_more_than_what_we_think(opened: list[str], told: int) -> None:
    chats = OpenChats(5)
    for contact in opened:
        chats.opened(contact, 0.0)
    chats.told(told, 0.0)
    assert len(chats) == told
    assert (chats.wait(0.0) == 0) is (told < 5)
    for contact in "abcdef":
        chats.ended(contact)
    assert len(chats) >= 0


# ── a runtime ──────────────────────────────────────────────────────────────────────────────────


async def test_a_circuit_that_is_open_is_probed_and_a_runtime_that_is_there_again_gets_one_chat_to_try() -> (
    None
):
    runtime, stirred = MemoryRuntime(down=DOWN), []
    gate = RuntimeGate("ava", runtime)
    gates = Gates([gate], {}, lambda: stirred.append(anyio.current_time()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gates.run)
        for _ in range(3):
            gates.heard("ava", DOWN)
        assert gates.trouble == ["runtime ava: circuit open: unreachable: nobody listens"]
        await anyio.sleep(20)
        assert gate.wait(anyio.current_time()) > 0
        runtime.down = None
        await anyio.sleep(16)
        assert gate.wait(anyio.current_time()) == 0
        gate.enter()
        assert gate.wait(anyio.current_time()) == inf  # one tries, the others wait for what becomes of it
        gates.heard("ava", None)
        gate.leave()
        assert gate.wait(anyio.current_time()) == 0
        assert gates.trouble == []
        tasks.cancel_scope.cancel()
    assert stirred


async def test_a_runtime_that_is_retired_is_never_tried_again() -> None:
    gate = RuntimeGate("ava", MemoryRuntime())
    gate.heard(Permanent(Outcome.UNSERVED, "runtime_retired"), 0.0)
    assert gate.wait(1e9) == inf
    assert gate.due(1e9) == inf


async def test_a_runtime_that_refuses_a_chat_is_there() -> None:
    gate = RuntimeGate("ava", MemoryRuntime())
    for _ in range(10):
        gate.heard(DOWN, 0.0)
        gate.heard(Permanent(Outcome.UNSERVED, "runtime_refused"), 0.0)
    assert gate.circuit.closed


async def test_a_way_is_open_when_all_its_gates_are_and_the_same_bots_make_the_same_ways() -> None:
    circuit = Circuit(failures=1)
    gates = Gates([RuntimeGate("ava", MemoryRuntime(), handoffs=1)], {"b": 1}, lambda: None)
    bots = (Bot("b", "Ava", "ava"),)
    ways = gates.ways("instance", circuit, bots)
    assert gates.ways("instance", circuit, bots) is ways
    (way,) = ways
    assert way.wait(0.0) == 0
    way.enter()
    assert way.wait(0.0) == inf
    way.leave()
    circuit.failed("denied", 0.0)
    assert way.wait(0.0) == 1.0
    assert way.wait(1.0) == 0
    gates.opened("b", "c-1")
    assert way.wait(1.0) > 0
    gates.ended("c-1")
    assert way.wait(1.0) == 0


@pytest.mark.parametrize("error", [DOWN, Transient("timeout", ambiguous=True)])
async def test_what_a_failing_probe_said_is_what_the_operator_is_told(error: Transient) -> None:
    gate = RuntimeGate("ava", MemoryRuntime(down=error))
    gate.heard(Transient("runtime_busy", "the runtime answered 503", after=0.5), anyio.current_time())
    assert "503" in gate.circuit.why
    await gate.probe()
    assert gate.circuit.why == "runtime_busy: the runtime answered 503"  # its own word holds until it is over
    await anyio.sleep(1)
    await gate.probe()
    assert gate.circuit.why == str(error)


# ── what others learn, and what is slow ────────────────────────────────────────────────────────


async def test_an_end_that_another_replica_read_frees_a_full_bots_place() -> None:
    over: set[str] = set()
    asked: list[str] = []

    async def is_over(contact_id: str) -> bool:
        asked.append(contact_id)
        return contact_id in over

    gates = Gates([RuntimeGate("ava", MemoryRuntime())], {"b": 30}, lambda: None, is_over)
    (way,) = gates.ways("instance", Circuit(), (Bot("b", "Ava", "ava"),))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gates.run)
        for n in range(29):
            gates.opened("b", f"c-{n}")
        await anyio.sleep(10)
        assert asked == []  # a bot that is not full costs the journal nothing
        gates.opened("b", "c-29")
        over.add("c-17")
        await anyio.sleep(3.5)
        assert asked == [f"c-{n}" for n in range(18)] + ["c-18", "c-19"]  # ten a second, each in its turn
        assert way.wait(anyio.current_time()) == 0
        assert gates.open_chats("b") == 29
        tasks.cancel_scope.cancel()


async def test_a_journal_that_does_not_answer_keeps_places_taken_and_is_asked_again() -> None:
    answers: list[Transient | None] = [Transient("journal")] * 3

    async def is_over(_: str) -> bool:
        if answers and (error := answers.pop()) is not None:
            raise error
        return True

    gates = Gates([RuntimeGate("ava", MemoryRuntime())], {"b": 1}, lambda: None, is_over)
    gates.ways("instance", Circuit(), (Bot("b", "Ava", "ava"),))
    gates.opened("b", "c-1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gates.run)
        await anyio.sleep(2.5)
        assert gates.open_chats("b") == 1
        await anyio.sleep(2)
        assert gates.open_chats("b") == 0
        tasks.cancel_scope.cancel()


async def test_a_runtime_whose_probes_hang_delays_no_other_ones_return() -> None:
    class Hanging(MemoryRuntime):
        async def probe(self) -> None:
            await anyio.sleep_forever()

    quick = RuntimeGate("quick", MemoryRuntime(down=DOWN))
    gates = Gates([RuntimeGate("hangs", Hanging()), quick], {}, lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gates.run)
        for name in ("hangs", "quick"):
            for _ in range(3):
                gates.heard(name, DOWN)
        await anyio.sleep(0.5)
        assert isinstance(quick.runtime, MemoryRuntime)
        quick.runtime.down = None
        await anyio.sleep(0.6)
        assert quick.wait(anyio.current_time()) == 0
        tasks.cancel_scope.cancel()


# ── a configuration read anew ──────────────────────────────────────────────────────────────────


def test_a_new_cap_counts_for_the_chats_that_a_bot_has_already() -> None:
    stirred: list[None] = []
    gates = Gates([RuntimeGate("ava", MemoryRuntime())], {"concierge": 1}, lambda: stirred.append(None))
    (way,) = gates.ways("i", Circuit(), [Bot("concierge", "Ava", "ava")])
    way.enter()
    assert way.wait(0.0) == inf
    gates.cap({"concierge": 2})
    assert (way.wait(0.0), len(stirred)) == (0.0, 1)
    gates.cap({})
    assert (way.wait(0.0), way.chats.most) == (0.0, inf)


def test_a_bot_that_moves_to_another_runtime_is_reached_there_and_keeps_its_chats() -> None:
    gates = Gates([RuntimeGate(name, MemoryRuntime()) for name in ("old", "new")], {}, lambda: None)
    circuit = Circuit()
    before, after = (gates.ways("i", circuit, [Bot("concierge", "Ava", name)])[0] for name in ("old", "new"))
    assert (before.runtime.name, after.runtime.name) == ("old", "new")
    assert before.chats is after.chats


async def test_a_runtime_that_answers_probes_again_is_no_trouble_even_while_no_chat_comes() -> None:
    runtime = MemoryRuntime(down=DOWN)
    gates = Gates([RuntimeGate("ava", runtime)], {}, lambda: None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gates.run)
        for _ in range(3):
            gates.heard("ava", DOWN)
        await anyio.sleep(20)
        assert gates.trouble
        runtime.down = None
        await anyio.sleep(16)
        assert gates.trouble == []
        tasks.cancel_scope.cancel()


async def test_the_chat_that_a_runtime_has_just_taken_is_among_those_that_it_tells_of() -> None:
    gates = Gates([RuntimeGate("ava", MemoryRuntime())], {"b": 1}, lambda: None)
    (way,) = gates.ways("instance", Circuit(), (Bot("b", "Ava", "ava"),))
    gates.opened("b", "c-1", told=1)
    assert gates.open_chats("b") == 1
    gates.ended("c-1")
    assert way.wait(anyio.current_time()) == 0
