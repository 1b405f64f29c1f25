"""What exists in simulated instances: records and their constants. No rule and no move enters.

Times are seconds since the epoch.
"""

from dataclasses import dataclass, field
from typing import Any

from attachd.simulator.flow import Flow
from attachd.simulator.instance import Instance
from attachd.simulator.state.life import Stage

CHAT = "CHAT"
VOICE = "VOICE"

CUSTOMER = "CUSTOMER"
CUSTOM_BOT = "CUSTOM_BOT"
AGENT = "AGENT"

_EVENT = "application/vnd.amazonaws.connect.event."
JOINED = _EVENT + "participant.joined"
LEFT = _EVENT + "participant.left"
TRANSFERRED = _EVENT + "transfer.succeeded"
ENDED = _EVENT + "chat.ended"
TYPING = _EVENT + "typing"
DELIVERED = _EVENT + "message.delivered"
READ = _EVENT + "message.read"
ACKNOWLEDGED = _EVENT + "connection.acknowledged"
METADATA = _EVENT + "message.metadata"
# AWS: amazon-connect-chatjs, onParticipantIdle, onParticipantReturned, onAutoDisconnection
IDLE = _EVENT + "participant.idle"
RETURNED = _EVENT + "participant.returned"
AUTODISCONNECTED = _EVENT + "participant.autodisconnection"


@dataclass(slots=True)
class Participant:
    """A member of a chat; `expires_at` is its token's. A customer moves on with a transfer, nobody else does."""

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
    capabilities: dict[str, str] | None = None
    """What a user added to a call may send: Video, ScreenShare."""
    sockets: int = 0
    """How many of its websockets are open."""

    @property
    def present(self) -> bool:
        """Whether it has connected and not left."""
        return self.connected_at is not None and self.disconnected_at is None


@dataclass(frozen=True, slots=True)
class Connection:
    """What a connection token stands for, and until when."""

    participant: Participant
    expires_at: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a websocket's URL stands for: whose it is, until when it may be opened, when the socket is closed."""

    participant: Participant
    open_by: float
    expires_at: float


@dataclass(slots=True)
class Receipt:
    """When one recipient got and read a message."""

    delivered_at: float | None = None
    read_at: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A line of a transcript: a message, or (without content) an event; `receipts` by participant id."""

    id: str
    contact_id: str
    at: float
    type: str
    content_type: str
    content: str | None
    participant: Participant | None
    receipts: dict[str, Receipt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """What those who follow a chat are told: a new item, or, with a `reader`, that participant's receipt of one."""

    contact: "Contact"
    item: Item
    reader: Participant | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """One SNS topic to which a chat is streamed."""

    id: str
    topic_arn: str
    started_at: float


@dataclass(slots=True)
class Contact:
    """One segment of a chat or call. Segment attributes stand in the API's own form."""

    id: str
    instance: Instance
    started_at: float
    expires_at: float
    attributes: dict[str, str]
    """Shared by every contact with the same initial contact (AWS: UpdateContactAttributes takes the initial id)."""
    segment_attributes: dict[str, Any]
    tags: dict[str, str]
    """Replaced, never changed in place, since the contact that follows begins with them."""
    initial_contact_id: str
    channel: str = CHAT
    previous_contact_id: str | None = None
    related_contact_id: str | None = None
    initiation_method: str = "API"
    customer_id: str | None = None
    stage: Stage = Stage.STARTED
    connected_at: float | None = None
    queue_arn: str | None = None
    enqueued_at: float | None = None
    agent_arn: str | None = None
    agent_connected_at: float | None = None
    ended_at: float | None = None
    disconnect_reason: str | None = None
    participants: list[Participant] = field(default_factory=list)
    transcript: list[Item] = field(default_factory=list)
    joined: list["Contact"] = field(default_factory=list)
    """The contacts of the users added to a call; only its initial contact has any."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """Of the whole chat; only an initial contact has any."""
    timers: dict[tuple[str, str], int] = field(default_factory=dict)
    """Minutes by participant role and timer type, as configured; replaced, never changed in place."""
    timers_running: dict[tuple[str, str], int] = field(default_factory=dict)
    """Those which were configured when an agent or a bot joined the customer; none while neither is there."""
    idle: set[str] = field(default_factory=set)
    """The participant roles which have been told idle."""
    steps: Flow = ()
    """What is left of its flow, the step where it stands first."""
    due: dict[str, int] = field(default_factory=dict)
    """What is to happen to it: the number of the deadline which counts, by name; any other has been overtaken."""
    branches: tuple[str, ...] = ()
    """The branches its Wait blocks took."""

    @property
    def subtype(self) -> str:
        """The segment attribute `connect:Subtype`, such as `connect:Chat`."""
        return str(self.segment_attributes.get("connect:Subtype", {}).get("ValueString", ""))


@dataclass(frozen=True, slots=True)
class Happening:
    """Something a contact event tells: its eventType, the contact, when, and which properties changed."""

    event_type: str
    contact: Contact
    at: float
    updated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One API call as it was answered; `code` is empty for a success, `operation` for an unknown one.

    `status` is 0 if no answer was sent; `instance_id` says whose quota it was to spend, `fault` what faults were done to
    it, `effect` whether it was carried out.
    """

    operation: str
    at: float
    status: int
    code: str
    contact_id: str
    instance_id: str = ""
    fault: str = ""
    effect: bool = False
