"""What an event does to a contact, by the contact's channel and the event's type.

Source: admin guide, "Amazon Connect contact events", EventType.
"""

from enum import Enum
from typing import Final

from attachd.model import Outcome


class Effect(Enum):
    """What an event does to a chat."""

    OPENS = "opens"
    ENDS = "ends"
    QUEUES = "queues"
    AGENT = "agent"
    NOTHING = "nothing"


# Either of the first two opens a chat: events are best effort, so one of them may never come. COMPLETED follows
# DISCONNECTED, or stands in for a lost one.
_CHAT: Final = {
    "INITIATED": Effect.OPENS,
    "CONNECTED_TO_SYSTEM": Effect.OPENS,
    "QUEUED": Effect.QUEUES,
    "CONNECTED_TO_AGENT": Effect.AGENT,
    "DISCONNECTED": Effect.ENDS,
    "COMPLETED": Effect.ENDS,
}
# A WebRTC call takes a further participant once its agent is there, and not before (admin guide, "Integrate
# in-app, web, video calling, and screen sharing natively", multi-user).
_VOICE: Final = {
    "CONNECTED_TO_AGENT": Effect.OPENS,
    "DISCONNECTED": Effect.ENDS,
    "COMPLETED": Effect.ENDS,
}
#: Changes nothing, but a rule may ask for it.
UPDATED: Final = "CONTACT_DATA_UPDATED"
EFFECTS: Final = {"CHAT": _CHAT, "VOICE": _VOICE}


def effect(channel: str, event_type: str) -> Effect:
    """What an event of this type does to a contact of this channel."""
    return EFFECTS.get(channel, {}).get(event_type, Effect.NOTHING)


#: What becomes of a contact that was waiting for a bot.
DEPARTURES: Final = {
    Effect.ENDS: Outcome.ENDED,
    Effect.QUEUES: Outcome.QUEUED,
    Effect.AGENT: Outcome.AGENT_JOINED,
}
