"""Which instance and which contact a request of Connect means, or the refusal if there is none. No other rule."""

from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.state.nouns import Contact
from attachd.simulator.state.world import World


def require_instance(world: World, request: dict[str, Any]) -> None:
    """Refuse any instance but the one which exists."""
    if request["InstanceId"] != world.dials.instance_id:
        raise ApiError("ResourceNotFoundException", "The instance of this InstanceId was not found")


def contact_of(world: World, request: dict[str, Any], member: str = "ContactId") -> Contact:
    """Return the contact which this member of the request names, ended ones too."""
    require_instance(world, request)
    contact = world.contacts.get(request[member])
    if contact is None:
        raise ApiError("ResourceNotFoundException", f"The contact of this {member} was not found")
    return contact
