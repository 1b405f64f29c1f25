"""THE LINE.

    receive → decode → choose → admit → attach → hand off → settle

``service`` receives and settles; what lies between is here, top to bottom. Every delivery leaves with exactly
one ``Result``. An event that ends or changes a chat takes the short path beside the line (``_note``).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import anyio
import structlog
from prometheus_client import Counter

from attachd.claims import Claim, Claims
from attachd.decode import MAX_BYTES, decode
from attachd.errors import Permanent, Transient
from attachd.gates import Gates, Way
from attachd.instances import Instances
from attachd.lifecycle import DEPARTURES, LAPSE_SECONDS, WINDOW_SECONDS, Effect, Stage, client_token, effect
from attachd.logs import Trail
from attachd.metrics import Metrics
from attachd.model import AttachRequest, Bot, Choice, Contact, Delivery, Handoff, Outcome, Participant
from attachd.recipe import Errand
from attachd.retry import Backoff, retrying
from attachd.rules import Rules

# The runtime needs a moment to connect: an offer that comes later than this before the end is no use.
OFFER_MARGIN_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 6.0
_STALE_TOKEN_SECONDS: Final = 1.0
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
        instances: admit and attach, Connect's side: quotas and calls.
        gates: admit and hand off, the runtimes' side.
        metrics: what is counted.
        now: the wall clock, in seconds since the epoch.
        dice: jitter.
        max_body_bytes: a larger body is refused unread.
        leave_when_queued: whether a chat that is queued for an agent gets no bot any more.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        claims: Claims,
        instances: Instances,
        gates: Gates,
        metrics: Metrics,
        now: Callable[[], float],
        dice: random.Random,
        max_body_bytes: int = MAX_BYTES,
        leave_when_queued: bool = True,
    ) -> None:
        self._rules = rules
        self._claims = claims
        self._instances = instances
        self._gates = gates
        self._metrics = metrics
        self._now = now
        self._dice = dice
        self._max_body_bytes = max_body_bytes
        self._leave_when_queued = leave_when_queued

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
        contact, since = event.contact, event.time
        trail.note(contact=contact.id, event_type=event.type)
        what = effect(contact.channel, event.type)
        if what is not Effect.OPENS:
            return await self._note(contact, what, event.type)

        choice = self._rules.choose(event)
        del event  # its document would wait with the chat, kilobytes each
        trail.note(bot=choice.bots[0].name, rule=choice.rule)

        instance = await self._instances.of(contact.instance_arn)
        until = anyio.current_time() + since + choice.patience - self._now()
        errand = Errand(instance, contact, choice.priority, since, until)
        async with self._claims.hold(contact.id) as claim:
            one_try = partial(self._serve, _Chat(errand, choice, claim, trail))
            await retrying(one_try, backoff=_ATTACH_BACKOFF, until=until, dice=self._dice)
        self._metrics.attach_age.observe(max(0.0, self._now() - since))
        return Result(Outcome.ATTACHED, f"rule {choice.rule!r}")

    async def _serve(self, chat: "_Chat") -> None:
        """One try, through to the runtime. Each is admitted anew, since each costs a token."""
        way = await self._admit(chat)
        try:
            participant = await self._attach(chat, way.bot)
            await self._hand_off(chat, way.bot, participant)
        finally:
            way.leave()
            self._gates.stir()

    async def _admit(self, chat: "_Chat") -> Way:
        """Wait for all that must be true before the clock starts: an open way to a bot, and a token."""
        errand, claim = chat.errand, chat.claim
        claim.check()
        bots, until = chat.bots(), errand.until
        if not bots[0].recipe.connect:
            claim.wait_out()
            if len(bots) < len(chat.choice.bots):  # a participant may be there, made for one of them
                until = min(until, anyio.current_time() + claim.window)
        ways = self._gates.ways(errand.instance.arn, errand.instance.circuit, bots)
        with chat.trail.station("admit"):
            try:
                entered = await errand.instance.rooms["CreateParticipant"].admit(
                    errand.contact.id,
                    gates=ways,
                    priority=errand.priority,
                    since=errand.since,
                    until=until,
                )
            except Permanent as error:
                if error.outcome is Outcome.EXPIRED and until < errand.until:
                    raise Transient("window_closing", "its bot's runtime was not there in time") from None
                raise
        return ways[entered]

    async def _attach(self, chat: "_Chat", bot: Bot) -> Participant:
        """The bot's recipe; the clock starts when CreateParticipant leaves."""
        errand, contact = chat.errand, chat.errand.contact
        with chat.trail.station("attach"):
            with errand.unspent():  # until the call leaves, the token is not spent
                await self._prepare(chat, bot)
                entry = await chat.claim.begin(bot.name, chat.choice.rule, lapses=not bot.recipe.connect)
            chat.trail.note(bot=bot.name, generation=entry.generation)
            chat.trail.note(tries=chat.trail.fields.get("tries", 0) + 1)
            request = AttachRequest(
                instance_id=contact.instance_id,
                contact_id=contact.id,
                client_token=client_token(contact.instance_id, contact.id, entry.generation),
                display_name=bot.display_name,
                role=bot.role,
                capabilities=bot.capabilities,
            )
            try:
                with _counted(self._metrics.attach_tries):
                    participant = await errand.create(request)
            except Transient as error:
                if not error.ambiguous:
                    chat.claim.unspent()
                raise
            return await self._connected(chat, participant) if bot.recipe.connect else participant

    async def _prepare(self, chat: "_Chat", bot: Bot) -> None:
        """The part of the recipe before CreateParticipant, once a chat and bot."""
        if bot.name in chat.prepared or not bot.recipe.prepares:
            return
        began = anyio.current_time()
        await chat.errand.prepare(bot.recipe, first=chat.claim.entry.requested_at is None)
        chat.prepared.add(bot.name)
        if anyio.current_time() - began > _STALE_TOKEN_SECONDS:
            raise Transient("prepared", "the token has waited too long for the recipe; it is bought anew")

    async def _connected(self, chat: "_Chat", participant: Participant) -> Participant:
        """The part of the recipe after CreateParticipant: the 15 s are met by us.

        After a restart they may be over, and the participant connected by our predecessor: Connect alone knows.
        """
        left = max(self._connect_by(chat) - self._now(), _CONNECT_SECONDS)
        until = anyio.current_time() + left
        try:
            connection = await retrying(
                partial(chat.errand.connect, participant, until),
                backoff=_ATTACH_BACKOFF,
                until=until,
                dice=self._dice,
            )
        except Permanent as error:
            if error.outcome is not Outcome.UNSERVED:  # the room's word, not Connect's
                raise Transient("not_connected", error.reason, ambiguous=True) from None
            chat.claim.lapsed()
            raise Transient(error.reason, error.detail) from None
        return replace(participant, connection=connection)

    async def _hand_off(self, chat: "_Chat", bot: Bot, participant: Participant) -> None:
        """Offer the participant until a runtime accepts, or it is too late for this generation."""
        try:
            entry = await chat.claim.move(Stage.ATTACHED, participant_id=participant.id)
            handoff = Handoff(
                key=f"{entry.contact_id}_{entry.generation}",
                contact=chat.errand.contact,
                bot=bot,
                rule=chat.choice.rule,
                generation=entry.generation,
                participant=participant,
                connect_by=self._connect_by(chat),
            )
            chat.trail.note(participant=participant.id)
            with chat.trail.station("hand_off"):
                await self._offer(handoff, chat)
        except Permanent:
            await chat.errand.dismiss(participant)  # so that the contact flow goes on
            raise
        remaining = handoff.connect_by - self._now()
        self._metrics.remaining.observe(remaining)
        chat.trail.note(remaining_ms=round(1000 * remaining))
        await self._accepted(chat.claim, bot)

    async def _offer(self, handoff: Handoff, chat: "_Chat") -> None:
        """Until the window closes or, if the participant is connected already, until patience ends.

        Raises:
            Transient: nobody took it, and it will lapse: there is time for another generation.
            Permanent: nobody took it.
        """
        connected = handoff.participant.connection is not None
        last = "no answer"

        async def one_try() -> None:
            nonlocal last
            chat.claim.check()
            chat.trail.note(offers=chat.trail.fields.get("offers", 0) + 1)
            try:
                await self._offer_once(handoff)
            except (Transient, Permanent) as error:
                last = str(error)
                raise

        left = handoff.connect_by - OFFER_MARGIN_SECONDS - self._now()
        if connected:
            left = max(left, chat.errand.until - anyio.current_time())
        elif left <= 0:  # nobody has refused this chat, and the next generation may still serve it
            raise Transient("window_closing", "the participant came too late to be offered")
        try:
            with anyio.fail_after(left):
                until = anyio.current_time() + left
                await retrying(one_try, backoff=_OFFER_BACKOFF, until=until, dice=self._dice)
        except (Transient, TimeoutError):
            detail = f"runtime {handoff.bot.runtime!r} did not accept within the window ({last})"
            again = chat.errand.until - anyio.current_time() > LAPSE_SECONDS
            if again and not connected and not chat.claim.last:
                raise Transient("not_accepted_in_time", detail) from None
            raise Permanent(Outcome.UNSERVED, "not_accepted_in_time", detail) from None

    async def _offer_once(self, handoff: Handoff) -> None:
        name, heard = handoff.bot.runtime, None
        try:
            with _counted(self._metrics.offers, name):
                open_chats = await self._gates.runtimes[name].runtime.offer(handoff)
        except (Transient, Permanent) as error:
            heard = error
            log.warning("offer.failed", contact=handoff.contact.id, runtime=name, reason=str(error))
            raise
        else:
            self._gates.opened(handoff.bot.name, handoff.contact.id, open_chats)
        finally:
            self._gates.heard(name, heard)

    async def _accepted(self, claim: Claim, bot: Bot) -> None:
        """The runtime has it, and that stands, whatever the journal says."""
        try:
            await claim.move(Stage.HANDED_OFF)
        except Permanent:
            self._gates.ended(claim.entry.contact_id)
            log.info("chat.ended_at_hand_off", contact=claim.entry.contact_id, bot=bot.name)
        except Transient as error:
            log.error(
                "journal.hand_off_not_recorded",
                contact=claim.entry.contact_id,
                reason=str(error),
                next="a repeated event makes the same request and the same offer, which the runtime knows",
            )

    async def _note(self, contact: Contact, what: Effect, event_type: str) -> Result:
        """The short path: the chat ended, or is beyond a bot's reach, or nothing that matters changed."""
        if what is Effect.NOTHING or (what is Effect.QUEUES and not self._leave_when_queued):
            return Result(Outcome.IGNORED, event_type)
        self._instances.call_away(contact.id, DEPARTURES[what])
        if what is not Effect.QUEUES:
            self._gates.ended(contact.id)
        await self._claims.end(contact.id, what)
        return Result(Outcome.NOTED, event_type)

    def _connect_by(self, chat: "_Chat") -> float:
        return (chat.claim.entry.requested_at or self._now()) + WINDOW_SECONDS


@dataclass(frozen=True, slots=True)
class _Chat:
    """A chat on its way down the line."""

    errand: Errand
    choice: Choice
    claim: Claim
    trail: Trail
    prepared: set[str] = field(default_factory=set)

    def bots(self) -> tuple[Bot, ...]:
        """Who may be attached now: while a participant may be there, only the bot that it was made for."""
        entry = self.claim.entry
        made_for = tuple(bot for bot in self.choice.bots if bot.name == entry.bot)
        if entry.requested_at is None or not made_for:
            return self.choice.bots
        # One that we connect ourselves does not lapse by itself: Connect says when it is gone.
        return made_for if self.claim.window > 0 or made_for[0].recipe.connect else self.choice.bots


@contextmanager
def _counted(counter: Counter, *labels: str) -> Iterator[None]:
    """Count a try by its result: ``ok``, or the reason that it failed for."""
    try:
        yield
    except (Transient, Permanent) as error:
        counter.labels(*labels, error.reason).inc()
        raise
    counter.labels(*labels, "ok").inc()
