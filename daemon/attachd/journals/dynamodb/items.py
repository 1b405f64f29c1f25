"""What stands in the table: entries and beats as DynamoDB's items, and back. Pure."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any, Final

from attachd.lifecycle import Entry, Stage, Wanted
from attachd.model import Beat

#: The attribute that items expire by.
TTL: Final = "expires_at"
REPLICAS: Final = {"id": {"S": "replicas"}}
RECALLED: Final = {"id": {"S": "recalled"}}


def key(contact_id: str) -> dict[str, Any]:
    """The key of a contact's item."""
    return {"id": {"S": f"contact#{contact_id}"}}


def number(value: float) -> dict[str, str]:
    """A number, exactly."""
    return {"N": repr(value)}


def item_of(entry: Entry) -> dict[str, Any]:
    """A contact's item; what is not known is left out."""
    values = {name: value for name, value in asdict(entry).items() if value is not None}
    return key(entry.contact_id) | {
        name: {"S": str(value)} if isinstance(value, str) else number(value) for name, value in values.items()
    }


def entry_of(item: Mapping[str, Any]) -> Entry:
    """What a contact's item says; ``KeyError``, ``TypeError`` or ``ValueError`` if it is none of ours."""
    values = {name: _value(name, value) for name, value in item.items() if name not in {"id", TTL}}
    return Entry(**values | {"stage": Stage(values["stage"])})


def _value(name: str, value: Mapping[str, str]) -> Any:
    """Every number but those that count is a time."""
    if "N" not in value:
        return value["S"]
    return int(value["N"]) if name in {"version", "generation"} else float(value["N"])


def filter_of(wanted: Wanted) -> dict[str, Any]:
    """Scan's filter: what it leaves out is read, and paid for, all the same."""
    terms = ["begins_with(#id, :contact)"]
    names, values = {"#id": "id"}, {":contact": {"S": "contact#"}}

    def ask(term: str, name: str, **given: dict[str, str]) -> None:
        terms.append(term)
        names[f"#{name}"] = name
        values.update({f":{key}": value for key, value in given.items()})

    stages = {f"stage{number}": {"S": str(stage)} for number, stage in enumerate(sorted(wanted.stages))}
    ask(f"#stage IN ({', '.join(f':{key}' for key in stages)})", "stage", **stages)
    if wanted.bot is not None:
        ask("#bot = :bot", "bot", bot={"S": wanted.bot})
    if isfinite(wanted.since):
        ask("#changed_at >= :since", "changed_at", since=number(wanted.since))
    if isfinite(wanted.before):
        ask("#changed_at < :before", "changed_at", before=number(wanted.before))
    return {
        "FilterExpression": " AND ".join(terms),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def value_of(beat: Beat) -> dict[str, Any]:
    """What a replica writes beside its name."""
    return {"M": {name: number(value) for name, value in asdict(beat).items() if name != "owner"}}


def beats_of(attributes: Mapping[str, Any]) -> list[Beat]:
    """All replicas' beats, of the item that they share."""
    rows = {owner: value["M"] for owner, value in attributes.items() if "M" in value}
    return [
        Beat(owner, int(row["count"]["N"]), int(row["waiting"]["N"]), float(row["reserved"]["N"]))
        for owner, row in rows.items()
    ]
