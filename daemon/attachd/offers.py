"""hand off: offer by offer, until a runtime takes the participant or there is no time left for one.

The bot's own runtime first, for as long as its window lasts; then, a few seconds before the end or when the bot's has
refused for good, the rule's fallback. Connect counts the 15 s from our call, so every offer is made against that deadline; a
participant that we have connected ourselves has the chat's patience instead.
"""

import random
from collections.abc import Callable
from typing import Final

import anyio
import structlog

from attachd.chat import Chat
from attachd.errors import Permanent, Transient
from attachd.gates import Gates
from attachd.lifecycle import LAPSE_SECONDS, Entry, handoff_key
from attachd.metrics import Metrics, counted
from attachd.model import ChatEnded, Contact, Handoff, Outcome
from attachd.retry import Backoff, retrying

# The runtime needs a moment to connect: an offer that comes later than this before the end is no use.
OFFER_MARGIN_SECONDS: Final = 2.0
#: What the fallback has of the same window, or half of what is left of it.
FALLBACK_SECONDS: Final = 5.0
_FAREWELL_SECONDS: Final = 20.0
_BACKOFF: Final = Backoff(first=0.2, cap=2.0)

log = structlog.get_logger(__name__)


class Offers:
    """Makes offers; and tells the runtime that took one when its chat is over.

    Args:
        gates: the runtimes, which learn how each offer ended.
        metrics: where offers are counted.
        now: the wall clock, in seconds since the epoch.
        dice: jitter.
    """

    def __init__(
        self, gates: Gates, *, metrics: Metrics, now: Callable[[], float], dice: random.Random
    ) -> None:
        self._gates = gates
        self._metrics = metrics
        self._now = now
        self._dice = dice

    async def hand_off(self, chat: Chat, handoff: Handoff, *, first: bool) -> str:
        """Offer until a runtime takes it; returns that runtime's name.

        Args:
            chat: whose participant it is.
            handoff: what is offered.
            first: whether this participant was never offered before, by a predecessor of this process either.

        Raises:
            Transient: nobody took it, and it will lapse: there is time for another generation.
            Permanent: nobody took it, or the contact ended meanwhile.
        """
        runtime, fallback = handoff.bot.runtime, chat.choice.fallback
        until = self._until(chat, handoff)
        kept = min(FALLBACK_SECONDS, (until - anyio.current_time()) / 2) if fallback else 0.0
        try:
            await self._offer(chat, handoff, runtime, until - kept)
        except (Transient, Permanent) as error:
            refusal = error
        else:
            return runtime
        chat.claim.check()
        if fallback is not None and self._may_ask(fallback, refusal, first=first):
            log.warning(
                "offer.not_taken",
                contact=chat.contact.id,
                runtime=runtime,
                reason=str(refusal),
                next=f"the rule's fallback is asked: {fallback}",
            )
            gate = self._gates.runtimes[fallback]
            gate.enter()
            try:
                await self._offer(chat, handoff, fallback, until)
            except (Transient, Permanent):
                chat.claim.check()  # what its bot's own runtime said decides
            else:
                return fallback
            finally:
                gate.leave()
                self._gates.stir()
        raise self._verdict(chat, handoff, refusal) from None

    async def farewell(self, contact: Contact, entry: Entry, reason: str) -> None:
        """Tell the runtime that has this chat that it is over: on best effort, for some seconds.

        Args:
            contact: as the event that ended it tells.
            entry: what was known of it until then.
            reason: ``ended`` or ``agent_joined``.
        """
        gate = self._gates.runtimes.get(entry.runtime or "")
        if gate is None:  # taken before that was recorded, or a table that is no more
            return
        key = f"{handoff_key(entry)}_ended"
        farewell = ChatEnded(key, contact, entry.bot or "", entry.generation, reason)
        until = anyio.current_time() + _FAREWELL_SECONDS

        async def tell() -> None:
            if not gate.there:  # its probes say when it is worth a try
                raise Transient("circuit_open", gate.circuit.why)
            await gate.runtime.ended(farewell)

        try:
            with anyio.fail_after(_FAREWELL_SECONDS):
                await retrying(tell, backoff=_BACKOFF, until=until, dice=self._dice)
        except (Transient, Permanent, TimeoutError) as error:
            log.warning(
                "chat.end_not_told",
                contact=contact.id,
                runtime=gate.name,
                reason=str(error) or "no answer",
                next="its bot learns it from Connect",
            )

    def _may_ask(self, fallback: str, refusal: Transient | Permanent, *, first: bool) -> bool:
        """Not beside a bot that may have taken it unheard: two would speak at once. And not one that is full, or not there."""
        unheard = isinstance(refusal, Transient) and (refusal.ambiguous or not first)
        return not unheard and self._gates.runtimes[fallback].wait(anyio.current_time()) <= 0

    def _until(self, chat: Chat, handoff: Handoff) -> float:
        """The end of the window or, if the participant is connected already, of patience; on the event loop's clock."""
        left = handoff.connect_by - OFFER_MARGIN_SECONDS - self._now()
        if handoff.participant.connection is not None:
            left = max(left, chat.left)
        elif left <= 0:  # nobody has refused this chat, and the next generation may still serve it
            raise Transient("window_closing", "the participant came too late to be offered")
        return anyio.current_time() + left

    def _verdict(self, chat: Chat, handoff: Handoff, refusal: Transient | Permanent) -> Transient | Permanent:
        if isinstance(refusal, Permanent):
            return refusal
        detail = f"runtime {handoff.bot.runtime!r} did not accept within the window ({refusal})"
        lapses = handoff.participant.connection is None
        if lapses and not chat.claim.last and chat.left > LAPSE_SECONDS:
            return Transient("not_accepted_in_time", detail)
        return Permanent(Outcome.UNSERVED, "not_accepted_in_time", detail)

    async def _offer(self, chat: Chat, handoff: Handoff, runtime: str, until: float) -> None:
        """Offer it to one runtime until it accepts.

        Raises:
            Transient: it did not in time; the last error.
            Permanent: it refuses for good, or the contact ended meanwhile.
        """
        last = Transient("no_answer", ambiguous=True)
        unheard = False

        async def one_try() -> None:
            nonlocal last, unheard
            chat.claim.check()
            chat.trail.note(offers=chat.trail.fields.get("offers", 0) + 1)
            unheard, before = True, unheard  # until it has answered
            try:
                await self._offer_once(handoff, runtime)
            except Transient as error:
                last, unheard = error, before or error.ambiguous
                raise

        try:
            with anyio.fail_after(max(0.0, until - anyio.current_time())):
                await retrying(one_try, backoff=_BACKOFF, until=until, dice=self._dice)
        except (Transient, TimeoutError):
            raise Transient(last.reason, last.detail, after=last.after, ambiguous=unheard) from None

    async def _offer_once(self, handoff: Handoff, runtime: str) -> None:
        heard: Transient | Permanent | None = None
        try:
            with counted(self._metrics.offers, runtime):
                open_chats = await self._gates.runtimes[runtime].runtime.offer(handoff)
        except (Transient, Permanent) as error:
            heard = error
            log.warning("offer.failed", contact=handoff.contact.id, runtime=runtime, reason=str(error))
            raise
        else:
            if runtime == handoff.bot.runtime:  # what the fallback has is none of the bot's chats
                self._gates.opened(handoff.bot.name, handoff.contact.id, open_chats)
        finally:
            self._gates.heard(runtime, heard)
