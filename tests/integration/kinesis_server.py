"""A Kinesis endpoint of our own: strict about requests, scripted in its answers, HTTP/1.1 and the event-stream encoding."""

import base64
import json
import struct
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web

Document = dict[str, Any]
Reply = Callable[[Document], Awaitable[web.StreamResponse] | web.StreamResponse]
PAGE = 100  # ListShards and DescribeStream bring so many at most (API reference)
ARN = "arn:aws:kinesis:eu-central-1:111122223333:stream/events"


@dataclass
class Call:
    operation: str
    at: float
    body: Document


@dataclass
class Shard:
    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False
    records: list[tuple[int, bytes]] = field(default_factory=list)

    def listed(self) -> Document:
        shard: Document = {"ShardId": self.id, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
        if self.closed:
            shard["SequenceNumberRange"]["EndingSequenceNumber"] = "999"
        return shard | dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))


class Scripted:
    """A stream of these shards, but for the ``replies`` of an operation."""

    def __init__(self) -> None:
        self.url = ""
        self.shards: dict[str, Shard] = {}
        self.replies: dict[str, deque[Reply]] = {}
        self.calls: list[Call] = []
        self.events: deque[list[Document]] = deque()  # what each subscription brings before it ends
        self.digits = 0  # a sequence number has so many at least
        self._next = 0

    def grow(self, *parents: str) -> Shard:
        shard = Shard(f"shardId-{len(self.shards):012d}", parents)
        self.shards[shard.id] = shard
        return shard

    def put(self, shard: Shard, *bodies: bytes) -> None:
        for body in bodies:
            self._next += 1
            shard.records.append((self._next, body))

    @property
    def open(self) -> list[Shard]:
        return [shard for shard in self.shards.values() if not shard.closed]

    def split(self, shard: Shard) -> None:
        shard.closed = True
        self.grow(shard.id)
        self.grow(shard.id)

    def merge(self, shard: Shard, adjacent: Shard) -> None:
        shard.closed = adjacent.closed = True
        self.grow(shard.id, adjacent.id)

    def on(self, operation: str, *replies: Reply) -> None:
        """How the next calls of the operation are answered."""
        self.replies.setdefault(operation, deque()).extend(replies)

    def of(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].removeprefix("Kinesis_20131202.")
        body = await request.json()
        self.calls.append(Call(operation, anyio.current_time(), body))
        if self.replies.get(operation):
            reply = self.replies[operation].popleft()(body)
            return reply if isinstance(reply, web.StreamResponse) else await reply
        if operation == "SubscribeToShard":
            return await self._push(request)
        return web.json_response(getattr(self, f"_{operation}")(body))

    def _ListShards(self, body: Document) -> Document:  # noqa: N802 - the operation's own name
        assert len({"StreamName", "StreamARN", "NextToken"} & body.keys()) == 1
        at = int(body.get("NextToken", 0))
        listed = [shard.listed() for shard in self.shards.values()]
        page: Document = {"Shards": listed[at : at + PAGE]}
        return page | ({"NextToken": str(at + PAGE)} if at + PAGE < len(listed) else {})

    def _DescribeStream(self, body: Document) -> Document:  # noqa: N802
        listed = [shard.listed() for shard in self.shards.values()]
        after = body.get("ExclusiveStartShardId", "")
        page = [shard for shard in listed if shard["ShardId"] > after]
        return {"StreamDescription": {"Shards": page[:PAGE], "HasMoreShards": len(page) > PAGE}}

    def _GetShardIterator(self, body: Document) -> Document:  # noqa: N802
        records = self.shards[body["ShardId"]].records
        match body["ShardIteratorType"]:
            case "TRIM_HORIZON":
                at = 0
            case "AT_SEQUENCE_NUMBER":
                at = sum(n < int(body["StartingSequenceNumber"]) for n, _ in records)
            case "AT_TIMESTAMP":
                assert isinstance(body["Timestamp"], int | float)
                at = 0
            case _:
                at = len(records)
        return {"ShardIterator": f"{body['ShardId']}/{at}"}

    def _GetRecords(self, body: Document) -> Document:  # noqa: N802
        shard_id, _, at = body["ShardIterator"].partition("/")
        shard = self.shards[shard_id]
        end = min(int(at) + body["Limit"], len(shard.records))
        # Nothing that may be left out is there: no MillisBehindLatest, no ChildShards, no time of arrival.
        answer: Document = {
            "Records": [record(n, data, self.digits) for n, data in shard.records[int(at) : end]]
        }
        if not (shard.closed and end == len(shard.records)):
            answer["NextShardIterator"] = f"{shard_id}/{end}"
        return answer

    def _DescribeStreamSummary(self, _: Document) -> Document:  # noqa: N802
        return {"StreamDescriptionSummary": {"StreamARN": ARN}}

    def _DescribeStreamConsumer(self, body: Document) -> Document:  # noqa: N802
        return {"ConsumerDescription": {"ConsumerARN": f"{ARN}/consumer/{body['ConsumerName']}:1"}}

    def _RegisterStreamConsumer(self, body: Document) -> Document:  # noqa: N802
        return {"Consumer": {"ConsumerARN": f"{ARN}/consumer/{body['ConsumerName']}:1"}}

    async def _push(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        await response.prepare(request)
        await response.write(event("initial-response", {}))
        for document in self.events.popleft() if self.events else []:
            kind = document.pop("!", "SubscribeToShardEvent")
            await response.write(event(kind, document, exception=kind.endswith("Exception")))
        return response


def record(sequence: int, data: bytes, digits: int = 0) -> Document:
    number = str(sequence).zfill(digits)
    return {"SequenceNumber": number, "Data": base64.b64encode(data).decode(), "PartitionKey": "key"}


def event(kind: str, payload: Document, *, exception: bool = False) -> bytes:
    """A message of ``application/vnd.amazon.eventstream`` (Amazon Transcribe developer guide, "Event stream encoding")."""
    name = (
        {":message-type": "exception", ":exception-type": kind}
        if exception
        else {
            ":message-type": "event",
            ":event-type": kind,
        }
    )
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for key, value in (name | {":content-type": "application/json"}).items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack("!I", zlib.crc32(message))


def refusing(code: str, status: int = 400) -> Reply:
    return lambda _body: web.json_response({"__type": code, "message": "no"}, status=status)


def saying(text: bytes) -> Reply:
    return lambda _body: web.Response(body=text, content_type="application/x-amz-json-1.1")


@asynccontextmanager
async def serving() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    app = web.Application()
    app.router.add_post("/{anything:.*}", scripted.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield scripted
    finally:
        await runner.cleanup()
