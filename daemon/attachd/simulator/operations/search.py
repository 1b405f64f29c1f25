"""SearchContacts: contacts by time, channel, method, queue and agent, a page at a time. Reads the world, moves nothing.

Criteria which are not played are refused by name, never ignored.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from attachd.simulator.errors import ApiError
from attachd.simulator.operations.addressed import instance_of
from attachd.simulator.state.nouns import Contact
from attachd.simulator.state.world import World

_PAGE = 100  # AWS: SearchContacts, MaxResults, at most 100; the default is assumed to be the same
_LONGEST_SECONDS = 8 * 7 * 86400.0  # the console's bound, eight weeks; for the API assumed

_MOMENTS: Mapping[str, Callable[[Contact], float | None]] = {
    "INITIATION_TIMESTAMP": lambda contact: contact.started_at,
    "CONNECTED_TO_AGENT_TIMESTAMP": lambda contact: contact.agent_connected_at,
    "DISCONNECT_TIMESTAMP": lambda contact: contact.ended_at,
    "ENQUEUE_TIMESTAMP": lambda contact: contact.enqueued_at,
    "SCHEDULED_TIMESTAMP": lambda _contact: None,  # a chat has none
}
_CRITERIA: Mapping[str, Callable[[Contact], str | None]] = {
    "Channels": lambda contact: contact.channel,
    "InitiationMethods": lambda contact: contact.initiation_method,
    "QueueIds": lambda contact: _id_in(contact.queue_arn),
    "AgentIds": lambda contact: _id_in(contact.agent_arn),
}

_Place = tuple[float, str]


def search_contacts(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Find contacts, ended ones too; contacts that come meanwhile do not shift the pages still to be read."""
    instance = instance_of(world, request)
    moment, start, end = _range_of(request["TimeRange"])
    sort_by, descending = _order_of(request.get("Sort"))
    wanted = _criteria_of(request.get("SearchCriteria") or {})
    found: list[tuple[_Place, Contact]] = []
    for contact in world.contacts.values():
        at = moment(contact) if contact.instance is instance else None
        if at is not None and start <= at <= end and _fits(contact, wanted):
            found.append(((sort_by(contact) or 0.0, contact.id), contact))
    found.sort(key=lambda entry: entry[0], reverse=descending)
    answer: dict[str, Any] = {"TotalCount": len(found)}
    if "NextToken" in request:
        last = _place_of(request["NextToken"])
        found = [entry for entry in found if (entry[0] < last if descending else entry[0] > last)]
    size = request.get("MaxResults", _PAGE)
    answer["Contacts"] = [_summary(contact) for _, contact in found[:size]]
    if len(found) > size:
        answer["NextToken"] = base64.urlsafe_b64encode(msgspec.json.encode(found[size - 1][0])).decode()
    return answer


def _range_of(asked: dict[str, Any]) -> tuple[Callable[[Contact], float | None], float, float]:
    start, end = asked["StartTime"], asked["EndTime"]
    if end < start:
        raise ApiError("InvalidParameterException", "TimeRange.EndTime must not be before StartTime")
    if end - start > _LONGEST_SECONDS:
        raise ApiError("InvalidParameterException", "TimeRange must not be longer than eight weeks")
    return _MOMENTS[asked["Type"]], start, end


def _order_of(asked: dict[str, Any] | None) -> tuple[Callable[[Contact], float | None], bool]:
    """Return what to sort by and whether downwards; the order without a Sort is assumed."""
    if asked is None:
        return _MOMENTS["INITIATION_TIMESTAMP"], False
    if asked["FieldName"] not in _MOMENTS:
        raise ApiError("InvalidParameterException", "Sort.FieldName: the simulator plays timestamps only yet")
    return _MOMENTS[asked["FieldName"]], asked["Order"] == "DESCENDING"


def _criteria_of(asked: dict[str, Any]) -> list[tuple[Callable[[Contact], str | None], list[str]]]:
    for name, value in asked.items():
        if value is not None and name not in _CRITERIA:
            raise ApiError(
                "InvalidParameterException", f"SearchCriteria: the simulator does not play {name} yet"
            )
    return [(_CRITERIA[name], values) for name, values in asked.items() if values]


def _fits(contact: Contact, wanted: list[tuple[Callable[[Contact], str | None], list[str]]]) -> bool:
    return all(value_of(contact) in values for value_of, values in wanted)


def _place_of(token: str) -> _Place:
    try:
        place: _Place = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()), type=_Place)
    except (ValueError, msgspec.DecodeError):
        raise ApiError(
            "InvalidParameterException", "NextToken is not one that SearchContacts returned"
        ) from None
    return place


def _id_in(arn: str | None) -> str | None:
    return None if arn is None else arn.rpartition("/")[2]


def queue_info(contact: Contact) -> dict[str, Any] | None:
    """Write a QueueInfo, None before the contact has been in a queue."""
    if contact.queue_arn is None:
        return None
    return {"Id": _id_in(contact.queue_arn), "EnqueueTimestamp": contact.enqueued_at}


def agent_info(contact: Contact) -> dict[str, Any] | None:
    """Write an AgentInfo, None before an agent has joined."""
    if contact.agent_arn is None:
        return None
    return {"Id": _id_in(contact.agent_arn), "ConnectedToAgentTimestamp": contact.agent_connected_at}


def _summary(contact: Contact) -> dict[str, Any]:
    """Write a ContactSearchSummary."""
    summary = {
        "Arn": contact.instance.contact_arn(contact.id),
        "Id": contact.id,
        "InitialContactId": contact.initial_contact_id if contact.previous_contact_id else None,
        "PreviousContactId": contact.previous_contact_id,
        "InitiationMethod": contact.initiation_method,
        "Channel": contact.channel,
        "QueueInfo": queue_info(contact),
        "AgentInfo": agent_info(contact),
        "InitiationTimestamp": contact.started_at,
        "DisconnectTimestamp": contact.ended_at,
        "SegmentAttributes": contact.segment_attributes,
        "Tags": contact.tags,
    }
    return {name: value for name, value in summary.items() if value is not None}


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "SearchContacts": search_contacts,
}
