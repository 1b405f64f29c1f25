"""A journal, watched: whether it answers is known, said and counted; and what is done while it does not is settled here.

``wait``: its failures go on to the caller, who puts the delivery off. ``attach``: chats are served from what is in memory,
ClientToken being the guard against a second bot, and what the journal was not told it is told, in order, when it answers.

    asked, and silent ──► from memory, nothing asked in line ──► asked again every 2 s ──► told what it missed

An entry keeps its version on the way, so that who has the contact in hand never notices. Where meanwhile somebody else has
moved the contact on, theirs stands, and ours is ``claim_lost`` at its next move; unless ours is finished and theirs is not.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Final

import anyio
import structlog
from prometheus_client import Counter

from attachd.errors import Transient
from attachd.lifecycle import ALL, FINAL, Entry, Wanted
from attachd.model import Beat
from attachd.ports import Journal

_AGAIN_SECONDS: Final = 2.0
_REPORT_SECONDS: Final = 10.0
#: Contacts kept in memory, some 500 bytes each; of more, those that changed longest ago are forgotten.
MOST: Final = 20_000
_PROBE: Final = "attachd asks whether the journal answers"
_WAITING: Final = "events are put off, and come again, until it answers"
_ATTACHING: Final = "chats are served from memory, with ClientToken as the guard, until it answers"

log = structlog.get_logger(__name__)


class WatchedJournal:
    """Another journal, and what is known of how it does. See ``ports.Journal``.

    Args:
        journal: the one that is watched.
        attach: go on from memory while it does not answer.
        errors: counts by operation and reason.
        most: contacts kept in memory.
    """

    def __init__(self, journal: Journal, *, attach: bool, errors: Counter, most: int = MOST) -> None:
        self._journal = journal
        self._attach = attach
        self._errors = errors
        self._most = most
        self._failing: dict[str, str] = {}
        self._began = anyio.Event()
        self._seen: OrderedDict[str, Entry] = OrderedDict()
        self._untold: OrderedDict[str, list[Entry]] = OrderedDict()

    @property
    def trouble(self) -> list[str]:
        """Why the journal does not answer, in a sentence; none while it does."""
        why = list(dict.fromkeys(self._failing.values()))
        return [f"journal: {'; '.join(why)}; {self._next}"] if why else []

    @property
    def _next(self) -> str:
        return _ATTACHING if self._attach else _WAITING

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Journal``. At the start it must answer, whatever the setting."""
        async with self._journal.open():
            yield

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """While it does not answer, ask whether it does, for ever; then tell it what it missed."""
        while True:
            report()
            if self._failing or self._untold:
                await self._tell_all()
                await anyio.sleep(_AGAIN_SECONDS)
            else:
                with anyio.move_on_after(_REPORT_SECONDS):
                    await self._began.wait()

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        if contact_id in self._untold:
            return self._untold[contact_id][-1]
        if self._silent("get"):
            return self._seen.get(contact_id)
        try:
            with self._heard("get"):
                entry = await self._journal.get(contact_id)
        except Transient:
            if not self._attach:
                raise
            return self._seen.get(contact_id)
        if contact_id in self._untold:  # meanwhile
            return self._untold[contact_id][-1]
        if entry is not None:
            self._see(entry)
        return entry

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""
        if entry.contact_id in self._untold or self._silent("put"):
            return self._keep(entry)
        try:
            with self._heard("put"):
                stored = await self._journal.put(entry)
        except Transient:
            if not self._attach:
                raise
            return self._keep(entry)
        self._see(stored)
        return stored

    async def purge(self, before: float) -> int:
        """See ``ports.Journal``."""
        for contact_id in [c for c, entry in self._seen.items() if entry.changed_at < before]:
            self._seen.pop(contact_id)
            self._untold.pop(contact_id, None)
        with self._heard("purge"):
            return await self._journal.purge(before)

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``. As the journal has them."""
        try:
            async for entry in self._journal.entries(wanted):
                yield entry
        except Transient as error:
            self._failed("entries", error)
            raise
        self._succeeded("entries")

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        with self._heard("forget"):
            forgotten = await self._journal.forget(entry)
        if forgotten:
            self._seen.pop(entry.contact_id, None)
        return forgotten

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        with self._heard("recall"):
            await self._journal.recall(contact_id)

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``."""
        with self._heard("recalled"):
            return await self._journal.recalled()

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``."""
        with self._heard("at_work"):
            return await self._journal.at_work()

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. Nobody else can be heard in memory."""
        with self._heard("beat"):
            return await self._journal.beat(beat)

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        with self._heard("retire"):
            await self._journal.retire(beat)

    # ── whether it answers ─────────────────────────────────────────────────────────────────────

    def _silent(self, operation: str) -> bool:
        """Whether to spare a chat the wait for an answer that does not come."""
        return self._attach and operation in self._failing

    @contextmanager
    def _heard(self, operation: str) -> Iterator[None]:
        try:
            yield
        except Transient as error:
            self._failed(operation, error)
            raise
        self._succeeded(operation)

    def _failed(self, operation: str, error: Transient) -> None:
        self._errors.labels(operation, error.reason).inc()
        began = not self._failing
        self._failing[operation] = str(error)
        if began:
            log.error("journal.silent", operation=operation, reason=str(error), next=self._next)
            self._began.set()
            self._began = anyio.Event()

    def _succeeded(self, operation: str) -> None:
        if self._failing.pop(operation, None) is not None and not self._failing:
            log.info("journal.answers", untold=len(self._untold))

    # ── what is in memory ──────────────────────────────────────────────────────────────────────

    def _see(self, entry: Entry) -> None:
        if not self._attach:
            return
        self._seen[entry.contact_id] = entry
        self._seen.move_to_end(entry.contact_id)
        while len(self._seen) > self._most:
            forgotten, _ = self._seen.popitem(last=False)
            self._untold.pop(forgotten, None)

    def _keep(self, entry: Entry) -> Entry:
        """Write in memory, by the journal's own rule, and remember to tell it."""
        stored = self._seen.get(entry.contact_id)
        if stored is not None and stored.version != entry.version - 1:
            return stored
        self._untold.setdefault(entry.contact_id, []).append(entry)
        self._see(entry)
        return entry

    async def _tell_all(self) -> None:
        """Ask, and tell it what it missed; leave off where it does not answer."""
        try:
            with self._heard("get"):
                await self._journal.get(_PROBE)
            for contact_id in list(self._untold):
                await self._tell(contact_id)
        except Transient:
            return

    async def _tell(self, contact_id: str) -> None:
        while untold := self._untold.get(contact_id):
            ours = untold[0]
            with self._heard("put"):
                stored = await self._journal.put(ours)
            if stored == ours:
                untold.remove(ours)
                continue
            last = untold[-1]
            if last.stage in FINAL and stored.stage not in FINAL:
                untold[:] = [replace(last, version=stored.version + 1)]
            else:
                untold.clear()
            self._see(untold[0] if untold else stored)
        self._untold.pop(contact_id, None)
