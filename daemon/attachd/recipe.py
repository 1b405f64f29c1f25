"""attach: a bot's recipe, call by call.

Each call waits for a token of its own quota and tells it how it fared; which calls there are is the bot's recipe. What
was done need not be undone: StartContactStreaming is idempotent by its ClientToken, timers set twice are the same timers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import structlog

from attachd.errors import Permanent, Transient
from attachd.instances import Instance
from attachd.lifecycle import client_token
from attachd.model import AttachRequest, Connection, Contact, ContactState, Outcome, Participant, Recipe

_CONNECT_TRY_SECONDS: Final = 4.0
_DISMISS_SECONDS: Final = 5.0
_DISMISS_CONNECTED_SECONDS: Final = (
    60.0  # nobody else will: DisconnectParticipant is granted 3 times a second
)
_TOO_EARLY_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """For which contact calls are made, how urgent they are, and until when they are worth waiting for.

    ``until`` is on the event loop's clock.
    """

    instance: Instance
    contact: Contact
    priority: int
    since: float
    until: float

    async def _token(self, api: str, until: float | None = None) -> None:
        await self.instance.rooms[api].admit(
            self.contact.id,
            gates=(),
            priority=self.priority,
            since=self.since,
            until=self.until if until is None else until,
        )

    async def prepare(self, recipe: Recipe, *, first: bool) -> None:
        """What must come before CreateParticipant.

        Args:
            recipe: the bot's.
            first: whether no participant can be there yet: timers may be set only before.
        """
        attacher, ids = self.instance.attacher, (self.contact.instance_id, self.contact.id)
        if recipe.streaming_topic is not None:
            await self._token("StartContactStreaming")
            try:
                with self.instance.rooms["StartContactStreaming"].spending():
                    token = client_token(*ids, 0)
                    # API reference, StartContactStreaming: the chat's first contact
                    await attacher.stream(ids[0], self.contact.initial_id, recipe.streaming_topic, token)
            except (Transient, Permanent) as error:
                self.instance.heard(error, anyio.current_time())
                raise
        if recipe.timers and first:
            try:
                await self._token("UpdateParticipantRoleConfig")
                with self.instance.rooms["UpdateParticipantRoleConfig"].spending():
                    await attacher.set_timers(*ids, recipe.timers)
            except (Transient, Permanent) as error:
                log.warning(
                    "timers.not_set",
                    contact=self.contact.id,
                    reason=str(error),
                    next="the bot is attached all the same",
                )

    @contextmanager
    def unspent(self) -> Iterator[None]:
        """Round what is done between the purchase of the token and the call: if that fails, the token is given back."""
        try:
            yield
        except (Transient, Permanent):
            self.instance.rooms["CreateParticipant"].give_back()
            raise

    async def create(self, request: AttachRequest) -> Participant:
        """CreateParticipant; its token was bought when the contact was admitted.

        A refusal for the contact's sake is looked into, once: is it over, is an agent there, or was it too early?
        """
        now = anyio.current_time()
        try:
            with self.instance.rooms["CreateParticipant"].spending():
                participant = await self.instance.attacher.attach(request)
        except (Transient, Permanent) as error:
            self.instance.heard(error, anyio.current_time())
            if isinstance(error, Permanent) and _worth_a_look(error, request.role):
                raise judged(
                    error, await self._look(error, now + _CONNECT_TRY_SECONDS), request.role
                ) from None
            raise
        self.instance.heard(None, now)
        return participant

    async def _look(self, refusal: Permanent, until: float) -> ContactState:
        try:
            await self._token("DescribeContact", until)
            with self.instance.rooms["DescribeContact"].spending():
                return await self.instance.attacher.describe(self.contact.instance_id, self.contact.id)
        except (Transient, Permanent) as error:
            log.warning(
                "contact.not_described", contact=self.contact.id, reason=str(error), next="taken as refused"
            )
            raise refusal from None

    async def connect(self, participant: Participant, until: float) -> Connection:
        """CreateParticipantConnection, before ``until``."""
        await self._token("CreateParticipantConnection", until)
        with self.instance.rooms["CreateParticipantConnection"].spending():
            return await self.instance.attacher.connect(participant)

    async def dismiss(self, participant: Participant) -> None:
        """Connect the participant and disconnect it, so that the contact flow takes its branch and goes on."""
        connected = participant.connection is not None
        seconds = _DISMISS_CONNECTED_SECONDS if connected else _DISMISS_SECONDS
        until = anyio.current_time() + seconds
        try:
            with anyio.fail_after(seconds):
                connection = participant.connection or await self.connect(participant, until)
                await self._token("DisconnectParticipant", until)
                with self.instance.rooms["DisconnectParticipant"].spending():
                    await self.instance.attacher.disconnect(connection)
        except (Transient, Permanent, TimeoutError) as error:
            log.warning(
                "participant.not_dismissed",
                contact=self.contact.id,
                participant=participant.id,
                reason=str(error),
                next="it stays in the chat until the contact ends: end it by hand, or let the flow's Wait block expire"
                if connected
                else "Connect drops it by itself 15 s after it was made; the flow goes on when it is gone",
            )


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
