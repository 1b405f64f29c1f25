"""StartChatContact: how a chat begins, plain, persistent, as SMS or as a step-by-step guide. Rules only."""

from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instance import Instance
from attachd.simulator.operations import connections, streaming
from attachd.simulator.operations.addressed import instance_of
from attachd.simulator.operations.attributes import check_attributes
from attachd.simulator.state.nouns import CHAT, CUSTOMER, Contact
from attachd.simulator.state.world import World

_CHAT_MINUTES = 25 * 60  # AWS: StartChatContact, ChatDurationInMinutes
_PLAIN_CHAT = {"connect:Subtype": {"ValueString": "connect:Chat"}}
_INTERACTIVE = "application/vnd.amazonaws.connect.message.interactive"


def start_chat_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Start a chat and hand the customer its participant token; the same ClientToken replays the answer."""
    instance = instance_of(world, request)
    key = ("StartChatContact", instance.id, request.get("ClientToken", ""))
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    topic = request.get("ChatStreamingConfiguration", {}).get("StreamingEndpointArn")
    if topic is not None:
        streaming.check_topic(topic, instance.region)
    # AWS: StartChatContact: "Active chat throttling returns a LimitExceededException"
    most = world.dials.concurrent_chats
    if most is not None and world.active[CHAT, instance.id] >= most:
        raise ApiError("LimitExceededException", f"The instance has {most} active chats, its quota")
    source = _source(world, instance, request)
    contact = _contact(world, instance, request, source, now)
    world.start(contact)
    customer = world.add(contact, CUSTOMER, request["ParticipantDetails"]["DisplayName"], now)
    streamed = {} if topic is None else {"StreamingId": streaming.begin(world, contact, topic, now).id}
    if "InitialMessage" in request:
        first = request["InitialMessage"]
        world.note(
            contact, now, content_type=first["ContentType"], content=first["Content"], participant=customer
        )
    answer = {"ContactId": contact.id, "ParticipantId": customer.id, "ParticipantToken": customer.token}
    answer |= streamed | connections.issue(world, customer, request.get("ConnectionTypes", ()), now)
    if source is not None:
        answer["ContinuedFromContactId"] = source.id
    if key[2]:
        world.remember(key, answer, now)
    return answer


def _contact(
    world: World, instance: Instance, request: dict[str, Any], source: Contact | None, now: float
) -> Contact:
    attributes = request.get("Attributes") or {}
    check_attributes(attributes)
    contact_id = world.new_contact_id(request)
    contact = Contact(
        id=contact_id,
        instance=instance,
        initial_contact_id=contact_id,
        started_at=now,
        expires_at=now + 60 * request.get("ChatDurationInMinutes", _CHAT_MINUTES),
        attributes=attributes,
        segment_attributes=_PLAIN_CHAT | request.get("SegmentAttributes", {}),
        tags={"aws:connect:instanceId": instance.id},
        related_contact_id=source.id if source else request.get("RelatedContactId"),
        customer_id=request.get("CustomerId"),
        transcript=list(source.transcript) if source else [],
    )
    _check_guide(contact, request)
    if contact.subtype == "connect:SMS":
        contact.initiation_method = world.dials.sms_initiation_method
    return contact


def _check_guide(contact: Contact, request: dict[str, Any]) -> None:
    """Refuse a guide whose customer cannot show it (AWS: StartChatContact, SegmentAttributes)."""
    needed = {_INTERACTIVE, f"{_INTERACTIVE}.response"}
    supported = request.get("SupportedMessagingContentTypes") or []
    if contact.subtype == "connect:Guide" and not needed <= set(supported):
        raise ApiError(
            "InvalidRequestException",
            "SupportedMessagingContentTypes must hold interactive messages for a guide",
        )


def _source(world: World, instance: Instance, request: dict[str, Any]) -> Contact | None:
    """Find the ended contact from which a persistent chat goes on (AWS: StartChatContact, PersistentChat)."""
    persistent = request.get("PersistentChat")
    if persistent is None:
        return None
    if "RelatedContactId" in request:
        raise ApiError("InvalidRequestException", "RelatedContactId and PersistentChat exclude each other")
    kind, source_id = persistent.get("RehydrationType"), persistent.get("SourceContactId")
    if kind is None or source_id is None:
        raise ApiError(
            "InvalidRequestException", "PersistentChat must have a RehydrationType and a SourceContactId"
        )
    source = world.contacts.get(source_id)
    if source is None or source.instance is not instance:
        raise ApiError(
            "ResourceNotFoundException", "The contact of PersistentChat.SourceContactId was not found"
        )
    if kind == "FROM_SEGMENT":
        past = [source]
    else:
        past = [each for each in world.contacts.values() if each.initial_contact_id == source_id]
    ended = [each for each in past if each.ended_at is not None]
    if not ended:
        raise ApiError(
            "InvalidRequestException", "PersistentChat.SourceContactId names no chat that has ended"
        )
    return ended[-1]
