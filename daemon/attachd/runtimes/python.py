"""A runtime in this process: an async callable that takes the hand-off.

It returns when it has taken the chat over, and goes on in tasks of its own. Whatever it raises is its own
failure and ends as ours would: it never takes the line down.
"""

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import Handoff

_KEPT_KEYS: Final = 10_000


class PythonRuntime:
    """A callable.

    Args:
        take: called with each hand-off; returns once it has accepted, raises ``Transient`` or ``Permanent``
            to say otherwise. Called once for each ``handoff.key`` that it accepted.
        timeout_seconds: for one call.
    """

    def __init__(self, take: Callable[[Handoff], Awaitable[None]], *, timeout_seconds: float) -> None:
        self._take = take
        self._timeout_seconds = timeout_seconds
        self._accepted: dict[str, None] = {}
        self._offered: dict[str, anyio.Event] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Nothing to open."""
        yield

    async def probe(self) -> None:
        """See ``ports.Runtime``: it is where we are."""

    async def offer(self, handoff: Handoff) -> None:
        """See ``ports.Runtime``."""
        while (other := self._offered.get(handoff.key)) is not None:
            await other.wait()
        if handoff.key in self._accepted:
            return
        done = self._offered[handoff.key] = anyio.Event()
        try:
            await self._once(handoff)
        finally:
            del self._offered[handoff.key]
            done.set()

    async def _once(self, handoff: Handoff) -> None:
        try:
            with anyio.fail_after(self._timeout_seconds):
                await self._take(handoff)
        except Transient as error:  # its text is the callable's, and may quote the token
            raise Transient(error.reason, after=error.after, ambiguous=error.ambiguous) from None
        except Permanent as error:
            raise Permanent(error.outcome, error.reason) from None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise Transient("runtime_crashed", "the callable was cancelled from within") from None
        except TimeoutError:
            raise Transient("timeout", f"no answer in {self._timeout_seconds} s", ambiguous=True) from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's callable may raise anything; its text may quote the token
            raise Transient("runtime_crashed", f"the callable raised {type(error).__name__}") from None
        self._accepted[handoff.key] = None
        if len(self._accepted) > _KEPT_KEYS:
            del self._accepted[next(iter(self._accepted))]


def load(reference: str) -> Callable[[Handoff], Awaitable[None]]:
    """The callable that ``package.module:name`` names.

    Raises:
        Misconfigured: there is none.
    """
    module, _, name = reference.partition(":")
    try:
        take = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything when imported
        raise Misconfigured([f"callable {reference!r}: {type(error).__name__}: {error}"]) from None
    if not (inspect.iscoroutinefunction(take) or inspect.iscoroutinefunction(type(take).__call__)):
        raise Misconfigured([f"callable {reference!r} is no async callable: 'async def {name}(handoff)'"])
    return take  # type: ignore[no-any-return]
