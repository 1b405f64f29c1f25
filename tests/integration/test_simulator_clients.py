"""The same suite through three clients: every operation, every refusal which a client can see.

The simulator is a process, except where a rule needs a clock in hand or a dial which its command line has not.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import anyio
import pytest

from attachd.simulator import Dials, Simulator, simulator
from attachd.simulator.operations import connect, participant
from integration.clients import Aiobotocore, Answer, Ask, Boto3, Cli, Client

OPERATIONS = {*connect.OPERATIONS, *participant.OPERATIONS}
CLIENTS = ["aiobotocore", "boto3", "cli"]
ACCOUNT = "arn:aws:connect:eu-central-1:111122223333:instance"
TOPIC = "arn:aws:sns:eu-central-1:111122223333:chats"
EVENT = "application/vnd.amazonaws.connect.event."
BOT = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
EPOCH = 1_800_000_000.0


@pytest.fixture
def hands() -> Iterator[Boto3]:
    """The client which brings about what another is to be refused."""
    made = Boto3()
    yield made
    made.close()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, tmp_path: Path, hands: Boto3) -> Client:
    if request.param == "cli":
        return Cli(tmp_path)
    return hands if request.param == "boto3" else Aiobotocore()


@pytest.fixture(scope="module")
def process() -> Iterator[str]:
    """A simulator of two instances for each client, so that none sees another's contacts."""
    instances = [f"--instance-arn={ACCOUNT}/{name}-{each}" for name in ("life", "no") for each in CLIENTS]
    command = [sys.executable, "-m", "attachd", "simulate", "--rate=1e9", "--burst=1e9", *instances]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.stdout.readline().partition("AWS_ENDPOINT_URL_CONNECT=")[2].split()[0]
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=10) == 0


@dataclass(frozen=True)
class Desk:
    """A client at one instance of a simulator; refusals are answers, unless `must` is asked."""

    client: Client
    url: str
    instance: str

    def of(self, operation: str, **members: Any) -> Ask:
        if operation in participant.OPERATIONS:
            return Ask("connectparticipant", operation, members)
        return Ask("connect", operation, {"InstanceId": self.instance} | members)

    async def must(self, operation: str, **members: Any) -> dict[str, Any]:
        answer = await self.client.ask(self.url, self.of(operation, **members))
        assert (answer.status, answer.code, answer.message) == (200, "", "")
        assert len(answer.request_id) == 36
        return answer.body

    async def start(self, **more: Any) -> dict[str, Any]:
        cleo = {"DisplayName": "Cleo"}
        return await self.must("StartChatContact", ContactFlowId="f", ParticipantDetails=cleo, **more)

    async def call(self) -> str:
        cleo = {"DisplayName": "Cleo"}
        answer = await self.must("StartWebRTCContact", ContactFlowId="f", ParticipantDetails=cleo)
        return str(answer["ContactId"])

    async def join(self, token: str) -> str:
        answer = await self.must(
            "CreateParticipantConnection",
            ParticipantToken=token,
            Type=["CONNECTION_CREDENTIALS"],
            ConnectParticipant=True,
        )
        return str(answer["ConnectionCredentials"]["ConnectionToken"])

    async def chat(self, **more: Any) -> tuple[str, str]:
        """A chat whose customer is connected: its id, and the customer's connection token."""
        started = await self.start(**more)
        return started["ContactId"], await self.join(started["ParticipantToken"])

    async def bot(self, contact_id: str) -> str:
        answer = await self.must("CreateParticipant", ContactId=contact_id, ParticipantDetails=BOT)
        return str(answer["ParticipantCredentials"]["ParticipantToken"])

    async def ended(self) -> str:
        contact_id = str((await self.start())["ContactId"])
        await self.must("StopContact", ContactId=contact_id)
        return contact_id

    async def by_hand(self, contact_id: str, verb: str) -> str:
        page = Request(f"{self.url}/_simulator/contacts/{contact_id}/{verb}", method="POST")  # noqa: S310
        told = await anyio.to_thread.run_sync(lambda: json.load(urlopen(page, timeout=5)))  # noqa: S310
        return str(told["contact_id"])


def moment(value: object) -> float:
    """SDKs parse timestamps; the command, told to write ISO 8601, has parsed them too."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return at.timestamp()


# ── every operation ────────────────────────────────────────────────────────────────────────────


class Recorder:
    """Passes on what is asked, and remembers which operations were."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked: set[str] = set()

    async def ask(self, url: str, ask: Ask) -> Answer:
        self.asked.add(ask.operation)
        return await self._client.ask(url, ask)


async def test_a_whole_life_through_every_operation(
    client: Client, process: str, request: pytest.FixtureRequest
) -> None:
    recorder, began = Recorder(client), time.time()
    desk = Desk(recorder, process, f"life-{request.node.callspec.params['client']}")
    chat, cleo = await written_on(desk)
    await spoken_in(desk, chat, cleo)
    described = (await desk.must("DescribeContact", ContactId=chat))["Contact"]
    assert described["Arn"] == f"{ACCOUNT}/{desk.instance}/contact/{chat}"
    assert described["Tags"] == {"aws:connect:instanceId": desk.instance, "language": "de"}
    assert began - 1 <= moment(described["InitiationTimestamp"]) <= time.time() + 1
    await searched(desk, {chat, await desk.call()})
    await desk.must("StopContact", ContactId=chat)
    assert recorder.asked == OPERATIONS


async def written_on(desk: Desk) -> tuple[str, str]:
    """Start a chat, once in two attempts, and write all there is to write on it."""
    first, again = [await desk.start(ClientToken="once", Attributes={"plan": "gold"}) for _ in range(2)]
    assert first == again
    chat = first["ContactId"]
    await desk.must("UpdateContactAttributes", InitialContactId=chat, Attributes={"plan": "lead"})
    attributes = await desk.must("GetContactAttributes", InitialContactId=chat)
    assert attributes == {"Attributes": {"plan": "lead"}}
    await desk.must("TagContact", ContactId=chat, Tags={"language": "de", "x": "y"})
    await desk.must("UntagContact", ContactId=chat, TagKeys=["x", "never"])
    await desk.must(
        "UpdateParticipantRoleConfig", ContactId=chat, ChannelConfiguration=timers({"minutes": 5})
    )
    where = {"StreamingEndpointArn": TOPIC}
    stream = await desk.must(
        "StartContactStreaming", ContactId=chat, ChatStreamingConfiguration=where, ClientToken="s"
    )
    await desk.must("StopContactStreaming", ContactId=chat, StreamingId=stream["StreamingId"])
    return chat, await desk.join(first["ParticipantToken"])


async def spoken_in(desk: Desk, chat: str, cleo: str) -> None:
    """Bring a bot, speak, and read everything again a page at a time."""
    bot = await desk.join(await desk.bot(chat))
    await desk.must("SendMessage", ConnectionToken=bot, ContentType="text/plain", Content="guten Tag")
    await desk.must("SendEvent", ConnectionToken=cleo, ContentType=f"{EVENT}typing")
    pages: list[Any] = []
    following: dict[str, Any] = {}
    while not pages or following:
        page = await desk.must(
            "GetTranscript", ConnectionToken=cleo, MaxResults=3, SortOrder="ASCENDING", **following
        )
        pages.append(page["Transcript"])
        following = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
    assert [len(page) for page in pages] == [3, 1]  # the newest first, each page in ascending order
    kinds = [item["ContentType"].removeprefix(EVENT) for item in pages[1] + pages[0]]
    assert kinds == ["participant.joined", "participant.joined", "text/plain", "typing"]
    await desk.must("DisconnectParticipant", ConnectionToken=bot)


async def searched(desk: Desk, contacts: set[str]) -> None:
    now = datetime.now(UTC)
    when = {
        "Type": "INITIATION_TIMESTAMP",
        "StartTime": now - timedelta(hours=1),
        "EndTime": now + timedelta(hours=1),
    }
    found: set[str] = set()
    following: dict[str, Any] = {}
    for remaining in (True, False):
        page = await desk.must("SearchContacts", TimeRange=when, MaxResults=1, **following)
        assert page["TotalCount"] == len(contacts)
        found |= {contact["Id"] for contact in page["Contacts"]}
        assert ("NextToken" in page) is remaining
        following = {"NextToken": page.get("NextToken")}
    assert found == contacts


def timers(*values: Mapping[str, int]) -> dict[str, Any]:
    configured = [
        {
            "ParticipantRole": "CUSTOMER",
            "TimerType": "IDLE",
            "TimerValue": {"ParticipantTimerDurationInMinutes": value["minutes"]},
        }
        for value in values
    ]
    return {"Chat": {"ParticipantTimerConfigList": configured}}


# ── every refusal ──────────────────────────────────────────────────────────────────────────────

Story = Callable[[Desk], Awaitable[Ask]]
"""Brings about what must not be, and returns the call to be refused."""

STORIES: dict[tuple[int, str, str], list[Story]] = {}


def refused(status: int, code: str, word: str) -> Callable[[Story], Story]:
    """Say how the story's last call is answered; the message must have the word, as a rule a member's name."""

    def noted(story: Story) -> Story:
        STORIES.setdefault((status, code, word), []).append(story)
        return story

    return noted


@refused(404, "ResourceNotFoundException", "InstanceId")
async def unknown_instance(desk: Desk) -> Ask:
    return replace(desk, instance="nobody").of("DescribeContact", ContactId="c")


@refused(404, "ResourceNotFoundException", "InstanceId")
async def signed_for_another_region(desk: Desk) -> Ask:
    return replace(desk.of("DescribeContact", ContactId="c"), region="eu-west-2")


@refused(404, "ResourceNotFoundException", "ContactId")
async def contact_of_another_instance(desk: Desk) -> Ask:
    other = replace(desk, instance=desk.instance.replace("no", "life"))
    return other.of("DescribeContact", ContactId=await desk.call())


@refused(404, "ResourceNotFoundException", "ended")
async def bot_for_an_ended_chat(desk: Desk) -> Ask:
    return desk.of("CreateParticipant", ContactId=await desk.ended(), ParticipantDetails=BOT)


@refused(409, "ConflictException", "agent")
async def bot_beside_an_agent(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    await desk.by_hand(chat, "agent")
    return desk.of("CreateParticipant", ContactId=chat, ParticipantDetails=BOT)


@refused(402, "ServiceQuotaExceededException", "custom participant")
async def second_bot(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    await desk.join(await desk.bot(chat))  # else it frees its place while a slow client starts
    return desk.of("CreateParticipant", ContactId=chat, ParticipantDetails=BOT)


@refused(400, "InvalidRequestException", "ParticipantRole must be CUSTOM_BOT for a CHAT")
async def agent_for_a_chat(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of("CreateParticipant", ContactId=chat, ParticipantDetails=BOT | {"ParticipantRole": "AGENT"})


@refused(400, "InvalidRequestException", "ParticipantRole must be CUSTOMER for a VOICE")
async def bot_for_a_call(desk: Desk) -> Ask:
    return desk.of("CreateParticipant", ContactId=await desk.call(), ParticipantDetails=BOT)


@refused(400, "InvalidRequestException", "agent")
async def user_for_a_call_without_an_agent(desk: Desk) -> Ask:
    user = BOT | {"ParticipantRole": "CUSTOMER"}
    return desk.of("CreateParticipant", ContactId=await desk.call(), ParticipantDetails=user)


@refused(400, "InvalidRequestException", "DisplayName is required")
async def bot_without_a_name(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of("CreateParticipant", ContactId=chat, ParticipantDetails={"ParticipantRole": "CUSTOM_BOT"})


@refused(400, "InvalidRequestException", "ParticipantDetails.DisplayName")
async def bot_with_too_long_a_name(desk: Desk) -> Ask:
    return desk.of("CreateParticipant", ContactId="c", ParticipantDetails=BOT | {"DisplayName": "n" * 257})


@refused(410, "ContactNotFoundException", "not active")
async def chat_stopped_twice(desk: Desk) -> Ask:
    return desk.of("StopContact", ContactId=await desk.ended())


@refused(429, "LimitExceededException", "topics")
async def third_topic(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    where = {"ContactId": chat, "ChatStreamingConfiguration": {"StreamingEndpointArn": TOPIC}}
    for number in range(2):
        await desk.must("StartContactStreaming", **where, ClientToken=f"{number}")
    return desk.of("StartContactStreaming", **where, ClientToken="2")


@refused(400, "InvalidRequestException", "StreamingEndpointArn")
async def topic_in_order(desk: Desk) -> Ask:
    where = {"StreamingEndpointArn": f"{TOPIC}.fifo"}
    chat, _ = await desk.chat()
    return desk.of("StartContactStreaming", ContactId=chat, ChatStreamingConfiguration=where, ClientToken="t")


@refused(400, "InvalidRequestException", "StreamingEndpointArn")
async def topic_of_another_region(desk: Desk) -> Ask:
    where = {"StreamingEndpointArn": TOPIC.replace("central", "west")}
    chat, _ = await desk.chat()
    return desk.of("StartContactStreaming", ContactId=chat, ChatStreamingConfiguration=where, ClientToken="t")


@refused(404, "ResourceNotFoundException", "ContactId must be the chat's initial contact")
async def stream_of_a_later_contact(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    await desk.by_hand(chat, "agent")
    later = await desk.by_hand(chat, "transfer")
    where = {"StreamingEndpointArn": TOPIC}
    return desk.of(
        "StartContactStreaming", ContactId=later, ChatStreamingConfiguration=where, ClientToken="t"
    )


@refused(404, "ResourceNotFoundException", "StreamingId")
async def stream_that_is_none(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of("StopContactStreaming", ContactId=chat, StreamingId="none")


@refused(400, "InvalidRequestException", "ParticipantTimerConfigList")
async def timer_named_twice(desk: Desk) -> Ask:
    twice = timers({"minutes": 5}, {"minutes": 6})
    chat, _ = await desk.chat()
    return desk.of("UpdateParticipantRoleConfig", ContactId=chat, ChannelConfiguration=twice)


@refused(400, "InvalidRequestException", "Attributes must not exceed")
async def attributes_too_large(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of("UpdateContactAttributes", InitialContactId=chat, Attributes={"a": "x" * 32_767, "b": "x"})


@refused(400, "InvalidRequestException", "Attributes: a name")
async def attribute_with_a_space(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of("UpdateContactAttributes", InitialContactId=chat, Attributes={"a b": "x"})


@refused(400, "InvalidRequestException", "Tags")
async def seventh_tag(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    await desk.must("TagContact", ContactId=chat, Tags={f"{number}": "x" for number in range(6)})
    return desk.of("TagContact", ContactId=chat, Tags={"7": "x"})


@refused(400, "InvalidParameterException", "TimeRange")
async def search_over_nine_weeks(desk: Desk) -> Ask:
    end = datetime(2027, 1, 15, tzinfo=UTC)
    when = {"Type": "INITIATION_TIMESTAMP", "StartTime": end - timedelta(weeks=9), "EndTime": end}
    return desk.of("SearchContacts", TimeRange=when)


@refused(400, "InvalidParameterException", "MaxResults")
async def search_for_too_many(desk: Desk) -> Ask:
    end = datetime(2027, 1, 15, tzinfo=UTC)
    when = {"Type": "INITIATION_TIMESTAMP", "StartTime": end, "EndTime": end}
    return desk.of("SearchContacts", TimeRange=when, MaxResults=101)


@refused(400, "ValidationException", "messageId")
async def receipt_for_nothing(desk: Desk) -> Ask:
    _, cleo = await desk.chat()
    kind = f"{EVENT}message.read"
    return desk.of("SendEvent", ConnectionToken=cleo, ContentType=kind, Content='{"messageId":"none"}')


@refused(400, "ValidationException", "ContentType")
async def markdown_in_an_sms(desk: Desk) -> Ask:
    _, cleo = await desk.chat(SegmentAttributes={"connect:Subtype": {"ValueString": "connect:SMS"}})
    return desk.of("SendMessage", ConnectionToken=cleo, ContentType="text/markdown", Content="*hello*")


@refused(400, "ValidationException", "Content must not be longer than 1024")
async def message_too_long(desk: Desk) -> Ask:
    _, cleo = await desk.chat()
    return desk.of("SendMessage", ConnectionToken=cleo, ContentType="text/plain", Content="x" * 1025)


@refused(400, "ValidationException", "ContentType")
async def message_of_no_type(desk: Desk) -> Ask:
    _, cleo = await desk.chat()
    return desk.of("SendMessage", ConnectionToken=cleo, ContentType="text/verse", Content="hello")


@refused(400, "InvalidRequestException", "SupportedMessagingContentTypes")
async def guide_for_plain_text(desk: Desk) -> Ask:
    return desk.of(
        "StartChatContact",
        ContactFlowId="f",
        ParticipantDetails={"DisplayName": "Cleo"},
        SegmentAttributes={"connect:Subtype": {"ValueString": "connect:Guide"}},
        SupportedMessagingContentTypes=["text/plain"],
    )


@refused(400, "InvalidRequestException", "PersistentChat")
async def persistent_from_a_living_chat(desk: Desk) -> Ask:
    chat, _ = await desk.chat()
    return desk.of(
        "StartChatContact",
        ContactFlowId="f",
        ParticipantDetails={"DisplayName": "Cleo"},
        PersistentChat={"RehydrationType": "FROM_SEGMENT", "SourceContactId": chat},
    )


@refused(400, "InvalidRequestException", "RelatedContactId")
async def persistent_and_related(desk: Desk) -> Ask:
    past = await desk.ended()
    return desk.of(
        "StartChatContact",
        ContactFlowId="f",
        ParticipantDetails={"DisplayName": "Cleo"},
        RelatedContactId=past,
        PersistentChat={"RehydrationType": "FROM_SEGMENT", "SourceContactId": past},
    )


@refused(403, "AccessDeniedException", "denied")
async def participant_token_of_nobody(desk: Desk) -> Ask:
    return desk.of("CreateParticipantConnection", ParticipantToken="forged", Type=["CONNECTION_CREDENTIALS"])


@refused(403, "AccessDeniedException", "denied")
async def connection_token_of_nobody(desk: Desk) -> Ask:
    return desk.of("GetTranscript", ConnectionToken="forged")


@refused(403, "AccessDeniedException", "denied")
async def word_in_an_ended_chat(desk: Desk) -> Ask:
    chat, cleo = await desk.chat()
    await desk.must("StopContact", ContactId=chat)
    return desk.of("SendMessage", ConnectionToken=cleo, ContentType="text/plain", Content="hello?")


@refused(404, "UnknownOperationException", "ResumeContact")
async def operation_not_played(desk: Desk) -> Ask:
    return desk.of("ResumeContact", ContactId="c")


async def test_every_refusal_has_its_status_code_and_a_message_that_names_what_is_wrong(
    client: Client, hands: Boto3, process: str, request: pytest.FixtureRequest
) -> None:
    desk = Desk(hands, process, f"no-{request.node.callspec.params['client']}")
    surprises: list[tuple[str, object]] = []

    async def tell(story: Story, status: int, code: str, word: str) -> None:
        answer = await client.ask(process, await story(desk))
        if (answer.status, answer.code) != (status, code) or word not in answer.message:
            surprises.append((story.__name__, answer))
        assert len(answer.request_id) == 36

    async with anyio.create_task_group() as tasks:
        for (status, code, word), stories in STORIES.items():
            for story in stories:
                tasks.start_soon(tell, story, status, code, word)
    assert surprises == []


# ── what needs a clock in hand, or a dial ──────────────────────────────────────────────────────


@dataclass
class Town:
    """A simulator in this process, whose time is moved by hand."""

    desk: Desk
    sim: Simulator
    now: list[float]


@asynccontextmanager
async def town(hands: Client, dials: Mapping[str, Any]) -> AsyncIterator[Town]:
    now = [EPOCH]
    async with simulator(Dials(**dials), now=lambda: now[0]) as sim:
        yield Town(Desk(hands, sim.url, sim.world.dials.instance_id), sim, now)


async def ninth_bot(place: Town) -> Ask:
    gone = place.desk.of("CreateParticipant", ContactId="gone", ParticipantDetails=BOT)
    await place.desk.client.ask(place.sim.url, gone)
    return gone


async def start_beyond(place: Town) -> Ask:
    await place.desk.start()
    return place.desk.of("StartChatContact", ContactFlowId="f", ParticipantDetails={"DisplayName": "Cleo"})


async def late_bot(place: Town) -> Ask:
    chat, _ = await place.desk.chat()
    token = await place.desk.bot(chat)
    place.now[0] += 15.001
    return place.desk.of(
        "CreateParticipantConnection",
        ParticipantToken=token,
        Type=["CONNECTION_CREDENTIALS"],
        ConnectParticipant=True,
    )


async def connection_of_yesterday(place: Town) -> Ask:
    _, cleo = await place.desk.chat()
    place.now[0] += 86_400
    return place.desk.of("GetTranscript", ConnectionToken=cleo)


async def bot_on_a_websocket(place: Town) -> Ask:
    chat, _ = await place.desk.chat()
    token = await place.desk.bot(chat)
    return place.desk.of("CreateParticipantConnection", ParticipantToken=token, Type=["WEBSOCKET"])


async def receipt_among_three(place: Town) -> Ask:
    chat, cleo = await place.desk.chat()
    said = await place.desk.must(
        "SendMessage", ConnectionToken=cleo, ContentType="text/plain", Content="hello"
    )
    world = place.sim.world
    for role in ("AGENT", "SUPERVISOR"):
        world.connect(world.add(world.contacts[chat], role, role, EPOCH), EPOCH)
    content = json.dumps({"messageId": said["Id"]})
    return place.desk.of(
        "SendEvent", ConnectionToken=cleo, ContentType=f"{EVENT}message.read", Content=content
    )


async def seventh_in_a_call(place: Town) -> Ask:
    call = await place.desk.call()
    await place.desk.by_hand(call, "agent")
    user = BOT | {"ParticipantRole": "CUSTOMER"}
    for _ in range(4):
        await place.desk.must("CreateParticipant", ContactId=call, ParticipantDetails=user)
    return place.desk.of("CreateParticipant", ContactId=call, ParticipantDetails=user)


async def any_call(place: Town) -> Ask:
    return place.desk.of("DescribeContact", ContactId="c")


TOLD: list[tuple[Callable[[Town], Awaitable[Ask]], dict[str, Any], int, str, str]] = [
    (ninth_bot, {"rate": 0, "burst": 1}, 429, "ThrottlingException", "Rate exceeded"),
    (
        start_beyond,
        {"quotas": {"StartChatContact": (0, 1)}},
        429,
        "TooManyRequestsException",
        "Rate exceeded",
    ),
    (start_beyond, {"concurrent_chats": 1}, 429, "LimitExceededException", "active chats"),
    (late_bot, {}, 404, "ResourceNotFoundException", "in time"),
    (connection_of_yesterday, {}, 403, "AccessDeniedException", "denied"),
    (bot_on_a_websocket, {"websocket_works_for_a_custom_bot": False}, 400, "ValidationException", "Type"),
    (receipt_among_three, {}, 409, "ConflictException", "two participants"),
    (seventh_in_a_call, {}, 402, "ServiceQuotaExceededException", "6 participants"),
    (any_call, {"access_keys": {"OURS": "9" * 12}}, 403, "AccessDeniedException", "access key"),
]


async def test_every_refusal_by_the_clock_or_a_dial_too(client: Client, hands: Boto3) -> None:
    surprises: list[tuple[str, object]] = []

    async def tell(
        story: Callable[[Town], Awaitable[Ask]], dials: dict[str, Any], status: int, code: str, word: str
    ) -> None:
        async with town(hands, dials) as place:
            answer = await client.ask(place.sim.url, await story(place))
        if (answer.status, answer.code) != (status, code) or word not in answer.message:
            surprises.append((story.__name__, answer))

    async with anyio.create_task_group() as tasks:
        for told in TOLD:
            tasks.start_soon(tell, *told)
    assert surprises == []
