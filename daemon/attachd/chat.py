"""A chat on its way down the line: what is known of it, and who may be attached to it now."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from attachd.claims import Claim
from attachd.instances import Instance
from attachd.lifecycle import WINDOW_SECONDS
from attachd.logs import Trail
from attachd.model import Bot, Choice, Contact


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat, in one hand.

    Attributes:
        contact: its segment.
        instance: its Amazon Connect.
        choice: who may be attached to it, by which rule.
        claim: our hand on it.
        trail: what is logged of it at the end.
        since: when its event happened, in seconds since the epoch.
        until: when patience ends, on the event loop's clock.
        known: every bot that the rules know, by name.
        prepared: the bots whose recipes have been begun for it.
    """

    contact: Contact
    instance: Instance
    choice: Choice
    claim: Claim
    trail: Trail
    since: float
    until: float
    known: Mapping[str, Bot] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)

    @property
    def bots(self) -> tuple[Bot, ...]:
        """Who may be attached now: while a participant may be there, only the bot that it was made for.

        Whatever the rules have come to say meanwhile; nobody, if they do not know that bot any more.
        """
        entry = self.claim.entry
        if entry.requested_at is None or entry.bot is None:
            return self.choice.bots
        chosen = {bot.name: bot for bot in self.choice.bots}
        made_for = chosen.get(entry.bot) or self.known.get(entry.bot)
        # One that we connect ourselves does not lapse by itself: Connect says when it is gone.
        if self.claim.window <= 0 and not (made_for is not None and made_for.recipe.connect):
            return self.choice.bots
        return () if made_for is None else (made_for,)

    @property
    def present(self) -> bool:
        """Whether a participant may be there that does not lapse by itself."""
        bots = self.bots
        return self.claim.entry.requested_at is not None and bool(bots) and bots[0].recipe.connect

    def connect_by(self, now: float) -> float:
        """When Connect drops the participant unless it connects; seconds since the epoch."""
        return (self.claim.entry.requested_at or now) + WINDOW_SECONDS

    async def token(self, api: str, until: float | None = None) -> None:
        """Buy a token of an API's quota, as urgent as the chat is.

        Raises:
            Permanent: it is over, or out of patience.
        """
        await self.instance.rooms[api].admit(
            self.contact.id,
            gates=(),
            priority=self.choice.priority,
            since=self.since,
            until=self.until if until is None else until,
        )

    @property
    def left(self) -> float:
        """Seconds of patience left."""
        return self.until - anyio.current_time()
