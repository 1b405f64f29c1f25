"""Leases in one SQLite file: for one process, kept over restarts.

The file is locked for as long as it is open, hence any owner found in it at the start has died: nobody waits for his
leases to lapse.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import msgspec
from anyio.to_thread import run_sync

from attachd.errors import Misconfigured, Transient
from attachd.streams import Lease

T = TypeVar("T")

_APPLICATION: Final = 0x61_6C_65_61  # says whose file it is: "alea", attachd's leases
_VERSION: Final = 1
_PASSING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_SCHEMA: Final = """
CREATE TABLE leases (
    shard   TEXT PRIMARY KEY,
    owner   TEXT,
    counter INTEGER NOT NULL,
    lease   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


class SqliteLeases:
    """A file of leases.

    Args:
        path: the file; made if missing, its folder not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_at_a_time = anyio.Lock()
        self._db: sqlite3.Connection | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Leases``."""
        try:
            self._db = await run_sync(self._connect)
        except sqlite3.Error as error:
            if error.sqlite_errorcode in _PASSING:
                raise Transient("leases", f"{self._path}: {error}") from None
            hint = (
                "another attachd has it open: for several, leases = 'dynamodb'"
                if "locked" in str(error)
                else f"check that {self._path.absolute().parent} exists and may be written"
            )
            raise Misconfigured([f"leases {self._path}: {error}; {hint}"]) from None
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
            for lease in _all(db):
                if lease.owner is not None:
                    _write(db, lease.released())
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if objects and application != _APPLICATION:
            raise Misconfigured([f"leases {self._path}: not a file of leases; give them a file of their own"])
        if version > _VERSION:
            raise Misconfigured([f"leases {self._path}: written by a newer attachd; upgrade this one"])
        if not objects:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_VERSION}")

    async def all(self) -> Sequence[Lease]:
        """See ``ports.Leases``."""
        return await self._run(_all)

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        """See ``ports.Leases``."""

        def write(db: sqlite3.Connection) -> bool:
            stored = db.execute(
                "SELECT owner, counter FROM leases WHERE shard = ?", (lease.shard,)
            ).fetchone()
            if stored != (None if was is None else (was.owner, was.counter)):
                return bool(stored == (lease.owner, lease.counter))
            _write(db, lease)
            return True

        return await self._run(write)

    async def drop(self, lease: Lease) -> None:
        """See ``ports.Leases``."""
        await self._run(
            lambda db: db.execute(
                "DELETE FROM leases WHERE shard = ? AND counter = ?", (lease.shard, lease.counter)
            )
        )

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise RuntimeError("the leases are not open")
        async with self._one_at_a_time:
            try:
                # Not abandoned on cancellation: the connection is in use until the statement ends.
                return await run_sync(work, db)
            except sqlite3.Error as error:
                raise Transient("leases", f"{self._path}: {error}") from None


def _all(db: sqlite3.Connection) -> list[Lease]:
    return [_read(text) for (text,) in db.execute("SELECT lease FROM leases")]


def _write(db: sqlite3.Connection, lease: Lease) -> None:
    text: Any = msgspec.json.encode(lease).decode()
    db.execute(
        "INSERT INTO leases (shard, owner, counter, lease) VALUES (?, ?, ?, ?) ON CONFLICT (shard) DO UPDATE SET "
        "owner = excluded.owner, counter = excluded.counter, lease = excluded.lease",
        (lease.shard, lease.owner, lease.counter, text),
    )


def _read(text: str) -> Lease:
    return msgspec.json.decode(text, type=Lease)
