"""A whole town for acceptance tests: embedded AWS, a simulated Connect, a bot in the test, attachd as a process."""

import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import boto3
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import web
from botocore import UNSIGNED
from standardwebhooks import Webhook

from attachd.demo import aws, processes
from attachd.demo.play import shipped, truth
from attachd.demo.processes import Running

INSTANCE_ID = "5a3b9c1e-0000-4000-8000-0123456789ab"
SECRET = "whsec_" + base64.b64encode(b"a secret of the acceptance tests").decode()

Answer = Callable[[dict[str, Any], int], Awaitable[web.Response | None]]


@dataclass
class Robot:
    """A bot that a test can tell how to answer; accepts each key once, connects, says hello.

    ``before`` sees each hand-off and its number first; what it returns, if anything, is the answer instead.
    """

    before: Answer | None = None
    offers: list[dict[str, Any]] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    url: str = ""
    participants: Any = None

    @asynccontextmanager
    async def serving(self, simulator_url: str) -> AsyncIterator[None]:
        app = web.Application()
        app.add_routes([web.post("/attach", self._attach)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        config = AioConfig(signature_version=UNSIGNED)
        client = get_session().create_client(
            "connectparticipant", aws.REGION, endpoint_url=simulator_url, config=config
        )
        async with client as self.participants:
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.url = "http://{}:{}".format(*runner.addresses[0])
                yield
            finally:
                await runner.cleanup()

    async def _attach(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = Webhook(SECRET).verify(body, dict(request.headers))
        self.offers.append(event)
        if self.before is not None and (answer := await self.before(event, len(self.offers))) is not None:
            return answer
        if event["id"] in self.accepted:
            return web.Response(status=409)
        await self.accept(event)
        return web.Response(status=202)

    async def accept(self, event: dict[str, Any]) -> None:
        """Become the participant and say hello."""
        self.accepted.add(event["id"])
        made = await self.participants.create_participant_connection(
            ParticipantToken=event["data"]["participant"]["token"],
            Type=["CONNECTION_CREDENTIALS"],
            ConnectParticipant=True,
        )
        await self.participants.send_message(
            ConnectionToken=made["ConnectionCredentials"]["ConnectionToken"],
            ContentType="text/plain",
            Content="Hello.",
        )


@dataclass
class Town:
    """Everything but attachd itself, which a test starts, kills and starts again."""

    folder: Path
    embedded: aws.Aws
    simulator: Running
    robot: Robot
    config: Path

    @property
    def environment(self) -> dict[str, str]:
        """What attachd finds the town by."""
        return (
            aws.credentials()
            | self.embedded.environment
            | {
                "AWS_ENDPOINT_URL_KINESIS": self.embedded.url,
                "AWS_ENDPOINT_URL_DYNAMODB": self.embedded.url,
                "AWS_ENDPOINT_URL_CONNECT": self.simulator.url,
                "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": self.simulator.url,
                "BOT_KEY": SECRET,
            }
        )

    @asynccontextmanager
    async def attachd(self, name: str = "attachd", **overrides: str) -> AsyncIterator[Running]:
        """Run it; ``overrides`` are environment variables."""
        command = processes.attachd("run", "--config", str(self.config))
        async with processes.running(
            name, command, self.environment | overrides, self.folder, says="attachd.starting"
        ) as daemon:
            yield daemon

    async def start_chat(self, **attributes: str) -> str:
        """A customer starts a chat and connects; returns the contact id."""
        session = get_session()
        unsigned = AioConfig(signature_version=UNSIGNED)
        where = {"region_name": aws.REGION, "endpoint_url": self.simulator.url}
        keys = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo"}
        async with (
            session.create_client("connect", **where, **keys) as connect,
            session.create_client("connectparticipant", config=unsigned, **where) as participants,
        ):
            chat = await connect.start_chat_contact(
                InstanceId=INSTANCE_ID,
                ContactFlowId="0b1c2d3e-0000-4000-8000-00000000f10e",
                ParticipantDetails={"DisplayName": "Customer"},
                Attributes=attributes,
            )
            await participants.create_participant_connection(
                ParticipantToken=chat["ParticipantToken"],
                Type=["CONNECTION_CREDENTIALS"],
                ConnectParticipant=True,
            )
        return str(chat["ContactId"])

    def sqs(self) -> Any:
        """A plain client of the embedded SQS."""
        return boto3.client(
            "sqs",
            region_name=aws.REGION,
            endpoint_url=self.embedded.url,
            aws_access_key_id="demo",
            aws_secret_access_key="demo",
        )

    async def bots(self, contact_id: str) -> dict[str, int]:
        """How many custom bots the contact ever had, by the simulator's truth: existed, connected, spoke."""
        told = await truth(self.simulator.url)
        return next(dict(c["custom_bots"]) for c in told["contacts"] if c["id"] == contact_id)

    async def spoke(self, contact_id: str, *, within: float = 120.0) -> None:
        """Wait until a bot has spoken in the chat."""
        with anyio.fail_after(within):
            while (await self.bots(contact_id))["spoke"] == 0:
                await anyio.sleep(0.1)

    def deliveries(self, name: str = "attachd") -> list[dict[str, Any]]:
        """attachd's canonical lines so far."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record.get("event") == "delivery"]

    async def settled(self, count: int, *, within: float = 120.0) -> list[dict[str, Any]]:
        """Wait for so many canonical lines."""
        with anyio.fail_after(within):
            while len(self.deliveries()) < count:
                await anyio.sleep(0.1)
        return self.deliveries()

    def kill(self, daemon: Running) -> None:
        """SIGKILL: nothing of the process runs any more."""
        os.kill(daemon.process.pid, signal.SIGKILL)

    async def get(self, url: str) -> str:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return await answer.text()


@asynccontextmanager
async def town(
    folder: Path,
    robot: Robot,
    *,
    visibility: str = "10s",
    marker: str = "simulated",
    level: str = "debug",
    simulated: Sequence[str] = (),
) -> AsyncIterator[Town]:
    """Build one; ``robot`` serves in it. ``simulated`` are further options of the simulator's."""
    async with AsyncExitStack() as stack:
        embedded = stack.enter_context(aws.embedded(shipped("config/eventbridge-rule.json")))
        command = processes.attachd(
            *("simulate", "--events", "eventbridge:default", "--token-marker", marker),
            *("--instance-arn", f"arn:aws:connect:{aws.REGION}:111122223333:instance/{INSTANCE_ID}"),
            *simulated,
        )
        simulator = await stack.enter_async_context(
            processes.running("simulator", command, embedded.environment, folder, says="simulated at")
        )
        await stack.enter_async_context(robot.serving(simulator.url))
        config = folder / "attachd.toml"
        config.write_text(
            f"""
            [source]
            type = "sqs"
            queue_url = "{embedded.queue_url}"
            quarantine_url = "{embedded.quarantine_url}"
            poll = "1s"
            visibility = "{visibility}"
            [journal]
            type = "sqlite"
            path = "{folder}/journal.sqlite"
            [[bots]]
            name = "concierge"
            display_name = "Ava"
            runtime = "robot"
            [[rules]]
            name = "any chat"
            bot = "concierge"
            [runtimes.robot]
            type = "webhook"
            url = "{robot.url}/attach"
            secret = {{ env = "BOT_KEY" }}
            [health]
            listen = "127.0.0.1:0"
            [logging]
            level = "{level}"
            """
        )
        yield Town(folder, embedded, simulator, robot, config)
