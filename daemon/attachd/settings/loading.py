"""Reading a configuration file, and saying everything that is wrong with it at once.

Each sentence names the file, the table and the key, in the words of the file: ``[[rules]] 2 'web chat', bot``.
No value of the file is quoted unless it is a name: it may be a secret that stands in the wrong place.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from attachd.errors import Misconfigured
from attachd.settings.agreement import problems_between
from attachd.settings.secrets import SecretRef
from attachd.settings.tables import ENV_PREFIX, Settings, WebhookRuntime
from attachd.settings.wording import TABLES, did_you_mean, sentence


def load(path: Path) -> Settings:
    """Read and judge a configuration file, and the environment that overrides it.

    Args:
        path: the TOML file.

    Raises:
        Misconfigured: with a sentence for every error found, each naming file, table and key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured([f"{path}: {error.strerror}; name another one with --config FILE"]) from None
    except (ValueError, RecursionError) as error:  # tomllib's and UTF-8's errors are ValueErrors
        raise Misconfigured([f"{path}: {error}"]) from None
    problems = list(_strange_environment(os.environ))
    unknown = [key for key in data if key not in Settings.model_fields]
    problems += [f"{path}: {key}: there is no such key{did_you_mean(key, TABLES)}" for key in unknown]
    known = {key: value for key, value in data.items() if key not in unknown}
    settings: Settings | None = None
    try:
        settings = Settings(**known)
    except ValidationError as error:
        problems += [
            f"{_whence(details['loc'], os.environ) or path}: {sentence(details, known)}"
            for details in _apt(error.errors())
        ]
    except SettingsError as error:
        problems += [f"environment: {error}"]
    judged = {**_given(os.environ), **known} if settings is None else settings.model_dump(exclude_none=True)
    problems += [f"{path}: {problem}" for problem in problems_between(judged)]
    if settings is None or problems:
        raise Misconfigured(problems)
    return settings


def _given(environ: Mapping[str, str]) -> Mapping[str, object]:
    """Tables that the environment begins: they are not missing."""
    names = (name.removeprefix(ENV_PREFIX) for name in environ if name.startswith(ENV_PREFIX))
    return {name.split("__")[0].lower(): {} for name in names}


def webhook(url: str, *, secret_env: str | None, ca: Path | None, wants_ended: bool) -> WebhookRuntime:
    """A runtime that stands in no file.

    Raises:
        Misconfigured: with a sentence for every error found.
    """
    if secret_env is None:
        raise Misconfigured(["give the environment variable of the signing secret: --secret-env NAME"])
    try:
        return WebhookRuntime(
            type="webhook", url=url, secret=(SecretRef(env=secret_env),), ca=ca, wants_ended=wants_ended
        )
    except ValidationError as error:
        told = [details["msg"].removeprefix("Value error, ") for details in error.errors()]
        raise Misconfigured([f"runtime: {sentence}" for sentence in told]) from None


def _apt(errors: list[ErrorDetails]) -> Iterable[ErrorDetails]:
    """Without the complaint that a list is too short of which only the items are bad."""
    inside = {details["loc"][:i] for details in errors for i in range(1, len(details["loc"]))}
    return (details for details in errors if details["type"] != "too_short" or details["loc"] not in inside)


def _whence(loc: tuple[int | str, ...], environ: Mapping[str, str]) -> str | None:
    """The environment variable that what is wrong came from, if it did not come from the file."""
    steps = [str(step).lower() for step in loc]
    for name in environ:
        given = name.removeprefix(ENV_PREFIX).lower().split("__")
        # Between them pydantic may name the branch of a union, which is in no variable's name.
        if name.startswith(ENV_PREFIX) and (given[0], given[-1]) == (steps[0], steps[-1]):
            return f"environment variable {name}"
    return None


def _strange_environment(environ: Mapping[str, str]) -> Iterable[str]:
    """A misspelt override would be silently ignored otherwise."""
    for name in environ:
        table = name.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if name.startswith(ENV_PREFIX) and table not in Settings.model_fields:
            yield f"environment variable {name}: there is no table {table!r}{did_you_mean(table, TABLES)}"
