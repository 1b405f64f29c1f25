"""`attachd simulate`: options in, a running simulator out, until SIGINT, SIGTERM or the end of its traffic. Nothing else."""

import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.console import Console

from attachd.simulator import view
from attachd.simulator.dials import Dials, parse_target
from attachd.simulator.front.server import Simulator, simulator
from attachd.simulator.report import Report
from attachd.simulator.traffic.arrivals import parse_arrivals
from attachd.simulator.traffic.plan import Traffic

_DEFAULT = Dials()
_LAST_PORT = 65535
_FAILURES = ("never", "twice", "two_at_once", "late", "gave_up")


@dataclass(frozen=True, slots=True)
class _Run:
    """What the options ask for besides the dials."""

    traffic: Traffic | None
    seconds: float | None
    quiet: bool


def simulate(  # noqa: PLR0913 - one an option
    *,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:0",
    events: Annotated[
        str, typer.Option(help="Publish contact events to eventbridge:NAME or sqs:URL.", metavar="TARGET")
    ] = "",
    rate: Annotated[float, typer.Option(help="CreateParticipant calls per second.")] = _DEFAULT.rate,
    burst: Annotated[float, typer.Option(help="CreateParticipant calls at once.")] = _DEFAULT.burst,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same ids and tokens; left out, a new one.")
    ] = None,
    token_marker: Annotated[
        str, typer.Option(help="Stands in every token, to search for leaks.")
    ] = _DEFAULT.token_marker,
    instance_arn: Annotated[str, typer.Option(help="The Connect instance to be.")] = _DEFAULT.instance_arn,
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
) -> None:
    """Be Amazon Connect and its Participant Service, on a port of this machine."""
    try:
        host, port = _host_and_port(listen)
        dials = Dials(
            instance_arn=instance_arn,
            seed=random.getrandbits(32) if seed is None else seed,
            token_marker=token_marker,
            rate=rate,
            burst=burst,
            metered=None if all_quotas else _DEFAULT.metered,
            publish_streams=streams,
            events=parse_target(events) if events else None,
        )
        run = _Run(traffic=_traffic(traffic, chats, seconds, patience), seconds=seconds, quiet=quiet)
        failures = _failures(fail_on)
        if report is not None:
            report.open("ab").close()  # better said now than after the run
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    ended: Report | None = None
    try:
        ended = anyio.run(_serve, dials, host, port, run)
    except* OSError as errors:  # bare, or wrapped by the publisher's task group
        typer.echo(f"cannot listen on {listen}: {_innermost(errors)}", err=True)
    if ended is None:
        raise typer.Exit(1)
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(ended)) + b"\n")
    if ended.chats.started and not quiet:
        Console().print(view.table(ended))
    if any(getattr(ended.chats, name) for name in failures):
        raise typer.Exit(1)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _host_and_port(listen: str) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > _LAST_PORT:
        raise ValueError(f"expected HOST:PORT, got {listen!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _traffic(spec: str, chats: int | None, seconds: float | None, patience: float | None) -> Traffic | None:
    """Make the traffic which the options describe."""
    if not spec:
        if chats is not None or patience is not None:
            raise ValueError("--chats and --patience are about customers who come: add --traffic")
        return None
    arrivals = parse_arrivals(spec)
    if patience is None:
        return Traffic(arrivals, seconds=seconds, chats=chats)
    return Traffic(arrivals, seconds=seconds, chats=chats, patience=patience)


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
        async with simulator(dials, host=host, port=port, traffic=run.traffic) as running:
            exports = " ".join(f"{name}={value}" for name, value in running.environment.items())
            typer.echo(
                f"Amazon Connect is simulated at {running.url} (instance {dials.instance_arn}, seed {dials.seed}): export {exports}"
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
