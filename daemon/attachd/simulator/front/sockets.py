"""The chat's websocket: frames in and out, one bounded outbox a socket. What a frame brings about is `connections`'s.

A slow reader waits for nobody and nobody for it: whose outbox is full is cut off. What goes over the wire is what
amazon-connect-chatjs expects there; a frame of no use is answered as API Gateway does.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import anyio
import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from attachd.simulator.errors import ApiError
from attachd.simulator.front.api import Api
from attachd.simulator.front.wire import encode
from attachd.simulator.operations import connections, transcript
from attachd.simulator.state.nouns import Line, Participant, Ticket
from attachd.simulator.state.world import World

_TOPIC = "aws/chat"
_OUTBOX = 256  # frames; the longest has some 100 kB
_LARGEST_FRAME = 32 * 1024  # API Gateway's; a client has no use for more
_CLOSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class _Frame(msgspec.Struct):
    topic: str = ""
    content: Any = None


_read = msgspec.json.Decoder(_Frame).decode


@dataclass(eq=False, slots=True)
class _Socket:
    """One open socket; closing its outbox closes it, once all that is in there has been sent."""

    participant: Participant
    chat: str
    expires_at: float
    outbox: MemoryObjectSendStream[bytes]
    cut: Callable[[], None] = field(repr=False)
    subscribed: bool = False
    code: int = WSCloseCode.OK

    def send(self, frame: Any) -> None:
        try:
            self.outbox.send_nowait(encode(frame))
        except anyio.WouldBlock:
            _log.warning("simulator.socket_overflowed", participant_id=self.participant.id)
            self.cut()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # it is closing: whoever hangs up misses what comes after

    def close(self, code: int = WSCloseCode.OK) -> None:
        self.code = code
        self.outbox.close()


class Sockets:
    """All open sockets: `serve` answers a handshake and stays; `tell`, `expire` and `close` never wait."""

    def __init__(self, api: Api, now: Callable[[], float]) -> None:
        self._api = api
        self._now = now
        self._of_chat: dict[str, list[_Socket]] = {}  # by initial contact id
        self._by_age: OrderedDict[_Socket, None] = OrderedDict()
        api.listeners.append(self.tell)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Open the socket whose secret is in the URL, or answer 400, 403 or 429; return when it has been closed."""
        websocket = web.WebSocketResponse(max_msg_size=_LARGEST_FRAME, timeout=_CLOSE_SECONDS, compress=False)
        if not websocket.can_prepare(request):
            return _refusal(HTTPStatus.BAD_REQUEST, "Bad Request")
        secret = parse_qs(request.query_string).get(connections.SECRET, [""])[0]
        try:
            ticket = self._api.perform(
                lambda world, now: connections.open_websocket(world, secret, now), self._now()
            )
        except ApiError as error:
            busy = error.code == "ThrottlingException"
            return _refusal(HTTPStatus.TOO_MANY_REQUESTS if busy else HTTPStatus.FORBIDDEN, error.message)
        try:
            await self._serve(request, websocket, ticket)
        except ConnectionError:
            pass  # the client has gone; it may come back with another URL
        finally:
            connections.close_websocket(ticket.participant)
        return websocket

    async def _serve(
        self, request: web.BaseRequest, websocket: web.WebSocketResponse, ticket: Ticket
    ) -> None:
        send, receive = anyio.create_memory_object_stream[bytes](_OUTBOX)
        with send, receive:
            socket = self._add(ticket, send, partial(_cut, request))  # first: the chat may end meanwhile
            try:
                await websocket.prepare(request)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_write, websocket, socket, receive)
                    async for message in websocket:
                        self._hear(socket, message.data if message.type is WSMsgType.TEXT else "")
                    tasks.cancel_scope.cancel()
            finally:
                self._remove(socket)

    def tell(self, lines: Sequence[Line]) -> None:
        """Send these lines to all who follow their chats, and hang up on who is no longer in one."""
        for line in lines:
            sockets = self._of_chat.get(line.contact.initial_contact_id)
            if sockets:
                content = encode(transcript.told(line)).decode()
                frame = {"content": content, "contentType": "application/json", "topic": _TOPIC}
                for socket in sockets:
                    if socket.subscribed:
                        socket.send(frame)
        for chat in {line.contact.initial_contact_id for line in lines} & self._of_chat.keys():
            for socket in self._of_chat[chat]:
                if socket.participant.disconnected_at is not None:
                    socket.close()

    def expire(self, now: float) -> None:
        """Hang up where the ConnectionExpiry has come."""
        while self._by_age and next(iter(self._by_age)).expires_at <= now:
            socket, _ = self._by_age.popitem(last=False)
            socket.close(WSCloseCode.GOING_AWAY)

    def close(self) -> None:
        """Hang up everywhere."""
        for socket in self._by_age:
            socket.close(WSCloseCode.GOING_AWAY)

    def _add(self, ticket: Ticket, outbox: MemoryObjectSendStream[bytes], cut: Callable[[], None]) -> _Socket:
        chat = self._api.chat_of(ticket.participant)
        socket = _Socket(ticket.participant, chat, ticket.expires_at, outbox, cut)
        self._of_chat.setdefault(chat, []).append(socket)
        self._by_age[socket] = None
        return socket

    def _remove(self, socket: _Socket) -> None:
        sockets = self._of_chat[socket.chat]
        sockets.remove(socket)
        if not sockets:
            del self._of_chat[socket.chat]
        self._by_age.pop(socket, None)

    def _hear(self, socket: _Socket, text: str) -> None:
        try:
            frame = _read(text)
        except (msgspec.DecodeError, RecursionError):
            frame = _Frame()
        match frame:
            case _Frame(topic="aws/heartbeat"):
                socket.send({"topic": frame.topic})
            case _Frame(topic="aws/ping"):
                socket.send({"topic": frame.topic, "statusCode": 200, "statusContent": "OK"})
            case _Frame(topic="aws/subscribe" | "aws/unsubscribe", content={"topics": list(topics)}):
                self._subscribe(socket, frame.topic, topics)
            case _:
                # API Gateway's answer to a frame it has no route for; a client's, not ours, to worry about
                ids = {"connectionId": socket.participant.id, "requestId": socket.participant.id}
                socket.send({"message": "Forbidden", **ids})

    def _subscribe(self, socket: _Socket, topic: str, topics: list[Any]) -> None:
        """Answer, then let happen what comes of it: the answer precedes the first item."""

        def act(world: World, now: float) -> None:
            if topics != [_TOPIC]:
                raise ApiError("ValidationException", f"the simulator knows no topic but {_TOPIC}")
            if topic == "aws/subscribe":
                connections.subscribe(world, socket.participant, now)
            socket.subscribed = topic == "aws/subscribe"
            socket.send({"topic": topic, "content": {"status": "success", "topics": topics}})

        try:
            self._api.perform(act, self._now())
        except ApiError:
            socket.send({"topic": topic, "content": {"status": "failure", "topics": topics}})


async def _write(
    websocket: web.WebSocketResponse, socket: _Socket, receive: MemoryObjectReceiveStream[bytes]
) -> None:
    try:
        async for frame in receive:
            await websocket.send_str(frame.decode())
        await websocket.close(code=socket.code)
    except ConnectionError:
        pass  # the reader finds out by itself


def _cut(request: web.BaseRequest) -> None:
    """Break the connection off: a closing handshake would wait for the very reader who does not read."""
    if request.transport is not None:
        request.transport.abort()


def _refusal(status: HTTPStatus, message: str) -> web.Response:
    return web.Response(
        status=status, body=encode({"message": message}), headers={"Content-Type": "application/json"}
    )
