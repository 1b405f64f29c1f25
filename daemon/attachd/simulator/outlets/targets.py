"""How each target takes contact events: which service, how many at once, what it refused. No state, no retry."""

from datetime import datetime
from typing import Any, assert_never

import msgspec

from attachd.simulator.delivery import EventBus, KinesisStream, Queue, Target
from attachd.simulator.outlets.outlet import Adapter, Items


def adapter(target: Target) -> Adapter:
    """Return what speaks to this target."""
    match target:
        case EventBus():
            return _ToBus(target)
        case KinesisStream():
            return _ToStream(target)
        case Queue():
            return _ToQueue(target)
        case _:
            assert_never(target)


class _ToBus:
    """PutEvents makes its own envelope: id, account and region will be the bus's."""

    service = "events"
    most = 10

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def send(self, client: Any, events: Items) -> set[int]:
        put = await client.put_events(Entries=[self._entry(event) for event in events])
        return _with_error_code(put["Entries"])

    def _entry(self, event: dict[str, Any]) -> dict[str, Any]:
        return {
            "EventBusName": self._bus.name,
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": msgspec.json.encode(event["detail"]).decode(),
            "Resources": event["resources"],
            "Time": datetime.fromisoformat(event["time"]),
        }


class _ToStream:
    """PutRecords, the whole envelope as data."""

    service = "kinesis"
    most = 500

    def __init__(self, stream: KinesisStream) -> None:
        self._where = {"StreamARN" if stream.name.startswith("arn:") else "StreamName": stream.name}
        self._by_contact = stream.partition_key == "contact id"

    async def send(self, client: Any, events: Items) -> set[int]:
        records = [
            {
                "Data": msgspec.json.encode(event),
                "PartitionKey": event["detail"]["contactId"] if self._by_contact else event["id"],
            }
            for event in events
        ]
        put = await client.put_records(Records=records, **self._where)
        return _with_error_code(put["Records"])


class _ToQueue:
    """SendMessageBatch, the whole envelope as body."""

    service = "sqs"
    most = 10

    def __init__(self, queue: Queue) -> None:
        self._url = queue.url

    async def send(self, client: Any, events: Items) -> set[int]:
        entries = [
            {"Id": str(place), "MessageBody": msgspec.json.encode(event).decode()}
            for place, event in enumerate(events)
        ]
        sent = await client.send_message_batch(QueueUrl=self._url, Entries=entries)
        return {int(each["Id"]) for each in sent.get("Failed", [])}


def _with_error_code(results: list[dict[str, Any]]) -> set[int]:
    return {place for place, result in enumerate(results) if result.get("ErrorCode")}
