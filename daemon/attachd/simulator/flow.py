"""What a contact flow is made of, as data: a flow is a tuple of steps. `walk` takes a contact through it.

Nothing that acts may enter. A branch's steps are taken before those which follow the step that branched; a flow that
runs out of steps disconnects the contact. In a scenario file a step is a table whose `step` says which it is.
"""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
STRICT = ConfigDict(extra="forbid")
"""What a file may say is exactly what a record has."""

LONGEST_WAIT_SECONDS = 7 * 86400.0  # AWS: Wait block, at most 7 days


@dataclass(frozen=True, slots=True, config=STRICT)
class Hold:
    """AWS's Wait block with Participant type Default: nothing happens, or not until `seconds` have passed."""

    seconds: Seconds | None = None
    until_bot: bool = False
    """Go on as soon as there is a bot: the loop of short waits and looks which operators build."""
    step: Literal["hold"] = field(default="hold", kw_only=True, repr=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class WaitForBot:
    """AWS's Wait block with Participant type Bot, and its four branches."""

    seconds: Seconds | None = None
    disconnected: tuple["Step", ...] = ()
    not_found: tuple["Step", ...] = ()
    expired: tuple["Step", ...] = ()
    error: tuple["Step", ...] = ()
    step: Literal["wait_for_bot"] = field(default="wait_for_bot", kw_only=True, repr=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class EnterQueue:
    """Transfer to queue: the flow is over; an agent joins after so many seconds, or when a test says so."""

    queue: str = "standard"
    agent_after_seconds: Seconds | None = None
    step: Literal["enter_queue"] = field(default="enter_queue", kw_only=True, repr=False)


@dataclass(frozen=True, slots=True, config=STRICT)
class Disconnect:
    """End the contact."""

    step: Literal["disconnect"] = field(default="disconnect", kw_only=True, repr=False)


Step = Annotated[Hold | WaitForBot | EnterQueue | Disconnect, Field(discriminator="step")]
Flow = tuple[Step, ...]
