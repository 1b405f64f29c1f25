"""The Kinesis API's replies as our nouns. Whatever a reply may leave out may be left out.

Raises nothing but ``Transient``, whatever is in a reply that is not AWS's.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

from attachd.errors import Transient
from attachd.sources.calls import NOT_FOUND, transient
from attachd.streams import Batch, Record, Shard


def shards(listed: Iterable[dict[str, Any]]) -> tuple[Shard, ...]:
    """Shards of ListShards or DescribeStream. One that has a child is closed, whatever else is said of it."""
    try:
        found = [_shard(shard) for shard in listed]
    except Exception as error:  # noqa: BLE001 - whatever is in a reply that is not AWS's
        raise transient(error, "ListShards") from None
    parents = {parent for shard in found for parent in shard.parents}
    return tuple(replace(shard, closed=shard.closed or shard.id in parents) for shard in found)


def _shard(listed: dict[str, Any]) -> Shard:
    parents = {listed.get("ParentShardId"), listed.get("AdjacentParentShardId")} - {None, ""}
    hashes = listed.get("HashKeyRange") or {}
    return Shard(
        str(listed["ShardId"]),
        frozenset(str(parent) for parent in parents),
        closed=bool((listed.get("SequenceNumberRange") or {}).get("EndingSequenceNumber")),
        hash_range=(str(hashes["StartingHashKey"]), str(hashes["EndingHashKey"]))
        if {"StartingHashKey", "EndingHashKey"} <= hashes.keys()
        else None,
    )


def batch(answer: dict[str, Any], what: str, *, ended: bool) -> Batch:
    """What GetRecords or an event of SubscribeToShard brought. An end is told with the last records, if only with none."""
    if ended and "Records" not in answer:
        raise Transient("malformed_reply", f"{what}: neither records nor where to go on")
    try:
        return Batch(
            tuple(
                Record(
                    int(record["SequenceNumber"]),
                    bytes(record.get("Data") or b""),
                    str(record["SequenceNumber"]),
                )
                for record in answer.get("Records") or ()
            ),
            behind=(answer.get("MillisBehindLatest") or 0) / 1000,
            ended=ended,
            children=frozenset(str(child["ShardId"]) for child in answer.get("ChildShards") or ()),
        )
    except Exception as error:  # noqa: BLE001 - whatever is in a reply that is not AWS's
        raise transient(error, what) from None


async def events(stream: Any, what: str) -> AsyncIterator[dict[str, Any]]:
    """The events of a subscription, until it ends."""
    try:
        async for event in stream:
            if (body := event.get("SubscribeToShardEvent")) is not None:
                yield body
    except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
        raise no_shard(transient(error, what)) from None


def no_shard(error: Transient) -> Transient:
    """The error of a call that names a shard: what was not found is that."""
    return Transient("no_such_shard", error.detail) if error.reason == NOT_FOUND else error
