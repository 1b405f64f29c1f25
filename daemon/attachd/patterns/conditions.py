"""One field of a pattern, and one branch of fields, as closures over a flattened event.

Here: tests joined into one question a field, answered once an event; and what a branch asks of its fields together.
Which branches are asked at all is ``compile``'s and ``index``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attachd.patterns.arrays import Need, first_contradiction
from attachd.patterns.event import NOWHERE
from attachd.patterns.operators import Absent, AnythingBut, Exactly, Prefix, Wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attachd.patterns.event import FlatEvent
    from attachd.patterns.numerals import Leaf
    from attachd.patterns.operators import LeafTest
    from attachd.patterns.parse import Branch, Field


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A field and all its alternatives. Identity counts: one that many branches share is judged once an event.

    Attributes:
        questions: how many are asked of one value at most.
        accepts: asks them of one value.
        found: asks them of many, and tells the places of those accepted.
    """

    path: str
    tests: tuple[LeafTest, ...]
    source: str
    may_be_absent: bool
    questions: int
    accepts: Callable[[Leaf], bool]
    found: Callable[[Sequence[tuple[Leaf, int]]], list[int]]

    @classmethod
    def of(cls, field: Field) -> Condition:
        """Compile a field."""
        may_be_absent = any(isinstance(test, Absent) for test in field.tests)
        return cls(
            field.path,
            field.tests,
            field.source,
            may_be_absent,
            _questions(field.tests),
            accepts := _acceptor(field.tests),
            _finder(field.tests, accepts),
        )

    def holds(self, event: FlatEvent) -> bool:
        """Judge it alone, as if every array were free to choose from; once an event."""
        held: bool | None = event.held.get(self)
        if held is None:
            held = event.held[self] = self._judge(event)
        return held

    def _judge(self, event: FlatEvent) -> bool:
        values = event.values.get(self.path)
        if values is None:
            return self.may_be_absent
        event.tests_left -= len(values) * self.questions
        if event.tests_left < 0:
            event.refuse()
        if len(event.places) > 1:
            accepted = event.accepted[self] = frozenset(self.found(values))
            return bool(accepted) or (self.may_be_absent and all(place != NOWHERE for _, place in values))
        if len(values) == 1:
            return self.accepts(values[0][0])
        return any(self.accepts(value) for value, _ in values)


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """A branch: its conditions as written, and in the order in which arrays are resolved."""

    written: tuple[Condition, ...]
    ordered: tuple[Condition, ...]

    def match(self, event: FlatEvent) -> bool:
        """Judge all of them together."""
        for condition in self.written:
            if not condition.holds(event):
                return False
        return len(event.places) == 1 or self.contradiction(event) is None

    def contradiction(self, event: FlatEvent) -> Condition | None:
        """Find the first condition that only another array element could satisfy, where each alone holds."""
        needs: list[Need] = []
        involved: list[Condition] = []
        for condition in self.ordered:
            values = event.values.get(condition.path, ())
            if any(place != NOWHERE for _, place in values):
                everywhere = frozenset([place for _, place in values]) if condition.may_be_absent else None
                needs.append(Need(event.accepted[condition], everywhere))
                involved.append(condition)
        index = first_contradiction(needs, event)
        return None if index is None else involved[index]


def compiled(
    branches: Sequence[Branch], known: dict[tuple[str, tuple[LeafTest, ...]], Condition]
) -> tuple[Conditions, ...]:
    """Compile the branches of a pattern.

    Args:
        branches: as ``parse`` gives them.
        known: conditions by path and tests, compiled before; shared from here, and added to.
    """
    # By identity first: the branches of $or share the fields around it, which may have thousands of tests to hash.
    fields = {id(field): field for branch in branches for field in branch}
    conditions: dict[int, Condition] = {}
    for key, field in fields.items():
        meaning = field.path, field.tests
        conditions[key] = known.get(meaning) or known.setdefault(meaning, Condition.of(field))
    made: list[Conditions] = []
    for branch in branches:
        written = tuple(conditions[id(field)] for field in branch)
        made.append(Conditions(written, tuple(sorted(written, key=_java_order))))
    return tuple(made)


def _questions(tests: tuple[LeafTest, ...]) -> int:
    """Count the questions that ``_acceptor`` leaves."""
    others = (test for test in tests if not isinstance(test, Exactly | Absent))
    return 1 + sum(_questions(test.tests) if isinstance(test, AnythingBut) else 1 for test in others)


def _acceptor(tests: tuple[LeafTest, ...]) -> Callable[[Leaf], bool]:
    """Make one question of many; the plain values, however many, are one look-up."""
    exact = frozenset(test.value for test in tests if isinstance(test, Exactly))
    others = tuple(_question(test) for test in tests if not isinstance(test, Exactly | Absent))
    if not others:
        return lambda value: value in exact and type(value) is not bool  # True would be found among 1.0
    if len(others) == 1:
        other = others[0]
        if not exact:
            return other
        return lambda value: (value in exact and type(value) is not bool) or other(value)

    def accepts(value: Leaf) -> bool:
        if value in exact and type(value) is not bool:
            return True
        for asked in others:  # noqa: SIM110 - a generator costs more than most of the questions
            if asked(value):
                return True
        return False

    return accepts


def _finder(
    tests: tuple[LeafTest, ...], accepts: Callable[[Leaf], bool]
) -> Callable[[Sequence[tuple[Leaf, int]]], list[int]]:
    """Make of a question to one value one to many: where do those stand that are accepted?"""
    if all(isinstance(test, Exactly) for test in tests):
        exact = frozenset(test.value for test in tests if isinstance(test, Exactly))
        return lambda values: [place for value, place in values if value in exact and type(value) is not bool]
    return lambda values: [place for value, place in values if accepts(value)]


def _question(test: LeafTest) -> Callable[[Leaf], bool]:
    """Make a closure of a test: one call in place of several, for the commonest."""
    match test:
        case AnythingBut(tests=tests):
            excluded = _acceptor(tests)
            return lambda value: not excluded(value)
        case Prefix(text=text):
            return lambda value: type(value) is str and value.startswith(text)
        case Wildcard(head="", middle=(piece,), tail=""):
            return lambda value: type(value) is str and piece in value
        case _:
            return test.accepts


def _java_order(condition: Condition) -> bytes:
    """Sort paths as event-ruler's strings do, by UTF-16 unit."""
    return condition.path.encode("utf-16-be", "surrogatepass")
