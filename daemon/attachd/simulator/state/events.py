"""Amazon Connect contact events, in the exact shape which EventBridge delivers. Pure: it builds, `publish` sends."""

from typing import Any

from attachd.simulator.dials import Dials
from attachd.simulator.instants import iso_milliseconds, iso_seconds
from attachd.simulator.state.nouns import Contact, Happening


def contact_event(happening: Happening, dials: Dials, event_id: str) -> dict[str, Any]:
    """Build the envelope (AWS: admin guide, "Amazon Connect contact events").

    User attributes are not in the event model; segment attributes and tags are. initialContactId and
    previousContactId are absent from a first contact, as in AWS's own CHAT samples.
    """
    contact = happening.contact
    detail = {
        "eventType": happening.event_type,
        "contactId": contact.id,
        "initialContactId": contact.initial_contact_id if contact.previous_contact_id else None,
        "previousContactId": contact.previous_contact_id,
        "relatedContactId": contact.related_contact_id,
        "channel": "CHAT",
        "instanceArn": dials.instance_arn,
        "initiationMethod": contact.initiation_method,
        "initiationTimestamp": iso_milliseconds(contact.started_at),
        "connectedToSystemTimestamp": _moment(contact.connected_at),
        "disconnectTimestamp": _moment(contact.ended_at),
        "queueInfo": _queue_info(contact),
        "agentInfo": _agent_info(contact),
        "updatedProperties": list(happening.updated) or None,
        "segmentAttributes": _in_event_casing(contact.segment_attributes),
        "tags": dict(contact.tags),
    }
    return {
        "version": "0",
        "id": event_id,
        "detail-type": "Amazon Connect Contact Event",
        "source": "aws.connect",
        "account": dials.account,
        "time": iso_seconds(happening.at),
        "region": dials.region,
        "resources": [f"{dials.instance_arn}/contact/{contact.id}", dials.instance_arn],
        "detail": {name: value for name, value in detail.items() if value is not None},
    }


def _moment(at: float | None) -> str | None:
    return None if at is None else iso_milliseconds(at)


def _queue_info(contact: Contact) -> dict[str, Any] | None:
    if contact.enqueued_at is None:
        return None
    enqueued = iso_milliseconds(contact.enqueued_at)
    return {"queueArn": contact.queue_arn, "queueType": "STANDARD", "enqueueTimestamp": enqueued}


def _agent_info(contact: Contact) -> dict[str, Any] | None:
    if contact.agent_connected_at is None:
        return None
    connected = iso_milliseconds(contact.agent_connected_at)
    return {"agentArn": contact.agent_arn, "connectedToAgentTimestamp": connected}


def _in_event_casing(attributes: dict[str, Any]) -> dict[str, Any]:
    """Turn the API's {"ValueString": …} into {"valueString": …}; attribute names stay as they are."""
    return {name: _value_in_event_casing(value) for name, value in attributes.items()}


def _value_in_event_casing(value: dict[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for member, held in value.items():
        if member == "ValueMap" and held is not None:
            written["valueMap"] = _in_event_casing(held)
        elif member == "ValueList" and held is not None:
            written["valueList"] = [_value_in_event_casing(each) for each in held]
        elif held is not None:
            written[member[:1].lower() + member[1:]] = held
    return written
