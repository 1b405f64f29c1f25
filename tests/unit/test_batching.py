"""The batcher's laws, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.errors import Transient
from attachd.sources.batching import Batcher

CALL_SECONDS = 1.0


class Unreachable(Exception):
    """What a whole call fails with."""


@dataclass
class Peer:
    """Answers batches, a second each: refuses the items of ``refused``, breaks off the calls of ``broken``."""

    refused: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()
    batches: list[list[int]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def call(self, items: Sequence[int]) -> list[str | None]:
        number = len(self.batches)
        self.batches.append(list(items))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await anyio.sleep(CALL_SECONDS)
        self.under_way -= 1
        if number in self.broken:
            raise Unreachable(f"call {number}")
        return ["Refused" if item in self.refused else None for item in items]


@dataclass
class Callers:
    """Who asked for what, and every answer that came back."""

    batcher: Batcher[int]
    answers: dict[int, list[str]] = field(default_factory=dict)

    async def ask(self, item: int, at: float = 0.0) -> None:
        await anyio.sleep(at)
        try:
            await self.batcher.do(item)
        except (Transient, Unreachable) as error:
            self.answers.setdefault(item, []).append(
                error.reason if isinstance(error, Transient) else str(error)
            )
        else:
            self.answers.setdefault(item, []).append("done")


@asynccontextmanager
async def running(peer: Peer, limit: int = 10, senders: int = 1) -> AsyncIterator[Callers]:
    batcher = Batcher(peer.call, limit, senders=senders)
    with anyio.fail_after(24 * 3600):
        async with anyio.create_task_group() as background:
            background.start_soon(batcher.run)
            yield Callers(batcher)
            background.cancel_scope.cancel()


async def ask_all(callers: Callers, items: Sequence[int], at: Sequence[float] = ()) -> None:
    async with anyio.create_task_group() as tasks:
        for number, item in enumerate(items):
            tasks.start_soon(callers.ask, item, at[number] if at else 0.0)


@settings(max_examples=150, deadline=None)
@given(
    limit=st.integers(1, 10),
    gaps=st.lists(st.sampled_from([0.001, 0.1, 0.9, 1.5]), max_size=40),
    refused=st.frozensets(st.integers(0, 39)),
    broken=st.frozensets(st.integers(0, 10)),
)
async def test_whatever_comes_every_item_is_sent_once_in_order_within_the_limit_and_told_its_own_fate(
    limit: int, gaps: list[float], refused: frozenset[int], broken: frozenset[int]
) -> None:
    peer = Peer(refused, broken)
    items = list(range(len(gaps)))
    at = [sum(gaps[: i + 1]) for i in items]
    async with running(peer, limit) as callers:
        await ask_all(callers, items, at)
    assert [item for batch in peer.batches for item in batch] == items
    assert all(0 < len(batch) <= limit for batch in peer.batches)
    assert peer.most_under_way <= 1
    expected = {
        item: [f"call {number}" if number in broken else "Refused" if item in refused else "done"]
        for number, batch in enumerate(peer.batches)
        for item in batch
    }
    assert callers.answers == expected


async def test_a_lone_item_is_sent_at_once_and_answered_when_its_call_is() -> None:
    peer = Peer()
    async with running(peer) as callers:
        await callers.ask(1)
        assert anyio.current_time() == pytest.approx(CALL_SECONDS)
    assert peer.batches == [[1]]


async def test_while_one_call_is_under_way_the_next_batch_gathers() -> None:
    peer = Peer()
    async with running(peer, limit=10) as callers:
        await ask_all(callers, range(12), [0.0] + [0.5] * 11)
        assert anyio.current_time() == pytest.approx(3 * CALL_SECONDS)
    assert [len(batch) for batch in peer.batches] == [1, 10, 1]


async def test_an_item_that_arrives_just_as_a_call_ends_is_not_forgotten() -> None:
    peer = Peer()
    async with running(peer) as callers:
        with anyio.fail_after(10):
            await ask_all(callers, range(3), [0.0, CALL_SECONDS, 2 * CALL_SECONDS])
    assert callers.answers == {0: ["done"], 1: ["done"], 2: ["done"]}


async def test_nothing_is_called_while_nobody_asks() -> None:
    peer = Peer()
    async with running(peer):
        await anyio.sleep(3600)
    assert peer.batches == []


async def test_a_failed_entry_reaches_its_owner_and_nobody_else() -> None:
    peer = Peer(refused=frozenset({1}))
    async with running(peer) as callers:
        await ask_all(callers, [9, 0, 1, 2])
    assert callers.answers == {9: ["done"], 0: ["done"], 1: ["Refused"], 2: ["done"]}


async def test_a_call_that_raises_reaches_its_whole_batch_and_the_batcher_lives_on() -> None:
    peer = Peer(broken=frozenset({0}))
    async with running(peer) as callers:
        await ask_all(callers, [0, 1, 2])
        await ask_all(callers, [3])
    assert callers.answers == {0: ["call 0"], 1: ["call 0"], 2: ["call 0"], 3: ["done"]}


async def test_a_caller_that_gives_up_takes_nobodys_answer_along() -> None:
    peer = Peer()
    async with running(peer) as callers:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(callers.ask, 1)
            tasks.start_soon(callers.ask, 2)
            with anyio.move_on_after(0.5):
                await callers.ask(0)
        await callers.ask(3)
    assert callers.answers == {1: ["done"], 2: ["done"], 3: ["done"]}


async def test_the_same_item_from_two_callers_is_sent_for_each() -> None:
    peer = Peer()
    async with running(peer) as callers:
        await ask_all(callers, [7, 7])
    assert peer.batches == [[7, 7]]
    assert callers.answers == {7: ["done", "done"]}


async def test_several_senders_have_several_calls_under_way_and_no_item_travels_twice() -> None:
    peer = Peer()
    async with running(peer, limit=10, senders=4) as callers:
        await ask_all(callers, range(100))
    assert peer.most_under_way == 4
    assert sorted(item for batch in peer.batches for item in batch) == list(range(100))
    assert asyncio.get_running_loop().time() == 3 * CALL_SECONDS
