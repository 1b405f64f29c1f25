"""One branch against one event as it lies there, without flattening it: the usual event, the quick way.

Here: a walk down the steps of a branch's paths, object by object, which leaves an object at the first field that fails.
Whatever is not plain JSON in plain containers, or has dots in its keys, is left to ``event``, ``conditions`` and
``arrays``, which take anything.

Why the two agree: without dots an object is reached by one way only, so fields of one object share all array elements
around them, and fields below different keys of it share those and no others. An array is consistent, then, if some one
element has all that the branch asks below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attachd.patterns.event import MAX_NESTED_ARRAYS, MAX_VALUES, leaf
from attachd.patterns.numerals import Numeral

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from attachd.patterns.conditions import Condition
    from attachd.patterns.numerals import Leaf

_NUMBERS = frozenset([int, float, Numeral])
_PLAIN = frozenset([str, bool, type(None), float])  # leaves as they are, if a float is finite
_PARTS = _PLAIN | _NUMBERS | {dict}
_MISSING = object()


class Unusual(Exception):
    """The event is not for here."""


@dataclass(slots=True)
class Step:
    """What a branch asks of one object: of its values, and of the objects below it."""

    values: list[tuple[str, Callable[[Leaf], bool], Condition]] = field(default_factory=list)
    below: dict[str, Step] = field(default_factory=dict)
    questions: int = 0

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> Step | None:
        """Arrange the conditions of a branch; None if they are not for here.

        A field that may be absent depends on the elements chosen before it; one that is asked for a value and for
        values below it has both only in different elements.
        """
        root = cls()
        for condition in conditions:
            *steps, last = condition.path.split(".")
            node = root
            for key in steps:
                node = node.below.setdefault(key, cls())
            node.values.append((last, condition.accepts, condition))
            node.questions += condition.questions
            if condition.may_be_absent:
                return None
        return root if root.is_plain() else None

    def is_plain(self) -> bool:
        """Tell whether no key of it is asked for a value and for values below."""
        asked = {key for key, _, _ in self.values}
        return self.below.keys().isdisjoint(asked) and all(node.is_plain() for node in self.below.values())


def holds(root: Step, event: Mapping[str, Any]) -> bool:
    """Tell whether the event has all that the branch asks.

    Raises:
        Unusual: it may have; ask elsewhere.
        EventError: it has something that is no JSON value.
    """
    return _Walk().any(root, [event])


class _Walk:
    """One way down, which ends where ``event`` would give up."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def any(self, step: Step, objects: Sequence[Any]) -> bool:
        """Tell whether one of these objects has all that the step asks."""
        self._look(objects, step.questions)
        if not step.values and len(step.below) == 1:  # then it matters little which of them
            ((key, inner),) = step.below.items()
            return self.any(inner, [part for one in objects for part in self._below(one, key)])
        for one in objects:
            for key, accepts, condition in step.values:
                value = one.get(key, _MISSING)
                if type(value) in _NUMBERS:
                    value = leaf(condition.path, value)
                if not (accepts(value) if type(value) in _PLAIN else self._fits(value, condition)):
                    break
            else:
                if all(self.any(inner, self._below(one, key)) for key, inner in step.below.items()):
                    return True
        return False

    def _look(self, objects: Sequence[Any], questions: int) -> None:
        """See to it that they are plain, and not too many."""
        self._spend(sum(map(len, objects)) + len(objects) * questions)
        keys: set[Any] = set().union(*objects) if set(map(type, objects)) <= {dict} else {None}
        if set(map(type, keys)) - {str} or "." in "".join(keys):
            raise Unusual

    def _fits(self, value: object, condition: Condition) -> bool:
        if value is _MISSING:
            return False
        parts = [part for part in self._parts(value) if type(part) is not dict]
        self._spend(len(parts) * condition.questions)
        return any(condition.accepts(leaf(condition.path, part)) for part in parts)

    def _below(self, one: Mapping[str, Any], key: str) -> list[Any]:
        return [part for part in self._parts(one.get(key)) if type(part) is dict]

    def _parts(self, value: object) -> list[object]:
        """Take arrays apart, and arrays in arrays."""
        parts = [value]
        for _ in range(MAX_NESTED_ARRAYS):
            kinds = set(map(type, parts))
            if kinds - _PARTS - {list}:
                break
            if list not in kinds:
                return parts
            self._spend(sum(len(part) for part in parts if type(part) is list))
            parts = [inner for part in parts for inner in (part if type(part) is list else [part])]
        raise Unusual

    def _spend(self, looks: int) -> None:
        self._left -= looks
        if self._left < 0:
            raise Unusual
