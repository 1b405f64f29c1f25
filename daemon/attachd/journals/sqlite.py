"""The journal in one SQLite file: for one process, kept over restarts.

Who serves from the file has it locked, hence any other owner found in it is a process that has died; an operator's
command reads and writes beside it (``beside``).
"""

import json
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, fields
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

from attachd.lifecycle import ALL, Entry, Stage, Wanted
from attachd.model import Beat
from attachd.sqlite import Schema, SqliteFile, transaction

_PAGE: Final = 500
_COLUMNS: Final = tuple(f.name for f in fields(Entry))
_SCHEMA: Final = Schema(
    version=3,
    table="contacts",
    columns=_COLUMNS,
    create="""
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
""",
    migrations={
        1: ("ALTER TABLE contacts ADD COLUMN runtime TEXT",),
        2: (
            "ALTER TABLE contacts ADD COLUMN instance_arn TEXT",
            "ALTER TABLE contacts ADD COLUMN since REAL",
            "ALTER TABLE contacts ADD COLUMN asked_at REAL",
            "ALTER TABLE contacts ADD COLUMN display_name TEXT",
            "CREATE TABLE recalled (contact_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
        ),
    },
)
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


class SqliteJournal:
    """A file of contacts.

    Args:
        path: the file; made if missing, its folder not.
        beside: read and write beside the process that serves from it, if there is one; nothing is made.
    """

    def __init__(self, path: Path, *, beside: bool = False) -> None:
        self.file = SqliteFile(
            path,
            _SCHEMA,
            kind="journal",
            said="[journal] path",
            several="stop that one, or give this one a file of its own",
            beside=beside,
        )

    def open(self) -> AbstractAsyncContextManager[None]:
        """See ``SqliteFile.open``."""
        return self.file.open()

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        return await self.file.run(lambda db: _get(db, contact_id))

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""

        def write(db: sqlite3.Connection) -> Entry:
            with transaction(db):
                stored = _get(db, entry.contact_id)
                if stored is not None and stored.version != entry.version - 1:
                    return stored
                db.execute(_UPSERT, tuple(asdict(entry).values()))
            return entry

        return await self.file.run(write)

    async def purge(self, before: float) -> int:
        """See ``ports.Journal``."""
        return await self.file.run(
            lambda db: db.execute("DELETE FROM contacts WHERE changed_at < ?", (before,)).rowcount
        )

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``. Those that changed longest ago come first."""
        place = (-inf, "")
        while True:
            page = await self.file.run(partial(_page, wanted, place))
            for entry in page:
                yield entry
            if len(page) < _PAGE:
                return
            place = page[-1].changed_at, page[-1].contact_id

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        statement = "DELETE FROM contacts WHERE contact_id = ? AND version = ?"
        return await self.file.run(
            lambda db: db.execute(statement, (entry.contact_id, entry.version)).rowcount == 1
        )

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        await self.file.run(lambda db: db.execute("INSERT OR IGNORE INTO recalled VALUES (?)", (contact_id,)))

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``. Costs nothing but a look where there are none."""

        def take(db: sqlite3.Connection) -> list[str]:
            if db.execute("SELECT 1 FROM recalled LIMIT 1").fetchone() is None:
                return []
            return [row[0] for row in db.execute("DELETE FROM recalled RETURNING contact_id").fetchall()]

        return await self.file.run(take)

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``. Who holds the lock has left its name there."""
        return frozenset(filter(None, [self.file.holder()]))

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. The lock on the file is ours, so there is no other; our name stands in it."""
        self.file.sign(beat.owner)
        return [beat]

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        if beat.owner == self.file.signed:
            self.file.sign("")


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
