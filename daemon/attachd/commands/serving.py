"""What takes events: the service itself, a replay, the demo."""

import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import anyio
import typer

from attachd import cores, logs, wiring
from attachd.commands.configured import DEFAULT_CONFIG, ConfigFile, configuration_errors, innermost, read
from attachd.sources.file import FileSource

app = typer.Typer()


@app.command()
def run(
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="everything but the calls, on a queue of its own: it takes the events"),
    ] = False,
    dry_run: Annotated[
        Path | None,
        typer.Option(
            help="everything but the calls, for the events of this file, one a line; - for standard input"
        ),
    ] = None,
) -> None:
    """Serve until SIGTERM, then drain. SIGHUP reads the rules and bots of the configuration anew."""
    if shadow and dry_run is not None:
        raise typer.BadParameter("--shadow rehearses with the queue, --dry-run with a file: give one of them")
    events = None if dry_run is None else _events(dry_run)
    rehearsal = shadow or events is not None
    _run(config, wiring.Mode(rehearsal=rehearsal, events=events, any_age=events is not None))


@app.command()
def replay(
    events: Annotated[
        Path, typer.Argument(help="contact events, a JSON document a line; - for standard input")
    ],
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    any_age: Annotated[bool, typer.Option("--any-age", help="no event is too old for a bot")] = False,
) -> None:
    """Carry the events of a file down the line, instead of the source's: archived or dead-lettered ones.

    The journal knows which chats were served: they get no second bot. Exit status 1 if it ended before the file did.
    """
    source = _events(events)
    ended = _run(config, wiring.Mode(events=source, any_age=any_age))
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(ended.items()) if count)
    typer.echo(f"{events}: {told or 'no events'}")
    raise typer.Exit(0 if source.finished.is_set() else 1)


def _run(config: Path, mode: wiring.Mode) -> Mapping[str, int]:
    uvloop = find_spec("uvloop") is not None
    with configuration_errors():
        loaded = read(config)
        logs.configure(loaded.logging.level, loaded.logging.format)
        cores.forbid()
        return anyio.run(
            wiring.run, loaded, mode, partial(read, config), backend_options={"use_uvloop": uvloop}
        )


def _events(path: Path) -> FileSource:
    if str(path) == "-":
        return FileSource("standard input", lambda: sys.stdin.buffer)
    return FileSource(str(path), lambda: path.open("rb"))


@app.command()
def demo(
    chats: Annotated[int, typer.Option(min=1, max=1000, help="how many customers come")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="over how long they come")] = 10.0,
    keep: Annotated[Path | None, typer.Option(help="leave logs, configuration and journal here")] = None,
) -> None:
    """Play the whole line on this machine: embedded AWS, a simulated Connect, two bots, fifty customers."""
    if find_spec("moto") is None:
        typer.echo("attachd: the demo needs an extra: pip install 'attachd[demo]'", err=True)
        raise typer.Exit(1)
    from attachd.demo import play, processes  # noqa: PLC0415 - an extra

    try:
        good = anyio.run(play, chats, seconds, keep)
    except* (OSError, processes.NotStarted) as group:
        typer.echo(f"attachd: the demo cannot be played: {innermost(group)}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if good else 1)
