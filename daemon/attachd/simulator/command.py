"""`attachd simulate`: options in, a running simulator out, until SIGINT or SIGTERM. Nothing else."""

import random
import signal
from typing import Annotated

import anyio
import typer

from attachd.simulator.dials import Dials, parse_target
from attachd.simulator.front.server import simulator

_DEFAULT = Dials()
_LAST_PORT = 65535


def simulate(
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
    *,
    streams: Annotated[
        bool, typer.Option("--streams", help="Publish what is said in streamed chats to their SNS topics.")
    ] = False,
    all_quotas: Annotated[
        bool, typer.Option("--all-quotas", help="Meter every API as AWS does, not CreateParticipant alone.")
    ] = False,
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
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    refused = False
    try:
        anyio.run(_serve, dials, host, port)
    except* OSError as errors:  # bare, or wrapped by the publisher's task group
        typer.echo(f"cannot listen on {listen}: {_innermost(errors)}", err=True)
        refused = True
    if refused:
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


async def _serve(dials: Dials, host: str, port: int) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with simulator(dials, host=host, port=port) as running:
            exports = " ".join(f"{name}={value}" for name, value in running.environment.items())
            typer.echo(
                f"Amazon Connect is simulated at {running.url} (instance {dials.instance_arn}, seed {dials.seed}): export {exports}"
            )
            async for _ in signals:
                return
