"""Does a runtime keep the hand-off's contract? Plays what attachd may do to it, and says what to mend.

Everything here is made up: the contacts are nobody's, the tokens open nothing. A runtime that accepts one of these chats will
find, when it connects, that Connect does not know it; it must take that as it would a chat that is already over.
"""

import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, Protocol

import anyio

from attachd.errors import Permanent, Transient
from attachd.lifecycle import WINDOW_SECONDS
from attachd.model import Bot, ChatEnded, Contact, Handoff, Participant, Secret
from attachd.ports import Runtime

#: An answer that takes longer than this is taken from the time in which the bot must connect.
SOON_SECONDS: Final = 1.0
_AT_ONCE: Final = 5
_LATE_SECONDS: Final = 60.0
_STALE_SECONDS: Final = 600.0  # Standard Webhooks' libraries tolerate five minutes
_INSTANCE: Final = "arn:aws:connect:us-east-1:000000000000:instance/00000000-0000-4000-8000-000000000000"
_NOBODY: Final = "Nobody was asked: mend the address, the certificates, or the permissions."
_ANSWERS: Final = "Answer 202 to a hand-off that you take; docs/runtimes.md has every answer."
_MEND_ATTACH: Final = {
    "runtime_busy": f"It is full, or draining: test it when it has room for {2 + _AT_ONCE} chats.",
    "runtime_unauthorized": "Give both the same secret; verify over the raw body, with a Standard Webhooks library.",
    "runtime_retired": "410 means that it is retired for good: attachd would give it no chat until it is restarted.",
    "timeout": "Answer first, connect next: a runtime that connects before it answers is too slow.",
    "unreachable": _NOBODY,
    "tls": _NOBODY,
    "wrong_peer": _NOBODY,
    "queue_missing": _NOBODY,
    "access_denied": _NOBODY,
}

Kind = Literal["webhook", "sqs", "python"]


class Subject(Runtime, Protocol):
    """A runtime that is yet to be opened."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Make it ready."""
        ...


class Make(Protocol):
    """Makes the runtime that is examined, once as it is and more often as it should not be."""

    def __call__(self, *, skew: float = 0.0, forged: bool = False) -> Subject:
        """With a clock that is so many seconds behind; signing with a secret that nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check ended. ``mend`` says what to do; empty if all is well."""

    check: str
    said: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking. ``reason`` is empty if the runtime accepted."""

    reason: str
    said: str
    seconds: float
    final: bool = False

    @property
    def accepted(self) -> bool:
        return not self.reason


async def examine(make: Make, kind: Kind, *, wants_ended: bool) -> list[Finding]:
    """Play everything, one finding a check. A runtime that does not take the first chat is asked for no more.

    Args:
        make: the runtime.
        kind: what it is; queues and callables know nothing of signatures.
        wants_ended: whether it is told of chats that are over.
    """
    return await _Examination(make, kind, wants_ended).findings()


class _Examination:
    def __init__(self, make: Make, kind: Kind, wants_ended: bool) -> None:  # noqa: FBT001 - from one place, above
        self._make = make
        self._kind = kind
        self._wants_ended = wants_ended
        self._answers: list[_Answer] = []

    async def findings(self) -> list[Finding]:
        found = []
        subject = self._make()
        async with subject.open():
            first, *others = _handoffs(2 + _AT_ONCE)
            found.append(await self._there(subject))
            attach = await self._asked(partial(subject.offer, first))
            mend = "" if attach.accepted else _MEND_ATTACH.get(attach.reason, _ANSWERS)
            found.append(Finding("attach", attach.said, mend))
            if attach.accepted:
                found.append(await self._duplicate(subject, first, others[0]))
                found.append(await self._slow(subject, others[1:], attach))
                found.append(await self._ended(subject, [first, *others]))
        if self._kind == "webhook" and attach.accepted:
            found += [await self._forged(), await self._stale()]
        if self._kind != "sqs" and attach.accepted:  # into a queue attachd puts nothing that is late
            found.append(await self._late())
        if self._kind == "webhook":
            found.append(self._redirect())
        return found

    async def _there(self, subject: Subject) -> Finding:
        there = await self._asked(subject.probe)
        mend = "Start it, or mend its address: HEAD to it is how attachd looks whether anybody is there."
        return Finding("there", there.said, "" if there.accepted else mend)

    async def _duplicate(self, subject: Subject, before: Handoff, new: Handoff) -> Finding:
        """One that was taken before, and a new one twice at once."""
        answers = [await self._asked(partial(subject.offer, before))]
        answers += await self._at_once([partial(subject.offer, new)] * 2)
        refused = next((answer for answer in answers if not answer.accepted), None)
        mend = "The same webhook-id is the same chat: answer 409, or 2xx again, also while the first is under way."
        return Finding("duplicate", (refused or answers[0]).said, mend if refused else "")

    async def _slow(self, subject: Subject, new: Sequence[Handoff], attach: _Answer) -> Finding:
        answers = [attach, *await self._at_once([partial(subject.offer, handoff) for handoff in new])]
        slowest = max(answer.seconds for answer in answers)
        mend = "Answer first, connect next: the fifteen seconds run while attachd waits for the answer."
        said = f"the slowest of {len(answers)} answers took {1000 * slowest:.0f} ms"
        return Finding("slow", said, mend if slowest > SOON_SECONDS else "")

    async def _ended(self, subject: Subject, taken: Sequence[Handoff]) -> Finding:
        """Every chat that was taken, one of them twice, and one that it never had."""
        if not self._wants_ended:
            return Finding("ended", "not played: it does not want to be told")
        farewells = [_farewell(handoff) for handoff in [taken[0], *taken, *_handoffs(1)]]
        answers = [await self._asked(partial(subject.ended, farewell)) for farewell in farewells]
        failed = next((answer for answer in answers if not answer.accepted), None)
        mend = "Answer 2xx to attachd.chat.ended.v1, also when you know the chat no more, or never did."
        return Finding("ended", (failed or answers[0]).said, mend if failed else "")

    async def _forged(self) -> Finding:
        answer = await self._offered(self._make(forged=True))
        mend = "Verify webhook-signature over the raw body, and answer 401 if it is not good."
        if answer.accepted:
            mend = f"Anybody can give it chats. {mend}"
        return Finding("bad signature", answer.said, "" if answer.reason == "runtime_unauthorized" else mend)

    async def _stale(self) -> Finding:
        answer = await self._offered(self._make(skew=_STALE_SECONDS))
        well = answer.reason in {"runtime_unauthorized", "runtime_400", "runtime_refused"}
        mend = (
            "This was signed ten minutes ago: refuse a webhook-timestamp that is five minutes off, with 401."
        )
        return Finding("old signature", answer.said, "" if well else mend)

    async def _late(self) -> Finding:
        """One that was on its way for a minute."""
        answer = await self._offered(self._make(skew=_LATE_SECONDS), late=_LATE_SECONDS)
        mend = "connect_by has passed, so the token is dead: answer 422."
        if answer.reason == "runtime_retired":
            mend += " 410 says that the runtime is retired for good."
        return Finding(
            "late", answer.said, "" if answer.final and answer.reason != "runtime_retired" else mend
        )

    def _redirect(self) -> Finding:
        redirected = next((answer for answer in self._answers if answer.reason.startswith("runtime_3")), None)
        mend = (
            "attachd follows none, since a credential goes where the operator said: write the final address."
        )
        return Finding("redirect", redirected.said if redirected else "none", mend if redirected else "")

    async def _offered(self, subject: Subject, *, late: float = 0.0) -> _Answer:
        [handoff] = _handoffs(1)
        async with subject.open():
            offered = replace(handoff, connect_by=handoff.connect_by - late)
            return await self._asked(partial(subject.offer, offered))

    async def _at_once(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> list[_Answer]:
        answers: list[_Answer] = []

        async def ask(call: Callable[[], Awaitable[object]]) -> None:
            answers.append(await self._asked(call))

        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(ask, call)
        return answers

    async def _asked(self, call: Callable[[], Awaitable[object]]) -> _Answer:
        began, reason, said, final = anyio.current_time(), "", "", False
        try:
            await call()
        except (Transient, Permanent) as error:
            reason, said, final = error.reason, error.detail or error.reason, isinstance(error, Permanent)
        seconds = anyio.current_time() - began
        answer = _Answer(reason, said or f"accepted in {1000 * seconds:.0f} ms", seconds, final)
        self._answers.append(answer)
        return answer


def _handoffs(count: int) -> list[Handoff]:
    return [_handoff(str(uuid.uuid4())) for _ in range(count)]


def _handoff(contact_id: str) -> Handoff:
    contact = Contact(
        contact_id,
        _INSTANCE,
        "CHAT",
        contact_id,
        initiation_method="API",
        initiated_at=time.time(),
        segment_attributes={"connect:Subtype": "connect:Chat"},
        tags={"attachd:runtime-test": "true"},
    )
    return Handoff(
        key=f"{contact_id}_1",
        contact=contact,
        bot=Bot("runtime-test", "Test", "runtime-test"),
        rule="attachd runtime test",
        generation=1,
        participant=Participant(
            str(uuid.uuid4()), Secret(f"made-up-{secrets.token_urlsafe(24)}"), "2000-01-01T00:00:00.000Z"
        ),
        connect_by=time.time() + WINDOW_SECONDS,
    )


def _farewell(handoff: Handoff) -> ChatEnded:
    return ChatEnded(f"{handoff.key}_ended", handoff.contact, handoff.bot.name, handoff.generation, "ended")
