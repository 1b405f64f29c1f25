"""Which instance and which contact a request of Connect means, or the refusal if there is none. No other rule."""

from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instance import Instance
from attachd.simulator.state.nouns import Contact
from attachd.simulator.state.world import World


def instance_of(world: World, request: dict[str, Any]) -> Instance:
    """Return the instance which the request names."""
    instance = world.instances.get(request["InstanceId"])
    if instance is None:
        raise ApiError("ResourceNotFoundException", "The instance of this InstanceId was not found")
    return instance


def contact_of(world: World, request: dict[str, Any], member: str = "ContactId") -> Contact:
    """Return the contact which this member of the request names, ended ones too."""
    instance = instance_of(world, request)
    contact = world.contacts.get(request[member])
    if contact is None or contact.instance is not instance:
        raise ApiError("ResourceNotFoundException", f"The contact of this {member} was not found")
    return contact
