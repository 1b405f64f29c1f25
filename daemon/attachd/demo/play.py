"""The demo from curtain to curtain: build the stage, let the customers in, tell what happened."""

import json
import os
import signal
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attachd.demo import aws, processes, report
from attachd.demo.processes import Running

_INSTANCE: Final = f"arn:aws:connect:{aws.REGION}:111122223333:instance/0b1c2d3e-0000-4000-8000-00000000d370"
_PATIENCE_SECONDS: Final = 45.0
_LOOK_SECONDS: Final = 0.25
_QUESTIONS: Final = (
    "When are you open?",
    "Where is my order 20391?",
    "Can I bring my dog?",
    "My order is late.",
)

_CONFIG: Final = """\
# Written by `attachd demo`.
[source]
type = "sqs"
queue_url = "{queue_url}"
quarantine_url = "{quarantine_url}"
poll = "2s"

[journal]
type = "sqlite"
path = {journal}

[[bots]]
name = "concierge"
display_name = "Ava"
runtime = "ava"

[[bots]]
name = "concierge-de"
display_name = "Anna"
runtime = "anna"

[[rules]]
name = "chat in German"
when.detail.channel = ["CHAT"]
when.detail.segmentAttributes.language.valueString = [{{ prefix = "de" }}]
bot = "concierge-de"

[[rules]]
name = "any other chat"
when.detail.channel = ["CHAT"]
bot = "concierge"

[runtimes.ava]
type = "webhook"
url = "{ava}/attach"
secret = {{ env = "AVA_KEY" }}

[runtimes.anna]
type = "webhook"
url = "{anna}/attach"
secret = {{ env = "ANNA_KEY" }}

[health]
listen = "127.0.0.1:0"
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs."""

    simulator: Running
    attachd: Running
    embedded: aws.Aws
    folder: Path


async def play(chats: int, seconds: float, folder: Path | None) -> bool:
    """Play the demo; whether every chat got exactly one bot that spoke.

    Args:
        chats: how many customers come.
        seconds: over how long they come.
        folder: where logs, configuration and journal are left; a temporary one, removed, if not given.
    """
    console = Console()
    async with AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attachd-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        await stack.enter_async_context(_ended_by_sigterm())
        with console.status("starting AWS, Amazon Connect, two bots and attachd"):
            stage = await stack.enter_async_context(staged(folder))
        told = await _visited(console, stage, chats, seconds)
        happened = await truth(stage.simulator.url)
        report.show(console, told, happened)
        good = report.good(told, happened)
        if not good:
            console.print(
                "\n[red]not every chat got exactly one bot that spoke.[/] attachd's log ends with:\n"
            )
            console.print(processes.tail(stage.attachd.log, 30), markup=False, highlight=False)
        console.print("[dim]stopping[/]")
        return good


@asynccontextmanager
async def _ended_by_sigterm() -> AsyncIterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with everything that it started."""

    async def obey() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(obey)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def staged(folder: Path, *, marker: str = "simulated") -> AsyncIterator[Stage]:
    """Embedded AWS, the simulator, the two bots and attachd, up and connected."""
    keys = {"AVA_KEY": _new_secret(), "ANNA_KEY": _new_secret()}
    async with AsyncExitStack() as stack:
        embedded = stack.enter_context(aws.embedded(shipped("config/eventbridge-rule.json")))
        simulate = processes.attachd(
            *("simulate", "--events", "eventbridge:default", "--instance-arn", _INSTANCE),
            *("--token-marker", marker),
        )
        connect = await stack.enter_async_context(
            processes.running("simulator", simulate, embedded.environment, folder, says="simulated at")
        )
        here = aws.credentials() | {
            "AWS_ENDPOINT_URL_CONNECT": connect.url,
            "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": connect.url,
        }
        bot = [sys.executable, str(shipped("examples/bot/bot.py")), "--listen", "127.0.0.1:0"]
        urls: dict[str, str] = {}
        for name, key in (("ava", "AVA_KEY"), ("anna", "ANNA_KEY")):
            secret = {"BOT_WEBHOOK_SECRET": keys[key]}
            up = await stack.enter_async_context(
                processes.running(name, bot, here | secret, folder, says="listening on")
            )
            urls[name] = up.url
        config = folder / "attachd.toml"
        config.write_text(
            _CONFIG.format(
                queue_url=embedded.queue_url,
                quarantine_url=embedded.quarantine_url,
                journal=json.dumps(str(folder / "journal.sqlite")),
                **urls,
            )
        )
        run = processes.attachd("run", "--config", str(config))
        daemon = await stack.enter_async_context(
            processes.running(
                "attachd", run, here | embedded.environment | keys, folder, says="attachd.starting"
            )
        )
        yield Stage(connect, daemon, embedded, folder)


async def _visited(console: Console, stage: Stage, chats: int, seconds: float) -> dict[str, Any]:
    """Let the simulator's customers come and go; its report once they are gone."""
    url = stage.simulator.url
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    await _page(url, "traffic", _customers(chats, seconds))
    with Progress(*columns, console=console) as progress:
        started = progress.add_task("chats started ", total=chats)
        answered = progress.add_task("chats answered", total=chats)
        while True:
            told = await _page(url, "report")
            customers = told["customers"]
            progress.update(started, completed=customers["arrived"])
            progress.update(answered, completed=customers["finished"])
            if customers["arrived"] == chats and not customers["present"]:
                return told
            await anyio.sleep(_LOOK_SECONDS)


def _customers(chats: int, seconds: float) -> dict[str, Any]:
    """Who comes: every third speaks German, and each asks one question (docs/simulator.md, "Traffic")."""
    return {
        "arrivals": {"kind": "constant", "per_second": chats / seconds},
        "chats": chats,
        "patience": _PATIENCE_SECONDS,
        "connects_after": 0,
        "thinks": 1,
        "customers": [
            {"weight": weight, "segment_attributes": {"language": language}, "says": [question]}
            for language, weight in (("de-DE", 1), ("en-GB", 2))
            for question in _QUESTIONS
        ],
    }


async def truth(simulator_url: str) -> dict[str, Any]:
    """What really happened, as the simulator tells it."""
    return await _page(simulator_url, "truth")


async def _page(simulator_url: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One of the simulator's own pages; with a body, posted to."""
    method, url = "POST" if body else "GET", f"{simulator_url}/_simulator/{name}"
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.request(method, url, json=body) as answer,
    ):
        told: dict[str, Any] = await answer.json()
        return told


def shipped(path: str) -> Path:
    """A file of the project: inside the installed package, or in the checkout around it."""
    package = Path(str(files("attachd")))
    for root in (package / "_shipped", package.parents[1]):
        if (root / path).exists():
            return root / path
    raise FileNotFoundError(f"{path} is neither in the package nor in a checkout around it")


def _new_secret() -> str:
    return "whsec_" + b64encode(os.urandom(32)).decode()
