"""The customers: each starts a chat, waits for a bot, says their lines, and leaves, by the operations a chat widget calls.

A customer costs one deadline at a time and looks at nothing by itself: `hear` is told what was said and done in a
chat. What was due happens at the moment it was due, however late somebody looks. No rule of Connect enters.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.state.life import Stage
from attachd.simulator.state.nouns import AGENT, CUSTOM_BOT, Contact, Line, Participant
from attachd.simulator.state.world import World
from attachd.simulator.traffic.plan import Character, Traffic, character

Perform = Callable[[str, dict[str, Any], float], dict[str, Any]]
"""(operation, request, now) → response, or an ApiError."""

_AGAIN_SECONDS = 1.0  # after which a throttled customer tries again


@dataclass(slots=True)
class Counts:
    """What became of the customers."""

    arrived: int = 0
    turned_away: int = 0
    """StartChatContact was refused: throttled, or the instance had as many chats as it may."""
    no_shows: int = 0
    """Started a chat and never connected."""
    finished: int = 0
    """Said all they had to say, and were answered."""
    gave_up: int = 0
    """Left before a bot had said anything."""
    unanswered: int = 0
    """Left waiting for a later answer, or for an agent."""
    cut_off: int = 0
    """Their chat was ended by somebody else."""
    present: int = 0
    """Are still there, or about to connect."""


@dataclass(slots=True)
class _Coming:
    """One traffic that is being played: what is left of it."""

    traffic: Traffic
    seed: str
    begun_at: float
    instants: Iterator[float]
    number: int = 0


@dataclass(slots=True)
class _Customer:
    """One customer in a chat; `waiting` for a word or an agent, else thinking or with an agent."""

    character: Character
    perform: Perform
    participant: Participant
    bearer: str = field(default="", repr=False)
    timer: int = 0
    read: int = 0
    """How much of the transcript was there when they last said something."""
    said: int = 0
    answered: bool = False
    waiting: bool = False
    with_agent: bool = False


class Customers:
    """Everybody who comes by themselves."""

    def __init__(self, world: World, perform: Perform, perform_metered: Perform) -> None:
        self._world = world
        self._perform = perform
        self._perform_metered = perform_metered
        self._deadlines: list[tuple[float, int, Callable[[Any, float], None], Any]] = []
        self._set = 0
        self._traffics = 0
        self._coming = 0
        self._chatting: dict[str, _Customer] = {}  # by contact id, once connected
        self._instances = tuple(world.instances)
        self.counts = Counts()

    @property
    def over(self) -> bool:
        """Whether nobody comes any more and nobody is left."""
        return self._coming == 0 and self.counts.present == 0

    def play(self, traffic: Traffic, now: float) -> None:
        """Let customers come from now on."""
        seed = f"{self._world.dials.seed} traffic {self._traffics}"
        self._traffics += 1
        self._coming += 1
        self._await_next(_Coming(traffic, seed, now, traffic.instants(seed)))

    def due_at(self) -> float | None:
        """Return when somebody next does something."""
        return self._deadlines[0][0] if self._deadlines else None

    def advance(self, now: float, stop_at: float = inf) -> bool:
        """Let everybody do what was due by `now`, in the order it was due; at `stop_at` of perf_counter, stop.

        Many may come at one moment. At least one thing is done; returns whether all is.
        """
        while self._deadlines and self._deadlines[0][0] <= now:
            at, number, act, who = heappop(self._deadlines)
            if isinstance(who, _Coming) or who.timer == number:
                act(who, at)
            if time.perf_counter() > stop_at:
                return not (self._deadlines and self._deadlines[0][0] <= now)
        return True

    def hear(self, lines: Sequence[Line]) -> None:
        """Tell those whose chats these are what was said and done in them; no end comes without a line."""
        for line in lines:
            customer = self._chatting.get(line.contact.id)
            if customer is not None:
                self._notice(customer, line.contact.id)

    # ── coming ─────────────────────────────────────────────────────────────────────────────────

    def _await_next(self, coming: _Coming) -> None:
        offset = next(coming.instants, None)
        if offset is None:
            self._coming -= 1
        else:
            self._at(coming.begun_at + offset, self._arrive, coming)

    def _arrive(self, coming: _Coming, at: float) -> None:
        who = character(coming.traffic, coming.seed, coming.number)
        instance = self._instances[coming.number % len(self._instances)]
        perform = self._perform_metered if coming.traffic.spends_quota else self._perform
        request = who.kind.request(instance, coming.number)
        coming.number += 1
        self._await_next(coming)
        self.counts.arrived += 1
        try:
            started = perform("StartChatContact", request, at)
        except ApiError:
            self.counts.turned_away += 1
            return
        if who.kind.tags:
            tags = {"InstanceId": instance, "ContactId": started["ContactId"], "Tags": dict(who.kind.tags)}
            self._perform("TagContact", tags, at)
        if who.connects_after is None:
            self.counts.no_shows += 1
            return
        self.counts.present += 1
        customer = _Customer(who, perform, self._world.participants[started["ParticipantToken"]])
        self._then(customer, at + who.connects_after, self._connect)

    def _connect(self, customer: _Customer, at: float) -> None:
        request = {
            "ParticipantToken": customer.participant.token,
            "Type": ["CONNECTION_CREDENTIALS"],
            "ConnectParticipant": True,
        }
        answer = self._try("CreateParticipantConnection", request, customer, at, self._connect)
        if answer is not None:
            customer.bearer = answer["ConnectionCredentials"]["ConnectionToken"]
            contact_id = customer.participant.contact_id
            self._chatting[contact_id] = customer
            self._wait(customer, at)
            self._notice(customer, contact_id)

    # ── chatting ───────────────────────────────────────────────────────────────────────────────

    def _notice(self, customer: _Customer, contact_id: str) -> None:
        member = customer.participant
        if member.disconnected_at is not None:
            self.counts.cut_off += 1
            self._forget(customer, contact_id)
            return
        if member.contact_id != contact_id:  # transferred
            self._chatting[member.contact_id] = self._chatting.pop(contact_id)
        contact = self._world.contacts[member.contact_id]
        if contact.stage is Stage.WITH_AGENT and not customer.with_agent:
            customer.with_agent, customer.waiting = True, False
            joined_at = contact.agent_connected_at or 0.0
            self._then(customer, joined_at + customer.character.stays_with_agent, self._finish)
        elif customer.waiting and (spoken_at := self._spoken_at(customer, contact)) is not None:
            customer.answered = True
            self._go_on(customer, spoken_at)

    def _spoken_at(self, customer: _Customer, contact: Contact) -> float | None:
        """Return when a bot or an agent last said something since the customer's own last line."""
        for item in reversed(contact.transcript[customer.read :]):
            if item.content is not None and item.participant and item.participant.role in {CUSTOM_BOT, AGENT}:
                return item.at
        return None

    def _go_on(self, customer: _Customer, spoken_at: float) -> None:
        """The bot has spoken: think, then say the next line, or be done; or wait on, for an agent."""
        script = customer.character.kind
        if customer.said == len(script.says) and script.then == "wait for an agent":
            self._wait(customer, spoken_at)
            return
        customer.waiting = False
        act = self._say if customer.said < len(script.says) else self._finish
        self._then(customer, spoken_at + customer.character.thinks[customer.said], act)

    def _say(self, customer: _Customer, at: float) -> None:
        line = customer.character.kind.says[customer.said]
        request = {"ConnectionToken": customer.bearer, "ContentType": "text/plain", "Content": line}
        if self._try("SendMessage", request, customer, at, self._say) is not None:
            customer.said += 1
            customer.read = len(self._world.contacts[customer.participant.contact_id].transcript)
            self._wait(customer, at)

    def _wait(self, customer: _Customer, at: float) -> None:
        customer.waiting = True
        self._then(customer, at + customer.character.patience, self._give_up)

    # ── leaving ────────────────────────────────────────────────────────────────────────────────

    def _give_up(self, customer: _Customer, at: float) -> None:
        if self._leave(customer, at, self._give_up):
            if customer.answered:
                self.counts.unanswered += 1
            else:
                self.counts.gave_up += 1

    def _finish(self, customer: _Customer, at: float) -> None:
        if self._leave(customer, at, self._finish):
            self.counts.finished += 1

    def _leave(self, customer: _Customer, at: float, again: Callable[["_Customer", float], None]) -> bool:
        request = {"ConnectionToken": customer.bearer}
        if self._try("DisconnectParticipant", request, customer, at, again) is None:
            return False
        self._forget(customer, customer.participant.contact_id)
        return True

    def _forget(self, customer: _Customer, contact_id: str) -> None:
        self._chatting.pop(contact_id, None)
        customer.timer = 0
        self.counts.present -= 1

    # ── deadlines ──────────────────────────────────────────────────────────────────────────────

    def _try(
        self,
        operation: str,
        request: dict[str, Any],
        customer: _Customer,
        at: float,
        again: Callable[[_Customer, float], None],
    ) -> dict[str, Any] | None:
        """Call; if throttled, do `again` a second later; if refused otherwise, the chat is over: None for both."""
        try:
            return customer.perform(operation, request, at)
        except ApiError as error:
            if error.code == "ThrottlingException":
                self._then(customer, at + _AGAIN_SECONDS, again)
            else:
                self.counts.cut_off += 1
                self._forget(customer, customer.participant.contact_id)
            return None

    def _then(self, customer: _Customer, at: float, act: Callable[[_Customer, float], None]) -> None:
        """Set the customer's one deadline; the one before no longer counts."""
        customer.timer = self._at(at, act, customer)

    def _at(self, at: float, act: Callable[[Any, float], None], who: _Coming | _Customer) -> int:
        self._set += 1
        heappush(self._deadlines, (at, self._set, act, who))
        return self._set
