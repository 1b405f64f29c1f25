"""What every runtime keeps of its port's word: in memory, in process, behind a webhook, behind a queue."""

import asyncio
import base64
import json
import os
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import anyio
import pytest
import structlog
from aiohttp import web
from joserfc.jwe import decrypt_compact
from joserfc.jwk import ECKey
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from attachd import aws
from attachd.errors import Permanent, Transient
from attachd.model import Bot, ChatEnded, Contact, Handoff, Outcome, Participant, Secret
from attachd.ports import Runtime
from attachd.runtimes.python import PythonRuntime
from attachd.runtimes.seal import Seal
from attachd.runtimes.sqs import SqsRuntime
from attachd.runtimes.webhook import WebhookRuntime
from attachd.testing import MemoryRuntime
from embedded import Queues, sqs

TOKEN = "CANARY/QVFJREFIZ0c0dTk4eXpNa1ZqS2M2N3Y1c0pXbGhOQ2c=="
SECRET = "whsec_" + base64.b64encode(b"a key to sign with, for tests only").decode()
INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
TIMEOUT = 1.0
QUEUE_TIMEOUT = 5.0  # an embedded SQS on a busy machine is slow without being told to be

Answer = Literal["busy", "refused", "slow", "broken", "quoting refusal", "quoting failure"]


def handoff(generation: int = 1) -> Handoff:
    return Handoff(
        key=f"c-1_{generation}",
        contact=Contact("c-1", INSTANCE, "CHAT", "c-1"),
        bot=Bot("concierge", "Ava", "ava"),
        rule="chat",
        generation=generation,
        participant=Participant("p-1", Secret(TOKEN), "2026-01-02T00:00:00Z"),
        connect_by=time.time() + 15,
    )


def farewell(generation: int = 1) -> ChatEnded:
    contact = Contact("c-1", INSTANCE, "CHAT", "c-1")
    return ChatEnded(f"c-1_{generation}_ended", contact, "concierge", generation, "agent_joined")


class Stage(Protocol):
    """A runtime, and the bot behind it."""

    runtime: Runtime

    def answer(self, *answers: Answer) -> None:
        """How the bot takes what it is offered or told next; all later it accepts."""
        ...

    def taken(self) -> list[str]:
        """The keys of the chats that the bot has taken over, each as often as it did."""
        ...

    def ends(self) -> list[tuple[str, str]]:
        """Of the chats that the bot has let go because it was told: the key and why, each as often as it did."""
        ...


class InMemory:
    def __init__(self) -> None:
        self.memory = MemoryRuntime()
        self.runtime: Runtime = self.memory

    def answer(self, *answers: Answer) -> None:
        faults: dict[Answer, Transient | Permanent] = {
            "busy": Transient("runtime_busy", after=3.0),
            "refused": Permanent(Outcome.UNSERVED, "runtime_refused"),
            "slow": Transient("timeout", ambiguous=True),
            "broken": Transient("runtime_crashed"),
            "quoting refusal": Permanent(Outcome.UNSERVED, "runtime_refused"),
            "quoting failure": Transient("runtime_crashed"),
        }
        self.memory.faults.extend(faults[answer] for answer in answers)

    def taken(self) -> list[str]:
        return list(self.memory.accepted)

    def ends(self) -> list[tuple[str, str]]:
        return [(key, told.reason) for key, told in self.memory.ends.items()]


class InProcess:
    def __init__(self) -> None:
        self.runtime: Runtime = PythonRuntime(self.take, ended=self.let_go, timeout_seconds=TIMEOUT)
        self._answers: list[Answer] = []
        self._taken: list[str] = []
        self._ends: list[tuple[str, str]] = []

    def answer(self, *answers: Answer) -> None:
        self._answers.extend(answers)

    def taken(self) -> list[str]:
        return self._taken

    def ends(self) -> list[tuple[str, str]]:
        return self._ends

    async def take(self, offered: Handoff) -> None:
        await self._play(offered.participant.token.reveal())
        self._taken.append(offered.key)

    async def let_go(self, told: ChatEnded) -> None:
        await self._play(TOKEN)
        self._ends.append((told.key, told.reason))

    async def _play(self, token: str) -> None:
        await anyio.sleep(0.01)
        match self._answers.pop(0) if self._answers else None:
            case "busy":
                raise Transient("runtime_busy", after=3.0)
            case "refused":
                raise Permanent(Outcome.UNSERVED, "runtime_refused")
            case "slow":
                await anyio.sleep(10 * TIMEOUT)
            case "broken":
                raise LookupError("no model is loaded")
            case "quoting refusal":
                raise Permanent(Outcome.UNSERVED, "runtime_refused", f"I do not like {token}")
            case "quoting failure":
                raise ValueError(f"no chat for {token}") from LookupError(f"what is {token}?")


class BehindAWebhook:
    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self._taken: list[str] = []
        self._ends: list[tuple[str, str]] = []

    async def start(self, stack: AsyncExitStack, socket_path: Path | None) -> None:
        app = web.Application()
        app.router.add_post("/attach", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if socket_path is None:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/attach"
        else:
            await web.UnixSite(runner, str(socket_path)).start()
            url = f"unix://{socket_path}"
        runtime = WebhookRuntime(
            url,
            [Secret(SECRET)],
            timeout_seconds=TIMEOUT,
            wants_ended=True,
            now=time.time,
            user_agent="attachd/test",
        )
        await stack.enter_async_context(runtime.open())
        self.runtime: Runtime = runtime

    def answer(self, *answers: Answer) -> None:
        self._answers.extend(answers)

    def taken(self) -> list[str]:
        return self._taken

    def ends(self) -> list[tuple[str, str]]:
        return self._ends

    async def take(self, request: web.Request) -> web.Response:
        body = await request.text()
        event = Webhook(SECRET).verify(body, dict(request.headers))
        match self._answers.pop(0) if self._answers else None:
            case "busy":
                return web.Response(status=503, headers={"Retry-After": "3"})
            case "refused":
                return web.Response(status=422)
            case "slow":
                await anyio.sleep(10 * TIMEOUT)
            case "broken":
                return web.Response(status=500)
            case "quoting refusal":
                return web.Response(status=422, text=f"I do not like {body}")
            case "quoting failure":
                return web.json_response({"debug": {"request": json.loads(body)}}, status=500)
        return web.Response(status=self._accept(event))

    def _accept(self, event: dict[str, Any]) -> int:
        key = event["id"]
        if key in self._taken or key in dict(self._ends):
            return 409
        match event["type"]:
            case "attachd.chat.attached.v1":
                self._taken.append(key)
            case "attachd.chat.ended.v1":
                self._ends.append((key, event["data"]["reason"]))
        return 202


class BehindAQueue:
    """A bot that reads its queue when it is asked what it has taken. It cannot answer; the queue can fail."""

    def __init__(self, queues: Queues, folder: Path, name: str) -> None:
        self._queues = queues
        self._url = queues.client.create_queue(
            QueueName=name, Attributes={"FifoQueue": "true"} if name.endswith(".fifo") else {}
        )["QueueUrl"]
        self._key = ECKey.generate_key("P-256")
        public = folder / "bot.pub.pem"
        public.write_bytes(self._key.as_pem(private=False))
        self._runtime = SqsRuntime(
            partial(aws.session, os.environ),
            self._url,
            Seal(public),
            timeout_seconds=QUEUE_TIMEOUT,
            wants_ended=True,
            now=time.time,
            user_agent="attachd/test",
        )
        self.runtime: Runtime = self._runtime
        self._events: dict[str, dict[str, Any]] = {}

    async def start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(self._runtime.open())

    def answer(self, *answers: Answer) -> None:
        self._queues.answers.extend("slow" if answer == "slow" else "broken" for answer in answers)

    def taken(self) -> list[str]:
        return [event["id"] for event in self._read() if event["type"] == "attachd.chat.attached.v1"]

    def ends(self) -> list[tuple[str, str]]:
        events = self._read()
        return [(e["id"], e["data"]["reason"]) for e in events if e["type"] == "attachd.chat.ended.v1"]

    def _read(self) -> list[dict[str, Any]]:
        client = self._queues.client
        while messages := client.receive_message(QueueUrl=self._url).get("Messages", []):
            for message in messages:
                event = json.loads(decrypt_compact(message["Body"], self._key).plaintext or b"")
                self._events.setdefault(event["id"], event)
                client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return list(self._events.values())


@pytest.fixture(scope="session")
def queues() -> Iterator[Queues]:
    with sqs() as made:
        made.slow_seconds = QUEUE_TIMEOUT + 2
        yield made


WEBHOOKS = [pytest.param(over, marks=pytest.mark.real_time) for over in ("http", "unix")]
QUEUES = [pytest.param(over, marks=pytest.mark.real_time) for over in ("sqs", "sqs fifo")]
ANSWERING = ["memory", "python", *WEBHOOKS]
#: A bot behind a queue is never busy, and refuses nothing.
answering = pytest.mark.parametrize("stage", ANSWERING, indirect=True)


@pytest.fixture(params=[*ANSWERING, *QUEUES])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                yield InMemory()
            case "python":
                yield InProcess()
            case "sqs" | "sqs fifo" as kind:
                queues, environment = (
                    request.getfixturevalue("queues"),
                    request.getfixturevalue("monkeypatch"),
                )
                for variable, value in queues.environment.items():
                    environment.setenv(variable, value)
                name = f"bot-{tmp_path.name}"[:70] + (".fifo" if kind == "sqs fifo" else "")
                queue = BehindAQueue(queues, tmp_path, name)
                await queue.start(stack)
                yield queue
            case over:
                bot = BehindAWebhook()
                await bot.start(stack, tmp_path / "bot.sock" if over == "unix" else None)
                yield bot


def printed(error: BaseException) -> str:
    """Everything that a log could print of an exception."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


async def test_an_offer_returns_when_the_bot_has_taken_the_chat(stage: Stage) -> None:
    await stage.runtime.offer(handoff())
    assert stage.taken() == ["c-1_1"]


async def test_the_same_key_again_is_accepted_again_and_taken_once(stage: Stage) -> None:
    for _ in range(3):
        await stage.runtime.offer(handoff())
    assert stage.taken() == ["c-1_1"]


async def test_the_same_key_twice_at_once_is_taken_once(stage: Stage) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(stage.runtime.offer, handoff())
    assert stage.taken() == ["c-1_1"]


async def test_another_generation_of_the_contact_is_another_chat(stage: Stage) -> None:
    await stage.runtime.offer(handoff(1))
    await stage.runtime.offer(handoff(2))
    assert stage.taken() == ["c-1_1", "c-1_2"]


@answering
async def test_a_busy_bot_is_asked_again_when_it_said_and_then_takes_the_same_key(stage: Stage) -> None:
    stage.answer("busy")
    with pytest.raises(Transient) as busy:
        await stage.runtime.offer(handoff())
    assert (busy.value.reason, busy.value.after) == ("runtime_busy", 3.0)
    assert busy.value.ambiguous is False
    await stage.runtime.offer(handoff())
    assert stage.taken() == ["c-1_1"]


@answering
async def test_a_bot_that_refuses_is_not_asked_again(stage: Stage) -> None:
    stage.answer("refused")
    with pytest.raises(Permanent) as refused:
        await stage.runtime.offer(handoff())
    assert (refused.value.outcome, refused.value.reason) == (Outcome.UNSERVED, "runtime_refused")
    assert stage.taken() == []


async def test_a_bot_that_is_too_slow_may_have_taken_the_chat(stage: Stage) -> None:
    stage.answer("slow")
    with pytest.raises(Transient) as slow:
        await stage.runtime.offer(handoff())
    assert (slow.value.reason, slow.value.ambiguous) == ("timeout", True)


async def test_a_bot_that_breaks_down_is_worth_another_offer(stage: Stage) -> None:
    stage.answer("broken", "broken")
    for _ in range(2):
        with pytest.raises(Transient):
            await stage.runtime.offer(handoff())
    await stage.runtime.offer(handoff())
    assert stage.taken() == ["c-1_1"]


@pytest.mark.parametrize("answer", ["quoting refusal", "quoting failure"])
async def test_a_bot_that_quotes_the_token_is_not_quoted(stage: Stage, answer: Answer) -> None:
    stage.answer(answer)
    with pytest.raises((Transient, Permanent)) as failed:
        await stage.runtime.offer(handoff())
    assert "CANARY" not in printed(failed.value)
    assert TOKEN[7:] not in printed(failed.value)


@pytest.mark.parametrize("stage", ["python", *WEBHOOKS, *QUEUES], indirect=True)
async def test_an_offer_that_is_cancelled_ends_at_once(stage: Stage) -> None:
    stage.answer("slow")
    with anyio.move_on_after(TIMEOUT / 3) as scope:
        await stage.runtime.offer(handoff())
    assert scope.cancelled_caught


async def test_a_bot_is_told_once_that_its_chat_is_over_and_why(stage: Stage) -> None:
    await stage.runtime.offer(handoff())
    for _ in range(3):
        await stage.runtime.ended(farewell())
    assert stage.taken() == ["c-1_1"]
    assert stage.ends() == [("c-1_1_ended", "agent_joined")]


async def test_a_bot_may_be_told_of_the_end_of_a_chat_that_it_does_not_know(stage: Stage) -> None:
    await stage.runtime.ended(farewell(7))
    assert stage.ends() == [("c-1_7_ended", "agent_joined")]


@answering
async def test_a_busy_bot_is_told_of_an_end_when_it_said(stage: Stage) -> None:
    stage.answer("busy")
    with pytest.raises(Transient) as busy:
        await stage.runtime.ended(farewell())
    assert (busy.value.reason, busy.value.after) == ("runtime_busy", 3.0)


@pytest.mark.parametrize("answer", ["slow", "broken", "quoting failure"])
async def test_a_bot_that_could_not_hear_of_an_end_is_told_again(stage: Stage, answer: Answer) -> None:
    stage.answer(answer)
    with pytest.raises(Transient) as failed:
        await stage.runtime.ended(farewell())
    assert "CANARY" not in printed(failed.value)
    await stage.runtime.ended(farewell())
    assert ("c-1_1_ended", "agent_joined") in stage.ends()


@answering
async def test_a_bot_that_will_not_hear_of_ends_says_so_for_good(stage: Stage) -> None:
    stage.answer("refused")
    with pytest.raises(Permanent) as refused:
        await stage.runtime.ended(farewell())
    assert refused.value.reason == "runtime_refused"


# ── in process ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("no"),
        ExceptionGroup("several", [ValueError("no")]),
        BaseExceptionGroup("several", [asyncio.CancelledError(), KeyboardInterrupt()]),
        TimeoutError(),
        StopAsyncIteration(),
        SystemExit(1),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
async def test_whatever_a_callable_raises_is_its_own_failure(failure: BaseException) -> None:
    async def take(_handoff: Handoff) -> None:
        raise failure

    with pytest.raises(Transient) as crashed:
        await PythonRuntime(take, timeout_seconds=1).offer(handoff())
    assert (crashed.value.reason, crashed.value.__context__) == ("runtime_crashed", None)


async def test_a_callable_that_was_cancelled_from_within_does_not_cancel_the_line() -> None:
    async def take(_handoff: Handoff) -> None:
        raise anyio.get_cancelled_exc_class()

    with pytest.raises(Transient) as crashed:
        await PythonRuntime(take, timeout_seconds=1).offer(handoff())
    assert crashed.value.reason == "runtime_crashed"


async def test_whatever_a_callable_does_to_its_task_it_does_not_do_to_ours() -> None:
    async def take(_handoff: Handoff) -> None:
        structlog.contextvars.bind_contextvars(bot="was here")
        anyio.CancelScope().__enter__().cancel()  # and never left
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    before = structlog.contextvars.get_contextvars()
    with pytest.raises(Transient):
        await PythonRuntime(take, timeout_seconds=1).offer(handoff())
    await anyio.sleep(1)  # would raise if we had been cancelled
    assert structlog.contextvars.get_contextvars() == before


async def test_a_callable_that_will_not_be_cancelled_holds_us_up_for_a_second_and_is_not_called_twice() -> (
    None
):
    calls, released = [], anyio.Event()

    async def take(offered: Handoff) -> None:
        calls.append(offered.key)
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    runtime = PythonRuntime(take, timeout_seconds=3)
    for _ in range(2):
        began = anyio.current_time()
        with pytest.raises(Transient) as slow:
            await runtime.offer(handoff())
        assert (slow.value.reason, slow.value.ambiguous) == ("timeout", True)
        assert anyio.current_time() - began == 4.0
    with anyio.move_on_after(1) as scope:
        await runtime.offer(handoff())
    assert scope.cancelled_caught
    released.set()
    await runtime.offer(handoff())  # it has taken the chat after all
    assert calls == ["c-1_1"]


async def test_a_callable_whose_offer_is_cancelled_may_put_its_things_away() -> None:
    log = []

    async def take(_handoff: Handoff) -> None:
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            log.append("tidy")

    with anyio.move_on_after(1):
        await PythonRuntime(take, timeout_seconds=5).offer(handoff())
    assert log == ["tidy"]


async def test_what_a_callable_starts_outlives_the_call() -> None:
    spoken, tasks = anyio.Event(), []

    async def talk() -> None:
        await anyio.sleep(60)
        spoken.set()

    async def take(_handoff: Handoff) -> None:
        tasks.append(asyncio.get_running_loop().create_task(talk()))

    await PythonRuntime(take, timeout_seconds=1).offer(handoff())
    with anyio.fail_after(61):
        await spoken.wait()


async def test_a_call_that_will_not_end_does_not_keep_the_runtime_open() -> None:
    released = anyio.Event()

    async def take(_handoff: Handoff) -> None:
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    runtime = PythonRuntime(take, timeout_seconds=1)
    with capture_logs() as logs:
        async with runtime.open():
            with pytest.raises(Transient):
                await runtime.offer(handoff())
    assert [(line["event"], line["key"]) for line in logs] == [("runtime.call_not_ended", "c-1_1")]
    released.set()


async def test_a_callable_that_failed_once_is_called_again() -> None:
    calls = []

    async def take(offered: Handoff) -> None:
        calls.append(offered.key)
        if len(calls) == 1:
            raise ValueError("not yet")

    runtime = PythonRuntime(take, timeout_seconds=1)
    with pytest.raises(Transient):
        await runtime.offer(handoff())
    await runtime.offer(handoff())
    await runtime.offer(handoff())
    assert len(calls) == 2


async def test_a_callable_that_does_not_want_to_know_of_ends_is_not_told() -> None:
    async def take(_handoff: Handoff) -> None:
        raise AssertionError("no chat was offered")

    await PythonRuntime(take, timeout_seconds=1).ended(farewell())


async def test_keys_are_forgotten_oldest_first_and_never_without_bound() -> None:
    calls: list[str] = []

    async def take(offered: Handoff) -> None:
        calls.append(offered.key)

    runtime = PythonRuntime(take, timeout_seconds=1)
    for generation in range(10_001):
        await runtime.offer(handoff(generation))
    assert len(runtime._accepted) == 10_000
    await runtime.offer(handoff(10_000))
    assert len(calls) == 10_001
