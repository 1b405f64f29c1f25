"""What befalls each contact event on its way: lost, doubled, delayed. Pure, and the only place which decides it.

It depends on the seed, the contact and the event's ordinal within it and on nothing else, so that however contacts
interleave, the same seed deals the same mishaps. How AWS deals them is published nowhere, beyond "best effort".
"""

from attachd.simulator.delivery import Delivery, Range
from attachd.simulator.state.dice import chances

_MOST_ATTEMPTS = 185  # AWS: EventBridge, retry policy: 185 times and 24 hours, with backoff and jitter
_LONGEST_BACKOFF_SECONDS = 300.0  # assumed, and without the jitter, which would only blur a test


def delays_of(delivery: Delivery, seed: int, contact_id: str, ordinal: int) -> tuple[float, ...]:
    """Return the delay in seconds of each copy that arrives: none if the event is lost, two if it is doubled.

    Each dial has chances of its own, so that turning one leaves alone what the others decide.
    """
    if delivery.perfect:
        return (0.0,)
    event = (seed, "event", contact_id, ordinal)
    lost, doubled = chances(*event)
    if lost < delivery.lost:
        return ()
    first = _held(delivery, *event, "first")
    if doubled >= delivery.duplicated:
        return (first,)
    later, _ = chances(*event, "again")
    return first, _held(delivery, *event, "again") + _within(delivery.duplicate_seconds, later)


def _held(delivery: Delivery, *copy: object) -> float:
    seconds = 0.0
    for name, fraction, how_long in (
        ("disordered", delivery.disordered, delivery.disorder_seconds),
        ("late", delivery.late, delivery.late_seconds),
    ):
        happens, part = chances(*copy, name)
        if happens < fraction:
            seconds += _within(how_long, part)
    return seconds


def _within(seconds: Range, part: float) -> float:
    least, most = seconds
    return least + part * (most - least)


def retry_after(attempts: int) -> float | None:
    """Return the seconds until the next attempt after so many that failed; None if that was the last."""
    if attempts >= _MOST_ATTEMPTS:
        return None
    return min(_LONGEST_BACKOFF_SECONDS, 0.5 * 2.0 ** min(attempts, 10))
