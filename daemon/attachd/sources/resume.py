"""The resumption: chats that a dead process left unfinished, taken up from the journal itself, at the start and when recalled.

The source of their events hands them out again, too, but only when their time there is over (SQS's visibility, a Kinesis
lease), and a participant that was asked for lapses in 15 s. So what the journal says is unfinished, in the hand of a process
that has died, is looked up (DescribeContact) and, where the contact still wants a bot, goes down the line as its event did.
The line decides, as ever: the same participant inside its window, another one after, nothing beyond the rule's patience.
The event that comes back afterwards is a duplicate.

Left alone: what a process at work has in hand; and what was let go in good order, whose event the source has been told to
bring again. ``attachd contacts retry`` recalls a contact whatever became of it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import structlog

from attachd.errors import Permanent, Transient
from attachd.instances import Instances
from attachd.lifecycle import UNFINISHED, Entry, Wanted
from attachd.model import Contact, ContactState, Delivery, Disposition
from attachd.ports import Journal
from attachd.progress import Progress
from attachd.sources.found import Found, opening

_LOOK_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """How long, and how often.

    Attributes:
        oldest: what has not changed for so long is left alone at the start.
        persist: an owner that may be dying, or a look-up that fails, is asked for again for so long.
        again: between two such rounds.
        recalled: between two looks at what was recalled. Half a DynamoDB read unit each.
        poll: how long ``receive`` waits for a first contact.
        stall: a task silent for so long beyond that is stuck.
    """

    oldest: float = 3600.0
    persist: float = 30.0
    again: float = 1.0
    recalled: float = 5.0
    poll: float = 5.0
    stall: float = 60.0


class ResumeSource:
    """The unfinished contacts of dead processes.

    Args:
        journal: what is known of contacts.
        instances: where they are looked up.
        owner: this process.
        alive: whether another may still be at work.
        queued_too: a chat that is queued for an agent may still have a bot.
        progress: where it reports.
        now: the wall clock.
        times: see there.
    """

    name = "resume"
    polls = 1
    trouble = ()

    def __init__(
        self,
        journal: Journal,
        instances: Instances,
        *,
        owner: str,
        alive: Callable[[str], Awaitable[bool]],
        queued_too: bool,
        progress: Progress,
        now: Callable[[], float],
        times: Times = Times(),
    ) -> None:
        self._journal = journal
        self._instances = instances
        self._owner = owner
        self._alive = alive
        self._queued_too = queued_too
        self._progress = progress
        self._now = now
        self._times = times
        self._found = Found(self.name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work)
            yield
            tasks.cancel_scope.cancel()
        self._found.clear()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        return await self._found.due(limit, self._times.poll)

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``."""
        self._found.settle(delivery, disposition)

    def drain(self) -> None:
        """See ``ports.Source``. Nobody else waits for what was found."""

    async def _work(self) -> None:
        report = self._progress.reporter(self.name, self._times.persist + self._times.stall)
        try:
            await self._resume(report)
            while True:
                report()
                await self._take_recalled()
                await anyio.sleep(self._times.recalled)
        finally:
            self._progress.done(self.name)

    async def _resume(self, report: Callable[[], None]) -> None:
        """Look through the journal, once."""
        until = anyio.current_time() + self._times.persist
        left, found, over = await self._unfinished(until), 0, 0
        while left:
            report()
            put_off: list[Entry] = []
            for entry in left:
                try:
                    if entry.owner is not None and await self._alive(entry.owner):
                        put_off.append(entry)
                    elif await self._look_at(entry, entry.since):
                        found += 1
                    else:
                        over += 1
                except Transient as error:
                    log.info("resume.put_off", contact=entry.contact_id, reason=str(error))
                    put_off.append(entry)
            left = put_off
            if anyio.current_time() >= until:
                break
            if left:
                await anyio.sleep(self._times.again)
        log.info("resume.done", found=found, over=over, left=len(left))

    async def _unfinished(self, until: float) -> list[Entry]:
        """What somebody else has in hand; who was served last most likely still waits."""
        wanted = Wanted(UNFINISHED, since=self._now() - self._times.oldest)
        while True:
            try:
                entries = [
                    entry
                    async for entry in self._journal.entries(wanted)
                    if entry.owner not in {None, self._owner} and entry.instance_arn is not None
                ]
            except Transient as error:
                if anyio.current_time() >= until:
                    log.warning(
                        "resume.given_up",
                        reason=str(error),
                        next="the events of what is unfinished come back from their source",
                    )
                    return []
                await anyio.sleep(self._times.again)
            else:
                return sorted(entries, key=lambda entry: -entry.changed_at)

    async def _take_recalled(self) -> None:
        """What an operator asked for, as of now: patience begins anew."""
        try:
            asked = await self._journal.recalled()
        except (
            Transient
        ) as error:  # what was asked for stays there; the journal's silence is told where it is watched
            log.debug("resume.not_asked", reason=str(error))
            return
        for contact_id in asked:
            try:
                entry = await self._journal.get(contact_id)
                if entry is None or entry.stage not in UNFINISHED or entry.instance_arn is None:
                    log.info("resume.nothing_to_do", contact=contact_id)
                else:
                    await self._look_at(entry, self._now())
            except Transient as error:
                log.warning(
                    "resume.not_recalled",
                    contact=contact_id,
                    reason=str(error),
                    next="type `attachd contacts retry` again",
                )

    async def _look_at(self, entry: Entry, since: float | None) -> bool:
        """Hand the contact out if it still wants a bot; whether it was.

        Raises:
            Transient: that cannot be known now.
        """
        now = self._now()
        try:
            contact = self._wants_a_bot(await self._described(entry))
        except Permanent as error:
            log.info("resume.over", contact=entry.contact_id, stage=entry.stage, reason=str(error))
            return False
        if contact is None:
            log.info("resume.over", contact=entry.contact_id, stage=entry.stage)
            return False
        log.warning(
            "resume.found",
            contact=entry.contact_id,
            stage=entry.stage,
            generation=entry.generation,
            age_seconds=round(now - entry.changed_at, 1),
            next="it goes down the line again",
        )
        body = opening(contact, entry.changed_at if since is None else since, self.name)
        self._found.add(Delivery(self.name, entry.contact_id, body, now))
        return True

    async def _described(self, entry: Entry) -> ContactState:
        instance = await self._instances.of(entry.instance_arn or "")
        room = instance.rooms["DescribeContact"]
        until = anyio.current_time() + _LOOK_SECONDS
        try:
            await room.admit(
                f"{self.name} {entry.contact_id}", gates=(), priority=0, since=entry.changed_at, until=until
            )
        except Permanent as error:
            raise Transient("quota", str(error)) from None
        with room.spending():
            return await instance.attacher.describe(instance.arn.rpartition("/")[2], entry.contact_id)

    def _wants_a_bot(self, state: ContactState) -> Contact | None:
        contact = state.contact
        if contact is None or state.ended:
            return None
        if contact.channel == "VOICE":  # a call takes its further participant when its agent is there
            return contact if state.agent else None
        return None if state.agent or (state.queued and not self._queued_too) else contact
