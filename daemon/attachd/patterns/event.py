"""An event, flattened once: every path a pattern asks for, with its values and where in the event's arrays they stand.

Here: reading an event of any shape, within bounds. No tests and no opinion about what matches.

Source: event-ruler's ``Event``. Paths are joined with dots; arrays vanish from them. Each element of an array that has
parts of its own (an object, or an array) is a *place*; the values inside carry it, so that two fields can be held to
the same element. Plain values directly in an array carry the place around the array: any of them will do.
Of a key given twice the last one counts (event-ruler counts both).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from attachd.patterns.numerals import Leaf, Numeral, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_EVENT_BYTES = 10 * 2**20
"""The largest record any source carries (Kinesis); bounds text before it is parsed."""

MAX_VALUES = 250_000
"""Nodes visited below the paths asked for; an event that shares or contains itself ends here."""

MAX_NESTED_ARRAYS = 64
"""Arrays around one value."""

MAX_TESTS = 2_000_000
"""Questions put to the values of one event, over all patterns that look at it."""

SPARE_CHOICES = 50_000
"""Choices of array elements tried for one event, beyond those its values explain. Only keys with dots need so many."""

NOWHERE = 0
"""The place of a value that stands in no array element."""

_WITH_PARTS = (dict, list, tuple, Mapping)  # in the order of what is likely
_PLAIN = frozenset([str, bool, type(None)])  # leaves as they are
_SCALARS = _PLAIN | {int, float, Numeral}
_MISSING = object()
_FEW_COLUMNS = 16  # beyond so many fields it is quicker to ask what an object has than for what it may have
_EXACT_DIGITS = 15  # every integer of so many digits is a double
_EXACT = 10**_EXACT_DIGITS


class EventError(ValueError):
    """The event is not JSON, not an object, or beyond the bounds; it neither matches nor fails to match."""


class Place(NamedTuple):
    """Any element of an array: which array, what place surrounds that array, and how many arrays in all."""

    array: int
    around: int
    depth: int


_OUTSIDE = Place(0, NOWHERE, 0)


@dataclass(slots=True)
class FlatEvent:
    """Values by path, each with its place, in the event's order; ``places`` is indexed by place.

    Attributes:
        held: what each condition asked of this event so far has found, so that none is asked twice.
        accepted: where the values stand that a condition accepts; only if the event has places.
        tests_left: how many more questions it answers; who asks takes them off, and then calls ``refuse`` if need be.
        choices_left: how many more choices of array elements it bears, beyond those its values explain.
    """

    values: dict[str, list[tuple[Leaf, int]]]
    places: list[Place]
    arrays: int = 0
    held: dict[object, bool] = field(default_factory=dict)
    accepted: dict[object, frozenset[int]] = field(default_factory=dict)
    tests_left: int = MAX_TESTS
    choices_left: int = SPARE_CHOICES

    def refuse(self) -> NoReturn:
        """Answer no more.

        Raises:
            EventError: always.
        """
        what = "choices of array elements" if self.choices_left < 0 else "tests"
        raise EventError(f"The event can be looked at in too many ways: its patterns ask for too many {what}")


@dataclass(slots=True, eq=False)
class Wanted:
    """The steps of all paths asked for, as a tree: what ``flatten`` may visit."""

    path: str = ""
    is_leaf: bool = False
    below: dict[str, Wanted] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[str]) -> Wanted:
        """Ask for the values at these paths."""
        root = cls()
        for path in paths:
            node, end = root, -1
            while end < len(path):
                start, end = end + 1, path.find(".", end + 1)
                end = len(path) if end < 0 else end
                node = node.below.setdefault(path[start:end], cls(path[:end]))
            node.is_leaf = True
        return root

    def descend(self, key: object) -> Wanted | None:
        """Follow a key that has dots; None if nothing there is asked for.

        Raises:
            EventError: it is no string.
        """
        if not isinstance(key, str):
            raise EventError(f"The event has a key that is not a string: {key!r:.80}")
        node = self
        for step in key.split("."):
            found = node.below.get(step)
            if found is None:
                return None
            node = found
        return node


_Queue = list[tuple[Wanted, Any, int]]
"""What is still to be visited: the step reached, what stands there, and in which place."""


def flatten(event: str | bytes | Mapping[str, Any], wanted: Wanted) -> FlatEvent:
    """Collect the values of an event at the paths wanted.

    Args:
        event: JSON text, or what parsing it gives: mappings, lists or tuples, strings, numbers, booleans and None.
        wanted: nothing else is looked at.

    Raises:
        EventError: see there.
    """
    root = read(event)
    flat = FlatEvent({}, [_OUTSIDE])
    visited = 0
    queue: _Queue = [(wanted, root, NOWHERE)]
    without_dots: set[object] = set()
    for node, part, place in queue:  # grows as it goes; a queue, since recursion would have to stop somewhere
        visited += len(part)
        if visited > MAX_VALUES:
            break
        if isinstance(part, (list, tuple)):
            records = len(node.below) <= _FEW_COLUMNS and set(map(type, part)) == {dict}
            members = sum(map(len, part)) if records else 0
            if visited + members > MAX_VALUES:  # before anybody looks at them
                visited += members
            elif records and _without_dots(part, without_dots):
                visited += members
                _records(flat, node, part, place, queue)
            else:
                _elements(flat, node, part, place, queue)
        else:
            _members(flat, node, part, place, queue)
    if visited > MAX_VALUES:
        raise EventError(f"The event has more than {MAX_VALUES} values, or contains itself")
    return flat


def read(event: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """Parse an event, unless somebody has.

    Raises:
        EventError: it is no JSON object, or longer than the bound.
    """
    root = _parse(event) if isinstance(event, (str, bytes)) else event
    if not isinstance(root, (dict, Mapping)):
        raise EventError("Event must be a JSON object")
    return root


def _members(flat: FlatEvent, node: Wanted, part: Mapping[str, Any], place: int, queue: _Queue) -> None:
    below, values = node.below, flat.values
    for key, value in part.items():
        child = below.get(key)
        if child is None:
            if type(key) is str and "." not in key:
                continue
            child = node.descend(key)
            if child is None:
                continue
        kind = type(value)
        if kind not in _SCALARS and isinstance(value, _WITH_PARTS):
            queue.append((child, value, place))
        elif child.is_leaf:
            path = child.path
            plain = value if kind in _PLAIN else leaf(path, value)
            if path in values:
                values[path].append((plain, place))
            else:
                values[path] = [(plain, place)]


def _place_in(flat: FlatEvent, node: Wanted, place: int) -> Place:
    """Make the place that all elements of another array have: which one each is, its number tells."""
    flat.arrays += 1
    depth = flat.places[place].depth + 1
    if depth > MAX_NESTED_ARRAYS:
        raise EventError(f"{node.path} lies in more than {MAX_NESTED_ARRAYS} arrays")
    return Place(flat.arrays, place, depth)


def _without_dots(part: Sequence[dict[str, Any]], known: set[object]) -> bool:
    """Tell whether no key of these objects has dots, as nearly always; ``known`` are known to have none."""
    keys = set().union(*part) - known
    if any(type(key) is not str or "." in key for key in keys):
        return False
    known |= keys
    return True


def _records(
    flat: FlatEvent, node: Wanted, part: Sequence[dict[str, Any]], place: int, queue: _Queue
) -> None:
    """Do as ``_elements`` and ``_members`` would, field by field."""
    here = _place_in(flat, node, place)
    numbers = range(len(flat.places), len(flat.places) + len(part))
    flat.places += [here] * len(part)
    for key, child in node.below.items():
        column = [element.get(key, _MISSING) for element in part]
        if child.is_leaf and _PLAIN.issuperset(map(type, column)):
            flat.values.setdefault(child.path, []).extend(zip(column, numbers, strict=True))
            continue
        for value, standing in zip(column, numbers, strict=True):
            if type(value) not in _SCALARS and isinstance(value, _WITH_PARTS):
                queue.append((child, value, standing))
            elif child.is_leaf and value is not _MISSING:
                flat.values.setdefault(child.path, []).append((leaf(child.path, value), standing))


def _elements(flat: FlatEvent, node: Wanted, part: Sequence[Any], place: int, queue: _Queue) -> None:
    here = _place_in(flat, node, place)
    for value in part:
        if type(value) not in _SCALARS and isinstance(value, _WITH_PARTS):
            queue.append((node, value, len(flat.places)))
            flat.places.append(here)
        elif node.is_leaf:
            flat.values.setdefault(node.path, []).append((leaf(node.path, value), place))


def leaf(name: str, value: object) -> Leaf:
    """Turn a value without parts into what tests are put to.

    Raises:
        EventError: it is no JSON value; ``name`` says where it stands.
    """
    if type(value) is int and -_EXACT < value < _EXACT:
        return float(value)
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)  # a subclass, such as an enum's member, counts as the text it is
        case Numeral():
            return number(value.text)
        case int():
            return _integer(name, value)
        case float() if math.isfinite(value):
            return value
    raise EventError(f"{name} is not a JSON value: {type(value).__name__}")


def _integer(name: str, value: int) -> Leaf:
    try:
        return float(value) if abs(value) < _EXACT else number(str(value))
    except ValueError:  # Python spells no integer of more than some thousand digits
        raise EventError(f"{name} has too many digits") from None


def _read_integer(text: str) -> int | Numeral:
    return int(text) if len(text) <= _EXACT_DIGITS else Numeral(text)


def _read_fraction(text: str) -> float | Numeral:
    """Read what is surely a double's shortest spelling; the others ``number`` has to look at."""
    return (
        float(text) if len(text) <= _EXACT_DIGITS and "e" not in text and "E" not in text else Numeral(text)
    )


def _refuse_constant(name: str) -> NoReturn:
    raise EventError(f"{name} is not JSON")


_DECODER = JSONDecoder(parse_int=_read_integer, parse_float=_read_fraction, parse_constant=_refuse_constant)


def _parse(event: str | bytes) -> object:
    if len(event) > MAX_EVENT_BYTES:
        raise EventError(f"The event is longer than {MAX_EVENT_BYTES} bytes")
    try:
        text = event.decode("utf-8-sig") if isinstance(event, bytes) else event
        root: object = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise EventError(f"The event is not UTF-8 at byte {error.start}") from None
    except JSONDecodeError as error:
        raise EventError(f"The event is not JSON: {error}") from None
    except RecursionError:
        raise EventError("The event is nested too deep") from None
    return root
