"""The tests a pattern may put to one value of an event.

Here: pure questions about a single leaf, as frozen data. What a test's JSON looks like, and its error messages, is
``expressions``' business; which values of an event a test gets to see is ``event``'s and ``arrays``'.

Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html and event-ruler.
No test builds a regular expression; each is linear in the length of the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from attachd.patterns.addresses import Address, Network, parse_address

if TYPE_CHECKING:
    from attachd.patterns.numerals import Leaf, Numeral

OPERATORS = frozenset(
    [
        "anything-but",
        "cidr",
        "equals-ignore-case",
        "exactly",
        "exists",
        "numeric",
        "prefix",
        "suffix",
        "wildcard",
    ]
)
"""What a match expression may be called."""


class LeafTest(Protocol):
    """One question about a leaf that is present."""

    def accepts(self, value: Leaf) -> bool:
        """Answer it."""
        ...


@dataclass(frozen=True, slots=True)
class Exactly:
    """The same value and the same type: "1" is not 1, nor is true."""

    value: str | float | Numeral | None

    def accepts(self, value: Leaf) -> bool:
        """Compare value and type."""
        return type(value) is type(self.value) and value == self.value


@dataclass(frozen=True, slots=True)
class Truth:
    """true or false itself. Apart from ``Exactly``, since Python holds True and 1.0 for equal."""

    value: bool

    def accepts(self, value: Leaf) -> bool:
        """Compare identity."""
        return value is self.value


@dataclass(frozen=True, slots=True)
class SameAddress:
    """A string that spells this IP address in whichever way."""

    address: Address

    def accepts(self, value: Leaf) -> bool:
        """Compare addresses."""
        return isinstance(value, str) and parse_address(value) == self.address


@dataclass(frozen=True, slots=True)
class Within:
    """``cidr``: a string that spells an IP address of this network."""

    network: Network

    def accepts(self, value: Leaf) -> bool:
        """Compare leading bits, within the family."""
        address = parse_address(value) if isinstance(value, str) else None
        return address is not None and address in self.network


@dataclass(frozen=True, slots=True)
class Prefix:
    """A string that starts so; the empty prefix takes any string."""

    text: str

    def accepts(self, value: Leaf) -> bool:
        """Look at the start."""
        return isinstance(value, str) and value.startswith(self.text)


@dataclass(frozen=True, slots=True)
class Suffix:
    """A string that ends so; the empty suffix takes any string."""

    text: str

    def accepts(self, value: Leaf) -> bool:
        """Look at the end."""
        return isinstance(value, str) and value.endswith(self.text)


@dataclass(frozen=True, slots=True)
class Caseless:
    """Text whose every character may stand as itself, in lower or in upper case.

    Folding belongs to the pattern, character by character, as in event-ruler: ``ß`` accepts ``SS``, but ``ss`` does
    not accept ``ß``, and ``k`` not the Kelvin sign. ``whole`` wants the entire string; else the text may be its start
    or, if ``backwards``, its end.
    """

    spellings: tuple[tuple[str, ...], ...]
    whole: bool = True
    backwards: bool = False

    @classmethod
    def of(cls, text: str, *, whole: bool = True, backwards: bool = False) -> Caseless:
        """Fold a pattern's text."""
        ordered = reversed(text) if backwards else text
        return cls(tuple(tuple({c, c.lower(), c.upper()}) for c in ordered), whole, backwards)

    def accepts(self, value: Leaf) -> bool:
        """Walk once along the value: no two spellings of a character begin, or end, alike."""
        if not isinstance(value, str):
            return False
        low, high = 0, len(value)
        for spellings in self.spellings:
            for spelling in spellings:
                if self.backwards and value.endswith(spelling, low, high):
                    high -= len(spelling)
                    break
                if not self.backwards and value.startswith(spelling, low):
                    low += len(spelling)
                    break
            else:
                return False
        return low == high or not self.whole


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Literal pieces with anything, even nothing, between each two; at least two, a head and a tail.

    Head and tail are anchored; every other is taken at its first place, which never rules out a match.
    """

    head: str
    middle: tuple[str, ...]
    tail: str

    def accepts(self, value: Leaf) -> bool:
        """Find the pieces in order, each once."""
        if not isinstance(value, str):
            return False
        position, end = len(self.head), len(value) - len(self.tail)
        if position > end or not (value.startswith(self.head) and value.endswith(self.tail)):
            return False
        for piece in self.middle:
            found = value.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True


@dataclass(frozen=True, slots=True)
class Between:
    """``numeric``: a number between two bounds, each included or not; never a string, never a Numeral."""

    low: float
    high: float
    low_included: bool = True
    high_included: bool = True

    def accepts(self, value: Leaf) -> bool:
        """Compare doubles."""
        if not isinstance(value, float):
            return False
        above = value >= self.low if self.low_included else value > self.low
        return above and (value <= self.high if self.high_included else value < self.high)


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """A value that none of these accepts, of whatever type; null counts, a missing field does not."""

    tests: tuple[LeafTest, ...]

    def accepts(self, value: Leaf) -> bool:
        """Ask all of them."""
        return not any(test.accepts(value) for test in self.tests)


@dataclass(frozen=True, slots=True)
class Present:
    """``exists: true``: any leaf, null too."""

    def accepts(self, value: Leaf) -> bool:  # noqa: ARG002 - that there is a value is all it asks
        """Take it."""
        return True


@dataclass(frozen=True, slots=True)
class Absent:
    """``exists: false``: accepts no value. Whoever chooses the values asks it when there is none."""

    def accepts(self, value: Leaf) -> bool:  # noqa: ARG002 - no value will do
        """Refuse it."""
        return False
