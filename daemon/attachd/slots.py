"""Slots for deliveries in hand: taken before receiving, so that nothing is fetched that cannot be held."""

import anyio


class Slots:
    """So many.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._closed = False
        self._changed = anyio.Event()

    async def take(self, most: int) -> int:
        """Wait for one; as many as are free, up to ``most``. None at all once closed."""
        await anyio.lowlevel.checkpoint()  # polls are shielded: this is where a cancelled pull ends
        while self._free == 0 and not self._closed:
            await self._changed.wait()
        if self._closed:
            return 0
        taken = min(most, self._free)
        self._free -= taken
        return taken

    def give(self, count: int) -> None:
        """Give so many back."""
        self._free += count
        self._wake()

    def close(self) -> None:
        """None for anybody any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
