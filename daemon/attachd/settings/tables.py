"""The configuration: one model a TOML table, every error at once.

What may be set, its type, its default and what it means stand here and nowhere else; ``config/attachd.toml``
shows them all. Any key can be overridden from the environment: ``ATTACHD_QUOTA__RATE=4``. AWS Regions,
endpoints and credentials are not here: they come from where every AWS tool takes them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from attachd.settings.fields import (
    Endpoint,
    InstanceArn,
    Listen,
    Name,
    QueueUrl,
    RoleArn,
    RuntimeUrl,
    Seconds,
    Table,
    TopicArn,
)
from attachd.settings.routing import Otherwise, Rule
from attachd.settings.secrets import SecretRefs

ENV_PREFIX: Final = "ATTACHD_"


class SqsSource(Table):
    """Contact events from an SQS queue that an EventBridge rule feeds."""

    type: Literal["sqs"] = "sqs"
    queue_url: QueueUrl = Field(description="the queue; it is never created")
    quarantine_url: QueueUrl | None = Field(None, description="where bodies go that can never succeed")
    poll: Annotated[Seconds, Field(ge=1, le=20)] = Field(5, description="how long a poll waits")
    visibility: Annotated[Seconds, Field(ge=10, le=43_200)] = Field(
        30, description="how long an event stays ours after we die"
    )


class MemoryJournal(Table):
    """Forgets at a restart."""

    type: Literal["memory"]


class SqliteJournal(Table):
    """One file, for one process."""

    type: Literal["sqlite"]
    path: Path | None = Field(
        None, description="the file; default: journal.sqlite in $STATE_DIRECTORY, or here"
    )

    def file(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The file to use."""
        return self.path or Path(environ.get("STATE_DIRECTORY", ".").split(":")[0]) / "journal.sqlite"


class DynamoJournal(Table):
    """One DynamoDB table, for several processes, which share the quota, too."""

    type: Literal["dynamodb"]
    table: str = Field(
        "attachd",
        pattern=r"^[A-Za-z0-9_.-]{3,255}$",
        description="the table; made by `attachd journal create` alone",
    )


class Quota(Table):
    """What attachd may use of CreateParticipant's quota, for each account and Region."""

    rate: float | None = Field(
        None, gt=0, le=1000, description="calls a second; if not given, what Service Quotas says, else 5"
    )
    burst: int | None = Field(
        None, ge=1, le=10_000, description="calls at once; if not given, 8, or in proportion to the rate"
    )
    headroom: float = Field(
        0.02, ge=0, lt=1, description="the part left unused, for other applications and for jitter on the way"
    )


class Waiting(Table):
    """Chats that wait for a token, or for a runtime."""

    leave_when_queued: bool = Field(
        default=True, description="a chat that is queued for an agent gets no bot any more"
    )
    generations: int = Field(
        3,
        ge=1,
        le=10,
        description="participants asked for, one after the other, if no runtime takes them in time",
    )


class Instance(Table):
    """An Amazon Connect instance to serve. If any is listed, no other is served."""

    arn: InstanceArn = Field(description="arn:aws:connect:REGION:ACCOUNT:instance/ID")
    role: RoleArn | None = Field(None, description="the ARN of a role to assume")
    endpoint: Endpoint | None = Field(
        None, description="Connect's endpoint, instead of where AWS tools would go"
    )
    quota: Quota | None = Field(
        None,
        description="instead of [quota], for the instance's account and Region: the first that has one counts",
    )


class Capabilities(Table):
    """ParticipantCapabilities of CreateParticipant."""

    video: Literal["SEND"] | None = Field(None, description="Video")
    screen_share: Literal["SEND"] | None = Field(None, description="ScreenShare")

    def as_request(self) -> dict[str, str]:
        """In the API's own words."""
        named = {"Video": self.video, "ScreenShare": self.screen_share}
        return {name: value for name, value in named.items() if value is not None}


class Timers(Table):
    """The customer's idle timers (UpdateParticipantRoleConfig), two minutes to eight hours each, in whole minutes."""

    idle: Annotated[Seconds, Field(ge=120, le=28_800, multiple_of=60)] | None = Field(
        None, description="the customer has said nothing for so long: IDLE"
    )
    disconnect: Annotated[Seconds, Field(ge=120, le=28_800, multiple_of=60)] | None = Field(
        None, description="… and is disconnected: DISCONNECT_NONCUSTOMER"
    )

    @model_validator(mode="after")
    def _idle_first(self) -> Self:
        if self.idle is not None and self.disconnect is not None and self.disconnect < self.idle:
            raise ValueError("the customer would be disconnected before they count as idle")
        return self

    def as_request(self) -> dict[str, int]:
        """Minutes by TimerType."""
        named = {"IDLE": self.idle, "DISCONNECT_NONCUSTOMER": self.disconnect}
        return {kind: round(seconds / 60) for kind, seconds in named.items() if seconds is not None}


class Bot(Table):
    """A bot that rules can choose."""

    name: Name = Field(description="what rules call it")
    display_name: str = Field(min_length=1, max_length=256, description="what the customer sees")
    runtime: Name = Field(description="one of [runtimes.…]")
    max_chats: int | None = Field(None, ge=1, description="open chats at once, of this process")
    role: Literal["CUSTOM_BOT", "CUSTOMER"] = Field(
        "CUSTOM_BOT", description="ParticipantRole: CUSTOM_BOT for chats, CUSTOMER for WebRTC calls"
    )
    capabilities: Capabilities = Field(
        Capabilities(), description="ParticipantCapabilities, of CUSTOMER only"
    )
    streaming_topic: TopicArn | None = Field(
        None, description="the ARN of an SNS topic that the chat is streamed to first (StartContactStreaming)"
    )
    timers: Timers = Field(Timers(), description="the customer's idle timers")
    connect: bool = Field(
        default=False, description="attachd connects the participant; the runtime gets a connection token"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.role == "CUSTOM_BOT" and self.capabilities.as_request():
            raise ValueError("capabilities are for role = 'CUSTOMER', in WebRTC calls")
        if self.role == "CUSTOMER" and (self.streaming_topic or self.timers.as_request() or self.connect):
            raise ValueError("streaming_topic, timers and connect are for chats: role = 'CUSTOM_BOT'")
        return self


class WebhookRuntime(Table):
    """A bot behind https, http or a unix socket."""

    type: Literal["webhook"]
    url: RuntimeUrl = Field(description="https, http, or unix:///path")
    secret: SecretRefs = Field(min_length=1, description="signs each hand-off; several while rotated")
    timeout: Annotated[Seconds, Field(le=10)] = Field(3, description="for one try")
    max_handoffs: int = Field(100, ge=1, le=10_000, description="chats on their way to it at once")


class PythonRuntime(Table):
    """A bot in this process."""

    type: Literal["python"]
    callable: str = Field(pattern=r"^[\w.]+:\w+$", description="package.module:name of an async callable")
    timeout: Annotated[Seconds, Field(le=10)] = Field(3, description="for one try")
    max_handoffs: int = Field(100, ge=1, le=10_000, description="chats on their way to it at once")


class Service(Table):
    """How much at once, and how to stop."""

    max_in_hand: int = Field(20_000, ge=1, le=100_000, description="deliveries received and not settled")
    drain: Seconds = Field(60, description="for what is in hand when told to stop")
    release_after: Seconds = Field(5, description="how long a failed delivery stays away")
    stall: Annotated[Seconds, Field(ge=30)] = Field(60, description="a task silent for so long is stuck")
    keep: Seconds = Field(259_200, description="how long the journal remembers a contact")


class Health(Table):
    """Probes and metrics."""

    listen: Listen = Field("127.0.0.1:8080", description="host:port")


class Logging(Table):
    """Logs, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="from which level on")
    format: Literal["json", "console"] = Field("json", description="for machines, or for a terminal")


Journal = Annotated[MemoryJournal | SqliteJournal | DynamoJournal, Field(discriminator="type")]
Runtime = Annotated[WebhookRuntime | PythonRuntime, Field(discriminator="type")]


class Settings(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    source: SqsSource
    journal: Journal = SqliteJournal(type="sqlite")
    quota: Quota = Quota()
    waiting: Waiting = Waiting()
    instances: tuple[Instance, ...] = ()
    bots: tuple[Bot, ...] = Field(min_length=1)
    rules: tuple[Rule, ...] = Field(min_length=1)
    otherwise: Otherwise | None = None
    runtimes: dict[Name, Runtime] = Field(min_length=1)
    service: Service = Service()
    health: Health = Health()
    logging: Logging = Logging()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file."""
        return env_settings, init_settings
