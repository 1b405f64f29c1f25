"""Pattern text into branches: each branch is a set of fields that must all hold.

Here: paths, duplicate keys and the forks of $or. No events, no matching.

Source: event-ruler's ``JsonRuleCompiler``. Paths are joined with dots, so ``{"a.b": …}`` is ``{"a": {"b": …}}``. A path
named twice keeps its last condition, even when a branch of $or names a path of the object around it: surprising, but
what the service does; a linter is the place to warn. $or forks every branch read so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from attachd.patterns.document import Array, Node, Object, error_at, read
from attachd.patterns.expressions import Expressions
from attachd.patterns.operators import OPERATORS

if TYPE_CHECKING:
    from attachd.patterns.operators import LeafTest

MAX_BRANCHES = 1_000
"""Combinations of $or that EventBridge accepts."""

MAX_CONDITIONS = 50_000
"""Fields over all branches together, so that forking stays small whatever the text."""

MAX_STEPS = 100
"""Steps of one path, dots in keys included."""

_RESERVED = OPERATORS | {"=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case"}
_RESERVED |= {"date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"}
_RESERVED |= {"ip-address-in-range", "ip-address-not-in-range"}


@dataclass(frozen=True, slots=True)
class Field:
    """One path of a pattern, its alternatives, and how the pattern spelled them."""

    path: str
    tests: tuple[LeafTest, ...]
    source: str


Branch = tuple[Field, ...]
"""Fields in the order written, no path twice."""


class Parsed(NamedTuple):
    """A pattern, read.

    Attributes:
        branches: at least one, each with at least one field; an event matches if any of them does.
        replaced: paths named again, where the later condition has taken the place of the earlier.
    """

    branches: tuple[Branch, ...]
    replaced: frozenset[str]


def parse(source: str | bytes) -> Parsed:
    """Read a pattern.

    Raises:
        PatternError: it is not a pattern, or beyond the bounds of this module and of ``document``.
    """
    text, root = read(source)
    if not isinstance(root, Object):
        raise error_at(text, root.start, "Filter is not an object")
    reader = _Forks(text)
    forks = reader.object(root, "", [{}], within_or=False)
    return Parsed(tuple(tuple(fork.values()) for fork in forks), frozenset(reader.replaced))


class _Forks:
    """Walks the objects of a pattern, carrying the branches read so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.replaced: set[str] = set()

    def _refuse(self, node: Node, message: str, path: str, hint: str = "") -> NoReturn:
        raise error_at(self._text, node.start, message, path, hint)

    def object(
        self, node: Object, path: str, forks: list[dict[str, Field]], *, within_or: bool
    ) -> list[dict[str, Field]]:
        """Add an object's fields to every branch; returns the branches, more of them after a $or."""
        if not node.members:
            self._refuse(node, "Empty objects are not allowed", path)
        for key, value in node.members:
            name = f"{path}.{key}" if path else key
            if key == "$or":
                forks = self._or(value, path, name, forks)
                continue
            if name.count(".") >= MAX_STEPS:
                self._refuse(value, f"The path has more than {MAX_STEPS} steps", name)
            if within_or and key in _RESERVED:
                self._refuse(
                    value, f"{key} is Ruler reserved fieldName which cannot be used inside $or.", name
                )
            match value:
                case Object():
                    forks = self.object(value, name, forks, within_or=within_or)
                case Array():
                    spelled = self._text[value.start : value.end]
                    field = Field(name, Expressions(self._text, name).tests(value), spelled)
                    for fork in forks:
                        if name in fork:
                            self.replaced.add(name)
                        fork[name] = field
                case _:
                    hint = f'an operator stands in an array: [{{"{key}": …}}]' if key in OPERATORS else ""
                    self._refuse(value, f'"{key}" must be an object or an array', name, hint)
            self._stay_small(value, name, forks)
        return forks

    def _or(self, node: Node, path: str, name: str, forks: list[dict[str, Field]]) -> list[dict[str, Field]]:
        if not isinstance(node, Array):
            self._refuse(node, "It must be an Array followed with $or.", name)
        forked: list[dict[str, Field]] = []
        for item in node.items:
            if not isinstance(item, Object):
                self._refuse(item, "Only JSON object is allowed in array of $or relationship.", name)
            forked += self.object(item, path, [dict(fork) for fork in forks], within_or=True)
            self._stay_small(item, name, forked)
        if len(node.items) < 2:  # noqa: PLR2004 - one alternative is no alternative
            self._refuse(node, "There must have at least 2 Objects in $or relationship.", name)
        return forked

    def _stay_small(self, node: Node, path: str, forks: list[dict[str, Field]]) -> None:
        if len(forks) > MAX_BRANCHES:
            self._refuse(node, f"The pattern has more than {MAX_BRANCHES} combinations of $or", path)
        if sum(map(len, forks)) > MAX_CONDITIONS:
            self._refuse(node, f"The pattern has more than {MAX_CONDITIONS} conditions over all $or", path)
