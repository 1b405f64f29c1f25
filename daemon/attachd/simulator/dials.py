"""What may be turned: one frozen record, each dial named after the question which AWS leaves open or fixes.

Only data enters here. A default is AWS's documented value, or, where AWS says nothing, the kinder guess; the
comment says which.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from attachd.simulator.delivery import Delivery, Target
from attachd.simulator.faults import Faults
from attachd.simulator.flow import STRICT, EnterQueue, Flow, Hold, Seconds
from attachd.simulator.instance import Instance, parse_instance

_ACCOUNT = re.compile(r"[0-9]{12}")
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_-]{1,200}")
_NO_QUOTAS: Mapping[str, tuple[float, float]] = MappingProxyType({})
_NO_KEYS: Mapping[str, str] = MappingProxyType({})

# What CreateParticipant models, and StartContactStreaming
ErrorCode = Literal[
    "ConflictException",
    "InvalidRequestException",
    "LimitExceededException",
    "ResourceNotFoundException",
    "ServiceQuotaExceededException",
]


def _instance(arn: str) -> str:
    parse_instance(arn)
    return arn


def _told_apart(arns: tuple[str, ...]) -> tuple[str, ...]:
    if len({parse_instance(arn).id for arn in arns}) < len(arns):
        raise ValueError("instances must differ in their ids, since a request names no more than that")
    return arns


def _account(digits: str) -> str:
    if _ACCOUNT.fullmatch(digits) is None:
        raise ValueError("an account has twelve digits")
    return digits


def _marker(word: str) -> str:
    if _HEADER_SAFE.fullmatch(word) is None:
        raise ValueError("must be 1 to 200 of A-Z a-z 0-9 _ - since tokens travel in a header")
    return word


Rate = Annotated[float, Field(ge=0)]
Burst = Annotated[float, Field(ge=1)]
InstanceArn = Annotated[str, AfterValidator(_instance)]
AccountId = Annotated[str, AfterValidator(_account)]


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Dials:
    """How this simulated Connect behaves; raises ValueError if a value makes no sense."""

    instance_arn: InstanceArn = (
        "arn:aws:connect:eu-central-1:111122223333:instance/0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
    )
    """The instance which exists, if there is but one. Partition, Region and account are read from it."""

    instances: Annotated[tuple[InstanceArn, ...], AfterValidator(_told_apart)] = ()
    """The ARNs of all instances, if there are several; of one account and Region or of many. They share the port."""

    access_keys: Mapping[str, AccountId] = field(default_factory=lambda: _NO_KEYS)
    """Which account an access key id belongs to; it is denied the instances of any other. A key that is not named
    here is good for all of them, since credentials and signatures are not checked."""

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

    concurrent_chats: Annotated[int, Field(ge=1)] | None = None
    """How many chats an instance may have at once; None for any number, the kinder guess (AWS: 500, `--all-quotas`)."""

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

    error_of_a_full_call: ErrorCode = "ServiceQuotaExceededException"
    """How is a seventh participant of a call refused? AWS leaves it to the media library, which nobody simulates."""

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

    faults: Faults = ()
    """What goes wrong from the start; of two that fit a call the first strikes, latencies add up."""

    events: Target | None = None
    """Where contact events are published, `eventbridge:NAME` and the like for short; None keeps them in the truth only."""

    delivery: Delivery = field(default_factory=Delivery)
    """What befalls them on their way there; dealt by the seed, for each contact apart."""

    event_moments_yet_to_come: Literal["absent", "1970"] = "absent"
    """How does a contact event write connectedToSystemTimestamp before there is one: `absent`, or `1970` as AWS's CHAT
    samples do (1970-01-01T00:00:00.001Z)?"""

    event_segment_attributes_have: Literal["valueString", "ValueString"] = "valueString"
    """How are the members of segmentAttributes spelled in contact events, `valueString` or `ValueString`? No sample of
    AWS's shows any."""

    event_resources_begin_with: Literal["contact", "instance"] = "contact"
    """Whose ARN comes first in a contact event's resources, the `contact`'s, as in the documentation, or the
    `instance`'s, as in an event that looks captured?"""

    def existing(self) -> tuple[Instance, ...]:
        """Return all instances which exist, at least one."""
        return tuple(parse_instance(arn) for arn in self.instances or (self.instance_arn,))

    @property
    def instance_id(self) -> str:
        """The id which requests must name; of several instances, the first."""
        return self.existing()[0].id
