"""Amazon Connect contact events, in the exact shape which EventBridge delivers. Pure: it builds, `publish` sends."""

from typing import Any

from attachd.simulator.dials import Dials
from attachd.simulator.instants import iso_milliseconds, iso_seconds
from attachd.simulator.state.metrics import chat_metrics
from attachd.simulator.state.nouns import CHAT, Contact, Happening

_NEVER = "1970-01-01T00:00:00.001Z"  # AWS: contact events: the CHAT samples have it for what did not happen
_OVER = {"DISCONNECTED", "COMPLETED"}


def contact_event(happening: Happening, dials: Dials, event_id: str) -> dict[str, Any]:
    """Build the envelope (AWS: admin guide, "Amazon Connect contact events").

    User attributes are not in the event model; segment attributes and tags are. initialContactId and
    previousContactId are absent from a first contact, as in AWS's own CHAT samples.
    """
    contact, instance = happening.contact, happening.contact.instance
    detail = {
        "eventType": happening.event_type,
        "contactId": contact.id,
        "initialContactId": contact.initial_contact_id if contact.previous_contact_id else None,
        "previousContactId": contact.previous_contact_id,
        "relatedContactId": contact.related_contact_id,
        "channel": contact.channel,
        "instanceArn": instance.arn,
        "initiationMethod": contact.initiation_method,
        "initiationTimestamp": iso_milliseconds(contact.started_at),
        "connectedToSystemTimestamp": _connected(contact, dials),
        "disconnectTimestamp": _moment(contact.ended_at),
        "queueInfo": _queue_info(contact),
        "agentInfo": _agent_info(happening),
        "customerId": contact.customer_id,
        "chatMetrics": _chat_metrics(happening),
        "updatedProperties": list(happening.updated) or None,
        "segmentAttributes": _segment_attributes(contact, dials),
        "tags": dict(contact.tags),
    }
    resources = [instance.contact_arn(contact.id), instance.arn]
    return {
        "version": "0",
        "id": event_id,
        "detail-type": "Amazon Connect Contact Event",
        "source": "aws.connect",
        "account": instance.account,
        "time": iso_seconds(happening.at),
        "region": instance.region,
        "resources": resources if dials.event_resources_begin_with == "contact" else resources[::-1],
        "detail": {name: value for name, value in detail.items() if value is not None},
    }


def _moment(at: float | None) -> str | None:
    return None if at is None else iso_milliseconds(at)


def _connected(contact: Contact, dials: Dials) -> str | None:
    if contact.connected_at is None and dials.event_moments_yet_to_come == "1970":
        return _NEVER
    return _moment(contact.connected_at)


def _queue_info(contact: Contact) -> dict[str, Any] | None:
    if contact.enqueued_at is None:
        return None
    enqueued = iso_milliseconds(contact.enqueued_at)
    return {"queueArn": contact.queue_arn, "queueType": "STANDARD", "enqueueTimestamp": enqueued}


def _agent_info(happening: Happening) -> dict[str, Any] | None:
    contact = happening.contact
    if contact.agent_connected_at is None:
        return None
    connected = iso_milliseconds(contact.agent_connected_at)
    info: dict[str, Any] = {"agentArn": contact.agent_arn, "connectedToAgentTimestamp": connected}
    worked = happening.at - (contact.ended_at or happening.at)
    if happening.event_type == "COMPLETED" and worked > 0:
        info["afterContactWorkStartTimestamp"] = _moment(contact.ended_at)
        info["afterContactWorkEndTimestamp"] = iso_milliseconds(happening.at)
        info["afterContactWorkDuration"] = round(worked)  # in seconds, as in contact records (assumed here)
    return info


def _chat_metrics(happening: Happening) -> dict[str, Any] | None:
    """Write a chat's metrics once it is over; AWS does not say which events have them."""
    if happening.contact.channel != CHAT or happening.event_type not in _OVER:
        return None
    return {
        _lower(group): {
            _lower(name): iso_milliseconds(value) if name.endswith("Timestamp") else value
            for name, value in members.items()
        }
        for group, members in chat_metrics(happening.contact).items()
    }


def _segment_attributes(contact: Contact, dials: Dials) -> dict[str, Any]:
    """Turn the API's {"ValueString": …} into {"valueString": …}, unless a dial leaves it so."""
    if dials.event_segment_attributes_have == "ValueString":
        return contact.segment_attributes
    return _in_event_casing(contact.segment_attributes)


def _in_event_casing(attributes: dict[str, Any]) -> dict[str, Any]:
    """Write the members' names in lower case; attribute names stay as they are."""
    return {name: _value_in_event_casing(value) for name, value in attributes.items()}


def _value_in_event_casing(value: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for member, held in value.items():
        if member == "ValueMap" and held is not None:
            written["valueMap"] = _in_event_casing(held)
        elif member == "ValueList" and held is not None:
            written["valueList"] = [_value_in_event_casing(each) for each in held]
        elif held is not None:
            written[_lower(member)] = held
    return written


def _lower(member: str) -> str:
    return member[:1].lower() + member[1:]
