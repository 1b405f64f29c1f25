"""The journal in memory: for tests, demos, and whoever accepts to forget at a restart."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attachd.lifecycle import Entry
from attachd.model import Beat


class MemoryJournal:
    """A dictionary. ClientToken alone guards against a second bot after a restart."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

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

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``. No other process can see this memory."""
        return [beat]

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``. Nothing was kept."""
