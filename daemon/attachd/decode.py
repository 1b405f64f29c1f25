"""Bytes → ContactEvent: the only place that touches raw JSON.

    the envelope, as EventBridge delivers it; SNS with raw delivery, too    {"detail-type": …, "detail": {…}}
    SNS around it                                                 {"Type": "Notification", "Message": "{…}"}
    the detail alone, as by a rule's InputPath "$.detail"               {"contactId": …, "eventType": …}

Lenient in what AWS leaves open (unknown fields, both casings of ``detail``, sentinel timestamps; the page
orders consumers to ignore what they do not know) and strict in what the line relies on: a contact id and an
instance. Everything else about a body ends as a ``Permanent`` with its own outcome.

Source: Amazon Connect admin guide, "Amazon Connect contact events"; SNS developer guide, "Message JSON formats".
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from attachd.contact_fields import EVENT_TYPES
from attachd.errors import Permanent
from attachd.model import Contact, ContactEvent, Outcome

DETAIL_TYPE: Final = "Amazon Connect Contact Event"
MAX_BYTES: Final = 1_048_576  # what SQS carries (API reference, SendMessage); a real event has a few KB
_MAX_ID: Final = 256  # ContactId, 1 to 256 characters (API reference)
_SENTINEL_SECONDS: Final = (
    86_400  # documented samples carry 1970-01-01T00:00:00.001Z for "it has not happened"
)

#: Both of either, and no ``detail``: it is the detail itself.
_OF_A_DETAIL: Final = ({"contactId", "eventType"}, {"ContactId", "EventType"})
_ABOUT: Final = {
    "CONNECTED_TO_SYSTEM": "connectedToSystemTimestamp",
    "DISCONNECTED": "disconnectTimestamp",
    "COMPLETED": "disconnectTimestamp",
}

_parse = msgspec.json.Decoder().decode


def decode(body: bytes, *, received_at: float, max_bytes: int) -> ContactEvent:
    """The contact event that a body holds.

    Args:
        body: a contact event as JSON, in one of the forms above.
        received_at: stands in for an event time that is missing or unreadable; seconds since the epoch.
        max_bytes: a larger body is refused unread.

    Raises:
        Permanent: ``too_large``, ``not_json``, ``not_a_contact_event``, ``no_contact_id`` or
            ``unknown_event_type``, with what was seen.
    """
    if len(body) > max_bytes:
        raise Permanent(Outcome.TOO_LARGE, detail=f"the body has {len(body)} bytes, {max_bytes} are allowed")
    document = _json(body)
    if isinstance(document, dict) and document.get("Type") == "Notification":
        message = document.get("Message")
        document = _json(message) if isinstance(message, str) else None
    if isinstance(document, dict) and "detail" not in document and _is_detail(document):
        document = {"source": "aws.connect", "detail-type": DETAIL_TYPE, "detail": document}
    if not isinstance(document, dict) or not isinstance(document.get("detail"), dict):
        raise Permanent(Outcome.NOT_A_CONTACT_EVENT, detail="the body is JSON, but no EventBridge envelope")
    if document.get("detail-type") != DETAIL_TYPE:
        seen = str(document.get("detail-type"))[:80]
        raise Permanent(Outcome.NOT_A_CONTACT_EVENT, detail=f"detail-type is {seen!r}, not {DETAIL_TYPE!r}")
    document = document | {"detail": _plain(document["detail"])}
    return _event(document, document["detail"], received_at)


def _is_detail(document: dict[str, Any]) -> bool:
    return any(keys <= document.keys() for keys in _OF_A_DETAIL)


def _json(text: bytes | str) -> Any:
    try:
        return _parse(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Permanent(Outcome.NOT_JSON, detail=f"the body is not JSON: {error}") from None


def _event(document: dict[str, Any], detail: dict[str, Any], received_at: float) -> ContactEvent:
    contact_id = detail.get("contactId")
    if not isinstance(contact_id, str) or not 0 < len(contact_id) <= _MAX_ID:
        raise Permanent(Outcome.NO_CONTACT_ID, detail="detail.contactId is missing, or no text of 1 to 256")
    if not contact_id.isprintable():  # it goes into headers, logs and terminals
        raise Permanent(Outcome.NO_CONTACT_ID, detail="detail.contactId holds control characters")
    event_type = detail.get("eventType")
    if not isinstance(event_type, str) or event_type not in EVENT_TYPES:
        raise Permanent(Outcome.UNKNOWN_TYPE, detail=f"eventType is {str(event_type)[:80]!r}")
    instance_arn = detail.get("instanceArn")
    if not isinstance(instance_arn, str) or ":instance/" not in instance_arn:
        raise Permanent(Outcome.NOT_A_CONTACT_EVENT, detail="detail.instanceArn names no Connect instance")
    return ContactEvent(
        id=_text(document.get("id")) or "",
        type=event_type,
        time=min(_moment(document, event_type) or received_at, received_at),  # no event is from the future
        contact=Contact(
            id=contact_id,
            instance_arn=instance_arn,
            channel=_text(detail.get("channel")) or "",
            initial_id=_text(detail.get("initialContactId")) or contact_id,
            previous_id=_text(detail.get("previousContactId")),
            related_id=_text(detail.get("relatedContactId")),
            initiation_method=_text(detail.get("initiationMethod")),
            initiated_at=_timestamp(detail.get("initiationTimestamp")),
            segment_attributes=_attributes(detail.get("segmentAttributes")),
            tags={k: v for k, v in _mapping(detail.get("tags")).items() if isinstance(v, str)},
        ),
        document=document,
    )


def _plain(detail: dict[str, Any]) -> dict[str, Any]:
    """Documented samples are camelCase with CHAT, but some are PascalCase with Voice: one form for all that follows."""
    if "ContactId" in detail and "contactId" not in detail:
        detail = {key[:1].lower() + key[1:]: value for key, value in detail.items()}
    channel = detail.get("channel")
    return detail | {"channel": channel.upper()} if isinstance(channel, str) else detail


def _moment(document: dict[str, Any], event_type: str) -> float | None:
    """When the event was; a detail alone does not say it, but has the moment that such an event is about."""
    if "time" in document:
        return _timestamp(document["time"])
    detail = document["detail"]
    return _timestamp(detail.get(_ABOUT.get(event_type))) or _timestamp(detail.get("initiationTimestamp"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _timestamp(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # what cannot be rendered again is no time of a chat
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if seconds > _SENTINEL_SECONDS else None


def _attributes(value: object) -> dict[str, Any]:
    """``{"connect:Subtype": {"valueString": "connect:Chat"}}`` → ``{"connect:Subtype": "connect:Chat"}``.

    The casing of ``valueString`` inside events is documented nowhere; the one value of the union counts.
    """
    flat: dict[str, Any] = {}
    for name, wrapped in _mapping(value).items():
        values = list(wrapped.values()) if isinstance(wrapped, dict) else [wrapped]
        if len(values) == 1:
            flat[name] = values[0]
    return flat
