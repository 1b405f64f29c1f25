"""What can be written on a contact: user attributes, tags, timers. Rules only; writing is announced in an event.

User attributes belong to the whole chat, tags to one contact.
"""

import re
from collections.abc import Callable
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.operations.addressed import contact_of
from attachd.simulator.state.nouns import CHAT
from attachd.simulator.state.world import World

_MOST_BYTES = 32_768  # AWS: UpdateContactAttributes, Attributes
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # AWS: likewise
_MOST_TAGS = 6  # AWS: TagContact; that it bounds the sum of several calls is assumed
_SYSTEM = "aws:"


def check_attributes(attributes: dict[str, str]) -> None:
    """Refuse attributes with a name that AWS does not take, or too large together."""
    for name in attributes:
        if _ATTRIBUTE_NAME.fullmatch(name) is None:
            raise ApiError("InvalidRequestException", "Attributes: a name may have only A-Z a-z 0-9 - _")
    size = sum(len(text.encode("utf-8", "replace")) for pair in attributes.items() for text in pair)
    if size > _MOST_BYTES:
        raise ApiError("InvalidRequestException", f"Attributes must not exceed {_MOST_BYTES} bytes together")


def get_contact_attributes(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Return the chat's user attributes; ended chats too."""
    return {"Attributes": contact_of(world, request, "InitialContactId").attributes}


def update_contact_attributes(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Add or replace user attributes, of ended chats too (AWS: UpdateContactAttributes)."""
    contact = contact_of(world, request, "InitialContactId")
    written = contact.attributes | request["Attributes"]
    check_attributes(written)
    contact.attributes.update(written)
    # AWS: contact events, updatedProperties
    world.happen("CONTACT_DATA_UPDATED", contact, now, ("UserDefinedAttributes",))
    return {}


def tag_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Add or replace tags; later events carry them."""
    contact = contact_of(world, request)
    written = contact.tags | request["Tags"]
    if sum(not key.startswith(_SYSTEM) for key in written) > _MOST_TAGS:
        raise ApiError("InvalidRequestException", f"Tags: a contact has at most {_MOST_TAGS}")
    contact.tags = written
    world.happen("CONTACT_DATA_UPDATED", contact, now, ("Tags",))
    return {}


def untag_contact(world: World, request: dict[str, Any], now: float) -> dict[str, Any]:
    """Remove tags; one that is not there is no error."""
    contact = contact_of(world, request)
    contact.tags = {key: value for key, value in contact.tags.items() if key not in request["TagKeys"]}
    world.happen("CONTACT_DATA_UPDATED", contact, now, ("Tags",))
    return {}


def update_participant_role_config(world: World, request: dict[str, Any], _now: float) -> dict[str, Any]:
    """Set idle timers; they apply to the next agent or bot that joins (AWS: set up chat timeouts)."""
    contact = contact_of(world, request)
    chat = request["ChannelConfiguration"].get("Chat")
    if chat is None or contact.channel != CHAT:
        raise ApiError("InvalidRequestException", "ChannelConfiguration.Chat is required, and a chat")
    if contact.ended_at is not None:
        raise ApiError("ResourceNotFoundException", "The contact has ended")
    configured = chat["ParticipantTimerConfigList"]
    # AWS: ParticipantTimerConfigList: "Duplicate entries error out the request with a 400"
    if len({(timer["ParticipantRole"], timer["TimerType"]) for timer in configured}) < len(configured):
        raise ApiError("InvalidRequestException", "ParticipantTimerConfigList names a timer twice")
    timers = dict(contact.timers)
    for timer in configured:
        key, value = (timer["ParticipantRole"], timer["TimerType"]), timer["TimerValue"]
        minutes, action = value.get("ParticipantTimerDurationInMinutes"), value.get("ParticipantTimerAction")
        if (minutes is None) == (action is None):
            raise ApiError("InvalidRequestException", "TimerValue must have exactly one member")
        timers.pop(key, None)
        if minutes is not None:
            timers[key] = minutes
    contact.timers = timers
    return {}


OPERATIONS: dict[str, Callable[[World, dict[str, Any], float], dict[str, Any]]] = {
    "GetContactAttributes": get_contact_attributes,
    "UpdateContactAttributes": update_contact_attributes,
    "TagContact": tag_contact,
    "UntagContact": untag_contact,
    "UpdateParticipantRoleConfig": update_participant_role_config,
}
