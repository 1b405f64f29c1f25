"""The sweep: open chats that nobody told us of. Events are best effort; what was lost is looked for here, slowly.

Every so often all chats of one instance that began lately are listed (SearchContacts), at a rate of their own. One that is
open, waits for nobody and has no entry in the journal becomes a delivery: the event that should have come. Whether it
gets a bot is the line's business, as ever; so is a chat whose event comes after all, which is then a duplicate.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import structlog

from attachd.errors import Transient
from attachd.model import Contact, Delivery, Disposition
from attachd.ports import Journal
from attachd.progress import Progress
from attachd.quota import Quota, Rate
from attachd.retry import Backoff, retrying
from attachd.sources.found import Found, opening

_BACKOFF: Final = Backoff(first=4.0, cap=60.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What one search brought: the open chats of those that were looked at, and where to go on."""

    open_chats: tuple[Contact, ...]
    looked_at: int
    next: str | None = None


class Search(Protocol):
    """Amazon Connect's SearchContacts, for one instance."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect."""
        ...

    async def page(self, since: float, until: float, token: str | None) -> Page:
        """The chats that began between two moments, a page of them.

        Raises:
            Transient: Connect does not answer, or refuses.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """When to look, and at what.

    Attributes:
        rate: searches a second, at most.
        every_seconds: from the beginning of one sweep to that of the next.
        min_age_seconds: a younger chat's event may still be on its way.
        max_age_seconds: an older chat is left alone.
        poll_seconds: how long ``receive`` waits for a first chat.
        stall_seconds: a sweep that has not brought a page for so long is stuck.
    """

    rate: float = 0.5
    every_seconds: float = 60.0
    min_age_seconds: float = 30.0
    max_age_seconds: float = 900.0
    poll_seconds: float = 5.0
    stall_seconds: float = 60.0


class SweepSource:
    """The open chats of one instance that have no entry in the journal.

    Args:
        name: what logs and metrics call it.
        search: SearchContacts.
        journal: what is known of contacts.
        pace: see there.
        progress: where the sweep reports.
        now: the wall clock.
        dice: jitter.
    """

    polls = 1
    trouble = ()

    def __init__(
        self,
        name: str,
        search: Search,
        journal: Journal,
        pace: Pace,
        *,
        progress: Progress,
        now: Callable[[], float],
        dice: random.Random,
    ) -> None:
        self.name = name
        self._task = f"sweep {name}"
        self._search = search
        self._journal = journal
        self._pace = pace
        self._progress = progress
        self._now = now
        self._dice = dice
        self._quota = Quota(Rate(pace.rate, 1))
        self._known: dict[str, float] = {}
        self._found = Found(self.name)
        self._trouble: Transient | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._search.open())
            sweeping = await stack.enter_async_context(anyio.create_task_group())
            sweeping.start_soon(self._sweep_forever)
            yield
            sweeping.cancel_scope.cancel()
        self._found.clear()
        self._known.clear()  # what was in hand is found again

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        due = await self._found.due(limit, self._pace.poll_seconds)
        if not due and self._trouble is not None:
            raise self._trouble
        return due

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``. Acknowledged, a chat is not told of again."""
        self._found.settle(delivery, disposition)

    def drain(self) -> None:
        """See ``ports.Source``. Nobody else waits for what was found."""

    # ── the sweep ──────────────────────────────────────────────────────────────────────────────

    async def _sweep_forever(self) -> None:
        within = self._pace.every_seconds + self._pace.stall_seconds
        report = self._progress.reporter(self._task, within)
        try:
            while True:
                begun = anyio.current_time()
                report()
                try:
                    await self._sweep(report)
                    self._trouble = None
                except Transient as error:
                    self._trouble = error
                    log.warning(
                        "sweep.broken_off",
                        source=self.name,
                        reason=str(error),
                        next="again at the next sweep",
                    )
                await anyio.sleep_until(begun + self._pace.every_seconds)
        finally:
            self._progress.done(self._task)

    async def _sweep(self, report: Callable[[], None]) -> None:
        """Look at every chat of the window once; say what was found."""
        now = self._now()
        since, until = now - self._pace.max_age_seconds, now - self._pace.min_age_seconds
        self._known = {contact: began for contact, began in self._known.items() if began >= since}
        looked_at = found = 0
        token: str | None = None
        while True:
            page = await self._page(since, until, token)
            report()
            looked_at += page.looked_at
            for contact in page.open_chats:
                found += await self._look_at(contact)
            await self._handed_out()
            report()
            if (token := page.next) is None or not page.looked_at:
                break
        tell = log.warning if found else log.debug
        tell("sweep.done", source=self.name, looked_at=looked_at, found=found)

    async def _handed_out(self) -> None:
        """Look for no more before the line has taken what was found; what keeps the line is not the sweep's standing still."""
        if self._found:
            self._progress.done(self._task)
            await self._found.all_taken()

    async def _page(self, since: float, until: float, token: str | None) -> Page:
        async def once() -> Page:
            await anyio.sleep(self._quota.wait(anyio.current_time()))
            sent_at = anyio.current_time()
            self._quota.take(sent_at)
            try:
                return await self._search.page(since, until, token)
            except Transient as error:
                if error.reason == "throttled":
                    self._quota.throttled(sent_at, anyio.current_time())
                raise

        give_up = anyio.current_time() + self._pace.every_seconds
        return await retrying(once, backoff=_BACKOFF, until=give_up, dice=self._dice)

    async def _look_at(self, contact: Contact) -> bool:
        """Hand the chat out if nobody knows it; whether it was."""
        if contact.id in self._known:
            return False
        entry = await self._journal.get(contact.id)
        self._known[contact.id] = contact.initiated_at or self._now()
        if entry is not None:
            return False
        now = self._now()
        log.warning(
            "sweep.found",
            source=self.name,
            contact=contact.id,
            age_seconds=round(now - (contact.initiated_at or now), 1),
            next="its event was lost, or is late; it goes down the line as if it had come now",
        )
        self._found.add(Delivery(self.name, contact.id, opening(contact, now, "sweep"), now))
        return True
