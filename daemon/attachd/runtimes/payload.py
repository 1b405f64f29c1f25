"""What a runtime is sent over a wire: CloudEvents 1.0, structured JSON.

The one place where a participant token becomes text. Source: cloudevents/spec v1.0.2, "JSON Event Format".
"""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from attachd.model import Bot, ChatEnded, Contact, Handoff

CONTENT_TYPE: Final = "application/cloudevents+json"
ATTACHED: Final = "attachd.chat.attached.v1"
ENDED: Final = "attachd.chat.ended.v1"

_encode = msgspec.json.Encoder().encode


def attached(handoff: Handoff, now: float) -> bytes:
    """The ``attachd.chat.attached.v1`` event: holds a credential, so send it and forget it."""
    data = {
        "contact": _contact(handoff.contact),
        "bot": _bot(handoff.bot),
        "rule": handoff.rule,
        "generation": handoff.generation,
        "participant": _participant(handoff),
    }
    return _event(ATTACHED, handoff.key, handoff.contact, data, now)


def ended(farewell: ChatEnded, now: float) -> bytes:
    """The ``attachd.chat.ended.v1`` event: holds no credential."""
    data = {
        "contact": _contact(farewell.contact),
        "bot": {"name": farewell.bot},
        "generation": farewell.generation,
        "reason": farewell.reason,
    }
    return _event(ENDED, farewell.key, farewell.contact, data, now)


def _event(kind: str, key: str, contact: Contact, data: dict[str, Any], now: float) -> bytes:
    return _encode(
        {
            "specversion": "1.0",
            "type": kind,
            "source": contact.instance_arn,
            "subject": contact.id,
            "id": key,
            "time": timestamp(now),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def _bot(bot: Bot) -> dict[str, str]:
    return {"name": bot.name, "display_name": bot.display_name}


def _participant(handoff: Handoff) -> dict[str, Any]:
    """Either what to connect with and by when, or, connected by us already, what to speak with."""
    participant = handoff.participant
    if (connection := participant.connection) is not None:
        return {
            "id": participant.id,
            "connection_token": connection.token.reveal(),
            "expiry": connection.expiry,
        }
    return {
        "id": participant.id,
        "token": participant.token.reveal(),
        "expiry": participant.expiry,
        "connect_by": timestamp(handoff.connect_by),
    }


def _contact(contact: Contact) -> dict[str, Any]:
    return {
        "id": contact.id,
        "initial_id": contact.initial_id,
        "previous_id": contact.previous_id,
        "related_id": contact.related_id,
        "instance_arn": contact.instance_arn,
        "channel": contact.channel,
        "subtype": contact.subtype,
        "initiation_method": contact.initiation_method,
        "initiated_at": None if contact.initiated_at is None else timestamp(contact.initiated_at),
        "tags": dict(contact.tags),
        "segment_attributes": dict(contact.segment_attributes),
    }


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
