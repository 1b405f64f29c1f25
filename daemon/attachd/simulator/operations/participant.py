"""The operations of the Connect Participant Service: a checked request and the time in, a response out, or an ApiError.

Only rules live here. The bearer token is the whole authority; websockets will have their place here.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.operations import transcript
from attachd.simulator.state import walk
from attachd.simulator.state.life import Stage
from attachd.simulator.state.nouns import (
    CUSTOM_BOT,
    CUSTOMER,
    DELIVERED,
    READ,
    TYPING,
    Contact,
    Item,
    Participant,
    Receipt,
)
from attachd.simulator.state.world import World

_CONNECTION_SECONDS = (
    86400.0  # AWS: CreateParticipantConnection, "Expiry time for the connection token is 1 day"
)

# AWS: SendMessage, Content
_LONGEST_CONTENT = {
    "text/plain": 1024,
    "text/markdown": 1024,
    "application/json": 12000,
    "application/vnd.amazonaws.connect.message.interactive.response": 12288,
}
_LONGEST_SMS = {"text/plain": 1024}  # AWS: SendMessage, Content
_MOST_WITH_RECEIPTS = 2  # AWS: SendEvent, "not supported when there are more than two active participants"


def create_participant_connection(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Connect the bearer of a participant token, and hand it a connection token if asked for one."""
    participant = world.participants.get(request["ParticipantToken"])
    if participant is None or participant.disconnected_at is not None or now >= participant.expires_at:
        raise _denied()
    # AWS: custom participants, troubleshooting: later than 15 s is ResourceNotFoundException, modelled or not
    if world.lapsed(participant, now):
        raise ApiError("ResourceNotFoundException", "The participant did not connect in time")
    types, connect = request.get("Type", []), request.get("ConnectParticipant", False)
    for kind in types:
        if kind != "CONNECTION_CREDENTIALS":
            raise ApiError("ValidationException", f"Type: the simulator does not play {kind} yet")
    if not types and not connect:
        raise ApiError("ValidationException", "Type must be given unless ConnectParticipant is true")
    if connect and participant.connected_at is None:
        world.connect(participant, now)
        contact = world.contacts[participant.contact_id]
        if contact.stage is Stage.CONNECTED and participant.role == CUSTOMER:
            walk.begin(world, contact, world.dials.flow, now)
    if not types:
        return {}
    expires_at = now + _CONNECTION_SECONDS
    token = world.issue_connection(participant, expires_at)
    return {"ConnectionCredentials": {"ConnectionToken": token, "Expiry": iso_milliseconds(expires_at)}}


def send_message(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Say something; the same ClientToken of the same participant replays the answer and says nothing twice."""
    speaker = _bearer(world, request, now)
    contact = world.contacts[speaker.contact_id]
    limits = _LONGEST_SMS if contact.subtype == "connect:SMS" else _LONGEST_CONTENT
    longest = limits.get(request["ContentType"])
    if longest is None:
        raise ApiError("ValidationException", "ContentType is not supported")
    if len(request["Content"]) > longest:
        raise ApiError(
            "ValidationException", f"Content must not be longer than {longest} for this ContentType"
        )
    key = ("SendMessage", speaker.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    item = world.note(
        contact, now, content_type=request["ContentType"], content=request["Content"], participant=speaker
    )
    answer = {"Id": item.id, "AbsoluteTime": iso_milliseconds(now)}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def send_event(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Say that one types, or that a message was delivered or read; the same ClientToken replays the answer.

    Typing is a line of the transcript; a receipt stands in the metadata of the message it is for.
    """
    speaker = _bearer(world, request, now)
    contact, kind = world.contacts[speaker.contact_id], request["ContentType"]
    key = ("SendEvent", speaker.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    if kind == TYPING:
        event_id = world.note(contact, now, content_type=TYPING, participant=speaker).id
    elif kind in {DELIVERED, READ}:
        _receive(contact, speaker, request, now)
        event_id = world.new_id()
    else:
        raise ApiError("ValidationException", "ContentType is not supported")
    answer = {"Id": event_id, "AbsoluteTime": iso_milliseconds(now)}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def _receive(contact: Contact, reader: Participant, request: dict[str, Any], now: float) -> None:
    """Note a receipt; reading a message is having got it, and what has been said stays said."""
    active = [
        each
        for each in contact.participants
        if each.connected_at is not None and each.disconnected_at is None
    ]
    if len(active) > _MOST_WITH_RECEIPTS:
        raise ApiError("ConflictException", "Receipts are not supported with more than two participants")
    receipt = _message(contact, request.get("Content", "")).receipts.setdefault(reader.id, Receipt())
    if receipt.delivered_at is None:
        receipt.delivered_at = now
    if request["ContentType"] == READ and receipt.read_at is None:
        receipt.read_at = now


def _message(contact: Contact, content: str) -> Item:
    """Find the message of `{"messageId": …}` (AWS: SendEvent, Content)."""
    try:
        wanted = msgspec.json.decode(content, type=dict[str, Any]).get("messageId")
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise ApiError("ValidationException", "Content must be a JSON object with a messageId") from None
    for item in reversed(contact.transcript):
        if item.id == wanted and item.content is not None:
            return item
    raise ApiError("ValidationException", "Content.messageId is not a message of this chat")


def get_transcript(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Read the chat, a page at a time; with the ContactId of an earlier contact, up to that one's end."""
    reader = _bearer(world, request, now)
    current = world.contacts[reader.contact_id]
    contact = world.contacts.get(request.get("ContactId", current.id))
    # AWS: GetTranscript, ContactId: "from the current contact chain"
    if contact is None or contact.initial_contact_id != current.initial_contact_id:
        raise _denied()
    return {"InitialContactId": contact.initial_contact_id} | transcript.page(contact, request)


def disconnect_participant(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Leave. The customer takes the chat along; a bot does not (the flow goes on)."""
    leaver = _bearer(world, request, now)
    contact = world.contacts[leaver.contact_id]
    world.disconnect(leaver, now)
    if leaver.role == CUSTOMER:
        world.end(contact, "CUSTOMER_DISCONNECT", now)
    elif leaver.role == CUSTOM_BOT:
        walk.bot_left(world, contact, now)
    return {}


def _bearer(world: World, request: dict[str, Any], now: float) -> Participant:
    """Return the connected participant behind a connection token.

    AccessDeniedException is also what AWS answers once the chat has ended (amazon-connect-chat-ui-examples #133).
    """
    connection = world.connections.get(request["ConnectionToken"])
    if connection is None or now >= connection.expires_at:
        raise _denied()
    participant = connection.participant
    if participant.connected_at is None or participant.disconnected_at is not None:
        raise _denied()
    return participant


def _denied() -> ApiError:
    return ApiError("AccessDeniedException", "Access denied")


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "CreateParticipantConnection": create_participant_connection,
    "SendMessage": send_message,
    "SendEvent": send_event,
    "GetTranscript": get_transcript,
    "DisconnectParticipant": disconnect_participant,
}
