"""What a contact flow is made of, as data: a flow is a tuple of steps. `walk` takes a contact through it.

Nothing that acts may enter. A branch's steps are taken before those which follow the step that branched; a flow that
runs out of steps disconnects the contact.
"""

from dataclasses import dataclass
from math import inf

LONGEST_WAIT_SECONDS = 7 * 86400.0  # AWS: Wait block, at most 7 days


@dataclass(frozen=True, slots=True)
class Hold:
    """AWS's Wait block with Participant type Default: nothing happens, or not until `seconds` have passed."""

    seconds: float | None = None
    until_bot: bool = False
    """Go on as soon as there is a bot: the loop of short waits and looks which operators build."""


@dataclass(frozen=True, slots=True)
class WaitForBot:
    """AWS's Wait block with Participant type Bot, and its four branches."""

    seconds: float | None = None
    disconnected: tuple["Step", ...] = ()
    not_found: tuple["Step", ...] = ()
    expired: tuple["Step", ...] = ()
    error: tuple["Step", ...] = ()


@dataclass(frozen=True, slots=True)
class EnterQueue:
    """Transfer to queue: the flow is over; an agent joins after so many seconds, or when a test says so."""

    queue: str = "standard"
    agent_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the contact."""


def check(flow: "Flow") -> None:
    """Refuse a flow with a time that is no time, in any branch; raises ValueError."""
    for step in flow:
        match step:
            case Hold(seconds=seconds) | EnterQueue(agent_after_seconds=seconds):
                _check_seconds(seconds)
            case WaitForBot(seconds=seconds):
                _check_seconds(seconds)
                for branch in (step.disconnected, step.not_found, step.expired, step.error):
                    check(branch)
            case Disconnect():
                pass


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds < inf:
        raise ValueError(f"a step of a flow cannot last {seconds} seconds")


Step = Hold | WaitForBot | EnterQueue | Disconnect
Flow = tuple[Step, ...]
