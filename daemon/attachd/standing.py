"""How a source does: whether it can be polled, whether what it brought can be settled, what it says of itself."""

from typing import Final

from attachd.ports import Source

_NOT_POLLED: Final = "not polled yet"
#: What could not be settled comes again within this time, unless it was settled after all or has become a dead letter.
_COMES_AGAIN_SECONDS: Final = 600.0


class Standing:
    """One source's standing. Times are any clock's, the same for all calls.

    Args:
        source: whose.
        counts: whether its polls say that events reach us; a source of attachd's own making says nothing of that.
    """

    def __init__(self, source: Source, *, counts: bool) -> None:
        self._source = source
        self.counts = counts
        self._poll: str | None = _NOT_POLLED if counts else None
        self._settle: tuple[str, float] | None = None

    @property
    def awaited(self) -> bool:
        """Whether it has not been polled yet."""
        return self._poll == _NOT_POLLED

    @property
    def reached(self) -> bool:
        """Whether the last poll brought an answer."""
        return self._poll is None

    def polled(self, error: str | None) -> None:
        """A poll has ended, with an error or without."""
        if self.counts:
            self._poll = error

    def settled(self, error: str | None, now: float) -> None:
        """A delivery is settled, or could not be."""
        self._settle = None if error is None else (error, now)

    def up(self, now: float) -> bool:
        """Whether it can be polled and settled."""
        return self.reached and self._unsettled(now) is None

    def trouble(self, now: float) -> list[str]:
        """What does not work, a sentence each; a source that cannot be polled says nothing of its parts."""
        said = [self._poll] if self._poll is not None else list(self._source.trouble)
        if (why := self._unsettled(now)) is not None:
            said.append(f"cannot settle: {why}")
        return [f"source {self._source.name}: {sentence}" for sentence in said]

    def _unsettled(self, now: float) -> str | None:
        if self._settle is None or now >= self._settle[1] + _COMES_AGAIN_SECONDS:
            return None
        return self._settle[0]
