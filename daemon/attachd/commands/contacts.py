"""What the journal knows of contacts: listed, shown, forgotten, taken up again. Beside a service that runs, or without."""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Final, TypeVar

import anyio
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from attachd import contacts, logs, settings, wiring
from attachd.commands.configured import DEFAULT_CONFIG, ConfigFile, configuration_errors
from attachd.contacts import Known
from attachd.explaining import printable
from attachd.lifecycle import Stage, Wanted
from attachd.ports import Journal
from attachd.settings.fields import Seconds

T = TypeVar("T")

_WATCH_SECONDS: Final = 2.0
_DURATION: Final = TypeAdapter[float](Seconds)
_SHADES: Final = {
    Stage.CLAIMED: "cyan",
    Stage.ATTACHING: "cyan",
    Stage.ATTACHED: "cyan",
    Stage.HANDED_OFF: "green",
    Stage.CLOSED: "yellow",
    Stage.ENDED: "dim",
}

app = typer.Typer(help="What the journal knows of contacts.")
ContactId = Annotated[str, typer.Argument(metavar="ID", help="the contact's id")]
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]


@app.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    stage: Annotated[
        list[Stage] | None, typer.Option(help="in this stage; may be given more than once")
    ] = None,
    bot: Annotated[str | None, typer.Option(help="with this bot")] = None,
    age: Annotated[
        str | None, typer.Option(metavar="DURATION", help="changed within so long: 90s, 15m, 2h")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="DURATION", help="not changed for so long")
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="again every 2 s, until Ctrl-C")] = False,
) -> None:
    """List what the journal knows: a contact a line, those that changed last at the end."""
    if context.invoked_subcommand is not None:
        if stage or bot or age or older_than or watch:
            raise typer.BadParameter(
                f"--stage, --bot, --age, --older-than and --watch are for a list, not for {context.invoked_subcommand}"
            )
        # Ignored, `contacts --config staging.toml forget ID` would forget in production.
        context.default_map = {
            verb: {"config": config, "as_json": as_json} for verb in ("show", "forget", "retry")
        }
        return
    youngest = _seconds(older_than, "--older-than") if older_than else -inf
    oldest = _seconds(age, "--age") if age else inf

    async def look(journal: Journal) -> Sequence[Known]:
        now = time.time()
        wanted = Wanted(frozenset(stage or Stage), bot, since=now - oldest, before=now - youngest)
        return await contacts.known(journal, now, wanted)

    async def keep_looking(journal: Journal) -> None:
        console = _console()
        while True:
            table = _table(await look(journal))
            console.clear()
            console.print(table)
            await anyio.sleep(_WATCH_SECONDS)

    if watch and not as_json:
        with suppress(KeyboardInterrupt):
            _with_journal(config, keep_looking)
        raise typer.Exit
    found = _with_journal(config, look)
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found]))
    else:
        _console().print(_table(found))


@app.command()
def show(contact_id: ContactId, config: ConfigFile = DEFAULT_CONFIG, *, as_json: AsJson = False) -> None:
    """Everything that the journal knows of one contact. Exit status 1 if it knows nothing."""
    found = _with_journal(config, lambda journal: contacts.shown(journal, time.time(), contact_id))
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    for name, value in found.as_json().items():
        typer.echo(f"{name:16}{_readable(name, value)}")


@app.command()
def forget(contact_id: ContactId, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Forget a contact: its next event is served as if it were the first. Exit status 1 if it is being served."""
    forgotten = _with_journal(config, lambda journal: contacts.forget(journal, contact_id))
    typer.echo(f"contact {contact_id} was {forgotten.stage} and is forgotten")


@app.command()
def retry(contact_id: ContactId, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Have the running attachd take a contact up again, within seconds. Exit status 1 if it has a bot, or is over."""
    entry = _with_journal(config, lambda journal: contacts.retry(journal, contact_id, time.time()))
    typer.echo(f"contact {contact_id} is {entry.stage}; an attachd that runs takes it up within seconds")


def _seconds(given: str, option: str) -> float:
    try:
        return _DURATION.validate_python(given)
    except ValidationError as error:
        raise typer.BadParameter(
            error.errors()[0]["msg"].removeprefix("Value error, "), param_hint=option
        ) from None


def _with_journal(config: Path, do: Callable[[Journal], Awaitable[T]]) -> T:
    async def run(loaded: settings.Settings) -> T:
        async with wiring.journal_beside(loaded) as journal:
            return await do(journal)

    logs.configure("error", "console")
    try:
        with configuration_errors():
            return anyio.run(run, settings.load(config))
    except contacts.NotSo as error:
        typer.echo(f"attachd: {error}", err=True)
    raise typer.Exit(1)


def _readable(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and (name == "since" or name.endswith("_at")):
        moment = datetime.fromtimestamp(value, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return printable(str(value))


def _console() -> Console:
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, markup=False, width=wide)


def _table(found: Sequence[Known]) -> Table:
    # An id that is cut short cannot be given to `show`; what may be folded is the rest.
    longest = max((len(printable(one.entry.contact_id)) for one in found), default=0)
    table = Table(
        Column("contact", no_wrap=True, min_width=longest),
        Column("stage", no_wrap=True),
        "bot",
        "rule",
        Column("gen.", no_wrap=True),
        Column("age", no_wrap=True),
        "owner",
        "reason",
    )
    for one in found:
        entry = one.entry
        owner = {None: "", True: "at work", False: "gone"}[one.alive]
        table.add_row(
            printable(entry.contact_id),
            Text(entry.stage, _SHADES[entry.stage]),
            printable(entry.bot or ""),
            printable(entry.rule or ""),
            str(entry.generation),
            _age(one.age),
            Text(owner, "red" if one.alive is False else ""),
            printable(entry.reason or ""),
        )
    table.caption = f"{len(found)} contacts"
    return table


def _age(age: float) -> str:
    for unit, long in (("d", 86_400), ("h", 3600), ("m", 60)):
        if age >= long:
            return f"{age / long:.1f}{unit}"
    return f"{max(0.0, age):.0f}s"
