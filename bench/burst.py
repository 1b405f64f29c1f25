"""A burst against the quota: 120 chats at once, 5 calls a second, burst 8; attachd beside botocore's own retries.

Each contestant has a simulated Connect of its own, and all run at the same time. The ideal is arithmetic: the
first 8 calls at once, then one every 0.2 s.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ClientError
from rich.console import Console
from rich.table import Table

from attachd.connect import Connect
from attachd.logs import Trail
from attachd.model import Delivery
from attachd.quota import Rate
from attachd.replicas import BEAT_SECONDS, Replicas
from attachd.simulator import Dials, Simulator, simulator
from attachd.testing import Line, MemoryTable

CHATS, RATE, BURST = 120, 5, 8
HEADROOM = 0.98  # attachd's own default
IDEAL_SECONDS = (CHATS - BURST) / RATE


@dataclass
class Row:
    """How one contestant fared."""

    name: str
    attached: int = 0
    throttled: int = 0
    last: float = 0.0


async def main() -> None:
    """Run all contestants at once and print the table."""
    rows: list[Row] = []
    console = Console()
    with console.status(
        f"{CHATS} chats at once against {RATE}/s, burst {BURST}: about {IDEAL_SECONDS:.0f} s"
    ):
        async with anyio.create_task_group() as contestants:
            for replicas in (1, 2, 4):
                name = f"attachd, {replicas} replicas" if replicas > 1 else "attachd"
                contestants.start_soon(contest, rows, name, attachd(replicas))
            for mode, attempts in (("legacy", 5), ("standard", 3), ("standard", 10), ("adaptive", 10)):
                name = f"botocore {mode}, {attempts} attempts"
                contestants.start_soon(contest, rows, name, botocore(mode, attempts))
    table = Table(
        "", "attached", "throttled", "last after", "of ideal", title=f"ideal: {IDEAL_SECONDS:.1f} s"
    )
    for row in sorted(rows, key=lambda row: (-row.attached, row.throttled)):
        over = f"{row.last / IDEAL_SECONDS:.2f}" if row.attached == CHATS else "–"
        table.add_row(row.name, f"{row.attached}/{CHATS}", str(row.throttled), f"{row.last:.1f} s", over)
    console.print(table)


Contestant = Callable[[Simulator, list[str]], Awaitable[None]]


async def contest(rows: list[Row], name: str, attach_all: Contestant) -> None:
    """Let one contestant attach a bot to each of its chats; the simulator judges."""
    async with simulator(Dials(rate=RATE, burst=BURST)) as connect:
        contacts = await opened(connect)
        await attach_all(connect, contacts)
        calls = [call for call in connect.truth()["calls"] if call["operation"] == "CreateParticipant"]
        good = [call["at"] - calls[0]["at"] for call in calls if call["status"] == HTTPStatus.OK]
        rows.append(
            Row(
                name,
                len(good),
                sum(call["status"] == HTTPStatus.TOO_MANY_REQUESTS for call in calls),
                max(good),
            )
        )


async def opened(connect: Simulator) -> list[str]:
    """Start the chats; returns their contact ids."""
    async with client(connect) as api:
        chats = [
            await api.start_chat_contact(
                InstanceId=connect.world.dials.instance_arn.rpartition("/")[2],
                ContactFlowId="0b1c2d3e-0000-4000-8000-00000000f10e",
                ParticipantDetails={"DisplayName": "Customer"},
            )
            for _ in range(CHATS)
        ]
    return [chat["ContactId"] for chat in chats]


def botocore(mode: str, attempts: int) -> Contestant:
    """CreateParticipant for all at once, retries left to botocore."""

    async def attach_all(connect: Simulator, contacts: list[str]) -> None:
        retries = {"mode": mode, "total_max_attempts": attempts}
        instance = connect.world.dials.instance_arn.rpartition("/")[2]
        async with client(connect, retries=retries, max_pool_connections=CHATS) as api:

            async def one(contact: str) -> None:
                details = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
                try:
                    await api.create_participant(
                        InstanceId=instance, ContactId=contact, ParticipantDetails=details
                    )
                except ClientError:
                    return  # the simulator has counted it

            async with anyio.create_task_group() as calls:
                for contact in contacts:
                    calls.start_soon(one, contact)

    return attach_all


def attachd(replicas: int) -> Contestant:
    """The line itself, over the same API; each replica has the chats that a fair queue would give it."""

    async def attach_all(connect: Simulator, contacts: list[str]) -> None:
        table, attacher = MemoryTable(), Connect(session, "bench", endpoint_url=connect.url)
        async with attacher.open(), AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(replica(n, attacher, table)) for n in range(replicas)]
            async with anyio.create_task_group() as deliveries:
                for n, contact in enumerate(contacts):
                    delivery = Delivery("bench", contact, event(connect, contact), time.time())
                    deliveries.start_soon(lines[n % replicas].pipeline.carry, delivery, Trail())

    return attach_all


@asynccontextmanager
async def replica(number: int, attacher: Connect, table: MemoryTable) -> AsyncIterator[Line]:
    """One replica with its share of the quota, which is attachd's default: less two in a hundred."""
    whole, owner = Rate(HEADROOM * RATE, int(HEADROOM * BURST)), f"replica {number}"
    line = Line(time.time, attacher=attacher, rate=whole, journal=table, owner=owner)

    def share(part: float, count: int) -> None:
        line.room.change(whole.part(part, 1 / count) if part else None)

    peers = Replicas(table, owner, seats=lambda: BURST, waiting=lambda: len(line.room), on_share=share)
    async with peers.joined(), line.running(), anyio.create_task_group() as background:
        background.start_soon(peers.run)
        await anyio.sleep(2 * BEAT_SECONDS)  # until all have seen each other
        yield line
        background.cancel_scope.cancel()


def session() -> AioSession:
    """A session with a Region, and credentials that are none."""
    made = get_session()
    made.set_credentials("bench", "bench")
    made.set_config_variable("region", "eu-central-1")
    return made


def client(connect: Simulator, **config: Any) -> Any:
    """A plain ``connect`` client, to be entered."""
    return session().create_client("connect", endpoint_url=connect.url, config=AioConfig(**config))


def event(connect: Simulator, contact: str) -> bytes:
    """The opening event of a chat, as EventBridge would deliver it."""
    opening = next(e for e in connect.events if e["detail"]["contactId"] == contact)
    return json.dumps(opening).encode()


if __name__ == "__main__":
    anyio.run(main)
