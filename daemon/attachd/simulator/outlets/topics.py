"""What is said in streamed chats, on its way to their SNS topics, behind the same bounded buffer as contact events."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from attachd.simulator.outlets.outlet import Items

_MOST_BYTES = 200_000  # AWS: PublishBatch: 262,144 for all messages together, with their attributes

_TOPIC = itemgetter("TopicArn")

_log = structlog.get_logger(__name__)


class ToTopics:
    """PublishBatch entries, each with its `TopicArn`; what a topic refuses concerns no other."""

    service = "sns"
    most = 10

    async def send(self, client: Any, items: Items) -> set[int]:
        """Send a batch, topic by topic and part by part."""
        refused: set[int] = set()
        numbered = [entry | {"Id": str(place)} for place, entry in enumerate(items)]
        for topic, entries in groupby(sorted(numbered, key=_TOPIC), key=_TOPIC):
            for part in parts(list(entries)):
                request = [{name: entry[name] for name in entry if name != "TopicArn"} for entry in part]
                try:
                    sent = await client.publish_batch(TopicArn=topic, PublishBatchRequestEntries=request)
                except (BotoCoreError, ClientError) as error:
                    refused |= {int(entry["Id"]) for entry in part}
                    _log.warning("simulator.items_not_published", topic_arn=topic, error=str(error))
                else:
                    refused |= {int(entry["Id"]) for entry in sent.get("Failed", [])}
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
