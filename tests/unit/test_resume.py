"""The resumption: what dead processes left is taken up, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import pytest
import structlog
from structlog.testing import capture_logs

from attachd.decode import decode
from attachd.errors import Permanent, Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Entry, Stage
from attachd.logs import Trail
from attachd.model import Acknowledge, Contact, ContactState, Delivery, Outcome, Release
from attachd.progress import Progress
from attachd.sources.resume import ResumeSource
from attachd.testing import Line, MemoryConnect
from simulated import EPOCH, now

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
OPEN = ContactState(connected=True, queued=False, agent=False, ended=False)


def clock() -> float:
    return asyncio.get_running_loop().time()


class Connect(MemoryConnect):
    """Knows every contact that it is asked for, unless it fails first."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Transient | Permanent] = []
        self.channel = "CHAT"

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:
        state = await super().describe(instance_id, contact_id)
        if self.failures:
            raise self.failures.pop(0)
        contact = Contact(contact_id, INSTANCE, self.channel, contact_id, tags={"language": "de"})
        return replace(self.states.get(contact_id, state), contact=contact)


@dataclass
class World:
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    connect: Connect = field(default_factory=Connect)
    at_work: set[str] = field(default_factory=set)
    queued_too: bool = False

    def __post_init__(self) -> None:
        self.line = Line(now, attacher=self.connect, journal=self.journal)

    async def left(self, contact_id: str = "c-1", stage: Stage = Stage.ATTACHING, **more: object) -> Entry:
        entry = Entry(contact_id, stage, 2, now() - 5, "gone", instance_arn=INSTANCE, since=now() - 7)
        return await self.journal.put(replace(entry, **more))  # type: ignore[arg-type]

    @asynccontextmanager
    async def resuming(self) -> AsyncIterator[ResumeSource]:
        async def alive(owner: str) -> bool:
            return owner in self.at_work

        source = ResumeSource(
            self.journal,
            self.line.instances,
            owner="us",
            alive=alive,
            queued_too=self.queued_too,
            progress=Progress(clock),
            now=now,
        )
        async with self.line.running(), source.open():
            yield source


async def received(source: ResumeSource, seconds: float) -> list[Delivery]:
    """All that comes within so many seconds; acknowledged."""
    until, found = clock() + seconds, []
    while clock() < until:
        for delivery in await source.receive(10):
            found.append(delivery)
            await source.settle(delivery, Acknowledge())
    return found


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


@pytest.mark.parametrize("stage", [Stage.CLAIMED, Stage.ATTACHING, Stage.ATTACHED])
async def test_what_a_dead_process_left_unfinished_is_found_once_at_the_start(stage: Stage) -> None:
    world = World()
    await world.left(stage=stage)
    with structlog.testing.capture_logs() as logs:
        async with world.resuming() as source:
            assert ids(await received(source, 60)) == ["c-1"]
    told = {line["event"]: line for line in logs}
    assert (told["resume.found"]["contact"], told["resume.found"]["stage"]) == ("c-1", stage)
    assert (told["resume.done"]["found"], told["resume.done"]["over"]) == (1, 0)


async def test_it_is_the_event_that_opened_the_chat_and_as_old_as_that() -> None:
    world = World()
    entry = await world.left()
    async with world.resuming() as source:
        (delivery,) = await received(source, 10)
    event = decode(delivery.body, received_at=now(), max_bytes=10_000)
    assert (event.type, event.contact.id, event.contact.instance_arn) == ("INITIATED", "c-1", INSTANCE)
    assert event.time == pytest.approx(entry.since, abs=0.001)
    assert event.contact.tags == {"language": "de"}


async def test_down_the_line_it_repeats_the_same_request_within_the_window() -> None:
    world = World()
    await world.left(requested_at=now() - 5, generation=2, bot="ava bot", rule="chat")
    async with world.resuming() as source:
        (delivery,) = await source.receive(10)
        result = await world.line.pipeline.carry(delivery, Trail())
        again = await world.line.pipeline.carry(delivery, Trail())
    assert (result.outcome, again.outcome) == (Outcome.ATTACHED, Outcome.DUPLICATE)
    entry = await world.journal.get("c-1")
    assert entry is not None
    assert (entry.stage, entry.generation) == (Stage.HANDED_OFF, 2)


@pytest.mark.parametrize(
    "left_alone",
    [
        {"owner": None},
        {"owner": "us"},
        {"stage": Stage.HANDED_OFF},
        {"stage": Stage.CLOSED},
        {"stage": Stage.ENDED},
        {"changed_at": EPOCH - 4000},
        {"instance_arn": None},
    ],
    ids=["let go in good order", "ours", "handed off", "closed", "ended", "long ago", "of an older attachd"],
)
async def test_nothing_else_is_looked_up(left_alone: dict[str, object]) -> None:
    world = World()
    await world.left(**left_alone)  # type: ignore[arg-type]
    async with world.resuming() as source:
        assert await received(source, 60) == []
    assert world.connect.described == []


async def test_what_a_process_at_work_has_in_hand_is_left_to_it_unless_it_turns_out_to_be_dead() -> None:
    world = World(at_work={"busy", "dying"})
    await world.left("theirs", owner="busy")
    await world.left("orphaned", owner="dying")
    async with world.resuming() as source:
        assert await received(source, 5) == []
        world.at_work.remove("dying")
        assert ids(await received(source, 60)) == ["orphaned"]
    assert world.connect.described == ["orphaned"]


@pytest.mark.parametrize(
    ("state", "queued_too", "found"),
    [
        (replace(OPEN, ended=True), False, False),
        (replace(OPEN, agent=True), False, False),
        (replace(OPEN, queued=True), False, False),
        (replace(OPEN, queued=True), True, True),
    ],
    ids=["over", "with an agent", "queued", "queued, which does not matter here"],
)
async def test_a_chat_that_wants_no_bot_any_more_is_left_alone(
    state: ContactState, *, queued_too: bool, found: bool
) -> None:
    world = World(queued_too=queued_too)
    world.connect.states["c-1"] = state
    await world.left()
    async with world.resuming() as source:
        assert bool(await received(source, 20)) is found


async def test_a_call_is_resumed_while_its_agent_is_there() -> None:
    world = World()
    world.connect.channel = "VOICE"
    world.connect.states["c-1"] = replace(OPEN, agent=True)
    await world.left("c-1")
    await world.left("c-2")
    async with world.resuming() as source:
        (delivery,) = await received(source, 20)
    event = decode(delivery.body, received_at=now(), max_bytes=10_000)
    assert (event.contact.id, event.type) == ("c-1", "CONNECTED_TO_AGENT")


async def test_a_look_up_that_fails_is_tried_again_and_one_that_connect_refuses_is_not() -> None:
    world = World()
    world.connect.failures = [Transient("timeout"), Transient("throttled")]
    await world.left()
    async with world.resuming() as source:
        assert ids(await received(source, 20)) == ["c-1"]
    world = World()
    world.connect.failures = [Permanent(Outcome.REFUSED, "not_found")]
    await world.left()
    async with world.resuming() as source:
        assert await received(source, 20) == []


async def test_what_is_released_comes_again_when_it_is_due() -> None:
    world = World()
    await world.left()
    async with world.resuming() as source:
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Release(12.0))
        released_at = clock()
        (again,) = await received(source, 14)
        assert again.attempt == 2
        assert clock() >= released_at + 12


async def test_what_is_recalled_is_taken_up_within_seconds_and_its_patience_begins_anew() -> None:
    world = World(at_work={"busy"})
    async with world.resuming() as source:
        assert await received(source, 40) == []
        await world.left("c-1", Stage.CLAIMED, owner=None, changed_at=now() - 9000, since=now() - 9000)
        await world.left("c-2", Stage.HANDED_OFF)
        for contact_id in ("c-1", "c-2", "c-3"):
            await world.journal.recall(contact_id)
        with anyio.fail_after(6):
            (delivery,) = await source.receive(10)
        event = decode(delivery.body, received_at=now(), max_bytes=10_000)
        assert (delivery.id, now() - event.time < 6) == ("c-1", True)


class SilentJournal(MemoryJournal):
    async def recalled(self) -> list[str]:
        raise Transient("journal_gone")


async def test_a_journal_that_is_silent_is_told_elsewhere_and_not_at_every_look_for_requests() -> None:
    with capture_logs() as said:
        async with World(journal=SilentJournal()).resuming() as source:
            assert await received(source, 60) == []
    assert [line["event"] for line in said if line["log_level"] != "debug"] == ["resume.done"]
