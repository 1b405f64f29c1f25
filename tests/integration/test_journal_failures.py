"""Journals that fail in mid-run, the real file and the real table, under both settings; and what an operator sees of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import anyio
import pytest
from aiobotocore.session import get_session

import embedded
from attachd.demo import aws
from attachd.errors import Misconfigured, Transient
from attachd.journals.dynamodb.journal import DynamoJournal
from attachd.journals.sqlite import SqliteJournal
from attachd.journals.watched import WatchedJournal
from attachd.lifecycle import Entry, Stage
from attachd.metrics import Metrics

NOW = 1_800_000_000.0


def entry(number: int = 1, version: int = 1) -> Entry:
    return Entry(f"c-{number}", Stage.CLAIMED, version, NOW, "us")


@asynccontextmanager
async def watched(journal: SqliteJournal | DynamoJournal, *, attach: bool) -> AsyncIterator[WatchedJournal]:
    made = WatchedJournal(journal, attach=attach, errors=Metrics().journal_errors)
    async with made.open(), anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        yield made
        tasks.cancel_scope.cancel()


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(15):
        while not true():
            await anyio.sleep(0.05)


async def fill(journal: SqliteJournal, *, full: bool) -> None:
    """As if the disk were full: the file may not grow."""
    (pages,) = await pragma(journal, "page_count")
    await pragma(journal, f"max_page_count = {pages if full else 1_000_000}")


async def pragma(journal: SqliteJournal, what: str) -> tuple[int, ...]:
    return tuple(await journal.file.run(lambda db: db.execute(f"PRAGMA {what}").fetchone() or ()))


def padded(number: int) -> Entry:
    return Entry(f"c-{number}", Stage.CLAIMED, 1, NOW, "us", rule="a long name " * 200)


async def put_padded(journal: WatchedJournal) -> None:
    for number in range(100):
        assert await journal.put(padded(number)) == padded(number)


async def test_what_is_asked_at_once_waits_for_the_disk_together(tmp_path: Path) -> None:
    journal, statements = SqliteJournal(tmp_path / "journal.sqlite"), list[str]()
    async with journal.open():
        await journal.file.run(lambda db: db.set_trace_callback(statements.append))
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(journal.put, entry(number))
        await journal.file.run(lambda db: db.set_trace_callback(None))
        assert statements.count("COMMIT") <= 3
    async with journal.open():
        assert len([one async for one in journal.entries()]) == 300


async def test_of_what_is_written_together_one_that_cannot_be_spoils_no_other(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    told: dict[str, str] = {}

    async def put(contact_id: str) -> None:
        try:
            stored = await journal.put(replace(entry(), contact_id=contact_id))
            told[contact_id] = stored.contact_id
        except UnicodeEncodeError:
            told[contact_id] = "never"

    async with journal.open():
        async with anyio.create_task_group() as tasks:
            for contact_id in ("c-1", "c-2", "\ud800", "c-3", "c-4"):
                tasks.start_soon(put, contact_id)
        assert {name for name, said in told.items() if said == name} == {"c-1", "c-2", "c-3", "c-4"}
        assert [await journal.get(name) is not None for name in ("c-2", "c-3", "c-4")] == [True] * 3


async def test_whoever_gives_up_before_its_turn_has_written_nothing_and_holds_up_nobody(
    tmp_path: Path,
) -> None:
    journal, busy, free = SqliteJournal(tmp_path / "journal.sqlite"), Event(), Event()

    def long(_db: object) -> bool:
        busy.set()
        return free.wait(10)

    async with journal.open():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.file.run, long)
            await anyio.to_thread.run_sync(busy.wait)
            with anyio.move_on_after(0) as waiting:
                await journal.put(entry(1))
            assert waiting.cancelled_caught
            free.set()
            await journal.put(entry(2))
        assert [await journal.get(f"c-{n}") is not None for n in (1, 2)] == [False, True]


@pytest.mark.parametrize("moments", range(4))
async def test_whoever_gives_up_when_its_turn_comes_takes_nobody_elses_work_along(
    tmp_path: Path, moments: int
) -> None:
    journal, busy, free, done = SqliteJournal(tmp_path / "journal.sqlite"), Event(), Event(), anyio.Event()
    answers: list[Entry] = []
    giving_up = anyio.CancelScope()

    def long(_db: object) -> bool:
        busy.set()
        return free.wait(10)

    async def before() -> None:
        await journal.file.run(long)
        done.set()

    async def put(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            answers.append(await journal.put(entry(number)))

    async with journal.open():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(before)
            await anyio.to_thread.run_sync(busy.wait)
            for number, scope in ((1, giving_up), (2, anyio.CancelScope())):
                tasks.start_soon(put, number, scope)
                await anyio.wait_all_tasks_blocked()
            free.set()
            await done.wait()
            for _ in range(moments):
                await anyio.lowlevel.checkpoint()
            giving_up.cancel()
        assert entry(2) in answers
        assert await journal.get("c-2") == entry(2)


async def test_with_a_full_disk_and_told_to_wait_events_are_put_off_until_there_is_room(
    tmp_path: Path,
) -> None:
    inner = SqliteJournal(tmp_path / "journal.sqlite")
    async with watched(inner, attach=False) as journal:
        await fill(inner, full=True)
        with pytest.raises(Transient, match="make room on that disk"):
            await put_padded(journal)
        assert "journal_full" in journal.trouble[0]
        await fill(inner, full=False)
        await journal.put(padded(100))
        assert journal.trouble == []


async def test_with_a_full_disk_and_told_to_attach_nobody_waits_and_nothing_is_lost_once_there_is_room(
    tmp_path: Path,
) -> None:
    inner = SqliteJournal(tmp_path / "journal.sqlite")
    async with watched(inner, attach=True) as journal:
        await fill(inner, full=True)
        await put_padded(journal)
        assert "journal_full" in journal.trouble[0]
        await fill(inner, full=False)
        await until(lambda: not journal.trouble and not journal._untold)
        assert [await inner.get(f"c-{number}") for number in range(100)] == [padded(n) for n in range(100)]


@pytest.mark.parametrize("attach", [True, False])
async def test_a_file_that_is_deleted_in_mid_run_is_named_until_attachd_is_restarted(
    tmp_path: Path, *, attach: bool
) -> None:
    path = tmp_path / "journal.sqlite"
    async with watched(SqliteJournal(path), attach=attach) as journal:
        await journal.put(entry())
        path.unlink()
        for version in (2, 3):
            if attach:
                assert await journal.put(entry(1, version)) == entry(1, version)
            else:
                with pytest.raises(Transient, match="restart attachd"):
                    await journal.put(entry(1, version))
        assert "journal.sqlite was removed or replaced" in journal.trouble[0]
        await anyio.sleep(2.5)
        assert journal.trouble, "that it can still be read is no comfort"


async def test_a_file_that_is_spoilt_in_mid_run_is_no_reason_to_stop_if_told_to_attach(
    tmp_path: Path,
) -> None:
    inner = SqliteJournal(path := tmp_path / "journal.sqlite")
    async with watched(inner, attach=True) as journal:
        for number in range(300):
            await journal.put(entry(number))
        await pragma(inner, "wal_checkpoint(TRUNCATE)")
        await pragma(inner, "cache_size = 0")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        assert await journal.get("c-7") == entry(7), "as last seen"
        assert await journal.put(entry(7, 2)) == entry(7, 2)
        assert "put the file aside" in journal.trouble[0]


@pytest.mark.parametrize("attach", [True, False])
async def test_a_file_that_another_process_serves_from_ends_the_start_whatever_the_setting(
    tmp_path: Path, *, attach: bool
) -> None:
    path = tmp_path / "journal.sqlite"
    async with SqliteJournal(path).open():
        with pytest.raises(Misconfigured, match="another attachd has it open"):
            async with WatchedJournal(
                SqliteJournal(path), attach=attach, errors=Metrics().journal_errors
            ).open():
                pass


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[embedded.Tables]:
    with embedded.tables() as made:
        for name, value in (aws.credentials() | {"AWS_ENDPOINT_URL_DYNAMODB": made.url}).items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.mark.parametrize("attach", [True, False])
async def test_a_throttled_table_is_waited_for_or_served_beside_as_is_set(
    tables: embedded.Tables, *, attach: bool
) -> None:
    inner = DynamoJournal(get_session, "attachd", keep_seconds=3600, user_agent="attachd/test")
    await inner.table.create()
    async with watched(inner, attach=attach) as journal:
        await journal.put(entry(1))
        tables.throttled = {"PutItem", "GetItem"}
        if attach:
            assert await journal.put(entry(1, 2)) == entry(1, 2)
            assert await journal.get("c-1") == entry(1, 2)
        else:
            with pytest.raises(Transient, match="throttled; make it on-demand") as failed:
                await journal.put(entry(1, 2))
            assert failed.value.reason == "journal_throttled"
        assert "throttled; make it on-demand" in journal.trouble[0]
        tables.throttled = set()
        if not attach:
            await journal.put(entry(1, 2))
        await until(lambda: not journal.trouble and not journal._untold)
        assert await inner.get("c-1") == entry(1, 2)
