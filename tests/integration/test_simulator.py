"""The simulator on a real socket, in front of the SDK which the daemon uses."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Literal

import aiohttp
import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attachd.simulator import Delivery, Dials, EventBus, KinesisStream, Queue, Simulator, simulator
from attachd.simulator.delivery import Target
from attachd.simulator.faults import Latency
from attachd.simulator.front import api
from attachd.simulator.front.clock import ManualClock, Timekeeper
from attachd.simulator.traffic.arrivals import Constant
from attachd.simulator.traffic.plan import Traffic
from embedded import server

REGION = "eu-central-1"
ONCE = {"total_max_attempts": 1}
SESSION = get_session()  # one, since it remembers the service models it has read


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


class Customer:
    """Two SDK clients against one simulator."""

    def __init__(self, sim: Simulator, connect: Any, participant: Any) -> None:
        self.sim = sim
        self.connect = connect
        self.participant = participant
        self.instance = {"InstanceId": sim.world.dials.instance_id}

    async def start(self, **more: Any) -> Any:
        return await self.connect.start_chat_contact(
            **self.instance, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}, **more
        )

    async def create(self, contact_id: str, role: str = "CUSTOM_BOT", **more: Any) -> Any:
        details = {"ParticipantRole": role, "DisplayName": "Ava"}
        return await self.connect.create_participant(
            **self.instance, ContactId=contact_id, ParticipantDetails=details, **more
        )

    async def bot_token(self, contact_id: str) -> str:
        return str((await self.create(contact_id))["ParticipantCredentials"]["ParticipantToken"])

    async def join(self, token: str) -> str:
        answer = await self.participant.create_participant_connection(
            ParticipantToken=token, Type=["CONNECTION_CREDENTIALS"], ConnectParticipant=True
        )
        return str(answer["ConnectionCredentials"]["ConnectionToken"])

    async def say(self, bearer: str, content: str = "hello") -> Any:
        return await self.participant.send_message(
            ConnectionToken=bearer, ContentType="text/plain", Content=content
        )

    async def stop(self, contact_id: str) -> Any:
        return await self.connect.stop_contact(**self.instance, ContactId=contact_id)


async def customer_of(sim: Simulator, stack: AsyncExitStack) -> Customer:
    signed = AioConfig(retries=ONCE)
    unsigned = AioConfig(retries=ONCE, signature_version=UNSIGNED)
    where = {"region_name": REGION, "endpoint_url": sim.url}
    connect = await stack.enter_async_context(
        SESSION.create_client(
            "connect", config=signed, aws_access_key_id="key", aws_secret_access_key="secret", **where
        )
    )
    participant = await stack.enter_async_context(
        SESSION.create_client("connectparticipant", config=unsigned, **where)
    )
    return Customer(sim, connect, participant)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def customer(clock: Clock) -> AsyncIterator[Customer]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator(Dials(token_marker="CANARY"), now=clock))
        yield await customer_of(sim, stack)


# ── each rule, as the SDK sees it ──────────────────────────────────────────────────────────────


async def test_a_whole_chat_reads_back_through_the_sdk(customer: Customer) -> None:
    chat = await customer.start(Attributes={"plan": "gold"})
    cleo = await customer.join(chat["ParticipantToken"])
    bot = await customer.join(await customer.bot_token(chat["ContactId"]))
    await customer.say(bot, "how may I help?")
    page = await customer.participant.get_transcript(ConnectionToken=cleo, SortOrder="ASCENDING")
    assert [item["Type"] for item in page["Transcript"]] == ["EVENT", "EVENT", "MESSAGE"]
    described = await customer.connect.describe_contact(**customer.instance, ContactId=chat["ContactId"])
    assert described["Contact"]["InitiationTimestamp"].timestamp() == 1_800_000_000
    assert described["Contact"]["Attributes"] == {"plan": "gold"}
    await customer.participant.disconnect_participant(ConnectionToken=bot)
    await customer.participant.disconnect_participant(ConnectionToken=cleo)
    (told,) = customer.sim.truth()["contacts"]
    assert told["state"] == "ENDED"
    assert told["custom_bots"] == {"existed": 1, "connected": 1, "spoke": 1}


async def unknown_contact(customer: Customer, _clock: Clock) -> None:
    await customer.create("gone")


async def ended_contact(customer: Customer, _clock: Clock) -> None:
    chat = await customer.start()
    await customer.stop(chat["ContactId"])
    await customer.create(chat["ContactId"])


async def second_bot(customer: Customer, _clock: Clock) -> None:
    chat = await customer.start()
    await customer.create(chat["ContactId"])
    await customer.create(chat["ContactId"])


async def wrong_role(customer: Customer, _clock: Clock) -> None:
    await customer.create((await customer.start())["ContactId"], role="AGENT")


async def ninth_call_at_once(customer: Customer, _clock: Clock) -> None:
    for _ in range(9):
        await customer.create((await customer.start())["ContactId"])


async def late_bot(customer: Customer, clock: Clock) -> None:
    token = await customer.bot_token((await customer.start())["ContactId"])
    clock.at += 15.001
    await customer.join(token)


async def forged_participant_token(customer: Customer, _clock: Clock) -> None:
    await customer.join("forged")


async def forged_connection_token(customer: Customer, _clock: Clock) -> None:
    await customer.say("forged")


async def ended_chat(customer: Customer, _clock: Clock) -> None:
    chat = await customer.start()
    bearer = await customer.join(chat["ParticipantToken"])
    await customer.stop(chat["ContactId"])
    await customer.say(bearer)


async def stopped_twice(customer: Customer, _clock: Clock) -> None:
    chat = await customer.start()
    await customer.stop(chat["ContactId"])
    await customer.stop(chat["ContactId"])


async def too_long_a_message(customer: Customer, _clock: Clock) -> None:
    bearer = await customer.join((await customer.start())["ParticipantToken"])
    await customer.say(bearer, "x" * 1025)


async def operation_not_played(customer: Customer, _clock: Clock) -> None:
    await customer.connect.resume_contact(**customer.instance, ContactId="c")


async def too_long_a_name(customer: Customer, _clock: Clock) -> None:
    await customer.connect.create_participant(
        **customer.instance,
        ContactId="c",
        ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "n" * 257},
    )


Story = Callable[[Customer, Clock], Any]


@pytest.mark.parametrize(
    ("story", "status", "code"),
    [
        (unknown_contact, 404, "ResourceNotFoundException"),
        (ended_contact, 404, "ResourceNotFoundException"),
        (second_bot, 402, "ServiceQuotaExceededException"),
        (wrong_role, 400, "InvalidRequestException"),
        (too_long_a_name, 400, "InvalidRequestException"),
        (ninth_call_at_once, 429, "ThrottlingException"),
        (late_bot, 404, "ResourceNotFoundException"),
        (forged_participant_token, 403, "AccessDeniedException"),
        (forged_connection_token, 403, "AccessDeniedException"),
        (ended_chat, 403, "AccessDeniedException"),
        (stopped_twice, 410, "ContactNotFoundException"),
        (too_long_a_message, 400, "ValidationException"),
        (operation_not_played, 404, "UnknownOperationException"),
    ],
)
async def test_the_sdk_reads_each_refusal_with_its_code_status_and_message(
    customer: Customer, clock: Clock, story: Story, status: int, code: str
) -> None:
    with pytest.raises(ClientError) as refused:
        await story(customer, clock)
    answer = refused.value.response
    assert answer["Error"]["Code"] == code
    assert answer["Error"]["Message"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["ResponseMetadata"]["RequestId"]


async def test_a_modelled_refusal_is_the_sdks_own_exception_class(customer: Customer) -> None:
    with pytest.raises(customer.connect.exceptions.ResourceNotFoundException):
        await customer.create("gone")


async def test_of_many_simultaneous_bots_exactly_one_gets_the_contact(customer: Customer) -> None:
    chat = (await customer.start())["ContactId"]
    outcomes: list[str] = []

    async def attempt() -> None:
        try:
            await customer.create(chat)
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
        else:
            outcomes.append("created")

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(attempt)
    assert sorted(outcomes) == ["ServiceQuotaExceededException"] * 7 + ["created"]


async def test_the_same_client_token_through_the_sdk_replays_the_answer(customer: Customer) -> None:
    chat = (await customer.start())["ContactId"]
    first, again = [await customer.create(chat, ClientToken="generation-0") for _ in range(2)]
    assert first["ParticipantCredentials"] == again["ParticipantCredentials"]
    assert first["ResponseMetadata"]["RequestId"] != again["ResponseMetadata"]["RequestId"]


# ── the simulator's own pages ──────────────────────────────────────────────────────────────────


async def test_the_truth_page_tells_everything_but_tokens(customer: Customer) -> None:
    chat = await customer.start()
    await customer.say(await customer.join(chat["ParticipantToken"]))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{customer.sim.url}/_simulator/truth") as answer:
            text = await answer.text()
        async with session.get(f"{customer.sim.url}/_simulator/health") as answer:
            assert await answer.json() == {"status": "ok"}
        async with session.get(f"{customer.sim.url}/_simulator/other") as answer:
            assert answer.status == 404
    told = json.loads(text)
    assert "CANARY" not in text
    assert told == json.loads(json.dumps(customer.sim.truth()))
    assert {call["operation"] for call in told["calls"]} == {
        "StartChatContact",
        "CreateParticipantConnection",
        "SendMessage",
    }


# ── hostile peers ──────────────────────────────────────────────────────────────────────────────


async def raw(sim: Simulator, request: bytes) -> bytes:
    """Send bytes, return what comes back until the first complete header or the peer's end."""
    host, _, port = sim.url.removeprefix("http://").rpartition(":")
    answer = b""
    with anyio.fail_after(5):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(request)
            while b"\r\n\r\n" not in answer:
                try:
                    answer += await stream.receive()
                except anyio.EndOfStream:
                    break
    return answer


HEAD = b"POST /contact/create-participant HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * 2_000_000, b"413"),
        (HEAD + b"Content-Length: 100\r\n\r\n{", b"408"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", b"408"),
        (HEAD + b"Content-Length: 4\r\nContent-Encoding: gzip\r\n\r\nnope", b"400"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", b"400"),
        (HEAD + b"Content-Length: nonsense\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (HEAD + b"X-Amz-Bearer: \xff\xfe\r\nContent-Length: 1\r\n\r\n{", b"400"),
        (b"GET /contacts/i/%ff%00 HTTP/1.1\r\nHost: h\r\n\r\n", b"404"),
        (b"GET /contacts/i/\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", b"400"),
        (b"GET http://elsewhere/contacts/i/c HTTP/1.1\r\nHost: h\r\n\r\n", b"404"),
    ],
)
async def test_a_hostile_request_is_refused_and_the_next_one_served(
    request_bytes: bytes, status: bytes
) -> None:
    async with simulator(Dials(body_within_seconds=0.05)) as sim:
        assert (await raw(sim, request_bytes)).split()[1] == status
        assert b"200 OK" in await raw(sim, b"GET /_simulator/health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"200 OK" in await raw(sim, b"GET /_simulator/truth HTTP/1.1\r\nHost: h\r\n\r\n")


def posted(path: bytes, body: bytes, bearer: bytes = b"") -> bytes:
    length = str(len(body)).encode()
    head = b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: " + length
    return head + (b"\r\nX-Amz-Bearer: " + bearer if bearer else b"") + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (posted(b"/contact/create-participant", b"[" * 10_000), b"400", b"SerializationException"),
        (
            posted(b"/contact/create-participant", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
            b"400",
            b"SerializationException",
        ),
        (posted(b"/contact/create-participant", b'{"InstanceId": "i",'), b"400", b"SerializationException"),
        (posted(b"/contact/create-participant", b'{"InstanceId": 1}'), b"400", b"SerializationException"),
        (posted(b"/contact/create-participant", b"{}"), b"400", b"InvalidRequestException"),
        (posted(b"/contact/nothing-of-the-kind", b"{}"), b"404", b"UnknownOperationException"),
        (posted(b"/participant/message", b"{}"), b"400", b"ValidationException"),
        (
            posted(b"/participant/message", b'{"ContentType":"text/plain","Content":"x"}', b"forged"),
            b"403",
            b"AccessDeniedException",
        ),
        (posted(b"/participant/disconnect", b"{}", b"b" * 1001), b"400", b"ValidationException"),
    ],
)
async def test_bad_input_has_the_status_and_code_of_aws_on_the_wire(
    request_bytes: bytes, status: bytes, code: bytes
) -> None:
    async with simulator() as sim:
        answer = await raw(sim, request_bytes)
        assert answer.split()[1] == status
        assert b"x-amzn-ErrorType: " + code in answer
        assert b"x-amzn-RequestId: " in answer
        assert b"200 OK" in await raw(sim, b"GET /_simulator/health HTTP/1.1\r\nHost: h\r\n\r\n")


async def test_many_who_never_finish_their_headers_keep_nobody_waiting() -> None:
    async with simulator() as sim, AsyncExitStack() as slow:
        host, _, port = sim.url.removeprefix("http://").rpartition(":")
        for _ in range(200):
            stream = await slow.enter_async_context(await anyio.connect_tcp(host, int(port)))
            await stream.send(b"POST /contact/create-participant HTTP/1.1\r\nHost: h\r\nX-Slow: ")
        with anyio.fail_after(2):
            assert b"200 OK" in await raw(sim, b"GET /_simulator/health HTTP/1.1\r\nHost: h\r\n\r\n")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_no_bodies_whatever_are_answered_500_or_not_at_all(bodies: list[bytes]) -> None:
    async def attack() -> None:
        async with simulator() as sim, aiohttp.ClientSession() as session:
            for body in bodies:
                for path in ("/contact/create-participant", "/participant/message"):
                    timeout = aiohttp.ClientTimeout(total=5)
                    async with session.post(sim.url + path, data=body, timeout=timeout) as answer:
                        assert 400 <= answer.status < 500
                        assert "x-amzn-ErrorType" in answer.headers

    anyio.run(attack)


async def test_stopping_does_not_wait_for_idle_or_half_sent_requests() -> None:
    with anyio.fail_after(5):
        async with simulator() as sim:
            host, _, port = sim.url.removeprefix("http://").rpartition(":")
            idle = await anyio.connect_tcp(host, int(port))
            half = await anyio.connect_tcp(host, int(port))
            await half.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        await idle.aclose()
        await half.aclose()


async def test_two_simulators_stand_side_by_side() -> None:
    async with simulator(Dials(seed=1)) as one, simulator(Dials(seed=2)) as other:
        assert one.url != other.url
        assert one.environment["AWS_ENDPOINT_URL_CONNECT"] == one.url
        assert one.environment["AWS_ENDPOINT_URL_CONNECTPARTICIPANT"] == one.url


# ── events on their way out ────────────────────────────────────────────────────────────────────


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        yield url


async def queue(stack: AsyncExitStack) -> tuple[Any, str, str]:
    client = await stack.enter_async_context(SESSION.create_client("sqs", region_name=REGION))
    url = (await client.create_queue(QueueName="contact-events"))["QueueUrl"]
    attributes = await client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return client, url, attributes["Attributes"]["QueueArn"]


async def bodies(client: Any, url: str) -> list[Any]:
    received = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [json.loads(message["Body"]) for message in received.get("Messages", [])]


async def live(target: Target, **dials: Any) -> Simulator:
    """Let one chat begin and end, and the simulator stop, which drains its events."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator(Dials(events=target, **dials)))
        customer = await customer_of(sim, stack)
        chat = await customer.start()
        await customer.join(chat["ParticipantToken"])
        await customer.stop(chat["ContactId"])
    return sim


@pytest.mark.usefixtures("aws")
async def test_events_reach_a_queue_as_whole_envelopes() -> None:
    async with AsyncExitStack() as stack:
        client, url, _ = await queue(stack)
        sim = await live(Queue(url))
        assert sorted(await bodies(client, url), key=str) == sorted(sim.events, key=str)
    counts = {"offered": 4, "lost": 0, "published": 4, "pending": 0, "dropped": 0, "failed": 0, "retried": 0}
    assert sim.truth()["publishing"] == counts
    told = sim.truth()["deliveries"]
    assert [each["event_id"] for each in told] == [event["id"] for event in sim.events]
    assert all(len(each["delivered_at"]) == 1 and not each["lost"] for each in told)


@pytest.mark.usefixtures("aws")
async def test_events_reach_an_event_bus_and_its_rules_as_aws_connects() -> None:
    pattern = {"source": ["aws.connect"], "detail-type": ["Amazon Connect Contact Event"]}
    async with AsyncExitStack() as stack:
        client, url, arn = await queue(stack)
        bus = await stack.enter_async_context(SESSION.create_client("events", region_name=REGION))
        await bus.put_rule(Name="chats", EventPattern=json.dumps(pattern))
        await bus.put_targets(Rule="chats", Targets=[{"Id": "1", "Arn": arn}])
        sim = await live(EventBus("default"))
        received = await bodies(client, url)
    for name in ("source", "detail-type", "time", "region", "resources", "detail"):
        assert sorted(str(event[name]) for event in received) == sorted(
            str(event[name]) for event in sim.events
        )


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("partition_key", ["event id", "contact id"])
async def test_events_reach_a_stream_under_the_key_eventbridge_would_give_them(
    partition_key: Literal["event id", "contact id"],
) -> None:
    stream = partition_key.replace(" ", "-")  # one of its own, since moto remembers across servers
    async with AsyncExitStack() as stack:
        kinesis = await stack.enter_async_context(SESSION.create_client("kinesis", region_name=REGION))
        await kinesis.create_stream(StreamName=stream, ShardCount=1)
        sim = await live(KinesisStream(stream, partition_key))
        shards = await kinesis.list_shards(StreamName=stream)
        begin = await kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shards["Shards"][0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        records = (await kinesis.get_records(ShardIterator=begin["ShardIterator"]))["Records"]
    assert [json.loads(record["Data"]) for record in records] == sim.events
    keys = [
        event["id"] if partition_key == "event id" else event["detail"]["contactId"] for event in sim.events
    ]
    assert [record["PartitionKey"] for record in records] == keys


@pytest.mark.usefixtures("aws")
async def test_a_lost_event_never_reaches_its_queue_and_the_truth_says_so() -> None:
    async with AsyncExitStack() as stack:
        client, url, _ = await queue(stack)
        sim = await live(Queue(url), delivery=Delivery(lost=1.0))
        assert await bodies(client, url) == []
    assert [each["lost"] for each in sim.truth()["deliveries"]] == [True] * 4


@pytest.mark.usefixtures("aws")
async def test_a_target_that_refuses_costs_events_but_no_answers() -> None:
    sim = await live(Queue("http://127.0.0.1:1/000000000000/nowhere"))
    counts = sim.truth()["publishing"]
    assert counts["offered"] == 4
    assert counts["published"] == 0
    assert [call["status"] for call in sim.truth()["calls"]] == [200, 200, 200]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Amz-Bearer: CANARY\x7f",
        b"X-Amz-Bearer: CANARY\x00",
        b"X-Amz-Bearer: CANARY\rX",
        b"X-Amz-Bearer : CANARY",
        b"X-Amz-Bearer: " + b"CANARY" * 2000,
    ],
    ids=["delete", "null", "lone carriage return", "space before the colon", "too long"],
)
async def test_a_malformed_header_is_neither_logged_nor_echoed(
    line: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with simulator() as sim:
        answer = await raw(sim, b"POST /participant/connection HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n\r\n")
    assert answer.split()[1] == b"400"
    assert b"CANARY" not in answer
    told = capfd.readouterr()
    assert "CANARY" not in told.out + told.err + caplog.text


async def test_an_operation_that_breaks_is_answered_500_recorded_and_logged_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_anything: Any) -> dict[str, Any]:
        raise RuntimeError("CANARY")

    monkeypatch.setitem(api._OPERATIONS, "SendMessage", breaks)
    body = b'{"ContentType":"text/plain","Content":"x"}'
    async with simulator() as sim:
        answer = await raw(sim, posted(b"/participant/message", body, b"bearer"))
        (call,) = sim.world.calls
    assert answer.split()[1] == b"500"
    assert b"x-amzn-ErrorType: InternalServerException" in answer
    assert (call.operation, call.status, call.code) == ("SendMessage", 500, "InternalServerException")
    told = capfd.readouterr()
    assert "RuntimeError" in told.out + told.err
    assert "CANARY" not in told.out + told.err


async def test_time_goes_on_after_something_that_was_due_broke() -> None:
    due, seen = [1.0], []

    def advance(at: float, _within_seconds: float) -> bool:
        seen.append(at)
        due[0] = at + 0.01
        if len(seen) == 1:
            raise RuntimeError
        return True

    clock = Timekeeper(time.time, advance, lambda: due[0])
    clock.wind()
    with anyio.fail_after(5):
        while len(seen) < 3:
            await anyio.sleep(0.01)
    clock.stop()


async def test_a_bearer_token_that_is_no_utf_8_is_refused_whatever_the_faults() -> None:
    async with simulator(Dials(faults=(Latency(milliseconds=0),))) as sim:
        body = b'{"ContentType":"text/plain","Content":"x"}'
        assert (await raw(sim, posted(b"/participant/message", body, b"\xff\xfe"))).split()[1] == b"403"


async def test_a_host_that_is_no_utf_8_does_not_spoil_a_websocket_s_url() -> None:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator())
        token = (await (await customer_of(sim, stack)).start())["ParticipantToken"]
        body = b'{"Type":["WEBSOCKET"]}'
        answer = await raw(
            sim,
            b"POST /participant/connection HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\nX-Amz-Bearer: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (token.encode(), len(body), body),
        )
    assert answer.split()[1] == b"200"


@pytest.mark.parametrize("page", ["traffic", "clock", "faults"])
async def test_a_deeply_nested_body_on_the_simulator_s_own_pages_is_answered_400(page: str) -> None:
    async with simulator(now=ManualClock(1_800_000_000)) as sim:
        answer = await raw(sim, posted(f"/_simulator/{page}".encode(), b"[" * 100_000))
    assert answer.split()[1] == b"400"


@pytest.mark.parametrize(
    "asked", [b'{"advance":1e12}', b'{"advance":1e300}', b'{"set":253402300799}', b'{"set":1e18}']
)
async def test_the_clock_does_not_leave_the_years_that_can_be_written(asked: bytes) -> None:
    async with simulator(now=ManualClock(1_800_000_000)) as sim:
        answer = await raw(sim, posted(b"/_simulator/clock", asked))
        assert sim.now() == 1_800_000_000
    assert answer.split()[1] == b"400"


async def test_a_skew_of_more_than_a_year_is_refused() -> None:
    async with simulator() as sim:
        faults = b'[{"kind":"clock_skew","seconds":1e12}]'
        assert (await raw(sim, posted(b"/_simulator/faults", faults))).split()[1] == b"400"
        assert not sim.faults


async def test_the_port_answers_while_a_long_time_is_being_caught_up_with() -> None:
    traffic = Traffic(Constant(100), patience=1.0)
    async with simulator(now=ManualClock(1_800_000_000), traffic=traffic) as sim:
        with anyio.move_on_after(0.5) as hurry:
            await raw(sim, posted(b"/_simulator/clock", b'{"advance":1000000}'))
        assert hurry.cancelled_caught
        assert b"200 OK" in await raw(sim, b"GET /_simulator/health HTTP/1.1\r\nHost: h\r\n\r\n")
        sim.clock.stop()
