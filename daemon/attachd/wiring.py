"""The composition root: alone names concrete classes, and turns a configuration into a running service."""

import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import anyio
import structlog
from aiobotocore.session import AioSession, get_session

from attachd import health, traces
from attachd import settings as s
from attachd.claims import Claims
from attachd.connect import clients
from attachd.errors import Misconfigured
from attachd.journals.dynamodb import DynamoJournal
from attachd.journals.memory import MemoryJournal
from attachd.journals.sqlite import SqliteJournal
from attachd.metrics import Metrics
from attachd.model import Bot, Secret
from attachd.notify import Notifier
from attachd.patterns import compile_pattern
from attachd.pipeline import Pipeline
from attachd.ports import Journal, Runtime, Source
from attachd.progress import Progress
from attachd.quota import Quota, Rate
from attachd.replicas import Replicas
from attachd.rules import Rule, Rules
from attachd.runtimes.python import PythonRuntime, load
from attachd.runtimes.webhook import WebhookRuntime
from attachd.service import Limits, Service
from attachd.sources.sqs import SqsSource
from attachd.waiting import Room

USER_AGENT = f"attachd/{version('attachd')}"

log = structlog.get_logger(__name__)


def rules(config: s.Settings) -> Rules:
    """The rules in force under a configuration."""
    bots = {
        bot.name: Bot(bot.name, bot.display_name, bot.runtime, bot.role, bot.capabilities.as_request())
        for bot in config.bots
    }
    return Rules(
        Rule(rule.name, compile_pattern(rule.when), bots[rule.bot], rule.priority, rule.attach_within)
        for rule in config.rules
    )


def check(config: s.Settings) -> None:
    """Build everything that can be built without a network: secrets are read, callables imported.

    Raises:
        Misconfigured: with every problem found.
    """
    rules(config)
    problems: list[str] = []
    for name, table in config.runtimes.items():
        try:
            _runtime(table)
        except Misconfigured as error:
            problems += [f"[runtimes.{name}] {problem}" for problem in error.problems]
    if problems:
        raise Misconfigured(problems)


def _runtime(table: s.Runtime) -> WebhookRuntime | PythonRuntime:
    match table:
        case s.WebhookRuntime():
            secrets: list[Secret] = [reference.read() for reference in table.secret]
            return WebhookRuntime(
                table.url, secrets, timeout_seconds=table.timeout, now=time.time, user_agent=USER_AGENT
            )
        case s.PythonRuntime():
            return PythonRuntime(load(table.callable), timeout_seconds=table.timeout)


def _journal(config: s.Settings, session: AioSession) -> Journal:
    match config.journal:
        case s.MemoryJournal():
            return MemoryJournal()
        case s.SqliteJournal() as table:
            return SqliteJournal(table.file())
        case s.DynamoJournal() as table:
            return DynamoJournal(
                session, table.table, keep_seconds=config.service.keep, user_agent=USER_AGENT
            )


async def create_journal(config: s.Settings) -> list[str]:
    """Make what the journal needs, where attachd may not make it by itself; what was done, a sentence each.

    Raises:
        Misconfigured: it cannot be made so.
        Transient: it cannot be made now.
    """
    journal = _journal(config, _session(os.environ))
    if isinstance(journal, DynamoJournal):
        return await journal.create()
    return [f"[journal] type {config.journal.type!r} needs nothing made"]


def _source(table: s.SqsSource, session: AioSession, dice: random.Random) -> Source:
    return SqsSource(
        session,
        table.queue_url,
        quarantine_url=table.quarantine_url,
        poll_seconds=round(table.poll),
        visibility_seconds=round(table.visibility),
        now=time.time,
        dice=dice,
        user_agent=USER_AGENT,
    )


def _session(environ: Mapping[str, str]) -> AioSession:
    """Where clients come from. botocore alone among AWS tools reads only AWS_DEFAULT_REGION, not AWS_REGION."""
    session = get_session()
    if region := environ.get("AWS_REGION"):
        session.set_config_variable("region", region)
    return session


@dataclass(frozen=True)
class App:
    """A service and what is served beside it."""

    service: Service
    metrics: Metrics
    progress: Progress
    room: Room


@asynccontextmanager
async def assembled(config: s.Settings) -> AsyncIterator[App]:
    """Everything that a configuration asks for, opened; closed in reverse order at the end.

    Raises:
        Misconfigured: something it asks for is not there.
    """
    metrics, progress, dice = Metrics(), Progress(time.monotonic), random.Random()
    session = _session(os.environ)
    async with AsyncExitStack() as stack:
        trace = stack.enter_context(traces.exporting())
        journal = _journal(config, session)
        await stack.enter_async_context(journal.open())
        runtimes: dict[str, Runtime] = {}
        for name, table in config.runtimes.items():
            runtime = _runtime(table)
            await stack.enter_async_context(runtime.open())
            runtimes[name] = runtime
        attacher = await stack.enter_async_context(clients(session, USER_AGENT))
        quota = Quota(Rate(config.quota.rate, config.quota.burst), spent_at=anyio.current_time())
        room = Room(quota, on_depth=metrics.waiting.set)
        owner = uuid.uuid4().hex

        def set_share(share: float, count: int) -> None:
            metrics.replicas.set(count)
            metrics.quota_share.set(share)

        replicas = Replicas(
            journal, owner, seats=config.quota.burst, waiting=lambda: len(room), on_share=set_share
        )
        await stack.enter_async_context(replicas.joined())
        claims = Claims(journal, owner, now=time.time, alive=replicas.alive)
        pipeline = Pipeline(
            rules=rules(config),
            claims=claims,
            room=room,
            attacher=attacher,
            runtimes=runtimes,
            metrics=metrics,
            now=time.time,
            dice=dice,
        )
        service = Service(
            sources=[_source(config.source, session, dice)],
            pipeline=pipeline,
            background={
                "waiting room": room.run,
                "replicas": replicas.run,
                "journal": partial(claims.compact, config.service.keep),
            },
            metrics=metrics,
            progress=progress,
            limits=_limits(config.service),
            dice=dice,
            trace=trace,
        )
        yield App(service, metrics, progress, room)


def _limits(table: s.Service) -> Limits:
    return Limits(
        in_hand=table.max_in_hand,
        drain_seconds=table.drain,
        release_seconds=table.release_after,
        stall_seconds=table.stall,
    )


async def run(config: s.Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the drain at once.

    Raises:
        Misconfigured: something that the configuration asks for is not there.
    """
    notifier = Notifier(environ)
    async with assembled(config) as app:
        service = app.service
        serving = health.serving(
            config.health.listen,
            stalled=app.progress.stalled,
            trouble=lambda: service.trouble,
            metrics=app.metrics,
        )
        async with serving as address, anyio.create_task_group() as beside:
            await beside.start(_obey_signals, service, notifier, config.service.drain)
            beside.start_soon(_keep_systemd_informed, app, notifier)
            log.info("attachd.starting", version=USER_AGENT, health=address)
            await service.run()
            beside.cancel_scope.cancel()
    log.info("attachd.stopped")


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
        status = "; ".join(stalled or app.service.trouble)
        notifier.status(status or f"taking chats; {len(app.room)} waiting for the quota")
        await anyio.sleep(period)
