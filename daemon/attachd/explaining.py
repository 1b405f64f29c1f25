"""What the rules make of one event, told to people and to programs; and whether they make of many what was expected.

Here: reading events and expectations from files, asking the rules, laying out the answers. Which bot it is, is
``rules``'s business.
"""

import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError, model_validator
from rich.table import Table
from rich.text import Text

from attachd.decode import MAX_BYTES, decode
from attachd.effects import UPDATED, Effect, effect
from attachd.errors import Misconfigured, Permanent
from attachd.model import ContactEvent
from attachd.rules import Rules, Undecided, Verdict
from attachd.settings.fields import Names
from attachd.settings.fields import Table as Expectations

EXPECTED: Final = "expected.toml"
_EVER: Final = 253_370_764_800.0  # 9999-01-01: an event that is tried may be from the future


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one event.

    Attributes:
        bots: in order of preference; none if there is no bot.
        rule: the one that decided, or asks for the contact's attributes; None if there is none.
        reason: a sentence.
        verdicts: rule by rule.
        undecided: whether it takes the contact's attributes to tell.
    """

    event: ContactEvent
    bots: tuple[str, ...]
    rule: str | None
    reason: str
    verdicts: tuple[Verdict, ...]
    undecided: bool = False

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "contact": self.event.contact.id,
            "event": self.event.type,
            "bot": self.bots[0] if self.bots else None,
            "bots": list(self.bots),
            "rule": self.rule,
            "reason": self.reason,
            "rules": [
                {"rule": one.rule, "matched": one.matched, "stopped": one.stopped or None, "why": one.why}
                for one in self.verdicts
            ],
        }

    def as_table(self) -> Table:
        """For people: rule by rule."""
        title = Text(printable(f"contact {self.event.contact.id} · {self.event.type}"))
        table = Table("", "rule", "stopped at", "why", title=title, title_justify="left")
        for one in self.verdicts:
            if one.stopped == "attributes":
                mark = Text("?", "yellow")
            elif not one.matched:
                mark = Text("✗", "red")
            else:  # or it would have decided, but another is before it
                mark = Text("✓", "green") if one.rule == self.rule else Text("·", "dim")
            table.add_row(mark, *(Text(printable(cell)) for cell in (one.rule, one.stopped, one.why)))
        return table


def explained(rules: Rules, body: bytes, attributes: Mapping[str, str] | None = None) -> Explanation:
    """Ask the rules what becomes of an event.

    Args:
        rules: those in force.
        body: the event, as the source would bring it.
        attributes: the contact's user attributes; None if nobody knows them.

    Raises:
        Permanent: it is no contact event, or cannot be matched.
    """
    event = decode(body, received_at=_EVER, max_bytes=MAX_BYTES)
    if event.time == _EVER:
        event = replace(event, time=time.time())
    verdicts = tuple(rules.explain(event, attributes))

    def none(reason: str, rule: str | None = None, *, undecided: bool = False) -> Explanation:
        return Explanation(event, (), rule, reason, verdicts, undecided)

    what = effect(event.contact.channel, event.type)
    if what is not Effect.OPENS and not (rules.opens_on_updates and event.type == UPDATED):
        return none(
            f"{event.type} opens no {event.contact.channel} contact for a bot: see docs/operations.md"
        )
    try:
        choice = rules.choose(event) if attributes is None else rules.choose(event, attributes)
    except Permanent as error:
        return none(error.detail, next((one.rule for one in verdicts if one.matched), None))
    if isinstance(choice, Undecided):
        return none(
            f"rule {choice.rule!r} asks for the contact's attributes: give them", choice.rule, undecided=True
        )
    bots = tuple(bot.name for bot in choice.bots)
    reason = f"rule {choice.rule!r} is the first that matches"
    return Explanation(event, bots, choice.rule, reason, verdicts)


class Expectation(Expectations):
    """What one event is to come to: a table of ``expected.toml``, named after the event's file."""

    bot: Names = ()
    no_bot: bool = False
    rule: str | None = None
    attributes: dict[str, str] | None = None

    @model_validator(mode="after")
    def _expects_something(self) -> "Expectation":
        if bool(self.bot) is self.no_bot:
            raise ValueError("write either 'bot' or 'no_bot = true'")
        return self


@dataclass(frozen=True, slots=True)
class Trial:
    """An event file, and what is wrong with what the rules make of it; empty if nothing is."""

    file: str
    got: str
    wrong: str

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"event": self.file, "good": not self.wrong, "got": self.got, "wrong": self.wrong or None}


def tried(rules: Rules, folder: Path) -> Iterator[Trial]:
    """Hold every ``*.json`` of a folder to its ``expected.toml``.

    Raises:
        Misconfigured: the expectations cannot be read, or expect nothing.
        OSError: there is no such folder.
    """
    expected = _expected(folder / EXPECTED)
    found = sorted(path.name for path in folder.iterdir() if path.suffix == ".json")
    for name in [*found, *sorted(expected.keys() - set(found))]:
        yield _trial(rules, folder / name, expected.get(name))


def _expected(path: Path) -> dict[str, Expectation]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured([f"{path}: {error.strerror}; it says which bot each event is to get"]) from None
    except (ValueError, RecursionError) as error:
        raise Misconfigured([f"{path}: {error}"]) from None
    expected: dict[str, Expectation] = {}
    problems: list[str] = []
    for name, table in tables.items():
        try:
            expected[name] = Expectation.model_validate(table)
        except ValidationError as error:
            problems += (
                f"{path}: [{name!r}] {' '.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors()
            )
    if not tables:
        problems.append(f'{path}: expects nothing: write a table for each event, ["chat.json"] bot = …')
    if problems:
        raise Misconfigured(problems)
    return expected


def _trial(rules: Rules, path: Path, expected: Expectation | None) -> Trial:
    try:
        told = explained(rules, path.read_bytes(), expected.attributes if expected else None)
    except (OSError, Permanent) as error:
        return Trial(path.name, "", str(error))
    bots = " → ".join(told.bots)
    got = f"{bots} by {told.rule!r}" if told.bots else f"no bot: {told.reason}"
    wrong = ""
    if expected is None:
        wrong = f"nothing is expected of it: add a table [{path.name!r}] to {EXPECTED}"
    elif expected.no_bot and (told.bots or told.undecided):
        wrong = "no bot was expected"
    elif expected.bot and told.bots[: len(expected.bot)] != expected.bot:
        wrong = f"expected {' → '.join(expected.bot)}"
    elif expected.rule is not None and told.rule != expected.rule:
        wrong = f"expected rule {expected.rule!r}"
    return Trial(path.name, got, wrong)


def printable(foreign: str) -> str:
    """Foreign text for a terminal: without what would steer it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in foreign)
