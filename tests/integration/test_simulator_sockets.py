"""The chat's websocket on a real port: what a customer, a bot and a vandal meet there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import WSMsgType

from attachd.simulator import Dials, Hold, Simulator, WaitForBot, simulator

EVENT = "application/vnd.amazonaws.connect.event."
SUBSCRIBE = {"topic": "aws/subscribe", "content": {"topics": ["aws/chat"]}}
SUBSCRIBED = {"topic": "aws/subscribe", "content": {"status": "success", "topics": ["aws/chat"]}}
MARKER = "CANARY"


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


class Town:
    """A simulator, and an HTTP client which knows no SDK."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.http = http
        self.instance = {"InstanceId": sim.world.dials.instance_id}

    async def ask(self, method: str, path: str, body: Any = None, bearer: str = "") -> Any:
        headers = {"X-Amz-Bearer": bearer} if bearer else {}
        async with self.http.request(method, self.sim.url + path, json=body or {}, headers=headers) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return told

    async def start(self) -> Any:
        body = {"ContactFlowId": "flow", "ParticipantDetails": {"DisplayName": "Cleo"}}
        return await self.ask("PUT", "/contact/chat", self.instance | body)

    async def connection(self, token: str, **more: Any) -> Any:
        body = {"Type": ["WEBSOCKET", "CONNECTION_CREDENTIALS"], **more}
        return await self.ask("POST", "/participant/connection", body, token)

    async def url(self, token: str) -> str:
        return str((await self.connection(token))["Websocket"]["Url"])

    async def bot(self, contact_id: str) -> str:
        details = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
        body = self.instance | {"ContactId": contact_id, "ParticipantDetails": details}
        created = await self.ask("POST", "/contact/create-participant", body)
        return str(created["ParticipantCredentials"]["ParticipantToken"])

    async def say(self, bearer: str, content: str, kind: str = "text/plain") -> Any:
        body = {"ContentType": kind, "Content": content}
        return await self.ask("POST", "/participant/message", body, bearer)

    async def signal(self, bearer: str, kind: str, content: str = "") -> Any:
        body = {"ContentType": EVENT + kind} | ({"Content": content} if content else {})
        return await self.ask("POST", "/participant/event", body, bearer)

    async def leave(self, bearer: str) -> None:
        await self.ask("POST", "/participant/disconnect", {}, bearer)

    async def by_hand(self, contact_id: str, verb: str) -> Any:
        return await self.ask("POST", f"/_simulator/contacts/{contact_id}/{verb}")

    async def follow(self, stack: AsyncExitStack, token: str) -> tuple["Socket", str]:
        """Open a websocket and subscribe; return it and the connection token."""
        connection = await self.connection(token)
        socket = Socket(await stack.enter_async_context(self.http.ws_connect(connection["Websocket"]["Url"])))
        await socket.send(SUBSCRIBE)
        assert await socket.frame() == SUBSCRIBED
        return socket, connection["ConnectionCredentials"]["ConnectionToken"]

    def sockets(self) -> list[int]:
        return [each["sockets"] for each in self.sim.truth()["participants"]]


class Socket:
    """A websocket's client; no wait is longer than five seconds."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def send(self, frame: Any) -> None:
        await self.ws.send_json(frame)

    async def frame(self) -> Any:
        return await self.ws.receive_json(timeout=5)

    async def item(self) -> Any:
        frame = await self.frame()
        assert (frame["topic"], frame["contentType"]) == ("aws/chat", "application/json")
        return json.loads(frame["content"])

    async def kinds(self, count: int) -> list[str]:
        return [(await self.item())["ContentType"].removeprefix(EVENT) for _ in range(count)]

    async def closed(self) -> int | None:
        message = await self.ws.receive(timeout=5)
        assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}, message
        return self.ws.close_code


@asynccontextmanager
async def town(**dials: Any) -> AsyncIterator[tuple[Town, Clock, AsyncExitStack]]:
    clock = Clock()
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(simulator(Dials(token_marker=MARKER, **dials), now=clock))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Town(sim, http), clock, stack


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait for the server to notice that a client has gone: nothing tells this side when."""
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.01)


# ── a chat, as it is followed ──────────────────────────────────────────────────────────────────


async def test_subscribing_connects_the_customer_and_the_answer_precedes_the_first_item() -> None:
    async with town() as (chat, _, stack):
        started = await chat.start()
        cleo, _ = await chat.follow(stack, started["ParticipantToken"])
        joined = await cleo.item()
        [contact] = chat.sim.truth()["contacts"]
    assert contact["state"] == "CONNECTED"
    assert joined == {
        "Id": joined["Id"],
        "AbsoluteTime": "2027-01-15T08:00:00.000Z",
        "Type": "EVENT",
        "ContentType": EVENT + "participant.joined",
        "ContactId": started["ContactId"],
        "InitialContactId": started["ContactId"],
        "ParticipantId": started["ParticipantId"],
        "ParticipantRole": "CUSTOMER",
        "DisplayName": "Cleo",
    }


async def test_all_that_happens_in_a_chat_is_told_and_nothing_of_another() -> None:
    async with town() as (chat, _, stack):
        started, other = await chat.start(), await chat.start()
        cleo, cleos = await chat.follow(stack, started["ParticipantToken"])
        stranger, _ = await chat.follow(stack, other["ParticipantToken"])
        ava, avas = await chat.follow(stack, await chat.bot(started["ContactId"]))
        said = await chat.say(cleos, "hello")
        await chat.signal(avas, "typing")
        await chat.signal(avas, "message.read", json.dumps({"messageId": said["Id"]}))
        await chat.leave(cleos)
        everything = [await cleo.item() for _ in range(8)]
        assert await cleo.closed() == 1000
        heard_by_ava = await ava.kinds(7)
        assert await ava.closed() == 1000
        assert await stranger.kinds(1) == ["participant.joined"]
        await stranger.send({"topic": "aws/heartbeat"})
        assert await stranger.frame() == {"topic": "aws/heartbeat"}
    kinds = [item["ContentType"].removeprefix(EVENT) for item in everything]
    assert kinds == [
        "participant.joined",
        "participant.joined",
        "text/plain",
        "typing",
        "message.metadata",
        "participant.left",
        "participant.left",
        "chat.ended",
    ]
    assert heard_by_ava == kinds[1:]
    [receipt] = everything[4]["MessageMetadata"]["Receipts"]
    assert everything[4]["MessageMetadata"]["MessageId"] == said["Id"]
    assert receipt.keys() == {"RecipientParticipantId", "DeliveredTimestamp", "ReadTimestamp"}


async def test_who_has_not_subscribed_or_no_longer_is_told_nothing() -> None:
    async with town() as (chat, _, stack):
        started = await chat.start()
        cleo, cleos = await chat.follow(stack, started["ParticipantToken"])
        url = await chat.url(started["ParticipantToken"])
        silent = Socket(await stack.enter_async_context(chat.http.ws_connect(url)))
        assert await cleo.kinds(1) == ["participant.joined"]
        await cleo.send(SUBSCRIBE | {"topic": "aws/unsubscribe"})
        assert (await cleo.frame())["content"]["status"] == "success"
        await chat.say(cleos, "hello")
        for socket in (silent, cleo):
            await socket.send({"topic": "aws/ping"})
            assert await socket.frame() == {"topic": "aws/ping", "statusCode": 200, "statusContent": "OK"}


async def test_a_customer_keeps_its_socket_through_a_transfer_and_into_a_disconnect_flow() -> None:
    async with town(disconnect_flow=(Hold(),)) as (chat, _, stack):
        started = await chat.start()
        cleo, cleos = await chat.follow(stack, started["ParticipantToken"])
        await chat.by_hand(started["ContactId"], "agent")
        second = (await chat.by_hand(started["ContactId"], "transfer"))["contact_id"]
        await chat.by_hand(second, "agent")
        await chat.by_hand(second, "end")
        await chat.say(cleos, "five stars")
        assert await cleo.kinds(7) == [
            "participant.joined",
            "participant.joined",
            "participant.left",
            "transfer.succeeded",
            "participant.joined",
            "participant.left",
            "text/plain",
        ]


async def test_a_lost_socket_ends_no_chat_and_another_takes_its_place() -> None:
    async with town(flow=(Hold(until_bot=True), WaitForBot())) as (chat, _, stack):
        started = await chat.start()
        cleo, _ = await chat.follow(stack, started["ParticipantToken"])
        ava, avas = await chat.follow(stack, await chat.bot(started["ContactId"]))
        await cleo.ws.close()
        await eventually(lambda: chat.sockets() == [0, 1])
        cleo, _ = await chat.follow(stack, started["ParticipantToken"])
        await chat.say(avas, "still there?")
        assert await cleo.kinds(1) == ["text/plain"]
        assert await ava.kinds(2) == ["participant.joined", "text/plain"]
        assert chat.sim.truth()["contacts"][0]["state"] == "CONNECTED"


# ── how a socket is opened and closed ──────────────────────────────────────────────────────────


async def refused(chat: Town, url: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await chat.http.ws_connect(url)
    return refusal.value.status


async def test_a_url_opens_one_socket_once_within_a_hundred_seconds() -> None:
    async with town() as (chat, clock, stack):
        token = (await chat.start())["ParticipantToken"]
        url = await chat.url(token)
        await stack.enter_async_context(chat.http.ws_connect(url))
        assert await refused(chat, url) == 403
        assert await refused(chat, url.replace("Signature=", "Signature=not-")) == 403
        late = await chat.url(token)
        clock.at += 100
        assert await refused(chat, late) == 403
        async with chat.http.get((await chat.url(token)).replace("ws://", "http://")) as answer:
            assert answer.status == 400


async def test_a_participant_has_five_sockets_at_most_and_one_that_closes_makes_room() -> None:
    async with town() as (chat, _, stack):
        token = (await chat.start())["ParticipantToken"]
        first = await chat.http.ws_connect(await chat.url(token))
        for _ in range(4):
            await stack.enter_async_context(chat.http.ws_connect(await chat.url(token)))
        sixth = await chat.url(token)
        assert await refused(chat, sixth) == 429
        await first.close()
        await eventually(lambda: chat.sockets() == [4])
        await stack.enter_async_context(chat.http.ws_connect(sixth))
        assert chat.sockets() == [5]


async def test_a_socket_is_closed_when_its_connection_expires() -> None:
    async with town(websocket_seconds=600) as (chat, clock, stack):
        started = await chat.start()
        websocket = (await chat.connection(started["ParticipantToken"]))["Websocket"]
        cleo = Socket(await stack.enter_async_context(chat.http.ws_connect(websocket["Url"])))
        await cleo.send(SUBSCRIBE)
        assert await cleo.frame() == SUBSCRIBED
        assert await cleo.kinds(1) == ["participant.joined"]
        assert websocket["ConnectionExpiry"] == "2027-01-15T08:10:00.000Z"
        clock.at += 600
        assert await cleo.closed() == 1001
        await chat.follow(stack, started["ParticipantToken"])


async def test_a_bot_that_subscribes_too_late_is_told_so_and_stays_out() -> None:
    async with town() as (chat, clock, stack):
        started = await chat.start()
        url = await chat.url(await chat.bot(started["ContactId"]))
        ava = Socket(await stack.enter_async_context(chat.http.ws_connect(url)))
        clock.at += 16
        await ava.send(SUBSCRIBE)
        assert (await ava.frame())["content"] == {"status": "failure", "topics": ["aws/chat"]}
        assert chat.sim.truth()["contacts"][0]["custom_bots"]["connected"] == 0


async def test_a_simulator_that_stops_hangs_up() -> None:
    async with town() as (chat, _, stack):
        clock = Clock()
        async with AsyncExitStack() as inner:
            sim = await inner.enter_async_context(simulator(Dials(), now=clock))
            other = Town(sim, chat.http)
            started = await other.start()
            cleo, _ = await other.follow(stack, started["ParticipantToken"])
            assert await cleo.kinds(1) == ["participant.joined"]
            closing = asyncio.get_running_loop().time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inner.aclose)
                assert await cleo.closed() == 1001
            assert asyncio.get_running_loop().time() - closing < 2
    assert sim.truth()["participants"][0]["sockets"] == 0


# ── vandals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        "[]",
        "null",
        '{"topic": 7}',
        '{"topic": "aws/nothing"}',
        '{"topic": "aws/subscribe"}',
        '{"topic": "aws/subscribe", "content": {"topics": "aws/chat"}}',
        "[" * 30_000,
        b"bytes",
    ],
)
async def test_a_frame_of_no_use_is_told_so_and_harms_nothing(frame: str | bytes) -> None:
    async with town() as (chat, _, stack):
        cleo, _ = await chat.follow(stack, (await chat.start())["ParticipantToken"])
        assert await cleo.kinds(1) == ["participant.joined"]
        await (cleo.ws.send_bytes(frame) if isinstance(frame, bytes) else cleo.ws.send_str(frame))
        assert (await cleo.frame())["message"] == "Forbidden"
        await cleo.send({"topic": "aws/heartbeat"})
        assert await cleo.frame() == {"topic": "aws/heartbeat"}


@pytest.mark.parametrize("topics", [["aws/lily"], ["aws/chat", 7], []])
async def test_another_topic_than_the_chat_is_a_failure(topics: list[Any]) -> None:
    async with town() as (chat, _, stack):
        url = await chat.url((await chat.start())["ParticipantToken"])
        cleo = Socket(await stack.enter_async_context(chat.http.ws_connect(url)))
        await cleo.send({"topic": "aws/subscribe", "content": {"topics": topics}})
        assert (await cleo.frame())["content"] == {"status": "failure", "topics": topics}


async def test_a_frame_larger_than_any_use_costs_its_sender_the_socket() -> None:
    async with town() as (chat, _, stack):
        cleo, _ = await chat.follow(stack, (await chat.start())["ParticipantToken"])
        assert await cleo.kinds(1) == ["participant.joined"]
        await cleo.ws.send_str("x" * 40_000)
        assert await cleo.closed() == 1009
        await eventually(lambda: chat.sockets() == [0])


async def test_a_reader_that_does_not_read_is_cut_off_and_keeps_nobody_waiting() -> None:
    async with town() as (chat, _, stack):
        started = await chat.start()
        cleo, cleos = await chat.follow(stack, started["ParticipantToken"])
        assert await cleo.kinds(1) == ["participant.joined"]
        path = (await chat.url(started["ParticipantToken"])).partition("//")[2]
        sloth = await stack.enter_async_context(_deaf(path))
        await sloth.send(_handshake(path) + _masked(json.dumps(SUBSCRIBE)))
        await eventually(lambda: chat.sockets() == [2])
        said = 0
        while chat.sockets() == [2]:
            assert said < 5_000, "nobody cut the sloth off"
            await chat.say(cleos, json.dumps("x" * 11_000), "application/json")
            said += 1
            assert (await cleo.item())["Content"] == json.dumps("x" * 11_000)
        assert said > 256


def _handshake(where: str) -> bytes:
    host, _, path = where.partition("/")
    lines = (
        f"GET /{path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _masked(text: str) -> bytes:
    """One text frame of a client, masked with zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


def _deaf(where: str) -> Any:
    """A connection whose far end is never read, with little room for what nobody reads."""
    host, _, port = where.partition("/")[0].partition(":")

    @asynccontextmanager
    async def opened() -> AsyncIterator[anyio.abc.SocketStream]:
        async with await anyio.connect_tcp(host, int(port)) as stream:
            yield stream

    return opened()


# ── what must not get about ────────────────────────────────────────────────────────────────────


async def test_a_sockets_secret_stands_in_its_url_and_nowhere_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with town() as (chat, _, stack):
        started = await chat.start()
        await chat.follow(stack, started["ParticipantToken"])
        url = await chat.url(started["ParticipantToken"])
        assert MARKER in url
        await refused(chat, url + "x")
        told = json.dumps(chat.sim.truth())
    out, err = capfd.readouterr()
    assert MARKER not in told + out + err + repr(chat.sim.world.contacts) + repr(chat.sim.world.lines)


async def test_a_page_from_anywhere_may_hold_the_customers_side() -> None:
    async with town() as (chat, _, _stack):
        origin = {"Origin": "https://shop.example"}
        where = chat.sim.url + "/participant/connection"
        async with chat.http.options(where, headers=origin) as asked:
            assert asked.status == 204
            assert asked.headers["Access-Control-Allow-Headers"] == "*"
        async with chat.http.post(where, json={}, headers=origin) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with chat.http.post(where, json={}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
