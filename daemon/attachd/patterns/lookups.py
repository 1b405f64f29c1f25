"""From one value of an event to the few conditions that may accept it.

Here: what a test looks for, as a key; and one table for each kind of key. A table may name a condition that then
refuses, but leaves out none that would accept. Which condition stands for a pattern is ``index``' choice.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from attachd.patterns.addresses import parse_address
from attachd.patterns.operators import (
    Absent,
    Between,
    Caseless,
    Exactly,
    Prefix,
    SameAddress,
    Suffix,
    Truth,
    Wildcard,
    Within,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from attachd.patterns.numerals import Leaf
    from attachd.patterns.operators import LeafTest


class Key(NamedTuple):
    """What a test looks for: one of KINDS, and what exactly."""

    kind: str
    what: Hashable = None


_ANY = Key("any")


def keys(test: LeafTest) -> tuple[Key, ...]:
    """Tell what every value that the test accepts has: each of these, so that it may be filed under any.

    Returns:
        At least one key; none if the test accepts no value (``exists: false``).
    """
    match test:
        case Absent():
            return ()
        case Wildcard(head=head, tail=tail):
            return *keys(Prefix(head)), *keys(Suffix(tail))
        case _:
            return (_key(test),)


def _key(test: LeafTest) -> Key:  # noqa: PLR0911 - a table, one line a test
    match test:
        case Exactly(value=value):
            return Key("exact", value)
        case Truth(value=truth):
            return Key("exact", (truth,))  # in a tuple, since True is found among 1.0
        case SameAddress(address=address):
            return Key("network", (address.bits, 0, address.value))
        case Within(network=network):
            return Key("network", (network.bits, network.host_bits, network.prefix))
        case Between(low=low, high=high):
            return Key("exact", low) if low == high else Key("range", (low, high))
        case Prefix(text=text) if text:
            return Key("prefix", text)
        case Suffix(text=text) if text:
            return Key("suffix", text)
        case Caseless():
            return _folded(test)
        case _:
            return _ANY


def _folded(test: Caseless) -> Key:
    """Fold to upper case, if that makes one text of all spellings."""
    folds = [{spelling.upper() for spelling in spellings} for spellings in test.spellings]
    if any(len(fold) > 1 for fold in folds):
        return _ANY
    letters = [letter for fold in folds for letter in fold]
    if test.whole:
        return Key("folded", "".join(letters))
    text = "".join(letters[::-1] if test.backwards else letters)
    return Key("folded suffix" if test.backwards else "folded prefix", text) if text else _ANY


Entries = dict[Any, None]
"""Whatever the caller files, hashable, in order, each once."""


class Table(Protocol):
    """Entries filed under keys of one kind."""

    def add(self, what: Any, entry: Hashable) -> None:
        """File an entry."""
        ...

    def find(self, value: Leaf, found: Entries) -> None:
        """Add the entries whose key the value has."""
        ...


class _Exact:
    def __init__(self) -> None:
        self._at: dict[object, Entries] = {}

    def add(self, what: object, entry: Hashable) -> None:
        self._at.setdefault(what, {})[entry] = None

    def find(self, value: Leaf, found: Entries) -> None:
        entries = self._at.get((value,) if type(value) is bool else value)
        if entries is not None:
            found.update(entries)


class _Any:
    def __init__(self) -> None:
        self._all: Entries = {}

    def add(self, what: None, entry: Hashable) -> None:  # noqa: ARG002 - there is but one such key
        self._all[entry] = None

    def find(self, value: Leaf, found: Entries) -> None:  # noqa: ARG002 - any will do
        found.update(self._all)


class _Affixes:
    """Starts or ends of strings, by length: as many look-ups as there are lengths."""

    def __init__(self, *, backwards: bool = False) -> None:
        self._backwards = backwards
        self._by_length: dict[int, dict[str, Entries]] = {}

    def add(self, what: str, entry: Hashable) -> None:
        self._by_length.setdefault(len(what), {}).setdefault(what, {})[entry] = None

    def find(self, value: Leaf, found: Entries) -> None:
        if not isinstance(value, str):
            return
        for length, affixes in self._by_length.items():
            entries = affixes.get(value[-length:] if self._backwards else value[:length])
            if entries is not None:
                found.update(entries)


class _Folded:
    """Another table for strings, in upper case."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, what: str, entry: Hashable) -> None:
        self._table.add(what, entry)

    def find(self, value: Leaf, found: Entries) -> None:
        if isinstance(value, str):
            self._table.find(value.upper(), found)


class _Networks:
    """Networks by family and size: as many look-ups as there are sizes."""

    def __init__(self) -> None:
        self._by_size: dict[tuple[int, int], dict[int, Entries]] = {}

    def add(self, what: tuple[int, int, int], entry: Hashable) -> None:
        bits, host_bits, prefix = what
        self._by_size.setdefault((bits, host_bits), {}).setdefault(prefix, {})[entry] = None

    def find(self, value: Leaf, found: Entries) -> None:
        address = parse_address(value) if isinstance(value, str) else None
        if address is None:
            return
        for (bits, host_bits), prefixes in self._by_size.items():
            entries = prefixes.get(address.value >> host_bits) if bits == address.bits else None
            if entries is not None:
                found.update(entries)


class _Around(NamedTuple):
    """The ranges that hold a number, from both ends; those wholly below and above it."""

    number: float
    by_low: list[tuple[float, Hashable]]
    by_high: list[tuple[float, Hashable]]
    below: _Around | None
    above: _Around | None

    @classmethod
    def of(cls, ranges: list[tuple[float, float, Hashable]]) -> _Around | None:
        """Halve them by their lower bounds, and so on: as deep as the logarithm of their number."""
        if not ranges:
            return None
        number = sorted(low for low, _, _ in ranges)[len(ranges) // 2]
        here = [(low, high, entry) for low, high, entry in ranges if low <= number <= high]
        return cls(
            number,
            sorted(((low, entry) for low, _, entry in here), key=itemgetter(0)),
            sorted(((high, entry) for _, high, entry in here), key=itemgetter(0), reverse=True),
            cls.of([one for one in ranges if one[1] < number]),
            cls.of([one for one in ranges if one[0] > number]),
        )


class _Ranges:
    """Numbers between two bounds, as an interval tree."""

    def __init__(self) -> None:
        self._filed: list[tuple[float, float, Hashable]] = []
        self._root: _Around | None = None

    def add(self, what: tuple[float, float], entry: Hashable) -> None:
        self._filed.append((*what, entry))
        self._root = None

    def find(self, value: Leaf, found: Entries) -> None:
        if not isinstance(value, float):
            return
        node = self._root = self._root or _Around.of(self._filed)
        while node is not None:
            below = value < node.number
            for bound, entry in node.by_low if below else node.by_high:
                if bound > value if below else bound < value:
                    break
                found[entry] = None
            node = node.below if below else node.above


class Lookup:
    """The entries filed under the keys of one path."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}

    def add(self, key: Key, entry: Hashable) -> None:
        """File an entry; under several keys, if a test of several will do."""
        if key.kind not in self._tables:
            self._tables[key.kind] = _TABLES[key.kind]()
        self._tables[key.kind].add(key.what, entry)

    def find(self, value: Leaf, found: Entries) -> None:
        """Add the entries that have a key which the value has."""
        for table in self._tables.values():
            table.find(value, found)


_TABLES: dict[str, Callable[[], Table]] = {
    "exact": _Exact,
    "network": _Networks,
    "folded": lambda: _Folded(_Exact()),
    "prefix": _Affixes,
    "suffix": lambda: _Affixes(backwards=True),
    "folded prefix": lambda: _Folded(_Affixes()),
    "folded suffix": lambda: _Folded(_Affixes(backwards=True)),
    "range": _Ranges,
    "any": _Any,
}
