"""The Kinesis API: which shards there are, and two ways to read one: polled, or pushed by enhanced fan-out.

API reference: ListShards, GetShardIterator, GetRecords, SubscribeToShard. A shard gives 5 GetRecords a second to all its
readers together, so one is paced to leave the others room. What a reply may leave out, emulators leave out.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

import anyio
import structlog

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.sources.calls import NOT_FOUND, call
from attachd.sources.kinesis import replies
from attachd.streams import Batch, Edge, Listing, Position, Start

_LIMIT: Final = 1000  # records a read
_SHARE_SECONDS: Final = 0.2  # between two reads of a shard, of which AWS allows 5 a second
_SUBSCRIBE_SECONDS: Final = 5.0  # a second subscription to a shard within these is refused
_SILENCE_SECONDS: Final = 30.0  # a subscription brings an event every 5 s, if only an empty one
_READ_SECONDS: Final = 10.0
_POLLS: Final = 100  # at once
_CONNECTIONS: Final = 1000  # a subscription holds one for as long as it lasts
_NO_LIST_SHARDS: Final = ("UnknownOperation", "NotImplemented", "InvalidAction", "501", "404")

log = structlog.get_logger(__name__)


class KinesisStream:
    """One stream.

    Args:
        sessions: where clients come from; endpoint and credentials as every AWS tool takes them, and the Region too,
            unless an ARN says it.
        stream: its name or ARN.
        name: what logs and metrics call it, instead of its own.
        fan_out: the name of the consumer to subscribe as, registered if it is not; polled without one.
        pace_seconds: between two reads of a shard that has nothing more; half of it while it has, but no more than
            AWS allows.
        now: the wall clock, for where replies carry no date.
        user_agent: sent with every call.
        idle_seconds: how long nothing must come of a closed shard whose end the endpoint does not tell.
    """

    def __init__(
        self,
        sessions: NewSession,
        stream: str,
        *,
        name: str | None = None,
        fan_out: str | None = None,
        pace_seconds: float = 1.0,
        now: Callable[[], float],
        user_agent: str,
        idle_seconds: float = 10.0,
    ) -> None:
        is_arn = stream.startswith("arn:")
        self.name = name or stream.rpartition("/")[2]
        self._target = {"StreamARN": stream} if is_arn else {"StreamName": stream}
        self._region = stream.split(":")[3] if is_arn else None
        self._sessions = sessions
        self._fan_out = fan_out
        self._pace_seconds = pace_seconds
        self._hurry_seconds = max(pace_seconds / 2, min(pace_seconds, _SHARE_SECONDS))
        self._now = now
        self._user_agent = user_agent
        self._idle_seconds = idle_seconds
        self._client: Any = None
        self._pushed: Any = None
        self._consumer = ""
        self._registering = anyio.Lock()
        self._subscribed_at: dict[str, float] = {}
        self._lists = True
        self._closed: dict[str, bool] = {}  # as last listed
        self._latest: dict[str, float] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Stream``."""
        async with AsyncExitStack() as stack:
            made = partial(
                aws.client, self._sessions, "kinesis", user_agent=self._user_agent, region=self._region
            )
            polled = made(read_timeout=_READ_SECONDS, max_pool_connections=_POLLS)
            self._client = await stack.enter_async_context(polled)
            if self._fan_out is not None:
                pushed = made(read_timeout=_SILENCE_SECONDS, max_pool_connections=_CONNECTIONS)
                self._pushed = await stack.enter_async_context(pushed)
            try:
                await self.shards()
            except Transient as error:
                if error.reason == NOT_FOUND:
                    raise Misconfigured(
                        [
                            f"stream {next(iter(self._target.values()))} does not exist, and attachd never makes one: check name and Region"
                        ]
                    ) from None
                log.warning("kinesis.not_checked", stream=self.name, reason=str(error), next="/readyz tells")
            yield

    def read(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        """See ``ports.Stream``."""
        return self._poll(shard_id, start) if self._fan_out is None else self._subscribe(shard_id, start)

    # ── shards ─────────────────────────────────────────────────────────────────────────────────

    async def shards(self) -> Listing:
        """See ``ports.Stream``."""
        found: list[dict[str, Any]] = []
        answer: dict[str, Any] = {}
        if self._lists:
            try:
                answer = await self._pages(found)
            except Transient as error:
                if not error.reason.startswith(_NO_LIST_SHARDS):
                    raise
                self._lists = False
                found.clear()
        if not self._lists:
            answer = await self._described(found)
        shards = replies.shards(found)
        if shards:  # a stream has a shard: without any, it is the reply that lacks something
            self._closed = {shard.id: shard.closed for shard in shards}
        return Listing(shards, self._date(answer))

    async def _pages(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        page: dict[str, Any] = dict(self._target)
        while True:
            answer = await call(self._client.list_shards, "ListShards", **page)
            found += answer.get("Shards") or []
            if not (token := answer.get("NextToken")):
                return answer
            page = {"NextToken": token}

    async def _described(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """The older way, for whatever does not know ListShards."""
        page: dict[str, Any] = dict(self._target)
        while True:
            answer = await call(self._client.describe_stream, "DescribeStream", **page)
            description = answer.get("StreamDescription") or {}
            found += description.get("Shards") or []
            if not description.get("HasMoreShards") or not found:
                return answer
            page["ExclusiveStartShardId"] = found[-1]["ShardId"]

    # ── polled ─────────────────────────────────────────────────────────────────────────────────

    async def _poll(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        iterator: str | None = await self._iterator(shard_id, start)
        idle_since: float | None = None
        while True:
            began = anyio.current_time()
            answer = await call(
                self._client.get_records,
                f"GetRecords of {shard_id}",
                **{name: arn for name, arn in self._target.items() if name == "StreamARN"},
                ShardIterator=iterator,
                Limit=_LIMIT,
            )
            iterator = answer.get("NextShardIterator")
            batch = replies.batch(answer, f"GetRecords of {shard_id}", ended=not iterator)
            # AWS ends a closed shard by giving no further iterator. There are endpoints that give one for ever, and
            # even put records into shards that they list as closed: such a one has ended when nothing comes any more.
            if self._closed.get(shard_id) is False or batch.records or batch.behind:
                idle_since = None
            elif began - (idle_since := idle_since or began) >= self._idle_seconds:
                batch = Batch(ended=True)
            if batch.ended and not await self._has_ended(shard_id):
                yield replace(batch, ended=False)
                raise _not_ended(shard_id)
            yield batch
            if batch.ended:
                return
            more = batch.behind > 0 or len(batch.records) >= _LIMIT
            await anyio.sleep_until(began + (self._hurry_seconds if more else self._pace_seconds))

    async def _has_ended(self, shard_id: str) -> bool:
        """A shard that has ended is never read again: a reply that lacks a field is not enough to say so."""
        if not self._closed.get(shard_id):
            await self.shards()
        return self._closed.get(shard_id, False)

    async def _iterator(self, shard_id: str, start: Start) -> str:
        what = f"GetShardIterator of {shard_id}"
        try:
            answer = await call(
                self._client.get_shard_iterator,
                what,
                **self._target,
                ShardId=shard_id,
                **self._beginning(shard_id, start, "ShardIteratorType", "StartingSequenceNumber"),
            )
        except Transient as error:
            # "… is invalid because it did not come from this stream": nothing else of the request can be wrong.
            if error.reason == "InvalidArgumentException" and isinstance(start, Position):
                raise Transient("no_such_position", error.detail) from None
            raise replies.no_shard(error) from None
        self._note_latest(shard_id, start, answer)
        if not (iterator := answer.get("ShardIterator")):
            raise Transient("malformed_reply", f"{what}: no iterator")
        return str(iterator)

    def _beginning(self, shard_id: str, start: Start, kind: str, sequence: str) -> dict[str, Any]:
        if start is Edge.LATEST:
            start = self._latest.get(shard_id, start)
        match start:
            case Position():  # at it and not after it: a part of it may be unfinished
                return {kind: "AT_SEQUENCE_NUMBER", sequence: str(start)}
            case Edge():
                return {kind: start.value}
            case moment:
                return {kind: "AT_TIMESTAMP", "Timestamp": moment}

    def _note_latest(self, shard_id: str, start: Start, answer: dict[str, Any]) -> None:
        """LATEST again, before anything was read, would skip what came between: it means the first time's moment."""
        if start is Edge.LATEST:
            self._latest.setdefault(shard_id, self._date(answer))

    # ── pushed ─────────────────────────────────────────────────────────────────────────────────

    async def _subscribe(self, shard_id: str, start: Start) -> AsyncGenerator[Batch, None]:
        """A subscription ends after 5 minutes; the next goes on where it left off."""
        what = f"SubscribeToShard of {shard_id}"
        async with self._registering:  # once, and not by each shard for itself
            consumer = self._consumer or await self._register()
        position = self._beginning(shard_id, start, "Type", "SequenceNumber")
        while True:
            # However the last one ended.
            await anyio.sleep_until(self._subscribed_at.get(shard_id, -math.inf) + _SUBSCRIBE_SECONDS)
            try:
                answer = await call(
                    self._pushed.subscribe_to_shard,
                    what,
                    ConsumerARN=consumer,
                    ShardId=shard_id,
                    StartingPosition=position,
                )
            except Transient as error:
                if error.reason == NOT_FOUND:
                    self._consumer = ""  # it may be the consumer that is gone
                raise replies.no_shard(error) from None
            self._subscribed_at[shard_id] = anyio.current_time()
            self._note_latest(shard_id, start, answer)
            events = answer["EventStream"]
            try:
                async for event in replies.events(events, what):
                    batch = replies.batch(event, what, ended=not event.get("ContinuationSequenceNumber"))
                    if batch.ended and not await self._has_ended(shard_id):
                        yield replace(batch, ended=False)
                        raise _not_ended(shard_id)
                    yield batch
                    if batch.ended:
                        return
                    position = {
                        "Type": "AFTER_SEQUENCE_NUMBER",
                        "SequenceNumber": event["ContinuationSequenceNumber"],
                    }
            finally:
                events.close()

    async def _register(self) -> str:
        """The consumer's ARN. It is registered if it is not yet: that is what ``fan_out`` asks for."""
        summary = await call(self._client.describe_stream_summary, "DescribeStreamSummary", **self._target)
        arn = summary.get("StreamDescriptionSummary", {}).get("StreamARN")
        names = {"StreamARN": arn, "ConsumerName": self._fan_out}
        try:
            answer = await call(self._client.describe_stream_consumer, "DescribeStreamConsumer", **names)
            consumer = answer.get("ConsumerDescription", {})
        except Transient as error:
            if error.reason != NOT_FOUND:
                raise
            answer = await call(self._client.register_stream_consumer, "RegisterStreamConsumer", **names)
            consumer = answer.get("Consumer", {})
            log.info("kinesis.consumer_registered", stream=self.name, consumer=self._fan_out)
        if not consumer.get("ConsumerARN"):
            raise Transient("malformed_reply", "DescribeStreamConsumer: no ARN")
        self._consumer = str(consumer["ConsumerARN"])
        return self._consumer

    def _date(self, answer: dict[str, Any]) -> float:
        """The stream's own clock, to the second: our own may be elsewhere."""
        try:
            return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return self._now()


def _not_ended(shard_id: str) -> Transient:
    return Transient("malformed_reply", f"{shard_id} is said to have ended, and is not listed as closed")
