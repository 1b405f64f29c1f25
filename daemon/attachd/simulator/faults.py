"""Faults as data: which calls each of them strikes, and what it does to those. `fates` decides, `front` enacts.

Nothing that acts may enter. In a scenario file a fault is a table whose `kind` says which it is.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from attachd.simulator.flow import STRICT, Seconds

_MOST_SKEW = 300 * 86400.0  # less than a year, so that no date leaves those which can be written
When = Literal["before", "after"]
"""Whether the call takes effect: not if the fault comes before the effect."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Fault:
    """Whom a fault strikes: the calls which fit all that is said here; left out, all of them."""

    kind: str = ""
    name: str = ""
    """How the truth calls it; left out, its kind and its number in the list: `latency-1`."""
    operations: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    """Ids of instances."""
    regions: tuple[str, ...] = ()
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    from_seconds: Seconds = 0.0
    """Since the list of faults was set: the simulator's start, for those of a scenario file."""
    until_seconds: Seconds | None = None
    tries: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Only these of one contact's calls of one operation, counted from 1 since the list was set: `[1]`, and a retry passes."""

    def __post_init__(self) -> None:
        """Refuse a window in which nothing could happen."""
        if self.until_seconds is not None and self.until_seconds <= self.from_seconds:
            raise ValueError("until_seconds must be later than from_seconds")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Latency(Fault):
    """The answer comes late: fixed, uniform up to another time, or lognormal round its median."""

    kind: Literal["latency"] = "latency"
    milliseconds: Seconds
    up_to_milliseconds: Seconds | None = None
    sigma: Annotated[float, Field(gt=0, le=10)] | None = None
    """Of the logarithm: 0.5 is a mild tail, 1.5 a wild one."""

    def __post_init__(self) -> None:
        """Refuse two shapes at once, and a range from more to less."""
        Fault.__post_init__(self)
        if self.up_to_milliseconds is not None and self.sigma is not None:
            raise ValueError("up_to_milliseconds and sigma exclude each other")
        if self.up_to_milliseconds is not None and self.up_to_milliseconds < self.milliseconds:
            raise ValueError("up_to_milliseconds must not be less than milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Error(Fault):
    """500, before the effect or, ambiguously, after it."""

    kind: Literal["error"] = "error"
    when: When = "before"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Silence(Fault):
    """No answer: the connection stays open until the client goes away, or so many seconds, and is then closed."""

    kind: Literal["silence"] = "silence"
    when: When = "before"
    seconds: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Reset(Fault):
    """The connection is reset (TCP RST) instead of an answer."""

    kind: Literal["reset"] = "reset"
    when: When = "before"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Garbled(Fault):
    """The answer breaks off in the middle of its body, or arrives whole and is no JSON."""

    kind: Literal["garbled"] = "garbled"
    how: Literal["truncated", "malformed"] = "truncated"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Throttling(Fault):
    """429 whatever the quota; with a rate, a quota of so many calls a second, over the usual one.

    Each operation has its own in each instance.
    """

    kind: Literal["throttling"] = "throttling"
    rate: Annotated[float, Field(ge=0)] | None = None
    burst: Annotated[float, Field(ge=1)] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ExpiredCredentials(Fault):
    """403 ExpiredTokenException to one access key, until the client comes with another."""

    kind: Literal["expired_credentials"] = "expired_credentials"
    access_key: str = ""
    """Left out: the first which it meets."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AccessDenied(Fault):
    """403 AccessDeniedException, modelled or not: IAM said no."""

    kind: Literal["access_denied"] = "access_denied"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Outage(Fault):
    """A Region is not there: 503, or every connection reset."""

    kind: Literal["outage"] = "outage"
    how: Literal["unavailable", "reset"] = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ClockSkew(Fault):
    """AWS's clock and the client's differ: its Date is off, and what was signed five minutes off it is refused, 403."""

    kind: Literal["clock_skew"] = "clock_skew"
    seconds: Annotated[float, Field(ge=-_MOST_SKEW, le=_MOST_SKEW, allow_inf_nan=False)]
    """How far AWS's clock is ahead of the simulator's; negative if it is behind."""


Deed = Error | Silence | Reset | Garbled | Throttling | ExpiredCredentials | AccessDenied | Outage | ClockSkew
"""What ends a call otherwise than it would have ended: one at most strikes each."""

AnyFault = Annotated[Latency | Deed, Field(discriminator="kind")]


def named(faults: Sequence[AnyFault]) -> tuple[tuple[str, AnyFault], ...]:
    """Return the faults with the names by which the truth tells them; raises ValueError if two have one."""
    pairs = tuple((fault.name or f"{fault.kind}-{number}", fault) for number, fault in enumerate(faults, 1))
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two faults have one name: {', '.join(twice)}")
    return pairs


def _distinct(faults: tuple[AnyFault, ...]) -> tuple[AnyFault, ...]:
    named(faults)
    return faults


Faults = Annotated[tuple[AnyFault, ...], AfterValidator(_distinct)]
