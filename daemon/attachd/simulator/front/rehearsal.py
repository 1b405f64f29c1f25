"""Whether customers who are to be played could come at all: tried on a world of its own, so that none fails half way."""

from typing import Any

from attachd.simulator.dials import Dials
from attachd.simulator.errors import ApiError
from attachd.simulator.front.wire import Router, encode
from attachd.simulator.operations.attributes import tag_contact
from attachd.simulator.operations.chats import start_chat_contact
from attachd.simulator.state.world import World
from attachd.simulator.traffic.plan import Customer, Traffic


def rehearse(traffic: Traffic, dials: Dials, router: Router, now: float) -> None:
    """Let one customer of each kind come; raises ValueError with the kind's path and what Connect would say to it."""
    for position, kind in enumerate(traffic.customers):
        try:
            _come(kind, dials, router, now)
        except ApiError as error:
            raise ValueError(f"traffic.customers[{position}]: {error.message}") from None


def _come(kind: Customer, dials: Dials, router: Router, now: float) -> None:
    world = World(dials)
    start, _ = router.find("PUT", "/contact/chat")
    request = start.parse({}, {}, encode(kind.request(dials.instance_id, 0)))
    contact_id = start_chat_contact(world, request, now)["ContactId"]
    if kind.tags:
        tag, _ = router.find("POST", "/contact/tags")
        asked: dict[str, Any] = {"InstanceId": dials.instance_id, "ContactId": contact_id}
        tag_contact(world, tag.parse({}, {}, encode(asked | {"Tags": dict(kind.tags)})), now)
