"""Faults on a real socket, in front of real clients; a clock that stands still."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from attachd.simulator import Dials, EnterQueue, Hold, Simulator, simulator
from attachd.simulator.faults import ClockSkew, Deed, Error, Garbled, Latency, Outage, Reset, Silence
from attachd.simulator.front.clock import ManualClock

SESSION = get_session()
BOTS = ("CreateParticipant",)
CREATE = "/contact/create-participant"


@asynccontextmanager
async def connect_client(sim: Simulator, **config: Any) -> AsyncIterator[Any]:
    """The SDK's client of Connect; without retries unless told."""
    settings = AioConfig(**{"retries": {"total_max_attempts": 1}} | config)
    async with SESSION.create_client(
        "connect",
        region_name="eu-central-1",
        endpoint_url=sim.url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=settings,
    ) as client:
        yield client


async def start(sim: Simulator, client: Any) -> str:
    answer = await client.start_chat_contact(
        InstanceId=sim.world.dials.instance_id,
        ContactFlowId="flow",
        ParticipantDetails={"DisplayName": "Cleo"},
    )
    return str(answer["ContactId"])


async def create(sim: Simulator, client: Any, chat: str) -> Any:
    return await client.create_participant(
        InstanceId=sim.world.dials.instance_id,
        ContactId=chat,
        ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
    )


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Error(operations=BOTS), ClientError),
        (Error(operations=BOTS, when="after"), ClientError),
        (Silence(operations=BOTS), ReadTimeoutError),
        (Silence(operations=BOTS, when="after", seconds=0.05), ConnectionClosedError),
        (Reset(operations=BOTS), EndpointConnectionError),
        (Reset(operations=BOTS, when="after"), EndpointConnectionError),
        (Garbled(operations=BOTS), ConnectionClosedError),
        (Outage(operations=BOTS), ClientError),
        (Outage(operations=BOTS, how="reset"), EndpointConnectionError),
    ],
    ids=lambda value: f"{value.kind} {getattr(value, 'when', '')}" if hasattr(value, "kind") else "",
)
async def test_what_the_sdk_makes_of_a_fault(fault: Deed, seen: type[Exception]) -> None:
    """And the next call is answered as if nothing had been."""
    async with simulator(Dials(faults=(fault,))) as sim, connect_client(sim, read_timeout=0.3) as client:
        chat = await start(sim, client)
        with pytest.raises(seen):
            await create(sim, client, chat)
        effect = sim.truth()["calls"][-1]["effect"]
        assert sim.truth()["contacts"][0]["custom_bots"]["existed"] == int(effect)
        sim.faults = ()
        assert (await client.describe_contact(InstanceId=sim.world.dials.instance_id, ContactId=chat))[
            "Contact"
        ]


async def test_of_an_answer_that_is_no_json_botocore_makes_one_without_members() -> None:
    """The SDK raises nothing: whoever reads the token finds none."""
    dials = Dials(faults=(Garbled(operations=BOTS, how="malformed"),))
    async with simulator(dials) as sim, connect_client(sim) as client:
        answer = await create(sim, client, await start(sim, client))
    assert set(answer) == {"ResponseMetadata"}


@pytest.mark.parametrize("fault", [Error, Reset, Silence])
async def test_an_sdk_that_retries_an_ambiguous_failure_gets_the_one_bot_there_is(fault: Any) -> None:
    """Since botocore repeats its ClientToken with the call."""
    dials = Dials(faults=(fault(operations=BOTS, when="after", tries=(1,)),))
    retrying = {"retries": {"total_max_attempts": 2, "mode": "standard"}, "read_timeout": 0.2}
    async with simulator(dials) as sim, connect_client(sim, **retrying) as client:
        chat = await start(sim, client)
        answer = await create(sim, client, chat)
        told = sim.truth()
    assert [each["id"] for each in told["participants"] if each["role"] == "CUSTOM_BOT"] == [
        answer["ParticipantId"]
    ]
    assert [call["effect"] for call in told["calls"] if call["operation"] == "CreateParticipant"] == [
        True,
        True,
    ]


async def test_a_reset_is_one_and_no_mere_closing() -> None:
    async with simulator(Dials(faults=(Reset(),))) as sim:
        host, port = sim.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /contacts/i/c HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(anyio.BrokenResourceError) as broken:
                await stream.receive()
    assert isinstance(broken.value.__cause__, ConnectionResetError)
    assert broken.value.__cause__.errno in {errno.ECONNRESET, None}


async def test_a_truncated_answer_promises_more_than_it_brings() -> None:
    async with simulator(Dials(faults=(Garbled(),))) as sim:
        host, port = sim.url.removeprefix("http://").split(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(b"GET /contacts/i/c HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b"".join([each async for each in stream])
    head, _, body = received.partition(b"\r\n\r\n")
    [length] = [int(line.split()[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")]
    assert len(body) == length // 2


async def test_a_silence_ends_with_the_client_who_goes_away_or_with_the_simulator() -> None:
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        async with simulator(Dials(faults=(Silence(),))) as sim:
            with pytest.raises(TimeoutError):
                await session.get(sim.url + "/contacts/i/c", timeout=aiohttp.ClientTimeout(total=0.1))
            tasks.start_soon(refused, session, sim.url + "/contacts/i/d")
            while len(sim.truth()["calls"]) < 2:
                await anyio.sleep(0.01)
            began = anyio.current_time()
        assert anyio.current_time() - began < 0.5  # nobody was waited for


async def refused(session: aiohttp.ClientSession, url: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await session.get(url)


async def test_a_latency_of_milliseconds_is_kept_and_the_effect_does_not_wait_for_it() -> None:
    async with simulator(Dials(faults=(Latency(milliseconds=120),))) as sim, connect_client(sim) as client:
        began = anyio.current_time()
        await start(sim, client)
        took = anyio.current_time() - began
        [call] = sim.truth()["calls"]
        [contact] = sim.truth()["contacts"]
    assert 0.12 <= took < 1
    assert contact["started_at"] == call["at"]


async def test_a_client_whose_clock_is_off_is_refused_and_told_the_time() -> None:
    """botocore does not correct its clock; SDKs that do read this Date."""
    async with simulator(Dials(faults=(ClockSkew(seconds=900),))) as sim, connect_client(sim) as client:
        with pytest.raises(ClientError) as refusal:
            await start(sim, client)
        answer = refusal.value.response
        assert answer["Error"]["Code"] == "InvalidSignatureException"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
        assert answer["ResponseMetadata"]["HTTPHeaders"]["date"].endswith("GMT")


# ── a clock that stands still ──────────────────────────────────────────────────────────────────


async def test_a_late_answer_comes_when_the_clock_is_moved_and_not_before() -> None:
    clock = ManualClock(1_800_000_000)
    answered = anyio.Event()

    async def ask(session: aiohttp.ClientSession, url: str) -> None:
        await session.get(url)
        answered.set()

    dials = Dials(faults=(Latency(milliseconds=5000),))
    async with (
        simulator(dials, now=clock) as sim,
        aiohttp.ClientSession() as session,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask, session, sim.url + "/contacts/i/c")
        while not sim.truth()["calls"]:
            await anyio.sleep(0.01)
        clock.advance(4.999)
        with anyio.move_on_after(0.2):
            await answered.wait()
        assert not answered.is_set()
        clock.advance(0.001)
        with anyio.fail_after(5):
            await answered.wait()


async def test_the_clock_is_moved_by_a_page_and_everything_happens_at_its_moment() -> None:
    clock = ManualClock(1_800_000_000)
    dials = Dials(flow=(Hold(3), EnterQueue(agent_after_seconds=4)))
    async with simulator(dials, now=clock) as sim, aiohttp.ClientSession() as session:
        async with connect_client(sim) as client:
            await start(sim, client)
        customer = next(iter(sim.world.participants))
        headers = {"X-Amz-Bearer": customer}
        await session.post(
            sim.url + "/participant/connection", json={"ConnectParticipant": True}, headers=headers
        )
        page = sim.url + "/_simulator/clock"
        async with session.post(page, json={"advance": 5}) as answer:
            assert (answer.status, await answer.json()) == (200, {"now": 1_800_000_005})
        [contact] = sim.truth()["contacts"]
        assert (contact["state"], contact["enqueued_at"]) == ("QUEUED", 1_800_000_003)
        async with session.post(page, json={"set": "2027-01-15T08:01:00Z"}) as answer:
            assert (answer.status, await answer.json()) == (200, {"now": 1_800_000_060})
        [contact] = sim.truth()["contacts"]
        assert contact["agent_connected_at"] == 1_800_000_007
        for wrong in (
            {"advance": -1},
            {"set": 5},
            {},
            {"advance": 1, "set": 2},
            {"advanse": 1},
            {"set": "noon"},
            3,
        ):
            async with session.post(page, json=wrong) as answer:
                assert answer.status == 400
                assert (await answer.json())["message"]
        assert clock() == 1_800_000_060


async def test_a_clock_that_goes_by_itself_is_not_moved() -> None:
    async with simulator(Dials()) as sim, aiohttp.ClientSession() as session:
        answer = await session.post(sim.url + "/_simulator/clock", json={"advance": 5})
        assert answer.status == 409


async def test_faults_are_replaced_by_a_page_and_in_process() -> None:
    async with simulator(Dials()) as sim, aiohttp.ClientSession() as session:
        page, call = sim.url + "/_simulator/faults", sim.url + "/contacts/i/c"
        async with session.post(page, json=[{"kind": "throttling"}]) as answer:
            assert await answer.json() == {"faults": ["throttling-1"]}
        async with session.get(call) as answer:
            assert answer.status == 429
        assert [fault.kind for fault in sim.faults] == ["throttling"]
        sim.faults = (Outage(),)
        async with session.get(call) as answer:
            assert answer.status == 503
        async with session.post(page, json=[{"kind": "throttle"}]) as answer:
            assert answer.status == 400
            assert "did you mean 'throttling'?" in (await answer.json())["message"]
        async with session.get(call) as answer:
            assert answer.status == 503
