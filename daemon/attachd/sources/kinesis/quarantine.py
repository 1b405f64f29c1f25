"""Where bodies go that can never succeed: a queue of ours, with the reason; what no queue takes, into the log."""

import base64
import random
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import anyio
import structlog
from aiobotocore.session import AioSession

from attachd.errors import Misconfigured, Transient
from attachd.retry import Backoff, retrying
from attachd.sources.kinesis.calls import call, client

_TRY_SECONDS: Final = 5.0
_NO_SUCH_QUEUE: Final = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"}
_NEVER: Final = {"InvalidMessageContents", "InvalidParameterValue", "InvalidParameterValueException"}
# API reference, SendMessage: the characters that a body may hold.
_TEXT: Final = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")

log = structlog.get_logger(__name__)


class Aside(Protocol):
    """Where bodies go that can never succeed."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect."""
        ...

    async def put(self, body: bytes, message_id: str, reason: str) -> None:
        """Keep it.

        Raises:
            Transient: not kept.
        """
        ...


class SqsQuarantine:
    """An SQS queue for bodies.

    Args:
        session: where clients come from.
        url: the queue; it is never created.
        dice: jitter.
        user_agent: sent with every call.
    """

    def __init__(self, session: AioSession, url: str, *, dice: random.Random, user_agent: str) -> None:
        self._session = session
        self._url = url
        self._dice = dice
        self._user_agent = user_agent
        self._client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect.

        Raises:
            Misconfigured: the queue does not exist.
        """
        async with client(self._session, "sqs", user_agent=self._user_agent) as self._client:
            try:
                await call(
                    self._client.get_queue_attributes,
                    "GetQueueAttributes",
                    QueueUrl=self._url,
                    AttributeNames=["QueueArn"],
                )
            except Transient as error:
                if error.reason in _NO_SUCH_QUEUE:
                    raise Misconfigured(
                        [f"queue {self._url} does not exist, and attachd never makes one"]
                    ) from None
                log.warning("kinesis.quarantine_not_checked", queue=self._url, reason=str(error))
            yield

    async def put(self, body: bytes, message_id: str, reason: str) -> None:
        """Keep the body; in base64, and ``attachd.encoding`` says so, where it is no text that SQS takes.

        Raises:
            Transient: not kept.
        """
        attributes = {"attachd.reason": reason[:256], "attachd.message_id": message_id}
        text = body.decode(errors="replace")
        if text.encode() != body or not _TEXT.fullmatch(text):
            text = base64.b64encode(body).decode() or "-"
            attributes["attachd.encoding"] = "base64"

        async def send() -> None:
            try:
                await call(
                    self._client.send_message,
                    "SendMessage",
                    QueueUrl=self._url,
                    MessageBody=text,
                    MessageAttributes={
                        name: {"DataType": "String", "StringValue": value}
                        for name, value in attributes.items()
                    },
                )
            except Transient as error:
                if error.reason not in _NEVER:
                    raise
                # Too large, most likely. It must not hold up the shard for ever.
                log.error(
                    "kinesis.not_quarantined",
                    message=message_id,
                    reason=reason,
                    refused=str(error),
                    next="given up; for as long as the stream keeps it, it can be read at that sequence number",
                )

        await retrying(send, backoff=Backoff(), until=anyio.current_time() + _TRY_SECONDS, dice=self._dice)
