"""Which faults strike a call. Decided before it is carried out, and never by what else goes on at the time.

Whether a fault strikes is a pure function of the seed, the fault, the operation, the contact and how many such calls
there were before; two kinds remember more, as what they play does: a reduced quota its calls, an expired access key
which one it is. Enacting is the front's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp
from statistics import NormalDist

from attachd.simulator.faults import (
    AnyFault,
    ClockSkew,
    Deed,
    ExpiredCredentials,
    Fault,
    Latency,
    Throttling,
    named,
)
from attachd.simulator.state.bucket import Bucket
from attachd.simulator.state.dice import chances

_SIGNATURE_SECONDS = 300.0  # AWS: Signature Version 4, "within five minutes of the request's time stamp"
_NORMAL = NormalDist()
_LEAST_CHANCE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """A call as far as a fault looks at it."""

    operation: str
    about: str
    """The contact, or what the call has in common with its own retries."""
    instance_id: str
    region: str
    at: float
    access_key: str = ""
    signed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What will be done to a call."""

    marks: tuple[str, ...] = ()
    """The names of what delays its answer or shifts its date, however it is answered."""
    delay_seconds: float = 0.0
    skew_seconds: float = 0.0
    deed: Deed | None = None
    name: str = ""
    """The deed's."""


SPARED = Fate()


class Fates:
    """The faults in force since one moment, and what was counted since."""

    def __init__(self, faults: Iterable[AnyFault], seed: int, since: float) -> None:
        """Raise ValueError if two faults have one name."""
        self.faults = tuple(faults)
        self._named = named(self.faults)
        self._seed = seed
        self._since = since
        self._calls: dict[tuple[str, str], int] = {}
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self._expired: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """The faults by name, as the truth tells them."""
        return [name for name, _ in self._named]

    def of(self, call: Occasion) -> Fate:
        """Decide what will be done to a call; the first deed which strikes is done, delays add up."""
        key = (call.operation, call.about)
        number = self._calls[key] = self._calls.get(key, 0) + 1
        marks: list[str] = []
        delay = skew = 0.0
        deed, deed_name = None, ""
        for name, fault in self._named:
            chance, other = chances(self._seed, name, call.operation, call.about, number)
            if chance >= fault.probability or not self._selects(fault, call, number):
                continue
            if isinstance(fault, Latency):
                delay += _milliseconds(fault, other) / 1000
                marks.append(name)
                continue
            if isinstance(fault, ClockSkew):
                skew += fault.seconds
            if deed is None and self._strikes(name, fault, call):
                deed, deed_name = fault, name
            elif isinstance(fault, ClockSkew):
                marks.append(name)
        return Fate(tuple(marks), delay, skew, deed, deed_name)

    def _selects(self, fault: Fault, call: Occasion, number: int) -> bool:
        since = call.at - self._since
        return (
            fault.from_seconds <= since
            and (fault.until_seconds is None or since < fault.until_seconds)
            and (not fault.operations or call.operation in fault.operations)
            and (not fault.instances or call.instance_id in fault.instances)
            and (not fault.regions or call.region in fault.regions)
            and (not fault.tries or number in fault.tries)
        )

    def _strikes(self, name: str, fault: Deed, call: Occasion) -> bool:
        """Tell whether a fault that selects the call does anything to it."""
        match fault:
            case Throttling(rate=float(rate), burst=burst):
                key = (name, call.operation, call.instance_id)
                return not self._buckets.setdefault(key, Bucket(rate, burst)).take(call.at)
            case ExpiredCredentials(access_key=expired):
                if not call.access_key:  # unsigned, as the Participant Service may be called
                    return False
                return call.access_key == (expired or self._expired.setdefault(name, call.access_key))
            case ClockSkew(seconds=ahead):
                signed_at = call.signed_at
                return signed_at is not None and abs(signed_at - call.at - ahead) > _SIGNATURE_SECONDS
            case _:
                return True


def _milliseconds(fault: Latency, chance: float) -> float:
    if fault.sigma is not None:
        return fault.milliseconds * exp(fault.sigma * _NORMAL.inv_cdf(max(chance, _LEAST_CHANCE)))
    if fault.up_to_milliseconds is not None:
        return fault.milliseconds + chance * (fault.up_to_milliseconds - fault.milliseconds)
    return fault.milliseconds
