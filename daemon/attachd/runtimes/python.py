"""A runtime in this process: an async callable that takes the hand-off.

It returns when it has taken the chat over, and goes on in tasks of its own. Whatever it raises is its own failure and
ends as ours would; whatever it does to its task (cancels it, leaves a scope or a context variable behind, refuses to end)
it does to a task of its own. It shares our event loop: what blocks there blocks the line.
"""

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import structlog

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import ChatEnded, Handoff

_KEPT_KEYS: Final = 10_000
#: A call that is cancelled may put things away for so long, and is then left to itself.
_GRACE_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)

_Told = TypeVar("_Told", Handoff, ChatEnded)
_Failure = Transient | Permanent
Take = Callable[[Handoff], Awaitable[None]]
Hear = Callable[[ChatEnded], Awaitable[None]]


class PythonRuntime:
    """A callable.

    Args:
        take: called with each hand-off; returns once it has accepted, raises ``Transient`` or ``Permanent``
            to say otherwise. Called once for each ``handoff.key`` that it accepted.
        ended: the same, for each chat that is over; left out, nobody is told.
        timeout_seconds: for one call.
    """

    def __init__(self, take: Take, *, ended: Hear | None = None, timeout_seconds: float) -> None:
        self._take = take
        self._ended = ended
        self._timeout_seconds = timeout_seconds
        self._accepted: dict[str, None] = {}
        self._calls: dict[str, asyncio.Task[_Failure | None]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At the end calls still under way are cancelled; one that will not end does not keep us."""
        try:
            yield
        finally:
            for key, call in list(self._calls.items()):
                if not await _ended(call):
                    log.error(
                        "runtime.call_not_ended",
                        key=key,
                        next="left to itself: it swallows its cancellation, and may keep the process from ending",
                    )

    async def probe(self) -> None:
        """See ``ports.Runtime``: it is where we are."""

    async def offer(self, handoff: Handoff) -> None:
        """See ``ports.Runtime``."""
        await self._once(handoff.key, self._take, handoff)

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""
        if self._ended is not None:
            await self._once(farewell.key, self._ended, farewell)

    async def _once(self, key: str, call: Callable[[_Told], Awaitable[None]], told: _Told) -> None:
        """Call it, unless it has accepted this key before; while it is being called with it, wait for that call."""
        if key in self._accepted:
            return
        if (task := self._calls.get(key)) is None:
            # No task group: it would wait for ever for foreign code that swallows its cancellation.
            task = self._calls[key] = asyncio.get_running_loop().create_task(_contained(call, told))
            task.add_done_callback(lambda task: self._over(key, task))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout_seconds)
        finally:
            await _ended(task)
        if not done:
            raise Transient("timeout", f"no answer in {self._timeout_seconds} s", ambiguous=True)
        if (failure := _failure(task)) is not None:
            raise failure

    def _over(self, key: str, task: asyncio.Task[_Failure | None]) -> None:
        del self._calls[key]
        if _failure(task) is not None:
            return
        self._accepted[key] = None
        if len(self._accepted) > _KEPT_KEYS:
            del self._accepted[next(iter(self._accepted))]


async def _contained(call: Callable[[_Told], Awaitable[None]], told: _Told) -> _Failure | None:
    """Call it, and return what it raises as an error of ours: its text is the callable's, and may quote the token."""
    try:
        await call(told)
    except Transient as error:
        return Transient(error.reason, after=error.after, ambiguous=error.ambiguous)
    except Permanent as error:
        return Permanent(error.outcome, error.reason)
    except asyncio.CancelledError:
        return _cancelled()
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - a user's callable may raise anything, SystemExit included
        return Transient("runtime_crashed", f"the callable raised {type(error).__name__}")
    return None


def _failure(call: asyncio.Task[_Failure | None]) -> _Failure | None:
    """How a call that is over failed, if it did. One may cancel its own task as the last thing it does."""
    return _cancelled() if call.cancelled() else call.result()


def _cancelled() -> Transient:
    return Transient("runtime_crashed", "the callable was cancelled")


async def _ended(call: asyncio.Task[_Failure | None]) -> bool:
    """Whether the call is over; cancelled, and given some time to put things away, if need be."""
    if not call.done():
        call.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({call}, timeout=_GRACE_SECONDS)
    return call.done()


def load(reference: str, takes: str = "handoff") -> Callable[[_Told], Awaitable[None]]:
    """The callable that ``package.module:name`` names; ``takes`` is what its argument is called in errors.

    Raises:
        Misconfigured: there is none.
    """
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything when imported
        raise Misconfigured([f"callable {reference!r}: {type(error).__name__}: {error}"]) from None
    if not (inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)):
        raise Misconfigured([f"callable {reference!r} is no async callable: 'async def {name}({takes})'"])
    return found  # type: ignore[no-any-return]
