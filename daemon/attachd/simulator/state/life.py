"""The stages of a contact's life and the one table of allowed moves. Pure: what a move brings along is `world`'s."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Stage(StrEnum):
    """Where a contact stands."""

    STARTED = "STARTED"
    """It exists; its customer has not connected, so its flow has not begun (AWS: troubleshoot message streaming)."""
    CONNECTED = "CONNECTED"
    """Its customer is there and a flow has the word."""
    QUEUED = "QUEUED"
    """It waits for an agent."""
    WITH_AGENT = "WITH_AGENT"
    """An agent has joined."""
    ENDED = "ENDED"
    """It is over; whatever follows is another contact."""


MOVES: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.STARTED: frozenset({Stage.CONNECTED, Stage.ENDED}),
        Stage.CONNECTED: frozenset({Stage.QUEUED, Stage.ENDED}),
        Stage.QUEUED: frozenset({Stage.WITH_AGENT, Stage.ENDED}),
        Stage.WITH_AGENT: frozenset({Stage.ENDED}),
        Stage.ENDED: frozenset(),
    }
)


class IllegalMove(Exception):
    """The contact is not where this could happen to it; nothing has changed."""

    def __init__(self, stage: Stage, wanted: str) -> None:
        super().__init__(f"a contact that is {stage} cannot be {wanted}")


def moved(stage: Stage, to: Stage) -> Stage:
    """Return the stage after the move; raises IllegalMove if the table does not know it."""
    if to not in MOVES[stage]:
        raise IllegalMove(stage, to)
    return to
