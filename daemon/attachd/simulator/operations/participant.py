"""The operations of the Connect Participant Service: a checked request and the time in, a response out, or an ApiError.

Only rules live here. The bearer token is the whole authority.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.operations import connections, transcript, voice
from attachd.simulator.state import idle, walk
from attachd.simulator.state.nouns import (
    ACKNOWLEDGED,
    CUSTOM_BOT,
    CUSTOMER,
    DELIVERED,
    READ,
    TYPING,
    VOICE,
    Contact,
    Item,
    Line,
    Participant,
    Receipt,
)
from attachd.simulator.state.world import World

_PLAYED = {"WEBSOCKET", "CONNECTION_CREDENTIALS"}

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
    """Hand the bearer of a participant token what it asks for to connect with, and connect it if it says so.

    Without ConnectParticipant it is connected once it subscribes to its websocket.
    """
    participant = world.participants.get(request["ParticipantToken"])
    if participant is not None and world.contacts[participant.contact_id].channel == VOICE:
        return voice.connect(world, participant, request, now)
    participant = connections.require_alive(world, participant, now)
    types, connect = request.get("Type", []), request.get("ConnectParticipant", False)
    for kind in types:
        if kind not in _PLAYED:
            raise ApiError("ValidationException", f"Type: the simulator does not play {kind} yet")
    if not types and not connect:
        raise ApiError("ValidationException", "Type must be given unless ConnectParticipant is true")
    if "WEBSOCKET" in types and participant.role == CUSTOM_BOT:
        _require_websockets_for_bots(world)
    if connect and participant.connected_at is None:
        walk.connect(world, participant, now)
    return connections.issue(world, participant, types, now)


def _require_websockets_for_bots(world: World) -> None:
    if not world.dials.websocket_works_for_a_custom_bot:
        raise ApiError("ValidationException", "Type must be CONNECTION_CREDENTIALS for a custom participant")


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
    idle.spoke(world, speaker, now)
    answer = {"Id": item.id, "AbsoluteTime": iso_milliseconds(now)}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def send_event(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Say that one types, or that a message was delivered or read; the same ClientToken replays the answer.

    Typing is a line of the transcript; a receipt stands in the metadata of the message it is for. The
    acknowledgement by which a participant once connected is retired, unless a dial says otherwise.
    """
    if request["ContentType"] == ACKNOWLEDGED and world.dials.retired_acknowledgement_connects:
        return _acknowledge(world, request, now)
    speaker = _bearer(world, request, now)
    contact, kind = world.contacts[speaker.contact_id], request["ContentType"]
    key = ("SendEvent", speaker.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    if kind == TYPING:
        event_id = world.note(contact, now, content_type=TYPING, participant=speaker).id
    elif kind in {DELIVERED, READ}:
        _receive(world, contact, speaker, request, now)
        event_id = world.new_id(contact, "receipt")
    else:
        raise ApiError("ValidationException", "ContentType is not supported")
    answer = {"Id": event_id, "AbsoluteTime": iso_milliseconds(now)}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def _acknowledge(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    bearer = connections.require_alive(world, _holder(world, request, now), now)
    if bearer.connected_at is None:
        walk.connect(world, bearer, now)
    contact = world.contacts[bearer.contact_id]
    return {"Id": world.new_id(contact, "receipt"), "AbsoluteTime": iso_milliseconds(now)}


def _receive(
    world: World, contact: Contact, reader: Participant, request: dict[str, Any], now: float
) -> None:
    """Note a receipt; reading a message is having got it, and what has been said stays said."""
    if sum(each.present for each in contact.participants) > _MOST_WITH_RECEIPTS:
        raise ApiError("ConflictException", "Receipts are not supported with more than two participants")
    item = _message(contact, request.get("Content", ""))
    receipt = item.receipts.setdefault(reader.id, Receipt())
    if receipt.delivered_at is None:
        receipt.delivered_at = now
    if request["ContentType"] == READ and receipt.read_at is None:
        receipt.read_at = now
    world.lines.append(Line(contact, item, reader))


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
    holder = _holder(world, request, now)
    if not holder.present:
        raise _denied()
    return holder


def _holder(world: World, request: dict[str, Any], now: float) -> Participant:
    """Return whose connection token it is, connected or not."""
    connection = world.connections.get(request["ConnectionToken"])
    if connection is None or now >= connection.expires_at:
        raise _denied()
    return connection.participant


def _denied() -> ApiError:
    return ApiError("AccessDeniedException", "Access denied")


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "CreateParticipantConnection": create_participant_connection,
    "SendMessage": send_message,
    "SendEvent": send_event,
    "GetTranscript": get_transcript,
    "DisconnectParticipant": disconnect_participant,
}
