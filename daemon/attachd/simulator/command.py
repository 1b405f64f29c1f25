"""`attachd simulate`: options in, a running simulator out, until SIGINT, SIGTERM or the end of its traffic. Nothing else."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import typer
from rich.console import Console

from attachd.simulator import view
from attachd.simulator.dials import Dials
from attachd.simulator.front.api import router
from attachd.simulator.front.clock import ManualClock
from attachd.simulator.front.rehearsal import rehearse
from attachd.simulator.front.server import Simulator, simulator
from attachd.simulator.instants import from_iso
from attachd.simulator.report import Report
from attachd.simulator.scenario.reading import Scenario, Unreadable, read
from attachd.simulator.state.quotas import CONCURRENT_CHATS
from attachd.simulator.traffic.arrivals import parse_arrivals
from attachd.simulator.traffic.plan import Traffic

_DEFAULT = Dials()
_LAST_PORT = 65535
_FAILURES = ("never", "twice", "two_at_once", "late", "gave_up")
_BAD_CONFIGURATION = 78  # sysexits.h: EX_CONFIG
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC).timestamp()  # where a manual clock stands if nobody says


@dataclass(frozen=True, slots=True)
class _Run:
    """What is asked for besides the dials."""

    now: Callable[[], float]
    traffic: Traffic | None
    seconds: float | None
    quiet: bool


def simulate(  # noqa: PLR0913 - each is an option
    *,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:0",
    scenario: Annotated[
        Path | None, typer.Option(help="A TOML file; options given here win over it.", metavar="FILE")
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="Publish contact events to eventbridge:NAME, kinesis:STREAM or sqs:URL.", metavar="TARGET"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help=f"CreateParticipant calls per second, {_DEFAULT.rate:g} unless given."),
    ] = None,
    burst: Annotated[
        float | None, typer.Option(help=f"CreateParticipant calls at once, {_DEFAULT.burst:g} unless given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same ids, tokens and faults; left out, a new one.")
    ] = None,
    token_marker: Annotated[
        str | None, typer.Option(help="Stands in every token, to search for leaks.")
    ] = None,
    instance_arn: Annotated[
        list[str] | None, typer.Option(help="A Connect instance to be; repeat it for several.")
    ] = None,
    clock: Annotated[
        str,
        typer.Option(
            help="real; or manual, manual:INSTANT: time stands still until POST /_simulator/clock.",
            metavar="CLOCK",
        ),
    ] = "real",
    traffic: Annotated[
        str, typer.Option(help="Customers who come by themselves: poisson:2/s, constant:30/min, burst:50 …")
    ] = "",
    chats: Annotated[int | None, typer.Option(min=0, help="So many of them; then end.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, help="For so many seconds; then end.")
    ] = None,
    patience: Annotated[
        float | None, typer.Option(min=0, help="How many seconds they wait for a bot.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the final report to this file, as JSON.")] = None,
    fail_on: Annotated[
        str, typer.Option(help=f"End with status 1 if the report counts any: {', '.join(_FAILURES)}.")
    ] = "",
    streams: Annotated[
        bool, typer.Option("--streams", help="Publish what is said in streamed chats to their SNS topics.")
    ] = False,
    all_quotas: Annotated[
        bool, typer.Option("--all-quotas", help="Meter every API as AWS does, not CreateParticipant alone.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live view and no printed report.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the scenario is well-formed.")
    ] = False,
) -> None:
    """Be Amazon Connect and its Participant Service, on a port of this machine."""
    given = {
        "events": events,
        "rate": rate,
        "burst": burst,
        "seed": seed,
        "token_marker": token_marker,
        "instances": instance_arn or None,
    }
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    otherwise: dict[str, Any] = {"seed": random.getrandbits(32)}
    if all_quotas:
        said["metered"] = None
        otherwise["concurrent_chats"] = CONCURRENT_CHATS
    if streams:
        said["publish_streams"] = True
    try:
        host, port = _host_and_port(listen)
        now = _clock(clock)
        failures = _failures(fail_on)
        if report is not None:
            report.open("ab").close()  # better said now than after the run
        found = _read(scenario, said, otherwise)
        run = _Run(now, _traffic(found.traffic, traffic, chats, seconds, patience), seconds, quiet)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    if check:
        typer.echo(f"{scenario or 'the command line'}: well-formed")
        return
    ended: Report | None = None
    try:
        ended = anyio.run(_serve, found.dials, host, port, run)
    except* OSError as errors:  # bare, or wrapped by the publisher's task group
        typer.echo(f"cannot listen on {listen}: {_innermost(errors)}", err=True)
    _conclude(ended, report, failures, quiet=quiet)


def _conclude(ended: Report | None, report: Path | None, failures: list[str], *, quiet: bool) -> None:
    """Tell what a run came to, and exit with 1 if it failed or never began."""
    if ended is None:
        raise typer.Exit(1)
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(ended)) + b"\n")
    if ended.chats.started and not quiet:
        view.printed(ended, Console())
    if any(getattr(ended.chats, name) for name in failures):
        raise typer.Exit(1)


def _read(scenario: Path | None, said: dict[str, Any], otherwise: dict[str, Any]) -> Scenario:
    """Read the scenario, if there is one; say all that is wrong with it, and exit."""
    if scenario is None:
        try:
            return read("", given=said, otherwise=otherwise)
        except Unreadable as error:
            raise typer.BadParameter(str(error)) from None
    try:
        found = read(
            scenario.read_text(encoding="utf-8"), given=said, otherwise=otherwise, name=str(scenario)
        )
        if found.traffic is not None:
            rehearse(found.traffic, found.dials, router(), 0.0)
    except Unreadable as error:
        problems = error.problems
    except (OSError, ValueError) as error:  # UTF-8's errors are ValueErrors, and so are a rehearsal's
        problems = (f"{scenario}: {error}",)
    else:
        return found
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(_BAD_CONFIGURATION)


def _clock(text: str) -> Callable[[], float]:
    kind, _, instant = text.partition(":")
    if text == "real":
        return time.time
    if kind != "manual":
        raise ValueError(f"expected real, manual or manual:INSTANT, got {text!r}")
    return ManualClock(from_iso(instant) if instant else _EPOCH)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _named(dials: Dials) -> str:
    existing = [instance.arn for instance in dials.existing()]
    return f"instance{'s' if len(existing) > 1 else ''} {', '.join(existing)}"


def _host_and_port(listen: str) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"expected HOST:PORT, got {listen!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _traffic(
    planned: Traffic | None, spec: str, chats: int | None, seconds: float | None, patience: float | None
) -> Traffic | None:
    """Return the traffic which the scenario plans, in what the options do not say."""
    if planned is None and not spec:
        if chats is not None or patience is not None:
            raise ValueError("--chats and --patience are about customers who come: add --traffic")
        return None
    given = {"chats": chats, "seconds": seconds, "patience": patience}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if spec:
        said["arrivals"] = parse_arrivals(spec)
    return Traffic(**said) if planned is None else msgspec.structs.replace(planned, **said)


def _failures(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in _FAILURES:
            raise ValueError(f"--fail-on knows {', '.join(_FAILURES)}, not {name!r}")
    return names


async def _serve(dials: Dials, host: str, port: int, run: _Run) -> Report:
    """Simulate until told to end, or until the customers have gone; return what it came to."""
    watch = Console(stderr=True, quiet=run.quiet)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with simulator(dials, now=run.now, host=host, port=port, traffic=run.traffic) as running:
            exports = " ".join(f"{name}={value}" for name, value in running.environment.items())
            typer.echo(
                f"Amazon Connect is simulated at {running.url} ({_named(dials)}, seed {dials.seed}): export {exports}"
            )
            async with view.watched(running, watch), anyio.create_task_group() as ends:
                ends.start_soon(_played_out, running, run, ends.cancel_scope)
                async for _ in signals:
                    ends.cancel_scope.cancel()
        return running.report()  # after what was buffered has been published


async def _played_out(running: Simulator, run: _Run, ends: anyio.CancelScope) -> None:
    """End a run whose customers have all come and gone, or whose time is over if none come."""
    if run.traffic is None and run.seconds is None:
        return
    if run.traffic is None:
        await anyio.sleep(run.seconds or 0)
    else:
        await running.customers_gone()
    ends.cancel()
