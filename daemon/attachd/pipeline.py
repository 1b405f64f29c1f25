"""THE LINE.

    receive → decode → choose → admit → attach → hand off → settle

``service`` receives and settles; what lies between is here, top to bottom. Every delivery leaves with exactly
one ``Result``. An event that ends or changes a chat takes the short path beside the line (``_note``).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio
import structlog

from attachd.attributes import Attributes
from attachd.chat import Chat
from attachd.claims import Claim, Claims
from attachd.decode import MAX_BYTES, decode
from attachd.effects import DEPARTURES, UPDATED, Effect, effect
from attachd.errors import Permanent, Transient
from attachd.gates import Gates, Way
from attachd.instances import Instances
from attachd.lifecycle import Stage, handoff_key
from attachd.logs import Trail
from attachd.metrics import Metrics
from attachd.model import Bot, Choice, Contact, ContactEvent, Delivery, Handoff, Outcome, Participant
from attachd.offers import Offers
from attachd.recipe import Recipes
from attachd.retry import Backoff, retrying
from attachd.rules import Rules, Undecided
from attachd.safety import impossible

_SEEN_THROUGH_SECONDS: Final = 30.0
#: Of priorities, 100 is the highest that can be configured.
_BEFORE_ALL: Final = 1_000
#: Connect has taken the participant away by itself.
_GONE: Final = {Outcome.ENDED, Outcome.AGENT_JOINED}
_BACKOFF: Final = Backoff(first=0.1, cap=2.0)

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
        rules: choose. May be replaced at any time: each event is judged by those in force when it comes.
        claims: admit, the contact's side.
        instances: admit and attach, Connect's side: quotas and calls.
        gates: admit and hand off, the runtimes' side.
        metrics: what is counted.
        now: the wall clock, in seconds since the epoch.
        dice: jitter.
        leave_when_queued: whether a chat that is queued for an agent gets no bot any more.
        any_age: patience is counted from an event's receipt, however old it is.
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
        leave_when_queued: bool = True,
        any_age: bool = False,
    ) -> None:
        self.rules = rules
        self._attributes = Attributes(dice)
        self._claims = claims
        self._instances = instances
        self._gates = gates
        self._recipes = Recipes(metrics=metrics, now=now, dice=dice)
        self._offers = Offers(gates, metrics=metrics, now=now, dice=dice)
        self._metrics = metrics
        self._now = now
        self._dice = dice
        self._leave_when_queued = leave_when_queued
        self._any_age = any_age

    async def carry(self, delivery: Delivery, trail: Trail) -> Result:
        """Carry one delivery down the line. Raises nothing but cancellation and defects of ours."""
        try:
            return await self._line(delivery, trail)
        except Permanent as error:
            return Result(error.outcome, str(error))
        except Transient as error:
            return Result(Outcome.DEFERRED, str(error), error.after)

    async def _line(self, delivery: Delivery, trail: Trail) -> Result:
        event = decode(delivery.body, received_at=self._now(), max_bytes=MAX_BYTES)
        contact, since = event.contact, self._now() if self._any_age else event.time
        trail.note(contact=contact.id, event_type=event.type)
        what = effect(contact.channel, event.type)
        if what is not Effect.OPENS and not (self.rules.opens_on_updates and event.type == UPDATED):
            return await self._note(contact, what, event.type, again=delivery.attempt > 1)

        choice = await self._choose(event, since)
        del event  # its document would wait with the chat, kilobytes each
        trail.note(bot=choice.bots[0].name, rule=choice.rule)

        instance = await self._instances.of(contact.instance_arn)
        async with self._claims.hold(contact.id, instance_arn=contact.instance_arn, since=since) as claim:
            until = anyio.current_time() + self._patience(since, choice, claim)
            chat = Chat(contact, instance, choice, claim, trail, since, until, self.rules.bots)
            await retrying(partial(self._serve, chat), backoff=_BACKOFF, until=until, dice=self._dice)
        self._metrics.attach_age.observe(max(0.0, self._now() - since))
        return Result(Outcome.ATTACHED, f"rule {choice.rule!r}")

    async def _choose(self, event: ContactEvent, since: float) -> Choice:
        """Ask the rules and, if they cannot tell without the contact's attributes, ask again with them."""
        rules, contact = self.rules, event.contact
        choice = rules.choose(event)
        if isinstance(choice, Undecided):
            if event.type == UPDATED:
                self._attributes.forget(contact)
            attributes = await self._attributes.of(
                await self._instances.of(contact.instance_arn),
                contact,
                priority=choice.priority,
                since=since,
                until=anyio.current_time() + since + choice.patience - self._now(),
            )
            choice = rules.choose(event, attributes)
        return choice

    async def _serve(self, chat: Chat) -> None:
        """One try, through to the runtime. Each is admitted anew, since each costs a token."""
        way = await self._admit(chat)
        try:
            with chat.trail.station("attach"):  # the clock starts when CreateParticipant leaves
                participant = await self._recipes.attach(chat, way.bot)
            await self._hand_off(chat, way.bot, participant)
        finally:
            way.leave()
            self._gates.stir()

    async def _admit(self, chat: Chat) -> Way:
        """Wait for all that must be true before the clock starts: an open way to a bot, and a token."""
        chat.claim.check()
        bots, until, priority = chat.bots, chat.until, chat.choice.priority
        if not bots:
            raise Transient("window_closing", "its bot is known no more", after=chat.claim.window)
        present = chat.present
        if present:  # fetched at once, to be spoken for or sent away: no runtime is waited for
            until, priority = max(until, anyio.current_time() + _SEEN_THROUGH_SECONDS), _BEFORE_ALL
        else:
            chat.claim.wait_out()
            if bots != chat.choice.bots:  # a participant may be there, made for one of them
                until = min(until, anyio.current_time() + chat.claim.window)
        instance = chat.instance
        ways = self._gates.ways(instance.arn, instance.circuit, bots, instance.streaming, barred=not present)
        with chat.trail.station("admit"):
            try:
                entered = await instance.rooms["CreateParticipant"].admit(
                    chat.contact.id,
                    gates=ways,
                    priority=priority,
                    since=chat.since,
                    until=until,
                )
            except Permanent as error:
                if error.outcome is Outcome.EXPIRED and until < chat.until:
                    raise Transient("window_closing", "its bot's runtime was not there in time") from None
                raise
        return replace(ways[entered], bot=bots[entered])  # the way is the bot's, its looks are the rule's

    async def _hand_off(self, chat: Chat, bot: Bot, participant: Participant) -> None:
        """Offer the participant until a runtime accepts, or it is too late for this generation."""
        first = (
            chat.claim.entry.participant_id is None
        )  # else it was offered before, and perhaps taken unheard
        try:
            entry = await chat.claim.move(Stage.ATTACHED, participant_id=participant.id)
            handoff = Handoff(
                key=handoff_key(entry),
                contact=chat.contact,
                bot=replace(bot, display_name=entry.display_name or bot.display_name),
                rule=chat.choice.rule,
                generation=entry.generation,
                participant=participant,
                connect_by=chat.connect_by(self._now()),
            )
            chat.trail.note(participant=participant.id)
            with chat.trail.station("hand_off"):
                runtime = await self._offers.hand_off(chat, handoff, first=first)
        except Permanent as error:
            if error.outcome not in _GONE:
                await self._recipes.dismiss(chat, participant)  # so that the contact flow goes on
            raise
        remaining = handoff.connect_by - self._now()
        self._metrics.remaining.observe(remaining)
        chat.trail.note(runtime=runtime, remaining_ms=round(1000 * remaining))
        await self._accepted(chat, runtime)

    async def _accepted(self, chat: Chat, runtime: str) -> None:
        """The runtime has it, and that stands, whatever the journal says."""
        contact_id, entry = chat.contact.id, chat.claim.entry
        try:
            ended = await chat.claim.accepted(runtime)
            if ended is not None or chat.claim.over:
                self._gates.ended(contact_id)
            if ended is not None:
                log.info("chat.ended_at_hand_off", contact=contact_id, runtime=runtime)
                await self._offers.farewell(chat.contact, replace(entry, runtime=runtime), ended.value)
        except Transient as error:
            log.error(
                "journal.hand_off_not_recorded",
                contact=contact_id,
                reason=str(error),
                next="a repeated event makes the same request and the same offer, which the runtime knows",
            )

    async def _note(self, contact: Contact, what: Effect, event_type: str, *, again: bool) -> Result:
        """The short path: the chat ended, or is beyond a bot's reach, or nothing that matters changed."""
        idle = what is Effect.NOTHING or (what is Effect.QUEUES and not self._leave_when_queued)
        if idle or impossible(contact) is not None:  # every telephone call ends, and none has a bot
            return Result(Outcome.IGNORED, event_type)
        self._instances.call_away(contact.id, DEPARTURES[what])
        if what is not Effect.QUEUES:
            self._gates.ended(contact.id)
        had = await self._claims.end(contact.id, what, again=again)
        if had is not None:
            await self._offers.farewell(contact, had, DEPARTURES[what].value)
        return Result(Outcome.NOTED, event_type)

    def _patience(self, since: float, choice: Choice, claim: Claim) -> float:
        """Seconds until this chat gets no bot any more.

        A participant that we have connected stays in the chat until somebody speaks for it or sends it away: it is seen
        through, however long its event took to come back.
        """
        left = since + choice.patience - self._now()
        connects = {bot.name for bot in choice.bots if bot.recipe.connect}
        asked_for = claim.entry.requested_at is not None and claim.entry.bot in connects
        return max(left, _SEEN_THROUGH_SECONDS) if asked_for else left
