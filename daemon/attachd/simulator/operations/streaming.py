"""Which SNS topics a chat is streamed to, and what is said there. Rules only: `outlets` publishes."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from attachd.simulator.errors import ApiError
from attachd.simulator.operations import transcript
from attachd.simulator.operations.addressed import contact_of
from attachd.simulator.state.nouns import CHAT, Contact, Line, Stream
from attachd.simulator.state.world import World

_MOST_TOPICS = 2  # AWS: enable real-time chat message streaming, "2 topics per contact"
_TOPIC = re.compile(r"arn:aws[\w-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
_ATTRIBUTES = ("InitialContactId", "ContactId", "ParticipantRole", "Type", "ContentType")

_encode = msgspec.json.Encoder().encode


def start_contact_streaming(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Stream a chat, named by its initial contact, to a standard topic of the instance's Region."""
    contact = contact_of(world, request)
    key = ("StartContactStreaming", contact.id, request["ClientToken"])
    known = world.remembered(key, now) if key[2] else None
    if known is not None:
        return known
    # AWS: StartContactStreaming, ContactId: "associated with the first interaction"; the code is assumed
    if contact.previous_contact_id is not None:
        raise ApiError("ResourceNotFoundException", "ContactId must be the chat's initial contact")
    if contact.channel != CHAT:  # AWS: message streaming is chat's; the code is assumed
        raise ApiError("InvalidRequestException", "ContactId must name a chat")
    if contact.ended_at is not None and not _goes_on(world, contact.id):
        raise ApiError("ResourceNotFoundException", "The contact has ended")
    topic = request["ChatStreamingConfiguration"]["StreamingEndpointArn"]
    check_topic(topic, contact.instance.region)
    if len(contact.streams) >= _MOST_TOPICS:
        raise ApiError(
            world.dials.error_of_a_third_topic, f"A contact streams to at most {_MOST_TOPICS} topics"
        )
    answer = {"StreamingId": begin(world, contact, topic, now).id}
    if key[2]:
        world.remember(key, answer, now)
    return answer


def begin(world: World, contact: Contact, topic: str, now: float) -> Stream:
    """Let a chat, given by its initial contact, be streamed to a topic."""
    stream = Stream(world.new_id(contact, "stream"), topic, now)
    contact.streams[stream.id] = stream
    return stream


def notifications(world: World, lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """Write what is to be published: an entry of PublishBatch and its `TopicArn` for each item and each topic.

    AWS: "Use the Amazon SNS payload". Receipts are no items. That everyone may see everything is assumed, since
    AWS does not say when MessageVisibility is not ALL.
    """
    for line in lines:
        streams = world.contacts[line.contact.initial_contact_id].streams
        if streams and line.reader is None:
            item = transcript.told(line)
            attributes = {name: item[name] for name in _ATTRIBUTES if name in item} | {
                "InstanceId": line.contact.instance.id,
                "AccountId": line.contact.instance.account,
                "MessageVisibility": "ALL",
            }
            entry = {
                "Id": item["Id"],
                "Message": _encode(item).decode(),
                "MessageAttributes": {
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
            }
            yield from ({"TopicArn": stream.topic_arn} | entry for stream in streams.values())


def stop_contact_streaming(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Stop streaming to one topic; an unknown StreamingId is 404."""
    contact = contact_of(world, request)
    if contact.streams.pop(request["StreamingId"], None) is None:
        raise ApiError("ResourceNotFoundException", "The stream of this StreamingId was not found")
    return {}


def _goes_on(world: World, initial_id: str) -> bool:
    """Tell whether a later contact of the chat is alive."""
    return any(
        each.initial_contact_id == initial_id and each.ended_at is None for each in world.contacts.values()
    )


def check_topic(arn: str, region: str) -> None:
    """Refuse what is no standard topic (AWS: no FIFO) of this Region (AWS: the same Region as the instance)."""
    found = _TOPIC.fullmatch(arn)
    if found is None or found[1] != region or found[2] is not None:
        raise ApiError(
            "InvalidRequestException",
            "ChatStreamingConfiguration.StreamingEndpointArn must name a standard SNS topic of the instance's Region",
        )


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "StartContactStreaming": start_contact_streaming,
    "StopContactStreaming": stop_contact_streaming,
}
