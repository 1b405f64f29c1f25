"""The bots of ``examples/``, run as their READMEs say, in a whole town: a customer talks to each and is handed on."""

import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED

from acceptance.test_cli import attachd
from acceptance.town import INSTANCE_ID, SECRET, Robot, Town, town
from attachd.demo import aws, processes
from attachd.demo.play import truth

EXAMPLES = Path(__file__).parents[2] / "examples"
MARKER = "canary7Q"
FLOW = """
[connect]
flow = [
  { step = "hold", seconds = 20, until_bot = true },
  { step = "wait_for_bot", seconds = 900 },
  { step = "enter_queue" },
]
"""


@dataclass
class Customer:
    """A customer in a chat, who speaks and waits for answers."""

    participants: Any
    contact_id: str
    connection: str
    heard: int = 0

    async def says(self, text: str) -> None:
        await self.participants.send_message(
            ConnectionToken=self.connection, ContentType="text/plain", Content=text
        )

    async def hears(self, *, within: float = 120.0) -> str:
        """The bot's next message."""
        with anyio.fail_after(within):
            while len(said := await self._said()) <= self.heard:
                await anyio.sleep(0.1)
        self.heard += 1
        return said[self.heard - 1]

    async def leaves(self) -> None:
        await self.participants.disconnect_participant(ConnectionToken=self.connection)

    async def _said(self) -> list[str]:
        page = await self.participants.get_transcript(
            ConnectionToken=self.connection, MaxResults=100, SortOrder="ASCENDING"
        )
        messages = [item for item in page["Transcript"] if item["Type"] == "MESSAGE"]
        return [item["Content"] for item in messages if item["ParticipantRole"] == "CUSTOM_BOT"]


@asynccontextmanager
async def customers(place: Town) -> AsyncIterator[Any]:
    """Call what this gives for a customer who has just come."""
    where = {"region_name": aws.REGION, "endpoint_url": place.simulator.url}
    keys = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo"}
    session = get_session()
    async with (
        session.create_client("connect", **where, **keys) as connect,
        session.create_client(
            "connectparticipant", config=AioConfig(signature_version=UNSIGNED), **where
        ) as participants,
    ):

        async def come(*first_words: str) -> Customer:
            chat = await connect.start_chat_contact(
                InstanceId=INSTANCE_ID, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}
            )
            joined = await participants.create_participant_connection(
                ParticipantToken=chat["ParticipantToken"],
                Type=["CONNECTION_CREDENTIALS"],
                ConnectParticipant=True,
            )
            token = joined["ConnectionCredentials"]["ConnectionToken"]
            customer = Customer(participants, chat["ContactId"], token)
            for words in first_words:
                await customer.says(words)
            return customer

        yield come


async def contact(place: Town, contact_id: str) -> dict[str, Any]:
    """What became of a chat, by the simulator's truth."""
    told = await truth(place.simulator.url)
    return next(found for found in told["contacts"] if found["id"] == contact_id)


async def becomes(place: Town, contact_id: str, state: str, *, within: float = 120.0) -> dict[str, Any]:
    with anyio.fail_after(within):
        while (found := await contact(place, contact_id))["state"] != state:
            await anyio.sleep(0.1)
    return found


async def nobody_is_left(place: Town, contact_id: str, *, within: float = 120.0) -> None:
    """Wait until the chat's bot has disconnected."""
    with anyio.fail_after(within):
        while True:
            told = await truth(place.simulator.url)
            bots = [
                p for p in told["participants"] if p["contact_id"] == contact_id and p["role"] == "CUSTOM_BOT"
            ]
            if bots and all(bot["disconnected_at"] for bot in bots):
                return
            await anyio.sleep(0.1)


def configured(place: Town, tables: str) -> None:
    """attachd's configuration, with the example's own tables."""
    place.config.write_text(
        f"""
        [source]
        type = "sqs"
        queue_url = "{place.embedded.queue_url}"
        poll = "1s"
        [journal]
        type = "memory"
        [health]
        listen = "127.0.0.1:0"
        [logging]
        level = "debug"
        {tables}
        """
    )


def streamed(place: Town) -> tuple[str, str]:
    """A topic and a queue subscribed to it, as the README makes them: the topic's ARN, the queue's URL."""
    session = boto3.Session("demo", "demo", region_name=aws.REGION)
    sns, sqs = (session.client(name, endpoint_url=place.embedded.url) for name in ("sns", "sqs"))
    topic = sns.create_topic(Name="chats")["TopicArn"]
    queue = sqs.create_queue(QueueName="desk-1", Attributes={"MessageRetentionPeriod": "60"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    wanted = {"FilterPolicy": json.dumps({"ParticipantRole": ["CUSTOMER"]}), "RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=wanted)
    return topic, queue


@asynccontextmanager
async def a_town(folder: Path, *options: str) -> AsyncIterator[Town]:
    scenario = folder / "flow.toml"
    scenario.write_text(FLOW)
    simulated = ("--scenario", str(scenario), *options)
    async with town(folder, Robot(), marker=MARKER, simulated=simulated) as place:
        yield place


@asynccontextmanager
async def desk(place: Town) -> AsyncIterator[processes.Running]:
    topic, queue = streamed(place)
    configured(
        place,
        f"""
        [[bots]]
        name = "desk"
        display_name = "Dora"
        runtime = "inhouse"
        streaming_topic = "{topic}"
        connect = true
        [[rules]]
        name = "any chat"
        bot = "desk"
        [runtimes.inhouse]
        type = "python"
        callable = "desk:take"
        ended = "desk:ended"
        """,
    )
    async with place.attachd(PYTHONPATH=str(EXAMPLES / "inprocess"), DESK_QUEUE_URL=queue) as daemon:
        yield daemon


async def test_the_bot_in_process_hears_by_the_stream_and_hands_over_to_the_flow(tmp_path: Path) -> None:
    async with a_town(tmp_path, "--streams") as place, desk(place), customers(place) as come:
        cleo, eve = await come(), await come("Eve")  # who speaks before the bot is there
        assert await eve.hears() == "Hello, I am Dora. What is your name?"
        assert await eve.hears() == "Hello Eve. What is your order's number?"
        assert await cleo.hears() == "Hello, I am Dora. What is your name?"
        await cleo.says("cleo")
        assert await cleo.hears() == "Hello Cleo. What is your order's number?"
        await cleo.says("4711")
        assert await cleo.hears() == "Order 4711 leaves today. Anything else, Cleo?"
        await cleo.says("A person, please")
        assert await cleo.hears() == "I am getting a colleague, Cleo."
        handed_over = await becomes(place, cleo.contact_id, "QUEUED")
        assert handed_over["custom_bots"] == {"existed": 1, "connected": 1, "spoke": 1}
        assert handed_over["branches"] == ["Bot participant disconnected"]
        await eve.leaves()
        await becomes(place, eve.contact_id, "ENDED")
        log = (tmp_path / "attachd.log").read_text()
    assert MARKER not in log
    assert "Traceback" not in log


async def test_the_bot_in_process_leaves_its_chats_when_attachd_stops(tmp_path: Path) -> None:
    async with a_town(tmp_path, "--streams") as place, customers(place) as come:
        async with desk(place):
            cleo = await come()
            await cleo.hears()
        assert (await becomes(place, cleo.contact_id, "QUEUED"))["custom_bots"]["connected"] == 1
        log = (tmp_path / "attachd.log").read_text()
    assert "attachd.stopped" in log
    assert "Unclosed" not in log
    assert "Traceback" not in log


# ── Node ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node here to run examples/node")
    return found


@asynccontextmanager
async def listening(
    command: list[str], folder: Path, endpoint: str = "http://127.0.0.1:9", name: str = "bot"
) -> AsyncIterator[processes.Running]:
    """A bot of the examples that serves a webhook."""
    environment = {
        "BOT_WEBHOOK_SECRET": SECRET,
        "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    async with processes.running(name, command, environment, folder, says="listening on") as bot:
        yield bot


async def test_the_bot_in_node_talks_and_hands_over_to_the_flow(tmp_path: Path, node: str) -> None:
    command = [node, str(EXAMPLES / "node" / "bot.mjs"), "--listen", "127.0.0.1:0"]
    async with a_town(tmp_path) as place, listening(command, tmp_path, place.simulator.url) as bot:
        configured(
            place,
            f"""
            [[bots]]
            name = "nodebot"
            display_name = "Nora"
            runtime = "node"
            [[rules]]
            name = "any chat"
            bot = "nodebot"
            [runtimes.node]
            type = "webhook"
            url = "{bot.url}/attach"
            secret = {{ env = "BOT_KEY" }}
            wants_ended = true
            """,
        )
        async with place.attachd(), customers(place) as come:
            cleo, eve = await come(), await come("Hello?")
            for customer in (cleo, eve):
                assert await customer.hears() == "Hello, I am Nora, and I run on Node."
            assert await eve.hears() == "You said (1): Hello?"
            await cleo.says("where is order 4711? 📦")
            assert await cleo.hears() == "Order 4711 leaves today."
            await cleo.says("bye")
            assert await cleo.hears() == "Goodbye!"
            over = await becomes(place, cleo.contact_id, "QUEUED")
            assert over["branches"] == ["Bot participant disconnected"]
            await eve.leaves()
            await nobody_is_left(place, eve.contact_id)
            frank = await come()
            await frank.hears()
        bot.process.terminate()
        await becomes(place, frank.contact_id, "QUEUED")
        assert await bot.process.wait() == 0
        logs = [(tmp_path / name).read_text() for name in ("attachd.log", "bot.log")]
    assert not any(MARKER in log for log in logs)


# ── the contract ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("example", ["bot/bot.py", "node/bot.mjs"])
async def test_the_examples_keep_the_contract(
    tmp_path: Path, example: str, request: pytest.FixtureRequest
) -> None:
    node_bot = example.endswith(".mjs")
    interpreter = request.getfixturevalue("node") if node_bot else sys.executable
    command = [interpreter, str(EXAMPLES / example), "--listen", "127.0.0.1:0"]
    async with listening(command, tmp_path) as bot:
        asked = ["runtime", "test", f"{bot.url}/attach", "--secret-env", "BOT_KEY"]
        done = await anyio.to_thread.run_sync(lambda: attachd(*asked))
        wrong = await anyio.to_thread.run_sync(
            lambda: attachd(*asked, env={"BOT_KEY": "whsec_" + "A" * 43 + "="})
        )
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("there", "attach", "duplicate", "ended", "bad signature", "old signature", "late"):
        assert f"│ {check} " in done.stdout
    assert wrong.returncode == 1
    assert "Give both the same secret" in wrong.stdout


def test_what_cannot_be_tested_is_a_matter_of_configuration(tmp_path: Path) -> None:
    done = attachd("runtime", "test", "http://127.0.0.1:9/attach")
    assert (done.returncode, done.stderr) == (
        78,
        "attachd: give the environment variable of the signing secret: --secret-env NAME\n",
    )
    done = attachd("runtime", "test", "ava", "--config", str(tmp_path / "attachd.toml"))
    assert done.returncode == 78
