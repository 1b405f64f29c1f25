"""The configuration: one model a TOML table, every error at once.

What may be set, its type, its default and what it means stand here and nowhere else; ``config/attachd.toml``
shows them all. Any key can be overridden from the environment: ``ATTACHD_QUOTA__RATE=4``. AWS Regions,
endpoints and credentials are not here: they come from where every AWS tool takes them.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from attachd.errors import Misconfigured
from attachd.model import Secret
from attachd.patterns import PatternError, compile_pattern

ENV_PREFIX: Final = "ATTACHD_"
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_INSTANCE: Final = re.compile(r"arn:aws[\w-]*:connect:[a-z0-9-]+:\d{12}:instance/[\w-]{1,100}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    """``"250ms"``, ``"60s"``, ``"5m"``, ``"2h"``, ``"3d"``, or a number of seconds."""
    if isinstance(value, bool):
        raise ValueError("not a duration")  # noqa: TRY004 - pydantic wants a ValueError
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("not a duration: write a number of seconds, or '250ms', '60s', '5m', '2h', '3d'")
    return float(match[1]) * _UNITS[match[2]]


def _pattern(value: object) -> object:
    """A TOML table, or the JSON text that AWS shows; kept as JSON text, proven to compile."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        compile_pattern(text)
    except PatternError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ValueError(f"not an event pattern: {error}{hint}") from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not an event pattern: {error}") from None
    return text


def channels(when: object) -> set[str]:
    """The channels whose contacts such a pattern may match, as far as its ``detail.channel`` tells.

    Without a pattern a rule is for chats; without ``detail.channel`` in it, for either.
    """
    if when is None:
        return {"CHAT"}
    try:
        pattern = json.loads(when) if isinstance(when, str) else when
        of_channel = json.dumps({"detail": {"channel": pattern["detail"]["channel"]}})  # type: ignore[index]
        compiled = compile_pattern(of_channel)
    except (PatternError, LookupError, TypeError, ValueError, RecursionError):
        return {"CHAT", "VOICE"}
    return {name for name in ("CHAT", "VOICE") if compiled.matches({"detail": {"channel": name}})}


def _instance_arn(value: str) -> str:
    if _INSTANCE.fullmatch(value) is None:
        raise ValueError("not the ARN of an instance: write 'arn:aws:connect:REGION:ACCOUNT:instance/ID'")
    return value


def _role_arn(value: str) -> str:
    if re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/\S+", value) is None:
        raise ValueError("not the ARN of a role: write 'arn:aws:iam::ACCOUNT:role/NAME'")
    return value


def _topic_arn(value: str) -> str:
    """AWS: StartContactStreaming takes no FIFO topic."""
    if re.fullmatch(r"arn:aws[\w-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}", value) is None:
        raise ValueError("not the ARN of a standard SNS topic: write 'arn:aws:sns:REGION:ACCOUNT:NAME'")
    return value


def _listed(value: object) -> object:
    """One name, or several in order of preference."""
    return [value] if isinstance(value, str) else value


def _queue_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.strip("/"):
        raise ValueError("not a queue's URL, which begins with https:// (its ARN is not its URL)")
    return value


def _runtime_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("a password never stands here; the hand-off is signed, see 'secret'")
    socket = parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")
    web = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    if not (socket or web) or any(c.isspace() for c in value):
        raise ValueError(
            "not an address of a runtime: write 'https://…', 'http://…' or 'unix:///path/to.sock'"
        )
    return value


def _references(value: object) -> object:
    """One reference or a list of them. What stands there instead is not repeated: it may be the secret itself."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, Mapping | Table) for item in listed):
        raise ValueError("a secret never stands here: write { credential = … }, { env = … } or { file = … }")
    return listed


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65_536):  # noqa: PLR2004 - TCP's own
        raise ValueError("not an address to listen on: write 'host:port', like '127.0.0.1:8080'")
    return value


QueueUrl = Annotated[str, AfterValidator(_queue_url)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class Table(BaseModel):
    """A table of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _reference(value: object) -> object:
    """Where a secret lies. A secret itself that stands here is not repeated."""
    if not isinstance(value, str | Path) or not str(value).strip() or str(value).startswith("whsec_"):
        raise ValueError("this is where a secret lies, never the secret itself")
    return value


Reference = Annotated[str, BeforeValidator(_reference)]


class SecretRef(Table):
    """Where a secret lies; never the secret itself. Exactly one of the three."""

    credential: Reference | None = Field(None, description="a file in systemd's $CREDENTIALS_DIRECTORY")
    env: Reference | None = Field(None, description="an environment variable")
    file: Annotated[Path, BeforeValidator(_reference)] | None = Field(None, description="a file")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(x is not None for x in (self.credential, self.env, self.file)) != 1:
            raise ValueError("give exactly one of 'credential', 'env' and 'file'")
        return self

    def read(self, environ: Mapping[str, str] = os.environ) -> Secret:
        """The secret.

        Raises:
            Misconfigured: it is not where the reference says.
        """
        if self.env is not None:
            value = environ.get(self.env, "")
            where = f"environment variable {self.env}"
            if self.env not in environ:
                raise Misconfigured([f"secret {where} is not set"])
        else:
            directory = environ.get("CREDENTIALS_DIRECTORY", "")
            if self.credential is not None and not directory:
                raise Misconfigured([f"credential {self.credential!r}: $CREDENTIALS_DIRECTORY is not set"])
            path = self.file if self.file is not None else Path(directory) / (self.credential or "")
            where = str(path)
            try:
                value = path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise Misconfigured([f"secret {where}: {error}"]) from None
        if not value.strip():
            raise Misconfigured([f"secret {where} is empty"])
        return Secret(value.strip())


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

    arn: Annotated[str, AfterValidator(_instance_arn)] = Field(
        description="arn:aws:connect:REGION:ACCOUNT:instance/ID"
    )
    role: Annotated[str, AfterValidator(_role_arn)] | None = Field(
        None, description="the ARN of a role to assume"
    )
    endpoint: str | None = Field(None, description="Connect's endpoint, instead of where AWS tools would go")
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
    streaming_topic: Annotated[str, AfterValidator(_topic_arn)] | None = Field(
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


class Rule(Table):
    """Which bot for which chat; the first rule that matches decides."""

    name: Name = Field(description="what logs call it")
    when: Annotated[str, BeforeValidator(_pattern)] = Field(
        '{"detail":{"channel":["CHAT"]}}', description="an EventBridge event pattern"
    )
    bot: Annotated[tuple[Name, ...], BeforeValidator(_listed)] = Field(
        min_length=1,
        description="one of [[bots]], or several: the first whose runtime is there and has a place",
    )
    priority: int = Field(0, ge=-100, le=100, description="higher goes first when chats wait")
    attach_within: Seconds = Field(60, description="an event older than this gets no bot any more")


class WebhookRuntime(Table):
    """A bot behind https, http or a unix socket."""

    type: Literal["webhook"]
    url: Annotated[str, AfterValidator(_runtime_url)] = Field(description="https, http, or unix:///path")
    secret: Annotated[tuple[SecretRef, ...], BeforeValidator(_references)] = Field(
        min_length=1, description="signs each hand-off; several while rotated"
    )
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

    listen: Annotated[str, AfterValidator(_listen)] = Field("127.0.0.1:8080", description="host:port")


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
