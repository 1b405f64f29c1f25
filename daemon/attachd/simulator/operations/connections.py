"""What a participant connects with, and its websockets: how one is asked for, opened, subscribed and closed. Rules only."""

import re
from collections.abc import Collection
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import iso_milliseconds
from attachd.simulator.state import walk
from attachd.simulator.state.nouns import Participant, Ticket
from attachd.simulator.state.world import World

WEBSOCKET_PATH = "/participant/websocket"
SECRET = "X-Amz-Signature"  # noqa: S105 - the name of a parameter

_HOST = re.compile(r"[\w.:\[\]%-]+", re.ASCII)
_CONNECTION_SECONDS = (
    86400.0  # AWS: CreateParticipantConnection, "Expiry time for the connection token is 1 day"
)
_MOST_SOCKETS = (
    5  # AWS: feature specifications, open websockets per participant; how a sixth is refused is assumed
)


def issue(world: World, participant: Participant, types: Collection[str], now: float) -> dict[str, Any]:
    """Return `Websocket` and `ConnectionCredentials`, those of them which `types` names.

    The websocket's Url has a path and a secret only; `addressed` gives it a host.
    """
    issued: dict[str, Any] = {}
    if "WEBSOCKET" in types:
        secret, ticket = world.issue_ticket(participant, now)
        issued["Websocket"] = {
            "Url": f"{WEBSOCKET_PATH}?{SECRET}={secret}",
            "ConnectionExpiry": iso_milliseconds(ticket.expires_at),
        }
    if "CONNECTION_CREDENTIALS" in types:
        expires_at = now + _CONNECTION_SECONDS
        token = world.issue_connection(participant, expires_at)
        issued["ConnectionCredentials"] = {"ConnectionToken": token, "Expiry": iso_milliseconds(expires_at)}
    return issued


def addressed(answer: dict[str, Any], host: str) -> dict[str, Any]:
    """Return an answer whose websocket is at this host, where its asker found the API."""
    if _HOST.fullmatch(host) is None:
        host = "127.0.0.1"  # the call has had its effect: whoever writes such a Host still gets an answer
    websocket = answer["Websocket"]
    return answer | {"Websocket": websocket | {"Url": f"ws://{host}{websocket['Url']}"}}


def require_alive(world: World, participant: Participant | None, now: float) -> Participant:
    """Return the participant if it can connect or stay connected; else raise ApiError."""
    if participant is None or participant.disconnected_at is not None or now >= participant.expires_at:
        raise ApiError("AccessDeniedException", "Access denied")
    # AWS: custom participants, troubleshooting: later than 15 s is ResourceNotFoundException, modelled or not
    if world.lapsed(participant, now):
        raise ApiError("ResourceNotFoundException", "The participant did not connect in time")
    return participant


def open_websocket(world: World, secret: str, now: float) -> Ticket:
    """Take the ticket of a websocket's URL, which opens one socket, once; raises ApiError."""
    ticket = world.tickets.get(secret)
    participant = require_alive(world, ticket.participant if ticket else None, now)
    if participant.sockets >= _MOST_SOCKETS:
        raise ApiError("ThrottlingException", f"A participant has at most {_MOST_SOCKETS} open websockets")
    taken = world.tickets.pop(secret)
    if now >= taken.open_by:
        raise ApiError("AccessDeniedException", "Access denied")
    participant.sockets += 1
    return taken


def subscribe(world: World, participant: Participant, now: float) -> None:
    """Let a participant follow its chat, which makes it connected (AWS: StartChatContact); raises ApiError."""
    require_alive(world, participant, now)
    if participant.connected_at is None:
        walk.connect(world, participant, now)


def close_websocket(participant: Participant) -> None:
    """Note that a socket of this participant has gone; that ends no chat, since it may come back."""
    participant.sockets -= 1
