"""One contact, one hand: taking a contact, moving it along, letting it go, ending it.

``lifecycle`` says which moves are allowed; the journal stores them; this room races for them. It is the only
place that writes entries.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

import anyio
import structlog

from attachd import lifecycle
from attachd.effects import DEPARTURES, Effect
from attachd.errors import Permanent, Transient
from attachd.lifecycle import Entry, Stage
from attachd.model import Outcome
from attachd.ports import Journal

_RELEASE_SECONDS: Final = 2.0
_COMPACT_SECONDS: Final = 20.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Hand:
    """This process's hand on a contact: whether it has let go, and what ended the contact meanwhile."""

    let_go: anyio.Event = field(default_factory=anyio.Event)
    ended: Outcome | None = None


async def _nobody(_: str) -> bool:
    return False


class Claims:
    """The contacts that this process has in hand.

    Args:
        journal: where entries are kept.
        owner: this process's name, new with every start.
        now: the wall clock, in seconds since the epoch.
        alive: whether another owner may still be at work (``Replicas.alive``); none is, unless given.
        rival_seconds: how long to leave a contact that another living process has: a little longer than it
            takes to see that one die.
        generations: how many participants are asked for, at most, one after the other.
    """

    def __init__(
        self,
        journal: Journal,
        owner: str,
        now: Callable[[], float],
        *,
        alive: Callable[[str], Awaitable[bool]] = _nobody,
        rival_seconds: float = 8.0,
        generations: int = 3,
    ) -> None:
        self._generations = generations
        self._journal = journal
        self._owner = owner
        self._now = now
        self._alive = alive
        self._rival_seconds = rival_seconds
        self._hands: dict[str, _Hand] = {}

    @asynccontextmanager
    async def hold(
        self, contact_id: str, *, instance_arn: str | None = None, since: float | None = None
    ) -> AsyncIterator["Claim"]:
        """Have the contact in hand; wait first while another delivery of this process has it.

        The wait is what makes a duplicate safe: it is acknowledged only once the delivery that it repeats has
        ended, and takes over if that one failed.

        ``instance_arn`` and ``since`` go on record, so that the contact can be resumed from there.

        A ``Permanent`` with a closing outcome that leaves the block closes the contact.

        Raises:
            Permanent: the contact was served before (``duplicate``) or is over.
            Transient: another process has it, or the journal does not answer.
        """
        while (other := self._hands.get(contact_id)) is not None:
            await other.let_go.wait()
        hand = self._hands[contact_id] = _Hand()
        try:
            entry = await self._take(contact_id, instance_arn, since)
            claim = Claim(self._journal, entry, self._now, hand, self._generations)
            closed: Outcome | None = None
            try:
                yield claim
            except Permanent as error:
                closed = error.outcome if error.outcome in lifecycle.CLOSING else None
                raise
            finally:
                await self._let_go(claim, closed)
        finally:
            del self._hands[contact_id]
            hand.let_go.set()

    async def end(self, contact_id: str, effect: Effect, *, again: bool = False) -> Entry | None:
        """Record an event that ends or changes the chat, if need be ahead of the chat itself.

        Returns:
            What was known of a chat that a runtime has, when this is what ended it; and when this comes ``again``,
            since whoever recorded it may have died before he told the runtime, which knows a repetition by its key.

        Raises:
            Transient: the journal does not answer.
        """
        if (hand := self._hands.get(contact_id)) is not None:
            hand.ended = DEPARTURES[effect]  # known here at once, whatever the journal does
        entry = await self._journal.get(contact_id)
        if again and entry is not None and entry.stage is Stage.ENDED and entry.runtime is not None:
            return entry if entry.reason == DEPARTURES[effect].value else None
        while (after := lifecycle.end(entry, contact_id, effect, self._now())) is not None:
            before, entry = entry, await self._journal.put(after)
            if entry == after:
                return before if before is not None and before.stage is Stage.HANDED_OFF else None
        return None

    async def over(self, contact_id: str) -> bool:
        """Whether a contact's end is on record, whoever read it; one that the journal has forgotten is over, too.

        Raises:
            Transient: the journal does not answer.
        """
        entry = await self._journal.get(contact_id)
        return entry is None or entry.stage is Stage.ENDED

    async def compact(self, retention_seconds: float, report: Callable[[], None]) -> None:
        """Forget contacts that have not changed for so long, now and then, for ever."""
        while True:
            try:
                forgotten = await self._journal.purge(self._now() - retention_seconds)
            except Transient as error:
                log.warning(
                    "journal.not_compacted", reason=str(error), next=f"again in {_COMPACT_SECONDS:.0f} s"
                )
            else:
                log.debug("journal.compacted", forgotten=forgotten)
            report()
            await anyio.sleep(_COMPACT_SECONDS)

    async def _take(self, contact_id: str, instance_arn: str | None, since: float | None) -> Entry:
        entry = await self._journal.get(contact_id)
        while True:
            claimed = lifecycle.claim(
                entry, contact_id, self._owner, self._now(), instance_arn=instance_arn, since=since
            )
            if isinstance(claimed, Outcome):  # whoever still has it: there is nothing left to do
                raise Permanent(claimed, detail=f"contact {contact_id} is {entry.stage if entry else 'new'}")
            rival = entry.owner if entry is not None else None
            if rival is not None and rival != self._owner and await self._alive(rival):
                raise Transient(
                    "held_elsewhere",
                    f"contact {contact_id} is in the hand of {rival}",
                    after=self._rival_seconds,
                )
            entry = await self._journal.put(claimed)
            if entry == claimed:
                return entry

    async def _let_go(self, claim: "Claim", closed: Outcome | None) -> None:
        """Close a contact that can have no bot; leave any other unfinished one to its next delivery."""
        entry = claim.entry
        if claim.over or entry.stage in lifecycle.FINAL or entry.owner != self._owner:
            return
        left = (
            lifecycle.release(entry, self._now())
            if closed is None
            else lifecycle.move(entry, Stage.CLOSED, self._now(), owner=None, reason=closed.value)
        )
        reason = f"the journal did not answer in {_RELEASE_SECONDS} s"
        with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
            try:
                await self._journal.put(left)
            except Transient as error:
                reason = str(error)
            else:
                return
        log.warning(
            "claim.not_released",
            contact=entry.contact_id,
            reason=reason,
            next="this process takes it again when its event is redelivered",
        )


class Claim:
    """A contact in hand. Every move is written before it is relied on."""

    def __init__(
        self, journal: Journal, entry: Entry, now: Callable[[], float], hand: _Hand, generations: int
    ) -> None:
        self._journal = journal
        self._now = now
        self._hand = hand
        self._generations = generations
        self._opened = False
        self._asked_before: float | None = None
        self.entry = entry

    @property
    def over(self) -> bool:
        """Whether the contact ended meanwhile."""
        return self._hand.ended is not None

    @property
    def last(self) -> bool:
        """Whether no further generation will be asked for."""
        return self.entry.generation >= self._generations

    def check(self) -> None:
        """Look again before something is spent on the contact.

        Raises:
            Permanent: it ended meanwhile.
        """
        if self._hand.ended is not None:
            raise Permanent(self._hand.ended, detail="the contact ended in the meantime")

    def wait_out(self) -> None:
        """Let a generation lapse that is of no use any more, before anything is spent on it.

        Raises:
            Transient: come back when it has lapsed.
        """
        left = lifecycle.closing(self.entry, self._now())
        if left > 0:
            raise Transient("window_closing", "waiting for the next generation", after=left)

    @property
    def window(self) -> float:
        """Seconds until this generation has surely lapsed; 0 if it has, or was never asked for."""
        if self.entry.requested_at is None:
            return 0.0
        return max(0.0, lifecycle.lapses_at(self.entry) - self._now())

    def perhaps_ours(self, refusal: str) -> None:
        """Connect says that a custom participant is there, or would be one too many; it may be our own.

        Nobody knows what a repeated ClientToken answers once the first request has had its effect. If an answer of this
        generation was lost, its participant lapses by itself, and the next generation may be asked for.

        Raises:
            Transient: come back when it has lapsed.
            Permanent: it may be one that an earlier generation's runtime took, whose answer was lost.
        """
        if not self._opened:
            self.unspent()  # this one, which is refused, made none
            left = self.window
            if left <= 0:
                self.lapsed()
            raise Transient("perhaps_ours", f"a request before may have made it ({refusal})", after=left)
        if self.entry.generation > 1:
            detail = f"perhaps by the bot itself, its acceptance of an earlier offer being lost ({refusal})"
            raise Permanent(Outcome.OCCUPIED, detail=detail)

    def lapsed(self) -> None:
        """Connect says that this generation's participant is gone: the next request asks for another."""
        self.entry = lifecycle.next_generation(self.entry)

    async def begin(self, bot: str, rule: str, display_name: str = "", *, lapses: bool = True) -> Entry:
        """Record that a CreateParticipant is about to leave; see ``lifecycle.begin`` for the generation.

        A request that is repeated is the same to the letter: it keeps the name that the first one gave.

        Raises:
            Permanent: the contact ended meanwhile, or has had its generations.
            Transient: the claim was lost, or the journal does not answer.
        """
        self.check()
        if lapses:
            self.wait_out()  # the wait for a token may have been long
        entry = lifecycle.begin(self.entry, self._now(), lifecycle.LAPSE_SECONDS if lapses else inf)
        # Only those count that were made: Connect's own outage is no reason to give a chat up.
        if entry.generation > self._generations and self.entry.participant_id is not None:
            raise Permanent(
                Outcome.UNSERVED, "generations_spent", f"{self._generations} participants lapsed before"
            )
        self._opened = entry.requested_at != self.entry.requested_at
        self._asked_before = None if self._opened else self.entry.asked_at
        name = display_name if self._opened else entry.display_name or display_name
        return await self._write(replace(entry, bot=bot, rule=rule, display_name=name))

    def unspent(self) -> None:
        """The request had no effect, for certain: the window that it opened never opened.

        A window that an earlier request opened stays open. Written with the next move.
        """
        requested_at = None if self._opened else self.entry.requested_at
        self.entry = replace(self.entry, requested_at=requested_at, asked_at=self._asked_before)

    async def accepted(self, runtime: str) -> Outcome | None:
        """Record that the runtime has it; returns what ended the chat meanwhile, if anything did.

        Raises:
            Transient: the claim was lost, or the journal does not answer.
        """
        entry = lifecycle.accept(self.entry, runtime, self._now())
        stored = await self._journal.put(entry)
        if stored != entry and stored.stage is Stage.ENDED and stored.reason == Outcome.QUEUED:
            entry = lifecycle.accept(stored, runtime, self._now())
            stored = await self._journal.put(entry)
        self.entry = stored
        if stored == entry:
            if self._hand.ended is Outcome.QUEUED:
                self._hand.ended = None
            return None
        if stored.stage is Stage.ENDED:
            self._hand.ended = Outcome(stored.reason or Outcome.ENDED)
            return self._hand.ended
        raise Transient("claim_lost", f"contact {entry.contact_id} is in the hand of {stored.owner}")

    async def move(self, stage: Stage, **changes: str) -> Entry:
        """One move on.

        Raises:
            Permanent: the contact ended meanwhile.
            Transient: the claim was lost, or the journal does not answer.
        """
        self.check()
        return await self._write(lifecycle.move(self.entry, stage, self._now(), **changes))

    async def _write(self, entry: Entry) -> Entry:
        self.entry = stored = await self._journal.put(entry)
        if stored.stage is Stage.ENDED:
            self._hand.ended = Outcome(stored.reason or Outcome.ENDED)
        self.check()
        if stored != entry:
            raise Transient("claim_lost", f"contact {entry.contact_id} is in the hand of {stored.owner}")
        return entry
