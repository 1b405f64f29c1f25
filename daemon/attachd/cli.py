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
from attachd.contact_fields import CONTACT_EVENT
from attachd.decode import MAX_BYTES, decode
from attachd.errors import Misconfigured, Permanent, Transient
from attachd.lifecycle import Effect, effect
from attachd.model import ContactEvent
from attachd.patterns.lint import lint
from attachd.rules import Rules
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
    """Serve until SIGTERM, then drain."""
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
        loaded = settings.load(config)
        wiring.check(loaded)
        logs.configure(loaded.logging.level, loaded.logging.format)
        cores.forbid()
        return anyio.run(wiring.run, loaded, mode, backend_options={"use_uvloop": uvloop})


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
        loaded = settings.load(config)
        wiring.check(loaded)
    for finding in lint({rule.name: rule.when for rule in loaded.rules}, CONTACT_EVENT):
        typer.echo(f"attachd: warning: rule {finding}", err=True)
    typer.echo(
        f"{config}: good: {len(loaded.rules)} rules, {len(loaded.bots)} bots, {len(loaded.runtimes)} runtimes"
    )


@app.command()
def explain(
    event: Annotated[Path, typer.Argument(help="a contact event as JSON; - for standard input")],
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Which bot this event would get, by which rule, or why none. Exit status 1 if none."""
    with _configuration_errors():
        rules = wiring.rules(settings.load(config))
    try:
        body = sys.stdin.buffer.read() if str(event) == "-" else event.read_bytes()
        decoded = decode(body, received_at=time.time(), max_bytes=MAX_BYTES)
        verdicts = list(rules.explain(decoded))
    except (OSError, Permanent) as error:
        typer.echo(f"{event}: {error}", err=True)
        raise typer.Exit(1) from None
    bot, rule, reason = _chosen(rules, decoded)
    if as_json:
        told = {
            "contact": decoded.contact.id,
            "event": decoded.type,
            "bot": bot,
            "rule": rule,
            "reason": reason,
            "rules": [{"rule": v.rule, "matched": v.matched, "why": v.why} for v in verdicts],
        }
        typer.echo(json.dumps(told))
    else:
        title = Text(_printable(f"contact {decoded.contact.id} · {decoded.type}"))
        table = Table("", "rule", "why", title=title, title_justify="left")
        for verdict in verdicts:
            mark = Text("✓", "green") if verdict.matched else Text("✗", "red")
            table.add_row(mark, Text(_printable(verdict.rule)), Text(_printable(verdict.why)))
        console = Console(highlight=False, markup=False)
        console.print(table)
        console.print(_printable(f"bot {bot}: {reason}" if bot else f"no bot: {reason}"))
    raise typer.Exit(0 if bot else 1)


def _printable(foreign: str) -> str:
    """Foreign text for a terminal: without what would steer it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in foreign)


def _chosen(rules: Rules, event: ContactEvent) -> tuple[str | None, str | None, str]:
    """The bot, the rule and the reason; neither of the first two where there is no bot."""
    if effect(event.contact, event.type) is not Effect.OPENS:
        return (
            None,
            None,
            f"{event.type} opens no {event.contact.channel} contact for a bot: see docs/operations.md",
        )
    try:
        choice = rules.choose(event)
    except Permanent as error:
        return None, None, error.detail
    return choice.bots[0].name, choice.rule, f"rule {choice.rule!r} is the first that matches"


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
        shown.add_row(mark, finding.check, Text(_printable(finding.said)), finding.mend)
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
