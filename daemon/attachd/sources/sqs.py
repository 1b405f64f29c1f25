"""SQS: long polls in, batched deletes and visibility changes out.

What is received stays ours: its visibility timeout is set by us at receive and extended at half-life, in
batches, until it is settled, through the drain as well (the queue's own timeout is in no reply, so it is never
relied on). Deletes are confirmed one by one, whatever batch they travelled in. A queue is never created.

Source: Amazon SQS developer guide, "Visibility timeout", "FIFO queues"; API reference, ReceiveMessage, the three batch
calls.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import structlog

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.metrics import Metrics
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release
from attachd.progress import Progress
from attachd.retry import Backoff, retrying
from attachd.sources.batching import Batcher
from attachd.sources.calls import NOT_FOUND, NOT_OURS, call, reason_of, transient
from attachd.sources.keeping import Keeper
from attachd.sources.quarantine import Aside

_BATCH: Final = 10  # entries in one call (API reference)
_MAX_VISIBILITY: Final = 43_200  # 12 hours
_CALL_SECONDS: Final = 3.0
_SETTLE_SECONDS: Final = 6.5  # two calls that hang, and a third try within what the service allows
_CONNECTIONS: Final = 20
#: What entries fail with whose handle is good for nothing any more, of FIFO queues.
_LAPSED: Final = {"InvalidParameterValue", "InvalidParameterValueException"}
_COUNT: Final = "ApproximateReceiveCount"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, and how to take from it.

    Attributes:
        url: its URL; one of AWS's own names the Region.
        name: what logs and metrics call it.
        polls: how many polls wait for messages at once.
        poll_seconds: how long a poll waits for a first message, 1 to 20. It bounds how long a stop takes.
        visibility_seconds: how long a message stays ours after we die.
    """

    url: str
    name: str
    polls: int = 1
    poll_seconds: int = 5
    visibility_seconds: int = 30

    @property
    def batch(self) -> int:
        """Messages a poll. Of a FIFO queue one, and so one a group: while it is in hand its group has no other."""
        return 1 if self.url.endswith(".fifo") else _BATCH


class SqsSource:
    """One queue.

    Args:
        sessions: where clients come from; endpoint and credentials as every AWS tool takes them.
        queue: the queue.
        aside: where bodies go that can never succeed; without it they are left to the queue's own redrive policy.
        metrics: where entries are counted that a batch could not do.
        progress: where the task reports that keeps what is in hand.
        stall_seconds: how long it may be silent.
        now: the wall clock.
        dice: jitter.
        user_agent: sent with every call.
    """

    trouble = ()

    def __init__(
        self,
        sessions: NewSession,
        queue: Queue,
        *,
        aside: Aside | None,
        metrics: Metrics,
        progress: Progress,
        stall_seconds: float,
        now: Callable[[], float],
        dice: random.Random,
        user_agent: str,
    ) -> None:
        self.name = queue.name
        self.polls = queue.polls
        self._sessions = sessions
        self._queue = queue
        self._aside = aside
        self._metrics = metrics
        self._now = now
        self._dice = dice
        self._user_agent = user_agent
        self._keeper = Keeper(
            queue.name,
            queue.visibility_seconds,
            self._extend_batch,
            self._tried,
            progress=progress,
            stall_seconds=stall_seconds,
        )
        self._poller: Any = None
        self._caller: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Source``. Polls and the rest use separate clients, so that neither starves the other."""
        region = aws.region_of(self._queue.url)
        made = partial(aws.client, self._sessions, "sqs", region=region, user_agent=self._user_agent)
        polls = made(
            read_timeout=self._queue.poll_seconds + 5, max_pool_connections=max(_CONNECTIONS, self.polls)
        )
        async with AsyncExitStack() as stack:
            self._poller = await stack.enter_async_context(polls)
            self._caller = await stack.enter_async_context(
                made(read_timeout=_CALL_SECONDS, max_pool_connections=_CONNECTIONS)
            )
            await self._check()
            if self._aside is not None:
                await stack.enter_async_context(self._aside.open())
            else:
                log.warning(
                    "sqs.no_quarantine",
                    queue=self._queue.url,
                    next="what can never succeed comes again until the queue's redrive policy takes it away",
                )
            await stack.enter_async_context(self._kept())
            yield

    async def _check(self) -> None:
        """A queue that is not there ends the start; an AWS that does not answer is the polls' trouble, not ours."""
        asking = self._caller.get_queue_attributes
        try:
            await call(asking, "GetQueueAttributes", QueueUrl=self._queue.url, AttributeNames=["QueueArn"])
        except Transient as error:
            if error.reason == NOT_FOUND:
                raise Misconfigured(
                    [
                        f"queue {self._queue.url} does not exist, and attachd never makes one: check the URL and the Region"
                    ]
                ) from None
            log.warning(
                "sqs.not_checked",
                queue=self._queue.url,
                reason=str(error),
                next="polling all the same; /readyz tells",
            )

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Keep what is in hand until the end; the last deletes go out before it."""
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
                tasks.start_soon(self._keeper.run)

    # ── receive ────────────────────────────────────────────────────────────────────────────────

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See ``ports.Source``."""
        try:
            answer = await self._poller.receive_message(
                QueueUrl=self._queue.url,
                MaxNumberOfMessages=min(limit, self._queue.batch),
                WaitTimeSeconds=self._queue.poll_seconds,
                VisibilityTimeout=self._queue.visibility_seconds,
                MessageSystemAttributeNames=[_COUNT],
                AttributeNames=[_COUNT],  # the same, as endpoints knew it before
            )
            deliveries = [self._delivery(message) for message in answer.get("Messages", [])]
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            raise transient(error, f"receiving from {self.name}") from None
        self._keeper.add(deliveries)
        return deliveries

    def _delivery(self, message: dict[str, Any]) -> Delivery:
        return Delivery(
            source=self.name,
            id=message["MessageId"],
            body=message["Body"].encode(errors="surrogatepass"),
            received_at=self._now(),
            attempt=int(message.get("Attributes", {}).get(_COUNT, 1)),
            handle=message["ReceiptHandle"],
        )

    # ── settle ─────────────────────────────────────────────────────────────────────────────────

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        """See ``ports.Source``. Until it is settled it is kept, so that it is not handed out again meanwhile."""
        newest = self._keeper.newest(delivery)
        until = anyio.current_time() + _SETTLE_SECONDS
        try:
            # Two steps, each with its own tries: a delete that fails puts nothing aside twice.
            if (
                isinstance(disposition, Quarantine)
                and self._aside is not None
                and await self._aside.put(newest.body, newest.id, disposition.reason)
            ):
                disposition = Acknowledge()
            if not isinstance(disposition, Acknowledge):
                await self._keeper.let_go(newest)
            await self._tried(partial(self._settle_once, newest, disposition), until)
        finally:
            self._keeper.forget(newest)

    def drain(self) -> None:
        """See ``ports.Source``. Whatever was received is in hand, or was released at once."""

    async def _tried(self, attempt: Callable[[], Awaitable[None]], until: float) -> None:
        """Try until then, or until somebody else has it. No text of AWS's comes out: it quotes receipt handles."""

        async def once() -> Transient | None:
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - whatever a client or its parser raises, it leaves as ours
                ours = Transient(transient(error, "").reason, self.name)
                if ours.reason != NOT_OURS:
                    raise ours from None
                return ours
            return None

        lapsed = await retrying(once, backoff=Backoff(), until=until, dice=self._dice)
        if lapsed is not None:
            raise lapsed

    async def _settle_once(self, delivery: Delivery, disposition: Disposition) -> None:
        match disposition:
            case Acknowledge():
                await self._deletes.do(str(delivery.handle))
            case Release(after=after):
                await self._change(delivery, after)
            case Quarantine():
                await self._change(delivery, self._queue.visibility_seconds)

    async def _change(self, delivery: Delivery, seconds: float) -> None:
        await self._changes.do((str(delivery.handle), min(round(seconds), _MAX_VISIBILITY)))

    async def _delete_batch(self, handles: Sequence[str]) -> Sequence[str | None]:
        entries = [{"Id": str(i), "ReceiptHandle": handle} for i, handle in enumerate(handles)]
        answer = await self._caller.delete_message_batch(QueueUrl=self._queue.url, Entries=entries)
        return self._failures("DeleteMessageBatch", answer, len(entries))

    async def _change_batch(self, changes: Sequence[tuple[str, int]]) -> Sequence[str | None]:
        entries = [
            {"Id": str(i), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for i, (handle, seconds) in enumerate(changes)
        ]
        answer = await self._caller.change_message_visibility_batch(QueueUrl=self._queue.url, Entries=entries)
        return self._failures("ChangeMessageVisibilityBatch", answer, len(entries))

    async def _extend_batch(self, handles: Sequence[str]) -> Sequence[str | None]:
        return await self._change_batch([(handle, self._queue.visibility_seconds) for handle in handles])

    def _failures(self, operation: str, answer: dict[str, Any], count: int) -> list[str | None]:
        failed = {int(entry["Id"]): str(entry.get("Code", "failed")) for entry in answer.get("Failed", [])}
        for code in failed.values():
            self._metrics.entry_failures.labels(self.name, operation, code).inc()
        reasons = {i: NOT_OURS if code in _LAPSED else reason_of(code) for i, code in failed.items()}
        return [reasons.get(i) for i in range(count)]
