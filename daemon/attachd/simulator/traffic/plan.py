"""What the customers are like: the `[traffic]` table of a scenario, and what each one draws from it.

Data and dice only. What a customer decides is a function of the seed and the number of their arrival, so that it does not
change with what anybody else does.
"""

import random
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from math import inf, log
from typing import Any, Literal

import msgspec

from attachd.simulator.traffic.arrivals import Arrivals

_LONGEST_LINE = 1024  # AWS: SendMessage, Content, text/plain
_WILDEST_SIGMA = 10  # beyond it times overflow
_INTERACTIVE = "application/vnd.amazonaws.connect.message.interactive"
_NOTHING: Mapping[str, str] = {}


def _require_seconds(name: str, value: float, above: float = -1) -> None:
    if not (value >= 0 and above < value < inf):
        raise ValueError(f"{name} must be {'above 0' if above == 0 else '0 or more'}, not {value}")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every table shares: a key which nobody knows is refused."""


class Uniform(_Table, frozen=True, tag_field="kind", tag="uniform"):
    """Anything from `low` to `high` seconds, alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse what is no range of times."""
        if not 0 <= self.low <= self.high < inf:
            raise ValueError(f"low and high must be 0 or more and in order, not {self.low} and {self.high}")

    def draw(self, dice: random.Random) -> float:
        """Return a number of seconds."""
        return dice.uniform(self.low, self.high)


class Exponential(_Table, frozen=True, tag_field="kind", tag="exponential"):
    """Memoryless, `mean` seconds on average."""

    mean: float

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        _require_seconds("mean", self.mean, above=0)

    def draw(self, dice: random.Random) -> float:
        """Return a number of seconds."""
        return dice.expovariate(1 / self.mean)


class LogNormal(_Table, frozen=True, tag_field="kind", tag="lognormal"):
    """Half of them below `median` seconds, with a long tail; `sigma` is the deviation of the logarithm."""

    median: float
    sigma: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        _require_seconds("median", self.median, above=0)
        if not 0 <= self.sigma <= _WILDEST_SIGMA:
            raise ValueError(f"sigma must be from 0 to {_WILDEST_SIGMA}, not {self.sigma}")

    def draw(self, dice: random.Random) -> float:
        """Return a number of seconds."""
        return dice.lognormvariate(log(self.median), self.sigma)


Span = float | Uniform | Exponential | LogNormal


class Customer(_Table, frozen=True):
    """A kind of customer. Of all kinds, one is drawn by `weight` for each arrival."""

    weight: float = 1.0
    name: str = "Customer"
    """The DisplayName, followed by the arrival's number."""
    subtype: Literal["connect:Chat", "connect:SMS", "connect:Guide"] = "connect:Chat"
    segment_attributes: Mapping[str, str] = _NOTHING
    attributes: Mapping[str, str] = _NOTHING
    tags: Mapping[str, str] = _NOTHING
    """By TagContact, right after StartChatContact takes none."""
    says: tuple[str, ...] = ("When are you open?",)
    """Line by line, each once the bot has spoken, and a while of thinking after it."""
    then: Literal["leave", "wait for an agent"] = "leave"

    def __post_init__(self) -> None:
        """Refuse what nobody could be or say."""
        _require_seconds("weight", self.weight)
        if not all(1 <= len(line) <= _LONGEST_LINE for line in self.says):
            raise ValueError(f"says: a line has 1 to {_LONGEST_LINE} characters")

    def request(self, instance_id: str, number: int) -> dict[str, Any]:
        """Return the StartChatContact by which the customer of this number comes."""
        attributes = {"connect:Subtype": self.subtype, **self.segment_attributes}
        request: dict[str, Any] = {
            "InstanceId": instance_id,
            "ContactFlowId": "simulated",
            "ParticipantDetails": {"DisplayName": f"{self.name} {number + 1}"},
            "Attributes": dict(self.attributes),
            "SegmentAttributes": {name: {"ValueString": value} for name, value in attributes.items()},
        }
        if self.subtype == "connect:Guide":
            kinds = ["text/plain", _INTERACTIVE, f"{_INTERACTIVE}.response"]
            request["SupportedMessagingContentTypes"] = kinds
        return request


class Traffic(_Table, frozen=True):
    """Who comes, when, and with how much patience: the `[traffic]` table. Times are seconds."""

    arrivals: Arrivals
    seconds: float | None = None
    """Nobody comes any more after that."""
    chats: int | None = None
    """Nor after so many."""
    patience: Span = 60.0
    """How long a customer waits for the bot's first word, for each answer, and for an agent, before leaving."""
    connects_after: Span = 0.5
    """How long after StartChatContact the customer connects."""
    never_connects: float = 0.0
    """The share of customers who start a chat and never connect to it."""
    thinks: Span = 2.0
    """How long a customer reads and types before a line, and before leaving."""
    stays_with_agent: Span = 30.0
    """How long a chat with an agent goes on before its customer leaves."""
    spends_quota: bool = False
    """Are the customers' calls metered like anybody's? As in AWS, where they are, StartChatContact and SendMessage of
    customers and of bots share a bucket; by default the quotas are all the tested client's."""
    customers: tuple[Customer, ...] = (Customer(),)
    """The kinds of customers."""

    def __post_init__(self) -> None:
        """Refuse a traffic that could not be played."""
        if self.seconds is not None:
            _require_seconds("seconds", self.seconds)
        if self.chats is not None and self.chats < 0:
            raise ValueError(f"chats must be 0 or more, not {self.chats}")
        for name in ("patience", "connects_after", "thinks", "stays_with_agent"):
            span = getattr(self, name)
            if isinstance(span, float | int):
                _require_seconds(name, span)
        if not 0 <= self.never_connects <= 1:
            raise ValueError(f"never_connects must be from 0 to 1, not {self.never_connects}")
        if not any(kind.weight for kind in self.customers):
            raise ValueError("customers must have one with a weight above 0")

    def instants(self, seed: str) -> Iterator[float]:
        """Yield when each customer comes, in seconds from the start."""
        dice = random.Random(f"{seed} arrivals")
        until = inf if self.seconds is None else self.seconds
        return islice(takewhile(lambda at: at < until, self.arrivals.instants(dice)), self.chats)


class Character(msgspec.Struct, frozen=True):
    """What one customer is like; `connects_after` is None for one who never connects."""

    kind: Customer
    connects_after: float | None
    patience: float
    thinks: tuple[float, ...]
    """Before each line, and before leaving."""
    stays_with_agent: float


def character(traffic: Traffic, seed: str, number: int) -> Character:
    """Draw the customer of this number (from 0)."""
    dice = random.Random(f"{seed} customer {number}")
    (kind,) = dice.choices(traffic.customers, [each.weight for each in traffic.customers])
    comes = dice.random() >= traffic.never_connects
    connects_after = _draw(traffic.connects_after, dice)
    return Character(
        kind=kind,
        connects_after=connects_after if comes else None,
        patience=_draw(traffic.patience, dice),
        thinks=tuple(_draw(traffic.thinks, dice) for _ in range(len(kind.says) + 1)),
        stays_with_agent=_draw(traffic.stays_with_agent, dice),
    )


def read_traffic(table: Mapping[str, Any]) -> Traffic:
    """Read a `[traffic]` table; raises ValueError, with the path of the key that is wrong."""
    try:
        return msgspec.convert(table, Traffic)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise ValueError(f"traffic{path.rstrip('`')}: {problem}") from None


def _draw(span: Span, dice: random.Random) -> float:
    return span if isinstance(span, float | int) else span.draw(dice)
