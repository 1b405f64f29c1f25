"""A chat bot for Amazon Connect in one file: the other end of attachd's webhook.

attachd posts each new chat here as a signed CloudEvent that carries a participant token. This program
takes the chat or refuses it at once, connects as that participant before `connect_by`, talks, and leaves.
To make it yours, replace `concierge`; the rest is the contract, written out.

Tokens are bearer credentials: they live in memory only, and nothing here ever logs one.
"""

import argparse
import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from aiohttp import web
from botocore import UNSIGNED
from botocore.exceptions import ClientError
from standardwebhooks import Webhook, WebhookVerificationError

log = structlog.get_logger()
Reply = Callable[[str, dict[str, Any]], str | None]

# Unsigned, for the token in a call is its credential: no AWS identity is needed or looked for. The retries repeat
# the ClientToken that the SDK makes up for each message, so that the customer reads it once.
CALLS = AioConfig(
    signature_version=UNSIGNED, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 5}
)


def concierge(text: str, memory: dict[str, Any]) -> str | None:
    """The brain: returns the answer to `text`, or None to say goodbye and leave. `memory` lasts one chat."""
    words, number = set(re.findall(r"\w+", text.lower())), re.search(r"\d{4,}", text)
    if words & {"bye", "goodbye"}:
        return None
    if number and ("order" in words or memory.pop("asked which order", False)):
        return f"Order {number[0]} is packed and leaves today."
    if "order" in words:
        memory["asked which order"] = True
        return "Which order? Its number has at least four digits."
    if words & {"open", "opening", "hours"}:
        return "We are open Monday to Friday, 9:00 to 18:00."
    return f"You said: {text}"


class Chat:
    """One chat, as handed over. It has no repr on purpose: that would show tokens."""

    def __init__(self, hand_off: dict[str, Any]) -> None:
        contact, participant = hand_off["contact"], hand_off["participant"]
        self.contact_id: str = contact["id"]
        self.region: str = contact["instance_arn"].split(":")[3]
        self.participant_id: str = participant["id"]
        self.token: str = participant["token"]
        self.bot: str = hand_off["bot"]["display_name"]
        connect_by = datetime.fromisoformat(participant["connect_by"])
        self.seconds_left = (connect_by - datetime.now(UTC)).total_seconds()
        self.memory: dict[str, Any] = {}
        self.scope = anyio.CancelScope()

    def is_ended_by(self, item: dict[str, Any]) -> bool:
        """Whether a transcript item says that the chat is over, or that the customer or we have left it."""
        event = item.get("ContentType", "")
        gone = item.get("ParticipantRole") == "CUSTOMER" or item.get("ParticipantId") == self.participant_id
        return event.endswith(".chat.ended") or (event.endswith(".participant.left") and gone)


class Pace:
    """Spaces calls evenly, over all chats together: Connect counts them for the whole instance."""

    def __init__(self, per_second: float) -> None:
        self._gap, self._next = 1 / per_second, 0.0

    async def turn(self) -> None:
        """Waits for its turn."""
        turn = max(anyio.current_time(), self._next)
        self._next = turn + self._gap
        await anyio.sleep_until(turn)


class Bot:
    """The webhook, and the chats it holds."""

    def __init__(self, secrets: str, max_chats: int, reply: Reply = concierge, poll: float = 1) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets.split()]  # several while one is rotated
        self._max_chats, self._reply, self._poll_seconds = max_chats, reply, poll
        self._reads, self._leaves = Pace(7), Pace(2.5)  # the quotas are 8 and 3
        self._chats: list[Chat] = []
        self._taken = deque[str](maxlen=10_000)  # outlives the chats: a hand-off may be repeated late
        self._clients: dict[str, Any] = {}
        self._draining = False

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[str]:
        """Listens and yields the URL. On leaving it drains: refuses new chats, leaves the open ones, stops."""
        app = web.Application()
        app.add_routes([web.post("/attach", self._attach), web.get("/healthz", self._healthz)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            async with AsyncExitStack() as self._stack, anyio.create_task_group() as self._tasks:
                await web.TCPSite(runner, host, port).start()
                yield "http://{}:{}".format(*runner.addresses[0])
                self._draining = True
                for chat in self._chats:
                    chat.scope.cancel()
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"draining": self._draining, "chats": len(self._chats)})

    async def _attach(self, request: web.Request) -> web.Response:
        match self._verified(await request.read(), dict(request.headers)):
            case None:
                return web.Response(status=401, text="no signature here is by a secret I know")
            case {"type": "attachd.chat.attached.v1", "data": hand_off}:
                return self._answer(request.headers["webhook-id"], hand_off)
            case {"type": "attachd.chat.ended.v1", "subject": contact_id}:
                for chat in self._chats:
                    if chat.contact_id == contact_id:
                        chat.scope.cancel()
        return web.Response(status=204)  # also to event types of the future

    def _verified(self, body: bytes, headers: dict[str, str]) -> Any:
        for webhook in self._webhooks:
            with suppress(WebhookVerificationError, ValueError):  # ValueError: not even base64, or not JSON
                return webhook.verify(body, headers)
        return None

    def _answer(self, webhook_id: str, hand_off: dict[str, Any]) -> web.Response:
        """Takes the chat, or says why not. Each status tells attachd what to do next; README.md lists them."""
        try:
            chat = Chat(hand_off)
        except (LookupError, TypeError, ValueError, AttributeError):
            return web.Response(status=422, text="this hand-off lacks what a bot needs")
        if webhook_id in self._taken:
            return web.Response(status=409, text="I have this chat already")
        if chat.seconds_left <= 0:
            return web.Response(status=422, text="connect_by has passed, and the participant token with it")
        if self._draining or len(self._chats) >= self._max_chats:
            why = "I am stopping" if self._draining else f"I hold {len(self._chats)} chats already"
            return web.Response(status=503, text=why, headers={"Retry-After": "5"})
        self._taken.append(webhook_id)
        self._chats.append(chat)
        self._tasks.start_soon(self._hold, chat)
        return web.Response(status=202)

    async def _hold(self, chat: Chat) -> None:
        """Lives as long as the chat. Whatever happens in it, the other chats do not notice."""
        reason = "left"
        try:
            # Outside the scope that a drain cancels: the chat is promised, so we join it, if only to leave.
            with anyio.fail_after(chat.seconds_left):
                client = await self._client(chat.region)
                made = await client.create_participant_connection(
                    ParticipantToken=chat.token, Type=["CONNECTION_CREDENTIALS"], ConnectParticipant=True
                )
            connection = made["ConnectionCredentials"]["ConnectionToken"]
            try:
                with chat.scope:
                    await self._converse(chat, client, connection)
            finally:  # leaving sends the contact flow down its "Bot participant disconnected" branch
                with anyio.move_on_after(60, shield=True):
                    await self._leaves.turn()
                    await client.disconnect_participant(ConnectionToken=connection)
        except Exception as error:  # noqa: BLE001 - a brain may raise anything
            # AccessDeniedException is how Connect says that the chat is over, or that an agent took our place.
            # Only a name is logged: messages and tracebacks may carry tokens.
            reason = (
                error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            )
        finally:
            self._chats.remove(chat)
            log.info("chat.closed", contact_id=chat.contact_id, reason=reason)

    async def _client(self, region: str) -> Any:
        if region not in self._clients:  # made once for all chats: making one takes a tenth of a second
            client = get_session().create_client("connectparticipant", region, config=CALLS)
            self._clients[region] = await self._stack.enter_async_context(client)
        return self._clients[region]

    async def _converse(self, chat: Chat, client: Any, connection: str) -> None:
        say = partial(client.send_message, ConnectionToken=connection, ContentType="text/plain")
        await say(Content=f"Hello, I am {chat.bot}. Ask me about an order or our opening hours.")
        seen: set[str] = set()
        while True:
            # Polling keeps this file short, but all chats share 8 reads a second. In production start message
            # streaming and take the same items from SNS (repeated at times: keep the check on Id).
            await self._reads.turn()
            page = await client.get_transcript(
                ConnectionToken=connection, MaxResults=100, SortOrder="ASCENDING"
            )
            for item in page["Transcript"]:
                if item["Id"] in seen or item.get("RelatedContactId"):  # the latter: an earlier session's
                    continue
                seen.add(item["Id"])
                if chat.is_ended_by(item):
                    return
                if item["Type"] == "MESSAGE" and item.get("ParticipantRole") == "CUSTOMER":  # never ourselves
                    answer = self._reply(item["Content"], chat.memory)
                    await say(
                        Content=("Goodbye!" if answer is None else answer)[:1024]
                    )  # Connect takes no more
                    if answer is None:
                        return
            await anyio.sleep(self._poll_seconds)


async def main() -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    parser = argparse.ArgumentParser(description="A reference bot for attachd.")
    parser.add_argument("--listen", default="127.0.0.1:8081", metavar="HOST:PORT", help="port 0 takes any")
    parser.add_argument("--max-chats", type=int, default=50, help="chats held at once; the next gets a 503")
    args = parser.parse_args()
    secrets = os.environ.get("BOT_WEBHOOK_SECRET", "")
    if not secrets.strip():
        parser.error("set BOT_WEBHOOK_SECRET to the whsec_… secret that attachd signs with")
    host, _, port = args.listen.rpartition(":")
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Bot(secrets, args.max_chats).serving(host, int(port)) as url:
            print(f"listening on {url}", flush=True)  # for whoever asked for port 0
            await anext(signals)


if __name__ == "__main__":
    anyio.run(main)
