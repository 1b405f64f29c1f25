"""What no API of Connect does but a test wants done: to contacts, by people whom nobody simulates, and to the time.

`POST /_simulator/contacts/{id}/queue|agent|transfer|end` and `POST /_simulator/clock`. Agents and flows act here. No rule enters which `life` does not know.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from attachd.simulator.front.clock import ManualClock
from attachd.simulator.instants import from_iso
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


class _Move(msgspec.Struct, forbid_unknown_fields=True):
    advance: float | None = None
    set: str | float | None = None


_read_move = msgspec.json.Decoder(_Move).decode


def move(clock: Callable[[], float], body: bytes) -> tuple[int, dict[str, Any]]:
    """Move a clock that stands still, `{"advance": seconds}` or `{"set": …}` to an instant (ISO 8601 or epoch seconds).

    Answers 200 with the time; what is due by then has still to happen. 409 if the clock goes by itself.
    """
    if not isinstance(clock, ManualClock):
        return 409, {"message": "the clock goes by itself; start with --clock manual"}
    try:
        asked = _read_move(body)
        if (asked.advance is None) == (asked.set is None):
            raise ValueError("say either advance or set")  # noqa: TRY301 - one sentence for all that is wrong
        if asked.advance is not None:
            clock.turn(clock() + asked.advance)
        else:
            clock.turn(from_iso(asked.set) if isinstance(asked.set, str) else asked.set or 0.0)
    except (ValueError, OverflowError) as error:  # msgspec's errors are ValueErrors
        return 400, {"message": str(error)}
    return 200, {"now": clock()}
