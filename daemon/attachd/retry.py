"""The one retry. Whoever wants another try says ``Transient``; when it comes is decided here.

Arithmetic first (``Backoff.delay``: pure, the dice are an argument), then a thin wait around it.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from attachd.errors import Transient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, with full jitter: uniform between 0 and ``first * 2 ** (tries - 1)``, at most ``cap``."""

    first: float = 0.2
    cap: float = 5.0

    def delay(self, tries: int, after: float | None, dice: random.Random) -> float:
        """Seconds to wait after so many failed tries. What the peer asked for is a lower bound."""
        jittered = dice.uniform(0.0, min(self.cap, self.first * 2 ** min(tries - 1, 30)))
        return max(jittered, after or 0.0)


async def retrying(
    call: Callable[[], Awaitable[T]], *, backoff: Backoff, until: float, dice: random.Random
) -> T:
    """Call until it returns, or raises anything but ``Transient``, or the next try would start past ``until``.

    Args:
        call: one try.
        backoff: how long to wait between tries.
        until: a deadline on the event loop's clock (``anyio.current_time``). It bounds the starts of tries, not
            a try itself: each call bounds its own time.
        dice: jitter.

    Raises:
        Transient: the last one, when time was up.
    """
    tries = 0
    while True:
        try:
            return await call()
        except Transient as error:
            tries += 1
            delay = backoff.delay(tries, error.after, dice)
            if anyio.current_time() + delay >= until:
                raise
            await anyio.sleep(delay)
