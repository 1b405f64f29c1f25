"""What judges without taking anything: a configuration, its rules."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from attachd import settings, wiring
from attachd.commands.configured import DEFAULT_CONFIG, ConfigFile, configuration_errors
from attachd.doubts import doubts
from attachd.errors import Permanent
from attachd.explaining import explained, printable, tried

app = typer.Typer()
rules_app = typer.Typer(help="The rules.", no_args_is_help=True)


@app.command()
def check(
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    eventbridge: Annotated[
        bool, typer.Option("--eventbridge", help="warn also of patterns that EventBridge itself would refuse")
    ] = False,
) -> None:
    """Judge a configuration without using it: every error at once, exit status 78 if there is one.

    Rules that can hardly be meant as they stand are warned of; the exit status remains 0.
    """
    with configuration_errors():
        loaded = settings.load(config)
    for finding in doubts(loaded, time.time(), eventbridge=eventbridge):
        typer.echo(f"attachd: warning: rule {finding}", err=True)
    with configuration_errors():  # a secret may be missing where rules are judged: in CI
        wiring.check(loaded)
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
    with configuration_errors():
        rules = wiring.rules(settings.load(config))
    try:
        body = sys.stdin.buffer.read() if str(event) == "-" else event.read_bytes()
        told = explained(rules, body, attributes)
    except (OSError, Permanent) as error:
        why = error.strerror if isinstance(error, OSError) else error
        typer.echo(f"attachd: {event}: {why}", err=True)
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
    with configuration_errors():
        rules = wiring.rules(settings.load(config))
        try:
            trials = list(tried(rules, folder))
        except OSError as error:
            typer.echo(f"attachd: {error.filename or folder}: {error.strerror}", err=True)
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
