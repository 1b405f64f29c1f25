"""Chats streamed to SNS topics, as bots read them: from a queue subscribed to the topic."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED
from hypothesis import given
from hypothesis import strategies as st

from attachd.simulator import Dials, Simulator, simulator
from attachd.simulator.outlets.topics import parts
from embedded import server

REGION = "eu-central-1"
SESSION = get_session()
BOTS_FILTER = {"Type": ["MESSAGE"], "ParticipantRole": ["CUSTOMER"]}
EVENT = "application/vnd.amazonaws.connect.event."


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with server() as url:
        for name in ("SNS", "SQS"):
            monkeypatch.setenv(f"AWS_ENDPOINT_URL_{name}", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        yield


class Topics:
    """Topics and the queues subscribed to them, in moto."""

    def __init__(self, sns: Any, sqs: Any) -> None:
        self._sns = sns
        self._sqs = sqs

    async def topic(self, name: str) -> str:
        return str((await self._sns.create_topic(Name=name))["TopicArn"])

    async def queue(self, name: str, topic: str, wanted: dict[str, list[str]] | None = None) -> str:
        url = str((await self._sqs.create_queue(QueueName=name))["QueueUrl"])
        arn = await self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        policy = {"FilterPolicy": json.dumps(wanted)} if wanted else {}
        await self._sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"], Attributes=policy
        )
        return url

    async def received(self, url: str) -> list[dict[str, Any]]:
        """All that the queue holds: envelopes of SNS, whose Message is an item, oldest first."""
        envelopes: list[dict[str, Any]] = []
        while True:
            answer = await self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return sorted(envelopes, key=lambda each: json.loads(each["Message"])["AbsoluteTime"])
            envelopes += [json.loads(message["Body"]) for message in answer["Messages"]]


@asynccontextmanager
async def topics() -> AsyncIterator[Topics]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(SESSION.create_client(name, region_name=REGION))
            for name in ("sns", "sqs")
        ]
        yield Topics(*clients)


class Clock:
    """A millisecond later at every look, so that the order of items can be told afterwards."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        self.at += 0.001
        return self.at


async def live(**dials: Any) -> tuple[Simulator, str]:
    """Let a chat stream to these topics, customer and bot speak, one read the other, and the customer leave."""
    streams = iter(dials.pop("topics"))
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator(Dials(**dials), now=Clock()))
        unsigned = AioConfig(signature_version=UNSIGNED)
        where = {"region_name": REGION, "endpoint_url": sim.url}
        connect = await stack.enter_async_context(SESSION.create_client("connect", **where))
        participant = await stack.enter_async_context(
            SESSION.create_client("connectparticipant", config=unsigned, **where)
        )
        instance = {"InstanceId": sim.world.dials.instance_id}
        chat = await connect.start_chat_contact(
            **instance, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}
        )
        contact = {"ContactId": chat["ContactId"]}
        for topic in streams:
            await connect.start_contact_streaming(
                **instance,
                **contact,
                ChatStreamingConfiguration={"StreamingEndpointArn": topic},
                ClientToken=topic,
            )

        async def join(token: str) -> str:
            answer = await participant.create_participant_connection(
                ParticipantToken=token, Type=["CONNECTION_CREDENTIALS"], ConnectParticipant=True
            )
            return str(answer["ConnectionCredentials"]["ConnectionToken"])

        cleo = await join(chat["ParticipantToken"])
        details = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
        bot = await connect.create_participant(**instance, **contact, ParticipantDetails=details)
        ava = await join(bot["ParticipantCredentials"]["ParticipantToken"])
        for bearer, said in ((cleo, "wo ist mein Päckchen? 📦"), (ava, "unterwegs")):
            await participant.send_message(ConnectionToken=bearer, ContentType="text/plain", Content=said)
        answer = sim.world.contacts[chat["ContactId"]].transcript[-2].id
        await participant.send_event(
            ConnectionToken=ava,
            ContentType=f"{EVENT}message.read",
            Content=json.dumps({"messageId": answer}),
        )
        await participant.disconnect_participant(ConnectionToken=cleo)
    return sim, chat["ContactId"]


@pytest.mark.usefixtures("aws")
async def test_a_bots_subscription_gets_the_customers_messages_and_nothing_else() -> None:
    async with topics() as town:
        topic = await town.topic("chats")
        queue = await town.queue("bot", topic, BOTS_FILTER)
        sim, contact_id = await live(topics=[topic], publish_streams=True)
        [envelope] = await town.received(queue)
    item = json.loads(envelope["Message"])
    [message] = [each for each in sim.truth()["messages"] if each["role"] == "CUSTOMER"]
    assert item == {
        "Id": message["id"],
        "AbsoluteTime": item["AbsoluteTime"],
        "Type": "MESSAGE",
        "ContentType": "text/plain",
        "Content": "wo ist mein Päckchen? 📦",
        "ParticipantId": message["participant_id"],
        "ParticipantRole": "CUSTOMER",
        "DisplayName": "Cleo",
        "ContactId": contact_id,
        "InitialContactId": contact_id,
    }
    attributes = {name: each["Value"] for name, each in envelope["MessageAttributes"].items()}
    assert attributes == {
        "InitialContactId": contact_id,
        "ContactId": contact_id,
        "ParticipantRole": "CUSTOMER",
        "InstanceId": sim.world.dials.instance_id,
        "AccountId": "111122223333",
        "Type": "MESSAGE",
        "ContentType": "text/plain",
        "MessageVisibility": "ALL",
    }
    assert {each["Type"] for each in envelope["MessageAttributes"].values()} == {"String"}


def counted(sim: Simulator) -> dict[str, int]:
    return {name: count for name, count in sim.truth()["streaming"].items() if count}


@pytest.mark.usefixtures("aws")
async def test_every_item_reaches_both_topics_and_none_is_lost_at_the_stop() -> None:
    async with topics() as town:
        arns = [await town.topic("one"), await town.topic("two")]
        queues = [await town.queue(arn.rpartition(":")[2], arn) for arn in arns]
        sim, _ = await live(topics=arns, publish_streams=True)
        received = [await town.received(queue) for queue in queues]
    kinds = [
        [json.loads(each["Message"])["ContentType"].removeprefix(EVENT) for each in envelopes]
        for envelopes in received
    ]
    assert sorted(kinds[0]) == sorted(kinds[1])
    assert kinds[0][:4] == ["participant.joined", "participant.joined", "text/plain", "text/plain"]
    assert sorted(kinds[0][4:]) == ["chat.ended", "participant.left", "participant.left"]
    [ended] = [each for each in received[0] if each["Message"].count("chat.ended")]
    assert "ParticipantRole" not in ended["MessageAttributes"]
    assert counted(sim) == {"offered": 14, "published": 14}


@pytest.mark.usefixtures("aws")
async def test_without_the_dial_nothing_is_published() -> None:
    async with topics() as town:
        topic = await town.topic("chats")
        queue = await town.queue("bot", topic)
        sim, _ = await live(topics=[topic])
        assert await town.received(queue) == []
    assert "streaming" not in sim.truth()


@pytest.mark.usefixtures("aws")
async def test_a_topic_that_is_not_there_costs_no_answer_and_the_other_topic_nothing() -> None:
    async with topics() as town:
        there = await town.topic("there")
        queue = await town.queue("bot", there)
        sim, _ = await live(topics=[there.replace("there", "absent"), there], publish_streams=True)
        assert len(await town.received(queue)) == 7
    assert counted(sim) == {"offered": 14, "published": 7, "failed": 7}
    assert {call["status"] for call in sim.truth()["calls"]} == {200}


@given(st.lists(st.integers(0, 120_000), max_size=10))
def test_no_call_is_too_large_and_no_item_is_left_out_or_moved(sizes: list[int]) -> None:
    entries = [{"Message": "x" * size, "Id": index} for index, size in enumerate(sizes)]
    split = list(parts(entries))
    assert [entry for part in split for entry in part] == entries
    assert all(part for part in split)
    assert all(sum(len(entry["Message"]) for entry in part) <= 200_000 for part in split)
