"""A service, served until a signal says stop; beside it probes, systemd's notifications, and reloads."""

import os
import signal
from collections.abc import Callable, Mapping
from functools import partial

import anyio
import structlog

from attachd import health
from attachd import settings as s
from attachd.errors import Misconfigured
from attachd.notify import Notifier
from attachd.service import Service
from attachd.sources.file import FileSource
from attachd.wiring import parts, reloading
from attachd.wiring.assembly import AS_CONFIGURED, App, Mode, assembled, caps, watch_bots

log = structlog.get_logger(__name__)


async def run(
    config: s.Settings,
    mode: Mode = AS_CONFIGURED,
    read: Callable[[], s.Settings] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Mapping[str, int]:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the drain at once. SIGHUP reads anew.

    Args:
        config: the configuration.
        mode: how to run; with events of its own it ends with them.
        read: reads the configuration anew; raises ``Misconfigured``.
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
            if read is not None:
                await beside.start(_obey_hangups, app, notifier, config, read)
            beside.start_soon(_keep_systemd_informed, app, notifier)
            if mode.events is not None:
                beside.start_soon(_stop_with, mode.events, service)
            log.info(
                "attachd.starting",
                version=parts.USER_AGENT,
                health=address,
                journal=config.journal.type,
                sources=len(config.origins),
                rules=len(config.rules),
                bots=len(config.bots),
            )
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
        make = partial(parts.rules, change.config)
        rules = await anyio.to_thread.run_sync(make)
    except Misconfigured as error:
        log.error("configuration.refused", problems=error.problems, next="what was in force stays so")
        return running
    app.pipeline.rules = rules
    app.gates.cap(caps(change.config))
    watch_bots(app.metrics, app.gates, change.config)
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
