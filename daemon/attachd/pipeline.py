"""THE LINE.

    receive → decode → choose → admit → attach → hand off → settle

``service`` receives and settles; what lies between is here, top to bottom. Every delivery leaves with exactly
one ``Result``. An event that ends or changes a chat takes the short path beside the line (``_note``).
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import structlog
from prometheus_client import Counter

from attachd.claims import Claim, Claims
from attachd.decode import MAX_BYTES, decode
from attachd.errors import Permanent, Transient
from attachd.lifecycle import DEPARTURES, EFFECTS, WINDOW_SECONDS, Effect, Stage, client_token
from attachd.logs import Trail
from attachd.metrics import Metrics
from attachd.model import (
    AttachRequest,
    Choice,
    ContactEvent,
    Delivery,
    Handoff,
    Outcome,
    Participant,
)
from attachd.ports import Attacher, Runtime
from attachd.retry import Backoff, retrying
from attachd.rules import Rules
from attachd.waiting import Room

# The runtime needs a moment to connect: an offer that comes later than this before the end is no use.
OFFER_MARGIN_SECONDS: Final = 2.0
_DISMISS_SECONDS: Final = 5.0
_ATTACH_BACKOFF: Final = Backoff(first=0.1, cap=2.0)
_OFFER_BACKOFF: Final = Backoff(first=0.2, cap=2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """How a delivery ended: the outcome, why, and when to come back if it said so."""

    outcome: Outcome
    reason: str = ""
    after: float | None = None


class Pipeline:
    """The stations, in order.

    Args:
        rules: choose.
        claims: admit, the contact's side.
        room: admit, the quota's side.
        attacher: attach.
        runtimes: hand off, by name.
        metrics: what is counted.
        now: the wall clock, in seconds since the epoch.
        dice: jitter.
        max_body_bytes: a larger body is refused unread.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        claims: Claims,
        room: Room,
        attacher: Attacher,
        runtimes: Mapping[str, Runtime],
        metrics: Metrics,
        now: Callable[[], float],
        dice: random.Random,
        max_body_bytes: int = MAX_BYTES,
    ) -> None:
        self._rules = rules
        self._claims = claims
        self._room = room
        self._attacher = attacher
        self._runtimes = runtimes
        self._metrics = metrics
        self._now = now
        self._dice = dice
        self._max_body_bytes = max_body_bytes

    async def carry(self, delivery: Delivery, trail: Trail) -> Result:
        """Carry one delivery down the line. Raises nothing but cancellation and defects of ours."""
        try:
            return await self._line(delivery, trail)
        except Permanent as error:
            return Result(error.outcome, str(error))
        except Transient as error:
            return Result(Outcome.DEFERRED, str(error), error.after)

    async def _line(self, delivery: Delivery, trail: Trail) -> Result:
        event = decode(delivery.body, received_at=self._now(), max_bytes=self._max_body_bytes)
        trail.note(contact=event.contact.id, event_type=event.type)
        if EFFECTS[event.type] is not Effect.OPENS:
            return await self._note(event)

        choice = self._rules.choose(event)
        trail.note(bot=choice.bot.name, rule=choice.rule)

        async with self._claims.hold(event.contact.id) as claim:
            chat = _Chat(event, choice, claim, trail, until=self._patience(event, choice))
            participant = await retrying(
                partial(self._admit_and_attach, chat),
                backoff=_ATTACH_BACKOFF,
                until=chat.until,
                dice=self._dice,
            )
            await self._hand_off(chat, participant)
        self._metrics.attach_age.observe(max(0.0, self._now() - event.time))
        return Result(Outcome.ATTACHED, f"rule {choice.rule!r}")

    async def _admit_and_attach(self, chat: "_Chat") -> Participant:
        """One try. Each is admitted anew, since each costs a token."""
        await self._admit(chat)
        return await self._attach(chat)

    async def _admit(self, chat: "_Chat") -> None:
        """Wait for all that must be true before the clock starts."""
        chat.claim.check()
        chat.claim.wait_out()
        with chat.trail.station("admit"):
            await self._room.admit(
                chat.event.contact.id,
                priority=chat.choice.priority,
                since=chat.event.time,
                until=chat.until,
            )

    async def _attach(self, chat: "_Chat") -> Participant:
        """CreateParticipant, once; the clock starts here."""
        contact, bot = chat.event.contact, chat.choice.bot
        entry = await chat.claim.begin(bot.name, chat.choice.rule)
        chat.trail.note(generation=entry.generation, tries=chat.trail.fields.get("tries", 0) + 1)
        request = AttachRequest(
            instance_id=contact.instance_id,
            contact_id=contact.id,
            client_token=client_token(contact.instance_id, contact.id, entry.generation),
            display_name=bot.display_name,
            role=bot.role,
            capabilities=bot.capabilities,
        )
        try:
            with chat.trail.station("attach"), _counted(self._metrics.attach_tries):
                return await self._attacher.attach(request)
        except Transient as error:
            if not error.ambiguous:
                chat.claim.unspent()
            raise

    async def _hand_off(self, chat: "_Chat", participant: Participant) -> None:
        """Offer the participant until the runtime accepts or the window closes; then let the flow go on."""
        try:
            entry = await chat.claim.move(Stage.ATTACHED, participant_id=participant.id)
            handoff = Handoff(
                key=f"{entry.contact_id}_{entry.generation}",
                contact=chat.event.contact,
                bot=chat.choice.bot,
                rule=chat.choice.rule,
                generation=entry.generation,
                participant=participant,
                connect_by=(entry.requested_at or self._now()) + WINDOW_SECONDS,
            )
            chat.trail.note(participant=participant.id)
            with chat.trail.station("hand_off"):
                await self._offer(handoff, chat.trail)
        except Permanent:
            await self._dismiss(chat, participant)
            raise
        remaining = handoff.connect_by - self._now()
        self._metrics.remaining.observe(remaining)
        chat.trail.note(remaining_ms=round(1000 * remaining))
        await self._accepted(chat.claim)

    async def _offer(self, handoff: Handoff, trail: Trail) -> None:
        name = handoff.bot.runtime
        last = "no answer"

        async def one_try() -> None:
            nonlocal last
            trail.note(offers=trail.fields.get("offers", 0) + 1)
            try:
                with _counted(self._metrics.offers, name):
                    await self._runtimes[name].offer(handoff)
            except (Transient, Permanent) as error:
                last = str(error)
                log.warning("offer.failed", contact=handoff.contact.id, runtime=name, reason=last)
                raise

        left = handoff.connect_by - OFFER_MARGIN_SECONDS - self._now()
        if (
            left <= 0
        ):  # Connect took too long: nobody has refused this chat, and the next generation may still serve it
            raise Transient("window_closing", "the participant came too late to be offered")
        try:
            with anyio.fail_after(left):
                until = anyio.current_time() + left
                await retrying(one_try, backoff=_OFFER_BACKOFF, until=until, dice=self._dice)
        except (Transient, TimeoutError):
            raise Permanent(
                Outcome.UNSERVED,
                "not_accepted_in_time",
                f"runtime {name!r} did not accept within the window ({last})",
            ) from None

    async def _accepted(self, claim: Claim) -> None:
        """The runtime has it, and that stands, whatever the journal says."""
        try:
            await claim.move(Stage.HANDED_OFF)
        except Permanent:
            log.info("chat.ended_at_hand_off", contact=claim.entry.contact_id)
        except Transient as error:
            log.error(
                "journal.hand_off_not_recorded",
                contact=claim.entry.contact_id,
                reason=str(error),
                next="a repeated event makes the same request and the same offer, which the runtime knows",
            )

    async def _dismiss(self, chat: "_Chat", participant: Participant) -> None:
        try:
            with anyio.fail_after(_DISMISS_SECONDS):
                await self._attacher.dismiss(participant)
        except (Transient, Permanent, TimeoutError) as error:
            log.warning(
                "participant.not_dismissed",
                contact=chat.event.contact.id,
                participant=participant.id,
                reason=str(error),
                next="Connect drops it by itself 15 s after it was made; the flow goes on when it is gone",
            )

    async def _note(self, event: ContactEvent) -> Result:
        """The short path: the chat ended, or is beyond a bot's reach, or nothing that matters changed."""
        effect = EFFECTS[event.type]
        if effect is Effect.NOTHING or event.contact.channel != "CHAT":
            return Result(Outcome.IGNORED, event.type)
        self._room.call_away(event.contact.id, DEPARTURES[effect])
        await self._claims.end(event.contact.id, effect)
        return Result(Outcome.NOTED, event.type)

    def _patience(self, event: ContactEvent, choice: Choice) -> float:
        """When the rule's patience with this event ends, on the event loop's clock."""
        return anyio.current_time() + event.time + choice.patience - self._now()


@dataclass(frozen=True, slots=True)
class _Chat:
    """A chat on its way down the line; ``until`` is when the rule's patience ends, on the event loop's clock."""

    event: ContactEvent
    choice: Choice
    claim: Claim
    trail: Trail
    until: float


@contextmanager
def _counted(counter: Counter, *labels: str) -> Iterator[None]:
    """Count a try by its result: ``ok``, or the reason that it failed for."""
    try:
        yield
    except (Transient, Permanent) as error:
        counter.labels(*labels, error.reason).inc()
        raise
    counter.labels(*labels, "ok").inc()
