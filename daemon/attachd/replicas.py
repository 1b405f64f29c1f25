"""The others on the same journal: who lives, and how much of the account's quota is ours to use.

Nobody leads. Every 2 s, every second while contacts wait, each replica says that it lives, how many contacts wait with it and how much of the
account's rate it reserves, and reads what the others said last.

**Who lives** is seen, not told: a replica whose count has stood still for 6 s on *our* monotonic clock is dead,
one that was never seen to move has 6 s to do so. No clock is compared with another machine's (KCL judges its
leases so).

**Shares** add up to at most 1 at every instant, whatever comes late or is lost. More than before is reserved
first, then used as far as the others, read after that, have left it; less is used first, then reserved. So
nobody uses more than all can read that it reserves, and of two that reserve at once the later one gives way. The
exception: whoever cannot beat for 6 s and still reaches Connect keeps its share, which the others divide; when
it is heard again, it asks anew.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import structlog

from attachd.errors import Transient
from attachd.model import Beat
from attachd.ports import Journal

BEAT_SECONDS: Final = 2.0
BUSY_BEAT_SECONDS: Final = (
    1.0  # while contacts wait anywhere: shares that follow sooner leave less of the rate unused
)
DEAD_SECONDS: Final = 6.0  # two beats may be lost; more than that is death
#: This much of the rate is divided evenly, whatever waits where: who has nothing waiting can still begin.
EVEN: Final = 0.1
_TURN_BEATS: Final = 5
_TICK_SECONDS: Final = 1e-3  # a death that rounding has put off must still come
_RETIRE_SECONDS: Final = 2.0
_UNHEARD: Final = "the last share stays in force until the journal answers"

log = structlog.get_logger(__name__)


def due(owner: str, beats: Sequence[Beat], seats: int) -> float:
    """What is due to a replica of the account's rate, 0 to 1; over all of ``beats`` it adds up to 1.

    Args:
        owner: the replica.
        beats: those that live, it included.
        seats: the quota's burst. Whoever has a share may make a call at any instant: of more replicas than that,
            so many have a share at once, in turns, those first with whom contacts wait.
    """
    ring = sorted(beats, key=lambda beat: beat.owner)
    turn = sum(beat.count for beat in ring) // (
        _TURN_BEATS * len(ring)
    )  # a clock that all read alike, nearly
    first = turn * seats % len(ring)
    seated = sorted(ring[first:] + ring[:first], key=lambda beat: beat.waiting == 0)[:seats]
    mine = next((beat for beat in seated if beat.owner == owner), None)
    if mine is None:
        return 0.0
    waiting = sum(beat.waiting for beat in seated)
    if waiting == 0:
        return 1 / len(seated)
    return EVEN / len(seated) + (1 - EVEN) * mine.waiting / waiting


class Peers:
    """Who has been heard, and who of them lives as far as can be seen from here.

    Pure: times go in, in seconds on one monotonic clock. Judged when something is heard, never in between: who
    hears nothing cannot tell who is dead.

    Attributes:
        living: the last beats of those that live.
        dead: the last beats of those that do not, and are still there.
        next_death: when the next one dies unless it moves.
    """

    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, float]] = {}
        self.living: list[Beat] = []
        self.dead: list[Beat] = []
        self.next_death = float("inf")

    def hear(self, beats: Sequence[Beat], asked_at: float, answered_at: float) -> None:
        """Take in what all say, as read at some moment between these two."""
        before = {(owner, count): at for owner, (count, at) in self._moved.items()}
        self._moved = {b.owner: (b.count, before.get((b.owner, b.count), answered_at)) for b in beats}
        deaths = {owner: at + DEAD_SECONDS for owner, (_, at) in self._moved.items()}
        self.living = [beat for beat in beats if asked_at < deaths[beat.owner]]
        self.dead = [beat for beat in beats if asked_at >= deaths[beat.owner]]
        self.next_death = min((deaths[beat.owner] for beat in self.living), default=float("inf"))


class Replicas:
    """This replica among the others.

    Args:
        journal: where all of them beat.
        owner: this replica's name, new with every start.
        seats: the quota's burst at this moment; see ``due``.
        waiting: how many contacts wait here for the quota.
        on_share: told this replica's share, 0 to 1, and the number of replicas, whenever either changes.

    Attributes:
        share: the part of the account's rate that this replica may use now, 0 to 1.
        count: how many replicas live, this one included; 0 before it has joined.
    """

    def __init__(
        self,
        journal: Journal,
        owner: str,
        *,
        seats: Callable[[], int],
        waiting: Callable[[], int],
        on_share: Callable[[float, int], None] = lambda _share, _count: None,
    ) -> None:
        self._journal = journal
        self._seats = seats
        self._waiting = waiting
        self._on_share = on_share
        self._peers = Peers()
        self._known: set[str] = set()
        self._one_at_a_time = anyio.Lock()
        self._said = Beat(owner, count=0, waiting=0, reserved=0.0)
        self._heard_at = float("-inf")
        self._unheard = False
        self.share = 0.0
        self.count = 0

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Be one of them: seen by all before anything is claimed, and gone at once at the end.

        Raises:
            Transient: the journal does not answer.
        """
        await self._beat()
        try:
            yield
        finally:
            with anyio.move_on_after(_RETIRE_SECONDS, shield=True):
                try:
                    await self._journal.retire(self._said)
                except Transient as error:
                    log.warning("replicas.not_retired", reason=str(error), next="the others notice in 6 s")

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Beat for ever, and clear away the dead. Reports progress with each beat, heard or not."""
        unheard = False
        while True:
            count = self.count
            busy = self._waiting() or any(beat.waiting for beat in self._peers.living)
            wake_at = anyio.current_time() + (BUSY_BEAT_SECONDS if busy else BEAT_SECONDS)
            try:
                await self._beat()
                for beat in self._peers.dead:
                    await self._journal.retire(beat)
            except Transient as error:
                if not unheard:
                    log.warning("replicas.not_heard", reason=str(error), share=self.share, next=_UNHEARD)
                unheard = True
            else:
                wake_at = min(wake_at, self._peers.next_death)
                if unheard:
                    log.info("replicas.heard_again", share=self.share)
                unheard = False
            report()
            if self.count == count:  # else there is more, or less, to reserve at once
                await anyio.sleep_until(max(wake_at, anyio.current_time() + _TICK_SECONDS))

    async def alive(self, owner: str) -> bool:
        """Whether that replica may still be at work. One never heard of is listened for first.

        Raises:
            Transient: the journal does not answer.
        """
        if owner not in self._known:
            await self._beat(unless_known=owner)
            # Known now, or gone for good: an owner beats before it claims, and its name is never used again.
            self._known.add(owner)
        return any(beat.owner == owner for beat in self._peers.living)

    async def _beat(self, *, unless_known: str | None = None) -> None:
        """Say it, hear the others, use what is free."""
        async with self._one_at_a_time:
            if unless_known in self._known:
                return
            asked_at = anyio.current_time()
            said = self._next()
            self._use(min(self.share, said.reserved), self.count)
            self._said, self._unheard = said, True
            heard = await self._journal.beat(said)
            self._unheard = False
            answered_at = anyio.current_time()
            self._peers.hear(heard, asked_at, answered_at)
            self._known.update(beat.owner for beat in heard)
            others = [beat for beat in self._peers.living if beat.owner != said.owner]
            # After so long the others may have divided what was ours.
            kept = self.share if answered_at < self._heard_at + DEAD_SECONDS else 0.0
            self._heard_at = asked_at
            free = max(0.0, 1.0 - sum(beat.reserved for beat in others))
            self._use(max(kept, min(said.reserved, free)), 1 + len(others))

    def _next(self) -> Beat:
        """What to say now; what was not heard is said again, since nothing better is known."""
        owner, count, waiting = self._said.owner, self._said.count + 1, self._waiting()
        mine = Beat(owner, count, waiting, self._said.reserved)
        if self._unheard:
            return mine
        others = [beat for beat in self._peers.living if beat.owner != owner]
        # What the others said is as old as what we said. Were it compared with what waits here now, all would find
        # less due to themselves than there is for as long as their backlogs drain.
        as_old = Beat(owner, count, max(waiting, self._said.waiting), 0.0)
        share = due(owner, [as_old, *others], self._seats())
        # Of what is over all the same, each takes the part that its backlog is of all.
        over = max(0.0, 1.0 - share - sum(beat.reserved for beat in others))
        part = as_old.waiting / max(1, as_old.waiting + sum(beat.waiting for beat in others))
        return Beat(owner, count, waiting, reserved=share + over * part if share else 0.0)

    def _use(self, share: float, count: int) -> None:
        if max(1, count) != max(1, self.count):  # that one that starts is alone is no news
            log.info("replicas", count=count)
        if (share, count) != (self.share, self.count):
            self.share, self.count = share, count
            self._on_share(share, count)
