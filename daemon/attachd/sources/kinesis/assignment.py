"""Which leases there should be, which of them are dead, and which of them to take. Pure: time is an argument.

The rules are KCL 2's: a worker takes what is nobody's or whose counter has stood still for a lease's length on the
worker's own monotonic clock (clocks of two machines are never compared); if nothing is free it steals from whoever
has most. Children come after all their parents.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from attachd.streams import Edge, Lease, Listing, Shard


class Watch:
    """When each lease's counter was last seen to move, on our own clock.

    Args:
        expiry_seconds: a counter that stands still for so long has a dead owner.
    """

    def __init__(self, expiry_seconds: float) -> None:
        self._expiry_seconds = expiry_seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def dead(self, leases: Iterable[Lease], now: float) -> set[str]:
        """Take note of the counters; returns the owned leases whose owner is gone. A first sight is a sign of life."""
        seen = {}
        for lease in leases:
            counter, moved_at = self._seen.get(lease.shard, (None, now))
            seen[lease.shard] = (lease.counter, moved_at if counter == lease.counter else now)
        self._seen = seen
        return {shard for shard, (_, moved_at) in seen.items() if now - moved_at >= self._expiry_seconds}


@dataclass(frozen=True, slots=True)
class Plan:
    """Leases to make, parents first; those that nobody will ever need again; the finished ones of shards that are open."""

    make: tuple[Lease, ...]
    drop: tuple[Lease, ...]
    reopened: tuple[Lease, ...]


def plan(listing: Listing, leases: Collection[Lease], start: Edge | float) -> Plan:
    """What the lease table lacks, given the shards there are.

    A shard gets its lease once all its parents' are finished. It begins at the configured start if nothing was ever
    read here, and at its own beginning if it follows what was. A parent whose child has a lease needs none any more:
    a finished one that was dropped is never read again.

    Args:
        listing: the stream's shards.
        leases: the lease table.
        start: the configured start: an edge, or a moment.
    """
    leased = {lease.shard: lease for lease in leases}
    listed = {shard.id: shard for shard in listing.shards}
    superseded = {old for shard in leased for old in _ancestors(shard, listed)}
    begun = any(lease.position is not None or lease.finished for lease in leases)

    def follows(shard: Shard) -> bool:
        return begun or any(old in leased for old in _ancestors(shard.id, listed))

    def done(parent: str) -> bool:
        if parent in leased:
            return leased[parent].finished
        if parent in superseded or parent not in listed:
            return True
        # With LATEST, what was closed before the first start is the past, and gets no lease.
        return start is Edge.LATEST and listed[parent].closed and not follows(listed[parent])

    make = tuple(
        _first(shard, start, leased, follows=follows(shard), at=listing.at)
        for shard in listing.shards
        if shard.id not in leased
        and shard.id not in superseded
        and all(done(parent) for parent in shard.parents)
        and not (start is Edge.LATEST and shard.closed and not follows(shard))
    )
    drop = tuple(lease for lease in leases if lease.finished and lease.shard not in listed) if listed else ()
    reopened = tuple(
        lease
        for lease in leases
        if lease.finished and lease.shard in listed and not listed[lease.shard].closed
    )
    return Plan(make, drop, reopened)


def _ancestors(shard_id: str, listed: Mapping[str, Shard]) -> Iterator[str]:
    """Its parents, theirs, and so on, for as far as the stream still lists them."""
    generation = {shard_id}
    while generation := {parent for old in generation & listed.keys() for parent in listed[old].parents}:
        yield from generation


def _first(
    shard: Shard, start: Edge | float, leased: Mapping[str, Lease], *, follows: bool, at: float
) -> Lease:
    """A shard's first lease."""
    checkpoint, since = Edge.TRIM_HORIZON, None
    parents = [leased[parent] for parent in shard.parents if parent in leased]
    if isinstance(start, float):
        # A child of what began at the moment may itself have begun before it.
        if not follows or (parents and all(parent.since == start for parent in parents)):
            checkpoint, since = Edge.AT_TIMESTAMP, start
    elif start is Edge.LATEST and not follows:
        checkpoint, since = Edge.LATEST, at
    return Lease(shard.id, checkpoint, parents=shard.parents, hash_range=shard.hash_range, since=since)


def choose(
    leases: Iterable[Lease], dead: Collection[str], held: Collection[str], owner: str, dice: random.Random
) -> list[Lease]:
    """The leases that a worker should take now, none if it has its share.

    Args:
        leases: the lease table.
        dead: the shards whose owner is gone (``Watch.dead``).
        held: the shards that the worker is at work on.
        owner: the worker.
        dice: so that workers do not all reach for the same.
    """
    table = {lease.shard: lease for lease in leases}
    wanted = [
        lease
        for lease in table.values()
        if not lease.finished and all(table[p].finished for p in lease.parents if p in table)
    ]
    # What is in our name and not in our hand is left from a write whose answer was lost.
    free = [
        lease
        for lease in wanted
        if lease.shard not in held and (lease.owner in {None, owner} or lease.shard in dead)
    ]
    free_ids = {lease.shard for lease in free}
    unfree = [lease for lease in wanted if lease.shard not in free_ids]
    counts = Counter(lease.owner for lease in unfree if lease.owner is not None)
    counts[owner] += 0
    share = -(-len(wanted) // len(counts))
    need = share - counts[owner]
    if need <= 0 or not wanted:
        return []
    if free:
        return dice.sample(free, min(need, len(free)))
    richest, most = max(counts.items(), key=lambda count: count[1])
    spare = most - share
    if spare <= 0:
        spare = 1 if spare == 0 and need > 1 else 0
    # Not what we still have in hand: it was taken from us, and until we have let go there would be two of us at it.
    theirs = [lease for lease in unfree if lease.owner == richest != owner and lease.shard not in held]
    return dice.sample(theirs, min(need, spare, len(theirs)))
