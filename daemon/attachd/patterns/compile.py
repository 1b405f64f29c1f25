"""Patterns ready to match.

Here: branches into closures, and the two questions asked of them: does it match, and if not, why. Reading patterns and
events is done elsewhere; many patterns against one event are an index's affair, which can be built from ``branches``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attachd.patterns.arrays import Need, first_contradiction
from attachd.patterns.event import NOWHERE, FlatEvent, flatten, wanted_prefixes
from attachd.patterns.numerals import Leaf, Numeral
from attachd.patterns.operators import Absent, Exactly, LeafTest
from attachd.patterns.parse import Branch, Field, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VALUES_SHOWN = 5
_CHARACTERS_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why an event does not match: the first field, in the order written, that fails.

    With $or, the branch that comes nearest speaks.

    Attributes:
        path: the field, as ``detail.eventType``.
        has: the event's values there as JSON, shortened; empty if it has none.
        wants: the field's alternatives as the pattern spells them, shortened.
        reason: ``missing``, ``different``, ``present`` (it should be absent), or ``other element`` (a value fits, but
            only in an array element which an earlier field rules out).
    """

    path: str
    has: tuple[str, ...]
    wants: str
    reason: str

    def __str__(self) -> str:
        """Put it in a sentence."""
        has = ", ".join(self.has) if self.has else "nothing"
        return f"{self.path}: the event has {has}; the pattern wants {self.wants} ({self.reason})"


@dataclass(frozen=True, slots=True)
class _Condition:
    """A field as one closure over all its alternatives."""

    path: str
    accepts: Callable[[Leaf], bool]
    may_be_absent: bool
    source: str

    def satisfied(self, event: FlatEvent) -> bool:
        """Judge it alone, as if every array were free to choose from."""
        values = event.values.get(self.path)
        if values is None:
            return self.may_be_absent
        for value, _ in values:
            if self.accepts(value):
                return True
        return self.may_be_absent and all(place != NOWHERE for _, place in values)

    def mismatch(self, event: FlatEvent, reason: str = "") -> Mismatch:
        values = event.values.get(self.path, [])
        has = tuple(_shown(_spelled(value)) for value, _ in values[:_VALUES_SHOWN])
        reason = reason or (("present" if self.may_be_absent else "different") if has else "missing")
        return Mismatch(self.path, has, _shown(self.source), reason)


@dataclass(frozen=True, slots=True)
class _Conditions:
    """A branch: its conditions as written, and in the order in which arrays are resolved."""

    written: tuple[_Condition, ...]
    ordered: tuple[_Condition, ...]

    def match(self, event: FlatEvent) -> bool:
        for condition in self.written:
            if not condition.satisfied(event):
                return False
        return len(event.places) == 1 or self.contradiction(event) is None

    def contradiction(self, event: FlatEvent) -> _Condition | None:
        """Find the first condition that only another array element could satisfy."""
        needs: list[Need] = []
        involved: list[_Condition] = []
        for condition in self.ordered:
            values = event.values.get(condition.path, ())
            if any(place != NOWHERE for _, place in values):
                accepted = frozenset(place for value, place in values if condition.accepts(value))
                everywhere = frozenset(place for _, place in values) if condition.may_be_absent else None
                needs.append(Need(accepted, everywhere))
                involved.append(condition)
        index = first_contradiction(needs, event.places)
        return None if index is None else involved[index]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled event pattern; make one with ``compile_pattern``.

    Attributes:
        branches: what was read, for indexes and linters.
        wanted: the paths to visit in an event, as ``event.flatten`` takes them.
    """

    branches: tuple[Branch, ...]
    wanted: Mapping[str, bool]
    _compiled: tuple[_Conditions, ...]

    def matches(self, event: str | bytes | Mapping[str, Any]) -> bool:
        """Decide, as EventBridge would.

        Args:
            event: JSON text, or a mapping as JSON text parses to.

        Raises:
            EventError: the event is not a JSON object, or larger than the bounds.
        """
        return self.matches_flat(flatten(event, self.wanted))

    def matches_flat(self, event: FlatEvent) -> bool:
        """Decide on an event flattened before, for at least this pattern's paths."""
        return any(conditions.match(event) for conditions in self._compiled)

    def explain(self, event: str | bytes | Mapping[str, Any]) -> Mismatch | None:
        """Say why the event does not match; None if it does.

        Raises:
            EventError: as ``matches``.
        """
        flat = flatten(event, self.wanted)
        if self.matches_flat(flat):
            return None
        return _explained(max(self._compiled, key=lambda branch: _nearness(branch, flat)), flat)


def compile_pattern(text: str | bytes) -> Pattern:
    """Compile an event pattern, once, to match many events.

    Args:
        text: the pattern as JSON, as one would give it to EventBridge's PutRule.

    Raises:
        PatternError: it is not an event pattern; the message is event-ruler's, with path, line and column.
    """
    branches = parse(text)
    fields = {
        id(field): field for branch in branches for field in branch
    }  # branches of $or share what is around them
    conditions = {key: _condition(field) for key, field in fields.items()}
    compiled: list[_Conditions] = []
    for branch in branches:
        written = tuple(conditions[id(field)] for field in branch)
        compiled.append(_Conditions(written, tuple(sorted(written, key=_java_order))))
    wanted = wanted_prefixes(dict.fromkeys(field.path for field in fields.values()))
    return Pattern(branches, wanted, tuple(compiled))


def _condition(field: Field) -> _Condition:
    may_be_absent = any(isinstance(test, Absent) for test in field.tests)
    return _Condition(field.path, _acceptor(field.tests), may_be_absent, field.source)


def _acceptor(tests: tuple[LeafTest, ...]) -> Callable[[Leaf], bool]:
    """Make one question of many; the plain values, however many, are one look-up."""
    # With its type, since Python holds True and 1.0 for equal.
    exact = frozenset((type(test.value), test.value) for test in tests if isinstance(test, Exactly))
    others = tuple(test.accepts for test in tests if not isinstance(test, Exactly | Absent))
    if not others:
        return lambda value: (type(value), value) in exact
    if not exact and len(others) == 1:
        return others[0]
    return lambda value: (type(value), value) in exact or any(accepts(value) for accepts in others)


def _java_order(condition: _Condition) -> bytes:
    """Sort paths as event-ruler's strings do, by UTF-16 unit."""
    return condition.path.encode("utf-16-be", "surrogatepass")


def _nearness(branch: _Conditions, event: FlatEvent) -> float:
    return sum(condition.satisfied(event) for condition in branch.written) / len(branch.written)


def _explained(branch: _Conditions, event: FlatEvent) -> Mismatch:
    for condition in branch.written:
        if not condition.satisfied(event):
            return condition.mismatch(event)
    contradiction = branch.contradiction(event) or branch.written[0]
    return contradiction.mismatch(event, "other element")


def _spelled(value: Leaf) -> str:
    match value:
        case Numeral(text=digits):
            return digits
        case float() if value.is_integer():
            return f"{value:.0f}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _shown(text: str) -> str:
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[: _CHARACTERS_SHOWN - 1]}…"
