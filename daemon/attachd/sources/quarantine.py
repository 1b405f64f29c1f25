"""Where bodies go that can never succeed: a queue of ours, with the reason; what it does not take, into the log."""

import base64
import random
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import anyio
import structlog

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.retry import Backoff, retrying
from attachd.sources.calls import NOT_FOUND, call

_CALL_SECONDS: Final = 3.0
_TRY_SECONDS: Final = 5.0
_NEVER: Final = {"InvalidMessageContents", "InvalidParameterValue", "InvalidParameterValueException"}
# API reference, SendMessage: the characters that a body may hold.
_TEXT: Final = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")

log = structlog.get_logger(__name__)


class Aside(Protocol):
    """Where bodies go that can never succeed."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Connect."""
        ...

    async def put(self, body: bytes, message_id: str, reason: str) -> bool:
        """Keep it; whether that was possible, since a body may be of a kind that is never taken.

        Raises:
            Transient: not kept.
        """
        ...


class SqsQuarantine:
    """An SQS queue for bodies.

    Args:
        sessions: where clients come from.
        url: the queue; it is never created.
        dice: jitter.
        user_agent: sent with every call.
    """

    def __init__(self, sessions: NewSession, url: str, *, dice: random.Random, user_agent: str) -> None:
        self._sessions = sessions
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
        async with aws.client(
            self._sessions,
            "sqs",
            region=aws.region_of(self._url),
            user_agent=self._user_agent,
            read_timeout=_CALL_SECONDS,
        ) as self._client:
            try:
                await call(
                    self._client.get_queue_attributes,
                    "GetQueueAttributes",
                    QueueUrl=self._url,
                    AttributeNames=["QueueArn"],
                )
            except Transient as error:
                if error.reason == NOT_FOUND:
                    raise Misconfigured(
                        [
                            f"queue {self._url} does not exist, and attachd never makes one: check the URL and the Region"
                        ]
                    ) from None
                log.warning("quarantine.not_checked", queue=self._url, reason=str(error))
            yield

    async def put(self, body: bytes, message_id: str, reason: str) -> bool:
        """Keep the body, and say whether the queue takes such a one at all; in base64, and ``attachd.encoding`` says so, where it is no text that SQS takes.

        Raises:
            Transient: not kept.
        """
        attributes = {"attachd.reason": reason[:256], "attachd.message_id": message_id}
        text = body.decode(errors="replace")
        if text.encode() != body or not _TEXT.fullmatch(text):
            text = base64.b64encode(body).decode() or "-"
            attributes["attachd.encoding"] = "base64"

        # A FIFO queue wants a group, and tells a repetition by its id: what is put aside twice is kept once.
        fifo = {
            "MessageGroupId": "attachd",
            "MessageDeduplicationId": re.sub(r"[^\w-]", "-", message_id)[:128],
        }

        async def send() -> bool:
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
                    **(fifo if self._url.endswith(".fifo") else {}),
                )
            except Transient as error:
                if error.reason not in _NEVER:
                    raise
                # Too large, most likely: with the reason it is larger than it was.
                log.error(
                    "quarantine.refused",
                    message=message_id,
                    queue=self._url,
                    reason=reason,
                    refused=str(error),
                    next="not asked again; it stays where it is",
                )
                return False
            return True

        return await retrying(
            send, backoff=Backoff(), until=anyio.current_time() + _TRY_SECONDS, dice=self._dice
        )
