"""Leases in memory: for tests, and for a rehearsal, which reads a stream beside whoever is in earnest and remembers nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from attachd.streams import Lease


@dataclass
class MemoryLeases:
    """A dictionary.

    Attributes:
        rows: the leases, by shard.
    """

    rows: dict[str, Lease] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Nothing to open."""
        yield

    async def all(self) -> Sequence[Lease]:
        """See ``ports.Leases``."""
        return list(self.rows.values())

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        """See ``ports.Leases``."""
        stored = _version(self.rows.get(lease.shard))
        if stored == _version(was):
            self.rows[lease.shard] = lease
            return True
        return stored == _version(lease)

    async def drop(self, lease: Lease) -> None:
        """See ``ports.Leases``."""
        if _version(self.rows.get(lease.shard)) == _version(lease):
            del self.rows[lease.shard]


def _version(lease: Lease | None) -> tuple[str | None, int] | None:
    return None if lease is None else (lease.owner, lease.counter)
