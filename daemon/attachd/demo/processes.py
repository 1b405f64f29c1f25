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
from subprocess import DEVNULL
from typing import Final

import anyio
from anyio.abc import Process

_START_SECONDS: Final = 20.0
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
        says: what its output says, followed by its URL, once it is up.

    Raises:
        NotStarted: it ended, or did not say so in time.
    """
    log = folder / f"{name}.log"
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1", **environment}
    with log.open("ab") as output:
        process = await anyio.open_process(command, stdin=DEVNULL, stdout=output, stderr=output, env=env)
    try:
        yield Running(process, await _up(name, process, log, says), log)
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _up(name: str, process: Process, log: Path, says: str) -> str:
    with anyio.move_on_after(_START_SECONDS):
        while process.returncode is None:
            for line in log.read_text(errors="replace").splitlines():
                if says in line and (found := _URL.search(line)):
                    return found[0]
            await anyio.sleep(0.05)  # a file cannot be waited on
    raise NotStarted(f"{name} did not start; its log ends with:\n{tail(log)}")


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
