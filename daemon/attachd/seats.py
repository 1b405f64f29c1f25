"""The order in which those who wait are served. Pure: who sits where, and who is first.

Seats that wait for the same gates make a row, kept in the order of their ranks: priority (higher first), then age, then the
order of coming. Rows are few (one a rule and instance); seats may be tens of thousands, and each knows its place.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

G = TypeVar("G")
S = TypeVar("S", bound="Seat")


@dataclass(slots=True, eq=False)
class Seat:
    """One who waits. ``rank`` is (minus the priority, since when, the number of coming), and nobody else's."""

    rank: tuple[float, float, int]


def _rank(seat: Seat) -> tuple[float, float, int]:
    return seat.rank


@dataclass(slots=True, eq=False)
class Row(Generic[S, G]):
    """Those who wait for the same gates."""

    gates: tuple[G, ...]
    seats: list[S] = field(default_factory=list)

    def first(self, *, newest: bool) -> S:
        """Of the highest priority the one who has waited longest, or who came last."""
        if not newest:
            return self.seats[0]
        priority = self.seats[0].rank[0]
        return self.seats[bisect_left(self.seats, (priority, inf, 0), key=_rank) - 1]


class Seats(Generic[S, G]):
    """All rows. Empty ones are forgotten."""

    def __init__(self) -> None:
        self._rows: dict[tuple[G, ...], Row[S, G]] = {}

    def __iter__(self) -> Iterator[Row[S, G]]:
        return iter(self._rows.values())

    def add(self, seat: S, gates: tuple[G, ...]) -> None:
        """Take a seat."""
        insort(self._rows.setdefault(gates, Row(gates)).seats, seat, key=_rank)

    def remove(self, seat: S, gates: tuple[G, ...]) -> None:
        """Leave it."""
        row = self._rows[gates]
        del row.seats[bisect_left(row.seats, seat.rank, key=_rank)]
        if not row.seats:
            del self._rows[gates]


def before(one: Seat, other: Seat, *, newest: bool) -> bool:
    """Whether one is served before the other."""
    if one.rank[0] != other.rank[0] or not newest:
        return one.rank < other.rank
    return one.rank > other.rank
