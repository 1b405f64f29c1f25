"""The command line. Each command says what it does, does it, and exits with a status that means something.

0  done (for run: after a clean drain)    1  no, or failed    78  the configuration is wrong (EX_CONFIG)
"""

from typing import Annotated

import typer

from attachd import wiring
from attachd.commands import contacts, judging, preparing, serving
from attachd.simulator.command import simulate

app = typer.Typer(
    name="attachd",
    help="Attaches custom bots to Amazon Connect chats.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(simulate)
for family in (serving.app, judging.app, preparing.app):
    app.add_typer(family)
app.add_typer(contacts.app, name="contacts")
app.add_typer(preparing.journal, name="journal")
app.add_typer(preparing.leases, name="leases")
app.add_typer(preparing.runtime, name="runtime")
app.add_typer(judging.rules_app, name="rules")


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


if __name__ == "__main__":
    main()
