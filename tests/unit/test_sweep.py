"""The sweep: what was lost is found, once, slowly, and nothing else is touched."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
import structlog

from attachd.decode import decode
from attachd.errors import Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Entry, Stage
from attachd.model import Acknowledge, Contact, Delivery, Release
from attachd.progress import Progress
from attachd.service import Service
from attachd.sources.search import ConnectSearch
from attachd.sources.sweep import Pace, Page, SweepSource
from simulated import EPOCH, Town, now

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"


def clock() -> float:
    return asyncio.get_running_loop().time()


def chat(contact_id: str, age: float = 60.0) -> Contact:
    return Contact(
        id=contact_id,
        instance_arn=INSTANCE,
        channel="CHAT",
        initial_id=contact_id,
        initiation_method="API",
        initiated_at=now() - age,
        segment_attributes={"connect:Subtype": "connect:Chat"},
        tags={"language": "de"},
    )


@dataclass
class Listing:
    """An instance whose chats are listed, so many a page."""

    chats: list[Contact] = field(default_factory=list)
    size: int = 100
    faults: deque[Exception] = field(default_factory=deque)
    asked_at: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def page(self, since: float, until: float, token: str | None) -> Page:
        self.asked_at.append(clock())
        await anyio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.popleft()
        within = [c for c in self.chats if c.initiated_at and since <= c.initiated_at <= until]
        start = int(token or 0)
        page = within[start : start + self.size]
        following = start + self.size
        return Page(tuple(page), len(page), str(following) if following < len(within) else None)


@dataclass
class World:
    listing: Listing = field(default_factory=Listing)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    progress: Progress = field(default_factory=lambda: Progress(clock))
    pace: Pace = field(default_factory=Pace)

    def source(self) -> SweepSource:
        return SweepSource(
            "sweep",
            self.listing,
            self.journal,
            self.pace,
            progress=self.progress,
            now=now,
            dice=random.Random(1),
        )


async def received(source: SweepSource, seconds: float) -> list[Delivery]:
    """All that comes within so many seconds; acknowledged."""
    until, found = clock() + seconds, []
    while clock() < until:
        for delivery in await source.receive(10):
            found.append(delivery)
            await source.settle(delivery, Acknowledge())
    return found


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


async def test_an_open_chat_without_a_journal_entry_is_found_once_and_said_to_be() -> None:
    world = World()
    world.listing.chats = [chat("lost"), chat("known")]
    await world.journal.put(Entry("known", Stage.HANDED_OFF, 1, now()))
    with structlog.testing.capture_logs() as logs:
        async with (source := world.source()).open():
            assert ids(await received(source, 300)) == ["lost"]
    assert [(line["contact"], line["age_seconds"]) for line in logs if line["event"] == "sweep.found"] == [
        ("lost", 60.0)
    ]


async def test_what_is_found_is_the_event_that_should_have_come_as_of_now() -> None:
    world = World()
    found = replace(chat("lost", age=600), previous_id="before", initial_id="first")
    world.listing.chats = [found]
    async with (source := world.source()).open():
        (delivery,) = await received(source, 10)
    event = decode(delivery.body, received_at=now(), max_bytes=10_000)
    assert (event.contact, event.type) == (found, "INITIATED")
    assert event.time == pytest.approx(EPOCH, abs=5)
    assert event.document["region"] == "eu-central-1"


async def test_a_chat_too_young_to_be_lost_or_too_old_to_wait_is_left_alone() -> None:
    world = World(pace=Pace(min_age_seconds=30, max_age_seconds=900))
    world.listing.chats = [chat("young", 10), chat("old", 1000)]
    async with (source := world.source()).open():
        assert ids(await received(source, 15)) == []
        assert ids(await received(source, 60)) == ["young"]


async def test_searches_keep_to_their_own_rate_through_pages_throttles_and_sweeps() -> None:
    world = World(pace=Pace(rate=0.5, every_seconds=10))
    world.listing.chats = [chat(f"c-{n}") for n in range(10)]
    world.listing.size = 2
    world.listing.faults.extend(Transient("throttled", "no") for _ in range(2))
    async with (source := world.source()).open():
        assert len(await received(source, 120)) == 10
    gaps = [b - a for a, b in zip(world.listing.asked_at, world.listing.asked_at[1:], strict=False)]
    assert min(gaps) >= 2.0 - 1e-6


async def test_a_chat_that_is_released_comes_again_after_its_time() -> None:
    world = World()
    world.listing.chats = [chat("lost")]
    async with (source := world.source()).open():
        (first,) = await source.receive(10)
        await source.settle(first, Release(20.0))
        at = clock()
        while not (again := await source.receive(10)):
            pass
        assert (again[0].id, again[0].attempt, clock() - at) == ("lost", 2, 20.0)


async def test_what_was_in_hand_at_a_stop_is_found_again() -> None:
    world = World()
    world.listing.chats = [chat("lost")]
    source = world.source()
    for _ in range(2):
        async with source.open():
            assert ids(await source.receive(10)) == ["lost"]


async def test_a_search_that_is_denied_is_told_by_the_source_until_one_succeeds() -> None:
    world = World()
    world.listing.faults.extend(Transient("access_denied", "SearchContacts: no") for _ in range(50))
    async with (source := world.source()).open():
        with pytest.raises(Transient) as failed:
            await received(source, 100)
        assert failed.value.reason == "access_denied"
        world.listing.faults.clear()
        await anyio.sleep(120)
        assert list(await source.receive(10)) == []


async def test_a_journal_that_does_not_answer_breaks_the_sweep_off_and_loses_no_chat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.listing.chats = [chat("lost")]

    async def away(_contact_id: str) -> Any:
        await anyio.lowlevel.checkpoint()
        raise Transient("journal", "away")

    async with (source := world.source()).open():
        with monkeypatch.context() as patch:
            patch.setattr(world.journal, "get", away)
            with pytest.raises(Transient):
                await received(source, 30)
        await anyio.sleep(60)
        assert ids(await received(source, 10)) == ["lost"]


async def test_no_more_is_looked_for_before_the_line_has_taken_what_was_found_and_that_is_no_standing_still() -> (
    None
):
    world = World()
    world.listing.chats = [chat(f"c-{n}") for n in range(300)]
    async with (source := world.source()).open():
        await anyio.sleep(1000)
        assert len(world.listing.asked_at) == 1
        assert world.progress.stalled() == []
        world.listing.chats = [chat(f"d-{n}") for n in range(300)]
        assert len(await received(source, 300)) == 400  # the page that waited, and those that are there


async def test_a_sweep_that_is_stuck_is_named() -> None:
    world = World()

    async def hang(*_: object) -> Page:
        await anyio.sleep_forever()
        raise AssertionError

    world.listing.page = hang  # type: ignore[method-assign, assignment]
    async with world.source().open():
        await anyio.sleep(100)
        assert world.progress.stalled() == []
        await anyio.sleep(30)
        assert world.progress.stalled() == ["sweep sweep"]
    assert world.progress.stalled() == []


# ── with the simulated Connect ─────────────────────────────────────────────────────────────────


class _Wired(ConnectSearch):
    """The adapter, over the simulator's front door instead of a socket."""

    def __init__(self, town: Town) -> None:
        arn = town.world.dials.instance_arn
        super().__init__(lambda: None, arn, endpoint_url=None, user_agent="attachd/test")
        self._client = self
        self._town = town

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def search_contacts(self, **asked: Any) -> dict[str, Any]:
        when = asked["TimeRange"]
        asked["TimeRange"] = when | {key: when[key].timestamp() for key in ("StartTime", "EndTime")}
        answer = await self._town.wire.call("SearchContacts", "POST", "/search-contacts", asked)
        for summary in answer["Contacts"]:
            for key in ("InitiationTimestamp", "DisconnectTimestamp"):
                if key in summary:
                    summary[key] = _datetime(summary[key])
        return answer


def _datetime(value: float) -> Any:
    from datetime import UTC, datetime  # noqa: PLC0415 - here alone

    return datetime.fromtimestamp(value, UTC)


async def test_every_chat_whose_events_are_lost_has_its_bot_all_the_same() -> None:
    town = Town()
    lost: list[dict[str, Any]] = []
    town.api._announce = lost.append
    replica = town.replicas[0]
    sweep = SweepSource(
        "sweep",
        _Wired(town),
        town._journal,
        Pace(),
        progress=Progress(clock),
        now=now,
        dice=random.Random(1),
    )
    replica.service = Service(
        sources=[town.source, sweep],
        pipeline=replica.line.pipeline,
        background=replica.line.background | {"replicas": replica.replicas.run},
        metrics=replica.line.metrics,
        progress=Progress(clock),
        limits=replica.service._limits,
        dice=random.Random(1),
    )
    async with town.open():
        for _ in range(150):  # more than a page
            town.arrive(patience=200)
        await anyio.sleep(180)
    assert town.spoke() == [1] * 150
    assert json.dumps(lost).count("INITIATED") == 150
