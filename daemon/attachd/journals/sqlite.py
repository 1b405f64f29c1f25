"""The journal in one SQLite file: for one process, kept over restarts.

WAL with ``synchronous = FULL``: an entry is on disk when ``put`` returns, so that what was asked of Connect is
known after a power cut. One connection, in one worker thread at a time. Who serves from the file holds a lock on
``FILE.lock`` for as long as it is open, hence any other owner found in it is a process that has died; an operator's
command reads and writes beside it (``beside``).

What is written through an open file that has been removed or replaced goes nowhere, and a second process could start
on the new one: after each use it is looked whether the files are still those that were opened.
"""

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, fields
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from anyio.to_thread import run_sync

from attachd.errors import Misconfigured, Transient
from attachd.lifecycle import ALL, Entry, Stage, Wanted
from attachd.model import Beat

T = TypeVar("T")

_VERSION: Final = 3
_PAGE: Final = 500
_LOCK_SECONDS: Final = 2.0
_LOCK_AGAIN_SECONDS: Final = 0.1
#: SQLite's primary result codes, as reasons; any other is ``journal_failed``.
_REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: "journal_full",
    sqlite3.SQLITE_IOERR: "journal_io",
    sqlite3.SQLITE_CORRUPT: "journal_corrupt",
    sqlite3.SQLITE_NOTADB: "journal_corrupt",
    sqlite3.SQLITE_BUSY: "journal_locked",
    sqlite3.SQLITE_LOCKED: "journal_locked",
    sqlite3.SQLITE_READONLY: "journal_denied",
    sqlite3.SQLITE_CANTOPEN: "journal_denied",
    sqlite3.SQLITE_PERM: "journal_denied",
}
_REMEDIES: Final[Mapping[str, str]] = {
    "journal_full": "make room on that disk",
    "journal_io": "the disk fails: see the kernel's log",
    "journal_corrupt": "stop attachd, put the file aside, start it: it makes a new one",
    "journal_denied": "let attachd write the file and its folder",
}
_PASSING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PASSING_ERRNO: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_COLUMNS: Final = tuple(f.name for f in fields(Entry))
_SCHEMA: Final = """
CREATE TABLE contacts (
    contact_id     TEXT PRIMARY KEY,
    stage          TEXT NOT NULL,
    version        INTEGER NOT NULL,
    changed_at     REAL NOT NULL,
    owner          TEXT,
    generation     INTEGER NOT NULL,
    requested_at   REAL,
    participant_id TEXT,
    bot            TEXT,
    rule           TEXT,
    reason         TEXT,
    runtime        TEXT,
    instance_arn   TEXT,
    since          REAL,
    asked_at       REAL,
    display_name   TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX contacts_by_age ON contacts (changed_at);
CREATE TABLE recalled (contact_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
"""
#: What brings a file of that schema to the next one.
_MIGRATIONS: Final = {
    1: ("ALTER TABLE contacts ADD COLUMN runtime TEXT",),
    2: (
        "ALTER TABLE contacts ADD COLUMN instance_arn TEXT",
        "ALTER TABLE contacts ADD COLUMN since REAL",
        "ALTER TABLE contacts ADD COLUMN asked_at REAL",
        "ALTER TABLE contacts ADD COLUMN display_name TEXT",
        "CREATE TABLE recalled (contact_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    ),
}
_OTHERS: Final = "another attachd has it open: stop that one, or give this one a file of its own"
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM contacts WHERE contact_id = ?"  # noqa: S608 - constants
_UPSERT: Final = (
    f"INSERT INTO contacts ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 - constants
    f"ON CONFLICT (contact_id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS[1:])}"
)

_PAGE_OF: Final = (
    f"SELECT {', '.join(_COLUMNS)} FROM contacts WHERE (changed_at, contact_id) > (?, ?) AND changed_at >= ? "  # noqa: S608 - constants
    "AND changed_at < ? AND stage IN (SELECT value FROM json_each(?)) AND coalesce(?, bot, '') = coalesce(bot, '') "
    f"ORDER BY changed_at, contact_id LIMIT {_PAGE}"
)


class _GoneError(Exception):
    """The file that was opened is not the one that has its name."""


class SqliteJournal:
    """A file of contacts.

    Args:
        path: the file; made if missing, its folder not.
        beside: read and write beside the process that serves from it, if there is one; nothing is made.
    """

    def __init__(self, path: Path, *, beside: bool = False) -> None:
        self._path = path
        file = path.resolve()  # SQLite's own companions stand beside the file, not beside a link to it
        self._lock_path = file.with_name(f"{file.name}.lock")
        self._files = (file, file.with_name(f"{file.name}-wal"), self._lock_path)
        self._beside = beside
        self._one_at_a_time = anyio.Lock()
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._named: str | None = None
        self._opened: dict[Path, tuple[int, int]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file; to serve from it, lock it, too.

        Raises:
            Misconfigured: it cannot be opened, is no journal, or another process has it.
            Transient: the disk is full, or fails.
        """
        with self._refusals():
            self._lock = None if self._beside else os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if self._lock is not None:
                await self._take(self._lock)
            with self._refusals():
                self._db = await run_sync(self._connect)
            try:
                yield
            finally:
                db, self._db = self._db, None
                with anyio.CancelScope(shield=True):
                    await run_sync(db.close)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    async def _take(self, lock: int) -> None:
        """A predecessor that is about to end, or an operator's command that looks, is waited for a moment."""
        until = anyio.current_time() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if anyio.current_time() >= until:
                    raise Misconfigured([self._say(f"it is locked; {_OTHERS}")]) from None
                await anyio.sleep(_LOCK_AGAIN_SECONDS)
            else:
                return

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Why it cannot be opened."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            passing = (
                error.errno in _PASSING_ERRNO if isinstance(error, OSError) else _primary(error) in _PASSING
            )
            if passing:
                raise self._transient(error) from None
            hint = (
                _OTHERS
                if "locked" in str(error)
                else f"check that {self._path.absolute().parent} exists and may be written"
            )
            what = error.strerror if isinstance(error, OSError) else error
            raise Misconfigured([self._say(f"{what}; {hint}")]) from None

    def _connect(self) -> sqlite3.Connection:
        where = f"{self._path.absolute().as_uri()}?mode={'rw' if self._beside else 'rwc'}"
        db = sqlite3.connect(
            where, uri=True, isolation_level=None, check_same_thread=False, timeout=_LOCK_SECONDS
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            self._bring_up_to_date(db)
            db.execute("COMMIT")
            if not self._beside:
                self._opened = {path: _identity(path) for path in self._files}
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise Misconfigured(
                [self._say(f"written by a newer attachd (schema {version}); upgrade this one")]
            )
        if version < _VERSION and self._beside:
            raise Misconfigured([self._say("no journal of this attachd; start the service once")])
        while version in _MIGRATIONS:
            for statement in _MIGRATIONS[version]:
                db.execute(statement)
            version += 1
            db.execute(f"PRAGMA user_version = {version}")
        columns = tuple(row[1] for row in db.execute("PRAGMA table_info(contacts)"))
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (version == 0 and objects) or (version == _VERSION and columns != _COLUMNS):
            raise Misconfigured([self._say("another application's database; give attachd a file of its own")])
        if version == 0:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_VERSION}")

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        return await self._run(lambda db: _get(db, contact_id))

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""

        def write(db: sqlite3.Connection) -> Entry:
            with _transaction(db):
                stored = _get(db, entry.contact_id)
                if stored is not None and stored.version != entry.version - 1:
                    return stored
                db.execute(_UPSERT, tuple(asdict(entry).values()))
            return entry

        return await self._run(write)

    async def purge(self, before: float) -> int:
        """See ``ports.Journal``."""
        return await self._run(
            lambda db: db.execute("DELETE FROM contacts WHERE changed_at < ?", (before,)).rowcount
        )

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``. Those that changed longest ago come first."""
        place = (-inf, "")
        while True:
            page = await self._run(partial(_page, wanted, place))
            for entry in page:
                yield entry
            if len(page) < _PAGE:
                return
            place = page[-1].changed_at, page[-1].contact_id

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        statement = "DELETE FROM contacts WHERE contact_id = ? AND version = ?"
        return await self._run(
            lambda db: db.execute(statement, (entry.contact_id, entry.version)).rowcount == 1
        )

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        await self._run(lambda db: db.execute("INSERT OR IGNORE INTO recalled VALUES (?)", (contact_id,)))

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``. Costs nothing but a look where there are none."""

        def take(db: sqlite3.Connection) -> list[str]:
            if db.execute("SELECT 1 FROM recalled LIMIT 1").fetchone() is None:
                return []
            return [row[0] for row in db.execute("DELETE FROM recalled RETURNING contact_id").fetchall()]

        return await self._run(take)

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``. Who holds the lock has left its name there."""
        if not self._lock_path.exists():
            return frozenset()
        with self._lock_path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return frozenset(filter(None, [file.read()]))
            return frozenset()

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. The lock on the file is ours, so there is no other; our name stands in it."""
        if self._lock is not None and self._named != beat.owner:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, beat.owner.encode(), 0)
            self._named = beat.owner
        return [beat]

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        if self._lock is not None and self._named == beat.owner:
            os.ftruncate(self._lock, 0)
            self._named = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise RuntimeError("the journal is not open")
        async with self._one_at_a_time:
            try:
                # Not abandoned on cancellation: the connection is in use until the statement ends.
                return await run_sync(self._done, work, db)
            except (sqlite3.Error, _GoneError) as error:
                raise self._transient(error) from None

    def _done(self, work: Callable[[sqlite3.Connection], T], db: sqlite3.Connection) -> T:
        done = work(db)
        self._look()
        return done

    def _look(self) -> None:
        """See that what was read or written stands in the files that have these names."""
        for path, opened in self._opened.items():
            try:
                there = _identity(path)
            except OSError:
                there = None
            if there != opened:
                raise _GoneError(f"{path.name} was removed or replaced while it was open")

    def _transient(self, error: Exception) -> Transient:
        """The one place where a foreign error becomes ours."""
        if isinstance(error, _GoneError):
            return Transient(
                "journal_gone", self._say(f"{error}; restart attachd, which opens what is there")
            )
        code = sqlite3.SQLITE_FULL if isinstance(error, OSError) else _primary(error)
        reason = _REASONS.get(code, "journal_failed")
        remedy = _REMEDIES.get(reason)
        return Transient(reason, self._say(f"{error}; {remedy}" if remedy else str(error)))

    def _say(self, what: str) -> str:
        return f"[journal] path {self._path}: {what}"


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Nobody writes in between; what a command beside us does is short."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself when the disk is full
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _primary(error: Exception) -> int:
    """SQLite's primary result code: the extended one says more than a reason may."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _identity(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_dev, there.st_ino


def _get(db: sqlite3.Connection, contact_id: str) -> Entry | None:
    row = db.execute(_SELECT, (contact_id,)).fetchone()
    return None if row is None else _entry(row)


def _page(wanted: Wanted, place: tuple[float, str], db: sqlite3.Connection) -> list[Entry]:
    stages = json.dumps(sorted(wanted.stages))
    asked = (*place, wanted.since, wanted.before, stages, wanted.bot)
    return [_entry(row) for row in db.execute(_PAGE_OF, asked).fetchall()]


def _entry(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "stage": Stage(values["stage"])})
