"""The reference bot, met as attachd meets it: signed posts to a socket, and Amazon Connect on another."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook
from structlog.testing import capture_logs

pytestmark = pytest.mark.real_time

PROGRAM = Path(__file__).parents[2] / "examples" / "bot" / "bot.py"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OTHER_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "canary-participant-token"


def load_program() -> Any:
    """The program is a script in no package; this is `import bot` without a search path."""
    spec = importlib.util.spec_from_file_location("example_bot", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bot_program = load_program()


class Connect:
    """Amazon Connect's Participant Service, as far as a bot can see it."""

    def __init__(self) -> None:
        self._say, self.said = anyio.create_memory_object_stream[tuple[str, str]](100)
        self.transcripts: dict[str, list[dict[str, Any]]] = {}
        self.connected: list[str] = []
        self.disconnected: list[str] = []
        self.connection_faults: list[tuple[int, str]] = []
        self.closed: set[str] = set()
        self.signed_calls = 0
        self.arrivals: dict[str, list[float]] = {}
        self.may_disconnect = anyio.Event()
        self.may_disconnect.set()
        self.leaving = anyio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/participant/{operation}", self._serve)
        self._server = TestServer(app)
        await self._server.start_server()
        self.url = str(self._server.make_url("/")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()
        self._say.close()
        self.said.close()

    def customer_says(self, text: str, *, contact: str = "contact-1", **more: str) -> None:
        self.happens(
            contact,
            Type="MESSAGE",
            Content=text,
            ContentType="text/plain",
            ParticipantRole="CUSTOMER",
            **more,
        )

    def happens(self, contact: str = "contact-1", **item: str) -> None:
        transcript = self.transcripts.setdefault(f"connection of {TOKEN} {contact}", [])
        transcript.append({"Id": f"item-{len(transcript)}", **item})

    async def hears(self, contact: str = "contact-1") -> str:
        with anyio.fail_after(10):
            speaker, text = await self.said.receive()
        assert speaker == f"connection of {TOKEN} {contact}"
        return text

    async def _serve(self, request: web.Request) -> web.Response:
        self.signed_calls += "Authorization" in request.headers
        bearer, body = request.headers["X-Amz-Bearer"], await request.json() if request.can_read_body else {}
        operation = request.match_info["operation"]
        self.arrivals.setdefault(operation, []).append(anyio.current_time())
        if operation == "connection":
            return self._connection(bearer, body)
        if bearer not in self.connected or bearer in self.closed:
            return refusal(403, "AccessDeniedException")
        if operation == "message":
            self.transcripts.setdefault(bearer, []).append(
                {"Id": body["ClientToken"], "Type": "MESSAGE", "ParticipantRole": "CUSTOM_BOT", **body}
            )
            self._say.send_nowait((bearer, body["Content"]))
        if operation == "transcript":
            return web.json_response(
                {"Transcript": self.transcripts[bearer], "InitialContactId": "contact-1"}
            )
        if operation == "disconnect":
            self.leaving.set()
            await self.may_disconnect.wait()
            self.disconnected.append(bearer)
        return web.json_response({"Id": "item", "AbsoluteTime": "2026-01-01T00:00:00.000Z"})

    def _connection(self, bearer: str, body: dict[str, Any]) -> web.Response:
        if self.connection_faults:
            return refusal(*self.connection_faults.pop(0))
        assert body == {"Type": ["CONNECTION_CREDENTIALS"], "ConnectParticipant": True}
        self.connected.append(f"connection of {bearer}")
        credentials = {"ConnectionToken": f"connection of {bearer}", "Expiry": "2026-01-02T00:00:00.000Z"}
        return web.json_response({"ConnectionCredentials": credentials})


def refusal(status: int, code: str) -> web.Response:
    return web.json_response({"Message": code}, status=status, headers={"x-amzn-ErrorType": code})


def hand_off(contact: str = "contact-1", seconds: float = 15, **event: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    instance_arn = "arn:aws:connect:eu-central-1:111122223333:instance/9b1c1f7e"
    return {
        "specversion": "1.0",
        "type": "attachd.chat.attached.v1",
        "source": instance_arn,
        "subject": contact,
        "id": f"{contact}-1",
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "contact": {
                "id": contact,
                "initial_id": contact,
                "instance_arn": instance_arn,
                "channel": "CHAT",
            },
            "bot": {"name": "concierge", "display_name": "Ava"},
            "rule": "web chat",
            "generation": 1,
            "participant": {
                "id": "participant-1",
                "token": f"{TOKEN} {contact}",
                "expiry": (now + timedelta(days=1)).isoformat(),
                "connect_by": (now + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z"),
            },
        },
    } | event


class Attachd:
    """attachd's side of the webhook."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self._url, self._session = url, session

    async def posts(self, event: Any, secret: str = SECRET, **headers: str) -> tuple[int, str, str | None]:
        body, now = json.dumps(event), datetime.now(UTC)
        webhook_id = event.get("id", "no id")
        signed = {
            "content-type": "application/cloudevents+json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(webhook_id, now, body),
        }
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.post(f"{self._url}/attach", data=body, headers=signed | more) as answer:
            return answer.status, await answer.text(), answer.headers.get("Retry-After")

    async def health(self) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/healthz") as answer:
            return dict(await answer.json())

    async def sees_no_chat_left(self) -> None:
        with anyio.fail_after(10):
            while (await self.health())["chats"]:
                pass


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Attachd]:
    bot = bot_program.Bot(**{"secrets": SECRET, "max_chats": 2, "poll": 0} | options)
    async with ClientSession() as session, bot.serving("127.0.0.1", 0) as url:
        yield Attachd(url, session)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    async with Connect() as connect:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CONNECTPARTICIPANT", connect.url)
        yield connect


# ── taking a chat ──────────────────────────────────────────────────────────────────────────────


async def test_a_chat_handed_over_is_greeted_in_the_bots_name_and_answered(connect: Connect) -> None:
    async with running() as attachd:
        assert await attachd.posts(hand_off()) == (202, "", None)
        assert (await connect.hears()).startswith("Hello, I am Ava.")
        connect.customer_says("When do you open?")
        assert await connect.hears() == "We are open Monday to Friday, 9:00 to 18:00."


async def test_calls_to_connect_are_not_signed_as_aws(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    async with running() as attachd:
        await attachd.posts(hand_off())
        await connect.hears()
    assert connect.signed_calls == 0


async def test_a_passing_fault_of_connect_is_tried_again(connect: Connect) -> None:
    connect.connection_faults = [(429, "ThrottlingException")]
    async with running() as attachd:
        await attachd.posts(hand_off())
        assert (await connect.hears()).startswith("Hello")


async def test_a_participant_that_connect_does_not_know_is_let_go(connect: Connect) -> None:
    connect.connection_faults = [(404, "ResourceNotFoundException")]
    async with running() as attachd:
        with capture_logs() as logs:
            assert (await attachd.posts(hand_off()))[0] == 202
            await attachd.sees_no_chat_left()
    assert [line["reason"] for line in logs] == ["ResourceNotFoundException"]
    assert connect.connected == []


# ── refusing one ───────────────────────────────────────────────────────────────────────────────


async def test_a_signature_by_another_secret_is_refused(connect: Connect) -> None:
    async with running() as attachd:
        assert (await attachd.posts(hand_off(), secret=OTHER_SECRET))[0] == 401
    assert connect.connected == []


@pytest.mark.parametrize("signature", ["", "v1", "v1,%%%", "v1,a,b", "v9,AAAA"])
async def test_a_signature_that_is_nonsense_is_refused_not_an_error(connect: Connect, signature: str) -> None:
    async with running() as attachd:
        assert (await attachd.posts(hand_off(), webhook_signature=signature))[0] == 401
    assert connect.connected == []


async def test_while_a_secret_is_rotated_both_are_good(connect: Connect) -> None:
    async with running(secrets=f"{OTHER_SECRET} {SECRET}") as attachd:
        assert (await attachd.posts(hand_off("contact-1"), secret=SECRET))[0] == 202
        assert (await attachd.posts(hand_off("contact-2"), secret=OTHER_SECRET))[0] == 202
        assert {(await connect.said.receive())[0], (await connect.said.receive())[0]} == set(
            connect.connected
        )


async def test_a_hand_off_repeated_is_one_it_has_even_after_the_chat(connect: Connect) -> None:
    async with running() as attachd:
        first = hand_off()
        assert (await attachd.posts(first))[0] == 202
        assert (await attachd.posts(first))[0] == 409
        await connect.hears()
        connect.customer_says("bye")
        await attachd.sees_no_chat_left()
        assert (await attachd.posts(first))[0] == 409
    assert len(connect.connected) == 1


async def test_a_hand_off_after_connect_by_is_refused_for_good_with_a_sentence(connect: Connect) -> None:
    async with running() as attachd:
        status, sentence, _ = await attachd.posts(hand_off(seconds=-1))
    assert (status, sentence) == (422, "connect_by has passed, and the participant token with it")
    assert connect.connected == []


@pytest.mark.parametrize("data", [{}, [], "chat", {"contact": {"id": "contact-1"}, "participant": {}}])
async def test_a_hand_off_in_another_shape_is_refused_for_good(connect: Connect, data: Any) -> None:
    async with running() as attachd:
        assert (await attachd.posts(hand_off(data=data)))[0] == 422
    assert connect.connected == []


async def test_a_full_bot_asks_to_come_back_and_takes_a_chat_when_one_has_gone(connect: Connect) -> None:
    async with running(max_chats=1) as attachd:
        assert (await attachd.posts(hand_off("contact-1")))[0] == 202
        await connect.hears()
        assert await attachd.posts(hand_off("contact-2")) == (503, "I hold 1 chats already", "5")
        connect.customer_says("bye")
        await attachd.sees_no_chat_left()
        assert (await attachd.posts(hand_off("contact-2")))[0] == 202


# ── the conversation ───────────────────────────────────────────────────────────────────────────


async def test_goodbye_is_answered_and_the_bot_leaves(connect: Connect) -> None:
    async with running() as attachd:
        await attachd.posts(hand_off())
        await connect.hears()
        connect.customer_says("ok, bye")
        assert await connect.hears() == "Goodbye!"
        await attachd.sees_no_chat_left()
        assert connect.disconnected == connect.connected


async def test_only_this_sessions_customer_is_answered(connect: Connect) -> None:
    connect.customer_says("from yesterday", RelatedContactId="contact-0")
    connect.happens(Type="MESSAGE", Content="Welcome!", ContentType="text/plain", ParticipantRole="SYSTEM")
    connect.happens(Type="EVENT", ContentType="application/vnd.amazonaws.connect.event.participant.joined")
    connect.customer_says("anyone here?")
    async with running() as attachd:
        await attachd.posts(hand_off())
        await connect.hears()
        assert await connect.hears() == "You said: anyone here?"
        connect.customer_says("still here?")
        assert await connect.hears() == "You said: still here?"


@pytest.mark.parametrize(
    "last_item",
    [
        {"ContentType": "application/vnd.amazonaws.connect.event.chat.ended"},
        {
            "ContentType": "application/vnd.amazonaws.connect.event.participant.left",
            "ParticipantRole": "CUSTOMER",
        },
        {
            "ContentType": "application/vnd.amazonaws.connect.event.participant.left",
            "ParticipantId": "participant-1",
        },
    ],
)
async def test_a_chat_that_is_over_is_let_go(connect: Connect, last_item: dict[str, str]) -> None:
    async with running() as attachd:
        await attachd.posts(hand_off())
        await connect.hears()
        connect.happens(Type="EVENT", **last_item)
        await attachd.sees_no_chat_left()


async def test_losing_access_means_that_the_chat_is_over(connect: Connect) -> None:
    async with running() as attachd:
        with capture_logs() as logs:
            await attachd.posts(hand_off())
            await connect.hears()
            connect.closed.update(connect.connected)
            await attachd.sees_no_chat_left()
    assert [line["reason"] for line in logs] == ["AccessDeniedException"]


async def test_the_ending_event_closes_that_chat_and_no_other(connect: Connect) -> None:
    async with running() as attachd:
        for contact in ("contact-1", "contact-2"):
            await attachd.posts(hand_off(contact))
            await connect.hears(contact)
        ended = hand_off("contact-1", type="attachd.chat.ended.v1", id="ended-1", data={})
        assert (await attachd.posts(ended))[0] == 204
        with anyio.fail_after(10):
            while (await attachd.health())["chats"] > 1:
                pass
        connect.customer_says("hello?", contact="contact-2")
        assert await connect.hears("contact-2") == "You said: hello?"


async def test_an_event_type_of_the_future_is_taken_in_silence(connect: Connect) -> None:
    async with running() as attachd:
        assert (await attachd.posts(hand_off(type="attachd.chat.transferred.v7")))[0] == 204
    assert connect.connected == []


async def test_a_brain_that_fails_ends_its_own_chat_only(connect: Connect) -> None:
    def brittle(text: str, _memory: dict[str, Any]) -> str:
        return {"hello": "Hello yourself."}[text]

    async with running(reply=brittle) as attachd:
        for contact in ("contact-1", "contact-2"):
            await attachd.posts(hand_off(contact))
            await connect.hears(contact)
        connect.customer_says("something else", contact="contact-1")
        with anyio.fail_after(10):
            while (await attachd.health())["chats"] > 1:
                pass
        connect.customer_says("hello", contact="contact-2")
        assert await connect.hears("contact-2") == "Hello yourself."
        assert connect.disconnected == [f"connection of {TOKEN} contact-1"]


async def test_an_answer_is_cut_to_what_connect_takes(connect: Connect) -> None:
    async with running(reply=lambda text, _memory: text * 1000) as attachd:
        await attachd.posts(hand_off())
        await connect.hears()
        connect.customer_says("long")
        assert len(await connect.hears()) == 1024


async def test_all_chats_together_stay_below_the_quotas_of_connect(connect: Connect) -> None:
    async with running() as attachd:
        for contact in ("contact-1", "contact-2"):
            await attachd.posts(hand_off(contact))
            await connect.hears(contact)
        with anyio.fail_after(10):
            while len(connect.arrivals.get("transcript", [])) < 5:
                await attachd.health()
    reads, leaves = connect.arrivals["transcript"], connect.arrivals["disconnect"]
    # The bot sends 7 reads and 2.5 leaves a second. These bounds are loose, since a busy machine may bunch two.
    assert reads[4] - reads[0] > 0.3
    assert leaves[1] - leaves[0] > 0.2


@pytest.mark.parametrize(
    ("conversation", "answer"),
    [
        (["What are your opening hours?"], "We are open Monday to Friday, 9:00 to 18:00."),
        (["Where is order 4711?"], "Order 4711 is packed and leaves today."),
        (["My order, please"], "Which order? Its number has at least four digits."),
        (["My order, please", "4711"], "Order 4711 is packed and leaves today."),
        (["4711"], "You said: 4711"),
        (["Bye!"], None),
    ],
)
def test_the_concierge_answers_by_its_words_and_its_memory(
    conversation: list[str], answer: str | None
) -> None:
    memory: dict[str, Any] = {}
    assert [bot_program.concierge(text, memory) for text in conversation][-1] == answer


# ── stopping ───────────────────────────────────────────────────────────────────────────────────


async def test_a_draining_bot_takes_no_chat_and_leaves_those_it_has(connect: Connect) -> None:
    connect.may_disconnect = anyio.Event()
    async with ClientSession() as session, anyio.create_task_group() as tasks:
        stop = anyio.Event()

        async def serve(*, task_status: anyio.abc.TaskStatus[str]) -> None:
            async with bot_program.Bot(SECRET, 2, poll=0).serving("127.0.0.1", 0) as url:
                task_status.started(url)
                await stop.wait()

        attachd = Attachd(await tasks.start(serve), session)
        await attachd.posts(hand_off("contact-1"))
        await connect.hears()
        stop.set()
        await connect.leaving.wait()
        assert await attachd.posts(hand_off("contact-2")) == (503, "I am stopping", "5")
        assert await attachd.health() == {"draining": True, "chats": 1}
        connect.may_disconnect.set()
    assert connect.disconnected == connect.connected


async def test_a_chat_promised_just_before_the_drain_is_still_joined_and_left(connect: Connect) -> None:
    async with running() as attachd:
        assert (await attachd.posts(hand_off()))[0] == 202
    assert connect.disconnected == connect.connected == [f"connection of {TOKEN} contact-1"]


async def test_a_bot_that_fails_as_a_whole_still_leaves_its_chats(connect: Connect) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ZeroDivisionError)):
        async with running() as attachd:
            await attachd.posts(hand_off())
            await connect.hears()
            _ = 1 / 0
    assert connect.disconnected == connect.connected != []


async def test_the_program_stops_on_sigterm_with_its_chats_left_and_no_token_shown(connect: Connect) -> None:
    command = [sys.executable, str(PROGRAM), "--listen", "127.0.0.1:0"]
    async with await anyio.open_process(command, env={**os.environ, "BOT_WEBHOOK_SECRET": SECRET}) as program:
        assert program.stdout
        ready = (await program.stdout.receive()).decode()
        assert ready.startswith("listening on http://127.0.0.1:")
        async with ClientSession() as session:
            await Attachd(ready.split()[-1], session).posts(hand_off())
            await connect.hears()
        program.send_signal(signal.SIGTERM)
        output = b"".join([chunk async for chunk in program.stdout]).decode()
        assert program.stderr
        output += b"".join([chunk async for chunk in program.stderr]).decode()
        assert await program.wait() == 0
    assert connect.disconnected == connect.connected != []
    assert '"event": "chat.closed"' in output
    assert "Traceback" not in output
    assert TOKEN not in output


def test_without_a_secret_the_program_says_what_it_wants() -> None:
    without = {name: value for name, value in os.environ.items() if name != "BOT_WEBHOOK_SECRET"}
    finished = subprocess.run(
        [sys.executable, PROGRAM], env=without, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "BOT_WEBHOOK_SECRET" in finished.stderr
