"""The state of the simulated instances, and the moves between its contacts' stages.

Pure: time is an argument, ids and tokens come from seeded dice, nothing is read or sent. Moves assume that
the operations have checked the rules; what happens to a contact is left in `happenings` for whoever announces it.
"""

from collections import Counter, deque
from heapq import heappush
from typing import TYPE_CHECKING, Any

from attachd.simulator.dials import Dials
from attachd.simulator.state.dice import Dice, likeness
from attachd.simulator.state.events import contact_event
from attachd.simulator.state.life import Stage, moved
from attachd.simulator.state.nouns import (
    AGENT,
    CHAT,
    CUSTOM_BOT,
    CUSTOMER,
    ENDED,
    JOINED,
    LEFT,
    Call,
    Connection,
    Contact,
    Happening,
    Item,
    Line,
    Participant,
    Ticket,
)

if TYPE_CHECKING:
    from attachd.simulator.state.bucket import Bucket

_CALLS_REMEMBERED = 1_000_000


class World:
    """All that exists in the instances."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.instances = {instance.id: instance for instance in dials.existing()}
        self.contacts: dict[str, Contact] = {}
        self.active: Counter[tuple[str, str]] = Counter()  # contacts not ended, by channel and instance id
        self.participants: dict[str, Participant] = {}  # by participant token
        self.connections: dict[str, Connection] = {}  # by connection token
        self.tickets: dict[str, Ticket] = {}  # by the secret of a websocket's URL, until it is opened
        self.happenings: deque[dict[str, Any]] = deque()  # contact events not yet announced
        self.lines: deque[Line] = deque()  # what has been said and done in chats, not yet told
        self.calls: deque[Call] = deque(maxlen=_CALLS_REMEMBERED)
        self.quotas: dict[tuple[str, str], Bucket] = {}  # by API and instance id; the front door fills it
        self.deadlines: list[tuple[float, int, str, str]] = []  # a heap; see `by`
        self._answers: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {}
        self._dice = Dice(dials.seed)
        self._deadlines_set = 0

    def new_contact_id(self, request: dict[str, Any]) -> str:
        """Return the id of the contact which this request starts.

        Of requests which differ each gets the same id in whatever order they come; of requests alike, in their order.
        """
        return self._dice.new_id(likeness(request), "start")

    def new_id(self, contact: Contact, kind: str) -> str:
        """Return a version 4 UUID for something of this kind in the contact, or which follows from it."""
        return self._dice.new_id(contact.id, kind)

    def new_token(self, contact_id: str, kind: str) -> str:
        """Return a bearer token of this kind in the contact, which nobody can guess who does not know the seed."""
        return f"{self.dials.token_marker}-{kind}-{self._dice.new_secret(contact_id, kind)}"

    def remembered(self, key: tuple[str, ...], now: float) -> dict[str, Any] | None:
        """Return the answer first given under this ClientToken key, while it is still remembered."""
        known = self._answers.get(key)
        return known[1] if known is not None and now < known[0] else None

    def remember(self, key: tuple[str, ...], answer: dict[str, Any], now: float) -> None:
        """Keep an answer for replay under its ClientToken key."""
        self._answers[key] = (now + self.dials.client_token_remembered_seconds, answer)

    def start(self, contact: Contact) -> None:
        """Let a new contact exist, and announce INITIATED.

        AWS: StartChatContact: its customer has five minutes to connect, and the chat its ChatDurationInMinutes.
        """
        self.contacts[contact.id] = contact
        self.active[contact.channel, contact.instance.id] += 1
        self.by(contact.started_at + self.dials.customer_connects_within_seconds, contact, "customer")
        self.by(contact.expires_at, contact, "duration")
        self.happen("INITIATED", contact, contact.started_at)

    def happen(self, event_type: str, contact: Contact, at: float, updated: tuple[str, ...] = ()) -> None:
        """Leave word of what happened, written at once, since the contact will not stay as it is."""
        happening = Happening(event_type, contact, at, updated)
        self.happenings.append(contact_event(happening, self.dials, self.new_id(contact, "event")))

    def by(self, at: float, contact: Contact, what: str) -> None:
        """Have `what` happen to the contact at that time, unless that is put off, or dropped from its `due`."""
        self._deadlines_set += 1
        heappush(self.deadlines, (at, self._deadlines_set, contact.id, what))
        contact.due[what] = self._deadlines_set

    def add(self, contact: Contact, role: str, display_name: str, now: float) -> Participant:
        """Create a participant who has not connected yet."""
        participant = Participant(
            id=self.new_id(contact, "participant"),
            contact_id=contact.id,
            role=role,
            display_name=display_name,
            token=self.new_token(contact.id, "participant"),
            created_at=now,
            expires_at=contact.expires_at,
        )
        contact.participants.append(participant)
        self.participants[participant.token] = participant
        return participant

    def renew_token(self, participant: Participant) -> None:
        """Give the participant another token; the former ones stay good."""
        participant.token = self.new_token(participant.contact_id, "participant")
        self.participants[participant.token] = participant

    def lapsed(self, participant: Participant, now: float) -> bool:
        """Tell whether a bot let its 15 s pass without connecting; its token is dead from then on."""
        late = now - participant.created_at > self.dials.connect_within_seconds
        return participant.role == CUSTOM_BOT and participant.connected_at is None and late

    def bot_slot_taken(self, contact: Contact, now: float) -> bool:
        """Tell whether the contact's single place for a custom participant is occupied."""
        return any(
            bot.role == CUSTOM_BOT
            and bot.disconnected_at is None
            and not (self.dials.lapsed_bot_frees_its_slot and self.lapsed(bot, now))
            for bot in contact.participants
        )

    def issue_connection(self, participant: Participant, expires_at: float) -> str:
        """Return a new connection token of the participant."""
        token = self.new_token(participant.contact_id, "connection")
        self.connections[token] = Connection(participant, expires_at)
        return token

    def issue_ticket(self, participant: Participant, now: float) -> tuple[str, Ticket]:
        """Return the secret of a new websocket URL of the participant, and what it stands for."""
        secret, dials = self.new_token(participant.contact_id, "websocket"), self.dials
        ticket = Ticket(
            participant, now + dials.websocket_opens_within_seconds, now + dials.websocket_seconds
        )
        self.tickets[secret] = ticket
        return secret, ticket

    def connect(self, participant: Participant, now: float) -> None:
        """Mark the participant as connected; the first customer to connect establishes the contact."""
        contact = self.contacts[participant.contact_id]
        participant.connected_at = now
        self.note(contact, now, content_type=JOINED, participant=participant)
        if participant.role == CUSTOMER and contact.stage is Stage.STARTED:
            self.establish(contact, now)

    def establish(self, contact: Contact, now: float) -> None:
        """Note that the contact has its customer; announced for chats (AWS: not for inbound calls)."""
        contact.stage = moved(contact.stage, Stage.CONNECTED)
        contact.connected_at = now
        contact.due.pop("customer", None)
        if contact.channel == CHAT:
            self.happen("CONNECTED_TO_SYSTEM", contact, now)

    def enqueue(self, contact: Contact, queue: str, now: float) -> None:
        """Put the contact into a queue; a bot may stay."""
        contact.stage = moved(contact.stage, Stage.QUEUED)
        contact.queue_arn = f"{contact.instance.arn}/queue/{queue}"
        contact.enqueued_at = now
        contact.steps = ()
        contact.due.pop("step", None)
        self.happen("QUEUED", contact, now)

    def join_agent(self, contact: Contact, now: float) -> Participant:
        """Let an agent take the contact; its custom bot is dropped (AWS: custom participants)."""
        contact.stage = moved(contact.stage, Stage.WITH_AGENT)
        contact.due.pop("agent", None)
        agent = self.add(contact, AGENT, "Agent", now)
        contact.agent_arn = f"{contact.instance.arn}/agent/{agent.id}"
        contact.agent_connected_at = now
        self.connect(agent, now)
        for bot in contact.participants:
            if bot.role == CUSTOM_BOT:
                self.disconnect(bot, now)
        self.happen("CONNECTED_TO_AGENT", contact, now)
        return agent

    def disconnect(self, participant: Participant, now: float) -> None:
        """Let the participant leave; the others stay."""
        if participant.disconnected_at is None:
            participant.disconnected_at = now
            if participant.connected_at is not None:
                self.note(
                    self.contacts[participant.contact_id], now, content_type=LEFT, participant=participant
                )

    def end(self, contact: Contact, reason: str | None, now: float, *, last: str | None = ENDED) -> None:
        """End the contact for everyone in it, and announce DISCONNECTED, then COMPLETED.

        `last` is the event which closes its transcript, if any. AWS: contact events: COMPLETED follows at once unless an agent has after-contact work to do.
        """
        contact.stage = moved(contact.stage, Stage.ENDED)
        self.active[contact.channel, contact.instance.id] -= 1
        for participant in contact.participants:
            self.disconnect(participant, now)
        for each in contact.joined:
            if each.ended_at is None:
                self.end(each, reason, now)
        if last is not None:
            self.note(contact, now, content_type=last)
        contact.ended_at = now
        contact.disconnect_reason = reason
        contact.steps = ()
        contact.due.clear()
        self.happen("DISCONNECTED", contact, now)
        work = self.dials.after_contact_work_seconds if contact.agent_connected_at is not None else 0.0
        if work == 0:
            self.happen("COMPLETED", contact, now)
        elif work is not None:
            self.by(now + work, contact, "complete")

    def note(
        self,
        contact: Contact,
        now: float,
        *,
        content_type: str,
        content: str | None = None,
        participant: Participant | None = None,
    ) -> Item:
        """Add a line to the transcript: a MESSAGE if it has content, else an EVENT."""
        kind = "EVENT" if content is None else "MESSAGE"
        item = Item(self.new_id(contact, "item"), contact.id, now, kind, content_type, content, participant)
        contact.transcript.append(item)
        self.lines.append(Line(contact, item))
        if participant is not None and content is not None:
            participant.messages_sent += 1
        return item
