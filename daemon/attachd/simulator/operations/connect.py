"""The operations of Amazon Connect: a checked request and the time in, a response out, or an ApiError.

Only rules live here; the state is `world`'s, the spelling of HTTP is `wire`'s.
"""

from collections.abc import Callable
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.operations import attributes, chats, search, streaming, voice
from attachd.simulator.operations.addressed import contact_of
from attachd.simulator.state import walk
from attachd.simulator.state.life import Stage
from attachd.simulator.state.metrics import chat_metrics
from attachd.simulator.state.nouns import CHAT, CUSTOM_BOT, CUSTOMER, VOICE, Contact, Participant
from attachd.simulator.state.world import World

# AWS: CreateParticipant, ParticipantDetails: "the only valid value"
_ROLES = {CHAT: CUSTOM_BOT, VOICE: CUSTOMER}


def stop_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """End a chat in whatever state it is. A chat that has ended is 410, one that never was 404."""
    contact = contact_of(world, request)
    if contact.ended_at is not None:
        raise ApiError("ContactNotFoundException", "The contact with the specified ID is not active.")
    world.end(contact, "API", now)
    return {}


def describe_contact(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Describe a contact, ended ones too. Timestamps are epoch seconds, absent until they happened."""
    contact = contact_of(world, request)
    moments = (
        contact.started_at,
        contact.connected_at,
        contact.enqueued_at,
        contact.agent_connected_at,
        contact.ended_at,
    )
    described = {
        "Arn": contact.instance.contact_arn(contact.id),
        "Id": contact.id,
        "InitialContactId": contact.initial_contact_id if contact.previous_contact_id else None,
        "PreviousContactId": contact.previous_contact_id,
        "RelatedContactId": contact.related_contact_id,
        "InitiationMethod": contact.initiation_method,
        "Channel": contact.channel,
        "QueueInfo": search.queue_info(contact),
        "AgentInfo": search.agent_info(contact),
        "InitiationTimestamp": contact.started_at,
        "ConnectedToSystemTimestamp": contact.connected_at,
        "DisconnectTimestamp": contact.ended_at,
        "DisconnectReason": contact.disconnect_reason,
        "LastUpdateTimestamp": max(moment for moment in moments if moment is not None),
        "CustomerId": contact.customer_id,
        "ChatMetrics": chat_metrics(contact) if contact.channel == CHAT else None,
        "SegmentAttributes": contact.segment_attributes,
        "Tags": contact.tags,
        "Attributes": contact.attributes,
    }
    return {"Contact": {name: value for name, value in described.items() if value is not None}}


def create_participant(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Add a custom bot to a chat, which must connect within 15 s, or another user to a call."""
    contact = contact_of(world, request)
    details = request["ParticipantDetails"]
    role = _ROLES[contact.channel]
    if details.get("ParticipantRole") != role:
        raise ApiError(
            "InvalidRequestException", f"ParticipantRole must be {role} for a {contact.channel} contact"
        )
    # AWS: ParticipantDetailsToAdd, "DisplayName is Required", although the model does not say so
    if details.get("DisplayName") is None:
        raise ApiError("InvalidRequestException", "ParticipantDetails.DisplayName is required")
    if contact.channel == CHAT:
        _require_room_for_bots(world, contact)
    else:
        voice.require_agent(world, contact)
    key = ("CreateParticipant", contact.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return _replay(world, contact, known)
    if contact.channel == CHAT:
        added = _add_bot(world, contact, details["DisplayName"], now)
    else:
        added = voice.add_caller(world, contact, details, now)
    answer = _credentials(added)
    if key[2]:
        world.remember(key, answer, now)
    return answer


def _add_bot(world: World, contact: Contact, display_name: str, now: float) -> Participant:
    # AWS: custom participants, "only one custom participant per contact"
    if world.bot_slot_taken(contact, now):
        raise ApiError(world.dials.error_of_a_second_bot, "The contact already has a custom participant")
    bot = world.add(contact, CUSTOM_BOT, display_name, now)
    walk.bot_came(world, contact, now)
    return bot


def _require_room_for_bots(world: World, contact: Contact) -> None:
    """Refuse a contact which is in no state to take a bot."""
    stage = contact.stage
    if stage is Stage.ENDED:
        raise ApiError(world.dials.error_of_an_ended_contact, "The contact has ended")
    # AWS: custom participants, "cannot be added when an agent is present"
    if stage is Stage.WITH_AGENT:
        raise ApiError(world.dials.error_beside_an_agent, "The contact is with an agent")
    if stage is Stage.STARTED and not world.dials.bot_may_precede_the_customer:
        raise ApiError("ConflictException", "The customer has not connected yet")


def _replay(world: World, contact: Contact, known: dict[str, Any]) -> dict[str, Any]:
    """Answer to a ClientToken already known, as the dial says."""
    match world.dials.replayed_client_token_answers:
        case "an error":
            raise ApiError("ConflictException", "The ClientToken has been used")
        case "a new token":
            segments = (contact, *contact.joined)
            (known_one,) = (
                member
                for each in segments
                for member in each.participants
                if member.id == known["ParticipantId"]
            )
            world.renew_token(known_one)
            return _credentials(known_one)
        case _:
            return known


def _credentials(added: Participant) -> dict[str, Any]:
    credentials = {"ParticipantToken": added.token, "Expiry": iso_milliseconds(added.expires_at)}
    return {"ParticipantCredentials": credentials, "ParticipantId": added.id}


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "StartChatContact": chats.start_chat_contact,
    "StartWebRTCContact": voice.start_web_rtc_contact,
    "StopContact": stop_contact,
    "DescribeContact": describe_contact,
    "CreateParticipant": create_participant,
    **attributes.OPERATIONS,
    **streaming.OPERATIONS,
    **search.OPERATIONS,
}
