"""What an ending means: what the source is told of it, and how loudly the operator is."""

from typing import Final, Literal, assert_never

from attachd.model import Acknowledge, Disposition, Outcome, Quarantine, Release


def dispose(outcome: Outcome, reason: str, after: float | None, *, release_seconds: float) -> Disposition:
    """What to do with a delivery that ended so.

    Args:
        outcome: how it ended.
        reason: kept with a quarantined body.
        after: seconds to stay away, if the ending said so.
        release_seconds: seconds to stay away otherwise, after a failure.
    """
    match outcome:
        case (
            Outcome.ATTACHED
            | Outcome.DUPLICATE
            | Outcome.NO_BOT
            | Outcome.NOTED
            | Outcome.IGNORED
            | Outcome.UNKNOWN_TYPE
            | Outcome.ENDED
            | Outcome.QUEUED
            | Outcome.AGENT_JOINED
            | Outcome.EXPIRED
            | Outcome.REFUSED
            | Outcome.OCCUPIED
            | Outcome.UNSERVED
        ):
            return Acknowledge()
        case Outcome.DEFERRED | Outcome.FAILED:
            return Release(release_seconds if after is None else after)
        case Outcome.INTERRUPTED:
            return Release(0.0)
        case Outcome.NOT_JSON | Outcome.NOT_A_CONTACT_EVENT | Outcome.TOO_LARGE | Outcome.NO_CONTACT_ID:
            return Quarantine(reason)
        case _:
            assert_never(outcome)


_LOUD: Final[dict[Outcome, Literal["warning", "error"]]] = {
    Outcome.EXPIRED: "warning",
    Outcome.REFUSED: "warning",
    Outcome.OCCUPIED: "warning",
    Outcome.UNSERVED: "warning",
    Outcome.DEFERRED: "warning",
    Outcome.NOT_JSON: "warning",
    Outcome.NOT_A_CONTACT_EVENT: "warning",
    Outcome.TOO_LARGE: "warning",
    Outcome.NO_CONTACT_ID: "warning",
    Outcome.FAILED: "error",
}


def severity(outcome: Outcome) -> Literal["info", "warning", "error"]:
    """At which level the delivery's line is logged: what may cost a chat its bot is never below a warning."""
    return _LOUD.get(outcome, "info")
