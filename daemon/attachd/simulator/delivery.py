"""Where contact events go, and what befalls them on the way, as data. Whatever acts is `mishaps`' and `outlets`'.

In a scenario file a target is `KIND:NAME`, or a table whose `kind` says which it is.
"""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from attachd.simulator.flow import STRICT, Seconds


@dataclass(frozen=True, slots=True, config=STRICT)
class EventBus:
    """Publish contact events by PutEvents to the EventBridge bus of this name or ARN."""

    name: str
    kind: Literal["eventbridge"] = field(default="eventbridge", kw_only=True, repr=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class KinesisStream:
    """Publish contact events straight to the Kinesis stream of this name or ARN, as a rule of EventBridge would."""

    name: str
    partition_key: Literal["event id", "contact id"] = "event id"
    """`event id`, which is EventBridge's default, or `contact id`, as its PartitionKeyPath can have it."""
    kind: Literal["kinesis"] = field(default="kinesis", kw_only=True, repr=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class Queue:
    """Publish contact events straight to this SQS queue, the whole envelope as body, as EventBridge would."""

    url: str
    kind: Literal["sqs"] = field(default="sqs", kw_only=True, repr=False)


def parse_target(text: str) -> EventBus | KinesisStream | Queue:
    """Read `eventbridge:NAME`, `kinesis:STREAM` or `sqs:URL`; raise ValueError for anything else."""
    kind, _, value = text.partition(":")
    if value and kind == "eventbridge":
        return EventBus(value)
    if value and kind == "kinesis":
        return KinesisStream(value)
    if value and kind == "sqs":
        return Queue(value)
    raise ValueError(f"expected eventbridge:NAME, kinesis:STREAM or sqs:URL, got {text!r}")


def _written_out(value: Any) -> Any:
    return parse_target(value) if isinstance(value, str) else value


Target = Annotated[
    EventBus | KinesisStream | Queue, Field(discriminator="kind"), BeforeValidator(_written_out)
]


def _in_order(seconds: tuple[float, float]) -> tuple[float, float]:
    if seconds[0] > seconds[1]:
        raise ValueError("must be the least and the most seconds, in this order")
    return seconds


Fraction = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[Seconds, Seconds], AfterValidator(_in_order)]
"""The least and the most seconds; what is drawn is evenly distributed between them."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Delivery:
    """What befalls contact events on their way to a target; raises ValueError for what is no fraction or no time.

    AWS says that delivery is best effort and events are not ordered; how often what happens is published nowhere, so
    by default nothing does.
    """

    lost: Fraction = 0.0
    """Which fraction of events never arrives?"""

    duplicated: Fraction = 0.0
    """Which fraction arrives twice?"""

    duplicate_seconds: Range = (0.0, 5.0)
    """How long after it would have come does the second copy come?"""

    disordered: Fraction = 0.0
    """Which fraction is held up a little, so that what comes after may overtake it?"""

    disorder_seconds: Range = (0.0, 2.0)
    """How long is it held up?"""

    late: Fraction = 0.0
    """Which fraction is late, beyond disorder? EventBridge tries for up to 24 hours."""

    late_seconds: Range = (10.0, 300.0)
    """How late is it?"""

    @property
    def perfect(self) -> bool:
        """Tell whether nothing befalls any event."""
        return not (self.lost or self.duplicated or self.disordered or self.late)
