"""The journal in memory: for tests, demos, and whoever accepts to forget at a restart."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attachd.lifecycle import ALL, Entry, Wanted
from attachd.model import Beat


class MemoryJournal:
    """A dictionary. ClientToken alone guards against a second bot after a restart."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._recalled: dict[str, None] = {}
        self._beating: str | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Nothing to open."""
        yield

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        return self._entries.get(contact_id)

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""
        stored = self._entries.get(entry.contact_id)
        if stored is None or stored.version == entry.version - 1:
            self._entries[entry.contact_id] = stored = entry
        return stored

    async def purge(self, before: float) -> int:
        """See ``ports.Journal``."""
        old = [e.contact_id for e in self._entries.values() if e.changed_at < before]
        for contact_id in old:
            del self._entries[contact_id]
        return len(old)

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``."""
        for entry in list(self._entries.values()):
            if wanted.takes(entry):
                yield entry

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        if self._entries.get(entry.contact_id) != entry:
            return False
        del self._entries[entry.contact_id]
        return True

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        self._recalled[contact_id] = None

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``."""
        told, self._recalled = list(self._recalled), {}
        return told

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``."""
        return frozenset() if self._beating is None else frozenset({self._beating})

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. No other process can see this memory."""
        self._beating = beat.owner
        return [beat]

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        if self._beating == beat.owner:
            self._beating = None
