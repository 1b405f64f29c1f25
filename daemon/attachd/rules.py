"""Rules × event → bots and the rule that chose them, or no bot and the reason, or: ask for the contact's attributes.

Pure: never a clock read, never I/O. First match wins, in the order of the configuration. Patterns are matched all at
once; what a rule asks beside its pattern is asked of those that match, in order, until one decides.

Attributes are the one thing that no event tells. A pattern that asks for them is taken apart: branches of it that do
not are decided by the event alone; of the others the event's part is, and if that holds the rule is *undecided*. It
has to be decided only if no rule before it matches.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, overload

from attachd import safety
from attachd.errors import Permanent
from attachd.model import Choice, ContactEvent, Outcome
from attachd.patterns import EventError, Pattern, PatternSet
from attachd.rule import ATTRIBUTES, Rule, Seen, Unknown, choice, gives, of_attributes, stopped

__all__ = ["Rule", "Rules", "Undecided", "Verdict"]


@dataclass(frozen=True, slots=True)
class Undecided:
    """The event alone does not tell: this rule asks for the contact's attributes. See ``Choice`` for the rest."""

    rule: str
    priority: int = 0
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of one event, for ``attachd explain``.

    Attributes:
        stopped: where it ended: ``pattern``, ``attributes``, ``never`` (Connect takes no bot there), ``role``, ``left out``,
            ``active`` or ``percent``; empty if it matched.
    """

    rule: str
    stopped: str
    why: str

    @property
    def matched(self) -> bool:
        """Whether the rule would decide, were it the first."""
        return not self.stopped


class Rules:
    """The rules in force."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._told = [_Told.of(rule.when) for rule in self._rules]
        self._whole = PatternSet({str(n): rule.when for n, rule in enumerate(self._rules)})
        self._asks = any(told.asks for told in self._told)
        self._always = [n for n, told in enumerate(self._told) if told.always]
        self._part = PatternSet(
            {f"{n} {sort}": part for n, told in enumerate(self._told) for sort, part in told.parts()}
            if self._asks
            else {}
        )
        #: Every bot that a rule may give, by name.
        self.bots = {bot.name: bot for rule in self._rules for bot in rule.every_bot}
        self.opens_on_updates = any("updates" in rule.include for rule in self._rules)

    @overload
    def choose(self, event: ContactEvent, attributes: None = None) -> Choice | Undecided: ...
    @overload
    def choose(self, event: ContactEvent, attributes: Mapping[str, str]) -> Choice: ...
    def choose(self, event: ContactEvent, attributes: Mapping[str, str] | None = None) -> Choice | Undecided:
        """The first rule that matches decides, or the first that cannot without attributes says so.

        Args:
            event: an opening event, or an update.
            attributes: the contact's, if they have been read; then nothing is undecided.

        Raises:
            Permanent: ``no_bot``, with the reason; ``too_large`` if the event is beyond what can be matched.
        """
        if (reason := safety.impossible(event.contact)) is not None:
            raise Permanent(Outcome.NO_BOT, detail=reason)
        seen, passed = Seen(event, attributes), ""
        with _matchable():
            for rule, certain in self._matching(seen):
                try:
                    _, why = stopped(rule, seen)
                    if why:
                        passed = passed or f"; {rule.name!r} would have, but {why}"
                    elif certain:
                        return choice(rule, seen)
                    else:
                        return Undecided(rule.name, rule.priority, rule.patience)
                except Unknown:
                    return Undecided(rule.name, rule.priority, rule.patience)
        raise Permanent(Outcome.NO_BOT, detail=f"no rule matched{passed}")

    def explain(self, event: ContactEvent, attributes: Mapping[str, str] | None = None) -> Iterator[Verdict]:
        """Rule by rule, what matched and where it stopped.

        Raises:
            Permanent: ``too_large`` if the event is beyond what can be matched.
        """
        seen, impossible = Seen(event, attributes), safety.impossible(event.contact)
        for rule, told in zip(self._rules, self._told, strict=True):
            with _matchable():
                where, why = told.stopped(rule, seen)
                try:
                    if not where:
                        where, why = ("never", impossible) if impossible else stopped(rule, seen)
                    why = why or gives(rule, seen)
                except Unknown:
                    where, why = (
                        ATTRIBUTES,
                        "the event fits; what it asks besides are the contact's attributes",
                    )
            yield Verdict(rule.name, where, why)

    def _matching(self, seen: Seen) -> Iterator[tuple[Rule, bool]]:
        """The rules whose patterns match, in order; False for those that match only if the attributes do."""
        if seen.attributes is not None or not self._asks:
            for whole in self._whole.decide(seen.document):
                yield self._rules[int(whole)], True
            return
        found = dict.fromkeys(self._always, False)
        for part in self._part.decide(seen.document):
            number, _, sort = part.partition(" ")
            found[int(number)] = found.get(int(number), False) or sort == _CERTAIN
        for n in sorted(found):
            yield self._rules[n], found[n]


_CERTAIN: Final = "certain"
_PERHAPS: Final = "perhaps"


@dataclass(frozen=True, slots=True)
class _Told:
    """What an event tells of a pattern that may ask for attributes.

    Attributes:
        asks: whether it does.
        certain: its branches that do not.
        perhaps: the others, without what they ask of attributes.
        always: whether one of those asks nothing else.
    """

    asks: bool
    certain: Pattern | None
    perhaps: Pattern | None
    always: bool

    @classmethod
    def of(cls, pattern: Pattern) -> "_Told":
        if not any(of_attributes(one.path) for branch in pattern.branches for one in branch):
            return cls(asks=False, certain=pattern, perhaps=None, always=False)
        parts = [
            (tuple(one for one in branch if not of_attributes(one.path)), branch)
            for branch in pattern.branches
        ]
        certain = tuple(branch for part, branch in parts if part == branch)
        perhaps = tuple(part for part, branch in parts if part and part != branch)
        return cls(
            asks=True,
            certain=Pattern.of(certain) if certain else None,
            perhaps=Pattern.of(perhaps) if perhaps else None,
            always=any(not part for part, _ in parts),
        )

    def parts(self) -> Iterator[tuple[str, Pattern]]:
        if self.certain is not None:
            yield _CERTAIN, self.certain
        if self.perhaps is not None:
            yield _PERHAPS, self.perhaps

    def stopped(self, rule: Rule, seen: Seen) -> tuple[str, str]:
        """Where the event, or what is known of it, ends the matter; two empty texts if it matches."""
        if seen.attributes is not None or not self.asks:
            if rule.when.decide(seen.document):
                return "", ""
            return "pattern", str(rule.when.explain(seen.document))
        if self.certain is not None and self.certain.decide(seen.document):
            return "", ""
        if not self.always and self.perhaps is not None and not self.perhaps.decide(seen.document):
            return "pattern", str(self.perhaps.explain(seen.document))
        asked = sorted(
            {one.path for branch in rule.when.branches for one in branch if of_attributes(one.path)}
        )
        return ATTRIBUTES, f"the event fits; the contact's attributes decide: {', '.join(asked)}"


@contextmanager
def _matchable() -> Iterator[None]:
    try:
        yield
    except EventError as error:
        raise Permanent(Outcome.TOO_LARGE, detail=f"the event cannot be matched: {error}") from None
