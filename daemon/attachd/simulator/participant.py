"""The operations of the Connect Participant Service: a checked request and the time in, a response out, or an ApiError.

Only rules live here. The bearer token is the whole authority; websockets and the per-instance quotas of these
operations will have their place here.
"""

from collections.abc import Callable
from typing import Any

from attachd.simulator import transcript
from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.world import CUSTOMER, Participant, World

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
    if not types:
        return {}
    expires_at = now + _CONNECTION_SECONDS
    token = world.issue_connection(participant, expires_at)
    return {"ConnectionCredentials": {"ConnectionToken": token, "Expiry": iso_milliseconds(expires_at)}}


def send_message(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Say something; the same ClientToken of the same participant replays the answer and says nothing twice."""
    speaker = _bearer(world, request, now)
    longest = _LONGEST_CONTENT.get(request["ContentType"])
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
        world.contacts[speaker.contact_id],
        now,
        content_type=request["ContentType"],
        content=request["Content"],
        participant=speaker,
    )
    answer = {"Id": item.id, "AbsoluteTime": iso_milliseconds(now)}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def get_transcript(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Read the chat, a page at a time."""
    reader = _bearer(world, request, now)
    contact = world.contacts[reader.contact_id]
    if request.get("ContactId", contact.id) != contact.id:
        raise _denied()
    return {"InitialContactId": contact.id} | transcript.page(contact, request)


def disconnect_participant(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Leave. The customer takes the chat along; a bot does not (the flow goes on)."""
    leaver = _bearer(world, request, now)
    world.disconnect(leaver, now)
    if leaver.role == CUSTOMER:
        world.end(world.contacts[leaver.contact_id], "CUSTOMER_DISCONNECT", now)
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
    "GetTranscript": get_transcript,
    "DisconnectParticipant": disconnect_participant,
}
