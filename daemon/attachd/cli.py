"""The command line. Each command says what it does, does it, and exits with a status that means something.

0  done (for run: after a clean drain)    1  no, or failed    78  the configuration is wrong (EX_CONFIG)
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attachd import cores, logs, settings, wiring
from attachd.conformance import examine
from attachd.doubts import doubts
from attachd.errors import Misconfigured, Permanent, Transient
from attachd.explaining import explained, printable, tried
from attachd.simulator.command import simulate
from attachd.sources.file import FileSource

EX_CONFIG: Final = 78

app = typer.Typer(
    name="attachd",
    help="Attaches custom bots to Amazon Connect chats.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="the configuration file")]
DEFAULT_CONFIG: Final = Path("/etc/attachd/attachd.toml")
app.command()(simulate)
journal = typer.Typer(help="The journal's table.", no_args_is_help=True)
app.add_typer(journal, name="journal")
leases = typer.Typer(help="The lease table of a Kinesis source.", no_args_is_help=True)
app.add_typer(leases, name="leases")
runtime = typer.Typer(help="The bots' runtimes.", no_args_is_help=True)
app.add_typer(runtime, name="runtime")
rules_app = typer.Typer(help="The rules.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")


def main() -> None:
    """The console script."""
    app()


def _version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        typer.echo(wiring.USER_AGENT.replace("/", " "))
        raise typer.Exit


@app.callback()
def attachd(
    *, version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False
) -> None:
    """Attaches custom bots to Amazon Connect chats."""
    del version


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
    with _configuration_errors():
        loaded = _read(config)
        logs.configure(loaded.logging.level, loaded.logging.format)
        cores.forbid()
        return anyio.run(
            wiring.run, loaded, mode, partial(_read, config), backend_options={"use_uvloop": uvloop}
        )


def _read(config: Path) -> settings.Settings:
    """A configuration that attachd could start with."""
    loaded = settings.load(config)
    wiring.check(loaded)
    return loaded


def _events(path: Path) -> FileSource:
    if str(path) == "-":
        return FileSource("standard input", lambda: sys.stdin.buffer)
    return FileSource(str(path), lambda: path.open("rb"))


@app.command()
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Judge a configuration without using it: every error at once, exit status 78 if there is one.

    Rules that can hardly be meant as they stand are warned of; the exit status remains 0.
    """
    with _configuration_errors():
        loaded = _read(config)
    for finding in doubts(loaded, time.time()):
        typer.echo(f"attachd: warning: rule {finding}", err=True)
    typer.echo(
        f"{config}: good: {len(loaded.rules)} rules, {len(loaded.bots)} bots, {len(loaded.runtimes)} runtimes"
    )


@app.command()
def explain(
    event: Annotated[Path, typer.Argument(help="a contact event as JSON; - for standard input")],
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="a user attribute of the contact's"),
    ] = None,
    no_attributes: Annotated[bool, typer.Option("--no-attributes", help="the contact has none")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Which bot this event would get, by which rule, or why none. Exit status 1 if none."""
    attributes = _attributes(attribute or []) if attribute or no_attributes else None
    with _configuration_errors():
        rules = wiring.rules(settings.load(config))
    try:
        body = sys.stdin.buffer.read() if str(event) == "-" else event.read_bytes()
        told = explained(rules, body, attributes)
    except (OSError, Permanent) as error:
        typer.echo(f"{event}: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(told.as_json()))
    else:
        console = Console(highlight=False, markup=False)
        console.print(told.as_table())
        bots = ", then ".join(told.bots)
        console.print(printable(f"bot {bots}: {told.reason}" if bots else f"no bot: {told.reason}"))
    raise typer.Exit(0 if told.bots else 1)


def _attributes(given: list[str]) -> dict[str, str]:
    if strange := [one for one in given if "=" not in one]:
        raise typer.BadParameter(f"write NAME=VALUE, not {strange[0]!r}", param_hint="--attribute")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


@rules_app.command("test")
def rules_test(
    folder: Annotated[Path, typer.Argument(help="events, one a .json file, and expected.toml")],
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Whether the events of a folder get the bots that its expected.toml says. Exit status 1 if not: docs/rules.md."""
    with _configuration_errors():
        rules = wiring.rules(settings.load(config))
        try:
            trials = list(tried(rules, folder))
        except OSError as error:
            typer.echo(f"{folder}: {error}", err=True)
            raise typer.Exit(1) from None
    wrong = [trial for trial in trials if trial.wrong]
    if as_json:
        typer.echo(json.dumps([trial.as_json() for trial in trials]))
    else:
        for trial in trials:
            said = f"{trial.file}: {trial.got}" + (f" ({trial.wrong})" if trial.wrong else "")
            typer.echo(f"{'✗' if trial.wrong else '✓'} {printable(said)}")
        typer.echo(f"{len(trials)} events, {len(wrong)} wrong")
    raise typer.Exit(1 if wrong else 0)


@journal.command("create")
def journal_create(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Make the journal's DynamoDB table, on-demand and with TTL, where it is missing. Safe to repeat."""
    with _configuration_errors():
        for sentence in anyio.run(wiring.create_journal, settings.load(config)):
            typer.echo(sentence)


@leases.command("create")
def leases_create(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Make the DynamoDB table for the leases of a Kinesis source, on-demand, where it is missing. Safe to repeat."""
    with _configuration_errors():
        for sentence in anyio.run(wiring.create_leases, settings.load(config)):
            typer.echo(sentence)


@app.command()
def secret() -> None:
    """Make a signing secret for a webhook runtime (Standard Webhooks, 32 random bytes)."""
    typer.echo(wiring.new_secret())


@runtime.command("test")
def runtime_test(
    target: Annotated[str, typer.Argument(help="a URL, or the name of a runtime in the configuration")],
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    secret_env: Annotated[
        str | None, typer.Option(help="of a URL: the environment variable that holds the signing secret")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="of a URL: believe these authorities alone, PEM")] = None,
    ended: Annotated[bool, typer.Option(help="of a URL: play ends of chats, too (wants_ended)")] = True,
) -> None:
    """Play the hand-off's contract to a runtime, with made-up chats, and say what to mend. Exit status 1 if anything."""
    with _configuration_errors():
        if "://" in target:
            table: settings.Runtime = settings.webhook(
                target, secret_env=secret_env, ca=ca, wants_ended=ended
            )
        else:
            table = settings.load(config).runtime(target)
        logs.configure("warning", "console")
        findings = anyio.run(
            partial(examine, wiring.examined(table), table.type, wants_ended=table.wants_ended)
        )
    shown = Table("", "check", "answer", "what to mend")
    for finding in findings:
        mark = Text("✗", "red") if finding.mend else Text("✓", "green")
        shown.add_row(mark, finding.check, Text(printable(finding.said)), finding.mend)
    Console(highlight=False, markup=False).print(shown)
    raise typer.Exit(any(finding.mend for finding in findings))


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
        typer.echo(f"attachd: the demo cannot be played: {_innermost(group)}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if good else 1)


@contextmanager
def _configuration_errors() -> Iterator[None]:
    """Say every error and exit with 78, also from inside a task group."""
    try:
        yield
    except* Misconfigured as group:
        for problem in _problems(group):
            typer.echo(f"attachd: {problem}", err=True)
        raise typer.Exit(EX_CONFIG) from None
    except* Transient as group:
        typer.echo(f"attachd: {_innermost(group)}", err=True)
        raise typer.Exit(1) from None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _problems(group: BaseExceptionGroup[Misconfigured]) -> Iterator[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _problems(error)
        else:
            yield from error.problems


if __name__ == "__main__":
    main()
