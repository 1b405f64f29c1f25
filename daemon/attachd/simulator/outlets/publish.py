"""Contact events on their way out, to EventBridge or SQS, behind a bounded buffer so that no API answer waits.

Like AWS's, delivery is best effort: a full buffer drops, a failed batch is counted and logged, nobody is told.
It knows nothing of contacts, and `topics` shares its buffer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import msgspec
import structlog
from aiobotocore.session import get_session
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from botocore.exceptions import BotoCoreError, ClientError

from attachd.simulator.dials import EventBus, Queue

_BUFFERED = 10_000
_BATCH = 10  # the most that PutEvents and SendMessageBatch take
_DRAIN_SECONDS = 5.0

_log = structlog.get_logger(__name__)

Send = Callable[[Any, list[dict[str, Any]]], Awaitable[int]]
"""(client, batch): sends it, and returns how many of it were refused."""


class Publisher:
    """Takes events without blocking, and counts what became of them."""

    def __init__(self, stream: MemoryObjectSendStream[dict[str, Any]]) -> None:
        self._stream = stream
        self.offered = 0
        self.published = 0
        self.dropped = 0
        self.failed = 0

    def offer(self, event: dict[str, Any]) -> None:
        """Buffer one event, or drop it if the buffer is full."""
        self.offered += 1
        try:
            self._stream.send_nowait(event)
        except anyio.WouldBlock:
            self.dropped += 1
            _log.warning("simulator.event_dropped", event_id=event.get("id") or event.get("Id"))

    def counts(self) -> dict[str, int]:
        """Return how many events were offered, and how many of them published, dropped, failed so far."""
        return {
            "offered": self.offered,
            "published": self.published,
            "dropped": self.dropped,
            "failed": self.failed,
        }


@asynccontextmanager
async def publishing(target: EventBus | Queue, region: str) -> AsyncIterator[Publisher]:
    """Run a publisher of contact events."""
    service = "events" if isinstance(target, EventBus) else "sqs"
    async with outlet(service, region, partial(_send, target)) as publisher:
        yield publisher


@asynccontextmanager
async def outlet(service: str, region: str, send_batch: Send) -> AsyncIterator[Publisher]:
    """Run a publisher to an AWS service; on leaving, what is buffered is sent, for at most five seconds.

    Credentials and endpoints come from where every AWS tool takes them, the Region too; `region` is the
    instance's, for when nothing is configured.
    """
    session = get_session()
    where = session.get_config_variable("region") or region
    send, receive = anyio.create_memory_object_stream[dict[str, Any]](_BUFFERED)
    publisher = Publisher(send)
    async with (
        session.create_client(service, region_name=where) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_pump, receive, partial(send_batch, client), publisher)
        try:
            yield publisher
        finally:
            send.close()
            tasks.cancel_scope.deadline = anyio.current_time() + _DRAIN_SECONDS


async def _pump(
    receive: MemoryObjectReceiveStream[dict[str, Any]],
    send_batch: Callable[[list[dict[str, Any]]], Awaitable[int]],
    publisher: Publisher,
) -> None:
    async with receive:
        async for event in receive:
            batch = [event]
            while len(batch) < _BATCH and receive.statistics().current_buffer_used:
                batch.append(receive.receive_nowait())
            try:
                refused = await send_batch(batch)
            except (BotoCoreError, ClientError) as error:
                refused = len(batch)
                _log.warning("simulator.events_not_published", error=str(error))
            publisher.failed += refused
            publisher.published += len(batch) - refused


async def _send(target: EventBus | Queue, client: Any, batch: list[dict[str, Any]]) -> int:
    """Send a batch; return how many of it were refused."""
    if isinstance(target, EventBus):
        put = await client.put_events(Entries=[_entry(target, event) for event in batch])
        return int(put["FailedEntryCount"])
    entries = [
        {"Id": str(index), "MessageBody": msgspec.json.encode(event).decode()}
        for index, event in enumerate(batch)
    ]
    sent = await client.send_message_batch(QueueUrl=target.url, Entries=entries)
    return len(sent.get("Failed", []))


def _entry(bus: EventBus, event: dict[str, Any]) -> dict[str, Any]:
    """Write the event for PutEvents, which makes its own envelope: id, account and region will be the bus's."""
    return {
        "EventBusName": bus.name,
        "Source": event["source"],
        "DetailType": event["detail-type"],
        "Detail": msgspec.json.encode(event["detail"]).decode(),
        "Resources": event["resources"],
        "Time": datetime.fromisoformat(event["time"]),
    }
