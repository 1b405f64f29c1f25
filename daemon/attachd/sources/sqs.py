"""SQS: long polls in, batched deletes and visibility changes out.

What is received stays ours: its visibility timeout is set by us at receive and extended at half-life, in
batches, until it is settled, through the drain as well (the queue's own timeout is in no reply, so it is never
relied on). Deletes are confirmed one by one, whatever batch they travelled in. A queue is never created.

Source: Amazon SQS developer guide, "Visibility timeout"; API reference, ReceiveMessage, the three batch calls.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import aiohttp
import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from attachd.errors import Misconfigured, Transient
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release
from attachd.retry import Backoff, retrying
from attachd.sources.batching import Batcher

_BATCH: Final = 10  # entries in one call (API reference)
_MAX_VISIBILITY: Final = 43_200  # 12 hours
_SETTLE_SECONDS: Final = 5.0
_NO_SUCH_QUEUE: Final = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"}
_AWS_ERRORS: Final = (ClientError, BotoCoreError, aiohttp.ClientError, OSError)

log = structlog.get_logger(__name__)


class SqsSource:
    """One queue.

    Args:
        session: where clients come from; Region, endpoint and credentials as every AWS tool takes them.
        queue_url: the queue.
        quarantine_url: where bodies go that can never succeed; without it they are left to the queue's own
            redrive policy.
        poll_seconds: how long a poll waits for a first message, 1 to 20. It bounds how long a stop takes.
        visibility_seconds: how long a message stays ours after we die.
        now: the wall clock.
        dice: jitter.
        user_agent: sent with every call.
    """

    def __init__(
        self,
        session: AioSession,
        queue_url: str,
        *,
        quarantine_url: str | None,
        poll_seconds: int,
        visibility_seconds: int,
        now: Callable[[], float],
        dice: random.Random,
        user_agent: str,
    ) -> None:
        self.name = queue_url.rpartition("/")[2]
        self._session = session
        self._queue_url = queue_url
        self._quarantine_url = quarantine_url
        self._poll_seconds = poll_seconds
        self._visibility_seconds = visibility_seconds
        self._now = now
        self._dice = dice
        self._user_agent = user_agent
        self._in_hand: dict[str, Delivery] = {}
        self._poller: Any = None
        self._caller: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``. Polls and the rest use separate clients, so that neither starves the other."""
        polls = AioConfig(
            user_agent=self._user_agent,
            read_timeout=self._poll_seconds + 5,
            connect_timeout=2,
            retries={"total_max_attempts": 1},
        )
        calls = AioConfig(
            user_agent=self._user_agent,
            read_timeout=5,
            connect_timeout=2,
            retries={"total_max_attempts": 1},
            max_pool_connections=20,
        )
        try:
            async with (
                self._session.create_client("sqs", config=polls) as self._poller,
                self._session.create_client("sqs", config=calls) as self._caller,
                self._kept(),
            ):
                yield
        except BotoCoreError as error:
            raise Misconfigured([f"AWS: {error} (set AWS_REGION, or a profile that has a region)"]) from None

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Check the queue, then keep what is in hand until the end; the last deletes go out before it."""
        await self._check(self._queue_url)
        if self._quarantine_url is not None:
            await self._check(self._quarantine_url)
        else:
            log.warning(
                "sqs.no_quarantine",
                queue=self._queue_url,
                next="what can never succeed comes again until the queue's redrive policy takes it away",
            )
        self._deletes = Batcher(self._delete_batch, _BATCH)
        self._changes = Batcher(self._change_batch, _BATCH)
        # Shielded: what is in hand is kept, and settled, while everything around it is being cancelled.
        keeping = anyio.CancelScope(shield=True)
        async with anyio.create_task_group() as background:
            background.start_soon(self._keep, keeping)
            try:
                yield
            finally:
                keeping.cancel()

    async def _keep(self, keeping: anyio.CancelScope) -> None:
        with keeping:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deletes.run)
                tasks.start_soon(self._changes.run)
                tasks.start_soon(self._extend)

    async def _check(self, url: str) -> None:
        """A queue that is not there ends the start; an AWS that does not answer is the polls' trouble, not ours."""
        try:
            await self._caller.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            if _reason(error) in _NO_SUCH_QUEUE:
                raise Misconfigured(
                    [f"queue {url} does not exist, and attachd never makes one: check the URL and the Region"]
                ) from None
            log.warning(
                "sqs.not_checked", queue=url, reason=str(error), next="polling all the same; /readyz tells"
            )

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        try:
            answer = await self._poller.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(limit, _BATCH),
                WaitTimeSeconds=self._poll_seconds,
                VisibilityTimeout=self._visibility_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
            deliveries = [self._delivery(message) for message in answer.get("Messages", [])]
        except _AWS_ERRORS as error:
            raise Transient(_reason(error), f"receiving from {self.name}: {error}") from None
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            raise Transient(
                "malformed_reply", f"receiving from {self.name}: {type(error).__name__}"
            ) from None
        # The same message again is the newest receipt handle of it: older ones may no longer delete.
        self._in_hand.update({delivery.id: delivery for delivery in deliveries})
        return deliveries

    def _delivery(self, message: dict[str, Any]) -> Delivery:
        return Delivery(
            source=self.name,
            id=message["MessageId"],
            body=message["Body"].encode(),
            received_at=self._now(),
            attempt=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            handle=message["ReceiptHandle"],
        )

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``."""
        newest = self._in_hand.pop(delivery.id, delivery)
        until = anyio.current_time() + _SETTLE_SECONDS
        if isinstance(disposition, Quarantine) and (url := self._quarantine_url) is not None:
            # Two steps, each with its own tries: a delete that fails puts nothing aside twice.
            aside = partial(self._quarantine, url, newest, disposition.reason)
            await self._tried(aside, until)
            disposition = Acknowledge()
        await self._tried(partial(self._settle_once, newest, disposition), until)

    async def _tried(self, call: Callable[[], Awaitable[None]], until: float) -> None:
        """Try until then; whatever is not ours comes out as ``Transient``."""

        async def once() -> None:
            try:
                await call()
            except Transient:
                raise
            except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
                raise Transient(_reason(error), f"{self.name}: {type(error).__name__}") from None

        await retrying(once, backoff=Backoff(), until=until, dice=self._dice)

    async def _settle_once(self, delivery: Delivery, disposition: Disposition) -> None:
        match disposition:
            case Acknowledge():
                await self._deletes.do(str(delivery.handle))
            case Release(after=after):
                await self._change(delivery, after)
            case Quarantine():
                await self._change(delivery, self._visibility_seconds)

    async def _quarantine(self, url: str, delivery: Delivery, reason: str) -> None:
        await self._caller.send_message(
            QueueUrl=url,
            MessageBody=delivery.body.decode(),
            MessageAttributes={
                "attachd.reason": {"DataType": "String", "StringValue": reason[:256]},
                "attachd.message_id": {"DataType": "String", "StringValue": delivery.id},
            },
        )

    async def _change(self, delivery: Delivery, seconds: float) -> None:
        await self._changes.do((str(delivery.handle), min(round(seconds), _MAX_VISIBILITY)))

    async def _extend(self) -> None:
        """Extend everything in hand at half-life, for as long as it is in hand."""
        while True:
            await anyio.sleep(self._visibility_seconds / 2)
            async with anyio.create_task_group() as extensions:
                for delivery in list(self._in_hand.values()):
                    extensions.start_soon(self._extend_one, delivery)

    async def _extend_one(self, delivery: Delivery) -> None:
        if self._in_hand.get(delivery.id) is not delivery:
            return  # settled, or handed out anew, since it was listed: extending it now would undo that
        until = anyio.current_time() + self._visibility_seconds / 4
        try:
            await self._tried(partial(self._change, delivery, self._visibility_seconds), until)
        except Transient as error:
            log.warning(
                "sqs.not_extended",
                message=delivery.id,
                reason=error.reason,
                next="the queue may hand it out again; the journal's claim keeps that harmless",
            )

    async def _delete_batch(self, handles: Sequence[str]) -> Sequence[str | None]:
        entries = [{"Id": str(i), "ReceiptHandle": handle} for i, handle in enumerate(handles)]
        answer = await self._caller.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
        return _failures(answer, len(entries))

    async def _change_batch(self, changes: Sequence[tuple[str, int]]) -> Sequence[str | None]:
        entries = [
            {"Id": str(i), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for i, (handle, seconds) in enumerate(changes)
        ]
        answer = await self._caller.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)
        return _failures(answer, len(entries))


def _failures(answer: dict[str, Any], count: int) -> list[str | None]:
    failed = {int(entry["Id"]): str(entry.get("Code", "failed")) for entry in answer.get("Failed", [])}
    return [failed.get(i) for i in range(count)]


def _reason(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))[:60]
    return "malformed_reply" if not isinstance(error, _AWS_ERRORS) else type(error).__name__
