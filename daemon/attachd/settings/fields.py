"""Kinds of value: how a duration, an ARN, an address or a pattern is written in the file, and what is said if it is not."""

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from attachd.patterns import PatternError, compile_pattern
from attachd.schedules import Hours, time_zone

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_INSTANCE: Final = re.compile(r"arn:aws[\w-]*:connect:[a-z0-9-]+:\d{12}:instance/[\w-]{1,100}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def _seconds(value: object) -> object:
    """``"250ms"``, ``"60s"``, ``"5m"``, ``"2h"``, ``"3d"``, or a number of seconds."""
    if isinstance(value, bool):
        raise ValueError("not a duration")  # noqa: TRY004 - pydantic wants a ValueError
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("not a duration: write a number of seconds, or '250ms', '60s', '5m', '2h', '3d'")
    return float(match[1]) * _UNITS[match[2]]


def _pattern(value: object) -> object:
    """A TOML table, or the JSON text that AWS shows; kept as JSON text, proven to compile."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        compile_pattern(text)
    except PatternError as error:
        spot = f"line {error.line}, column {error.column}" if isinstance(value, str) else ""
        place = ", ".join(filter(None, (error.path, spot)))
        told = "; ".join(filter(None, (place and f"at {place}", error.hint)))
        raise ValueError(f"not an event pattern: {error}" + (f" ({told})" if told else "")) from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not an event pattern: {error}") from None
    return text


def channels(when: object) -> set[str]:
    """The channels whose contacts such a pattern may match, as far as its ``detail.channel`` tells.

    Without a pattern a rule is for chats; without ``detail.channel`` in it, for either.
    """
    if when is None:
        return {"CHAT"}
    try:
        pattern = json.loads(when) if isinstance(when, str) else when
        of_channel = json.dumps({"detail": {"channel": pattern["detail"]["channel"]}})  # type: ignore[index]
        compiled = compile_pattern(of_channel)
    except (PatternError, LookupError, TypeError, ValueError, RecursionError):
        return {"CHAT", "VOICE"}
    return {name for name in ("CHAT", "VOICE") if compiled.matches({"detail": {"channel": name}})}


def _instance_arn(value: str) -> str:
    if _INSTANCE.fullmatch(value) is None:
        raise ValueError("not the ARN of an instance: write 'arn:aws:connect:REGION:ACCOUNT:instance/ID'")
    return value


def _role_arn(value: str) -> str:
    if re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/\S+", value) is None:
        raise ValueError("not the ARN of a role: write 'arn:aws:iam::ACCOUNT:role/NAME'")
    return value


def _topic_arn(value: str) -> str:
    """AWS: StartContactStreaming takes no FIFO topic."""
    if re.fullmatch(r"arn:aws[\w-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}", value) is None:
        raise ValueError("not the ARN of a standard SNS topic: write 'arn:aws:sns:REGION:ACCOUNT:NAME'")
    return value


def listed(value: object) -> object:
    """One name, or several in order of preference."""
    return [value] if isinstance(value, str) else value


def _queue_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.strip("/"):
        raise ValueError("not a queue's URL, which begins with https:// (its ARN is not its URL)")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.port == 0
        or any(c.isspace() for c in value)
    ):
        raise ValueError("not an endpoint: write 'https://…'")
    return value


def _runtime_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("a password never stands here; the hand-off is signed, see 'secret'")
    socket = parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")
    web = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    if not (socket or web) or any(c.isspace() for c in value):
        raise ValueError(
            "not an address of a runtime: write 'https://…', 'http://…' or 'unix:///path/to.sock'"
        )
    return value


def _user(value: object) -> object:
    """A user's name, or number; from the environment it comes as text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    name = isinstance(value, str) and re.fullmatch(r"[^\s:/]{1,32}", value)
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not (name or number):
        raise ValueError("not a user: write its name, or its number (uid)")
    return value


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65_536):  # noqa: PLR2004 - TCP's own
        raise ValueError("not an address to listen on: write 'host:port', like '127.0.0.1:8080'")
    return value


def _path(value: str) -> str:
    """A path into an event, or into the attributes beside it."""
    if not value or any(not step for step in value.split(".")):
        raise ValueError("not a path: write 'detail.tags.customer', or 'attributes.customer'")
    return value


def _names(value: object) -> object:
    """One display name, or several by language."""
    return {"default": value} if isinstance(value, str) else value


def tabled(value: object) -> object:
    """One table, or several."""
    return [value] if isinstance(value, Mapping) else value


def _hours(value: str) -> str:
    Hours.of(value)
    return value


def _zone(value: str) -> str:
    time_zone(value)
    return value


def _moment(value: object) -> object:
    """TOML knows days without a time; as an end one could mean the first moment of it, or the last."""
    if isinstance(value, date) and not isinstance(value, datetime):
        raise ValueError("write the time of day, too: 2026-12-24T09:00:00")  # noqa: TRY004 - pydantic wants it
    return value


QueueUrl = Annotated[str, AfterValidator(_queue_url)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Pattern = Annotated[str, BeforeValidator(_pattern)]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed)]
EventPath = Annotated[str, AfterValidator(_path)]
DisplayName = Annotated[str, Field(min_length=1, max_length=256)]
DisplayNames = Annotated[dict[str, DisplayName], BeforeValidator(_names)]
Hour = Annotated[str, AfterValidator(_hours)]
TimeZone = Annotated[str, AfterValidator(_zone)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
InstanceArn = Annotated[str, AfterValidator(_instance_arn)]
RoleArn = Annotated[str, AfterValidator(_role_arn)]
TopicArn = Annotated[str, AfterValidator(_topic_arn)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
RuntimeUrl = Annotated[str, AfterValidator(_runtime_url)]
Listen = Annotated[str, AfterValidator(_listen)]
User = Annotated[str | int, BeforeValidator(_user)]
ImportName = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class Table(BaseModel):
    """A table of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
