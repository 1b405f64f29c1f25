"""Which JSON numbers can be compared, and how.

Here: the one rule that turns a number's text into something equal, or ordered. No operator, no event.

Source: event-ruler's ``ComparableNumber``. A number that is exactly the shortest spelling of an IEEE double compares
by value, so ``300``, ``300.0`` and ``3e2`` are one number. Any other, such as 2^53 + 1 or ``1e400``, has no honest
double, and is equal only to its own text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation


@dataclass(frozen=True, slots=True)
class Numeral:
    """A JSON number that no double stands for: equal letter by letter, and never ordered."""

    text: str


Leaf = str | float | Numeral | bool | None
"""A JSON value without parts. Every number a double stands for is a ``float``, never an ``int``."""


def number(text: str) -> float | Numeral:
    """Read a number as JSON spells it; linear in its length."""
    value = float(text)
    if not math.isfinite(value):
        return Numeral(text)
    try:
        exact = Decimal(text) == Decimal(repr(value))
    except InvalidOperation:  # an exponent beyond what decimal holds, such as 1e-9999999999999999999
        return Numeral(text)
    return value if exact else Numeral(text)
