"""What can be wrong with a table, and what an operator is told: against a scripted DynamoDB, and against moto."""

import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from aiobotocore.session import get_session
from aiohttp import web
from structlog.testing import capture_logs

import embedded
from attachd.demo import aws
from attachd.errors import Misconfigured, Transient
from attachd.journals.dynamodb.journal import DynamoJournal
from attachd.lifecycle import Entry, Stage
from attachd.model import Beat

SESSION = get_session()  # one, since it remembers the service models it has read
ENTRY = Entry("c-1", Stage.CLAIMED, 1, 1_800_000_000.0, "us")
BEAT = Beat("us", 1, 0, 0.0)
CANARY = "FwoGZXIvYXdzEB-canary"
Document = dict[str, Any]
Reply = Callable[[], Awaitable[web.Response] | web.Response]


def saying(document: Document) -> Reply:
    return lambda: web.json_response(
        document, headers={"x-amzn-RequestId": "1"}, content_type="application/x-amz-json-1.0"
    )


def refusing(code: str, status: int = 400) -> Reply:
    """An error as DynamoDB spells it; its text quotes the request, as that of a bad signature does."""
    body = {
        "__type": f"com.amazonaws.dynamodb.v20120810#{code}",
        "message": f"x-amz-security-token:{CANARY}",
    }
    return lambda: web.json_response(body, status=status, content_type="application/x-amz-json-1.0")


async def _silent() -> web.Response:
    await anyio.sleep(30)
    return web.Response()


def _garbage() -> web.Response:
    return web.Response(body=b"<html>a proxy's login page</html>", content_type="text/html")


def table(**changes: Any) -> Reply:
    described = {
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    }
    return saying({"Table": described | changes})


def ttl(status: str, attribute: str = "expires_at") -> Reply:
    return saying({"TimeToLiveDescription": {"TimeToLiveStatus": status, "AttributeName": attribute}})


@dataclass
class Scripted:
    """A DynamoDB with a good table, but for the ``replies`` of an operation; the last of them stays."""

    url: str = ""
    replies: dict[str, deque[Reply]] = field(
        default_factory=lambda: {
            "DescribeTable": deque([table()]),
            "DescribeTimeToLive": deque([ttl("ENABLED")]),
        }
    )
    calls: list[tuple[str, Document]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def on(self, operation: str, *replies: Reply) -> None:
        """How the next calls of the operation are answered."""
        self.replies[operation] = deque(replies)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        self.calls.append((operation, await request.json()))
        self.keys.append(request.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
        replies = self.replies.get(operation, deque([saying({})]))
        reply = (replies.popleft() if len(replies) > 1 else replies[0])()
        return reply if isinstance(reply, web.Response) else await reply


def _environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in (aws.credentials() | {"AWS_ENDPOINT_URL_DYNAMODB": url}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def dynamodb(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    scripted = Scripted()
    app = web.Application()
    app.router.add_post("/", scripted.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    _environment(monkeypatch, scripted.url)
    yield scripted
    await runner.cleanup()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with embedded.dynamodb() as url:
        yield url


def journal(name: str = "attachd") -> DynamoJournal:
    return DynamoJournal(lambda: SESSION, name, keep_seconds=60.0, user_agent="attachd/test")


@asynccontextmanager
async def opened() -> AsyncIterator[DynamoJournal]:
    made = journal()
    with anyio.fail_after(20):
        async with made.open():
            yield made


# ── the check at the start ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (refusing("ResourceNotFoundException"), "`attachd journal create` makes it"),
        (refusing("AccessDeniedException"), "allow what config/iam-policy.json allows"),
        (table(KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}]), "a table of its own"),
        (
            table(
                KeySchema=[
                    {"AttributeName": "id", "KeyType": "HASH"},
                    {"AttributeName": "at", "KeyType": "RANGE"},
                ]
            ),
            "a table of its own",
        ),
        (
            table(AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}]),
            "a table of its own",
        ),
        (table(TableStatus="DELETING"), "it is DELETING"),
        (
            table(TableStatus="INACCESSIBLE_ENCRYPTION_CREDENTIALS"),
            "it is INACCESSIBLE_ENCRYPTION_CREDENTIALS",
        ),
    ],
)
async def test_a_table_that_cannot_be_one_ends_the_start_with_what_to_do(
    dynamodb: Scripted, reply: Reply, advice: str
) -> None:
    dynamodb.on("DescribeTable", reply)
    with pytest.raises(Misconfigured) as refusal:
        async with opened():
            pass
    (sentence,) = refusal.value.problems
    assert sentence.startswith("[journal] table 'attachd': ")
    assert advice in sentence
    assert dynamodb.count("CreateTable") == 0


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (table(TableStatus="CREATING"), "still being made"),
        (refusing("ThrottlingException"), "throttled"),
        (refusing("InternalServerError", 500), "InternalServerError"),
        (refusing("UnrecognizedClientException"), "credentials"),
        (_silent, "check the network"),
        (_garbage, "cannot be read"),
    ],
)
async def test_a_dynamodb_that_cannot_be_asked_now_is_asked_again_by_the_next_start(
    dynamodb: Scripted, reply: Reply, advice: str
) -> None:
    dynamodb.on("DescribeTable", reply)
    with pytest.raises(Transient, match=advice):
        async with opened():
            pass


@pytest.mark.parametrize("reply", [table(), table(TableStatus="UPDATING")])
async def test_a_good_table_is_taken_without_a_word(dynamodb: Scripted, reply: Reply) -> None:
    dynamodb.on("DescribeTable", reply)
    with capture_logs() as logs:
        async with opened():
            pass
    assert logs == []


@pytest.mark.parametrize(
    "reply", [ttl("DISABLED"), ttl("ENABLED", "other"), refusing("AccessDeniedException"), ttl("DISABLING")]
)
async def test_a_table_without_ttl_serves_all_the_same_and_the_log_says_so(
    dynamodb: Scripted, reply: Reply
) -> None:
    dynamodb.on("DescribeTimeToLive", reply)
    with capture_logs() as logs:
        async with opened():
            pass
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("journal.no_ttl", "warning")
    assert "`attachd journal create`" in line["next"]


async def test_without_a_region_the_start_ends_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    alone = DynamoJournal(get_session, "attachd", keep_seconds=60.0, user_agent="attachd/test")
    with pytest.raises(Misconfigured, match="set AWS_REGION"):
        async with alone.open():
            pass


async def test_without_credentials_nothing_is_asked(
    dynamodb: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    alone = DynamoJournal(get_session, "attachd", keep_seconds=60.0, user_agent="attachd/test")
    with pytest.raises(Transient, match="no usable AWS credentials"):
        async with alone.open():
            pass
    assert dynamodb.calls == []


async def test_rotated_credentials_are_taken_up_under_way(
    dynamodb: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.aws._RENEW_SECONDS", 0.1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    made = DynamoJournal(get_session, "attachd", keep_seconds=60.0, user_agent="attachd/test")
    async with made.open():
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        dynamodb.on("GetItem", refusing("ExpiredTokenException"), saying({}))
        with pytest.raises(Transient, match="have expired"):
            await made.get("c-1")
        await anyio.sleep(0.2)
        assert await made.get("c-1") is None
    assert dynamodb.keys[-2:] == ["old", "new"]


# ── at work ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (refusing("ProvisionedThroughputExceededException"), "raise its capacity"),
        (refusing("ThrottlingException"), "throttled"),
        (refusing("RequestLimitExceeded"), "quota in this Region"),
        (refusing("AccessDeniedException"), "config/iam-policy.json"),
        (refusing("ResourceNotFoundException"), "`attachd journal create`"),
        (refusing("ExpiredTokenException"), "expired"),
        (refusing("InvalidSignatureException"), "clock"),
        (refusing("ValidationException"), "its key must be the text `id` alone"),
        (refusing("InternalServerError", 500), "InternalServerError"),
        (refusing("SomethingNew"), "SomethingNew"),
        (_garbage, "cannot be read"),
    ],
)
async def test_whatever_goes_wrong_is_a_passing_failure_that_says_what_to_do_and_quotes_nothing(
    dynamodb: Scripted, reply: Reply, advice: str
) -> None:
    for operation in ("GetItem", "PutItem", "UpdateItem"):
        dynamodb.on(operation, reply)
    async with opened() as made:
        for call in (made.get("c-1"), made.put(ENTRY), made.beat(BEAT), made.retire(BEAT)):
            with pytest.raises(Transient, match=advice) as failed:
                await call
            assert failed.value.reason.startswith("journal_")
            assert f"{failed.value}".startswith(f"{failed.value.reason}: [journal] table 'attachd': ")
            assert CANARY not in str(failed.value)


@pytest.mark.parametrize(
    "item",
    [
        {"id": {"S": "contact#c-1"}},
        {"id": {"S": "contact#c-1"}, "contact_id": {"S": "c-1"}, "stage": {"S": "a newer stage"}},
        {"id": {"S": "contact#c-1"}, "contact_id": {"S": "c-1"}, "a newer field": {"S": ""}},
    ],
)
async def test_what_another_application_or_a_newer_attachd_wrote_is_not_guessed_at(
    dynamodb: Scripted, item: Document
) -> None:
    dynamodb.on("GetItem", saying({"Item": item}))
    dynamodb.on("UpdateItem", saying({"Attributes": {"id": {"S": "replicas"}, "us": {"M": {}}}}))
    async with opened() as made:
        for call in (made.get("c-1"), made.beat(BEAT)):
            with pytest.raises(Transient, match="not attachd's, or a newer one's"):
                await call


async def test_a_slow_table_is_given_up_in_seconds_and_a_beat_before_the_next_is_due(
    dynamodb: Scripted,
) -> None:
    for operation in ("GetItem", "PutItem", "UpdateItem"):
        dynamodb.on(operation, _silent)
    async with opened() as made:
        for call, seconds in ((made.get("c-1"), 6.0), (made.put(ENTRY), 6.0), (made.beat(BEAT), 2.2)):
            with anyio.fail_after(seconds), pytest.raises(Transient, match="check the network"):
                await call


async def test_a_table_behind_a_black_hole_is_given_up_however_many_ask(
    dynamodb: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets that nobody ever accepts; more callers than connections, so that most wait for one in vain."""
    failed: list[str] = []

    async def ask(made: DynamoJournal, number: int) -> None:
        try:
            await made.get(f"c-{number}")
        except Transient as error:
            failed.append(error.reason)

    dynamodb.on("GetItem", _silent)
    async with opened() as made:
        with anyio.fail_after(6.5):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(ask, made, number)
        assert failed == ["journal_unreachable"] * 200
        with socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
            _environment(monkeypatch, f"http://127.0.0.1:{hole.getsockname()[1]}")
            with anyio.fail_after(6.5), pytest.raises(Transient, match="does not answer"):
                async with journal().open():
                    pass


async def test_a_throttled_write_is_tried_once_more_by_itself_and_a_beat_is_not(dynamodb: Scripted) -> None:
    throttled = refusing("ProvisionedThroughputExceededException")
    dynamodb.on("PutItem", throttled, saying({}))
    dynamodb.on("UpdateItem", throttled)
    async with opened() as made:
        assert await made.put(ENTRY) == ENTRY
        with pytest.raises(Transient, match="throttled"):
            await made.beat(BEAT)
    assert (dynamodb.count("PutItem"), dynamodb.count("UpdateItem")) == (2, 1)


async def test_a_flood_of_writes_does_not_hold_up_a_beat(dynamodb: Scripted) -> None:
    dynamodb.on("PutItem", _silent)
    dynamodb.on("UpdateItem", saying({"Attributes": {"id": {"S": "replicas"}}}))
    async with opened() as made, anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(made.put, ENTRY)
        await anyio.sleep(0.5)
        with anyio.fail_after(0.5):
            assert await made.beat(BEAT) == []
        tasks.cancel_scope.cancel()


async def test_nothing_but_a_consistent_read_is_relied_on(dynamodb: Scripted) -> None:
    async with opened() as made:
        assert await made.get("c-1") is None
    assert dynamodb.calls[-1][1]["ConsistentRead"] is True


async def test_a_refusal_that_does_not_bring_what_is_stored_costs_a_second_read(dynamodb: Scripted) -> None:
    dynamodb.on("PutItem", refusing("ConditionalCheckFailedException"))
    stored = {"id": {"S": "contact#c-1"}, "contact_id": {"S": "c-1"}, "stage": {"S": "claimed"}}
    numbers = {"version": {"N": "7"}, "changed_at": {"N": "1.5"}}
    dynamodb.on("GetItem", saying({"Item": stored | numbers}))
    async with opened() as journal:
        assert await journal.put(ENTRY) == Entry("c-1", Stage.CLAIMED, 7, 1.5)
        dynamodb.on("GetItem", saying({}))
        with pytest.raises(Transient, match="something else was written meanwhile"):
            await journal.put(ENTRY)


# ── attachd journal create ─────────────────────────────────────────────────────────────────────


async def test_an_emulator_that_knows_no_ttl_has_its_table_all_the_same(dynamodb: Scripted) -> None:
    for operation in ("DescribeTimeToLive", "UpdateTimeToLive"):
        dynamodb.on(operation, refusing("UnknownOperationException"))
    assert "knows no TTL: old entries stay for ever" in (await journal().table.create())[1]


async def test_creating_makes_the_table_once_and_says_each_time_what_it_did(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _environment(monkeypatch, moto)
    assert await journal("made-here").table.create() == [
        "[journal] table 'made-here': made, on-demand",
        "[journal] table 'made-here': TTL turned on, by expires_at",
    ]
    assert await journal("made-here").table.create() == [
        "[journal] table 'made-here': was there already",
        "[journal] table 'made-here': TTL was on already, by expires_at",
    ]
    async with SESSION.create_client("dynamodb") as client:
        described = (await client.describe_table(TableName="made-here"))["Table"]
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        await client.delete_table(TableName="made-here")
        with pytest.raises(Misconfigured, match="does not exist"):
            async with journal("made-here").open():
                pass


async def test_creating_leaves_another_applications_table_alone(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _environment(monkeypatch, moto)
    async with SESSION.create_client("dynamodb") as client:
        await client.create_table(
            TableName="invoices",
            KeySchema=[{"AttributeName": "number", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "number", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        with pytest.raises(Misconfigured, match="a table of its own"):
            await journal("invoices").table.create()
        told = await client.describe_time_to_live(TableName="invoices")
        assert told["TimeToLiveDescription"] == {"TimeToLiveStatus": "DISABLED"}


async def test_creating_without_the_right_to_says_so(dynamodb: Scripted) -> None:
    dynamodb.on("CreateTable", refusing("AccessDeniedException"))
    with pytest.raises(Misconfigured, match="access denied"):
        await journal().table.create()
