"""The processes of the demo: started, awaited until they say where they are, stopped in order.

Each writes its log to a file of its own, so that whoever wonders can read it.
"""

import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream, Process

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_URL: Final = re.compile(r"http://[\w.:\[\]]+")


class NotStarted(Exception):
    """A process of the demo did not come up; the message names its log."""


@dataclass(slots=True)
class Running:
    """A process that is up."""

    process: Process
    url: str
    log: Path

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


def attachd(*arguments: str) -> list[str]:
    """The command line of attachd itself, under this interpreter."""
    return [sys.executable, "-m", "attachd", *arguments]


@asynccontextmanager
async def running(
    name: str, command: list[str], environment: Mapping[str, str], folder: Path, *, says: str
) -> AsyncIterator[Running]:
    """Run a program for as long as the block lasts; end it with SIGTERM, and SIGKILL if it must be.

    Args:
        name: its log is ``folder/name.log``.
        command: the program and its arguments.
        environment: what it sees besides ``PATH``.
        folder: for the log.
        says: what its output says, in one line with its URL, once it is up.

    Raises:
        NotStarted: it ended, or did not say so in time.
    """
    log = folder / f"{name}.log"
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1", **environment}
    process = await anyio.open_process(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=env)
    if process.stdout is None:
        raise NotStarted(f"{name} has no output to read")
    up = _Up(says)
    async with process, anyio.create_task_group() as scribe:
        scribe.start_soon(_keep, process.stdout, log, up)
        try:
            with anyio.move_on_after(_START_SECONDS):
                await up.known.wait()
            if not up.url:
                raise NotStarted(f"{name} did not start; its log ends with:\n{tail(log)}")
            yield Running(process, up.url, log)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)


class _Up:
    """Where a process is, once its output has said so; no address if it ended first."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.url = ""
        self.known = anyio.Event()


async def _keep(output: ByteReceiveStream, log: Path, up: _Up) -> None:
    """Write the output to the log until it ends, watching for the line that says where the process is."""
    with anyio.CancelScope(
        shield=True
    ):  # what a process says while it is being stopped belongs to its log, too
        await _copy(output, log, up)


async def _copy(output: ByteReceiveStream, log: Path, up: _Up) -> None:
    async with await anyio.open_file(log, "ab") as file:
        line = b""
        async for piece in output:
            await file.write(piece)
            await file.flush()
            *lines, line = (line + piece).split(b"\n")
            for text in (each.decode(errors="replace") for each in lines):
                if not up.url and up.says in text and (found := _URL.search(text)):
                    up.url = found[0]
                    up.known.set()
    up.known.set()


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
        with anyio.move_on_after(_STOP_SECONDS):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
