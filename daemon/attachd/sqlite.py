"""One SQLite file: ours for as long as it is open, on disk at every commit, its errors told as ours.

WAL with ``synchronous = FULL``: what was committed is known after a power cut. One connection, in one worker thread at
a time; what is asked for while it is busy is done together next, and committed at once: what takes time is the disk.
Who serves from the file holds a lock on ``FILE.lock`` for as long as it is open; an operator's command reads and writes
beside it (``beside``).

What is written through an open file that has been removed or replaced goes nowhere, and a second process could start
on the new one: after each use it is looked whether the files are still those that were opened.

Source: sqlite.org, "Write-Ahead Logging", "Result and Error Codes".
"""

import errno
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

import anyio
from anyio.to_thread import run_sync

from attachd.errors import Misconfigured, Transient

T = TypeVar("T")

_TOGETHER: Final = 200
_LOCK_SECONDS: Final = 2.0
_LOCK_AGAIN_SECONDS: Final = 0.1
#: SQLite's primary result codes, as ends of reasons; any other is ``failed``.
_REASONS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "denied",
    sqlite3.SQLITE_CANTOPEN: "denied",
    sqlite3.SQLITE_PERM: "denied",
}
_REMEDIES: Final[Mapping[str, str]] = {
    "full": "make room on that disk",
    "io": "the disk fails: see the kernel's log",
    "corrupt": "stop attachd, put the file aside, start it: it makes a new one",
    "denied": "let attachd write the file and its folder",
}
_PASSING: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PASSING_ERRNO: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class _GoneError(Exception):
    """The file that was opened is not the one that has its name."""


@dataclass(slots=True, eq=False)
class _Asked(Generic[T]):
    """Something to do, and what came of it."""

    work: Callable[[sqlite3.Connection], T]
    done: T | None = None
    error: Exception | None = None
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """What stands in a file.

    Attributes:
        version: of the schema, as ``user_version`` tells it; from 1.
        create: the statements that make it.
        table: the one that tells the file from another application's,
        columns: by these.
        migrations: what brings a file of that version to the next one.
    """

    version: int
    create: str
    table: str
    columns: tuple[str, ...]
    migrations: Mapping[int, Sequence[str]] = field(default_factory=dict)


class SqliteFile:
    """A file.

    Args:
        path: the file; made if missing, its folder not.
        schema: what stands in it.
        kind: what it holds, a word: reasons begin with it.
        said: how an operator finds it in the configuration; errors begin with it.
        several: what to do if another process has it.
        beside: read and write beside the process that serves from it, if there is one; nothing is made.

    Attributes:
        signed: the name that we have left with our lock; empty if none.
    """

    def __init__(
        self, path: Path, schema: Schema, *, kind: str, said: str, several: str, beside: bool = False
    ) -> None:
        self._path = path
        self._schema = schema
        self._kind = kind
        self._said = said
        self._others = f"another attachd has it open: {several}"
        file = path.resolve()  # SQLite's own companions stand beside the file, not beside a link to it
        self._lock_path = file.with_name(f"{file.name}.lock")
        self._files = (file, file.with_name(f"{file.name}-wal"), self._lock_path)
        self._beside = beside
        self._one_at_a_time = anyio.Lock()
        self._asked: list[_Asked[Any]] = []
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        self.signed = ""
        self._opened: dict[Path, tuple[int, int]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file; to serve from it, lock it, too.

        Raises:
            Misconfigured: it cannot be opened, is another application's, or another process has it.
            Transient: the disk is full, or fails.
        """
        with self._refusals():
            if self._beside and not self._path.exists():
                hint = "it is not there yet: the service makes it when it first starts"
                raise Misconfigured([self._say(hint)])
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
                self._lock, self.signed = None, ""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work in a thread, nobody else's beside it.

        Raises:
            Transient: it was not done, or nobody can know: the disk is full, the file is gone.
        """
        db = self._db
        if db is None:
            raise RuntimeError(f"the {self._kind} is not open")
        asked = _Asked(work)
        self._asked.append(asked)
        try:
            async with self._one_at_a_time:
                if not asked.answered:  # by whoever had the connection last, along with its own
                    together, self._asked = self._asked[:_TOGETHER], self._asked[_TOGETHER:]
                    # Cancelled or not: the others wait for theirs, and the connection is in use until it is done.
                    with anyio.CancelScope(shield=True):
                        await run_sync(self._do, together, db)
        finally:
            if asked in self._asked:  # cancelled before its turn
                self._asked.remove(asked)
        if isinstance(asked.error, sqlite3.Error | _GoneError):
            raise self._transient(asked.error) from None
        if asked.error is not None:
            raise asked.error
        return cast("T", asked.done)

    def sign(self, name: str) -> None:
        """Leave a name for others to read while we hold the lock; an empty one takes it away."""
        if self._lock is not None and self.signed != name:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, name.encode(), 0)
            self.signed = name

    def holder(self) -> str:
        """The name that whoever holds the lock has left there; empty if nobody does."""
        if not self._lock_path.exists():
            return ""
        with self._lock_path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read()
            return ""

    async def _take(self, lock: int) -> None:
        """A predecessor that is about to end, or an operator's command that looks, is waited for a moment."""
        until = anyio.current_time() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if anyio.current_time() >= until:
                    raise Misconfigured([self._say(f"it is locked; {self._others}")]) from None
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
                self._others
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
            with transaction(db):
                self._bring_up_to_date(db)
            if not self._beside:
                self._opened = {path: _identity(path) for path in self._files}
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        schema = self._schema
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (objects,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        foreign = Misconfigured([self._say("another application's database; give attachd a file of its own")])
        if objects and not (version and self._columns(db)):
            raise foreign
        if version > schema.version:
            raise Misconfigured(
                [self._say(f"written by a newer attachd (schema {version}); upgrade this one")]
            )
        if version < schema.version and self._beside:
            raise Misconfigured([self._say(f"no {self._kind} of this attachd's; start the service once")])
        if not objects:
            statements: Sequence[str] = schema.create.split(";")
        else:
            statements = [one for each in range(version, schema.version) for one in schema.migrations[each]]
        for statement in statements:
            db.execute(statement)
        if version < schema.version:
            db.execute(f"PRAGMA user_version = {schema.version}")
        if self._columns(db) != schema.columns:
            raise foreign

    def _columns(self, db: sqlite3.Connection) -> tuple[str, ...]:
        return tuple(row[1] for row in db.execute(f"PRAGMA table_info({self._schema.table})"))

    def _do(self, together: Sequence[_Asked[Any]], db: sqlite3.Connection) -> None:
        """Do all, in one transaction if they are several; one that fails by itself spoils none of the others."""
        try:
            with transaction(db) if len(together) > 1 else nullcontext():
                for asked in together:
                    _do_one(asked, db)
            self._look()
        except Exception as error:  # noqa: BLE001 - handed to each of those who asked
            for asked in together:
                asked.error = error
        for asked in together:
            asked.answered = True

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
            hint = "restart attachd, which opens what is there"
            return Transient(f"{self._kind}_gone", self._say(f"{error}; {hint}"))
        code = sqlite3.SQLITE_FULL if isinstance(error, OSError) else _primary(error)
        reason = _REASONS.get(code, "failed")
        remedy = _REMEDIES.get(reason)
        return Transient(f"{self._kind}_{reason}", self._say(f"{error}; {remedy}" if remedy else str(error)))

    def _say(self, what: str) -> str:
        return f"{self._said} {self._path}: {what}"


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, and nobody writes in between; what a command beside us does is short."""
    nested = db.in_transaction
    db.execute("SAVEPOINT one" if nested else "BEGIN IMMEDIATE")
    try:
        yield
        db.execute("RELEASE one" if nested else "COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself when the disk is full
            db.execute("ROLLBACK TO one" if nested else "ROLLBACK")
        raise


def _do_one(asked: _Asked[Any], db: sqlite3.Connection) -> None:
    among_others = db.in_transaction
    try:
        asked.done = asked.work(db)
    except Exception as error:
        if among_others and not db.in_transaction:
            raise  # the others' are undone with it
        asked.error = error


def _primary(error: Exception) -> int:
    """SQLite's primary result code: the extended one says more than a reason may."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _identity(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_dev, there.st_ino
