"""What no API of Connect does but a test wants done: `POST /_simulator/contacts/{id}/queue|agent|transfer|end`.

Agents and flows act here, in the name of people whom nobody simulates. No rule enters which `life` does not know.
"""

import re
from typing import Any

import msgspec

from attachd.simulator.state import walk
from attachd.simulator.state.life import IllegalMove, Stage
from attachd.simulator.state.nouns import Contact
from attachd.simulator.state.world import World

_PATH = re.compile(r"/_simulator/contacts/([^/]+)/(queue|agent|transfer|end)")
_REASONS = {"customer": "CUSTOMER_DISCONNECT", "flow": "CONTACT_FLOW_DISCONNECT"}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    queue: str = "standard"
    by: str = ""


_read = msgspec.json.Decoder(_Asked).decode


def control(world: World, path: str, body: bytes, now: float) -> tuple[int, dict[str, Any]]:
    """Do what is asked to a contact; answer 200 with the contact which goes on, 400, 404 or 409 with a message."""
    found = _PATH.fullmatch(path)
    if found is None:
        return 404, {"message": "no such page"}
    contact = world.contacts.get(found[1])
    if contact is None:
        return 404, {"message": "no such contact"}
    try:
        following = _act(world, contact, found[2], _read(body) if body else _Asked(), now)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return 400, {"message": str(error)}
    except IllegalMove as error:
        return 409, {"message": str(error)}
    return 200, {"contact_id": following.id, "state": following.stage.value}


def _act(world: World, contact: Contact, verb: str, asked: _Asked, now: float) -> Contact:
    match verb:
        case "queue":
            world.enqueue(contact, asked.queue, now)
        case "agent":
            walk.agent_joins(world, contact, now)
        case "transfer":
            return walk.transfer(world, contact, now)
        case _:
            return _end(world, contact, asked.by, now)
    return contact


def _end(world: World, contact: Contact, by: str, now: float) -> Contact:
    """End the contact; without a word by whom, the agent does if there is one, else the flow."""
    by = by or ("agent" if contact.stage is Stage.WITH_AGENT else "flow")
    if by == "agent":
        return walk.agent_leaves(world, contact, now) or contact
    if by not in _REASONS:
        raise msgspec.ValidationError("by must be agent, customer or flow")
    world.end(contact, _REASONS[by], now)
    return contact
