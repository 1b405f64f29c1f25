"""A journal that does not answer: put off or served from memory, as is set; said, counted, and made good afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from attachd import lifecycle
from attachd.effects import Effect
from attachd.errors import Transient
from attachd.journals.memory import MemoryJournal
from attachd.journals.watched import WatchedJournal
from attachd.lifecycle import Entry, Stage
from attachd.metrics import Metrics

NOW = 1_800_000_000.0


class Store(MemoryJournal):
    """A journal that can fall silent, for some operations or for all."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.after_effect = False

    async def get(self, contact_id: str) -> Entry | None:
        self._ask("get")
        return await super().get(contact_id)

    async def put(self, entry: Entry) -> Entry:
        if self.after_effect:
            await super().put(entry)
        self._ask("put")
        return await super().put(entry)

    def _ask(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self.silent:
            raise Transient("journal_full", "no room")


@dataclass
class World:
    store: Store = field(default_factory=Store)
    metrics: Metrics = field(default_factory=Metrics)

    def journal(self, *, attach: bool = True, most: int = 100) -> WatchedJournal:
        return WatchedJournal(self.store, attach=attach, errors=self.metrics.journal_errors, most=most)

    @asynccontextmanager
    async def recovering(self, journal: WatchedJournal) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.run)
            yield
            tasks.cancel_scope.cancel()


def entry(version: int = 1, stage: Stage = Stage.CLAIMED, contact_id: str = "c-1", **more: Any) -> Entry:
    return Entry(contact_id, stage, version, NOW + version, "us", **more)


DOWN = {"get", "put"}


async def test_told_to_wait_its_failures_go_on_to_whoever_asked() -> None:
    world = World()
    journal = world.journal(attach=False)
    world.store.silent = DOWN
    for call in (journal.get("c-1"), journal.put(entry())):
        with pytest.raises(Transient, match="no room"):
            await call


async def test_it_is_said_once_when_it_begins_and_once_when_it_is_over_and_counted_each_time() -> None:
    world = World()
    journal = world.journal(attach=False)
    with structlog.testing.capture_logs() as logs:
        world.store.silent = DOWN
        for _ in range(3):
            with pytest.raises(Transient):
                await journal.put(entry())
        with pytest.raises(Transient):
            await journal.get("c-1")
        assert journal.trouble == [
            "journal: journal_full: no room; events are put off, and come again, until it answers"
        ]
        world.store.silent = {"put"}
        await journal.get("c-1")
        assert journal.trouble, "a full disk can be read"
        world.store.silent = set()
        await journal.put(entry())
        assert journal.trouble == []
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("journal.silent", "error"),
        ("journal.answers", "info"),
    ]
    counted = world.metrics.journal_errors.labels
    assert counted("put", "journal_full")._value.get() == 3
    assert counted("get", "journal_full")._value.get() == 1


async def test_told_to_attach_a_chat_goes_down_the_whole_line_from_memory_and_is_on_record_afterwards() -> (
    None
):
    world = World()
    journal = world.journal()
    world.store.silent = DOWN
    async with world.recovering(journal):
        stages = [Stage.CLAIMED, Stage.ATTACHING, Stage.ATTACHED, Stage.HANDED_OFF]
        for version, stage in enumerate(stages, 1):
            assert await journal.put(entry(version, stage)) == entry(version, stage)
            assert await journal.get("c-1") == entry(version, stage)
        assert journal.trouble == [
            "journal: journal_full: no room; chats are served from memory, with ClientToken as the guard, until it answers"
        ]
        await anyio.sleep(60)
        world.store.silent = set()
        await anyio.sleep(3)
        assert journal.trouble == []
        assert await world.store.get("c-1") == entry(4, Stage.HANDED_OFF)


async def test_a_chat_does_not_wait_for_an_answer_that_did_not_come_before() -> None:
    world = World()
    journal = world.journal()
    world.store.silent = DOWN
    await journal.get("c-1")
    await journal.put(entry())
    world.store.asked.clear()
    for number in range(50):
        await journal.get(f"c-{number}")
        await journal.put(entry(contact_id=f"a-{number}"))
    assert world.store.asked == []


async def test_who_has_a_contact_in_hand_over_an_outage_keeps_it() -> None:
    world = World()
    journal = world.journal()
    async with world.recovering(journal):
        await journal.put(entry(1))
        world.store.silent = DOWN
        await journal.put(entry(2, Stage.ATTACHING))
        world.store.silent = set()
        await anyio.sleep(3)
        third = entry(3, Stage.ATTACHED)
        assert await journal.put(third) == third
        assert await world.store.get("c-1") == third


async def test_a_contact_served_before_the_outage_is_remembered_as_served() -> None:
    world = World()
    journal = world.journal()
    await journal.put(entry(4, Stage.HANDED_OFF))
    world.store.silent = DOWN
    assert await journal.get("c-1") == entry(4, Stage.HANDED_OFF)


async def test_where_another_moved_the_contact_on_meanwhile_theirs_stands_and_our_next_move_is_lost() -> None:
    world = World()
    journal = world.journal()
    theirs = replace(entry(7, Stage.ATTACHING), owner="them")
    async with world.recovering(journal):
        world.store.silent = DOWN
        await journal.put(entry(1))
        world.store._entries["c-1"] = theirs
        world.store.silent = set()
        await anyio.sleep(3)
        assert await journal.put(entry(2, Stage.ATTACHING)) == theirs
        assert await world.store.get("c-1") == theirs


async def test_that_a_chat_was_finished_is_recorded_over_one_that_was_not() -> None:
    world = World()
    journal = world.journal()
    async with world.recovering(journal):
        world.store.silent = DOWN
        for version, stage in enumerate(
            [Stage.CLAIMED, Stage.ATTACHING, Stage.ATTACHED, Stage.HANDED_OFF], 1
        ):
            await journal.put(entry(version, stage))
        world.store._entries["c-1"] = replace(entry(9), owner="a dead process")
        world.store.silent = set()
        await anyio.sleep(3)
        assert await world.store.get("c-1") == replace(entry(4, Stage.HANDED_OFF), version=10)


async def test_an_answer_that_was_lost_is_no_lost_race() -> None:
    world = World()
    journal = world.journal()
    async with world.recovering(journal):
        world.store.silent, world.store.after_effect = DOWN, True
        assert await journal.put(entry()) == entry()
        assert await journal.put(entry(2, Stage.ATTACHING)) == entry(2, Stage.ATTACHING)
        world.store.silent, world.store.after_effect = set(), False
        await anyio.sleep(3)
        assert await world.store.get("c-1") == entry(2, Stage.ATTACHING)


async def test_only_so_many_contacts_are_kept_and_those_that_changed_longest_ago_are_forgotten() -> None:
    world = World()
    journal = world.journal(most=10)
    world.store.silent = DOWN
    for number in range(30):
        await journal.put(entry(contact_id=f"c-{number}"))
    kept = [number for number in range(30) if await journal.get(f"c-{number}") is not None]
    assert kept == list(range(20, 30))
    assert len(journal._untold) == 10


async def test_what_is_old_is_forgotten_in_memory_too() -> None:
    world = World()
    journal = world.journal()
    world.store.silent = DOWN
    await journal.put(entry())
    await journal.purge(NOW + 100)
    assert await journal.get("c-1") is None
    assert not journal._untold


steps = st.lists(
    st.sampled_from(["falls silent", "is full", "answers", "waits", "moves", "moves", "ends"]), max_size=25
)


@given(steps=steps)
async def test_whatever_comes_between_what_memory_says_last_is_what_the_journal_says_at_the_end(
    steps: list[str],
) -> None:
    world = World()
    journal = world.journal()
    following: dict[Stage, Stage] = dict(zip(Stage, list(Stage)[1:], strict=False))
    async with world.recovering(journal):
        for step in steps:
            stored = await journal.get("c-1")
            match step:
                case "falls silent":
                    world.store.silent = DOWN
                case "is full":
                    world.store.silent = {"put"}
                case "answers":
                    world.store.silent = set()
                case "waits":
                    await anyio.sleep(3)
                case "moves":
                    if stored is None:
                        wanted = entry()
                    elif stored.stage in lifecycle.FINAL:
                        continue
                    else:
                        wanted = replace(stored, stage=following[stored.stage], version=stored.version + 1)
                    assert await journal.put(wanted) == wanted
                case "ends":
                    ended = lifecycle.end(stored, "c-1", Effect.ENDS, NOW)
                    assert ended is None or await journal.put(ended) == ended
        last = await journal.get("c-1")
        world.store.silent = set()
        await anyio.sleep(5)
        assert await world.store.get("c-1") == last
        assert await journal.get("c-1") == last
