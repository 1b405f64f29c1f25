"""The state of one simulated instance: contacts, participants, transcripts, and the moves between them.

Pure: time is an argument, ids and tokens come from a seeded generator, nothing is read or sent. Moves assume that
the operations have checked the rules; what happens to a contact is left in `happenings` for whoever announces it.
"""

import random
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from attachd.simulator.bucket import Bucket
from attachd.simulator.dials import Dials

CUSTOMER = "CUSTOMER"
CUSTOM_BOT = "CUSTOM_BOT"

_EVENT = "application/vnd.amazonaws.connect.event."
JOINED = _EVENT + "participant.joined"
LEFT = _EVENT + "participant.left"
ENDED = _EVENT + "chat.ended"

_CALLS_REMEMBERED = 1_000_000


@dataclass(slots=True)
class Participant:
    """A member of a chat. Times are seconds since the epoch; `expires_at` is its token's."""

    id: str
    contact_id: str
    role: str
    display_name: str
    token: str = field(repr=False)
    created_at: float
    expires_at: float
    connected_at: float | None = None
    disconnected_at: float | None = None
    messages_sent: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection token stands for, and until when."""

    participant: Participant
    expires_at: float


@dataclass(frozen=True, slots=True)
class Item:
    """A line of a transcript: a message, or (without content) an event."""

    id: str
    at: float
    type: str
    content_type: str
    content: str | None
    participant: Participant | None


@dataclass(slots=True)
class Contact:
    """One chat. Segment attributes stand in the API's own form."""

    id: str
    started_at: float
    expires_at: float
    attributes: dict[str, str]
    segment_attributes: dict[str, Any]
    tags: dict[str, str]
    related_contact_id: str | None
    connected_at: float | None = None
    ended_at: float | None = None
    disconnect_reason: str | None = None
    participants: list[Participant] = field(default_factory=list)
    transcript: list[Item] = field(default_factory=list)

    @property
    def state(self) -> str:
        """One of STARTED, CONNECTED, ENDED."""
        if self.ended_at is not None:
            return "ENDED"
        return "STARTED" if self.connected_at is None else "CONNECTED"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something a contact event tells: its eventType, the contact, when."""

    event_type: str
    contact: Contact
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """One API call as it was answered; `code` is empty for a success, `operation` for an unknown one."""

    operation: str
    at: float
    status: int
    code: str
    contact_id: str


class World:
    """All that exists in the instance."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.contacts: dict[str, Contact] = {}
        self.participants: dict[str, Participant] = {}  # by participant token
        self.connections: dict[str, Connection] = {}  # by connection token
        self.happenings: deque[Happening] = deque()
        self.calls: deque[Call] = deque(maxlen=_CALLS_REMEMBERED)
        # Room for the other operations' quotas and, per instance, the Participant Service's.
        self.quotas = {
            "CreateParticipant": Bucket(
                dials.rate, dials.burst, throttled_calls_spend=dials.throttled_calls_spend_quota
            )
        }
        self._answers: dict[tuple[str, ...], tuple[float, dict[str, Any]]] = {}
        self._dice = random.Random(dials.seed)

    def new_id(self) -> str:
        """Return a random (version 4) UUID."""
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))

    def _new_token(self, kind: str) -> str:
        return f"{self.dials.token_marker}-{kind}-{self._dice.getrandbits(256):064x}"

    def remembered(self, key: tuple[str, ...], now: float) -> dict[str, Any] | None:
        """Return the answer first given under this ClientToken key, while it is still remembered."""
        known = self._answers.get(key)
        return known[1] if known is not None and now < known[0] else None

    def remember(self, key: tuple[str, ...], answer: dict[str, Any], now: float) -> None:
        """Keep an answer for replay under its ClientToken key."""
        self._answers[key] = (now + self.dials.client_token_remembered_seconds, answer)

    def start(self, contact: Contact) -> None:
        """Let a new contact exist, and announce INITIATED."""
        self.contacts[contact.id] = contact
        self.happenings.append(Happening("INITIATED", contact, contact.started_at))

    def add(self, contact: Contact, role: str, display_name: str, now: float) -> Participant:
        """Create a participant who has not connected yet."""
        participant = Participant(
            id=self.new_id(),
            contact_id=contact.id,
            role=role,
            display_name=display_name,
            token=self._new_token("participant"),
            created_at=now,
            expires_at=contact.expires_at,
        )
        contact.participants.append(participant)
        self.participants[participant.token] = participant
        return participant

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
        token = self._new_token("connection")
        self.connections[token] = Connection(participant, expires_at)
        return token

    def connect(self, participant: Participant, now: float) -> None:
        """Mark the participant as connected; the first customer to connect establishes the contact."""
        contact = self.contacts[participant.contact_id]
        participant.connected_at = now
        self.note(contact, now, content_type=JOINED, participant=participant)
        if participant.role == CUSTOMER and contact.connected_at is None:
            contact.connected_at = now
            self.happenings.append(Happening("CONNECTED_TO_SYSTEM", contact, now))

    def disconnect(self, participant: Participant, now: float) -> None:
        """Let the participant leave; the others stay."""
        if participant.disconnected_at is None:
            participant.disconnected_at = now
            if participant.connected_at is not None:
                self.note(
                    self.contacts[participant.contact_id], now, content_type=LEFT, participant=participant
                )

    def end(self, contact: Contact, reason: str, now: float) -> None:
        """End the chat for everyone, and announce DISCONNECTED."""
        for participant in contact.participants:
            self.disconnect(participant, now)
        self.note(contact, now, content_type=ENDED)
        contact.ended_at = now
        contact.disconnect_reason = reason
        self.happenings.append(Happening("DISCONNECTED", contact, now))

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
        item = Item(self.new_id(), now, kind, content_type, content, participant)
        contact.transcript.append(item)
        if participant is not None and content is not None:
            participant.messages_sent += 1
        return item
