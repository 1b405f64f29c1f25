"""The operations of Amazon Connect: a checked request and the time in, a response out, or an ApiError.

Only rules live here; the state is `world`'s, the spelling of HTTP is `wire`'s.
"""

from collections.abc import Callable
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.world import CUSTOM_BOT, CUSTOMER, Contact, World

_CHAT_MINUTES = 25 * 60  # AWS: StartChatContact, ChatDurationInMinutes
_PLAIN_CHAT = {"connect:Subtype": {"ValueString": "connect:Chat"}}
_NOT_PLAYED = ("PersistentChat", "ConnectionTypes", "ChatStreamingConfiguration")


def start_chat_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Start a chat and hand the customer its participant token; the same ClientToken replays the answer."""
    _require_instance(world, request)
    key = ("StartChatContact", request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[1] else None
    if known is not None:
        return known
    for member in _NOT_PLAYED:
        if member in request:
            raise ApiError("InvalidParameterException", f"the simulator does not play {member} yet")
    contact = Contact(
        id=world.new_id(),
        started_at=now,
        expires_at=now + 60 * request.get("ChatDurationInMinutes", _CHAT_MINUTES),
        attributes=request.get("Attributes", {}),
        segment_attributes=_PLAIN_CHAT | request.get("SegmentAttributes", {}),
        tags={"aws:connect:instanceId": world.dials.instance_id},
        related_contact_id=request.get("RelatedContactId"),
    )
    world.start(contact)
    customer = world.add(contact, CUSTOMER, request["ParticipantDetails"]["DisplayName"], now)
    if "InitialMessage" in request:
        first = request["InitialMessage"]
        world.note(
            contact, now, content_type=first["ContentType"], content=first["Content"], participant=customer
        )
    answer = {"ContactId": contact.id, "ParticipantId": customer.id, "ParticipantToken": customer.token}
    if key[1]:
        world.remember(key, answer, now)
    return answer


def stop_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """End a chat in whatever state it is. A chat that has ended is 410, one that never was 404."""
    contact = _contact(world, request)
    if contact.ended_at is not None:
        raise ApiError("ContactNotFoundException", "The contact with the specified ID is not active.")
    world.end(contact, "API", now)
    return {}


def describe_contact(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Describe a contact, ended ones too. Timestamps are epoch seconds, absent until they happened."""
    contact = _contact(world, request)
    moments = (contact.started_at, contact.connected_at, contact.ended_at)
    described = {
        "Arn": f"{world.dials.instance_arn}/contact/{contact.id}",
        "Id": contact.id,
        "RelatedContactId": contact.related_contact_id,
        "InitiationMethod": "API",
        "Channel": "CHAT",
        "InitiationTimestamp": contact.started_at,
        "ConnectedToSystemTimestamp": contact.connected_at,
        "DisconnectTimestamp": contact.ended_at,
        "DisconnectReason": contact.disconnect_reason,
        "LastUpdateTimestamp": max(moment for moment in moments if moment is not None),
        "SegmentAttributes": contact.segment_attributes,
        "Tags": contact.tags,
        "Attributes": contact.attributes,
    }
    return {"Contact": {name: value for name, value in described.items() if value is not None}}


def create_participant(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Add a custom bot to a chat; it must connect within 15 s.

    The quota is metered at the front door, so replays and refusals spend it too: whoever asks for a chat that has
    gone has stolen a call from one that waits.
    """
    # AWS: service quotas; per account and Region, whatever the instance
    if not world.quotas["CreateParticipant"].take(now):
        raise ApiError("ThrottlingException", "Rate exceeded")
    contact = _contact(world, request)
    details = request["ParticipantDetails"]
    if details.get("ParticipantRole") != CUSTOM_BOT:
        raise ApiError("InvalidRequestException", "ParticipantRole must be CUSTOM_BOT for a CHAT contact")
    # AWS: ParticipantDetailsToAdd, "DisplayName is Required", although the model does not say so
    if details.get("DisplayName") is None:
        raise ApiError("InvalidRequestException", "ParticipantDetails.DisplayName is required")
    if contact.ended_at is not None:
        raise ApiError("ResourceNotFoundException", "The contact has ended")
    key = ("CreateParticipant", contact.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    # AWS: custom participants, "only one custom participant per contact"
    if world.bot_slot_taken(contact, now):
        raise ApiError("ServiceQuotaExceededException", "The contact already has a custom participant")
    bot = world.add(contact, CUSTOM_BOT, details["DisplayName"], now)
    credentials = {"ParticipantToken": bot.token, "Expiry": iso_milliseconds(bot.expires_at)}
    answer = {"ParticipantCredentials": credentials, "ParticipantId": bot.id}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def _require_instance(world: World, request: dict[str, Any]) -> None:
    if request["InstanceId"] != world.dials.instance_id:
        raise ApiError("ResourceNotFoundException", "The instance of this InstanceId was not found")


def _contact(world: World, request: dict[str, Any]) -> Contact:
    _require_instance(world, request)
    contact = world.contacts.get(request["ContactId"])
    if contact is None:
        raise ApiError("ResourceNotFoundException", "The contact of this ContactId was not found")
    return contact


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "StartChatContact": start_chat_contact,
    "StopContact": stop_contact,
    "DescribeContact": describe_contact,
    "CreateParticipant": create_participant,
}
