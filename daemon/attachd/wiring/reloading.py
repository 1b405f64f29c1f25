"""A new configuration under a running attachd: what of it can be in force at once, and what takes a restart.

Rules, ``[otherwise]`` and bots are only looked at when an event comes, so they can. All else is open: queues, journals,
clients, runtimes with their secrets.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from attachd import settings as s
from attachd.errors import Misconfigured

#: What is in force at once.
AT_ONCE = frozenset({"rules", "otherwise", "bots"})


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration that takes over from another.

    Attributes:
        config: what is in force from now on: the former one, with what can change at once.
        told: for the log: what was added, changed, removed, by name; empty if nothing was.
        needs_restart: the tables that differ and are not in force.
    """

    config: s.Settings
    told: Mapping[str, Any]
    needs_restart: tuple[str, ...]


def change(running: s.Settings, read: s.Settings) -> Change:
    """What becomes of the running configuration when this one is read.

    Raises:
        Misconfigured: its bots or rules ask for what only a restart can bring.
    """
    decisions = [*read.rules, *([read.otherwise] if read.otherwise else [])]
    asked = {bot.runtime for bot in read.bots} | {one.fallback for one in decisions if one.fallback}
    missing = sorted(asked - running.runtimes.keys())
    if missing:
        raise Misconfigured(
            f"[runtimes.{name}]: a bot or a rule asks for it, and it takes a restart to open it"
            for name in missing
        )
    others = s.Settings.model_fields.keys() - AT_ONCE
    return Change(
        config=running.model_copy(update={key: getattr(read, key) for key in AT_ONCE}),
        told=dict(_told(running, read)),
        needs_restart=tuple(sorted(key for key in others if getattr(running, key) != getattr(read, key))),
    )


def _told(running: s.Settings, read: s.Settings) -> Iterator[tuple[str, Any]]:
    for kind in ("rules", "bots"):
        before, after = _named(getattr(running, kind)), _named(getattr(read, kind))
        both = [name for name in after if name in before]
        differences = {
            "added": [name for name in after if name not in before],
            "changed": [name for name in both if before[name] != after[name]],
            "removed": [name for name in before if name not in after],
        }
        yield from ((f"{kind}_{what}", names) for what, names in differences.items() if names)
        if kind == "rules" and both != [name for name in before if name in after]:
            yield "rules_in_order", list(after)
    if running.otherwise != read.otherwise:
        yield "otherwise_changed", True


def _named(tables: tuple[s.Rule, ...] | tuple[s.Bot, ...]) -> dict[str, BaseModel]:
    return {table.name: table for table in tables}
