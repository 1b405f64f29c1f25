"""What EventBridge itself would refuse in a pattern that is taken here, for those who carry patterns there.

Here: limits of the service, as far as they can be told. None is needed here, and none imposed.

Source: EventBridge's quotas, and event-ruler's ``MachineComplexityEvaluator``: how many prefixes of a field's wildcards
one text can match at once. The service publishes no limit; it was seen to refuse 11, and to take 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from attachd.patterns.operators import AnythingBut, Wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from attachd.patterns.parse import Field

MAX_CHARACTERS = 4_096
"""Of a pattern; 2,048 unless asked for."""

MAX_COMPLEXITY = 9

_MAX_SETS = 2_000  # of prefixes, looked at before what has been found so far is taken for the answer
_STAR, _OTHER = -1, -2  # beside bytes; the latter is any that no wildcard has
_QUOTE = ord('"')  # event-ruler keeps a string's quotes


@dataclass(slots=True, eq=False)
class _Prefix:
    """A beginning of a wildcard, by its bytes; those of one test that begin alike share it."""

    star: bool = False
    longer: dict[int, _Prefix] = field(default_factory=dict)

    def add(self, spelled: Iterable[int]) -> None:
        node = self
        for byte in spelled:
            node = node.longer.setdefault(byte, _Prefix(star=byte == _STAR))


def refusals(text: str, fields: Iterable[Field]) -> Iterator[tuple[str, str]]:
    """Say what the service would not take: paths and sentences."""
    if len(text) > MAX_CHARACTERS:
        yield (
            "",
            f"EventBridge takes {MAX_CHARACTERS} characters at most, and 2048 unless asked; it has {len(text)}",
        )
    for one in fields:
        if complexity(one) > MAX_COMPLEXITY:
            yield one.path, "EventBridge refuses it: too many wildcard characters, or repetitions after one"


def complexity(asked: Field) -> int:
    """Count the prefixes of its wildcards that one text matches at most; beyond MAX_COMPLEXITY it may be more."""
    roots: list[_Prefix] = []
    for test in dict.fromkeys(asked.tests):
        roots.append(_Prefix())
        for one in test.tests if isinstance(test, AnythingBut) else (test,):
            if isinstance(one, Wildcard):
                roots[-1].add(_bytes(one))
    start = _after(_QUOTE, roots)
    waiting, seen, most = [start], {start}, 0
    for prefixes in waiting:
        most = max(most, len(prefixes))
        if most > MAX_COMPLEXITY or len(seen) > _MAX_SETS:
            break
        letters = {_OTHER, *chain.from_iterable(prefix.longer for prefix in prefixes)} - {_STAR}
        following = {_after(letter, prefixes) for letter in letters} - seen
        seen |= following
        waiting += following
    return most


def _bytes(wildcard: Wildcard) -> Iterator[int]:
    yield _QUOTE
    yield from wildcard.head.encode("utf-8", "surrogatepass")
    for piece in (*wildcard.middle, wildcard.tail):
        yield _STAR
        yield from piece.encode("utf-8", "surrogatepass")
    yield _QUOTE


def _after(letter: int, prefixes: Iterable[_Prefix]) -> frozenset[_Prefix]:
    """Tell which prefixes the text matches with this letter more."""
    found: set[_Prefix] = set()
    for prefix in prefixes:
        if prefix.star:
            found.add(prefix)
        if letter in prefix.longer:
            found.add(longer := prefix.longer[letter])
            found.update(one for byte, one in longer.longer.items() if byte == _STAR)
    return frozenset(found)
