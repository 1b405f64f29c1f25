"""What a run came to: every chat judged, every CreateParticipant call accounted for. Figures and their definitions only.

Nothing that a bot or a daemon says of itself enters: `ledger` works them out from the world.
"""

from collections.abc import Mapping

import msgspec


class Chats(msgspec.Struct):
    """Chats by what became of them. A chat is an initial contact with all that follow it."""

    started: int = 0
    open: int = 0
    ended: int = 0
    no_customer: int = 0
    """Its customer has not connected; such a chat counts in nothing below."""
    waiting: int = 0
    """Open, and no bot has connected yet."""
    attached: int = 0
    """A bot connected."""
    on_time: int = 0
    """A bot connected within its 15 s and spoke while the customer, who leaves when out of patience, was there."""
    late: int = 0
    """Over: a bot connected, and had not spoken when the chat ended."""
    never: int = 0
    """Over, and no bot ever connected."""
    gave_up: int = 0
    """The customer left before any bot spoke: the part of late and never which customers ended."""
    twice: int = 0
    """Two bots connected to one contact, at the same time or one after the other."""
    two_at_once: int = 0
    """Two bots were in one contact at the same time, and both spoke."""


class Calls(msgspec.Struct):
    """CreateParticipant calls by outcome; of the last million calls of any kind."""

    calls: int = 0
    created: int = 0
    """Bots made: custom participants which exist."""
    connected: int = 0
    """Bots which connected."""
    never_connected: int = 0
    """Bots which let their 15 s pass, or whose chat ended first."""
    replayed: int = 0
    """Carried out once more, by a ClientToken whose bot was there already, even if no answer of the first arrived."""
    throttled: int = 0
    failed: int = 0
    """Answered 5xx, or not at all."""
    after_the_end: int = 0
    """Refused, for a chat which had ended."""
    refused: int = 0
    """Refused for any other reason."""

    @property
    def wasted(self) -> int:
        """Calls which brought no bot that connected, or still may: a call which failed after its effect counts once."""
        return max(0, self.calls - self.created + self.never_connected)


class Spread(msgspec.Struct):
    """Waiting times in seconds, by nearest rank; None as long as there are none."""

    count: int = 0
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


class Quota(msgspec.Struct):
    """CreateParticipant's quota of one account and Region: what it granted, and the most it could have.

    From the first call to the last.
    """

    rate: float
    burst: float
    granted: int = 0
    ideal: float = 0.0


class Report(msgspec.Struct):
    """The whole of it; `seconds` since the first chat."""

    seconds: float
    chats: Chats
    create_participant: Calls
    wasted: int
    wait_for_bot: Spread
    """From the customer's connection to the first bot's."""
    wait_for_message: Spread
    """From the customer's connection to the first bot's first message."""
    quota: Quota
    """All together."""
    quotas: Mapping[str, Quota]
    """Each by itself, by account and Region: `111122223333 eu-central-1`."""
    customers: Mapping[str, int]
    """Of those who were played, what became of them."""
    publishing: Mapping[str, int]
    """What became of the contact events; empty without a target."""
