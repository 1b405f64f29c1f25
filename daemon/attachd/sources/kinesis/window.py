"""How far a shard is finished: the contiguous finished prefix of what has been read. Pure."""

from collections import deque

from attachd.streams import Position


class Window:
    """Positions read and not yet below the checkpoint, in order, and which of them are finished."""

    def __init__(self) -> None:
        self._open: deque[Position] = deque()
        self._finished: set[Position] = set()
        self.prefix: Position | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def first(self) -> Position | None:
        """The first that is unfinished."""
        return self._open[0] if self._open else None

    def add(self, position: Position) -> None:
        """It has been read.

        Raises:
            ValueError: it does not come after everything read before.
        """
        last = self._open[-1] if self._open else self.prefix
        if last is not None and position <= last:
            raise ValueError(f"{position} does not come after {last}")
        self._open.append(position)

    def finish(self, position: Position) -> bool:
        """It is done with; says whether the prefix has grown. Once is enough: again changes nothing."""
        if self.prefix is not None and position <= self.prefix:
            return False
        self._finished.add(position)
        before = self.prefix
        while self._open and self._open[0] in self._finished:
            self.prefix = self._open.popleft()
            self._finished.remove(self.prefix)
        return self.prefix is not before
