"""How long, how often. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. What follows from ``lease`` is ordered so that an owner lets go before another may take.

    Attributes:
        poll: how long ``receive`` waits for a first record.
        lease: a dead owner's shards are another's after at most so long.
        checkpoint: a checkpoint is written at most so often.
        discover: how often the stream is asked for its shards.
        stall: a task that has not come round for so long counts as stuck.
    """

    poll: float = 5.0
    lease: float = 10.0
    checkpoint: float = 1.0
    discover: float = 10.0
    stall: float = 60.0

    @property
    def round(self) -> float:
        """Between two looks at the lease table."""
        return self.lease / 10

    @property
    def renewal(self) -> float:
        """Between two renewals."""
        return self.lease / 5

    @property
    def trust(self) -> float:
        """How long an owner relies on a lease after it began to write it."""
        return self.lease * 0.7

    @property
    def expiry(self) -> float:
        """How long a counter stands still before others take its owner for dead."""
        return self.lease * 0.8
