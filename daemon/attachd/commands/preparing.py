"""What is made, or tried out, before the service starts: tables, secrets, runtimes."""

from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attachd import logs, settings, wiring
from attachd.commands.configured import DEFAULT_CONFIG, ConfigFile, configuration_errors
from attachd.conformance import examine
from attachd.explaining import printable

app = typer.Typer()
journal = typer.Typer(help="The journal's table.", no_args_is_help=True)
leases = typer.Typer(help="The lease table of a Kinesis source.", no_args_is_help=True)
runtime = typer.Typer(help="The bots' runtimes.", no_args_is_help=True)


@journal.command("create")
def journal_create(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Make the journal's DynamoDB table, on-demand and with TTL, where it is missing. Safe to repeat."""
    with configuration_errors():
        for sentence in anyio.run(wiring.create_journal, settings.load(config)):
            typer.echo(sentence)


@leases.command("create")
def leases_create(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Make the DynamoDB table for the leases of a Kinesis source, on-demand, where it is missing. Safe to repeat."""
    with configuration_errors():
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
    with configuration_errors():
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
