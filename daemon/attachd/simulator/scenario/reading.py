"""From a scenario's text, and what the command line says besides, to dials. Pure: no file is opened here.

Keys are dials, each in one table; what makes sense is for `dials`, `flow` and `faults` to say. Every problem found is
told at once, each with the line and the key.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from attachd.simulator.delivery import Target
from attachd.simulator.dials import Dials
from attachd.simulator.faults import AnyFault, Faults
from attachd.simulator.flow import Step
from attachd.simulator.operations import connect, participant
from attachd.simulator.scenario.lines import Path, line_of
from attachd.simulator.traffic.plan import Traffic, read_traffic

OPERATIONS = frozenset(connect.OPERATIONS | participant.OPERATIONS)
_DIALS = TypeAdapter(Dials)
_FAULTS = TypeAdapter(Faults)
_CREATE = "CreateParticipant"
_PAIR = 2
_TRAFFIC = "traffic"
_FLAGS: Mapping[str, str] = {"instances": "instance-arn"}  # the option, where it is not the dial's name

# By table and key, the dial; what stands in none of them stands in [connect]
_ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "": {"seed": "seed", "faults": "faults"},
    "quotas": {
        name: name
        for name in (
            "metered",
            "concurrent_chats",
            "throttled_calls_spend_quota",
            "refused_calls_spend_quota",
            "send_message_and_send_event_share_a_quota",
        )
    },
    "events": {"target": "events", "delivery": "delivery"},
}
_TOLD_BY_QUOTAS = {"quotas", "rate", "burst"}
_PLACED = _TOLD_BY_QUOTAS.union(*(keys.values() for keys in _ELSEWHERE.values()))
_TABLES: Mapping[str, Mapping[str, str]] = {
    "connect": {each.name: each.name for each in fields(Dials) if each.name not in _PLACED},
    **_ELSEWHERE,
}
_Problem = tuple[Path, str]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Unreadable(ValueError):
    """What is wrong with a scenario, a sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is to be played."""

    dials: Dials
    traffic: Traffic | None = None


def read(
    text: str,
    *,
    given: Mapping[str, Any] = _NOTHING,
    otherwise: Mapping[str, Any] = _NOTHING,
    name: str = "scenario",
) -> Scenario:
    """Read a scenario's text; raises Unreadable.

    `given` are dials, by name and as JSON, which win over the text's, `otherwise` those which stand in for what it does
    not say; `name` is what problems begin with.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable([f"{name}: {error}"]) from None
    laid_out = _Layout(document, given, otherwise)
    problems = list(laid_out.problems)
    dials = None
    try:
        dials = _DIALS.validate_json(to_json(laid_out.dials), strict=True)
    except ValidationError as error:
        problems += [
            _told(details, laid_out.path(_plain(details["loc"], laid_out.dials)))
            for details in error.errors()
        ]
    problems += [(laid_out.path(path), what) for path, what in _strange_operations(laid_out.dials)]
    traffic = None
    if isinstance(document.get(_TRAFFIC), Mapping):
        try:
            traffic = read_traffic(document[_TRAFFIC])
        except ValueError as error:
            problems.append(_traffic_problem(str(error)))
    if dials is None or problems:
        raise Unreadable(_sentences(problems, text, name))
    return Scenario(dials, traffic)


def read_faults(body: bytes) -> tuple[AnyFault, ...]:
    """Read a JSON list of faults, as a scenario has them; raises Unreadable."""
    faults: tuple[AnyFault, ...] = ()
    try:
        document = {"faults": from_json(body)}
    except ValueError as error:
        raise Unreadable([f"not JSON: {error}"]) from None
    problems: list[_Problem] = []
    try:
        faults = _FAULTS.validate_json(body, strict=True)
    except ValidationError as error:
        for details in error.errors():
            path = _plain(("faults", *details["loc"]), document)
            problems.append(_told(details, path))
    problems += _strange_operations(document)
    if problems:
        raise Unreadable(f"{_written(path)}: {what}" for path, what in problems)
    return faults


@dataclass(slots=True)
class _Layout:
    """A document's values by dial, where each stands, and what has no place."""

    document: Mapping[str, Any]
    given: Mapping[str, Any]
    otherwise: Mapping[str, Any]
    dials: dict[str, Any] = field(init=False)
    problems: list[_Problem] = field(init=False)
    _places: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        self.dials, self.problems, self._places = dict(self.otherwise), [], {}
        known = [*_TABLES[""], *(table for table in _TABLES if table), _TRAFFIC]
        for key, value in self.document.items():
            if key in _TABLES[""]:
                self._put(key, value, (key,))
            elif key not in known:
                self.problems.append(((key,), f"there is no such key{_did_you_mean(key, known)}"))
            elif not isinstance(value, Mapping):
                self.problems.append(((key,), f"this is a table, [{key}], with keys of its own"))
            elif key != _TRAFFIC:
                self._lay_out(key, value)
        if self.dials.get("metered") == "all":
            self.dials["metered"] = None
        self._let_given_win()

    def _lay_out(self, table: str, values: Mapping[str, Any]) -> None:
        known = _TABLES[table]
        operations = OPERATIONS if table == "quotas" else frozenset[str]()
        for key, value in values.items():
            if key in known:
                self._put(known[key], value, (table, key))
            elif key in operations:
                self.dials.setdefault("quotas", {})[key] = value
            else:
                hint = _did_you_mean(key, [*known, *operations])
                self.problems.append(((table, key), f"there is no such key{hint}"))

    def _put(self, dial: str, value: Any, path: Path) -> None:
        self.dials[dial] = value
        self._places[dial] = path

    def _let_given_win(self) -> None:
        pair = self.dials.get("quotas", {}).get(_CREATE)
        if isinstance(pair, list) and len(pair) == _PAIR:
            # Or the quota of the file would win over --rate, being more exact
            self.dials["quotas"][_CREATE] = [
                self.given.get(dial, told) for dial, told in zip(("rate", "burst"), pair, strict=True)
            ]
        for dial, value in self.given.items():
            self._put(dial, value, (f"--{_FLAGS.get(dial, dial.replace('_', '-'))}",))

    def path(self, path: Path) -> Path:
        """Turn a path that begins with a dial into the document's."""
        dial = str(path[0])
        return (*self._places.get(dial, (dial,)), *path[1:])


def _plain(loc: Path, document: Any) -> Path:
    """Leave out the tags by which pydantic names the branch of a union: they are in no file."""
    here, path = document, []
    for step in loc:
        if isinstance(here, Mapping) and step not in here and step in {here.get("kind"), here.get("step")}:
            continue
        path.append(step)
        if isinstance(here, Mapping):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            here = None
    return tuple(path)


def _told(details: ErrorDetails, path: Path) -> _Problem:
    """Say what is wrong in our own words, and where exactly."""
    context = details.get("ctx", {})
    match details["type"]:
        case "unexpected_keyword_argument":
            return path, f"there is no such key{_did_you_mean(str(path[-1]), _members(details['loc']))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return path, "is missing"
        case "union_tag_invalid":
            known = str(context["expected_tags"]).replace("'", "").split(", ")
            what = f"there is no {context['tag']!r}{_did_you_mean(str(context['tag']), known)}"
            return (*path, _word(context["discriminator"])), what
        case "union_tag_not_found":
            return (*path, _word(context["discriminator"])), "is missing"
        case _:
            message = details["msg"].removeprefix("Value error, ")
            return path, message[:1].lower() + message[1:]


def _word(quoted: object) -> str:
    return str(quoted).strip("'")


def _traffic_problem(sentence: str) -> _Problem:
    """Take `traffic.customers[0].says: what is wrong` apart."""
    place, _, what = sentence.partition(": ")
    steps = re.findall(r"[^.\[\]]+", place)
    return tuple(int(step) if step.isdecimal() else step for step in steps), what[:1].lower() + what[1:]


def _members(loc: Path) -> list[str]:
    """Return what keys there are beside an unknown one: it stands behind the tag of a step or a fault."""
    tag = loc[-2] if len(loc) > 1 else None
    return [name for name in _MEMBERS.get(str(tag), ()) if name not in {"kind", "step"}]


def _tagged(union: Any, tag: str) -> Iterator[tuple[str, list[str]]]:
    for record in get_args(get_args(union)[0]):
        names = {each.name: each.default for each in fields(record)}
        yield str(names[tag]), list(names)


_MEMBERS: Mapping[str, list[str]] = dict(
    [*_tagged(Step, "step"), *_tagged(AnyFault, "kind"), *_tagged(Target, "kind")]
)


def _strange_operations(dials: Mapping[str, Any]) -> Iterator[_Problem]:
    """Find operations which are none, in lists of them."""
    lists: list[tuple[Path, Any]] = [(("metered",), dials.get("metered"))]
    faults = dials.get("faults")
    for number, fault in enumerate(faults if isinstance(faults, list) else []):
        if isinstance(fault, Mapping):
            lists.append((("faults", number, "operations"), fault.get("operations")))
    for path, names in lists:
        for name in names if isinstance(names, list) else []:
            if isinstance(name, str) and name not in OPERATIONS:
                yield path, f"there is no operation {name!r}{_did_you_mean(name, OPERATIONS)}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known := sorted(known), n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known)}" if known else ""


def _sentences(problems: Iterable[_Problem], text: str, name: str) -> Iterator[str]:
    """Write problems in the order of the text, those of what was given first."""
    placed = [
        (0 if str(path[0]).startswith("--") else line_of(text, path), path, what) for path, what in problems
    ]
    for line, path, what in sorted(placed, key=lambda each: each[0]):
        yield f"{name}:{line}: {_written(path)}: {what}" if line else f"{_written(path)}: {what}"


def _written(path: Path) -> str:
    """Write `connect.flow[0].seconds`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
