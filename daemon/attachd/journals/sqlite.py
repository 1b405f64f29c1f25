"""The journal in one SQLite file: for one process, kept over restarts.

WAL with ``synchronous = FULL``: an entry is on disk when ``put`` returns, so that what was asked of Connect is
known after a power cut. One connection, in one worker thread at a time; the file is locked for as long as it
is open, hence any other owner found in it is a process that has died.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final, TypeVar

import anyio
from anyio.to_thread import run_sync

from attachd.errors import Misconfigured, Transient
from attachd.lifecycle import Entry, Stage
from attachd.model import Beat

T = TypeVar("T")

_VERSION: Final = 2
_PASSING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
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
    runtime        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX contacts_by_age ON contacts (changed_at);
"""
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM contacts WHERE contact_id = ?"  # noqa: S608 - constants
_UPSERT: Final = (
    f"INSERT INTO contacts ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 - constants
    f"ON CONFLICT (contact_id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _COLUMNS[1:])}"
)


class SqliteJournal:
    """A file of contacts.

    Args:
        path: the file; made if missing, its folder not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_at_a_time = anyio.Lock()
        self._db: sqlite3.Connection | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open and lock the file.

        Raises:
            Misconfigured: it cannot be opened, is no journal, or another process has it.
            Transient: the disk is full, or fails.
        """
        try:
            self._db = await run_sync(self._connect)
        except sqlite3.Error as error:
            if error.sqlite_errorcode in _PASSING:
                raise Transient("journal", f"{self._path}: {error}") from None
            hint = (
                "another attachd has it open: stop that one, or give this one a file of its own"
                if "locked" in str(error)
                else f"check that {self._path.absolute().parent} exists and may be written"
            )
            raise Misconfigured([f"[journal] path {self._path}: {error}; {hint}"]) from None
        try:
            yield
        finally:
            db, self._db = self._db, None
            with anyio.CancelScope(shield=True):
                await run_sync(db.close)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=2.0)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            self._bring_up_to_date(db)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise Misconfigured(
                [
                    f"[journal] path {self._path}: written by a newer attachd (schema {version}); upgrade this one"
                ]
            )
        if version == 1:
            db.execute("ALTER TABLE contacts ADD COLUMN runtime TEXT")
            db.execute(f"PRAGMA user_version = {_VERSION}")
            version = _VERSION
        columns = tuple(row[1] for row in db.execute("PRAGMA table_info(contacts)"))
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (version == 0 and objects) or (version == _VERSION and columns != _COLUMNS):
            raise Misconfigured(
                [
                    f"[journal] path {self._path}: another application's database; give attachd a file of its own"
                ]
            )
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

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. The lock on the file is ours, so there is no other."""
        return [beat]

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``. Nothing was kept."""

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise RuntimeError("the journal is not open")
        async with self._one_at_a_time:
            try:
                # Not abandoned on cancellation: the connection is in use until the statement ends.
                return await run_sync(work, db)
            except sqlite3.Error as error:
                raise Transient("journal", f"{self._path}: {error}") from None


def _get(db: sqlite3.Connection, contact_id: str) -> Entry | None:
    row = db.execute(_SELECT, (contact_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "stage": Stage(values["stage"])})
