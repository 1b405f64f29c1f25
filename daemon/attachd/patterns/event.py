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
from typing import TYPE_CHECKING, Any, NoReturn

from attachd.patterns.numerals import Leaf, Numeral, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

MAX_EVENT_BYTES = 10 * 2**20
"""The largest record any source carries (Kinesis); bounds text before it is parsed."""

MAX_VALUES = 250_000
"""Nodes visited below the paths asked for; an event that shares or contains itself ends here."""

MAX_NESTED_ARRAYS = 64
"""Arrays around one value."""

NOWHERE = 0
"""The place of a value that stands in no array element."""

_EXACT_DIGITS = 15  # every integer of so many digits is a double


class EventError(ValueError):
    """The event is not JSON, not an object, or beyond the bounds; it neither matches nor fails to match."""


@dataclass(frozen=True, slots=True)
class Place:
    """An element of an array: which array, what place surrounds that array, and how many arrays in all."""

    array: int
    around: int
    depth: int


@dataclass(frozen=True, slots=True)
class FlatEvent:
    """Values by path, each with its place, in the event's order; ``places`` is indexed by place."""

    values: dict[str, list[tuple[Leaf, int]]]
    places: list[Place]


def wanted_prefixes(paths: Iterable[str]) -> dict[str, bool]:
    """Name every path on the way to these, and whether it is one of them; what ``flatten`` may visit."""
    wanted: dict[str, bool] = {}
    for path in paths:
        dot = path.find(".")
        while dot >= 0:
            wanted.setdefault(path[:dot], False)
            dot = path.find(".", dot + 1)
        wanted[path] = True
    return wanted


def flatten(event: str | bytes | Mapping[str, Any], wanted: Mapping[str, bool]) -> FlatEvent:
    """Collect the values of an event at the paths wanted.

    Args:
        event: JSON text, or what parsing it gives: mappings, lists or tuples, strings, numbers, booleans and None.
        wanted: what ``wanted_prefixes`` made; nothing else is looked at.

    Raises:
        EventError: see there.
    """
    root = _parse(event) if isinstance(event, str | bytes) else event
    if not isinstance(root, Mapping):
        raise EventError("Event must be a JSON object")
    walk = _Walk(wanted)
    walk.members("", root, NOWHERE)
    for (
        name,
        node,
        place,
    ) in walk.queue:  # grows as it goes; a queue, since recursion would have to stop somewhere
        if isinstance(node, Mapping):
            walk.members(f"{name}.", node, place)
        else:
            walk.items(name, node, place)
    return FlatEvent(walk.values, walk.places)


@dataclass(slots=True)
class _Walk:
    wanted: Mapping[str, bool]
    values: dict[str, list[tuple[Leaf, int]]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=lambda: [Place(0, NOWHERE, 0)])
    queue: list[tuple[str, Any, int]] = field(default_factory=list)
    arrays: int = 0
    visited: int = 0

    def members(self, prefix: str, node: Mapping[str, Any], place: int) -> None:
        self.visit(node)
        for key, value in node.items():
            if not isinstance(key, str):
                raise EventError(f"The event has a key that is not a string: {key!r:.80}")
            name = prefix + key
            leaf = self.wanted.get(name)
            if leaf is None:
                continue
            if isinstance(value, dict | list | tuple | Mapping):
                self.queue.append((name, value, place))
            elif leaf:
                self.record(name, value, place)

    def items(self, name: str, node: list[Any] | tuple[Any, ...], place: int) -> None:
        self.visit(node)
        self.arrays += 1
        array, depth = self.arrays, self.places[place].depth + 1
        if depth > MAX_NESTED_ARRAYS:
            raise EventError(f"{name} lies in more than {MAX_NESTED_ARRAYS} arrays")
        for value in node:
            if isinstance(value, dict | list | tuple | Mapping):
                self.queue.append((name, value, len(self.places)))
                self.places.append(Place(array, place, depth))
            elif self.wanted[name]:
                self.record(name, value, place)

    def visit(self, node: Sized) -> None:
        self.visited += len(node)
        if self.visited > MAX_VALUES:
            raise EventError(f"The event has more than {MAX_VALUES} values, or contains itself")

    def record(self, name: str, value: Any, place: int) -> None:
        leaf = value if value is None or type(value) in {str, bool} else _leaf(name, value)
        self.values.setdefault(name, []).append((leaf, place))


def _leaf(name: str, value: object) -> Leaf:
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
        return float(value) if abs(value) < 10**_EXACT_DIGITS else number(str(value))
    except ValueError:  # Python spells no integer of more than some thousand digits
        raise EventError(f"{name} has too many digits") from None


def _read_integer(text: str) -> int | Numeral:
    return int(text) if len(text) <= _EXACT_DIGITS else Numeral(text)


def _refuse_constant(name: str) -> NoReturn:
    raise EventError(f"{name} is not JSON")


_DECODER = JSONDecoder(parse_int=_read_integer, parse_float=Numeral, parse_constant=_refuse_constant)


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
