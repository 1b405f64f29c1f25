"""What every journal keeps of its port's word, and what the SQLite file and the DynamoDB table keep besides."""

import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any
from uuid import uuid4

import anyio
import pytest
from aiobotocore.session import get_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedded
from attachd.demo import aws
from attachd.errors import Misconfigured, Transient
from attachd.journals.dynamodb.journal import DynamoJournal
from attachd.journals.memory import MemoryJournal
from attachd.journals.sqlite import SqliteJournal
from attachd.journals.watched import WatchedJournal
from attachd.lifecycle import UNFINISHED, Entry, Stage, Wanted
from attachd.metrics import Metrics
from attachd.model import Beat
from attachd.ports import Journal

NOW = 1_800_000_000.0
KEEP = 259_200.0
#: What the third schema brought.
OF_THE_THIRD = ("instance_arn", "since", "asked_at", "display_name")


SESSION = get_session()  # one, since it remembers the service models it has read
ONE_PROCESS = ["memory", pytest.param("sqlite", marks=pytest.mark.real_time)]
ALL = [
    *ONE_PROCESS,
    pytest.param("dynamodb", marks=pytest.mark.real_time),
    "watched",
    pytest.param("watched sqlite", marks=pytest.mark.real_time),
    "watched and silent",
]
Another = Callable[[], Awaitable[DynamoJournal]]


@pytest.fixture(params=ALL)
async def journal(request: pytest.FixtureRequest, tmp_path: Path, another: Another) -> AsyncIterator[Journal]:
    made: Journal
    match request.param:
        case "memory":
            made = MemoryJournal()
        case "sqlite":
            made = SqliteJournal(tmp_path / "journal.db")
        case "watched":
            made = watched(MemoryJournal(), attach=False)
        case "watched sqlite":
            made = watched(SqliteJournal(tmp_path / "journal.db"))
        case "watched and silent":
            made = watched(Silent())
        case _:
            made = await another()
    async with made.open():
        yield made


class Silent(MemoryJournal):
    """A journal that answers to nobody but the living."""

    async def get(self, contact_id: str) -> Entry | None:
        raise Transient("journal_unreachable", f"no answer about {contact_id}")

    async def put(self, entry: Entry) -> Entry:
        raise Transient("journal_unreachable", f"no answer about {entry.contact_id}")


def watched(journal: Journal, *, attach: bool = True) -> WatchedJournal:
    return WatchedJournal(journal, attach=attach, errors=Metrics().journal_errors)


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[str]:
    with embedded.dynamodb() as url:
        yield url


@pytest.fixture
def another(dynamodb: str, monkeypatch: pytest.MonkeyPatch) -> Another:
    """Makes journals on one table, which the first of them makes."""
    for name, value in (aws.credentials() | {"AWS_ENDPOINT_URL_DYNAMODB": dynamodb}).items():
        monkeypatch.setenv(name, value)
    table = f"attachd-{uuid4().hex}"

    async def make() -> DynamoJournal:
        made = DynamoJournal(lambda: SESSION, table, keep_seconds=KEEP, user_agent="attachd/test")
        await made.table.create()
        return made

    return make


def entry(version: int = 1, *, contact_id: str = "c-1", changed_at: float = NOW, owner: str = "us") -> Entry:
    return Entry(contact_id, Stage.CLAIMED, version, changed_at, owner)


# ── get and put ────────────────────────────────────────────────────────────────────────────────


async def test_a_contact_that_was_never_written_is_not_there(journal: Journal) -> None:
    await journal.put(entry())
    assert await journal.get("c-2") is None
    assert await journal.get("") is None


async def test_what_is_put_is_answered_and_read_back(journal: Journal) -> None:
    assert await journal.put(entry()) == entry()
    assert await journal.get("c-1") == entry()


async def test_the_next_version_replaces_the_one_before(journal: Journal) -> None:
    await journal.put(entry(1))
    second = replace(entry(2), stage=Stage.ATTACHING, requested_at=NOW)
    assert await journal.put(second) == second
    assert await journal.get("c-1") == second


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 99])
async def test_a_version_that_does_not_follow_the_stored_one_is_answered_with_it_and_changes_nothing(
    journal: Journal, version: int
) -> None:
    for number in (1, 2, 3):
        await journal.put(entry(number))
    assert await journal.put(entry(version, owner="them")) == entry(3)
    assert await journal.get("c-1") == entry(3)


async def test_where_nothing_is_stored_any_version_is_written(journal: Journal) -> None:
    assert await journal.put(entry(7)) == entry(7)
    assert await journal.put(entry(8)) == entry(8)


async def test_writing_the_same_entry_again_is_no_lost_race(journal: Journal) -> None:
    await journal.put(entry())
    assert await journal.put(entry()) == entry()


@pytest.mark.parametrize("stored", [0, 1, 5])
async def test_of_many_writers_at_once_exactly_one_wins_and_all_the_others_learn_who(
    journal: Journal, stored: int
) -> None:
    if stored:
        await journal.put(entry(stored))
    answers: dict[str, Entry] = {}

    async def race(owner: str) -> None:
        answers[owner] = await journal.put(entry(stored + 1, owner=owner))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(race, f"owner-{number}")
    winners = [owner for owner, answer in answers.items() if answer.owner == owner]
    assert len(winners) == 1
    assert set(answers.values()) == {entry(stored + 1, owner=winners[0])}
    assert await journal.get("c-1") == entry(stored + 1, owner=winners[0])


async def test_writers_that_read_and_try_again_count_without_losing_one(journal: Journal) -> None:
    async def count(owner: str) -> None:
        for _ in range(5):
            while True:
                stored = await journal.get("c-1")
                wanted = entry(1 if stored is None else stored.version + 1, owner=owner)
                if await journal.put(wanted) == wanted:
                    break

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(count, f"owner-{number}")
    last = await journal.get("c-1")
    assert last is not None
    assert last.version == 20


async def test_contacts_do_not_touch_each_other(journal: Journal) -> None:
    await journal.put(entry(4, contact_id="a"))
    assert await journal.put(entry(1, contact_id="A")) == entry(1, contact_id="A")
    assert await journal.put(entry(1, contact_id="a ")) == entry(1, contact_id="a ")
    assert await journal.get("a") == entry(4, contact_id="a")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
times = st.floats(min_value=1, max_value=1e12)
numbers = count()
fields_of = {
    "contact_id": texts,
    "stage": st.sampled_from(Stage),
    "version": st.integers(1, 2**63 - 1),
    "changed_at": times,
    "owner": st.none() | texts,
    "generation": st.integers(1, 2**63 - 1),
    "requested_at": st.none() | times,
    "participant_id": st.none() | texts,
    "bot": st.none() | texts,
    "rule": st.none() | texts,
    "reason": st.none() | texts,
    "runtime": st.none() | texts,
    "instance_arn": st.none() | texts,
    "since": st.none() | times,
    "asked_at": st.none() | times,
    "display_name": st.none() | texts,
}
entries = st.builds(Entry, **fields_of)


def test_every_field_of_an_entry_is_tried() -> None:
    assert set(fields_of) == {field.name for field in fields(Entry)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=entries)
async def test_every_field_comes_back_as_it_was_written(journal: Journal, written: Entry) -> None:
    written = replace(written, contact_id=f"{written.contact_id}{next(numbers)}")
    assert await journal.put(written) == written
    read = await journal.get(written.contact_id)
    assert read == written
    assert read is not None
    assert [type(getattr(read, f.name)) for f in fields(Entry)] == [
        type(getattr(written, f.name)) for f in fields(Entry)
    ]


# ── purge ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("journal", ONE_PROCESS, indirect=True)
async def test_purging_forgets_what_changed_before_the_time_and_says_how_many(journal: Journal) -> None:
    for contact_id, changed_at in (("old", NOW - 9), ("older", NOW - 99), ("at", NOW), ("young", NOW + 9)):
        await journal.put(entry(contact_id=contact_id, changed_at=changed_at))
    assert await journal.purge(NOW) == 2
    left = [c for c in ("old", "older", "at", "young") if await journal.get(c) is not None]
    assert left == ["at", "young"]
    assert await journal.purge(NOW) == 0


@pytest.mark.parametrize("journal", ONE_PROCESS, indirect=True)
async def test_an_entry_counts_as_old_by_its_last_change_not_its_first(journal: Journal) -> None:
    await journal.put(entry(1, changed_at=NOW - 99))
    await journal.put(entry(2, changed_at=NOW))
    assert await journal.purge(NOW - 1) == 0


@pytest.mark.parametrize("journal", ONE_PROCESS, indirect=True)
async def test_a_forgotten_contact_may_be_written_anew(journal: Journal) -> None:
    await journal.put(entry(5))
    await journal.purge(NOW + 1)
    assert await journal.put(entry(1)) == entry(1)


async def test_purging_never_forgets_what_is_young(journal: Journal) -> None:
    await journal.put(entry())
    await journal.purge(NOW)
    assert await journal.get("c-1") == entry()


# ── what an operator asks for ──────────────────────────────────────────────────────────────────

SERVED = [entry for entry in ALL if entry != "watched and silent"]


async def listed(journal: Journal, **wanted: Any) -> list[str]:
    return sorted([found.contact_id async for found in journal.entries(Wanted(**wanted))])


@pytest.mark.parametrize("journal", SERVED, indirect=True)
async def test_entries_are_listed_by_stage_bot_and_age_each_once_and_whole(journal: Journal) -> None:
    written = [
        replace(entry(contact_id="a"), bot="ava", instance_arn="arn", since=NOW - 1),
        replace(entry(contact_id="b", changed_at=NOW - 50), stage=Stage.CLOSED, bot="ava", owner=None),
        replace(entry(contact_id="c", changed_at=NOW - 100), stage=Stage.ENDED, owner=None),
    ]
    for one in written:
        await journal.put(one)
    await journal.beat(Beat("us", 1, 0, 0.0))
    await journal.recall("a")
    found = [one async for one in journal.entries()]
    assert sorted(found, key=lambda one: one.contact_id) == written
    assert await listed(journal, stages=frozenset({Stage.CLOSED, Stage.ENDED})) == ["b", "c"]
    assert await listed(journal, bot="ava") == ["a", "b"]
    assert await listed(journal, bot="nobody") == []
    assert await listed(journal, since=NOW - 50) == ["a", "b"]
    assert await listed(journal, before=NOW - 50) == ["c"]
    assert await listed(journal, since=NOW - 50, before=NOW, bot="ava", stages=UNFINISHED) == []


@pytest.mark.parametrize("journal", [*ONE_PROCESS, "watched"], indirect=True)
async def test_many_entries_are_all_listed(journal: Journal) -> None:
    for number in range(1203):
        await journal.put(entry(contact_id=f"c-{number}", changed_at=NOW + number % 3))
    assert len(set(await listed(journal))) == 1203


@pytest.mark.parametrize("journal", SERVED, indirect=True)
async def test_a_contact_is_forgotten_only_as_it_was_seen(journal: Journal) -> None:
    await journal.put(entry(1))
    await journal.put(entry(2))
    assert not await journal.forget(entry(1))
    assert await journal.get("c-1") == entry(2)
    assert await journal.forget(entry(2))
    assert await journal.get("c-1") is None
    assert not await journal.forget(entry(2))
    assert await journal.put(entry(1)) == entry(1)


@pytest.mark.parametrize("journal", SERVED, indirect=True)
async def test_what_was_recalled_is_told_once(journal: Journal) -> None:
    assert await journal.recalled() == []
    for contact_id in ("a", "b", "a"):
        await journal.recall(contact_id)
    assert sorted(await journal.recalled()) == ["a", "b"]
    assert await journal.recalled() == []
    await journal.recall("a")
    assert await journal.recalled() == ["a"]


@pytest.mark.real_time
async def test_beside_a_table_one_sees_who_beats_and_who_has_stopped(another: Another) -> None:
    journal = await another()
    async with journal.open(), anyio.create_task_group() as tasks:

        async def beat() -> None:
            for number in range(2, 100):
                await journal.beat(Beat("us", number, 0, 0.0))
                await anyio.sleep(0.5)

        assert await journal.at_work() == frozenset()
        await journal.beat(Beat("dead", 7, 0, 0.0))
        tasks.start_soon(beat)
        await anyio.sleep(0.3)
        assert await journal.at_work() == {"us"}
        tasks.cancel_scope.cancel()


@pytest.mark.real_time
async def test_a_table_of_many_pages_is_listed_whole(
    another: Another, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await another()
    async with journal.open():
        for number in range(7):
            await journal.put(entry(contact_id=f"c-{number}"))
        scan = journal._entries.scan
        monkeypatch.setattr(journal._entries, "scan", partial(scan, Limit=2))
        assert await listed(journal) == [f"c-{number}" for number in range(7)]


# ── beats ──────────────────────────────────────────────────────────────────────────────────────


async def test_who_beats_reads_itself_and_who_has_retired_may_beat_again(journal: Journal) -> None:
    for number in (1, 2, 5):
        beat = Beat("us", number, waiting=3 * number, reserved=1 / 3)
        assert await journal.beat(beat) == [beat]
    await journal.retire(Beat("us", 5, 0, 0.0))
    await journal.retire(Beat("us", 5, 0, 0.0))
    assert await journal.beat(Beat("us", 6, 0, 1e-9)) == [Beat("us", 6, 0, 1e-9)]


@pytest.mark.parametrize("journal", ONE_PROCESS, indirect=True)
async def test_a_journal_for_one_process_knows_of_no_other(journal: Journal) -> None:
    await journal.beat(Beat("an earlier start", 7, 0, 0.0))
    assert await journal.beat(Beat("us", 1, 0, 0.0)) == [Beat("us", 1, 0, 0.0)]


# ── the DynamoDB table ─────────────────────────────────────────────────────────────────────────


@pytest.mark.real_time
async def test_two_processes_on_one_table_see_each_others_entries_and_beats(another: Another) -> None:
    ours, theirs = await another(), await another()
    async with ours.open(), theirs.open():
        await ours.put(entry(owner="us"))
        assert await theirs.put(entry(owner="them")) == entry(owner="us")
        assert await ours.beat(Beat("us", 1, 2, 0.5)) == [Beat("us", 1, 2, 0.5)]
        seen = await theirs.beat(Beat("them", 1, 0, 0.25))
        assert sorted(beat.owner for beat in seen) == ["them", "us"]
        await theirs.retire(Beat("us", 1, 2, 0.5))
        assert await theirs.beat(Beat("them", 2, 0, 0.25)) == [Beat("them", 2, 0, 0.25)]


@pytest.mark.real_time
async def test_of_any_two_that_beat_at_once_one_at_least_reads_the_other(another: Another) -> None:
    journal = await another()
    read: dict[str, set[str]] = {}

    async def beat(owner: str) -> None:
        read[owner] = {beat.owner for beat in await journal.beat(Beat(owner, 1, 0, 0.0))}

    async with journal.open(), anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(beat, f"owner-{number}")
    assert len(read) == 12
    assert all(one in read[other] or other in read[one] for one in read for other in read)


@pytest.mark.real_time
async def test_a_beat_that_comes_late_changes_nothing_and_a_retirement_that_does_neither(
    another: Another,
) -> None:
    journal = await another()
    async with journal.open():
        await journal.beat(Beat("us", 5, 0, 0.5))
        with pytest.raises(Transient, match="written meanwhile"):
            await journal.beat(Beat("us", 4, 0, 1.0))
        await journal.retire(Beat("us", 4, 0, 1.0))
        assert Beat("us", 5, 0, 0.5) in await journal.beat(Beat("them", 1, 0, 0.0))


@pytest.mark.real_time
async def test_an_item_holds_the_entry_when_it_may_be_forgotten_and_nothing_else(another: Another) -> None:
    journal = await another()
    async with journal.open():
        await journal.put(replace(entry(), rule="any chat"))
        answer = await journal._entries.get_item(
            TableName=journal.table.name, Key={"id": {"S": "contact#c-1"}}, ConsistentRead=True
        )
    assert answer["Item"] == {
        "id": {"S": "contact#c-1"},
        "contact_id": {"S": "c-1"},
        "stage": {"S": "claimed"},
        "version": {"N": "1"},
        "changed_at": {"N": "1800000000.0"},
        "owner": {"S": "us"},
        "generation": {"N": "1"},
        "rule": {"S": "any chat"},
        "expires_at": {"N": str(int(NOW + KEEP))},
    }


# ── the SQLite file ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def problem(path: Path) -> str:
    with pytest.raises(Misconfigured) as refused:
        async with SqliteJournal(path).open():
            pass
    (sentence,) = refused.value.problems
    assert str(path) in sentence
    return sentence


@pytest.mark.real_time
async def test_the_file_outlives_the_journal(path: Path) -> None:
    async with SqliteJournal(path).open():
        pass
    for version in (1, 2, 3):
        journal = SqliteJournal(path)
        async with journal.open():
            assert (await journal.get("c-1")) == (entry(version - 1) if version > 1 else None)
            await journal.put(entry(version))


@pytest.mark.real_time
async def test_an_entry_outlives_a_process_that_is_killed_right_after_the_put(path: Path) -> None:
    await anyio.run_process([sys.executable, "-c", _PUT_AND_DIE, str(path)], check=False, stderr=None)
    journal = SqliteJournal(path)
    async with journal.open():
        assert await journal.get("c-1") == entry()


_PUT_AND_DIE = f"""
import anyio, os, pathlib, signal, sys
from attachd.journals.sqlite import SqliteJournal
from attachd.lifecycle import Entry, Stage

async def main():
    journal = SqliteJournal(pathlib.Path(sys.argv[1]))
    async with journal.open():
        await journal.put(Entry("c-1", Stage.CLAIMED, 1, {NOW}, "us"))
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@pytest.mark.real_time
async def test_a_second_journal_on_the_same_file_is_refused_and_told_the_remedy(path: Path) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        said = await problem(path)
        assert "another attachd has it open" in said
        assert "a file of its own" in said
        await journal.put(entry())
    async with SqliteJournal(path).open():
        pass


@pytest.mark.real_time
async def test_beside_who_serves_a_command_reads_writes_and_sees_who_is_at_work(path: Path) -> None:
    serving, beside = SqliteJournal(path), SqliteJournal(path, beside=True)
    async with serving.open():
        await serving.beat(Beat("us", 1, 0, 0.0))
        await serving.put(entry())
        async with beside.open():
            assert await beside.at_work() == {"us"}
            assert await beside.get("c-1") == entry()
            assert await beside.put(entry(2)) == entry(2)
            assert await serving.put(entry(2, owner="late")) == entry(2)
            await beside.recall("c-1")
            assert await serving.recalled() == ["c-1"]
            assert await beside.forget(entry(2))
        assert await serving.get("c-1") is None
        assert await serving.put(entry()) == entry(), "the command's leaving took no file away"
    async with beside.open():
        assert await beside.at_work() == frozenset()
        assert await beside.get("c-1") == entry()


@pytest.mark.real_time
async def test_a_command_makes_no_file_and_brings_none_up_to_date(path: Path) -> None:
    with pytest.raises(Misconfigured, match="the service makes it when it first starts"):
        async with SqliteJournal(path, beside=True).open():
            pass
    assert [found.name async for found in anyio.Path(path.parent).iterdir()] == []


@pytest.mark.real_time
async def test_a_killed_process_leaves_a_file_that_nobody_has(path: Path) -> None:
    await anyio.run_process([sys.executable, "-c", _PUT_AND_DIE, str(path)], check=False, stderr=None)
    beside = SqliteJournal(path, beside=True)
    async with beside.open():
        assert await beside.at_work() == frozenset()
        assert await beside.get("c-1") == entry()


@pytest.mark.real_time
async def test_a_second_process_on_the_same_file_is_refused_and_told_the_remedy(path: Path) -> None:
    async with SqliteJournal(path).open():
        other = await anyio.run_process([sys.executable, "-c", _OPEN, str(path)], stdout=PIPE)
    (said,) = json.loads(other.stdout)
    assert "another attachd has it open" in said
    assert "a file of its own" in said


_OPEN = """
import anyio, json, pathlib, sys
from attachd.errors import Misconfigured
from attachd.journals.sqlite import SqliteJournal

async def main():
    try:
        async with SqliteJournal(pathlib.Path(sys.argv[1])).open():
            print("[]")
    except Misconfigured as error:
        print(json.dumps(error.problems))

anyio.run(main)
"""


@pytest.mark.real_time
async def test_a_journal_that_is_left_by_cancellation_lets_go_of_its_file(path: Path) -> None:
    journal = SqliteJournal(path)
    with anyio.CancelScope() as scope:
        async with journal.open():
            connection = await journal.file.run(lambda db: db)
            scope.cancel()
            await anyio.sleep(1)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    del connection
    async with SqliteJournal(path).open():
        pass


@pytest.mark.real_time
async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    notes = b"These are my notes, not yours.\n" * 200
    await anyio.Path(path).write_bytes(notes)
    assert "not a database" in await problem(path)
    assert await anyio.Path(path).read_bytes() == notes


@pytest.mark.real_time
@pytest.mark.parametrize("user_version", [0, 1])
async def test_another_applications_database_is_refused_and_left_alone(path: Path, user_version: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE invoices (id INTEGER PRIMARY KEY)")
        db.execute(f"PRAGMA user_version = {user_version}")
        db.commit()
    await problem(path)
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("invoices",)]


@pytest.mark.real_time
@pytest.mark.parametrize(("schema", "without"), [(1, ("runtime", *OF_THE_THIRD)), (2, OF_THE_THIRD)])
async def test_a_file_of_an_earlier_schema_is_brought_up_to_date_and_keeps_its_contacts(
    path: Path, schema: int, without: tuple[str, ...]
) -> None:
    async with SqliteJournal(path).open():
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE recalled")
        for column in without:
            db.execute(f"ALTER TABLE contacts DROP COLUMN {column}")
        db.execute(
            "INSERT INTO contacts (contact_id, stage, version, changed_at, generation) VALUES ('c-1', 'closed', 3, 1.0, 1)"
        )
        db.execute(f"PRAGMA user_version = {schema}")
        db.commit()
    with pytest.raises(Misconfigured, match="start the service once"):
        async with SqliteJournal(path, beside=True).open():
            pass
    journal = SqliteJournal(path)
    async with journal.open():
        assert await journal.get("c-1") == Entry("c-1", Stage.CLOSED, version=3, changed_at=1.0)
        written = Entry("c-2", Stage.HANDED_OFF, 1, 2.0, runtime="ava", instance_arn="arn", since=1.5)
        await journal.put(written)
        assert await journal.get("c-2") == written
        await journal.recall("c-1")
        assert await journal.recalled() == ["c-1"]


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    async with SqliteJournal(path).open():
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")
    said = await problem(path)
    assert "newer attachd (schema 1000)" in said
    assert "upgrade" in said
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1000,)


@pytest.mark.real_time
async def test_a_folder_that_is_missing_or_no_folder_or_not_writable_is_named(path: Path) -> None:
    await anyio.Path(path).touch()
    for folder in (path.parent / "missing", path, Path("/proc")):
        assert f"check that {folder} exists and may be written" in await problem(folder / "journal.db")


@pytest.mark.real_time
async def test_a_folder_in_the_files_place_is_refused(path: Path) -> None:
    await anyio.Path(path).mkdir()
    assert "unable to open" in await problem(path)


@pytest.mark.real_time
async def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    await anyio.Path(path).touch()
    journal = SqliteJournal(path)
    async with journal.open():
        assert await journal.put(entry()) == entry()


@pytest.mark.real_time
async def test_the_file_holds_the_documented_columns_and_nothing_else(path: Path) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        await journal.put(entry())
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type != 'index'").fetchall()
        columns = [row[1] for row in db.execute("PRAGMA table_info(contacts)")]
    assert tables == [("contacts",), ("recalled",)]
    assert columns == [f.name for f in fields(Entry)]


@pytest.mark.real_time
async def test_a_disk_that_is_full_is_a_transient_failure_and_what_is_stored_stays_readable(
    path: Path,
) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        await journal.put(entry())
        (pages,) = await pragma(journal, "page_count")
        await pragma(journal, f"max_page_count = {pages}")
        with pytest.raises(Transient) as failed:
            await put_many(journal)
        assert failed.value.reason == "journal_full"
        assert await journal.get("c-1") == entry()


@pytest.mark.real_time
@pytest.mark.parametrize("lost", ["journal.db", "journal.db-wal", "journal.db.lock"])
async def test_a_put_notices_that_a_file_was_removed_under_it_and_says_what_to_do(
    path: Path, lost: str
) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        await journal.put(entry())
        await anyio.Path(path.with_name(lost)).unlink()
        with pytest.raises(Transient, match=f"{lost} was removed or replaced.*restart attachd") as failed:
            await journal.put(entry(2))
        assert failed.value.reason == "journal_gone"


@pytest.mark.real_time
async def test_a_put_notices_that_another_file_stands_in_its_place_though_a_second_journal_opened_it(
    path: Path,
) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        await journal.put(entry())
        for file in [p async for p in anyio.Path(path.parent).glob("journal.db*")]:
            await file.rename(file.with_name(f"old-{file.name}"))
        async with SqliteJournal(path).open():
            with pytest.raises(Transient, match="was removed or replaced"):
                await journal.put(entry(2))
            with pytest.raises(Transient, match="was removed or replaced"):
                await journal.purge(NOW)


@pytest.mark.real_time
async def test_a_file_reached_over_two_names_is_one_file(path: Path) -> None:
    link = path.with_name("link.db")
    await anyio.Path(link).symlink_to(path)
    journal = SqliteJournal(link)
    async with journal.open():
        assert await journal.put(entry()) == entry()
        assert "another attachd has it open" in await problem(path)


@pytest.mark.real_time
async def test_a_file_that_is_spoilt_in_mid_run_is_told_with_the_remedy(path: Path) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        await put_many(journal)
        await pragma(journal, "wal_checkpoint(TRUNCATE)")
        await pragma(journal, "cache_size = 0")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))  # noqa: ASYNC240
        with pytest.raises(Transient, match="put the file aside") as failed:
            await journal.get("another-500")
        assert failed.value.reason == "journal_corrupt"


async def pragma(journal: SqliteJournal, what: str) -> tuple[int, ...]:
    return tuple(await journal.file.run(lambda db: db.execute(f"PRAGMA {what}").fetchone() or ()))


async def put_many(journal: Journal) -> None:
    for number in range(1000):
        await journal.put(entry(contact_id=f"another-{number}"))


@pytest.mark.real_time
async def test_a_put_whose_caller_is_cancelled_is_written_whole_or_not_at_all(path: Path) -> None:
    journal = SqliteJournal(path)
    async with journal.open():
        for number in range(20):
            contact_id = f"c-{number}"
            with anyio.move_on_after(0.0002 * number):
                await journal.put(entry(contact_id=contact_id))
            assert await journal.get(contact_id) in {None, entry(contact_id=contact_id)}
        assert await journal.put(entry(contact_id="after")) == entry(contact_id="after")
