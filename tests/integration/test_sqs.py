"""SQS's traps, one test each, against a scripted queue; what it really does with ours, against moto."""

import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from socket import socket
from typing import Any

import anyio
import pytest
import structlog
from aiobotocore.session import get_session
from aiohttp import web

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.metrics import Metrics
from attachd.model import Acknowledge, Delivery, Disposition, Quarantine, Release
from attachd.progress import Progress
from attachd.sources.quarantine import SqsQuarantine
from attachd.sources.sqs import Queue, SqsSource

SESSION = get_session()  # one, since it remembers the service models it has read
VISIBILITY_SECONDS = 2
Document = dict[str, Any]
Reply = Callable[[Document], Awaitable[web.Response] | web.Response]


def sessions() -> Any:
    return SESSION


@dataclass
class Call:
    """A request as it came over the wire."""

    operation: str
    at: float
    body: Document
    user_agent: str
    access_key: str


@dataclass
class Scripted:
    """A queue that hands out ``batches`` and confirms everything, but for the ``replies`` of an operation."""

    url: str = ""
    batches: deque[list[Document]] = field(default_factory=deque)
    replies: dict[str, deque[Reply]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    transport: Any = None

    @property
    def queue_url(self) -> str:
        return f"{self.url}/111122223333/contact-events"

    @property
    def quarantine_url(self) -> str:
        return f"{self.url}/111122223333/quarantine"

    def on(self, operation: str, *replies: Reply) -> None:
        """How the next calls of the operation are answered."""
        self.replies.setdefault(operation, deque()).extend(replies)

    def of(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def entries(self, operation: str) -> list[list[Document]]:
        return [call.body["Entries"] for call in self.of(operation)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].removeprefix("AmazonSQS.")
        body = await request.json()
        self.transport = request.transport
        key = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        self.calls.append(Call(operation, anyio.current_time(), body, request.headers["User-Agent"], key))
        if self.replies.get(operation):
            reply = self.replies[operation].popleft()(body)
            return reply if isinstance(reply, web.Response) else await reply
        return web.json_response(self._well(operation, body))

    def _well(self, operation: str, body: Document) -> Document:
        match operation:
            case "GetQueueAttributes":
                return {"Attributes": {"QueueArn": "arn:aws:sqs:eu-central-1:111122223333:contact-events"}}
            case "ReceiveMessage":
                return {"Messages": self.batches.popleft()} if self.batches else {}
            case "DeleteMessageBatch" | "ChangeMessageVisibilityBatch":
                return {"Successful": [{"Id": entry["Id"]} for entry in body["Entries"]]}
            case _:
                return {"MessageId": "another", "MD5OfMessageBody": "0" * 32}


def message(number: int, handle: str = "") -> Document:
    return {
        "MessageId": f"m-{number}",
        "ReceiptHandle": handle or f"handle-{number}",
        "Body": f"body {number}",
        "Attributes": {"ApproximateReceiveCount": "1"},
    }


def refusing(status: int, code: str, query_code: str = "") -> Reply:
    """An error as SQS's JSON protocol spells it."""
    headers = {"x-amzn-query-error": f"{query_code};Sender"} if query_code else {}

    def reply(_body: Document) -> web.Response:
        return web.json_response(
            {"__type": f"com.amazonaws.sqs#{code}", "message": "no"}, status=status, headers=headers
        )

    return reply


NO_QUEUE = refusing(400, "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")


def failing_entries(*handles: str, code: str = "InternalError") -> Reply:
    """A batch's answer in which these entries have failed."""

    def reply(body: Document) -> web.Response:
        failed = [entry["Id"] for entry in body["Entries"] if entry["ReceiptHandle"] in handles]
        return web.json_response(
            {
                "Successful": [{"Id": e["Id"]} for e in body["Entries"] if e["Id"] not in failed],
                "Failed": [{"Id": i, "Code": code, "SenderFault": False} for i in failed],
            }
        )

    return reply


def saying(text: bytes) -> Reply:
    return lambda _body: web.Response(body=text, content_type="application/x-amz-json-1.0")


@pytest.fixture
async def sqs(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    scripted = Scripted()
    app = web.Application()
    app.router.add_post("/{anything:.*}", scripted.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    environment(monkeypatch, scripted.url)
    yield scripted
    await runner.cleanup()


def environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


def consumer(
    queue_url: str,
    quarantine_url: str | None = None,
    *,
    new: NewSession = sessions,
    metrics: Metrics | None = None,
    progress: Progress | None = None,
    stall_seconds: float = 60,
) -> SqsSource:
    return SqsSource(
        new,
        Queue(queue_url, "contact-events", 1, 1, VISIBILITY_SECONDS),
        aside=None
        if quarantine_url is None
        else SqsQuarantine(new, quarantine_url, dice=random.Random(1), user_agent="attachd/test"),
        metrics=metrics or Metrics(),
        progress=progress or Progress(anyio.current_time),
        stall_seconds=stall_seconds,
        now=time.time,
        dice=random.Random(1),
        user_agent="attachd/test",
    )


@asynccontextmanager
async def consuming(queue_url: str, quarantine_url: str | None = None) -> AsyncIterator[SqsSource]:
    """Not a fixture: a source holds a task group, which one task must enter and leave."""
    source = consumer(queue_url, quarantine_url)
    with anyio.fail_after(20):
        async with source.open():
            yield source


async def until(condition: Callable[[], object], seconds: float = 3.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.02)


# ── receiving ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("limit", "asked"), [(1, 1), (10, 10), (1000, 10)])
async def test_visibility_and_wait_are_set_by_us_at_every_receive(
    sqs: Scripted, limit: int, asked: int
) -> None:
    async with consuming(sqs.queue_url) as source:
        await source.receive(limit)
    (call,) = sqs.of("ReceiveMessage")
    assert call.body == {
        "QueueUrl": sqs.queue_url,
        "MaxNumberOfMessages": asked,
        "WaitTimeSeconds": 1,
        "VisibilityTimeout": VISIBILITY_SECONDS,
        "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
        "AttributeNames": ["ApproximateReceiveCount"],
    }
    assert call.user_agent.startswith("attachd/test")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (refusing(403, "OverLimit", "OverLimit"), "OverLimit"),
        (refusing(403, "AccessDeniedException"), "access_denied"),
        (refusing(400, "ThrottlingException"), "throttled"),
        (refusing(500, "InternalError"), "InternalError"),
        (refusing(503, "ServiceUnavailable"), "ServiceUnavailable"),
        (NO_QUEUE, "not_found"),
    ],
)
async def test_a_poll_that_is_refused_is_tried_once_and_told_with_its_reason(
    sqs: Scripted, reply: Reply, reason: str
) -> None:
    sqs.on("ReceiveMessage", reply)
    async with consuming(sqs.queue_url) as source:
        with pytest.raises(Transient) as failed:
            await source.receive(10)
        assert failed.value.reason == reason
        assert len(sqs.of("ReceiveMessage")) == 1
        assert list(await source.receive(10)) == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"\xff\xfe",
        b'"text"',
        b'{"Messages": [{}]}',
        b'{"Messages": {}}',
        b'{"Messages": [[]]}',
    ],
    ids=repr,
)
async def test_a_malformed_answer_to_a_poll_is_transient_or_empty_but_never_foreign(
    sqs: Scripted, body: bytes
) -> None:
    sqs.on("ReceiveMessage", saying(body))
    async with consuming(sqs.queue_url) as source:
        try:
            assert list(await source.receive(10)) == []
        except Transient as error:
            assert error.reason  # noqa: PT017 - either is right


async def test_a_queue_that_hangs_up_is_transient(sqs: Scripted) -> None:
    def hang_up(_body: Document) -> web.Response:
        sqs.transport.abort()
        return web.Response()

    sqs.on("ReceiveMessage", hang_up)
    async with consuming(sqs.queue_url) as source:
        with pytest.raises(Transient):
            await source.receive(10)
        assert len(sqs.of("ReceiveMessage")) == 1


# ── the queue is there, or it is not ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("missing", ["queue", "quarantine"])
async def test_a_queue_that_does_not_exist_is_a_misconfiguration_that_names_it(
    sqs: Scripted, missing: str
) -> None:
    well: Reply = lambda _body: web.json_response({"Attributes": {}})  # noqa: E731 - one of two answers
    sqs.on("GetQueueAttributes", *([NO_QUEUE] if missing == "queue" else [well, NO_QUEUE]))
    with pytest.raises(Misconfigured) as refused:
        async with consuming(sqs.queue_url, sqs.quarantine_url):
            pass
    (problem,) = refused.value.problems
    assert (sqs.queue_url if missing == "queue" else sqs.quarantine_url) in problem
    assert {call.operation for call in sqs.calls} == {"GetQueueAttributes"}


@pytest.mark.parametrize("reply", [refusing(500, "InternalError"), refusing(400, "ThrottlingException")])
async def test_an_aws_that_is_unwell_at_the_start_is_no_misconfiguration(sqs: Scripted, reply: Reply) -> None:
    sqs.on("GetQueueAttributes", reply)
    sqs.batches.append([message(1)])
    async with consuming(sqs.queue_url) as source:
        assert len(await source.receive(10)) == 1


async def test_an_aws_that_is_away_at_the_start_is_no_misconfiguration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        environment(monkeypatch, url)
        async with consuming(f"{url}/111122223333/contact-events") as source:
            with pytest.raises(Transient):
                await source.receive(10)


@pytest.mark.usefixtures("sqs")
async def test_without_a_region_the_operator_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Misconfigured, match="AWS_REGION"):
        async with consuming("http://127.0.0.1:1/111122223333/contact-events"):
            pass


async def test_a_message_whose_text_is_none_does_not_strand_those_beside_it(sqs: Scripted) -> None:
    sqs.batches.append([message(1) | {"Body": "\ud800"}, message(2)])
    async with consuming(sqs.queue_url) as source:
        assert [delivery.id for delivery in await source.receive(10)] == ["m-1", "m-2"]


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/111122223333/q", "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q", "cn-north-1"),
        ("http://localhost:4566/000000000000/q", None),
        ("https://sqs.example.com/111122223333/q", None),
    ],
)
def test_a_queue_of_another_region_is_asked_there(url: str, region: str | None) -> None:
    assert aws.region_of(url) == region


async def test_rotated_credentials_are_taken_up_under_way(
    sqs: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.aws._RENEW_SECONDS", 0.2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    source = consumer(sqs.queue_url, new=partial(aws.session, os.environ))
    async with source.open():
        (delivery,) = await received(source, sqs, message(1))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        await source.receive(10)
        sqs.on("ReceiveMessage", refusing(403, "ExpiredTokenException"))
        with pytest.raises(Transient) as failed:
            await source.receive(10)
        assert failed.value.reason == "credentials"
        await anyio.sleep(0.3)
        await source.receive(10)
        sqs.on("DeleteMessageBatch", refusing(403, "InvalidClientTokenId"))
        await source.settle(delivery, Acknowledge())
    assert [call.access_key for call in sqs.of("ReceiveMessage")] == ["old", "old", "old", "new"]
    assert [call.access_key for call in sqs.of("DeleteMessageBatch")][-1] == "new"


# ── in hand ────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_in_hand_is_extended_at_half_life_until_it_is_settled(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        received = anyio.current_time()
        await until(lambda: len(sqs.of("ChangeMessageVisibilityBatch")) == 2)
        await source.settle(delivery, Acknowledge())
        await anyio.sleep(VISIBILITY_SECONDS)
    first, second = sqs.of("ChangeMessageVisibilityBatch")
    assert first.at - received <= VISIBILITY_SECONDS / 2 + 0.3
    assert second.at - first.at <= VISIBILITY_SECONDS / 2 + 0.3
    assert first.body["Entries"] == [
        {"Id": "0", "ReceiptHandle": "handle-1", "VisibilityTimeout": VISIBILITY_SECONDS}
    ]


async def test_much_in_hand_of_a_slow_queue_is_extended_before_its_time_is_up(sqs: Scripted) -> None:
    kept: dict[str, float] = {}
    gaps: list[float] = []

    async def slowly(body: Document) -> web.Response:
        await anyio.sleep(0.4)
        for entry in body["Entries"]:
            gaps.append(anyio.current_time() - kept[entry["ReceiptHandle"]])
            kept[entry["ReceiptHandle"]] = anyio.current_time()
        return web.json_response({"Successful": [{"Id": entry["Id"]} for entry in body["Entries"]]})

    sqs.on("ChangeMessageVisibilityBatch", *[slowly] * 200)
    async with consuming(sqs.queue_url) as source:
        for start in range(0, 160, 10):  # two rounds of as many calls as may be under way
            sqs.batches.append([message(n) for n in range(start, start + 10)])
            kept |= {str(d.handle): anyio.current_time() for d in await source.receive(10)}
            await anyio.sleep(0.15)  # some just before a round begins, some just after
        await anyio.sleep(2 * VISIBILITY_SECONDS)
    assert len(gaps) > 2 * 160
    assert max(gaps) < VISIBILITY_SECONDS


async def test_an_extension_that_is_under_way_does_not_undo_a_release(sqs: Scripted) -> None:
    answered: list[float] = []

    async def slowly(body: Document) -> web.Response:
        await anyio.sleep(0.5)
        answered.append(anyio.current_time())
        return web.json_response({"Successful": [{"Id": entry["Id"]} for entry in body["Entries"]]})

    sqs.on("ChangeMessageVisibilityBatch", slowly)
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await until(lambda: sqs.of("ChangeMessageVisibilityBatch"))
        await source.settle(delivery, Release(0.0))
    extended, released = sqs.of("ChangeMessageVisibilityBatch")
    assert [e["VisibilityTimeout"] for call in (extended, released) for e in call.body["Entries"]] == [2, 0]
    assert released.at >= answered[0]


@pytest.mark.parametrize("disposition", [Release(0.0), Acknowledge()])
async def test_a_message_that_comes_again_before_its_settling_is_answered_is_kept(
    sqs: Scripted, disposition: Disposition
) -> None:
    """SQS has done it, and handed the message out again, before we hear of it."""
    came_again = anyio.Event()

    async def late(body: Document) -> web.Response:
        await came_again.wait()
        return web.json_response({"Successful": [{"Id": entry["Id"]} for entry in body["Entries"]]})

    sqs.on("ChangeMessageVisibilityBatch" if isinstance(disposition, Release) else "DeleteMessageBatch", late)
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1, "old handle"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.settle, delivery, disposition)
            await until(lambda: len(sqs.calls) == 3)
            await received(source, sqs, message(1, "new handle"))
            came_again.set()
        await until(lambda: "new handle" in repr(sqs.entries("ChangeMessageVisibilityBatch")))


async def test_an_extension_that_fails_is_tried_again_before_the_message_is_lost(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    sqs.on("ChangeMessageVisibilityBatch", refusing(500, "InternalError"))
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        received = anyio.current_time()
        await until(lambda: len(sqs.of("ChangeMessageVisibilityBatch")) == 2)
        await source.settle(delivery, Acknowledge())
    assert sqs.of("ChangeMessageVisibilityBatch")[1].at < received + VISIBILITY_SECONDS - 0.1


async def test_an_extension_that_fails_is_logged_without_the_handle(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    sqs.on("ChangeMessageVisibilityBatch", *[failing_entries("handle-1")] * 50)
    with structlog.testing.capture_logs() as logs:
        async with consuming(sqs.queue_url) as source:
            await source.receive(10)
            await until(lambda: any(line["event"] == "sqs.not_extended" for line in logs))
    (said,) = [line for line in logs if line["event"] == "sqs.not_extended"]
    assert (said["message"], said["reason"]) == ("m-1", "InternalError")
    assert "handle-1" not in repr(logs)


async def test_a_malformed_answer_to_an_extension_takes_nothing_down(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    sqs.on("ChangeMessageVisibilityBatch", saying(b"[]"))
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        await until(lambda: len(sqs.of("ChangeMessageVisibilityBatch")) == 2)
        await source.settle(delivery, Acknowledge())


async def test_extensions_and_deletes_travel_in_batches_of_at_most_ten_with_ids_of_their_own(
    sqs: Scripted,
) -> None:
    for start in range(0, 25, 10):
        sqs.batches.append([message(n) for n in range(start, min(start + 10, 25))])
    async with consuming(sqs.queue_url) as source:
        deliveries = [delivery for _ in range(3) for delivery in await source.receive(10)]
        await until(lambda: sum(map(len, sqs.entries("ChangeMessageVisibilityBatch"))) >= 25)
        async with anyio.create_task_group() as tasks:
            for delivery in deliveries:
                tasks.start_soon(source.settle, delivery, Acknowledge())
    for operation in ("ChangeMessageVisibilityBatch", "DeleteMessageBatch"):
        batches = sqs.entries(operation)
        assert max(map(len, batches)) == 10
        assert all(len({entry["Id"] for entry in batch}) == len(batch) for batch in batches)
        assert {entry["ReceiptHandle"] for batch in batches for entry in batch} == {
            f"handle-{n}" for n in range(25)
        }
    assert len(sqs.of("DeleteMessageBatch")) <= 4


async def test_hanging_polls_hold_up_neither_deletes_nor_extensions(sqs: Scripted) -> None:
    polls_end = anyio.Event()

    async def hang(_body: Document) -> web.Response:
        await polls_end.wait()
        return web.json_response({})

    sqs.batches.append([message(1)])
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        sqs.on("ReceiveMessage", *[hang] * 12)
        async with anyio.create_task_group() as polls:
            for _ in range(12):  # more than one client has connections for
                polls.start_soon(source.receive, 10)
            await until(lambda: len(sqs.of("ReceiveMessage")) >= 11)
            await until(lambda: sqs.of("ChangeMessageVisibilityBatch"))
            with anyio.fail_after(1):
                await source.settle(delivery, Acknowledge())
            polls_end.set()
    assert len(sqs.of("DeleteMessageBatch")) == 1


async def test_a_keeper_that_is_stuck_is_named(sqs: Scripted) -> None:
    answers = anyio.Event()

    async def hang(_body: Document) -> web.Response:
        await answers.wait()
        return web.json_response({})

    sqs.batches.append([message(1)])
    progress = Progress(anyio.current_time)
    source = consumer(sqs.queue_url, progress=progress, stall_seconds=0.3)
    async with source.open():
        await source.receive(10)
        await until(lambda: sqs.of("ChangeMessageVisibilityBatch"))
        assert progress.stalled() == []
        sqs.on("ChangeMessageVisibilityBatch", hang)
        await until(progress.stalled)
        assert progress.stalled() == ["keep contact-events"]
        answers.set()
        await until(lambda: not progress.stalled())
    assert progress.stalled() == []


async def test_a_message_that_sqs_lets_nobody_keep_any_longer_is_still_settled(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    sqs.on("ChangeMessageVisibilityBatch", *[failing_entries("handle-1")] * 50)  # after 12 hours in all
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        await until(lambda: sqs.of("ChangeMessageVisibilityBatch"))
        await source.settle(delivery, Acknowledge())
    assert len(sqs.of("DeleteMessageBatch")) == 1


# ── settling ───────────────────────────────────────────────────────────────────────────────────


async def received(source: SqsSource, sqs: Scripted, *messages: Document) -> list[Delivery]:
    sqs.batches.append(list(messages))
    return list(await source.receive(10))


@pytest.mark.parametrize("which", [0, 1])
async def test_the_newest_receipt_handle_settles_whichever_delivery_is_settled(
    sqs: Scripted, which: int
) -> None:
    async with consuming(sqs.queue_url) as source:
        (older,) = await received(source, sqs, message(1, "old handle"))
        (newer,) = await received(source, sqs, message(1, "new handle"))
        await until(lambda: sqs.of("ChangeMessageVisibilityBatch"))
        await source.settle((older, newer)[which], Acknowledge())
    assert {e["ReceiptHandle"] for batch in sqs.entries("ChangeMessageVisibilityBatch") for e in batch} == {
        "new handle"
    }
    assert {e["ReceiptHandle"] for batch in sqs.entries("DeleteMessageBatch") for e in batch} == {
        "new handle"
    }


async def test_of_a_batch_that_fails_in_part_only_the_failed_entry_is_sent_again(sqs: Scripted) -> None:
    sqs.on("DeleteMessageBatch", *[failing_entries("handle-2")] * 2)
    settled: list[str] = []
    metrics = Metrics()
    source = consumer(sqs.queue_url, metrics=metrics)
    async with source.open():
        deliveries = await received(source, sqs, *(message(n) for n in range(5)))

        async def settle(delivery: Delivery) -> None:
            await source.settle(delivery, Acknowledge())
            settled.append(delivery.id)

        async with anyio.create_task_group() as tasks:
            for delivery in deliveries:
                tasks.start_soon(settle, delivery)
    handles = [e["ReceiptHandle"] for batch in sqs.entries("DeleteMessageBatch") for e in batch]
    assert sorted(handles) == sorted([f"handle-{n}" for n in range(5)] + ["handle-2"] * 2)
    assert settled[-1] == "m-2"
    assert len(settled) == 5
    labels = {"source": "contact-events", "call": "DeleteMessageBatch", "reason": "InternalError"}
    assert metrics.registry.get_sample_value("attachd_batch_entry_failures_total", labels) == 2


@pytest.mark.parametrize("disposition", [Acknowledge(), Release(5.0)], ids=repr)
@pytest.mark.parametrize(
    "code",
    [
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
        "ReceiptHandleIsInvalid",
        "InvalidParameterValueException",  # a FIFO queue's, of a handle whose time is up
    ],
)
async def test_a_message_whose_time_was_up_before_it_was_settled_is_told_at_once_and_no_trouble_of_ours(
    sqs: Scripted, code: str, disposition: Disposition
) -> None:
    sqs.on("DeleteMessageBatch", *[failing_entries("handle-1", code=code)] * 50)
    sqs.on("ChangeMessageVisibilityBatch", *[failing_entries("handle-1", code=code)] * 50)
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        with pytest.raises(Transient) as failed, anyio.fail_after(1):
            await source.settle(delivery, disposition)
    assert failed.value.reason == "not_ours"  # as the service knows it
    operation = (
        "DeleteMessageBatch" if isinstance(disposition, Acknowledge) else "ChangeMessageVisibilityBatch"
    )
    assert len(sqs.of(operation)) == 1


async def test_a_message_whose_time_is_up_is_extended_no_more(sqs: Scripted) -> None:
    sqs.on("ChangeMessageVisibilityBatch", *[failing_entries("handle-1", code="MessageNotInflight")] * 50)
    async with consuming(sqs.queue_url) as source:
        await received(source, sqs, message(1))
        await anyio.sleep(1.8 * VISIBILITY_SECONDS)
    assert len(sqs.of("ChangeMessageVisibilityBatch")) == 1


async def test_a_call_that_fails_as_a_whole_is_sent_again_for_all_of_them(sqs: Scripted) -> None:
    sqs.on("DeleteMessageBatch", refusing(503, "ServiceUnavailable"))
    async with consuming(sqs.queue_url) as source:
        deliveries = await received(source, sqs, *(message(n) for n in range(3)))
        async with anyio.create_task_group() as tasks:
            for delivery in deliveries:
                tasks.start_soon(source.settle, delivery, Acknowledge())
    handles = {e["ReceiptHandle"] for batch in sqs.entries("DeleteMessageBatch")[1:] for e in batch}
    assert handles == {"handle-0", "handle-1", "handle-2"}


async def test_a_delete_that_is_never_confirmed_ends_as_transient_and_is_no_longer_extended(
    sqs: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.sources.sqs._SETTLE_SECONDS", 0.5)
    sqs.on("DeleteMessageBatch", *[failing_entries("handle-1")] * 50)
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        with pytest.raises(Transient) as failed:
            await source.settle(delivery, Acknowledge())
        assert failed.value.reason == "InternalError"
        assert "handle-1" not in str(failed.value)
        extended = len(sqs.of("ChangeMessageVisibilityBatch"))
        await anyio.sleep(VISIBILITY_SECONDS / 2 + 0.2)
        assert len(sqs.of("ChangeMessageVisibilityBatch")) == extended


@pytest.mark.parametrize("body", [b"[]", b"null", b"\xff\xfe", b'{"Failed": [{}]}'], ids=repr)
async def test_a_malformed_answer_to_a_delete_is_never_foreign(
    sqs: Scripted, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr("attachd.sources.sqs._SETTLE_SECONDS", 0.3)
    sqs.on("DeleteMessageBatch", *[saying(body)] * 50)
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        with pytest.raises(Transient):
            await source.settle(delivery, Acknowledge())


@pytest.mark.parametrize(("after", "seconds"), [(0.0, 0), (7.0, 7), (86_400.0, 43_200)])
async def test_a_release_is_a_change_of_visibility_within_what_sqs_allows(
    sqs: Scripted, after: float, seconds: int
) -> None:
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await source.settle(delivery, Release(after))
    assert sqs.entries("ChangeMessageVisibilityBatch") == [
        [{"Id": "0", "ReceiptHandle": "handle-1", "VisibilityTimeout": seconds}]
    ]
    assert sqs.of("DeleteMessageBatch") == []


async def test_a_quarantined_body_is_put_aside_before_it_is_deleted(sqs: Scripted) -> None:
    async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await source.settle(delivery, Quarantine("not_json: " + "x" * 1000))
    sent, deleted = [call for call in sqs.calls if call.operation in {"SendMessage", "DeleteMessageBatch"}]
    assert (sent.operation, deleted.operation) == ("SendMessage", "DeleteMessageBatch")
    assert sent.body["QueueUrl"] == sqs.quarantine_url
    assert sent.body["MessageBody"] == "body 1"
    attributes = {name: value["StringValue"] for name, value in sent.body["MessageAttributes"].items()}
    assert attributes["attachd.reason"].startswith("not_json: xxx")
    assert len(attributes["attachd.reason"]) <= 256
    assert attributes["attachd.message_id"] == "m-1"


async def test_a_body_that_could_not_be_put_aside_is_not_deleted(
    sqs: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.sources.quarantine._TRY_SECONDS", 0.3)
    sqs.on("SendMessage", *[refusing(500, "InternalError")] * 50)
    async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        with pytest.raises(Transient):
            await source.settle(delivery, Quarantine("not_json"))
    assert sqs.of("DeleteMessageBatch") == []


@pytest.mark.parametrize(
    "code",
    ["InvalidParameterValue", "InvalidMessageContents", "AWS.SimpleQueueService.InvalidMessageContents"],
)
async def test_a_body_that_the_quarantine_will_never_take_is_left_to_the_queues_own_redrive(
    sqs: Scripted, code: str
) -> None:
    sqs.on("SendMessage", refusing(400, code.rpartition(".")[2], code))
    with structlog.testing.capture_logs() as logs:
        async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
            (delivery,) = await received(source, sqs, message(1))
            await source.settle(delivery, Quarantine("too_large"))
    assert (len(sqs.of("SendMessage")), sqs.of("DeleteMessageBatch")) == (1, [])
    assert sqs.entries("ChangeMessageVisibilityBatch")[0][0]["VisibilityTimeout"] == VISIBILITY_SECONDS
    assert [line["message"] for line in logs if line["event"] == "quarantine.refused"] == ["m-1"]


async def test_a_body_whose_delete_fails_is_put_aside_once(sqs: Scripted) -> None:
    sqs.on("DeleteMessageBatch", failing_entries("handle-1"))
    async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await source.settle(delivery, Quarantine("not_json"))
    assert len(sqs.of("DeleteMessageBatch")) == 2
    assert len(sqs.of("SendMessage")) == 1


async def test_without_a_quarantine_queue_the_body_is_left_to_the_queues_own_redrive(sqs: Scripted) -> None:
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await source.settle(delivery, Quarantine("not_json"))
    assert sqs.of("DeleteMessageBatch") == []
    assert sqs.of("SendMessage") == []
    assert sqs.entries("ChangeMessageVisibilityBatch")[0][0]["VisibilityTimeout"] >= 0


async def test_a_settle_that_is_shielded_goes_through_while_everything_around_it_is_cancelled(
    sqs: Scripted,
) -> None:
    confirmed = False
    with anyio.CancelScope() as everything:
        async with consuming(sqs.queue_url) as source:
            (delivery,) = await received(source, sqs, message(1))
            everything.cancel()
            with anyio.move_on_after(1, shield=True):
                await source.settle(delivery, Release(0.0))
                confirmed = True
    assert confirmed


@pytest.mark.parametrize("operation", ["DeleteMessageBatch", "SendMessage"])
async def test_a_call_that_hangs_is_given_up_in_time_for_another_try(sqs: Scripted, operation: str) -> None:
    hung = anyio.Event()

    async def hang(_body: Document) -> web.Response:
        await hung.wait()
        return web.json_response({})

    sqs.on(operation, hang)
    async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        with anyio.fail_after(8):  # the service allows 10 s
            await source.settle(delivery, Quarantine("not_json"))
        hung.set()
    assert len(sqs.of(operation)) == 2
    assert len(sqs.entries("DeleteMessageBatch")[-1]) == 1


async def test_a_message_is_extended_for_as_long_as_its_quarantine_takes(sqs: Scripted) -> None:
    async def slowly(_body: Document) -> web.Response:
        await anyio.sleep(1.5 * VISIBILITY_SECONDS / 2)
        return web.json_response({"MessageId": "another", "MD5OfMessageBody": "0" * 32})

    sqs.on("SendMessage", slowly)
    async with consuming(sqs.queue_url, sqs.quarantine_url) as source:
        (delivery,) = await received(source, sqs, message(1))
        await source.settle(delivery, Quarantine("not_json"))
    assert sqs.entries("ChangeMessageVisibilityBatch")[0][0]["VisibilityTimeout"] == VISIBILITY_SECONDS


# ── what SQS, as moto plays it, does with ours ─────────────────────────────────────────────────


async def test_a_queue_that_does_not_exist_is_not_made(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, moto)
    async with SESSION.create_client("sqs") as client:
        with pytest.raises(Misconfigured):
            async with consuming(f"{moto}/123456789012/never-made"):
                pass
        assert "QueueUrls" not in await client.list_queues(QueueNamePrefix="never-made")


async def test_our_visibility_rules_whatever_the_queues_own_is(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, moto)
    async with SESSION.create_client("sqs") as client:
        made = await client.create_queue(QueueName="short", Attributes={"VisibilityTimeout": "0"})
        await client.send_message(QueueUrl=made["QueueUrl"], MessageBody="{}")
        async with consuming(made["QueueUrl"]) as source:
            (delivery,) = await source.receive(10)
            others = await client.receive_message(QueueUrl=made["QueueUrl"], WaitTimeSeconds=1)
            assert "Messages" not in others
            await source.settle(delivery, Acknowledge())


async def test_a_queue_that_is_deleted_under_way_is_told_at_the_next_poll(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, moto)
    async with SESSION.create_client("sqs") as client:
        made = await client.create_queue(QueueName="short-lived")
        async with consuming(made["QueueUrl"]) as source:
            await client.delete_queue(QueueUrl=made["QueueUrl"])
            with pytest.raises(Transient) as failed:
                await source.receive(10)
            assert failed.value.reason == "not_found"
            await client.create_queue(QueueName="short-lived")
            await client.send_message(QueueUrl=made["QueueUrl"], MessageBody="{}")
            (delivery,) = await source.receive(10)
            await source.settle(delivery, Acknowledge())


@pytest.mark.parametrize("disposition", [Acknowledge(), Release(0.0)], ids=repr)
async def test_of_a_fifo_queue_one_message_a_group_is_in_hand_and_a_released_one_keeps_its_place(
    moto: str, monkeypatch: pytest.MonkeyPatch, disposition: Disposition
) -> None:
    environment(monkeypatch, moto)
    async with SESSION.create_client("sqs") as client:
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        name = f"contact-events-{type(disposition).__name__}.fifo"
        url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        for body, group in [("a1", "a"), ("a2", "a"), ("b1", "b")]:
            await client.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group)
        async with consuming(url) as source:
            in_hand = [delivery for _ in range(3) for delivery in await source.receive(10)]
            assert sorted(delivery.body for delivery in in_hand) == [b"a1", b"b1"]
            await source.settle(next(d for d in in_hand if d.body == b"a1"), disposition)
            (following,) = await source.receive(10)
            assert following.body == (b"a2" if isinstance(disposition, Acknowledge) else b"a1")


async def test_an_extension_that_was_listed_before_a_settle_does_not_undo_it(sqs: Scripted) -> None:
    sqs.batches.append([message(1)])
    async with consuming(sqs.queue_url) as source:
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Release(0.0))
        await source._keeper.extend([delivery])
    changed = [
        entry["VisibilityTimeout"]
        for entries in sqs.entries("ChangeMessageVisibilityBatch")
        for entry in entries
    ]
    assert changed == [0]
