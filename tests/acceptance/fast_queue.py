"""An SQS queue of the test's own: no more than messages, handles and visibility, but fast where moto is not.

Source: Amazon SQS API reference; developer guide, "Visibility timeout".
"""

import heapq
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web

Document = dict[str, Any]


@dataclass
class _Message:
    body: str
    receives: int = 0
    visible_at: float = 0.0


@dataclass
class FastQueue:
    """The queue, and the server it is on.

    Attributes:
        received: receipts, repeated ones too.
        latency_seconds: what each call takes on its way.
    """

    endpoint: str = ""
    received: int = 0
    latency_seconds: float = 0.01
    _messages: dict[str, _Message] = field(default_factory=dict)
    _visible: deque[str] = field(default_factory=deque)
    _hidden: list[tuple[float, str]] = field(default_factory=list)
    _stirred: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"{self.endpoint}/111122223333/contact-events"

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def invisible(self) -> int:
        now = anyio.current_time()
        return sum(message.visible_at > now for message in self._messages.values())

    def add(self, body: bytes) -> None:
        self._messages[message_id := str(uuid.uuid4())] = _Message(body.decode())
        self._show(message_id)

    async def answer(self, request: web.Request) -> web.Response:
        await anyio.sleep(self.latency_seconds)
        asked = await request.json()
        match request.headers["X-Amz-Target"].partition(".")[2]:
            case "GetQueueAttributes":
                said: Document = {"Attributes": {"QueueArn": "arn:aws:sqs:eu-central-1:111122223333:q"}}
            case "ReceiveMessage":
                said = {"Messages": await self._receive(asked)}
            case "DeleteMessageBatch":
                said = self._each(asked, self._delete)
            case "ChangeMessageVisibilityBatch":
                said = self._each(asked, self._change)
            case other:
                raise web.HTTPNotImplemented(text=other)
        return web.json_response(said)

    async def _receive(self, asked: Document) -> list[Document]:
        until = anyio.current_time() + asked["WaitTimeSeconds"]
        while not (taken := self._take(asked)) and anyio.current_time() < until:
            stirred = self._stirred
            with anyio.move_on_at(min(until, self._hidden[0][0]) if self._hidden else until):
                await stirred.wait()
        return taken

    def _take(self, asked: Document) -> list[Document]:
        now = anyio.current_time()
        while self._hidden and self._hidden[0][0] <= now:
            at, message_id = heapq.heappop(self._hidden)
            if message_id in self._messages and self._messages[message_id].visible_at == at:
                self._visible.append(message_id)
        taken: list[Document] = []
        while self._visible and len(taken) < asked["MaxNumberOfMessages"]:
            message = self._messages.get(message_id := self._visible.popleft())
            if message is None:
                continue  # deleted while it was visible
            message.receives += 1
            self.received += 1
            self._hide(message_id, asked["VisibilityTimeout"])
            taken.append(
                {
                    "MessageId": message_id,
                    "ReceiptHandle": f"{message_id} {message.receives}",
                    "Body": message.body,
                    "Attributes": {"ApproximateReceiveCount": str(message.receives)},
                }
            )
        return taken

    def _each(self, asked: Document, do: Any) -> Document:
        """Every entry by itself; only the newest handle of a message is good for anything."""
        well, failed = [], []
        for entry in asked["Entries"]:
            message_id, _, receives = entry["ReceiptHandle"].partition(" ")
            message = self._messages.get(message_id)
            if message is not None and message.receives == int(receives) and do(message_id, message, entry):
                well.append({"Id": entry["Id"]})
            else:
                failed.append({"Id": entry["Id"], "Code": "ReceiptHandleIsInvalid", "SenderFault": True})
        return {"Successful": well, "Failed": failed}

    def _delete(self, message_id: str, _message: _Message, _entry: Document) -> bool:
        del self._messages[message_id]
        return True

    def _change(self, message_id: str, message: _Message, entry: Document) -> bool:
        if message.visible_at <= anyio.current_time():
            return False  # in nobody's hand any more
        if entry["VisibilityTimeout"]:
            self._hide(message_id, entry["VisibilityTimeout"])
        else:
            self._show(message_id)
        return True

    def _hide(self, message_id: str, seconds: float) -> None:
        self._messages[message_id].visible_at = at = anyio.current_time() + seconds
        heapq.heappush(self._hidden, (at, message_id))

    def _show(self, message_id: str) -> None:
        self._messages[message_id].visible_at = 0.0
        self._visible.append(message_id)
        self._stirred.set()
        self._stirred = anyio.Event()


@asynccontextmanager
async def fast_queue() -> AsyncIterator[FastQueue]:
    """A queue, on a port, for as long as the block lasts."""
    queue = FastQueue()
    app = web.Application()
    app.router.add_post("/{anything:.*}", queue.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        queue.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield queue
    finally:
        await runner.cleanup()
