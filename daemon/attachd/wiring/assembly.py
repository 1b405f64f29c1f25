"""Everything that a configuration asks for, put together and opened."""

import os
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from attachd import aws, traces
from attachd import settings as s
from attachd.claims import Claims
from attachd.gates import Gates, RuntimeGate
from attachd.instances import Instances
from attachd.journals.memory import MemoryJournal
from attachd.journals.watched import WatchedJournal
from attachd.lifecycle import Stage, Wanted
from attachd.metrics import Metrics
from attachd.pipeline import Pipeline
from attachd.places import CHAT_SECONDS
from attachd.ports import Journal
from attachd.progress import Progress
from attachd.replicas import Replicas
from attachd.service import Service
from attachd.shadow import ShadowRuntime
from attachd.sources.file import FileSource
from attachd.sources.resume import ResumeSource
from attachd.wiring import parts
from attachd.wiring.connects import Connects
from attachd.wiring.sources import Sources


@dataclass(frozen=True)
class Mode:
    """How to run, if not as configured.

    Attributes:
        rehearsal: everything but the calls: decisions are made and logged, no participant is, and the journal is
            forgotten.
        events: these instead of the configured sources'; attachd ends with them.
        any_age: no event is too old for a bot: patience is counted from its receipt.
    """

    rehearsal: bool = False
    events: FileSource | None = None
    any_age: bool = False


AS_CONFIGURED: Final = Mode()


@dataclass(frozen=True)
class App:
    """A service and what is served beside it."""

    service: Service
    pipeline: Pipeline
    metrics: Metrics
    progress: Progress
    instances: Instances
    gates: Gates
    connects: Connects
    journal: WatchedJournal

    @property
    def trouble(self) -> list[str]:
        """Why chats get no bot at the moment, a sentence each; none when they do."""
        return [
            *self.service.trouble,
            *self.journal.trouble,
            *self.instances.trouble,
            *(why for room in self.instances.rooms() if (why := room.trouble) is not None),
            *self.gates.trouble,
        ]

    @property
    def waiting(self) -> int:
        """Chats that wait for a token or a runtime."""
        return self.connects.waiting


@asynccontextmanager
async def assembled(config: s.Settings, mode: Mode) -> AsyncIterator[App]:
    """Everything that a configuration asks for, opened; closed in reverse order at the end.

    Args:
        config: the configuration.
        mode: how to run.

    Raises:
        Misconfigured: something it asks for is not there.
    """
    metrics, progress, dice = Metrics(), Progress(time.monotonic), random.Random()
    async with AsyncExitStack() as stack:
        trace = stack.enter_context(traces.exporting())
        shadow = mode.rehearsal
        journal = await stack.enter_async_context(_journal(config, metrics, shadow=shadow))
        connects = Connects(config, metrics, stack, shadow=shadow)
        instances = Instances(
            connects.instance, partial(progress.reporter, within_seconds=config.service.stall)
        )
        replicas = Replicas(
            journal,
            owner := uuid.uuid4().hex,
            seats=lambda: connects.seats,
            waiting=lambda: connects.waiting,
            on_share=connects.share,
        )
        await stack.enter_async_context(replicas.joined())
        claims = Claims(
            journal, owner, time.time, alive=replicas.alive, generations=config.waiting.generations
        )
        gates = await _gates(config, stack, instances, claims, metrics, shadow=shadow)
        if (
            isinstance(config.journal, s.SqliteJournal) and not shadow
        ):  # one process's: all its chats are ours
            await _recount(config, journal, gates, time.time())
        pipeline = Pipeline(
            rules=parts.rules(config),
            any_age=mode.any_age,
            claims=claims,
            instances=instances,
            gates=gates,
            metrics=metrics,
            now=time.time,
            dice=dice,
            leave_when_queued=config.waiting.leave_when_queued,
        )
        sources = Sources(
            partial(aws.session, os.environ), journal, dice, progress, metrics, config.service.stall, shadow
        )
        resumes = not (shadow or mode.events or isinstance(config.journal, s.MemoryJournal))
        service = Service(
            sources=sources.of(config) if mode.events is None else [mode.events],
            own=[_resumption(config, journal, instances, replicas, owner, progress)] if resumes else [],
            pipeline=pipeline,
            background={
                "instances": instances.run,
                "runtimes": gates.run,
                "replicas": replicas.run,
                "journal": partial(claims.compact, config.service.keep),
                "journal watch": journal.run,
            },
            metrics=metrics,
            progress=progress,
            limits=parts.limits(config.service, connects.crowded),
            dice=dice,
            trace=trace,
        )
        for table in config.instances:
            await instances.of(table.arn)
        connects.serve()
        yield App(service, pipeline, metrics, progress, instances, gates, connects, journal)


@asynccontextmanager
async def _journal(config: s.Settings, metrics: Metrics, *, shadow: bool) -> AsyncIterator[WatchedJournal]:
    journal = WatchedJournal(
        MemoryJournal() if shadow else parts.journal(config, partial(aws.session, os.environ)),
        attach=not isinstance(config.journal, s.MemoryJournal) and config.journal.unavailable == "attach",
        errors=metrics.journal_errors,
    )
    async with journal.open():
        yield journal


def _resumption(
    config: s.Settings,
    journal: Journal,
    instances: Instances,
    replicas: Replicas,
    owner: str,
    progress: Progress,
) -> ResumeSource:
    return ResumeSource(
        journal,
        instances,
        owner=owner,
        alive=replicas.alive,
        queued_too=not config.waiting.leave_when_queued,
        progress=progress,
        now=time.time,
    )


async def _gates(
    config: s.Settings,
    stack: AsyncExitStack,
    instances: Instances,
    claims: Claims,
    metrics: Metrics,
    *,
    shadow: bool,
) -> Gates:
    gates = Gates(
        [await _gate(name, table, stack, shadow=shadow) for name, table in config.runtimes.items()],
        caps(config),
        instances.stir,
        claims.over,
    )
    for name, gate in gates.runtimes.items():
        metrics.circuits.labels("runtime", name).set_function(partial(_open, gate))
    watch_bots(metrics, gates, config)
    return gates


async def _recount(config: s.Settings, journal: Journal, gates: Gates, now: float) -> None:
    """Let each bot have the chats that it has, for it may be given a cap: a predecessor of this process handed them over."""
    runtimes = {bot.name: bot.runtime for bot in config.bots}
    handed_over = Wanted(frozenset({Stage.HANDED_OFF}), since=now - CHAT_SECONDS)
    async for entry in journal.entries(handed_over):
        if entry.bot in runtimes and entry.runtime == runtimes[entry.bot]:  # else the fallback has it
            gates.had(entry.bot, entry.contact_id, now - entry.changed_at)


async def _gate(name: str, table: s.Runtime, stack: AsyncExitStack, *, shadow: bool) -> RuntimeGate:
    runtime = ShadowRuntime() if shadow else parts.runtime(table)
    await stack.enter_async_context(runtime.open())
    return RuntimeGate(name, runtime, table.max_handoffs)


def _open(gate: RuntimeGate) -> bool:
    return not gate.there  # as /readyz has it: a probe that came back ends it, though nobody has tried since


def caps(config: s.Settings) -> dict[str, float]:
    """How many chats each bot may have open."""
    return {bot.name: bot.max_chats or inf for bot in config.bots}


def watch_bots(metrics: Metrics, gates: Gates, config: s.Settings) -> None:
    """Have every bot's open chats measured."""
    for bot in config.bots:
        metrics.open_chats.labels(bot.name).set_function(partial(gates.open_chats, bot.name))
