"""The line under any weather, by dice: processes die and are born, events come twice and late, and Connect, runtimes and
the journal fail before, in the midst of and after whatever they are asked. The laws hold all the same."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Entry
from attachd.model import (
    Acknowledge,
    AttachRequest,
    Bot,
    Connection,
    ContactState,
    Delivery,
    Disposition,
    Handoff,
    Outcome,
    Participant,
    Recipe,
)
from attachd.patterns import compile_pattern
from attachd.progress import Progress
from attachd.rules import Rule, Rules
from attachd.service import Limits, Service
from attachd.testing import Line, MemoryConnect, MemoryRuntime, MemorySource

EPOCH = 1_800_000_000.0
CHATS = compile_pattern('{"detail":{"channel":["CHAT"]}}')
STORM_SECONDS = 100.0
SEEDS = range(12)
Build = Callable[..., bytes]


def clock() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Weather:
    """How likely something fails, for as long as the storm lasts."""

    dice: random.Random
    chance: float

    async def strikes(self, reason: str, share: float = 1.0, **more: Any) -> None:
        """Take some time, and perhaps fail: at once, or when the caller has nearly given up on it."""
        await anyio.sleep(self.dice.uniform(0.01, 0.3))
        if clock() < STORM_SECONDS and self.dice.random() < self.chance * share:
            await anyio.sleep(self.dice.choice([0.0, 3.0]))
            raise Transient(reason, **more)


class StormyConnect(MemoryConnect):
    """Requests and answers are lost; who has ended is not found."""

    def __init__(self, weather: Weather) -> None:
        super().__init__(lapse_seconds=15.0)
        self.weather = weather
        self.over: dict[str, float] = {}
        self.asked: list[tuple[str, float]] = []

    async def attach(self, request: AttachRequest) -> Participant:
        self.asked.append((request.contact_id, clock()))
        await self.weather.strikes("throttled", 0.5)
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        if request.contact_id in self.over:
            raise Permanent(Outcome.REFUSED, "not_found")
        participant = await super().attach(request)
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        return participant

    def join(self, participant: Participant) -> None:
        if participant.id in self.dismissed:
            raise Permanent(Outcome.UNSERVED, "participant_gone")
        super().join(participant)

    async def connect(self, participant: Participant) -> Connection:
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        connection = await super().connect(participant)
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        return connection

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        await super().describe(instance_id, contact_id)
        return ContactState(connected=True, queued=False, agent=False, ended=contact_id in self.over)


class StormyRuntime(MemoryRuntime):
    """Fails, is full for a while, and accepts without being heard."""

    def __init__(self, weather: Weather, connect: StormyConnect) -> None:
        super().__init__(connect=connect)
        self.weather = weather

    async def offer(self, handoff: Handoff) -> int | None:
        await self.weather.strikes("runtime_500")
        await self.weather.strikes("runtime_busy", 0.3, after=self.weather.dice.uniform(0.0, 5.0))
        await super().offer(handoff)
        await self.weather.strikes("timeout", 0.5, ambiguous=True)
        return None


class StormyJournal(MemoryJournal):
    """Does not answer, before or after it has written."""

    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self.weather = weather

    async def get(self, contact_id: str) -> Entry | None:
        await self.weather.strikes("journal_failed", 0.05)
        return await super().get(contact_id)

    async def put(self, entry: Entry) -> Entry:
        await self.weather.strikes("journal_failed", 0.05)
        stored = await super().put(entry)
        await self.weather.strikes("journal_failed", 0.05)
        return stored


class Queue(MemorySource):
    """Remembers when the end of a chat was first acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.end_read: dict[str, float] = {}

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        await super().settle(delivery, disposition)
        event = json.loads(delivery.body)["detail"]
        if isinstance(disposition, Acknowledge) and event["eventType"] == "DISCONNECTED":
            self.end_read.setdefault(event["contactId"], clock())


class Wire:
    """A process's way to a port: once it is cut, as by SIGKILL, nothing goes out and nothing comes back."""

    def __init__(self, port: Any, cut: anyio.Event) -> None:
        self._port, self._cut = port, cut

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*given: Any, **named: Any) -> Any:
            if self._cut.is_set():
                await anyio.sleep_forever()
            answer = await method(*given, **named)
            if self._cut.is_set():
                await anyio.sleep_forever()
            return answer

        return call


class Town:
    """Twelve chats over a minute, of which some end, and one process after another to serve them."""

    def __init__(self, seed: int, event: Build) -> None:
        self.dice = random.Random(seed)
        self.event = event
        self.weather = Weather(self.dice, self.dice.choice([0.0, 0.2, 0.5]))
        self.connect = StormyConnect(self.weather)
        self.runtimes = {name: StormyRuntime(self.weather, self.connect) for name in ("ava", "sorry")}
        self.journal = StormyJournal(self.weather)
        self.queue = Queue()
        self.began = {f"c-{n}": self.dice.uniform(0.0, 60.0) for n in range(12)}
        self.mortal = [contact for contact in self.began if self.dice.random() < 0.3]
        self.left: Counter[str] = Counter()
        recipe = Recipe(connect=self.dice.random() < 0.4)
        names = self.dice.choice([("ava",), ("ava",), ("ava", "sorry")])
        bots = tuple(Bot(name, name, name, recipe=recipe) for name in names)
        fallback = "sorry" if len(bots) == 1 and self.dice.random() < 0.5 else None
        self.rules = Rules([Rule("chat", CHATS, bots, patience=600.0, fallback=fallback)])

    async def live(self) -> None:
        """Everything that happens, until long after the storm."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._processes)
            tasks.start_soon(self._outages)
            for contact, began in self.began.items():
                tasks.start_soon(self._customer, contact, began)
            await anyio.sleep(STORM_SECONDS + 400.0)
            tasks.cancel_scope.cancel()

    async def _customer(self, contact: str, began: float) -> None:
        async def happens(at: float, event_type: str, late: float) -> None:
            for wait in sorted([late, *([late + 3.0] if self.dice.random() < 0.3 else [])]):
                await anyio.sleep(max(0.0, at + wait - clock()))
                self.queue.add(self.event(contact, event_type, at=EPOCH + at))

        async def dies(at: float) -> None:
            await anyio.sleep_until(at)
            self.connect.over[contact] = clock()
            await happens(at, "DISCONNECTED", self.dice.uniform(0.0, 5.0))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(happens, began, "INITIATED", self.dice.uniform(0.0, 5.0))
            tasks.start_soon(happens, began + 0.5, "CONNECTED_TO_SYSTEM", self.dice.uniform(0.0, 5.0))
            if contact in self.mortal:
                tasks.start_soon(dies, began + self.dice.uniform(0.1, 60.0))

    async def _outages(self) -> None:
        while clock() < STORM_SECONDS:
            await anyio.sleep(self.dice.uniform(2.0, 20.0))
            runtime = self.dice.choice(list(self.runtimes.values()))
            runtime.down = Transient("unreachable")
            await anyio.sleep(self.dice.uniform(1.0, 20.0))
            runtime.down = None

    async def _processes(self) -> None:
        """One after the other; half of them die by SIGKILL, and what is left of them hangs on in vain."""
        number = 0
        async with anyio.create_task_group() as tasks:
            while True:
                number += 1
                seconds = self.dice.choice([3.0, 10.0, 30.0]) if clock() < STORM_SECONDS else inf
                await tasks.start(self._process, f"process-{number}", seconds)
                await anyio.sleep(self.dice.choice([0.1, 5.0, 20.0]))

    async def _process(self, owner: str, seconds: float, *, task_status: TaskStatus[None]) -> None:
        """Live for so long, then die; it has started once it is dead."""
        cut = anyio.Event()
        line = Line(
            lambda: EPOCH + clock(),
            attacher=Wire(self.connect, cut),
            runtimes={name: Wire(runtime, cut) for name, runtime in self.runtimes.items()},
            rules=self.rules,
            journal=Wire(self.journal, cut),
            owner=owner,
        )
        service = Service(
            sources=[Wire(self.queue, cut)],
            pipeline=line.pipeline,
            background=line.background,
            metrics=line.metrics,
            progress=Progress(clock),
            limits=Limits(drain_seconds=5.0),
            dice=self.dice,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            await anyio.sleep(seconds)
            killed = self.dice.random() < 0.5
            if killed:
                cut.set()
                task_status.started()
            service.stop()
        for gate in line.gates.runtimes.values():
            self.left["hand-offs"] += gate.places.taken
        self.left["waiting"] += len(line.room)
        if not killed:
            task_status.started()

    def taken(self, contact: str) -> list[tuple[str, str]]:
        """Every acceptance of a participant of this contact, with whose it was."""
        return [
            (key, name)
            for name, runtime in self.runtimes.items()
            for key in runtime.accepted
            if key.rpartition("_")[0] == contact
        ]


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_chat_that_lives_gets_one_bot_unless_its_generations_are_spent_and_none_gets_two(
    contact_event: Build, seed: int
) -> None:
    town = Town(seed, contact_event)
    await town.live()
    for contact in town.began:
        taken = town.taken(contact)
        assert len(taken) <= 1, f"two bots: {taken}"
        if taken or contact in town.connect.over:
            continue
        entry = await MemoryJournal.get(town.journal, contact)
        assert entry is not None
        assert entry.reason == "unserved", f"{contact} lives, and has none"
        assert entry.generation >= 3


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_left_over_when_a_process_ends_and_nobody_is_left_connected_in_silence(
    contact_event: Build, seed: int
) -> None:
    town = Town(seed, contact_event)
    await town.live()
    assert {what: count for what, count in town.left.items() if count} == {}
    assert len(town.queue) == 0
    for contact, participant in town.connect.made.items():
        speaks = town.taken(contact) or participant.id in town.connect.dismissed
        silent = participant.id in town.connect._connected and not speaks
        assert not silent or contact in town.connect.over


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_asked_of_connect_for_a_chat_whose_end_was_read(
    contact_event: Build, seed: int
) -> None:
    town = Town(seed, contact_event)
    await town.live()
    assert town.queue.end_read.keys() == town.connect.over.keys()
    for contact, asked_at in town.connect.asked:
        assert asked_at <= town.queue.end_read.get(contact, inf)
