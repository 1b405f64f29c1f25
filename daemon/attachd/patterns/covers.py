"""Whether one branch takes every event that another takes, where that can be proved.

Here: test by test, field by field; never a guess, so that "no" means "not proved". What to make of it is ``lint``'s.
"""

from __future__ import annotations

import math
from ipaddress import ip_address
from typing import TYPE_CHECKING

from attachd.patterns.operators import (
    Absent,
    AnythingBut,
    Between,
    Caseless,
    Exactly,
    Prefix,
    Present,
    SameAddress,
    Suffix,
    Truth,
    Wildcard,
    Within,
)

if TYPE_CHECKING:
    from attachd.patterns.addresses import Address
    from attachd.patterns.numerals import Leaf
    from attachd.patterns.operators import LeafTest
    from attachd.patterns.parse import Branch


def covers(wide: Branch, narrow: Branch) -> bool:
    """Tell whether every event that ``narrow`` takes is known to be taken by ``wide``."""
    tests = {field.path: field.tests for field in narrow}
    absence = any(isinstance(test, Absent) for field in wide for test in field.tests)
    if absence and len(wide) != len(narrow):  # it depends on the elements which all fields before have chosen
        return False
    return all(
        field.path in tests
        and all(any(includes(one, other) for one in field.tests) for other in tests[field.path])
        for field in wide
    )


def includes(wide: LeafTest, narrow: LeafTest) -> bool:  # noqa: C901, PLR0911 - a table, one line a pair
    """Tell whether every value that ``narrow`` accepts is known to be accepted by ``wide``."""
    if wide == narrow:
        return True
    match wide, narrow:
        case (_, Absent()) | (Absent(), _):
            return False
        case Present(), _:
            return True
        case _, Exactly(value=value) | Truth(value=value):
            return wide.accepts(value)
        case Prefix(text=short), Prefix(text=long) | Wildcard(head=long):
            return long.startswith(short)
        case Suffix(text=short), Suffix(text=long) | Wildcard(tail=long):
            return long.endswith(short)
        case Within(network=network), SameAddress(address=address):
            return address in network
        case Within(network=large), Within(network=small):
            return small.first in large and small.host_bits <= large.host_bits
        case Between(), Between(low=low, high=high):
            return _reaches(wide, low, high, narrow)
        case AnythingBut(tests=few), AnythingBut(tests=many):
            return all(any(includes(one, other) for one in many) for other in few)
        case _:
            return False


def _reaches(wide: Between, low: float, high: float, narrow: Between) -> bool:
    below = wide.low < low or (wide.low == low and (wide.low_included or not narrow.low_included))
    above = wide.high > high or (wide.high == high and (wide.high_included or not narrow.high_included))
    return below and above


def witness(branch: Branch) -> dict[str, Leaf]:
    """Make an event that the branch takes, as simple as can be; it may fail to, and is to be tried."""
    event: dict[str, Leaf] = {}
    for field in branch:
        test = field.tests[0]
        if not isinstance(test, Absent):
            event[field.path] = example(test)
    return event


def example(test: LeafTest) -> Leaf:  # noqa: PLR0911 - a table, one line a test
    """Give a value that the test probably accepts."""
    match test:
        case Exactly(value=value) | Truth(value=value):
            return value
        case Prefix(text=text) | Suffix(text=text):
            return text
        case Caseless(spellings=spellings, backwards=backwards):
            letters = [some[0] for some in spellings]
            return "".join(letters[::-1] if backwards else letters)
        case Wildcard(head=head, middle=middle, tail=tail):
            return head + "".join(middle) + tail
        case SameAddress(address=address):
            return _spelled(address)
        case Within(network=network):
            return _spelled(network.first)
        case Between(low=low, high=high):
            return low if test.accepts(low) else high if test.accepts(high) else math.nextafter(low, high)
        case _:
            unlikely = "\N{REPLACEMENT CHARACTER}"
            return unlikely if test.accepts(unlikely) else None


def _spelled(address: Address) -> str:
    return str(ip_address(address.value.to_bytes(address.bits // 8)))
