"""So many at once: hand-offs under way, chats that a bot has open. Gates that only count; the time is an argument."""

from dataclasses import dataclass
from math import inf
from typing import Final

_TOLD_SECONDS: Final = 60.0
#: A chat ends by itself at last: ChatDurationInMinutes is at most seven days, 25 hours by default (StartChatContact).
CHAT_SECONDS: Final = 25 * 3600.0


@dataclass(slots=True)
class Places:
    """So many at once."""

    most: float = inf
    taken: int = 0

    def wait(self, _now: float) -> float:
        """See ``waiting.Gate``."""
        return 0.0 if self.taken < self.most else inf

    def enter(self) -> None:
        """See ``waiting.Gate``."""
        self.taken += 1

    def leave(self) -> None:
        """See ``waiting.Gate``."""
        self.taken -= 1


class OpenChats:
    """How many chats a bot has open: those on their way in, and those handed over and not known to have ended.

    Args:
        most: the bot's ``max_chats``.
        expire_seconds: a chat whose end was never told counts no longer than this.
    """

    def __init__(self, most: float = inf, *, expire_seconds: float = CHAT_SECONDS) -> None:
        self.most = most
        self._expire_seconds = expire_seconds
        self._coming = 0
        self._open: dict[str, float] = {}  # contact → when it expires, in order
        self._turn: list[str] = []
        self._unknown = 0  # of which the runtime told and we know nothing: taken for true for a minute
        self._unknown_until = 0.0

    def __len__(self) -> int:
        return self._coming + len(self._open) + self._unknown

    def wait(self, now: float) -> float:
        """See ``waiting.Gate``."""
        if len(self) < self.most:
            return 0.0
        while self._open and next(iter(self._open.values())) <= now:
            del self._open[next(iter(self._open))]
        if now >= self._unknown_until:
            self._unknown = 0
        if len(self) < self.most:
            return 0.0
        until = next(iter(self._open.values()), inf)
        return max(0.0, (min(until, self._unknown_until) if self._unknown else until) - now)

    def enter(self) -> None:
        """See ``waiting.Gate``."""
        self._coming += 1

    def leave(self) -> None:
        """See ``waiting.Gate``."""
        self._coming -= 1

    def to_look_up(self, count: int) -> list[str]:
        """So many of the chats, each in its turn."""
        if not self._turn:
            self._turn = list(self._open)
        some, self._turn = self._turn[:count], self._turn[count:]
        return [contact_id for contact_id in some if contact_id in self._open]

    def opened(self, contact_id: str, now: float) -> None:
        """The bot has this chat."""
        self._open[contact_id] = now + self._expire_seconds

    def ended(self, contact_id: str) -> bool:
        """This chat is over; whether the bot had it."""
        return self._open.pop(contact_id, None) is not None

    def told(self, count: int, now: float) -> None:
        """The runtime's own word: so many chats it has. What we thought of beside that has ended, the oldest first.

        What it has beside ours counts for a minute: no end event will tell us of those.
        """
        while len(self._open) > count:
            del self._open[next(iter(self._open))]
        self._unknown, self._unknown_until = count - len(self._open), now + _TOLD_SECONDS
