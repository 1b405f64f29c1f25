"""Array consistency: fields of a pattern may not be satisfied from different elements of one array.

Here: given the values each field could use, whether one choice of array elements serves all fields. What a value must
be is settled before.

Source: the README of event-ruler and its ``StructuredFinder``. Fields are taken in alphabetical order; each may use any
value that does not contradict the elements chosen so far, and ``exists: false`` holds if no value of its field is left.
event-ruler tries all choices in turn. Here they advance together, and a choice is forgotten as soon as no later field
can contradict it, so that the work grows with the event and not with the product of its arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from attachd.patterns.event import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attachd.patterns.event import FlatEvent, Place

Choice = dict[int, int]
"""The element (a place) chosen of each array."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one field can use: the places of values it accepts; and, if it may be absent, those of all its values."""

    accepted: frozenset[int]
    all_values: frozenset[int] | None


@dataclass(slots=True)
class _Knot:
    """A tree of places as they are nested; ``here`` if a value stands directly in this one."""

    here: bool = False
    arrays: dict[int, dict[int, _Knot]] = field(default_factory=dict)


def first_contradiction(needs: Sequence[Need], event: FlatEvent) -> int | None:
    """Find the first need that no choice of elements leaves room for; None if all have room together.

    Raises:
        EventError: more choices would have to be tried than an event of its size can ask for untangled.
    """
    values = sum(len(need.accepted) + len(need.all_values or ()) for need in needs)
    one_for_all = _meet(needs)
    exclusive = not one_for_all and _exclude_each_other(needs, event.places)
    event.tests_left -= (
        values if one_for_all or exclusive else 5 * values
    )  # what each of them costs, in tests
    if event.tests_left < 0:
        event.refuse()
    if one_for_all:
        return None
    if exclusive:
        return next(n for n in range(len(needs)) if not _meet(needs[: n + 1]))
    explained = 4 * values
    places = event.places
    choices: list[Choice] = [{}]
    later = _arrays_later(needs, places)
    for index, need in enumerate(needs):
        accepted = _tree(need.accepted, places)
        everything = None if need.all_values is None else _tree(need.all_values, places)
        kept: dict[frozenset[tuple[int, int]], Choice] = {}
        for extended in chain.from_iterable(_extensions(choice, accepted, everything) for choice in choices):
            explained -= 1
            event.choices_left -= explained < 0
            if event.choices_left < 0:
                event.refuse()
            rest = {array: place for array, place in extended.items() if array in later[index]}
            kept[frozenset(rest.items())] = rest
            if not later[index]:  # nothing chosen so far can matter again, so one choice is as good as all
                break
        if not kept:
            return index
        choices = list(kept.values())
    return None


def _meet(needs: Sequence[Need]) -> bool:
    """Tell whether one place serves all needs: what is so in most events that match, and soon seen."""
    if not needs:
        return True
    return bool(frozenset.intersection(*(need.accepted for need in needs)))


def _exclude_each_other(needs: Sequence[Need], places: Sequence[Place]) -> bool:
    """Tell whether the needs must have one place in common, since any two are different elements of one array.

    So it is where their values are fields of the same objects: there lies one array in each place, and values only in
    the innermost. (False if it is not so, or not as simple.)
    """
    if any(need.all_values is not None for need in needs):
        return False
    level: frozenset[int] | set[int] = frozenset().union(*(need.accepted for need in needs))
    while level != {NOWHERE}:
        if NOWHERE in level or not level:
            return False
        around = {(places[place].array, places[place].around) for place in level}
        outer = {place for _, place in around}
        if len(outer) < len(around) or not outer.isdisjoint(level):
            return False
        level = outer
    return True


def _extensions(choice: Choice, accepted: _Knot, everything: _Knot | None) -> Iterator[Choice]:
    """Extend a choice by each value it leaves; or by none, if no value at all is left and none need be."""
    if everything is not None and not _leaves_any(choice, everything):
        yield choice
    waiting = [(accepted, choice)]
    while waiting:
        knot, chosen = waiting.pop()
        if knot.here:
            yield chosen
        for array, elements in knot.arrays.items():
            fixed = chosen.get(array)
            if fixed is None:
                waiting += [(inner, {**chosen, array: place}) for place, inner in elements.items()]
            elif fixed in elements:
                waiting.append((elements[fixed], chosen))


def _leaves_any(choice: Choice, root: _Knot) -> bool:
    waiting = [root]
    while waiting:
        knot = waiting.pop()
        for array, elements in knot.arrays.items():
            if array not in choice:  # nor is any array inside it, so all its values are left
                return True
            if choice[array] in elements:
                waiting.append(elements[choice[array]])
        if knot.here:
            return True
    return False


def _tree(standing: frozenset[int], places: Sequence[Place]) -> _Knot:
    root = _Knot()
    for innermost in standing:
        knot = root
        for place in _around(innermost, places):
            knot = knot.arrays.setdefault(places[place].array, {}).setdefault(place, _Knot())
        knot.here = True
    return root


def _around(place: int, places: Sequence[Place]) -> list[int]:
    outwards: list[int] = []
    while place != NOWHERE:
        outwards.append(place)
        place = places[place].around
    return outwards[::-1]


def _arrays_later(needs: Sequence[Need], places: Sequence[Place]) -> list[set[int]]:
    """For each need, the arrays that any need after it could still contradict."""
    later: list[set[int]] = []
    seen: set[int] = set()
    for need in reversed(needs):
        later.append(set(seen))
        standing = need.accepted if need.all_values is None else need.all_values
        seen.update(places[place].array for value in standing for place in _around(value, places))
    return later[::-1]
