"""What every command does with a configuration: read it, and say every error that it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from attachd import settings, wiring
from attachd.errors import Misconfigured, Transient

EX_CONFIG: Final = 78
DEFAULT_CONFIG: Final = Path("/etc/attachd/attachd.toml")
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="the configuration file")]


def read(config: Path) -> settings.Settings:
    """A configuration that attachd could start with."""
    loaded = settings.load(config)
    wiring.check(loaded)
    return loaded


@contextmanager
def configuration_errors() -> Iterator[None]:
    """Say every error and exit with 78, also from inside a task group."""
    try:
        yield
    except* Misconfigured as group:
        for problem in _problems(group):
            typer.echo(f"attachd: {problem}", err=True)
        raise typer.Exit(EX_CONFIG) from None
    except* Transient as group:
        typer.echo(f"attachd: {innermost(group)}", err=True)
        raise typer.Exit(1) from None


def innermost(error: BaseException) -> BaseException:
    """What went wrong, out of however many task groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _problems(group: BaseExceptionGroup[Misconfigured]) -> Iterator[str]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _problems(error)
        else:
            yield from error.problems
