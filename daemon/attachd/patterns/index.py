"""Many patterns against one event.

Here: the choice of the one condition under which each branch of each pattern is filed, and what is left to ask of a
branch when that one may hold. Tables for values are ``lookups``'; what a condition asks, ``conditions``'.

A branch is filed under the condition that shares its keys with the fewest others: of a rule that names a channel, as
all rules do, and a tenant, the tenant. So an event meets few branches, however many there are; what those share beyond
is asked once an event.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attachd.patterns.conditions import Condition, Conditions, compiled
from attachd.patterns.document import PatternError
from attachd.patterns.event import FlatEvent, Wanted, flatten
from attachd.patterns.lookups import KINDS, Key, Lookup, key_of
from attachd.patterns.parse import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from attachd.patterns.operators import LeafTest


@dataclass(frozen=True, slots=True, eq=False)
class _Rest:
    """What is left to ask of a branch once the condition it is filed under holds; many branches share it."""

    conditions: tuple[Condition, ...]

    def holds(self, event: FlatEvent) -> bool:
        held = event.held.get(self)
        if held is None:
            held = event.held[self] = all(condition.holds(event) for condition in self.conditions)
        return held


@dataclass(slots=True, eq=False)
class _Home:
    """The branches filed under one condition, each with the number of its pattern, by what is left to ask."""

    condition: Condition
    branches: dict[_Rest, list[tuple[int, Conditions]]] = field(default_factory=dict)

    def matching(self, event: FlatEvent) -> Iterator[int]:
        if not self.condition.holds(event):
            return
        for rest, branches in self.branches.items():
            if rest.holds(event):
                for number, branch in branches:
                    if len(event.places) == 1 or branch.contradiction(event) is None:
                        yield number


class PatternSet:
    """Event patterns by name, compiled together.

    Raises:
        PatternError: one of them is not an event pattern; a note on it says which.
    """

    def __init__(self, patterns: Mapping[str, str | bytes]) -> None:
        self._names = tuple(patterns)
        branches = list(_branches(patterns))
        self._wanted = Wanted.of({condition.path for _, branch in branches for condition in branch.written})
        self._lookups: dict[str, Lookup] = {}
        self._always: dict[_Home, None] = {}
        self._file(branches)

    def __len__(self) -> int:
        """Count the patterns."""
        return len(self._names)

    def matching(self, event: str | bytes | Mapping[str, Any]) -> list[str]:
        """Name the patterns that match, in the order given: those whose ``Pattern.matches`` says so.

        Args:
            event: JSON text, or a mapping as JSON text parses to.

        Raises:
            EventError: the event is not a JSON object, or larger than the bounds for all patterns together.
        """
        flat = flatten(event, self._wanted)
        homes = self._always.copy()
        for path, values in flat.values.items():
            lookup = self._lookups.get(path)
            if lookup is not None:
                for value, _ in values:
                    lookup.find(value, homes)
        numbers = {number for home in homes for number in home.matching(flat)}
        return [self._names[number] for number in sorted(numbers)]

    def _file(self, branches: list[tuple[int, Conditions]]) -> None:
        keys = {condition: _keys(condition) for _, branch in branches for condition in branch.written}
        sharing = Counter(
            (condition.path, _crowd(key))
            for _, branch in branches
            for condition in branch.written
            for key in keys[condition]
        )

        def company(condition: Condition) -> tuple[int, int]:
            if condition.may_be_absent:
                return len(branches) + 1, 0
            return max(
                (sharing[condition.path, _crowd(key)], KINDS.index(key.kind)) for key in keys[condition]
            )

        rank = {condition: company(condition) for condition in keys}
        homes: dict[Condition, _Home] = {}
        rests: dict[frozenset[Condition], _Rest] = {}
        for number, branch in branches:
            first, *others = sorted(branch.written, key=rank.__getitem__)
            if first not in homes:
                homes[first] = self._home(first, keys[first])
            rest = rests.setdefault(frozenset(others), _Rest(tuple(others)))
            homes[first].branches.setdefault(rest, []).append((number, branch))

    def _home(self, condition: Condition, keys: Iterable[Key]) -> _Home:
        home = _Home(condition)
        if condition.may_be_absent:  # and so may all others of its branches
            self._always[home] = None
        else:
            lookup = self._lookups.setdefault(condition.path, Lookup())
            for key in keys:
                lookup.add(key, home)
        return home


def _branches(patterns: Mapping[str, str | bytes]) -> Iterator[tuple[int, Conditions]]:
    known: dict[tuple[str, tuple[LeafTest, ...]], Condition] = {}
    for number, (name, text) in enumerate(patterns.items()):
        try:
            parsed = parse(text)
        except PatternError as error:
            error.add_note(f"in the pattern {name!r}")
            raise
        for branch in compiled(parsed, known):
            yield number, branch


def _keys(condition: Condition) -> frozenset[Key]:
    return frozenset(key for test in condition.tests if (key := key_of(test)) is not None)


def _crowd(key: Key) -> Key:
    """Count with what a key shares its values: each text has its own, but ranges overlap."""
    return Key(key.kind) if key.kind == "range" else key
