"""Two processes on one DynamoDB table: real queues, sockets and signals; each event is delivered to both."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import boto3
from aiohttp import web

import embedded
from acceptance.town import Robot, Town, town
from attachd.demo import aws, processes
from attachd.demo.play import truth
from attachd.demo.processes import Running

NAMES = ("one", "two")
CHATS = 12


@dataclass
class Pair:
    """A town with two queues, each fed by the same rule, and what starts an attachd on either."""

    place: Town
    environment: dict[str, dict[str, str]]

    @asynccontextmanager
    async def attachd(self, name: str) -> AsyncIterator[Running]:
        async with self.place.attachd(name, **self.environment[name]) as daemon:
            yield daemon

    async def share(self, daemon: Running) -> float:
        return float(re.findall(r"^attachd_quota_share (\S+)$", await self._metrics(daemon), re.MULTILINE)[0])

    async def count(self, daemon: Running) -> float:
        return float(re.findall(r"^attachd_replicas (\S+)$", await self._metrics(daemon), re.MULTILINE)[0])

    async def _metrics(self, daemon: Running) -> str:
        return await self.place.get(f"{daemon.url}/metrics")

    async def bots(self) -> list[dict[str, int]]:
        """What the simulator knows of each chat's bots."""
        told = await truth(self.place.simulator.url)
        return [dict(contact["custom_bots"]) for contact in told["contacts"]]


@asynccontextmanager
async def pair(folder: Path, robot: Robot) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(town(folder, robot))
        table = {"AWS_ENDPOINT_URL_DYNAMODB": stack.enter_context(embedded.dynamodb())}
        config = place.config.read_text()
        place.config.write_text(
            re.sub(r"(?s)\[journal\].*?\n(?= *\[)", '[journal]\ntype = "dynamodb"\n', config)
        )
        queues = {"one": place.embedded.queue_url, "two": _second_queue(place.embedded)}
        yield Pair(place, {name: table | {"ATTACHD_SOURCE__QUEUE_URL": queues[name]} for name in NAMES})


def _second_queue(embedded_aws: aws.Aws) -> str:
    session = boto3.Session("demo", "demo", region_name=aws.REGION)
    sqs, events = (session.client(name, endpoint_url=embedded_aws.url) for name in ("sqs", "events"))
    url = str(sqs.create_queue(QueueName="contact-events-too")["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_targets(Rule="attachd", Targets=[{"Id": "another queue", "Arn": arn}])
    return url


async def until(condition: Callable[[], Any], within: float) -> None:
    with anyio.fail_after(within):
        while not await condition():
            await anyio.sleep(0.2)


async def test_two_replicas_given_every_event_attach_each_chat_once_and_one_finishes_what_a_killed_one_began(
    tmp_path: Path,
) -> None:
    armed, struck, released = anyio.Event(), anyio.Event(), anyio.Event()

    async def strike(_event: dict[str, Any], _number: int) -> web.Response | None:
        """Once armed, keep whoever offers a chat waiting until it has died over it."""
        if not armed.is_set() or released.is_set():
            return None
        struck.set()
        await released.wait()
        return web.Response(status=503)

    robot = Robot(before=strike)
    async with pair(tmp_path, robot) as town_of_two, AsyncExitStack() as stack:
        place = town_of_two.place
        made = await anyio.run_process(
            processes.attachd("journal", "create", "--config", str(place.config)),
            env=aws.credentials() | town_of_two.environment["one"] | {"BOT_KEY": "x"},
        )
        assert b"made, on-demand" in made.stdout
        daemons = {name: await stack.enter_async_context(town_of_two.attachd(name)) for name in NAMES}

        async def halved() -> bool:
            return {await town_of_two.share(daemon) for daemon in daemons.values()} == {0.5}

        await until(halved, within=60)

        chats = [await place.start_chat() for _ in range(CHATS)]
        for contact_id in chats:
            await place.spoke(contact_id)
        assert await town_of_two.bots() == [{"existed": 1, "connected": 1, "spoke": 1}] * CHATS

        async def each_once() -> bool:
            return sorted([*_attached(place, "one"), *_attached(place, "two")]) == sorted(chats)

        await until(each_once, within=60)
        armed.set()
        last = await place.start_chat()
        with anyio.fail_after(60):
            await struck.wait()

        async def told_apart() -> bool:
            return any(last in _held_elsewhere(place, name) for name in NAMES)

        await until(told_apart, within=60)
        (killed,) = [name for name in NAMES if last not in _held_elsewhere(place, name)]
        (other,) = set(NAMES) - {killed}
        place.kill(daemons[killed])
        released.set()
        await place.spoke(last, within=60)
        bots = await place.bots(last)
        assert (bots["connected"], bots["spoke"]) == (1, 1)

        async def alone() -> bool:
            survivor = daemons[other]
            return (await town_of_two.share(survivor), await town_of_two.count(survivor)) == (1.0, 1.0)

        await until(alone, within=60)

        async def settled() -> bool:
            return last in _attached(place, other)

        await until(settled, within=60)


def _attached(place: Town, name: str) -> set[str]:
    return {line["contact"] for line in place.deliveries(name) if line["outcome"] == "attached"}


def _held_elsewhere(place: Town, name: str) -> set[str]:
    return {line["contact"] for line in place.deliveries(name) if "held_elsewhere" in line["reason"]}
