"""What may be turned: one frozen record, each dial named after the question which AWS leaves open or fixes.

Only data enters here. A default is AWS's documented value, or, where AWS says nothing, the kinder guess; the
comment says which.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from attachd.simulator.faults import Faults
from attachd.simulator.flow import STRICT, EnterQueue, Flow, Hold, Seconds

_INSTANCE_ARN = re.compile(r"arn:(aws[\w-]*):connect:([a-z0-9-]+):(\d{12}):instance/([\w-]{1,100})")
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_-]{1,200}")
_NO_QUOTAS: Mapping[str, tuple[float, float]] = MappingProxyType({})

Rate = Annotated[float, Field(ge=0)]
Burst = Annotated[float, Field(ge=1)]
# What CreateParticipant models, and StartContactStreaming
ErrorCode = Literal[
    "ConflictException",
    "InvalidRequestException",
    "LimitExceededException",
    "ResourceNotFoundException",
    "ServiceQuotaExceededException",
]


@dataclass(frozen=True, slots=True, config=STRICT)
class EventBus:
    """Publish contact events by PutEvents to the EventBridge bus of this name or ARN."""

    name: str


@dataclass(frozen=True, slots=True, config=STRICT)
class Queue:
    """Publish contact events straight to this SQS queue, the whole envelope as body, as EventBridge would."""

    url: str


def parse_target(text: str) -> EventBus | Queue:
    """Read `eventbridge:NAME` or `sqs:URL`; raise ValueError for anything else."""
    kind, _, value = text.partition(":")
    if value and kind == "eventbridge":
        return EventBus(value)
    if value and kind == "sqs":
        return Queue(value)
    raise ValueError(f"expected eventbridge:NAME or sqs:URL, got {text!r}")


def _target(value: Any) -> EventBus | Queue | None:
    if value is None or isinstance(value, EventBus | Queue):
        return value
    return parse_target(value if isinstance(value, str) else "")


def _instance(arn: str) -> str:
    if _INSTANCE_ARN.fullmatch(arn) is None:
        raise ValueError(f"not the ARN of an Amazon Connect instance: {arn!r}")
    return arn


def _marker(word: str) -> str:
    if _HEADER_SAFE.fullmatch(word) is None:
        raise ValueError("must be 1 to 200 of A-Z a-z 0-9 _ - since tokens travel in a header")
    return word


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Dials:
    """How this simulated Connect behaves; raises ValueError if a value makes no sense."""

    instance_arn: Annotated[str, AfterValidator(_instance)] = (
        "arn:aws:connect:eu-central-1:111122223333:instance/0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
    )
    """The one instance which exists. Partition, Region and account are read from it."""

    seed: int = 0
    """Same seed and same calls, same ids, tokens and faults."""

    token_marker: Annotated[str, AfterValidator(_marker)] = "simulated"  # noqa: S105 - a word to search for, no secret
    """Stands in every participant and connection token, so that a canary test can search for leaks."""

    rate: Rate = 5.0
    """CreateParticipant calls refilled per second, per account and Region (AWS: service quotas)."""

    burst: Burst = 8.0
    """CreateParticipant calls that may come at once (AWS: service quotas)."""

    quotas: Mapping[str, tuple[Rate, Burst]] = field(default_factory=lambda: _NO_QUOTAS)
    """Another (rate, burst) for the APIs named, which are thereby metered; `quotas.DOCUMENTED` has AWS's."""

    metered: frozenset[str] | None = frozenset({"CreateParticipant"})
    """Which APIs have a quota at all; None for all of them, as in AWS. The kinder guess: a load test of bots ought
    not to be stopped at two DescribeContact a second by a simulator it uses as scenery."""

    throttled_calls_spend_quota: bool = False
    """Does a call answered 429 cost quota as well? AWS does not say."""

    refused_calls_spend_quota: bool = True
    """Does a call refused for another reason than its quota cost quota? AWS does not say; gateways meter first."""

    send_message_and_send_event_share_a_quota: bool = False
    """Do the two share one bucket? AWS lists them in one line."""

    lapsed_bot_frees_its_slot: bool = True
    """Does a bot which never connected stop counting after its 15 s? AWS does not say."""

    bot_may_precede_the_customer: bool = True
    """Does CreateParticipant succeed before the customer has connected? AWS does not say."""

    connect_within_seconds: Seconds = 15.0
    """How long a bot's participant token waits for its first connection (AWS: custom participants)."""

    websocket_works_for_a_custom_bot: bool = True
    """May a custom bot ask for a WEBSOCKET? AWS's page names CONNECTION_CREDENTIALS only, its model allows both."""

    retired_acknowledgement_connects: bool = False
    """Does SendEvent still take `connection.acknowledged`, by which older clients connected? AWS: "no longer
    maintained" since the end of 2024; current ones subscribe to a websocket or pass ConnectParticipant."""

    websocket_opens_within_seconds: Seconds = 100.0
    """How long a websocket's URL waits to be opened (AWS: CreateParticipantConnection)."""

    websocket_seconds: Seconds = 3600.0
    """How long after its URL was issued a websocket is closed, told as ConnectionExpiry. AWS gives no figure;
    amazon-connect-chatjs asks for another URL after 59 minutes."""

    customer_connects_within_seconds: Seconds = 300.0
    """How long a chat waits for its customer to connect (AWS: StartChatContact)."""

    client_token_remembered_seconds: Seconds = 7 * 86400.0
    """How long a ClientToken replays its answer. AWS says 7 days for voice, nothing for chat."""

    replayed_client_token_answers: Literal["the same", "a new token", "an error"] = "the same"  # noqa: S105 - a word, no secret
    """What does CreateParticipant answer to a ClientToken it knows? `the same` answer, `a new token` of the same
    participant, or `an error` (409 ConflictException, IdempotencyException not being modelled there). AWS only says
    that the token "ensures idempotency"."""

    error_beside_an_agent: ErrorCode = "ConflictException"
    """How is CreateParticipant refused while an agent is there? AWS says only that it is."""

    error_of_a_second_bot: ErrorCode = "ServiceQuotaExceededException"
    """How is a second custom participant refused? AWS says only that there is one at most."""

    error_of_an_ended_contact: ErrorCode = "ResourceNotFoundException"
    """How is CreateParticipant refused once the contact has ended? AWS does not say."""

    error_of_a_third_topic: ErrorCode = "LimitExceededException"
    """How is a third StartContactStreaming refused? AWS says only that there are two at most."""

    sms_initiation_method: str = "API"
    """Which initiationMethod does an SMS chat carry? AWS documents API for chats, INBOUND for voice and email."""

    flow: Flow = (Hold(),)
    """What a chat goes through once its customer has connected; the default waits for ever, bot or no bot."""

    transfer_flow: Flow = (EnterQueue(),)
    """What a contact transferred by an agent goes through (AWS: transfer to agent and queue flows)."""

    disconnect_flow: Flow = ()
    """What follows once an agent has left; without steps nothing follows, and no DISCONNECT contact is made."""

    after_contact_work_seconds: Seconds | None = 0.0
    """How long after an agent's contact is DISCONNECTED it is COMPLETED; None for never, which AWS says may happen
    to a chat whose agent goes offline."""

    body_within_seconds: Seconds = 10.0
    """How long a request's body may take to arrive before it is answered 408."""

    publish_streams: bool = False
    """Whether what is said in streamed chats is published to their SNS topics; without it they are only noted."""

    events: Annotated[EventBus | Queue | None, BeforeValidator(_target)] = None
    """Where contact events are published, `eventbridge:NAME` or `sqs:URL` for short; None keeps them in the truth only."""

    faults: Faults = ()
    """What goes wrong from the start; of two that fit a call the first strikes, latencies add up."""

    @property
    def partition(self) -> str:
        """The ARN's partition, such as `aws`."""
        return self.instance_arn.split(":")[1]

    @property
    def region(self) -> str:
        """The ARN's Region, such as `eu-central-1`."""
        return self.instance_arn.split(":")[3]

    @property
    def account(self) -> str:
        """The ARN's twelve-digit account."""
        return self.instance_arn.split(":")[4]

    @property
    def instance_id(self) -> str:
        """The id which requests must name."""
        return self.instance_arn.rpartition("/")[2]
