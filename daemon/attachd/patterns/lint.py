"""What a pattern says that its author can hardly have meant.

Here: findings about patterns that compile, or nearly. Which fields an event has is told from outside; so the room
knows of no service. Findings are proved, or (fields, values) as good as what is known of the events; none is an error.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from attachd.patterns.covers import covers, example, witness
from attachd.patterns.document import PatternError
from attachd.patterns.index import PatternSet
from attachd.patterns.operators import OPERATORS, Absent, AnythingBut, Between
from attachd.patterns.parse import parse

if TYPE_CHECKING:
    from attachd.patterns.parse import Branch, Field, Parsed

Known = Mapping[str, "Known | Collection[str] | None"]
"""The fields of an event: each an object of more fields, a value of which all are known, or a value (None).

The name ``*`` stands for any name, with whatever below it.
"""

ANY_NAME = "*"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something doubtful in one pattern.

    Attributes:
        name: of the pattern.
        path: the field concerned, as ``detail.channel``; empty for the pattern as a whole.
        message: a sentence.
    """

    name: str
    path: str
    message: str

    def __str__(self) -> str:
        """Put it in a line."""
        return (
            f"{self.name!r}: {self.path}: {self.message}" if self.path else f"{self.name!r}: {self.message}"
        )


def lint(
    patterns: Mapping[str, str],
    known: Known | None = None,
    decides: Callable[[str, str], bool] = lambda _earlier, _later: True,
) -> list[Finding]:
    """Look for patterns that can never match, or never decide.

    Args:
        patterns: by name; where several match an event, the first is taken to decide.
        known: the fields an event can have; None if they are not known, and any field may be.
        decides: whether the first of two patterns, where both match, leaves nothing to the second; it may be limited
            by something else than its text.

    Returns:
        Findings in the order of the patterns, those of one pattern in the order of its fields.
    """
    parsed: dict[str, Parsed] = {}
    findings: dict[str, list[Finding]] = {}
    for name, text in patterns.items():
        try:
            parsed[name] = parse(text)
        except PatternError as error:
            findings[name] = [Finding(name, error.path, _said(error))]
    shadowed = dict(_shadowed({name: patterns[name] for name in parsed}, parsed, decides))
    for name, (branches, replaced) in parsed.items():
        said = [
            (path, "is named twice, and the later condition replaces the earlier")
            for path in sorted(replaced)
        ]
        for field in dict.fromkeys(field for branch in branches for field in branch):
            said += ((field.path, message) for message in _doubts(field, known))
        if name in shadowed:
            said.append(("", shadowed[name]))
        findings[name] = [Finding(name, path, message) for path, message in dict.fromkeys(said)]
    return [finding for name in patterns for finding in findings[name]]


def _said(error: PatternError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _doubts(field: Field, known: Known | None) -> Iterator[str]:
    for test in field.tests:
        if isinstance(test, Between) and _is_empty(test):
            yield f"no number lies between {test.low} and {test.high}"
    if known is None:
        return
    node, _ = _found(known, field.path)
    if doubt := doubtful(field.path, known):
        yield doubt
    elif node is not None:
        yield from _strange(field, node)


def doubtful(path: str, known: Known) -> str:
    """Say why there can hardly be a value at a path; empty if there can."""
    node, doubt = _found(known, path)
    if isinstance(node, Mapping):
        return "it is an object: only the values inside it can be asked for"
    return doubt


def _is_empty(test: Between) -> bool:
    neighbours = math.nextafter(test.low, test.high) == test.high
    return neighbours and not (test.low_included or test.high_included)


def _found(known: Known, path: str) -> tuple[Known | Collection[str] | None, str]:
    """Follow a path; returns what is there, and what is wrong with the path, if anything."""
    node: Known | Collection[str] | None = known
    steps = path.split(".")
    for number, step in enumerate(steps):
        if not isinstance(node, Mapping):
            if step in OPERATORS:
                return (
                    None,
                    f"{step!r} is an operator, but stands where a field does: it belongs into [{{…}}]",
                )
            return None, f"{'.'.join(steps[:number])!r} is a value, and has no fields"
        if step not in node and ANY_NAME not in node:
            return None, "there is no such field" + _meant(_alike(known, node, steps, number))
        if step not in node and node[ANY_NAME] is None:
            return None, ""  # the rest is part of the name, dots and all
        node = node[step] if step in node else node[ANY_NAME]
    return node, ""


def _alike(known: Known, node: Known, steps: list[str], number: int) -> str:
    """Find the field that was meant: one spelled alike, or one spelled so that stands elsewhere."""
    close = _closest(steps[number], node)
    if close:
        return ".".join([*steps[:number], close, *steps[number + 1 :]])
    return next((path for path in _paths(known, "") if path.rpartition(".")[2] == steps[number]), "")


def _paths(node: Known, prefix: str) -> Iterator[str]:
    for name, below in node.items():
        yield prefix + name
        if isinstance(below, Mapping):
            yield from _paths(below, f"{prefix}{name}.")


def _strange(field: Field, values: Collection[str]) -> Iterator[str]:
    for test in field.tests:
        for one in test.tests if isinstance(test, AnythingBut) else (test,):
            if not isinstance(one, Absent) and not any(one.accepts(value) for value in values):
                spelled = example(one)
                close = _closest(spelled, values) if isinstance(spelled, str) else ""
                shown = (
                    "a range of numbers"
                    if isinstance(one, Between)
                    else json.dumps(spelled, ensure_ascii=False)
                )
                yield f"{shown} fits none of the values known" + _meant(close)
        if isinstance(test, AnythingBut) and not any(test.accepts(value) for value in values):
            yield "it excludes all of the values known"


def _closest(word: str, words: Iterable[str]) -> str:
    folded = {one.casefold(): one for one in words if one != ANY_NAME}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[close[0]] if close else ""


def _meant(close: str) -> str:
    return f"; did you mean {close!r}?" if close else ""


def _shadowed(
    texts: Mapping[str, str], parsed: Mapping[str, Parsed], decides: Callable[[str, str], bool]
) -> Iterator[tuple[str, str]]:
    """Find the patterns all of whose branches are covered by patterns before them."""
    together = PatternSet(texts)
    for name, (branches, _) in parsed.items():
        by = dict.fromkeys(_covering(branch, name, together, parsed, decides) for branch in branches)
        if None not in by:
            earlier = " and ".join(repr(one) for one in by)
            yield name, f"it never decides: every event that it matches is matched by {earlier} before it"


def _covering(
    branch: Branch,
    name: str,
    together: PatternSet,
    parsed: Mapping[str, Parsed],
    decides: Callable[[str, str], bool],
) -> str | None:
    """Name the first pattern before this one that covers the branch; only those that take its witness can."""
    candidates = together.matching(witness(branch))
    earlier = (one for one in takewhile(lambda one: one != name, candidates) if decides(one, name))
    return next((e for e in earlier if any(covers(wide, branch) for wide in parsed[e].branches)), None)
