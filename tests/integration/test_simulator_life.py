"""A contact's life on a real socket: the SDK's calls, the hands that act for agents, the clock that ticks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from attachd.simulator import Dials, EnterQueue, Hold, Simulator, WaitForBot, simulator

SESSION = get_session()
TOPIC = "arn:aws:sns:eu-central-1:111122223333:chats"
EPOCH = 1_800_000_000.0


@dataclass
class Desk:
    """A simulator, two SDK clients of it, and a hand on its contacts."""

    sim: Simulator
    connect: Any
    participant: Any
    http: aiohttp.ClientSession

    @property
    def instance(self) -> dict[str, str]:
        return {"InstanceId": self.sim.world.dials.instance_id}

    async def chat(self) -> tuple[str, str]:
        chat = await self.connect.start_chat_contact(
            **self.instance, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}
        )
        return chat["ContactId"], await self.join(chat["ParticipantToken"])

    async def bot(self, contact_id: str) -> str:
        details = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
        made = await self.connect.create_participant(
            **self.instance, ContactId=contact_id, ParticipantDetails=details
        )
        return await self.join(made["ParticipantCredentials"]["ParticipantToken"])

    async def join(self, token: str) -> str:
        answer = await self.participant.create_participant_connection(
            ParticipantToken=token, Type=["CONNECTION_CREDENTIALS"], ConnectParticipant=True
        )
        return str(answer["ConnectionCredentials"]["ConnectionToken"])

    async def hand(self, contact_id: str, verb: str, method: str = "POST") -> tuple[int, Any]:
        url = f"{self.sim.url}/_simulator/contacts/{contact_id}/{verb}"
        async with self.http.request(method, url) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def desk(dials: Dials, **more: Any) -> AsyncIterator[Desk]:
    once = {"total_max_attempts": 1}
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator(dials, **more))
        where = {"region_name": "eu-central-1", "endpoint_url": sim.url}
        signed = AioConfig(retries=once)
        unsigned = AioConfig(retries=once, signature_version=UNSIGNED)
        connect = SESSION.create_client(
            "connect", config=signed, aws_access_key_id="key", aws_secret_access_key="secret", **where
        )
        participant = SESSION.create_client("connectparticipant", config=unsigned, **where)
        yield Desk(
            sim,
            await stack.enter_async_context(connect),
            await stack.enter_async_context(participant),
            await stack.enter_async_context(aiohttp.ClientSession()),
        )


@pytest.fixture
async def town() -> AsyncIterator[Desk]:
    async with desk(Dials(), now=lambda: EPOCH) as ready:
        yield ready


async def test_the_sdk_writes_on_a_contact_and_reads_it_back(town: Desk) -> None:
    chat, _ = await town.chat()
    here = town.instance | {"ContactId": chat}
    await town.connect.update_contact_attributes(
        **town.instance, InitialContactId=chat, Attributes={"plan": "gold"}
    )
    read = await town.connect.get_contact_attributes(**town.instance, InitialContactId=chat)
    assert read["Attributes"] == {"plan": "gold"}
    await town.connect.tag_contact(**here, Tags={"language": "de", "x": "y"})
    await town.connect.untag_contact(**here, TagKeys=["x", "never"])
    described = await town.connect.describe_contact(**here)
    assert described["Contact"]["Tags"]["language"] == "de"
    assert "x" not in described["Contact"]["Tags"]
    timer = {
        "ParticipantRole": "CUSTOMER",
        "TimerType": "IDLE",
        "TimerValue": {"ParticipantTimerDurationInMinutes": 5},
    }
    await town.connect.update_participant_role_config(
        **here, ChannelConfiguration={"Chat": {"ParticipantTimerConfigList": [timer]}}
    )
    stream = await town.connect.start_contact_streaming(
        **here, ChatStreamingConfiguration={"StreamingEndpointArn": TOPIC}
    )
    await town.connect.stop_contact_streaming(**here, StreamingId=stream["StreamingId"])
    assert [call["status"] for call in town.sim.truth()["calls"]] == [200] * 10


async def test_the_sdks_own_paginator_finds_every_contact(town: Desk) -> None:
    chats = {(await town.chat())[0] for _ in range(5)}
    moment = datetime.fromtimestamp(EPOCH, UTC)
    when = {"Type": "INITIATION_TIMESTAMP", "StartTime": moment, "EndTime": moment}
    pages = town.connect.get_paginator("search_contacts").paginate(
        **town.instance, TimeRange=when, PaginationConfig={"PageSize": 2}
    )
    found = [contact async for page in pages for contact in page["Contacts"]]
    assert {contact["Id"] for contact in found} == chats
    assert found[0]["InitiationTimestamp"] == moment


async def test_typing_and_receipts_travel_through_the_sdk(town: Desk) -> None:
    chat, cleo = await town.chat()
    bot = await town.bot(chat)
    kind = "application/vnd.amazonaws.connect.event."
    said = await town.participant.send_message(ConnectionToken=bot, ContentType="text/plain", Content="hello")
    content = f'{{"messageId":"{said["Id"]}"}}'
    await town.participant.send_event(
        ConnectionToken=cleo, ContentType=f"{kind}message.read", Content=content
    )
    await town.participant.send_event(ConnectionToken=cleo, ContentType=f"{kind}typing")
    page = await town.participant.get_transcript(ConnectionToken=bot)
    typing, message = page["Transcript"][:2]
    assert typing["ContentType"] == f"{kind}typing"
    assert message["MessageMetadata"]["Receipts"][0]["ReadTimestamp"] == "2027-01-15T08:00:00.000Z"


async def test_hands_bring_an_agent_who_drops_the_bot_and_transfer_the_customer(town: Desk) -> None:
    chat, cleo = await town.chat()
    bot = await town.bot(chat)
    assert await town.hand(chat, "queue") == (200, {"contact_id": chat, "state": "QUEUED"})
    assert await town.hand(chat, "agent") == (200, {"contact_id": chat, "state": "WITH_AGENT"})
    with pytest.raises(ClientError) as refused:
        await town.participant.send_message(
            ConnectionToken=bot, ContentType="text/plain", Content="still here?"
        )
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    with pytest.raises(town.connect.exceptions.ConflictException):
        await town.bot(chat)
    status, told = await town.hand(chat, "transfer")
    assert (status, told["state"]) == (200, "QUEUED")
    assert told["contact_id"] != chat
    await town.participant.send_message(ConnectionToken=cleo, ContentType="text/plain", Content="hello?")
    assert (await town.hand(told["contact_id"], "end"))[0] == 200
    assert (await town.hand(told["contact_id"], "end"))[0] == 409
    assert [event["detail"]["eventType"] for event in town.sim.events] == [
        "INITIATED",
        "CONNECTED_TO_SYSTEM",
        "QUEUED",
        "CONNECTED_TO_AGENT",
        "INITIATED",
        "DISCONNECTED",
        "COMPLETED",
        "CONNECTED_TO_SYSTEM",
        "QUEUED",
        "DISCONNECTED",
        "COMPLETED",
    ]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_hands_are_posted(town: Desk, method: str) -> None:
    chat, _ = await town.chat()
    assert (await town.hand(chat, "end", method))[0] == 404


async def test_a_waiting_flow_goes_on_by_itself_though_nobody_asks() -> None:
    flow = (WaitForBot(not_found=(Hold(0.1),)), EnterQueue(agent_after_seconds=0.1))
    async with desk(Dials(flow=flow)) as town:
        chat, _ = await town.chat()
        with anyio.fail_after(5):
            while len(town.sim.events) < 4:
                await anyio.sleep(0.02)
    assert [event["detail"]["eventType"] for event in town.sim.events][2:] == ["QUEUED", "CONNECTED_TO_AGENT"]
    assert town.sim.events[-1]["detail"]["contactId"] == chat


async def test_a_simulator_stops_though_a_flow_still_waits() -> None:
    with anyio.fail_after(5):
        async with desk(Dials(flow=(Hold(3600),))) as town:
            await town.chat()


async def test_the_truth_of_a_simulator_that_has_stopped_stands_still() -> None:
    now = [EPOCH]
    async with desk(Dials(flow=(Hold(60),)), now=lambda: now[0]) as town:
        await town.chat()
    known = town.sim.truth()
    now[0] += 3600
    assert town.sim.truth() == known
