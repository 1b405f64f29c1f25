"""A pattern's JSON, read so that every mistake can be pointed at.

Here: strict JSON into a tree that remembers where each part stood, duplicate keys and the spelling of numbers. It
knows nothing of patterns; events are read elsewhere, faster, by ``event``.
"""

from __future__ import annotations

from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import NoReturn

from attachd.patterns.numerals import Numeral

MAX_CHARACTERS = 16_384
"""Four times what EventBridge grants on request; keeps every later step small."""

MAX_DEPTH = 100
"""Nested brackets; far beyond any event, well inside Python's stack."""


class PatternError(ValueError):
    """The text is not an event pattern.

    Attributes:
        path: the field concerned, as ``detail.eventType``; empty for the pattern as a whole.
        line: where, from 1.
        column: where in the line, in characters from 1.
        hint: what was probably meant, such as ``did you mean 'prefix'?``; mostly empty.

    ``str()`` of it is event-ruler's own message wherever event-ruler refuses the same pattern.
    """

    def __init__(self, message: str, path: str = "", line: int = 1, column: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.path = path
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, number, true, false or null; every number is its text."""

    value: str | Numeral | bool | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Array:
    """Its items in order."""

    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Object:
    """Its members in order, duplicates included."""

    members: tuple[tuple[str, Node], ...]
    start: int
    end: int


Node = Scalar | Array | Object


def error_at(text: str, offset: int, message: str, path: str = "", hint: str = "") -> PatternError:
    """Turn an offset into a line and a column."""
    start_of_line = text.rfind("\n", 0, offset) + 1
    return PatternError(message, path, text.count("\n", 0, offset) + 1, offset - start_of_line + 1, hint)


def read(source: str | bytes) -> tuple[str, Node]:
    """Read one JSON text.

    Returns:
        The text (decoded, if it came as UTF-8 bytes) to which the nodes' offsets refer, and its tree.

    Raises:
        PatternError: it is not UTF-8, not JSON, longer than MAX_CHARACTERS or deeper than MAX_DEPTH.
    """
    if isinstance(source, bytes):
        try:
            source = source.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PatternError(f"Not valid JSON: not UTF-8 at byte {error.start}") from None
    if len(source) > MAX_CHARACTERS:
        raise PatternError(f"The pattern has {len(source)} characters; at most {MAX_CHARACTERS} are read")
    reader = _Reader(source)
    node = reader.value(0)
    if reader.next() < len(source):
        reader.fail("text after the end of the pattern")
    return source, node


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# Reads scalars only, and so leaves the recursion to the reader. Numbers stay text: `1.0` and `1` differ in spelling.
_SCALARS = JSONDecoder(parse_int=Numeral, parse_float=Numeral, parse_constant=_refuse_constant)


class _Reader:
    """A position in a text, moving on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def next(self) -> int:
        """Skip white space."""
        while self.text[self.at : self.at + 1] in {" ", "\t", "\n", "\r"}:
            self.at += 1
        return self.at

    def fail(self, what: str) -> NoReturn:
        raise error_at(self.text, self.at, f"Not valid JSON: {what}")

    def take(self, wanted: str) -> bool:
        """Step over this character, if it comes next."""
        found = self.text.startswith(wanted, self.next())
        self.at += found
        return found

    def value(self, depth: int) -> Node:
        start = self.next()
        if depth > MAX_DEPTH:
            raise error_at(self.text, start, f"The pattern is nested deeper than {MAX_DEPTH} levels")
        if self.take("{"):
            return Object(tuple(self.members(depth)), start, self.at)
        if self.take("["):
            return Array(tuple(self.items(depth)), start, self.at)
        return Scalar(self.scalar(), start, self.at)

    def members(self, depth: int) -> list[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        if self.take("}"):
            return found
        while True:
            if self.text[self.next() : self.at + 1] != '"':
                self.fail("expected a field name in double quotes")
            key = str(self.scalar())
            if not self.take(":"):
                self.fail("expected ':' after a field name")
            found.append((key, self.value(depth + 1)))
            if self.take("}"):
                return found
            if not self.take(","):
                self.fail("expected ',' or '}'")

    def items(self, depth: int) -> list[Node]:
        found: list[Node] = []
        if self.take("]"):
            return found
        while True:
            found.append(self.value(depth + 1))
            if self.take("]"):
                return found
            if not self.take(","):
                self.fail("expected ',' or ']'")

    def scalar(self) -> str | Numeral | bool | None:
        try:
            value, self.at = _SCALARS.raw_decode(self.text, self.at)
        except JSONDecodeError as error:
            self.at = error.pos
            self.fail(error.msg)
        except ValueError:
            self.fail("NaN and Infinity are not JSON")
        scalar: str | Numeral | bool | None = value
        return scalar
