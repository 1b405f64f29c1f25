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

from attachd.errors import Misconfigured
from attachd.settings.fields import (
    Endpoint,
    ImportName,
    InstanceArn,
    Listen,
    Name,
    QueueUrl,
    RoleArn,
    RuntimeUrl,
    Seconds,
    Table,
    TopicArn,
    User,
)
from attachd.settings.routing import Otherwise, Rule
from attachd.settings.secrets import SecretRefs
from attachd.settings.sources import Source

ENV_PREFIX: Final = "ATTACHD_"


class _Kept(Table):
    unavailable: Literal["wait", "attach"] = Field(
        "wait",
        description="while it does not answer: put events off, or attach bots all the same, from memory",
    )


class MemoryJournal(Table):
    """Forgets at a restart."""

    type: Literal["memory"]


class SqliteJournal(_Kept):
    """One file, for one process."""

    type: Literal["sqlite"]
    path: Path | None = Field(
        None, description="the file; default: journal.sqlite in $STATE_DIRECTORY, or here"
    )

    def file(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The file to use."""
        return self.path or Path(environ.get("STATE_DIRECTORY", ".").split(":")[0]) / "journal.sqlite"


class DynamoJournal(_Kept):
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
    max_chats: int | None = Field(None, ge=1, description="open chats at once, for each attachd")
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
    ca: Path | None = Field(None, description="of https: believe these authorities alone, a PEM file")
    client_cert: Path | None = Field(None, description="of https: show this certificate, a PEM file")
    client_key: Path | None = Field(
        None, description="its private key, a PEM file, unless it stands there too"
    )
    peer_user: User | None = Field(
        None, description="of a unix socket: who must listen there, a user's name or number"
    )
    timeout: Annotated[Seconds, Field(le=10)] = Field(3, description="for one try")
    max_handoffs: int = Field(100, ge=1, le=10_000, description="chats on their way to it at once")
    wants_ended: bool = Field(default=False, description="it is told of chats of its that are over")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.ca or self.client_cert) and not self.url.startswith("https:"):
            raise ValueError("ca and client_cert are for https://")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key is the key of a client_cert, which is missing")
        if self.peer_user is not None and not self.url.startswith("unix:"):
            raise ValueError("peer_user is for unix://")
        return self


class SqsRuntime(Table):
    """A bot behind an SQS queue; what it is handed is sealed for its key."""

    type: Literal["sqs"]
    queue_url: QueueUrl = Field(description="the queue, standard or FIFO; it is never created")
    public_key: Path = Field(
        description="the bot's public key, PEM or JWK: EC P-256, or RSA from 2048 bits on"
    )
    timeout: Annotated[Seconds, Field(le=10)] = Field(3, description="for one try")
    max_handoffs: int = Field(100, ge=1, le=10_000, description="chats on their way to it at once")
    wants_ended: bool = Field(default=False, description="it is told of chats of its that are over")


class PythonRuntime(Table):
    """A bot in this process."""

    type: Literal["python"]
    callable: ImportName = Field(description="package.module:name of an async callable that takes a chat")
    ended: ImportName | None = Field(
        None, description="the same, of one that is told of its chats that are over"
    )
    timeout: Annotated[Seconds, Field(le=10)] = Field(3, description="for one try")
    max_handoffs: int = Field(100, ge=1, le=10_000, description="chats on their way to it at once")

    @property
    def wants_ended(self) -> bool:
        """Whether it is told of chats that are over."""
        return self.ended is not None


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
Runtime = Annotated[WebhookRuntime | SqsRuntime | PythonRuntime, Field(discriminator="type")]


class Settings(BaseSettings):
    """The whole file."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    source: Source | None = None
    sources: tuple[Source, ...] = ()
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

    @property
    def origins(self) -> tuple[Source, ...]:
        """Where events come from: [source], or each of [[sources]]."""
        return self.sources if self.source is None else (self.source,)

    def runtime(self, name: str) -> Runtime:
        """The runtime of this name.

        Raises:
            Misconfigured: there is none.
        """
        if name not in self.runtimes:
            there = ", ".join(sorted(self.runtimes))
            raise Misconfigured([f"there is no table [runtimes.{name}]; there are {there}"])
        return self.runtimes[name]

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
