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

from attachd.patterns.compile import Pattern
from attachd.patterns.conditions import Condition, Conditions, compiled
from attachd.patterns.document import PatternError
from attachd.patterns.event import EventError, FlatEvent, Wanted, flatten
from attachd.patterns.lookups import Key, Lookup, keys
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


@dataclass(frozen=True, slots=True, eq=False)
class _Home:
    """The branches filed under one condition, each with the number of its pattern, by what is left to ask."""

    condition: Condition
    branches: dict[_Rest, list[tuple[int, Conditions]]] = field(default_factory=dict)
    numbers: dict[_Rest, list[int]] = field(default_factory=dict)

    def add(self, rest: _Rest, number: int, branch: Conditions) -> None:
        self.branches.setdefault(rest, []).append((number, branch))
        self.numbers.setdefault(rest, []).append(number)

    def matching(self, rest: _Rest, event: FlatEvent) -> list[int]:
        """Number the patterns whose fields all hold, and out of one element where there are arrays of objects."""
        if len(event.places) == 1:
            return self.numbers[rest]
        return [n for n, branch in self.branches[rest] if branch.contradiction(event) is None]


class PatternSet:
    """Event patterns by name, compiled together.

    Args:
        patterns: as text, or compiled before.

    Raises:
        PatternError: one of them is not an event pattern; a note on it says which.
    """

    def __init__(self, patterns: Mapping[str, str | bytes | Pattern]) -> None:
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
            event: JSON text, or a mapping as JSON text parses to; what is no event, or beyond the bounds, matches none.
        """
        try:
            return self.decide(event)
        except EventError:
            return []

    def decide(self, event: str | bytes | Mapping[str, Any]) -> list[str]:
        """Do as ``matching``, for those who must tell an event that matches none from one that cannot.

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
        numbers: list[int] = []
        for home in homes:
            if home.condition.holds(flat):
                for rest in home.numbers:
                    if rest.holds(flat):
                        numbers += home.matching(rest, flat)
        return [self._names[number] for number in sorted(set(numbers))]

    def _file(self, branches: list[tuple[int, Conditions]]) -> None:
        keys = _Keys(condition for _, branch in branches for condition in branch.written)
        homes: dict[Condition, _Home] = {}
        rests: dict[frozenset[Condition], _Rest] = {}
        for number, branch in branches:
            first, *others = sorted(branch.written, key=keys.company)
            if first not in homes:
                homes[first] = self._home(first, keys.chosen(first))
            rest = rests.setdefault(frozenset(others), _Rest(tuple(others)))
            homes[first].add(rest, number, branch)

    def _home(self, condition: Condition, keys: Iterable[Key]) -> _Home:
        home = _Home(condition)
        if condition.may_be_absent:  # and so may all others of its branches
            self._always[home] = None
        else:
            lookup = self._lookups.setdefault(condition.path, Lookup())
            for key in keys:
                lookup.add(key, home)
        return home


def _branches(patterns: Mapping[str, str | bytes | Pattern]) -> Iterator[tuple[int, Conditions]]:
    known: dict[tuple[str, tuple[LeafTest, ...]], Condition] = {}
    for number, (name, pattern) in enumerate(patterns.items()):
        try:
            parsed = pattern.branches if isinstance(pattern, Pattern) else parse(pattern).branches
        except PatternError as error:
            error.add_note(f"in the pattern {name!r}")
            raise
        for branch in compiled(parsed, known):
            yield number, branch


class _Keys:
    """How many branches share each key, and so which to file a condition under."""

    def __init__(self, conditions: Iterable[Condition]) -> None:
        """Count: a condition comes once for each branch it stands in."""
        self._branches = Counter(conditions)
        self._sharing: Counter[tuple[str, Key]] = Counter()
        for condition, branches in self._branches.items():
            for key in {_crowd(key) for test in condition.tests for key in keys(test)}:
                self._sharing[condition.path, key] += branches
        self._company: dict[Condition, tuple[int, int]] = {}

    def chosen(self, condition: Condition) -> frozenset[Key]:
        """Choose a key for each of its tests, so that a value it accepts has one of them."""
        alternatives = (keys(test) for test in condition.tests)
        return frozenset(
            min(some, key=lambda key: self._shared(condition.path, key)) for some in alternatives if some
        )

    def company(self, condition: Condition) -> tuple[int, int]:
        """Tell how many branches at most a value has to meet under one of its keys; and how many share all of it."""
        if condition not in self._company:
            shared = max((self._shared(condition.path, key) for key in self.chosen(condition)), default=0)
            never = self._branches.total() + 1
            self._company[condition] = (
                never if condition.may_be_absent else shared,
                self._branches[condition],
            )
        return self._company[condition]

    def _shared(self, path: str, key: Key) -> int:
        return self._sharing[path, _crowd(key)]


def _crowd(key: Key) -> Key:
    """Count with what a key shares its values: each text has its own, but ranges overlap."""
    return Key(key.kind) if key.kind == "range" else key
