"""What a fault does to a call, so far as the front door sees it: the refusals, and what spoils an answer on its way.

A fault is decided in `state.fates`; the refusals are raised here, the spoiling is done in `reply`.
"""

from attachd.simulator.errors import ApiError
from attachd.simulator.faults import (
    AccessDenied,
    ClockSkew,
    Deed,
    Error,
    ExpiredCredentials,
    Garbled,
    Outage,
    Reset,
    Silence,
    Throttling,
)
from attachd.simulator.front.wire import Operation
from attachd.simulator.instants import compact
from attachd.simulator.state.quotas import throttling_code


class Struck(ApiError):
    """Raised by a fault, not by a rule."""


def at_the_door(deed: Deed | None, operation: Operation, at: float) -> None:
    """Raise what AWS's front door says instead of letting the call in."""
    match deed:
        case None:  # first, as nearly always
            return
        case Throttling():
            raise Struck(throttling_code(operation.name), "Rate exceeded")
        case ExpiredCredentials():
            raise Struck("ExpiredTokenException", "The security token included in the request is expired")
        case AccessDenied():
            raise Struck(
                "AccessDeniedException", f"User is not authorized to perform: connect:{operation.name}"
            )
        case ClockSkew(seconds=ahead):
            raise Struck(
                "InvalidSignatureException",
                f"Signature expired or not yet current: it is {compact(at + ahead)} (+/- 5 min.)",
            )
        case Outage(how="unavailable"):
            raise Struck("ServiceUnavailableException", "Service is unable to handle request.")
        case Outage() | Silence(when="before") | Reset(when="before"):
            raise Struck("", "nobody is told")
        case _:
            pass


def failure(deed: Deed | None, operation: Operation, when: str) -> Struck | None:
    """Return the service's own failure, if the fault has it fail at this moment, `before` or `after` the effect."""
    if isinstance(deed, Error) and deed.when == when:
        return Struck(operation.internal_error, "The service failed")
    return None


def spoiling(deed: Deed | None) -> Silence | Reset | Garbled | None:
    """Return what spoils the answer on its way, whatever it says."""
    match deed:
        case None:
            return None
        case Silence() | Reset() | Garbled():
            return deed
        case Outage(how="reset"):
            return Reset()
        case _:
            return None
