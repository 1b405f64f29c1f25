"""kill -9 at every await between receive and settle, and one bot all the same.

The points are not listed anywhere: a first delivery is carried to its end and its awaits are counted, then there is one process
for each of them and for either side of it (``crashing``), which dies there, and another one that is started after it.
Real queues, real sockets, real processes, real kills; a clock of seconds, so all of them at once, as far as the machine goes.
"""

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
from aiohttp import web
from anyio.abc import Process

from acceptance.town import Robot, Town, town
from attachd.demo.play import truth

VISIBILITY_SECONDS = 3
AT_ONCE = 8
#: Of 200 processes, none knows of the other's calls.
UNLIMITED = ("--rate", "1000", "--burst", "1000")


@dataclass
class Fork:
    """Processes to start, and what is known of them."""

    process: Process
    ended: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def listen(self) -> None:
        buffer = b""
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for told in map(json.loads, lines):
                if "started" in told:
                    self.started[told["name"]] = told["started"]
                else:
                    self.ended[told["name"]] = told["ended"], told["steps"]
            self.changed.set()
            self.changed = anyio.Event()

    async def start(self, **order: Any) -> int:
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps(order).encode() + b"\n")
        while order["name"] not in self.started:
            await self.changed.wait()
        return self.started[order["name"]]

    async def end(self, name: str) -> tuple[int, int | None]:
        while name not in self.ended:
            await self.changed.wait()
        return self.ended[name]


@asynccontextmanager
async def forking() -> AsyncIterator[Fork]:
    command = [sys.executable, "-m", "acceptance.crashing"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=None, env=environment)
    async with process, anyio.create_task_group() as tasks:
        fork = Fork(process)
        tasks.start_soon(fork.listen)
        yield fork
        process.terminate()
        tasks.cancel_scope.cancel()


@dataclass
class Chat:
    """One chat, in a queue and with a journal of its own."""

    place: Town
    fork: Fork
    folder: Path
    sqs: Any
    contact_id: str
    queue_url: str

    @property
    def order(self) -> dict[str, Any]:
        config = self.folder / "attachd.toml"
        text = self.place.config.read_text()
        text = text.replace(f'"{self.place.embedded.queue_url}"', f'"{self.queue_url}"')
        text = text.replace(str(self.place.folder / "journal.sqlite"), str(self.folder / "journal.sqlite"))
        config.write_text(text.replace("[journal]", "[quota]\nrate = 100\nburst = 100\n[journal]"))
        return {
            "config": str(config),
            "environment": self.place.environment,
            "visibility": VISIBILITY_SECONDS,
            "logs": str(self.folder),
        }

    async def in_queue(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = await anyio.to_thread.run_sync(
            lambda: self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        )
        return sum(map(int, told["Attributes"].values()))

    async def seen_through(self, name: str) -> tuple[int, int | None]:
        """Run attachd until nothing is left in the queue, then stop it; how it ended."""
        child = await self.fork.start(name=name, **self.order)
        with anyio.fail_after(240):
            while not self.is_ready(child) or await self.in_queue():
                assert name not in self.fork.ended, f"{name}: ended by itself, see {self.folder}"
                await anyio.sleep(0.3)
        os.kill(child, signal.SIGTERM)
        return await self.fork.end(name)

    def is_ready(self, child: int) -> bool:
        log = self.folder / f"{child}.log"
        return log.exists() and "attachd.ready" in log.read_text()

    async def killed(self, at: int, side: str) -> None:
        name = f"{at} {side}"
        await self.fork.start(name=name, at=at, side=side, **self.order)
        with anyio.fail_after(240):
            status, _ = await self.fork.end(name)
        assert status == -signal.SIGKILL, f"{name}: ended with {status}, see {self.folder}"


async def chat(place: Town, fork: Fork, sqs: Any, folder: Path, event: bytes) -> Chat:
    """A customer starts a chat; its event waits in a queue of its own."""
    folder.mkdir()
    contact_id = await place.start_chat()
    made = sqs.create_queue(QueueName=folder.name)
    sqs.send_message(QueueUrl=made["QueueUrl"], MessageBody=event.decode().replace("c-1", contact_id))
    return Chat(place, fork, folder, sqs, contact_id, made["QueueUrl"])


async def test_a_kill_at_any_await_of_a_delivery_ends_with_one_bot(
    tmp_path: Path, contact_event: Any
) -> None:
    robot = Robot()
    refused: list[str] = []

    async def count(event: dict[str, Any], _: int) -> web.Response | None:
        if event["id"] in robot.accepted:
            refused.append(event["id"])
        return None

    robot.before = count
    async with town(tmp_path, robot, simulated=UNLIMITED) as place, forking() as fork:

        async def one(at: int, side: str, limit: anyio.CapacityLimiter, found: dict[str, Chat]) -> None:
            async with limit:
                event = contact_event("c-1", at=time.time())
                found[f"{at} {side}"] = it = await chat(place, fork, sqs, tmp_path / f"{at}-{side}", event)
                await it.killed(at, side)
                status, _ = await it.seen_through(f"{at} {side} again")
                assert status == 0

        sqs = place.sqs()
        first = await chat(place, fork, sqs, tmp_path / "first", contact_event("c-1", at=time.time()))
        status, steps = await first.seen_through("first")
        assert status == 0
        assert steps is not None
        assert steps > 10
        found: dict[str, Chat] = {}
        again: list[str] = []
        limit = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as points:
            for at in range(1, steps + 1):
                for side in ("resumed", "suspended"):
                    if (at, side) != (steps, "suspended"):  # its end: there is nothing after it
                        points.start_soon(one, at, side, limit, found)
        bots = {c["id"]: c["custom_bots"] for c in (await truth(place.simulator.url))["contacts"]}
        for name, it in found.items():
            (key,) = [key for key in robot.accepted if key.startswith(it.contact_id)]
            generation = int(key.rpartition("_")[2])
            bot = bots[it.contact_id]
            assert (bot["connected"], bot["spoke"]) == (1, 1), name
            # One a generation; none of one whose only request died with its process before it had left.
            assert 1 <= bot["existed"] <= generation, name
            again += [name] if generation > 1 else []
        assert len(robot.accepted) == len(found) + 1
        assert len(again) < len(found) / 2, (
            again
        )  # a machine that is slow to start loses a window now and then
        sys.stdout.write(
            f"{len(found)} kills at {steps} awaits; {len(refused)} offers came again and were known\n"
        )
