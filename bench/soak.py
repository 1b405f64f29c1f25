"""A million events through each kind of source, and memory that stays flat: `python bench/soak.py [EVENTS]`.

SQS and Kinesis are played on a socket, by servers that make their messages when they are asked and keep none; so what grows
would be ours. One event in fifty is released once before it is acknowledged. Memory is what the process holds at each tenth
of the way; it counts as flat if the last nine tenths differ by less than 24 MB, the servers' part included.
"""

import base64
import io
import json
import logging
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio
import anyio.lowlevel
import structlog
from aiohttp import web
from rich.console import Console
from rich.table import Table

from attachd import aws
from attachd.errors import Transient
from attachd.journals.memory import MemoryJournal
from attachd.metrics import Metrics
from attachd.model import Acknowledge, Contact, Delivery, Release
from attachd.ports import Source
from attachd.progress import Progress
from attachd.sources.file import FileSource
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.sqlite import SqliteLeases
from attachd.sources.kinesis.stream import KinesisStream
from attachd.sources.kinesis.timing import Timing
from attachd.sources.sqs import Queue, SqsSource
from attachd.sources.sweep import Pace, Page, SweepSource
from attachd.streams import Edge

EVENTS: Final = 1_000_000
FLAT_BYTES: Final = 24_000_000
BODY: Final = json.dumps(
    {"detail-type": "Amazon Connect Contact Event", "detail": {"tags": {"x": "y" * 1500}}}
)
INSTANCE: Final = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
SHARDS: Final = 4
_HANDS: Final = 50
_TENTHS: Final = 10
_ENVIRON: Final = {
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "soak",
    "AWS_SECRET_ACCESS_KEY": "soak",
}


@dataclass
class Soak:
    """How one source fared.

    Attributes:
        holds: says how many bytes are held.
        held: bytes that the process held, at each tenth of the way.
        unanswered: calls that were not answered in time.
    """

    name: str
    events: int
    holds: Callable[[], int]
    held: list[int] = field(default_factory=list)
    seconds: float = 0.0
    unanswered: int = 0

    @property
    def growth(self) -> int:
        """From the lowest of the first tenths to that of the last: what swells comes down again, what stays, stays."""
        some = max(1, len(self.held) // 3)
        return max(0, min(self.held[-some:]) - min(self.held[1 : 1 + some]))


async def main(events: int = EVENTS) -> bool:
    """Soak all, one after the other, and print the table; whether memory stayed flat."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    table = Table("", "events", "a second", "held", "growth", title=f"{events:,} events through each")
    flat = True
    for name in SOURCES:
        soak = await soaked(name, events)
        flat = flat and soak.growth < FLAT_BYTES
        table.add_row(
            name,
            f"{soak.events:,}",
            f"{soak.events / soak.seconds:,.0f}",
            f"{max(soak.held) / 1e6:.0f} MB",
            f"{soak.growth / 1e6:.1f} MB",
        )
    Console().print(table)
    return flat


async def soaked(name: str, events: int, holds: Callable[[], int] | None = None) -> Soak:
    """Take so many events through a new source of that kind; ``holds`` says how many bytes are held, instead of the system."""
    soak = Soak(name, events, holds or _held)
    async with SOURCES[name](events) as source:
        begun = time.monotonic()
        await _consume(source, soak)
        soak.seconds = time.monotonic() - begun
    return soak


async def _consume(source: Source, soak: Soak) -> None:
    """Receive and settle, some at once, as the service does: what is not answered is counted, and it goes on."""
    done = 0
    free = anyio.Semaphore(10 * _HANDS)

    async def settle(delivery: Delivery) -> None:
        nonlocal done
        again = delivery.attempt == 1 and done % 50 == 0
        try:
            await source.settle(delivery, Release(0.0) if again else Acknowledge())
        except Transient:
            soak.unanswered += 1
        if not again:
            done += 1
            if done % (soak.events // _TENTHS) == 0 and len(soak.held) < _TENTHS:
                soak.held.append(soak.holds())
        free.release()

    async def poll() -> None:
        while done < soak.events:
            try:
                received = await source.receive(10)
            except Transient:
                soak.unanswered += 1
                continue
            for delivery in received:
                await free.acquire()
                hands.start_soon(settle, delivery)

    async with anyio.create_task_group() as hands:
        for _ in range(source.polls):
            hands.start_soon(poll)


def _held() -> int:
    """Resident bytes, where the system tells; else the most there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ── sources without end ────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def sqs(_events: int) -> AsyncIterator[Source]:
    """SQS on a socket: messages without end, released ones again."""
    released: list[str] = []
    number = 0

    def answer(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        nonlocal number
        match operation:
            case "ReceiveMessage":
                ids = [released.pop() for _ in range(min(len(released), 10))]
                while len(ids) < asked["MaxNumberOfMessages"]:
                    number += 1
                    ids.append(f"{number}:1")
                return {"Messages": [_message(id_) for id_ in ids]}
            case "ChangeMessageVisibilityBatch":
                entries = asked["Entries"]
                again = [entry["ReceiptHandle"] for entry in entries if entry["VisibilityTimeout"] == 0]
                released.extend(handle.partition(":")[0] + ":2" for handle in again)
            case "DeleteMessageBatch":
                entries = asked["Entries"]
            case _:
                return {"Attributes": {"QueueArn": "arn:aws:sqs:eu-central-1:111122223333:soak"}}
        return {"Successful": [{"Id": entry["Id"]} for entry in entries]}

    async with _served(answer) as (url, sessions):
        source = SqsSource(
            sessions,
            Queue(f"{url}/111122223333/soak", "soak", polls=2),
            aside=None,
            metrics=Metrics(),
            progress=Progress(time.monotonic),
            stall_seconds=60,
            now=time.time,
            dice=random.Random(1),
            user_agent="attachd/soak",
        )
        async with source.open():
            yield source


def _message(id_: str) -> dict[str, Any]:
    number, _, attempt = id_.partition(":")
    return {
        "MessageId": number,
        "ReceiptHandle": id_,
        "Body": BODY,
        "Attributes": {"ApproximateReceiveCount": attempt},
    }


@asynccontextmanager
async def kinesis(_events: int) -> AsyncIterator[Source]:
    """Kinesis on a socket: four shards, each with the records that its iterator asks for."""

    def answer(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "ListShards":
                ranges = {"StartingHashKey": "0", "EndingHashKey": "1"}, {"StartingSequenceNumber": "0"}
                return {
                    "Shards": [
                        {
                            "ShardId": f"shardId-{n:012d}",
                            "HashKeyRange": ranges[0],
                            "SequenceNumberRange": ranges[1],
                        }
                        for n in range(SHARDS)
                    ]
                }
            case "GetShardIterator":
                return {"ShardIterator": asked.get("StartingSequenceNumber", "1")}
            case _:
                first = int(asked["ShardIterator"])
                data = base64.b64encode(BODY.encode()).decode()
                records = [
                    {"SequenceNumber": str(n), "Data": data, "PartitionKey": "k"}
                    for n in range(first, first + 1000)
                ]
                return {
                    "Records": records,
                    "NextShardIterator": str(first + 1000),
                    "MillisBehindLatest": 1000,
                }

    with tempfile.TemporaryDirectory() as folder:
        async with _served(answer) as (_, sessions):
            source = KinesisSource(
                KinesisStream(sessions, "soak", pace_seconds=0.001, now=time.time, user_agent="attachd/soak"),
                SqliteLeases(Path(folder) / "leases.sqlite"),
                aside=None,
                owner="soak",
                start=Edge.TRIM_HORIZON,
                timing=Timing(poll=1.0, lease=60.0),
                progress=Progress(time.monotonic),
                now=time.time,
                dice=random.Random(1),
            )
            async with source.open():
                yield source


@asynccontextmanager
async def file(events: int) -> AsyncIterator[Source]:
    """Lines that are made when they are read."""
    source = FileSource("soak", partial(_lines, events))
    async with source.open():
        yield source


def _lines(count: int) -> BinaryIO:
    class Lines(io.RawIOBase):
        left = count

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.left:
                return 0
            line = BODY.encode() + b"\n"
            self.left -= 1
            buffer[: len(line)] = line
            return len(line)

    return io.BufferedReader(Lines())


@asynccontextmanager
async def sweep(_events: int) -> AsyncIterator[Source]:
    """Fifty lost chats a second of a clock that runs as fast as they are found."""
    found = 0

    def now() -> float:
        return 1_800_000_000 + found / 50

    class Lost:
        @asynccontextmanager
        async def open(self) -> AsyncIterator[None]:
            yield

        async def page(self, since: float, until: float, token: str | None) -> Page:
            nonlocal found
            assert since < until  # noqa: S101 - the search's own contract
            await anyio.lowlevel.checkpoint()
            chats = tuple(_chat(n, until) for n in range(found, found + 100))
            found += 100
            return Page(chats, 100, token)

    pace = Pace(rate=1e6, every_seconds=0.001, poll_seconds=1.0)
    source = SweepSource(
        "soak",
        Lost(),
        MemoryJournal(),
        pace,
        progress=Progress(time.monotonic),
        now=now,
        dice=random.Random(1),
    )
    async with source.open():
        yield source


def _chat(number: int, at: float) -> Contact:
    return Contact(f"c-{number}", INSTANCE, "CHAT", f"c-{number}", initiated_at=at)


@asynccontextmanager
async def _served(
    answer: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> AsyncIterator[tuple[str, aws.NewSession]]:
    """An AWS of JSON 1.x on a socket, and where its clients' sessions come from."""

    async def handle(request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        return web.json_response(answer(operation, await request.json()))

    app = web.Application()
    app.router.add_post("/{anything:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    url = f"http://{host}:{port}"
    before = {name: os.environ.get(name) for name in (*_ENVIRON, "AWS_ENDPOINT_URL")}
    os.environ.update(_ENVIRON | {"AWS_ENDPOINT_URL": url})
    try:
        yield url, partial(aws.session, os.environ)
    finally:
        await runner.cleanup()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


SOURCES: Final = {"sqs": sqs, "kinesis": kinesis, "file": file, "sweep": sweep}


if __name__ == "__main__":
    sys.exit(0 if anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS) else 1)
