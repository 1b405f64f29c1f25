"""A chat bot inside attachd: a front desk that finds out what is wanted, and hands over to the contact flow.

attachd has the chat streamed to an SNS topic, makes the participant, connects it, and calls `take`. What customers say comes
by that topic to one SQS queue for all chats of this process; what the bot says goes straight to Connect. When the bot
disconnects, the flow takes its "Bot participant disconnected" branch: into a queue, say, where a person sits.

To make it yours, replace `front_desk`. README.md says what to configure.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED
from botocore.exceptions import BotoCoreError, ClientError

from attachd.errors import Permanent, Transient
from attachd.model import ChatEnded, Handoff, Outcome

MAX_CHATS = 200

log = structlog.get_logger("desk")
Say = Callable[[str], Awaitable[Any]]

# The token in a call is its credential: no AWS identity signs these. A retry repeats the SDK's ClientToken, so that the
# customer reads each message once.
CALLS = AioConfig(
    signature_version=UNSIGNED, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 5}
)


def front_desk(text: str, memory: dict[str, Any]) -> tuple[str, bool]:
    """The brain: an answer, and whether the flow takes over after it. `memory` lasts one chat."""
    if re.search(r"\b(agent|human|person|somebody)\b", text.lower()):
        return f"I am getting a colleague, {memory.get('name', 'one moment please')}.", True
    if "name" not in memory:
        memory["name"] = text.strip().title()[:60]
        return f"Hello {memory['name']}. What is your order's number?", False
    if (number := re.search(r"\d{4,}", text)) is None:
        return "I need at least four digits; or say 'agent' for a colleague.", False
    return f"Order {number[0]} leaves today. Anything else, {memory['name']}?", False


class Chat:
    """One chat. It has no repr on purpose: that would show its token."""

    def __init__(self, handoff: Handoff, connection: str) -> None:
        self.contact_id, self.bot = handoff.contact.id, handoff.bot.display_name
        self.participant_id, self.connection = handoff.participant.id, connection
        self.region = handoff.contact.instance_arn.split(":")[3]
        self.heard = asyncio.Queue[dict[str, Any] | None]()  # None: it is over
        self.known = set[str]()

    def is_ended_by(self, item: dict[str, Any]) -> bool:
        """Whether an item says that the chat is over, or that the customer or we have left it."""
        event = item.get("ContentType", "")
        gone = item.get("ParticipantRole") == "CUSTOMER" or item.get("ParticipantId") == self.participant_id
        return event.endswith(".chat.ended") or (event.endswith(".participant.left") and gone)


class Desk:
    """The chats of this process, and the queue by which they hear."""

    def __init__(self, queue_url: str) -> None:
        self._queue_url = queue_url
        self._chats: dict[str, Chat] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._clients: dict[str, Any] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()  # closes the clients

    async def take(self, handoff: Handoff) -> None:
        """For `callable`. Returns at once: the conversation goes on in a task of its own."""
        if (connection := handoff.participant.connection) is None:
            raise Permanent(Outcome.UNSERVED, "connect_is_false")  # the bot's table wants connect = true
        if len(self._chats) >= MAX_CHATS:
            raise Transient("full", after=5)
        await self._open()
        chat = self._chats[handoff.contact.id] = Chat(handoff, connection.token.reveal())
        self._go_on_with(self._hold(chat))

    async def ended(self, farewell: ChatEnded) -> None:
        """For `ended`: attachd knows it from Connect's contact events, if the stream has not said so before."""
        if (chat := self._chats.get(farewell.contact.id)) is not None:
            chat.heard.put_nowait(None)

    def _go_on_with(self, work: Any) -> None:
        task = asyncio.create_task(work)  # noqa: TID251 - it outlives this call, and attachd cancels it at the end
        self._tasks.add(task)  # asyncio keeps none alive by itself
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        """With the first chat: an import has no event loop yet."""
        async with self._opening:
            if "sqs" not in self._clients:
                region = os.environ.get("AWS_REGION")
                client = get_session().create_client("sqs", region, config=AioConfig(read_timeout=25))
                self._clients["sqs"] = await self._stack.enter_async_context(client)
                self._go_on_with(self._serve(self._clients["sqs"]))

    async def _serve(self, sqs: Any) -> None:
        """As long as attachd; at its end the chats leave first."""
        async with self._stack:
            try:
                await self._listen(sqs)
            finally:
                with anyio.move_on_after(15, shield=True):
                    if chats := self._tasks - {asyncio.current_task()}:
                        await asyncio.wait(chats)

    async def _client(self, region: str) -> Any:
        async with self._opening:
            if region not in self._clients:
                client = get_session().create_client("connectparticipant", region, config=CALLS)
                self._clients[region] = await self._stack.enter_async_context(client)
            return self._clients[region]

    async def _listen(self, sqs: Any) -> None:
        """Whatever is said in any chat, to that chat. What nobody here waits for is dropped: see `_catch_up`."""
        while True:
            try:
                answer = await sqs.receive_message(
                    QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=20
                )
                for message in answer.get("Messages", []):
                    body = json.loads(message["Body"])  # SNS's envelope, unless delivery is raw
                    item = json.loads(body["Message"]) if "Message" in body else body
                    if (chat := self._chats.get(item.get("ContactId", ""))) is not None:
                        chat.heard.put_nowait(item)
                    await sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
            except (ClientError, BotoCoreError, OSError, ValueError) as error:
                log.warning("desk.deaf", reason=type(error).__name__, next="listens again in a second")
                await asyncio.sleep(1)

    async def _hold(self, chat: Chat) -> None:
        """Lives as long as the chat. Whatever happens in it, the others do not notice."""
        reason = "left"
        try:
            client = await self._client(chat.region)
            try:
                await self._converse(chat, client)
            finally:  # also when attachd stops: leaving sends the contact flow on its way
                with anyio.move_on_after(10, shield=True):
                    await client.disconnect_participant(ConnectionToken=chat.connection)
        except Exception as error:  # noqa: BLE001 - a brain may raise anything; a text may quote the token
            reason = (
                error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            )
        finally:
            del self._chats[chat.contact_id]
            log.info("desk.closed", contact=chat.contact_id, reason=reason)

    async def _converse(self, chat: Chat, client: Any) -> None:
        async def say(text: str) -> None:
            await client.send_message(
                ConnectionToken=chat.connection, ContentType="text/plain", Content=text[:1024]
            )

        memory: dict[str, Any] = {}
        await say(f"Hello, I am {chat.bot}. What is your name?")
        await self._catch_up(chat, client)
        while (item := await chat.heard.get()) is not None and not chat.is_ended_by(item):
            if item["Id"] in chat.known:  # SNS and SQS may bring it twice
                continue
            chat.known.add(item["Id"])
            if item["Type"] == "MESSAGE" and item.get("ParticipantRole") == "CUSTOMER":  # never ourselves
                answer, over = front_desk(item["Content"], memory)
                await say(answer)
                if over:
                    return

    async def _catch_up(self, chat: Chat, client: Any) -> None:
        """What was said before we were there, once: the stream has it no more."""
        page = await client.get_transcript(
            ConnectionToken=chat.connection, MaxResults=100, SortOrder="ASCENDING"
        )
        for item in page["Transcript"]:
            if not item.get("RelatedContactId"):  # an earlier session's
                chat.heard.put_nowait(item)


_desk = Desk(os.environ.get("DESK_QUEUE_URL", ""))
take, ended = _desk.take, _desk.ended
