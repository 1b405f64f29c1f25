"""Leases in one SQLite file: for one process, kept over restarts.

The file is locked for as long as it is open, hence any owner found in it at the start has died: nobody waits for his
leases to lapse.
"""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from attachd.sqlite import Schema, SqliteFile, transaction
from attachd.streams import Lease

_SCHEMA: Final = Schema(
    version=1,
    table="leases",
    columns=("shard", "owner", "counter", "lease"),
    create="""
CREATE TABLE leases (
    shard   TEXT PRIMARY KEY,
    owner   TEXT,
    counter INTEGER NOT NULL,
    lease   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
""",
)


class SqliteLeases:
    """A file of leases.

    Args:
        path: the file; made if missing, its folder not.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(
            path, _SCHEMA, kind="leases", said="leases", several="for several, leases = 'dynamodb'"
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Leases``."""
        async with self._file.open():
            await self._file.run(_release_all)
            yield

    async def all(self) -> Sequence[Lease]:
        """See ``ports.Leases``."""
        return await self._file.run(_all)

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

        return await self._file.run(write)

    async def drop(self, lease: Lease) -> None:
        """See ``ports.Leases``."""
        await self._file.run(
            lambda db: db.execute(
                "DELETE FROM leases WHERE shard = ? AND counter = ?", (lease.shard, lease.counter)
            )
        )


def _release_all(db: sqlite3.Connection) -> None:
    with transaction(db):
        for lease in _all(db):
            if lease.owner is not None:
                _write(db, lease.released())


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
