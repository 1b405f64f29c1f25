"""attach: a bot's recipe, call by call.

    [StartContactStreaming] → [UpdateParticipantRoleConfig] → CreateParticipant → [CreateParticipantConnection]

Each call waits for a token of its own quota and tells it how it fared; which calls there are is the bot's recipe. What
was done need not be undone: StartContactStreaming is idempotent by its ClientToken, timers set twice are the same timers.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import anyio
import structlog

from attachd.chat import Chat
from attachd.errors import Permanent, Transient
from attachd.lifecycle import client_token
from attachd.metrics import Metrics, counted
from attachd.model import AttachRequest, Bot, Connection, ContactState, Outcome, Participant
from attachd.retry import Backoff, retrying

_BACKOFF: Final = Backoff(first=0.1, cap=2.0)
_CONNECT_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 4.0
_STALE_TOKEN_SECONDS: Final = 1.0
_DISMISS_SECONDS: Final = 5.0
_DISMISS_CONNECTED_SECONDS: Final = (
    60.0  # nobody else will: DisconnectParticipant is granted 3 times a second
)
_TOO_EARLY_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


class Recipes:
    """Makes participants.

    Args:
        metrics: where tries are counted.
        now: the wall clock, in seconds since the epoch.
        dice: jitter.
    """

    def __init__(self, *, metrics: Metrics, now: Callable[[], float], dice: random.Random) -> None:
        self._metrics = metrics
        self._now = now
        self._dice = dice

    async def attach(self, chat: Chat, bot: Bot) -> Participant:
        """A participant for the bot, by its recipe; the token of CreateParticipant was bought with the admission.

        Raises:
            Transient: not now.
            Permanent: never; the outcome says why.
        """
        with _unspent(chat):  # until the call leaves, the token is not spent
            await self._prepare(chat, bot)
            entry = await chat.claim.begin(
                bot.name, chat.choice.rule, bot.display_name, lapses=not bot.recipe.connect
            )
        tries = chat.trail.fields.get("tries", 0) + 1
        chat.trail.note(bot=bot.name, generation=entry.generation, tries=tries)
        request = AttachRequest(
            instance_id=chat.contact.instance_id,
            contact_id=chat.contact.id,
            client_token=client_token(chat.contact.instance_id, chat.contact.id, entry.generation),
            display_name=entry.display_name or bot.display_name,
            role=bot.role,
            capabilities=bot.capabilities,
        )
        try:
            with counted(self._metrics.attach_tries):
                participant = await self._create(chat, request)
        except Transient as error:
            if not error.ambiguous:
                chat.claim.unspent()
            raise
        except Permanent as error:
            if error.outcome is Outcome.OCCUPIED:
                chat.claim.perhaps_ours(error.detail)
            raise
        return await self._connected(chat, participant) if bot.recipe.connect else participant

    async def dismiss(self, chat: Chat, participant: Participant) -> None:
        """Connect the participant and disconnect it, so that the contact flow takes its branch and goes on."""
        until = anyio.current_time() + _DISMISS_CONNECTED_SECONDS
        connection = participant.connection
        bought = False
        try:
            with anyio.fail_after(_DISMISS_CONNECTED_SECONDS):
                if (
                    connection is None
                ):  # connected and not disconnected it would stay: the way out is bought first
                    await chat.token("DisconnectParticipant", anyio.current_time() + _DISMISS_SECONDS)
                    bought = True
                    connection = await self._connected_to_leave(chat, participant, until)
                one_try = partial(self._disconnect, chat, connection, until, iter([bought]))
                await retrying(one_try, backoff=_BACKOFF, until=until, dice=self._dice)
        except (Transient, Permanent, TimeoutError) as error:
            if bought and connection is None:
                chat.instance.rooms["DisconnectParticipant"].give_back()
            log.warning(
                "participant.not_dismissed",
                contact=chat.contact.id,
                participant=participant.id,
                reason=str(error),
                next="it stays in the chat until the contact ends: end it by hand, or let the flow's Wait block expire"
                if connection is not None
                else "Connect drops it by itself 15 s after it was made; the flow goes on when it is gone",
            )

    async def _connected_to_leave(self, chat: Chat, participant: Participant, until: float) -> Connection:
        """Tried again, since an answer that was lost may have connected it; Connect says when it is gone."""

        async def once() -> Connection:
            return await self._connect(chat, participant, anyio.current_time() + _DISMISS_SECONDS)

        return await retrying(once, backoff=_BACKOFF, until=until, dice=self._dice)

    async def _disconnect(
        self, chat: Chat, connection: Connection, until: float, bought: Iterator[bool]
    ) -> None:
        """Once; the first time perhaps with a token that has been bought before."""
        if not next(bought, False):
            await chat.token("DisconnectParticipant", until)
        with chat.instance.rooms["DisconnectParticipant"].spending():
            await chat.instance.attacher.disconnect(connection)

    async def _prepare(self, chat: Chat, bot: Bot) -> None:
        """What must come before CreateParticipant, once a chat and bot."""
        if bot.name in chat.prepared or not bot.recipe.prepares:
            return
        began = anyio.current_time()
        if bot.recipe.streaming_topic is not None:
            await self._stream(chat, bot.recipe.streaming_topic)
        if bot.recipe.timers and chat.claim.entry.requested_at is None:  # they may be set only before
            await self._set_timers(chat, bot)
        chat.prepared.add(bot.name)
        if anyio.current_time() - began > _STALE_TOKEN_SECONDS:
            raise Transient("prepared", "the token has waited too long for the recipe; it is bought anew")

    async def _stream(self, chat: Chat, topic: str) -> None:
        instance_id = chat.contact.instance_id
        await chat.token("StartContactStreaming")
        try:
            with chat.instance.rooms["StartContactStreaming"].spending():
                # API reference, StartContactStreaming: the chat's first contact
                await chat.instance.attacher.stream(
                    instance_id,
                    chat.contact.initial_id,
                    topic,
                    client_token(instance_id, chat.contact.id, 0),
                )
        except (Transient, Permanent) as error:
            chat.instance.heard(error, anyio.current_time(), streaming=True)
            raise
        chat.instance.heard(None, anyio.current_time(), streaming=True)

    async def _set_timers(self, chat: Chat, bot: Bot) -> None:
        try:
            await chat.token("UpdateParticipantRoleConfig")
            with chat.instance.rooms["UpdateParticipantRoleConfig"].spending():
                await chat.instance.attacher.set_timers(
                    chat.contact.instance_id, chat.contact.id, bot.recipe.timers
                )
        except (Transient, Permanent) as error:
            log.warning(
                "timers.not_set",
                contact=chat.contact.id,
                reason=str(error),
                next="the bot is attached all the same",
            )

    async def _create(self, chat: Chat, request: AttachRequest) -> Participant:
        """CreateParticipant.

        A refusal for the contact's sake is looked into, once: is it over, is an agent there, or was it too early?
        """
        now = anyio.current_time()
        try:
            with chat.instance.rooms["CreateParticipant"].spending():
                participant = await chat.instance.attacher.attach(request)
        except (Transient, Permanent) as error:
            chat.instance.heard(error, anyio.current_time())
            if isinstance(error, Permanent) and _worth_a_look(error, request.role):
                state = await self._look(chat, error, now + _LOOK_SECONDS)
                raise judged(error, state, request.role) from None
            raise
        chat.instance.heard(None, now)
        return participant

    async def _look(self, chat: Chat, refusal: Permanent, until: float) -> ContactState:
        try:
            await chat.token("DescribeContact", until)
            with chat.instance.rooms["DescribeContact"].spending():
                return await chat.instance.attacher.describe(chat.contact.instance_id, chat.contact.id)
        except (Transient, Permanent) as error:
            log.warning(
                "contact.not_described", contact=chat.contact.id, reason=str(error), next="taken as refused"
            )
            raise refusal from None

    async def _connected(self, chat: Chat, participant: Participant) -> Participant:
        """The 15 s are met by us.

        After a restart they may be over, and the participant connected by our predecessor: Connect alone knows.
        """
        left = max(chat.connect_by(self._now()) - self._now(), _CONNECT_SECONDS)
        until = anyio.current_time() + left
        try:
            one_try = partial(self._connect, chat, participant, until)
            connection = await retrying(one_try, backoff=_BACKOFF, until=until, dice=self._dice)
        except Permanent as error:
            if error.outcome is not Outcome.UNSERVED:  # the room's word, not Connect's
                raise Transient("not_connected", error.reason, ambiguous=True) from None
            chat.claim.lapsed()
            raise Transient(error.reason, error.detail) from None
        return replace(participant, connection=connection)

    async def _connect(self, chat: Chat, participant: Participant, until: float) -> Connection:
        await chat.token("CreateParticipantConnection", until)
        with chat.instance.rooms["CreateParticipantConnection"].spending():
            return await chat.instance.attacher.connect(participant)


@contextmanager
def _unspent(chat: Chat) -> Iterator[None]:
    """Round what is done between the purchase of the token and the call: if that fails, the token is given back."""
    try:
        yield
    except (Transient, Permanent):
        chat.instance.rooms["CreateParticipant"].give_back()
        raise


def _worth_a_look(refusal: Permanent, role: str) -> bool:
    """402 and 409 may mean several things; so may 400 for a call's further participant: its agent may not be there yet."""
    return refusal.outcome is Outcome.OCCUPIED or (role == "CUSTOMER" and refusal.reason == "invalid_request")


def judged(refusal: Permanent, state: ContactState, role: str) -> Transient | Permanent:
    """What a refusal means, now that we know where the contact is."""
    if state.ended:
        return Permanent(Outcome.ENDED, detail=f"the contact is over ({refusal.detail})")
    if role == "CUSTOMER":
        if state.agent:
            return refusal
        return Transient("too_early", "no agent is connected yet", after=_TOO_EARLY_SECONDS)
    if state.agent:
        return Permanent(Outcome.AGENT_JOINED, detail=f"an agent is connected ({refusal.detail})")
    if refusal.reason == "conflict" and not state.connected:
        return Transient("too_early", "the customer is not connected yet", after=_TOO_EARLY_SECONDS)
    return refusal
