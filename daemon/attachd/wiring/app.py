"""Everything put together, and served until a signal says stop."""

import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf

import anyio
import structlog

from attachd import aws, health, traces
from attachd import settings as s
from attachd.claims import Claims
from attachd.errors import Misconfigured
from attachd.gates import Gates, RuntimeGate
from attachd.instances import Instances
from attachd.journals.memory import MemoryJournal
from attachd.metrics import Metrics
from attachd.notify import Notifier
from attachd.pipeline import Pipeline
from attachd.progress import Progress
from attachd.replicas import Replicas
from attachd.service import Service
from attachd.shadow import ShadowRuntime
from attachd.sources.file import FileSource
from attachd.wiring import parts, reloading
from attachd.wiring.connects import Connects

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rehearsal:
    """Everything but the calls: decisions are made and logged, no participant is, and the journal is forgotten.

    Without ``events`` it takes those of the configured source, as ever: shadow mode, for a queue of its own.
    """

    events: FileSource | None = None


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

    @property
    def trouble(self) -> list[str]:
        """Why chats get no bot at the moment, a sentence each; none when they do."""
        return [*self.service.trouble, *self.instances.trouble, *self.gates.trouble]

    @property
    def waiting(self) -> int:
        """Chats that wait for a token or a runtime."""
        return self.connects.waiting


@asynccontextmanager
async def assembled(config: s.Settings, rehearsal: Rehearsal | None = None) -> AsyncIterator[App]:
    """Everything that a configuration asks for, opened; closed in reverse order at the end.

    Args:
        config: the configuration.
        rehearsal: everything but the calls.

    Raises:
        Misconfigured: something it asks for is not there.
    """
    metrics, progress, dice = Metrics(), Progress(time.monotonic), random.Random()
    async with AsyncExitStack() as stack:
        trace = stack.enter_context(traces.exporting())
        shadow = rehearsal is not None
        session = aws.session(os.environ)
        journal = MemoryJournal() if shadow else parts.journal(config, session)
        await stack.enter_async_context(journal.open())
        connects = Connects(config, metrics, stack, shadow=shadow)
        instances = Instances(
            connects.instance, partial(progress.reporter, within_seconds=config.service.stall)
        )
        owner = uuid.uuid4().hex
        replicas = Replicas(
            journal,
            owner,
            seats=lambda: connects.seats,
            waiting=lambda: connects.waiting,
            on_share=connects.share,
        )
        await stack.enter_async_context(replicas.joined())
        claims = Claims(
            journal,
            owner,
            now=time.time,
            alive=replicas.alive,
            generations=config.waiting.generations,
        )
        gates = Gates(
            [await _gate(name, table, stack, shadow=shadow) for name, table in config.runtimes.items()],
            _caps(config),
            instances.stir,
            claims.over,
        )
        _watch(metrics, gates, config)
        pipeline = Pipeline(
            rules=parts.rules(config),
            claims=claims,
            instances=instances,
            gates=gates,
            metrics=metrics,
            now=time.time,
            dice=dice,
            leave_when_queued=config.waiting.leave_when_queued,
        )
        events = rehearsal.events if rehearsal is not None else None
        source = events or parts.source(config.source, session, dice)
        service = Service(
            sources=[source],
            pipeline=pipeline,
            background={
                "instances": instances.run,
                "runtimes": gates.run,
                "replicas": replicas.run,
                "journal": partial(claims.compact, config.service.keep),
            },
            metrics=metrics,
            progress=progress,
            limits=parts.limits(config.service),
            dice=dice,
            trace=trace,
        )
        for table in config.instances:
            await instances.of(table.arn)
        connects.serve()
        yield App(service, pipeline, metrics, progress, instances, gates, connects)


def _caps(config: s.Settings) -> dict[str, float]:
    return {bot.name: bot.max_chats or inf for bot in config.bots}


async def _gate(name: str, table: s.Runtime, stack: AsyncExitStack, *, shadow: bool) -> RuntimeGate:
    runtime = ShadowRuntime() if shadow else parts.runtime(table)
    await stack.enter_async_context(runtime.open())
    return RuntimeGate(name, runtime, table.max_handoffs)


def _watch(metrics: Metrics, gates: Gates, config: s.Settings) -> None:
    for name, gate in gates.runtimes.items():
        metrics.circuits.labels("runtime", name).set_function(partial(_open, gate))
    _watch_bots(metrics, gates, config)


def _watch_bots(metrics: Metrics, gates: Gates, config: s.Settings) -> None:
    for bot in config.bots:
        metrics.open_chats.labels(bot.name).set_function(partial(gates.open_chats, bot.name))


def _open(gate: RuntimeGate) -> bool:
    return not gate.circuit.closed


async def run(
    config: s.Settings,
    rehearsal: Rehearsal | None = None,
    read: Callable[[], s.Settings] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the drain at once. SIGHUP reads anew.

    Args:
        config: the configuration.
        rehearsal: everything but the calls; with events of its own it ends with them.
        read: reads the configuration anew; raises ``Misconfigured``.
        environ: where systemd leaves its addresses.

    Raises:
        Misconfigured: something that the configuration asks for is not there.
    """
    notifier = Notifier(environ)
    if rehearsal is not None:
        structlog.contextvars.bind_contextvars(rehearsal=True)
    async with assembled(config, rehearsal) as app:
        service = app.service
        serving = health.serving(
            config.health.listen,
            stalled=app.progress.stalled,
            trouble=lambda: app.trouble,
            metrics=app.metrics,
        )
        async with serving as address, anyio.create_task_group() as beside:
            await beside.start(_obey_signals, service, notifier, config.service.drain)
            if read is not None:
                await beside.start(_obey_hangups, app, notifier, config, read)
            beside.start_soon(_keep_systemd_informed, app, notifier)
            if rehearsal is not None and rehearsal.events is not None:
                beside.start_soon(_stop_with, rehearsal.events, service)
            log.info("attachd.starting", version=parts.USER_AGENT, health=address)
            await service.run()
            beside.cancel_scope.cancel()
    log.info("attachd.stopped")


async def _stop_with(events: FileSource, service: Service) -> None:
    await events.finished.wait()
    service.stop()


async def _obey_signals(
    service: Service,
    notifier: Notifier,
    drain_seconds: float,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info(
                "attachd.stopping",
                signal=signal.Signals(number).name,
                next="ending now" if service.draining else f"draining for at most {drain_seconds:.0f} s",
            )
            notifier.stopping("draining", drain_seconds)
            service.stop()


async def _obey_hangups(
    app: App,
    notifier: Notifier,
    config: s.Settings,
    read: Callable[[], s.Settings],
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            ready = app.service.ready.is_set()
            if ready:  # before that, nobody waits for the end of a reload
                notifier.reloading()
            config = await _reloaded(app, config, read)
            if ready:
                notifier.ready("taking chats")


async def _reloaded(app: App, running: s.Settings, read: Callable[[], s.Settings]) -> s.Settings:
    """Put in force what can be; the configuration that is, from now on."""
    try:
        found = await anyio.to_thread.run_sync(read)  # thousands of rules take a moment
        change = reloading.change(running, found)
        rules = await anyio.to_thread.run_sync(parts.rules, change.config)
    except Misconfigured as error:
        log.error("configuration.refused", problems=error.problems, next="what was in force stays so")
        return running
    app.pipeline.rules = rules
    app.gates.cap(_caps(change.config))
    _watch_bots(app.metrics, app.gates, change.config)
    log.info("configuration.reloaded", **(change.told or {"changed": False}))
    if change.needs_restart:
        log.warning(
            "configuration.needs_restart",
            tables=change.needs_restart,
            next="these stay as they were until attachd is restarted",
        )
    return change.config


async def _keep_systemd_informed(app: App, notifier: Notifier) -> None:
    """READY once the first poll has succeeded; then the status, and the watchdog while every task gets on."""
    await app.service.ready.wait()
    log.info("attachd.ready")
    notifier.ready("taking chats")
    period = min(5.0, notifier.watchdog_seconds / 3 or 5.0)
    while True:
        stalled = app.progress.stalled()
        if stalled:
            log.error(
                "attachd.stalled", tasks=stalled, next="the watchdog is not fed; systemd will restart us"
            )
        else:
            notifier.alive()
        status = "; ".join(stalled or app.trouble)
        notifier.status(status or f"taking chats; {app.waiting} waiting")
        await anyio.sleep(period)
