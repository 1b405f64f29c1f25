"""A whole line over ports of your choice, for tests that are about what comes of an event."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import anyio

from attachd.claims import Claims
from attachd.gates import Gates, RuntimeGate
from attachd.instances import ACCOUNT_QUOTAS, INSTANCE_QUOTAS, Account, Instance, Instances
from attachd.journals.memory import MemoryJournal
from attachd.metrics import Metrics
from attachd.model import (
    Bot,
)
from attachd.patterns import compile_pattern
from attachd.pipeline import Pipeline
from attachd.ports import Attacher, Journal, Runtime
from attachd.quota import Quota, Rate
from attachd.rules import Rule, Rules
from attachd.testing.ports import MemoryConnect, MemoryRuntime
from attachd.waiting import Room


class Line:
    """A line with one instance, one quota and a rule for every chat, over whatever ports it is given.

    Args:
        now: the wall clock, in seconds since the epoch.
        attacher: Amazon Connect; in memory unless given.
        runtimes: by name; one in memory, ``ava``, unless given.
        rules: a rule for every chat, with a bot a runtime in their order, unless given.
        journal: in memory unless given.
        rate: of CreateParticipant; the other APIs are unlimited.
        owner: this process.
        max_chats: by bot.
        leave_when_queued: see ``pipeline``.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        attacher: Attacher | None = None,
        runtimes: Mapping[str, Runtime] | None = None,
        rules: Rules | None = None,
        journal: Journal | None = None,
        rate: Rate = ACCOUNT_QUOTAS["CreateParticipant"],
        owner: str = "us",
        max_chats: Mapping[str, float] = MappingProxyType({}),
        leave_when_queued: bool = True,
    ) -> None:
        self.metrics = Metrics()
        self.attacher = attacher or MemoryConnect()
        self.journal = journal or MemoryJournal()
        self.room = Room(Quota(rate), name="CreateParticipant")
        apis = ACCOUNT_QUOTAS.keys() - {"CreateParticipant"} | INSTANCE_QUOTAS.keys()
        self._others = {api: Room(Quota(Rate(1000, 1000)), name=api) for api in sorted(apis)}
        self._account = Account("test", {"CreateParticipant": self.room, **self._others})
        self.instances = Instances(self._instance)
        runtimes = {"ava": MemoryRuntime()} if runtimes is None else runtimes
        self.gates = Gates(
            [RuntimeGate(name, runtime) for name, runtime in runtimes.items()], max_chats, self.instances.stir
        )
        bots = tuple(Bot(f"{name} bot", name.capitalize(), name) for name in runtimes)
        self.rules = rules or Rules([Rule("chat", compile_pattern(_CHATS), bots)])
        self.pipeline = Pipeline(
            rules=self.rules,
            claims=Claims(self.journal, owner, now),
            instances=self.instances,
            gates=self.gates,
            metrics=self.metrics,
            now=now,
            dice=random.Random(1),
            leave_when_queued=leave_when_queued,
        )

    @property
    def background(self) -> dict[str, Callable[[Callable[[], None]], Coroutine[Any, Any, None]]]:
        """What must run meanwhile, as ``service`` wants it."""
        return {"instances": self.instances.run, "runtimes": self.gates.run}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """With contacts being called in, and runtimes probed."""
        async with anyio.create_task_group() as tasks:
            for task in self.background.values():
                tasks.start_soon(task, lambda: None)
            yield
            tasks.cancel_scope.cancel()

    async def _instance(self, arn: str) -> Instance:
        return Instance(arn, self.attacher, self._account, {})


_CHATS: Final = '{"detail":{"channel":["CHAT"]}}'
