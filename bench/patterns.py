"""Events a second against 1 to 10,000 rules: a PatternSet, its patterns one by one, and moto's matcher.

All in one run and on the same events, so that the ratios hold on any machine. ``exact`` rules ask for one value of
each of four fields; ``mixed`` ones go through all operators. Events are contact events as mappings, parsed before. Each
contestant must find the same names first.
"""

import json
import random
import time
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

from moto.events.models import EventPattern
from rich.console import Console
from rich.table import Table

from attachd.patterns import PatternSet, compile_pattern

RULES = (1, 10, 100, 1_000, 10_000)
EVENTS = 200
SECONDS = 0.5

Match = Callable[[dict[str, Any]], list[Any]]


def main() -> None:
    """Print events a second and the ratios."""
    console = Console()
    for name, make in (("exact", exact), ("mixed", mixed)):
        table = Table(
            "rules", "PatternSet", "one by one", "moto", "× one by one", "× moto", title=f"{name}: events/s"
        )
        for count in RULES:
            rules = {f"rule {n}": json.dumps(make(n)) for n in range(count)}
            tried = [event(random.Random(n), count) for n in range(EVENTS)]
            contestants = [indexed(rules), one_by_one(rules), moto(rules)]
            found = [[contestant(one) for one in tried[:2]] for contestant in contestants]
            assert found[0] == found[1] == found[2], "they disagree"  # noqa: S101 - a race of equals
            ours, naive, peer = (rate(contestant, tried) for contestant in contestants)
            shown = (
                f"{ours:,.0f}",
                f"{naive:,.0f}",
                f"{peer:,.0f}",
                f"{ours / naive:,.1f}",
                f"{ours / peer:,.0f}",
            )
            table.add_row(f"{count:,}", *shown)
        console.print(table)
    table = Table(
        "arrays",
        "objects",
        "Pattern",
        "of text",
        "PatternSet",
        title="four fields over arrays of objects: ms an event",
    )
    for name, asked in (("one", 1), ("one in each of 40", 40)):
        nested = {"a": [{"b": [_record(n, m) for m in range(40)]} for n in range(asked)]}
        fields = {f"f{n}": [{"prefix": "4"}, "0-0"] for n in range(3)}
        text = json.dumps({"a": {"b": {**fields, "f3": ["0-1"]}}})  # what no object has together
        pattern, together, spelled = compile_pattern(text), PatternSet({"one": text}), json.dumps(nested)
        asks: list[Match] = [
            lambda event, one=pattern: [one.matches(event)],  # type: ignore[misc]
            lambda _, one=pattern, spelled=spelled: [one.matches(spelled)],  # type: ignore[misc]
            together.matching,
        ]
        table.add_row(name, f"{40 * asked:,}", *(f"{1000 / rate(ask, [nested]):.2f}" for ask in asks))
    console.print(table)


def _record(outer: int, inner: int) -> dict[str, str]:
    return {f"f{n}": f"{outer}-{inner}" for n in range(4)}


def exact(number: int) -> dict[str, Any]:
    """A rule as most are: one tenant's chats."""
    detail = {"channel": ["CHAT"], "eventType": ["INITIATED"], "tags": {"tenant": [f"t{number}"]}}
    return {"source": ["aws.connect"], "detail": detail}


def mixed(number: int) -> dict[str, Any]:
    """A rule by one operator or another, no two alike."""
    tags = [
        {"tenant": [f"t{number}"]},
        {"tenant": [{"prefix": f"t{number}-"}]},
        {"page": [{"suffix": f"/{number}"}]},
        {"tenant": [{"equals-ignore-case": f"T{number}"}]},
        {"page": [{"wildcard": f"https://*.example/shop/*/{number}"}]},
        {"spent": [{"numeric": [">=", number, "<", number + 5]}]},
        {"address": [{"cidr": f"10.{number // 256 % 256}.{number % 256}.0/24"}]},
        {"tenant": [{"anything-but": {"prefix": "t"}}], "spent": [number]},
        {"vip": [{"exists": True}], "tenant": [f"t{number}"]},
        {"vip": [{"exists": False}], "tenant": [f"t{number}", f"t{number + 1}"]},
    ]
    return {"source": ["aws.connect"], "detail": {"channel": ["CHAT"], "tags": tags[number % len(tags)]}}


def event(dice: random.Random, rules: int) -> dict[str, Any]:
    """A contact event that some of so many rules are for."""
    number = dice.randrange(rules)
    instance = "arn:aws:connect:eu-central-1:111122223333:instance/0b1c2d3e-0000-4000-8000-000000000001"
    tags: dict[str, Any] = {
        "aws:connect:instanceId": instance.rpartition("/")[2],
        "tenant": f"t{number}",
        "page": f"https://www.example/shop/item/{number}",
        "spent": number,
        "address": f"10.{number // 256 % 256}.{number % 256}.7",
    }
    if dice.random() < 0.5:  # noqa: PLR2004 - a coin
        tags["vip"] = "yes"
    return {
        "version": "0",
        "id": f"{dice.getrandbits(128):032x}",
        "detail-type": "Amazon Connect Contact Event",
        "source": "aws.connect",
        "account": "111122223333",
        "time": "2026-01-02T03:04:05Z",
        "region": "eu-central-1",
        "resources": [instance],
        "detail": {
            "eventType": "INITIATED",
            "contactId": f"{dice.getrandbits(128):032x}",
            "channel": "CHAT",
            "instanceArn": instance,
            "initiationMethod": "API",
            "initiationTimestamp": "2026-01-02T03:04:04.716Z",
            "segmentAttributes": {"connect:Subtype": {"ValueString": "connect:Chat"}},
            "tags": tags,
        },
    }


def indexed(rules: dict[str, str]) -> Match:
    """What attachd does."""
    return PatternSet(rules).matching


def one_by_one(rules: dict[str, str]) -> Match:
    """The same patterns without the index."""
    patterns = {name: compile_pattern(text) for name, text in rules.items()}
    return lambda event: [name for name, pattern in patterns.items() if pattern.matches(event)]


def moto(rules: dict[str, str]) -> Match:
    """What tests against moto do."""
    patterns = {name: EventPattern.load(text) for name, text in rules.items()}
    return lambda event: [name for name, pattern in patterns.items() if pattern.matches_event(event)]  # type: ignore[arg-type]


def rate(match: Match, events: list[dict[str, Any]]) -> float:
    """Measure events a second of processor time, on at least two events and for about SECONDS."""
    seen = 0
    endless = cycle(events)
    batch = 2
    start = time.process_time()
    while (spent := time.process_time() - start) < SECONDS or not seen:
        for one in islice(endless, batch):
            match(one)
        seen += batch
        batch = min(2 * batch, 1_000)
    return seen / spent


if __name__ == "__main__":
    main()
