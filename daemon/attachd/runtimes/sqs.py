"""A runtime behind an SQS queue: the payload sealed for its key, accepted when SQS has the message.

A queue cannot answer: it is never busy and refuses nothing, and nobody says whether the bot has come. What lies in it is
worthless after ``connect_by``; SQS expires messages by the queue's age limit alone, so every message carries that time in
clear, beside its type and id, for consumers to drop what is late. A FIFO queue keeps a contact's messages in order, and
drops what it was sent again within five minutes.

Source: Amazon SQS API reference, SendMessage; developer guide, "Exactly-once processing in Amazon SQS".
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import anyio
import structlog
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.model import ChatEnded, Contact, Handoff
from attachd.runtimes import payload
from attachd.runtimes.seal import Seal

_LONGEST_ID: Final = 128  # of MessageGroupId and MessageDeduplicationId
_RETENTION_SECONDS: Final = 3600
_CONNECTIONS: Final = 50
_REASONS: Final = {
    "AWS.SimpleQueueService.NonExistentQueue": "queue_missing",
    "QueueDoesNotExist": "queue_missing",
    "InvalidAddress": "queue_missing",
    "AccessDenied": "access_denied",
    "AccessDeniedException": "access_denied",
    **dict.fromkeys(aws.REFUSED, "credentials"),
    "KmsThrottled": "throttled",
    "RequestThrottled": "throttled",
    "Throttling": "throttled",
    "ThrottlingException": "throttled",
}

log = structlog.get_logger(__name__)


class SqsRuntime:
    """One queue.

    Args:
        sessions: where clients come from; Region, endpoint and credentials as every AWS tool takes them.
        queue_url: the queue; it is never created.
        seal: for whom payloads are sealed.
        timeout_seconds: for one try.
        wants_ended: whether it is told of chats that are over.
        now: the wall clock.
        user_agent: sent with every call.
    """

    def __init__(
        self,
        sessions: NewSession,
        queue_url: str,
        seal: Seal,
        *,
        timeout_seconds: float,
        wants_ended: bool = False,
        now: Callable[[], float],
        user_agent: str,
    ) -> None:
        self._sessions = sessions
        self._queue_url = queue_url
        self._name = queue_url.rpartition("/")[2]
        self._seal = seal
        self._timeout_seconds = timeout_seconds
        self._wants_ended = wants_ended
        self._now = now
        self._user_agent = user_agent
        self._sqs: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Make the client. A queue that is not there ends the start; an AWS that does not answer does not.

        Raises:
            Misconfigured: the queue does not exist, or no Region is set.
        """
        made = aws.client(
            self._sessions,
            "sqs",
            region=aws.region_of(self._queue_url),
            user_agent=self._user_agent,
            connect_timeout=self._timeout_seconds,
            read_timeout=self._timeout_seconds,
            max_pool_connections=_CONNECTIONS,
        )
        async with made as self._sqs:
            await self._check()
            yield

    async def _check(self) -> None:
        try:
            found = await self._ask("get_queue_attributes", AttributeNames=["MessageRetentionPeriod"])
        except Transient as error:
            if error.reason == "queue_missing":
                raise Misconfigured(
                    [f"queue {self._queue_url} does not exist: check the URL and the Region"]
                ) from None
            log.warning(
                "runtime.not_checked", queue=self._name, reason=str(error), next="offers all the same"
            )
            return
        if (kept := int(found.get("Attributes", {}).get("MessageRetentionPeriod", 0))) > _RETENTION_SECONDS:
            log.warning(
                "runtime.messages_kept",
                queue=self._name,
                seconds=kept,
                next="hand-offs lie there, sealed, long after they are of use: set MessageRetentionPeriod to 60",
            )

    async def offer(self, handoff: Handoff) -> None:
        """See ``ports.Runtime``. Accepted means that SQS has it; a bot that never comes shows nowhere here."""
        now, seconds, connect_by = self._now(), self._timeout_seconds, None
        if handoff.participant.connection is None:  # else there is no time to keep
            connect_by = payload.timestamp(handoff.connect_by)
            if (seconds := min(seconds, handoff.connect_by - now)) <= 0:
                raise Transient("window_closed", f"queue {self._name} was not sent it: connect_by has passed")
        body = payload.attached(handoff, now)
        await self._send(handoff.key, handoff.contact, payload.ATTACHED, body, seconds, connect_by)

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""
        if self._wants_ended:
            body = payload.ended(farewell, self._now())
            await self._send(farewell.key, farewell.contact, payload.ENDED, body, self._timeout_seconds)

    async def probe(self) -> None:
        """See ``ports.Runtime``: GetQueueAttributes."""
        await self._ask("get_queue_attributes", AttributeNames=["QueueArn"])

    async def _send(
        self,
        key: str,
        contact: Contact,
        kind: str,
        body: bytes,
        seconds: float,
        connect_by: str | None = None,
    ) -> None:
        attributes = {"attachd.id": key, "attachd.type": kind}
        if connect_by is not None:
            attributes["attachd.connect_by"] = connect_by
        message: dict[str, Any] = {
            "MessageBody": self._seal.sealed(body),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        }
        if self._name.endswith(".fifo"):
            message |= {"MessageGroupId": _short(contact.id), "MessageDeduplicationId": _short(key)}
        await self._ask("send_message", seconds, **message)

    async def _ask(self, operation: str, seconds: float | None = None, **request: Any) -> dict[str, Any]:
        if self._sqs is None:
            raise RuntimeError("the runtime is not open")
        seconds = self._timeout_seconds if seconds is None else seconds
        try:
            with anyio.fail_after(seconds):
                answer: dict[str, Any] = await getattr(self._sqs, operation)(
                    QueueUrl=self._queue_url, **request
                )
        except TimeoutError:
            detail = f"queue {self._name} did not answer in {seconds:.1f} s"
            raise Transient("timeout", detail, ambiguous=True) from None
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            raise _ours(error, self._name) from None
        return answer


def _ours(error: Exception, queue: str) -> Transient:
    """A foreign error as ours; always worth another try, since an operator may mend what is wrong."""
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            broken = status >= HTTPStatus.INTERNAL_SERVER_ERROR
            reason = _REASONS.get(code) or ("sqs_internal" if broken else "sqs_refused")
            return Transient(reason, f"queue {queue} answered {status} {code[:60]}", ambiguous=broken)
        case EndpointConnectionError() if isinstance(
            error.kwargs.get("error"), aiohttp.ClientConnectorError
        ):  # aiobotocore's name for a reset as well
            return Transient("unreachable", f"queue {queue}: SQS's endpoint does not answer")
        case BotoCoreError() | aiohttp.ClientError() | OSError():
            return Transient("connection", f"queue {queue}: {type(error).__name__}", ambiguous=True)
        case _:
            return Transient("malformed_reply", f"queue {queue}: {type(error).__name__}", ambiguous=True)


def _short(name: str) -> str:
    """Itself, where SQS takes it: 128 characters at most."""
    return name if len(name) <= _LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()
