"""Everything put together, and served until a signal says stop."""

import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

import anyio
import structlog

from attachd import aws, health, traces
from attachd import settings as s
from attachd.claims import Claims
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
from attachd.wiring import parts
from attachd.wiring.connects import Connects
from attachd.wiring.sources import Sources

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Mode:
    """How to run, if not as configured.

    Attributes:
        rehearsal: everything but the calls: decisions are made and logged, no participant is, and the journal is
            forgotten.
        events: these instead of the configured sources'; attachd ends with them.
        any_age: no event is too old for a bot.
    """

    rehearsal: bool = False
    events: FileSource | None = None
    any_age: bool = False


AS_CONFIGURED: Final = Mode()


@dataclass(frozen=True)
class App:
    """A service and what is served beside it."""

    service: Service
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
        journal = MemoryJournal() if shadow else parts.journal(config, aws.session(os.environ))
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
        gates = await _gates(config, stack, instances, claims, metrics, shadow=shadow)
        sources = Sources(
            partial(aws.session, os.environ), journal, dice, progress, metrics, config.service.stall, shadow
        )
        service = Service(
            sources=sources.of(config) if mode.events is None else [mode.events],
            pipeline=Pipeline(
                rules=parts.rules(config, any_age=mode.any_age),
                claims=claims,
                instances=instances,
                gates=gates,
                metrics=metrics,
                now=time.time,
                dice=dice,
                leave_when_queued=config.waiting.leave_when_queued,
            ),
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
        yield App(service, metrics, progress, instances, gates, connects)


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
        {bot.name: bot.max_chats or inf for bot in config.bots},
        instances.stir,
        claims.over,
    )
    for name, gate in gates.runtimes.items():
        metrics.circuits.labels("runtime", name).set_function(partial(_open, gate))
    for bot in config.bots:
        metrics.open_chats.labels(bot.name).set_function(partial(gates.open_chats, bot.name))
    return gates


async def _gate(name: str, table: s.Runtime, stack: AsyncExitStack, *, shadow: bool) -> RuntimeGate:
    runtime = ShadowRuntime() if shadow else parts.runtime(table)
    await stack.enter_async_context(runtime.open())
    return RuntimeGate(name, runtime, table.max_handoffs)


def _open(gate: RuntimeGate) -> bool:
    return not gate.circuit.closed


async def run(
    config: s.Settings, mode: Mode = AS_CONFIGURED, environ: Mapping[str, str] = os.environ
) -> Mapping[str, int]:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the drain at once.

    Args:
        config: the configuration.
        mode: how to run; with events of its own it ends with them.
        environ: where systemd leaves its addresses.

    Returns:
        How many deliveries ended with which outcome.

    Raises:
        Misconfigured: something that the configuration asks for is not there.
    """
    notifier = Notifier(environ)
    if mode.rehearsal:
        structlog.contextvars.bind_contextvars(rehearsal=True)
    # Beside the service, whose port that is:
    listen = config.health.listen if mode.events is None else "127.0.0.1:0"
    async with assembled(config, mode) as app:
        service = app.service
        serving = health.serving(
            listen,
            stalled=app.progress.stalled,
            trouble=lambda: app.trouble,
            metrics=app.metrics,
        )
        async with serving as address, anyio.create_task_group() as beside:
            await beside.start(_obey_signals, service, notifier, config.service.drain)
            beside.start_soon(_keep_systemd_informed, app, notifier)
            if mode.events is not None:
                beside.start_soon(_stop_with, mode.events, service)
            log.info("attachd.starting", version=parts.USER_AGENT, health=address)
            await service.run()
            beside.cancel_scope.cancel()
        log.info("attachd.stopped")
        return app.metrics.ended()


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
