"""What is said in streamed chats, on its way to their SNS topics, behind the same bounded buffer as contact events."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from attachd.simulator.outlets.publish import Publisher, outlet

_MOST_BYTES = 200_000  # AWS: PublishBatch: 262,144 for all messages together, with their attributes

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def publishing_to_topics(region: str) -> AsyncIterator[Publisher]:
    """Run a publisher of PublishBatch entries, each with its `TopicArn`; on leaving it drains as `publish`'s does."""
    async with outlet("sns", region, _send) as publisher:
        yield publisher


async def _send(client: Any, batch: list[dict[str, Any]]) -> int:
    """Send a batch, topic by topic, each whatever becomes of the others; return how many were refused."""
    refused = 0
    for topic, entries in groupby(sorted(batch, key=itemgetter("TopicArn")), key=itemgetter("TopicArn")):
        for part in parts(list(entries)):
            numbered = [
                {name: value for name, value in entry.items() if name != "TopicArn"} | {"Id": str(index)}
                for index, entry in enumerate(part)
            ]
            try:
                sent = await client.publish_batch(TopicArn=topic, PublishBatchRequestEntries=numbered)
            except (BotoCoreError, ClientError) as error:
                refused += len(part)
                _log.warning("simulator.items_not_published", topic_arn=topic, error=str(error))
            else:
                refused += len(sent.get("Failed", []))
    return refused


def parts(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split into parts small enough for one call, in order; an entry larger than that is a part by itself."""
    part: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        length = len(entry["Message"].encode())
        if part and size + length > _MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part
