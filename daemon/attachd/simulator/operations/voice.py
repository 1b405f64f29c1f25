"""WebRTC calls: how one begins, who may be added to it and how they join and leave. Rules only.

No media: whatever the Amazon Chime SDK would be given here is a placeholder of the right shape which leads nowhere, and
taking the connection data counts as having joined. Sources: AWS, "Enable multi-user in-app, web, and video calling",
and the API reference.
"""

from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.operations import connections
from attachd.simulator.operations.addressed import instance_of
from attachd.simulator.operations.attributes import check_attributes
from attachd.simulator.state import walk
from attachd.simulator.state.life import Stage
from attachd.simulator.state.nouns import CUSTOMER, VOICE, Contact, Participant
from attachd.simulator.state.world import World

_MOST_PARTICIPANTS = 6  # AWS: multi-user calling: the agent, the first user and four others
_CREDENTIALS_OUTLIVE_SECONDS = (
    60.0  # AWS: CreateParticipantConnection: "leave or are disconnected for 60 seconds"
)
_TOKEN_SECONDS = 86400.0  # assumed; AWS says only that the token lives as long as its participant
_SUBTYPE = {"connect:Subtype": {"ValueString": "connect:WebRTC"}}


def start_web_rtc_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Start a call and its flow, and hand out what joining it takes; the same ClientToken replays the answer.

    There is no CONNECTED_TO_SYSTEM (AWS: contact events: that one is for outbound calls, tasks and chats).
    """
    instance = instance_of(world, request)
    key = ("StartWebRTCContact", instance.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    attributes = request.get("Attributes") or {}
    check_attributes(attributes)
    contact_id = world.new_contact_id(request | {"Channel": VOICE})  # not a chat's that is asked for alike
    contact = Contact(
        id=contact_id,
        instance=instance,
        channel=VOICE,
        initial_contact_id=contact_id,
        initiation_method="WEBRTC_API",
        started_at=now,
        expires_at=now + _TOKEN_SECONDS,
        attributes=attributes,
        segment_attributes=_SUBTYPE | request.get("SegmentAttributes", {}),
        tags={"aws:connect:instanceId": instance.id},
        related_contact_id=request.get("RelatedContactId"),
    )
    world.start(contact)
    caller = world.add(contact, CUSTOMER, request["ParticipantDetails"]["DisplayName"], now)
    media = _connection_data(world, caller)
    media["Meeting"]["MediaRegion"] = instance.region
    answer = {
        "ConnectionData": media,
        "ContactId": contact.id,
        "ParticipantId": caller.id,
        "ParticipantToken": caller.token,
    }
    if key[2]:
        world.remember(key, answer, now)
    walk.connect(world, caller, now)
    return answer


def require_agent(world: World, contact: Contact) -> None:
    """Refuse to add somebody to a call that is not with an agent, or is not named by its initial contact."""
    if contact.stage is Stage.ENDED:
        raise ApiError(world.dials.error_of_an_ended_contact, "The contact has ended")
    # AWS: CreateParticipant, ContactId: "should be the initial contact ID"; the code is assumed
    if contact.id != contact.initial_contact_id:
        raise ApiError("InvalidRequestException", "ContactId must be the call's initial contact")
    # AWS: multi-user calling: "returns a Bad Request error if the agent is not yet connected"
    if contact.stage is not Stage.WITH_AGENT:
        raise ApiError("InvalidRequestException", "The contact is not connected to an agent yet")


def add_caller(world: World, contact: Contact, details: dict[str, Any], now: float) -> Participant:
    """Add another user, who may join any time later.

    In AWS it is the media library that tells the seventh there is no room; here CreateParticipant says so (assumed).
    """
    segments = (contact, *contact.joined)
    places = sum(not _gone(member, now) for each in segments for member in each.participants)
    if places >= _MOST_PARTICIPANTS:
        raise ApiError(
            world.dials.error_of_a_full_call, f"A call has at most {_MOST_PARTICIPANTS} participants"
        )
    caller = world.add(contact, CUSTOMER, details["DisplayName"], now)
    caller.capabilities = details.get("ParticipantCapabilities")
    return caller


def connect(world: World, caller: Participant, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Answer CreateParticipantConnection: the way into the call, or a token to leave it by.

    The credentials are good until 60 s after their user has left, and never longer than the call.
    """
    own = world.contacts[caller.contact_id]
    call = own if own.ended_at is None else world.contacts[own.initial_contact_id]
    if call.ended_at is not None or now >= caller.expires_at or _gone(caller, now):
        raise ApiError("AccessDeniedException", "Access denied")
    types = request.get("Type") or ()
    if not types or "WEBSOCKET" in types:
        raise ApiError("ValidationException", "Type must be WEBRTC_CONNECTION or CONNECTION_CREDENTIALS here")
    answer: dict[str, Any] = {}
    if "WEBRTC_CONNECTION" in types:
        _join(world, caller, now)
        answer["WebRTCConnection"] = _connection_data(world, caller)
    return answer | connections.issue(world, caller, types, now)


def _join(world: World, caller: Participant, now: float) -> None:
    """Let an added user into the call by a contact of its own (AWS: multi-user calling), unless it is in already.

    That contact is assumed to be INITIATED by WEBRTC_API as the call was, and DISCONNECTED when its user leaves.
    """
    if caller.connected_at is not None and caller.disconnected_at is None:
        return
    before = world.contacts[caller.contact_id]
    call = world.contacts[before.initial_contact_id]
    own = Contact(
        id=world.new_id(call, "contact"),
        instance=call.instance,
        channel=VOICE,
        initial_contact_id=call.id,
        previous_contact_id=call.id,
        initiation_method=call.initiation_method,
        started_at=now,
        expires_at=call.expires_at,
        attributes=call.attributes,
        segment_attributes=call.segment_attributes,
        tags=call.tags,
    )
    world.start(own)
    before.participants.remove(caller)
    own.participants.append(caller)
    call.joined.append(own)
    caller.contact_id, caller.disconnected_at = own.id, None
    world.connect(caller, now)


def _connection_data(world: World, caller: Participant) -> dict[str, Any]:
    """Write Attendee and Meeting; addresses end in `.invalid`, the join token opens nothing."""
    meeting_id = world.contacts[caller.contact_id].initial_contact_id
    where = f"{meeting_id}.simulated.invalid"
    return {
        "Attendee": {"AttendeeId": caller.id, "JoinToken": world.new_token(caller.contact_id, "join")},
        "Meeting": {
            "MeetingId": meeting_id,
            "MediaPlacement": {
                "AudioHostUrl": where,
                "AudioFallbackUrl": f"wss://{where}/fallback",
                "SignalingUrl": f"wss://{where}/control",
                "EventIngestionUrl": f"https://{where}/events",
            },
            "MeetingFeatures": {"Audio": {"EchoReduction": "AVAILABLE"}},
        },
    }


def _gone(member: Participant, now: float) -> bool:
    left = member.disconnected_at
    return left is not None and now - left > _CREDENTIALS_OUTLIVE_SECONDS
