"""Where contact events come from: a table for each kind of source."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from attachd.settings.fields import InstanceArn, Name, QueueUrl, Seconds, Table
from attachd.streams import Edge

DEFAULT_SOURCE: Final = "sqs"  # a [source] that does not say
APPLICATION: Final = "attachd-kinesis"


def label(table: Mapping[str, Any]) -> str:
    """What a source is called in logs and metrics: its name, or the last part of its queue's URL or stream's ARN."""
    address = table.get("queue_url") or table.get("stream") or table.get("type") or ""
    return str(table.get("name") or str(address).rpartition("/")[2])


class _Source(Table):
    name: Name | None = Field(
        None, description="what logs and metrics call it; default: the queue's or stream's own name"
    )

    @property
    def label(self) -> str:
        """What logs and metrics call it."""
        return label(dict(self))


class SqsSource(_Source):
    """Contact events from an SQS queue that an EventBridge rule feeds."""

    type: Literal["sqs"] = "sqs"
    queue_url: QueueUrl = Field(description="the queue; it is never created")
    quarantine_url: QueueUrl | None = Field(None, description="where bodies go that can never succeed")
    polls: int = Field(2, ge=1, le=50, description="how many polls wait for messages at once")
    poll: Annotated[Seconds, Field(ge=1, le=20)] = Field(5, description="how long a poll waits")
    visibility: Annotated[Seconds, Field(ge=10, le=43_200)] = Field(
        30, description="how long an event stays ours after we die"
    )


def _start(value: object) -> object:
    """An edge of the stream, or a moment: a TOML date, ISO 8601 text, or either in ``{ timestamp = … }``."""
    if isinstance(value, Mapping) and set(value) == {"timestamp"}:
        value = value["timestamp"]
    if isinstance(value, str) and value not in set(Edge):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, str | float | int) and not isinstance(value, bool):
        return value
    raise ValueError(
        "write 'TRIM_HORIZON', 'LATEST', or a moment with its zone: { timestamp = 2026-01-31T08:00:00Z }"
    )


class KinesisSource(_Source):
    """Contact events from a Kinesis data stream that an EventBridge rule feeds."""

    type: Literal["kinesis"]
    stream: Annotated[
        str, Field(pattern=r"^(arn:[a-z-]+:kinesis:[a-z0-9-]+:[0-9]{12}:stream/)?[a-zA-Z0-9_.-]{1,128}$")
    ] = Field(description="its name or ARN; it is never created")
    start: Annotated[Literal["TRIM_HORIZON", "LATEST"] | float, BeforeValidator(_start)] = Field(
        "TRIM_HORIZON", description="where to begin in a stream never read before; or a moment"
    )
    application: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{3,128}$")] = Field(
        APPLICATION,
        description="the name that the leases are under; the DynamoDB table's, and the fan-out consumer's",
    )
    leases: Literal["sqlite", "dynamodb"] = Field(
        "sqlite", description="who reads which shard: a file, for one process, or a KCL lease table, for many"
    )
    leases_path: Path | None = Field(
        None, description="the file; default: <application>.leases.sqlite in $STATE_DIRECTORY, or here"
    )
    fan_out: bool = Field(
        default=False, description="SubscribeToShard as a consumer of its own, which costs extra"
    )
    quarantine_url: QueueUrl | None = Field(None, description="SQS queue for bodies that can never succeed")
    poll: Annotated[Seconds, Field(ge=1, le=20)] = Field(5, description="how long a poll waits")
    pace: Annotated[Seconds, Field(ge=0.2, le=10)] = Field(
        1, description="between two reads of a shard, which allows 5 a second to all its readers"
    )
    lease: Annotated[Seconds, Field(ge=5, le=300)] = Field(
        10, description="a dead process's shards are another's after at most so long"
    )

    def file(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The file of leases to use."""
        name = f"{self.application}.leases.sqlite"
        return self.leases_path or Path(environ.get("STATE_DIRECTORY", ".").split(":")[0]) / name


class SweepSource(_Source):
    """Open chats that no event told of, looked for with SearchContacts. Beside another source, as one of [[sources]]."""

    type: Literal["sweep"]
    instance: InstanceArn = Field(description="arn:aws:connect:REGION:ACCOUNT:instance/ID")
    rate: float = Field(
        0.5, gt=0, le=10, description="searches a second, at most; AWS's default quota is 0.5"
    )
    every: Annotated[Seconds, Field(ge=1)] = Field(60, description="from one sweep to the next")
    min_age: Seconds = Field(30, description="a younger chat's event may still be on its way")
    max_age: Annotated[Seconds, Field(le=90_000)] = Field(900, description="an older chat is left alone")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min_age >= self.max_age:
            raise ValueError("min_age must be less than max_age")
        return self


#: Every kind of source, for their keys.
SOURCES: Final = (SqsSource, KinesisSource, SweepSource)


def _source_type(value: object) -> object:
    if isinstance(value, Mapping):
        return value.get("type", DEFAULT_SOURCE)
    return getattr(value, "type", None)


Source = Annotated[
    Annotated[SqsSource, Tag("sqs")]
    | Annotated[KinesisSource, Tag("kinesis")]
    | Annotated[SweepSource, Tag("sweep")],
    Discriminator(_source_type),
]
