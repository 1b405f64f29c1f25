"""A pattern ready to match.

Here: the two questions asked of one pattern: does it match, and if not, why. Reading patterns and events is done
elsewhere; many patterns against one event are ``index``' affair.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attachd.patterns.conditions import Condition, Conditions, compiled
from attachd.patterns.descent import Step, Unusual, holds
from attachd.patterns.event import EventError, FlatEvent, Wanted, flatten, read
from attachd.patterns.numerals import Leaf, Numeral
from attachd.patterns.parse import Branch, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

_VALUES_SHOWN = 5
_CHARACTERS_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why an event does not match: the first field, in the order written, that fails.

    With $or, the branch that comes nearest speaks.

    Attributes:
        path: the field, as ``detail.eventType``; empty if the event is refused as a whole.
        has: the event's values there as JSON, shortened; empty if it has none.
        wants: the field's alternatives as the pattern spells them, shortened.
        reason: ``missing``, ``different``, ``present`` (it should be absent), ``other element`` (a value fits, but
            only in an array element which an earlier field rules out), or ``refused: …``, with a sentence.
    """

    path: str
    has: tuple[str, ...]
    wants: str
    reason: str

    def __str__(self) -> str:
        """Put it in a sentence."""
        if not self.path and self.reason.startswith("refused"):
            return self.reason
        has = ", ".join(self.has) if self.has else "nothing"
        return f"{self.path}: the event has {has}; the pattern wants {self.wants} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled event pattern; make one with ``compile_pattern``.

    Attributes:
        branches: what was read, for indexes and linters.
    """

    branches: tuple[Branch, ...]
    _wanted: Wanted
    _compiled: tuple[Conditions, ...]
    _step: Step | None

    @classmethod
    def of(cls, branches: tuple[Branch, ...]) -> Pattern:
        """Compile what was read: at least one branch, each with at least one field."""
        wanted = Wanted.of({field.path for branch in branches for field in branch})
        made = compiled(branches, {})
        return cls(branches, wanted, made, Step.of(made[0].written) if len(made) == 1 else None)

    def matches(self, event: str | bytes | Mapping[str, Any]) -> bool:
        """Tell whether the event matches. What is no event, or is beyond the bounds, does not; ``explain`` says so.

        Args:
            event: JSON text, or a mapping as JSON text parses to.
        """
        try:
            return self.decide(event)
        except EventError:
            return False

    def decide(self, event: str | bytes | Mapping[str, Any]) -> bool:
        """Do as ``matches``, for those who must tell an event that does not match from one that cannot.

        Raises:
            EventError: the event is not a JSON object, or larger than the bounds.
        """
        root = read(event)
        if self._step is not None:
            try:
                return holds(self._step, root)
            except Unusual:
                pass
        flat = flatten(root, self._wanted)
        return any(conditions.match(flat) for conditions in self._compiled)

    def explain(self, event: str | bytes | Mapping[str, Any]) -> Mismatch | None:
        """Say why the event does not match; None if it does."""
        try:
            root = read(event)
            if self.decide(root):
                return None
            flat = flatten(root, self._wanted)
            return _explained(max(self._compiled, key=lambda branch: _nearness(branch, flat)), flat)
        except EventError as error:
            return Mismatch("", (), "", f"refused: {error}")


def compile_pattern(text: str | bytes) -> Pattern:
    """Compile an event pattern, once, to match many events.

    Args:
        text: the pattern as JSON, as one would give it to EventBridge's PutRule.

    Raises:
        PatternError: it is not an event pattern; the message is event-ruler's, with path, line and column.
    """
    return Pattern.of(parse(text).branches)


def _nearness(branch: Conditions, event: FlatEvent) -> float:
    return sum(condition.holds(event) for condition in branch.written) / len(branch.written)


def _explained(branch: Conditions, event: FlatEvent) -> Mismatch:
    for condition in branch.written:
        if not condition.holds(event):
            return _mismatch(condition, event)
    contradiction = branch.contradiction(event) or branch.written[0]
    return _mismatch(contradiction, event, "other element")


def _mismatch(condition: Condition, event: FlatEvent, reason: str = "") -> Mismatch:
    values = event.values.get(condition.path, [])
    has = tuple(_shown(spelled(value)) for value, _ in values[:_VALUES_SHOWN])
    reason = reason or (("present" if condition.may_be_absent else "different") if has else "missing")
    return Mismatch(condition.path, has, _shown(condition.source), reason)


def spelled(value: Leaf) -> str:
    """Spell a value as JSON does."""
    match value:
        case Numeral(text=digits):
            return digits
        case float() if value.is_integer():
            return f"{value:.0f}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _shown(text: str) -> str:
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[: _CHARACTERS_SHOWN - 1]}…"
