"""What a request is about, as far as it must be known before any rule is asked: a contact, an instance."""

from typing import Any

from attachd.simulator.instance import Instance
from attachd.simulator.state.nouns import Participant
from attachd.simulator.state.world import World


def contact_id_of(world: World, request: dict[str, Any]) -> str:
    """Find which contact a request is about: it says so, or its bearer token does; empty if neither."""
    for name in ("ContactId", "InitialContactId"):
        if name in request:
            return str(request[name])
    member = _bearer(world, request)
    return member.contact_id if member else ""


def instance_of(world: World, request: dict[str, Any]) -> Instance:
    """Find whose quota a call spends, and whose faults it meets; of one for nobody knows whom, the first's (assumed)."""
    named = request.get("InstanceId")
    if named is None and (member := _bearer(world, request)) is not None:
        return world.contacts[member.contact_id].instance
    return world.instances.get(named or "") or next(iter(world.instances.values()))


def _bearer(world: World, request: dict[str, Any]) -> Participant | None:
    if "ConnectionToken" in request:
        connection = world.connections.get(request["ConnectionToken"])
        return connection.participant if connection else None
    return world.participants.get(request.get("ParticipantToken", ""))
