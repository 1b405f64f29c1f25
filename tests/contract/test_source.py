"""What every source keeps of its port's word: in memory, a file, a sweep, a resumption, and SQS and Kinesis over real sockets."""

import random
import time
import uuid
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
import structlog
from aiobotocore.session import get_session

from attachd import ports
from attachd.decode import decode
from attachd.errors import Transient
from attachd.journals.memory import MemoryJournal
from attachd.lifecycle import Entry, Stage
from attachd.metrics import Metrics
from attachd.model import Acknowledge, Contact, ContactState, Delivery, Disposition, Quarantine, Release
from attachd.ports import Source
from attachd.progress import Progress
from attachd.sources.file import FileSource
from attachd.sources.kinesis.dynamodb import DynamoLeases
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.stream import KinesisStream
from attachd.sources.kinesis.timing import Timing
from attachd.sources.quarantine import SqsQuarantine
from attachd.sources.resume import ResumeSource, Times
from attachd.sources.sqs import Queue, SqsSource
from attachd.sources.sweep import Pace, Page, SweepSource
from attachd.streams import Edge, Lease
from attachd.testing import Line, MemoryConnect, MemoryLeases, MemorySource, MemoryStream

SESSION = get_session()  # one, since it remembers the service models it has read
POLL_SECONDS = 1
VISIBILITY_SECONDS = 4  # shorter, and a busy machine loses what it has in hand


def sessions() -> Any:
    return SESSION


class Feed(Protocol):
    """A queue, or a stream, and the hands that are not ours.

    Attributes:
        remembers: whether attempts and releases are known to whoever comes next; a stream knows a checkpoint alone.
        rereads: whether it begins again with all there is whenever it is opened, as a file does.
    """

    remembers: bool
    rereads: bool

    def consumer(self) -> Source:
        """One more source on the queue."""
        ...

    async def add(self, *bodies: bytes) -> None: ...

    async def invisible(self) -> int:
        """Messages in somebody's hand."""
        ...

    async def left(self) -> int:
        """Messages on the queue, in hand or not."""
        ...

    async def quarantined(self) -> list[tuple[bytes, str]]:
        """What was put aside, with the reason."""
        ...


class InMemory:
    remembers = True
    rereads = False

    def __init__(self) -> None:
        self.source = MemorySource(poll_seconds=POLL_SECONDS)

    def consumer(self) -> Source:
        return self.source

    async def add(self, *bodies: bytes) -> None:
        for body in bodies:
            self.source.add(body)

    async def invisible(self) -> int:
        return self.source.invisible

    async def left(self) -> int:
        return len(self.source)

    async def quarantined(self) -> list[tuple[bytes, str]]:
        return self.source.quarantine


class OnSqs:
    remembers = True
    rereads = False

    def __init__(self, client: Any, url: str, quarantine_url: str) -> None:
        self._client = client
        self._url = url
        self._quarantine_url = quarantine_url

    def consumer(self) -> Source:
        return SqsSource(
            sessions,
            Queue(self._url, "contact-events", 1, POLL_SECONDS, VISIBILITY_SECONDS),
            aside=SqsQuarantine(
                sessions, self._quarantine_url, dice=random.Random(1), user_agent="attachd/test"
            ),
            metrics=Metrics(),
            progress=Progress(anyio.current_time),
            stall_seconds=60,
            now=time.time,
            dice=random.Random(1),
            user_agent="attachd/test",
        )

    async def add(self, *bodies: bytes) -> None:
        for body in bodies:
            key = str(uuid.uuid4())
            fifo = (
                {"MessageGroupId": key, "MessageDeduplicationId": key} if self._url.endswith("fifo") else {}
            )
            await self._client.send_message(QueueUrl=self._url, MessageBody=body.decode(), **fifo)

    async def _count(self, *names: str) -> int:
        answer = await self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"])
        return sum(int(answer["Attributes"][name]) for name in names)

    async def invisible(self) -> int:
        return await self._count("ApproximateNumberOfMessagesNotVisible")

    async def left(self) -> int:
        return await self._count(
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )

    async def quarantined(self) -> list[tuple[bytes, str]]:
        answer = await self._client.receive_message(
            QueueUrl=self._quarantine_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return [
            (message["Body"].encode(), message["MessageAttributes"]["attachd.reason"]["StringValue"])
            for message in answer.get("Messages", [])
        ]


class Aside:
    """A quarantine in memory."""

    def __init__(self) -> None:
        self.bodies: list[tuple[bytes, str]] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def put(self, body: bytes, message_id: str, reason: str) -> bool:
        assert message_id
        self.bodies.append((body, reason))
        return True


class StreamInMemory:
    """A stream of one shard. What it has left is what its lease's checkpoint, which follows soon, is not past."""

    remembers = False
    rereads = False

    def __init__(self) -> None:
        self.aside = Aside()
        self._stream = MemoryStream(pace_seconds=0.25)
        self._leases = MemoryLeases()

    def consumer(self) -> Source:
        return self.made(self._stream, self._leases)

    def made(self, stream: ports.Stream, leases: ports.Leases) -> Source:
        return KinesisSource(
            stream,
            leases,
            aside=self.aside,
            owner=str(uuid.uuid4()),
            start=Edge.TRIM_HORIZON,
            timing=Timing(poll=POLL_SECONDS, checkpoint=0.05),
            progress=Progress(anyio.current_time),
            now=time.time,
            dice=random.Random(1),
        )

    async def add(self, *bodies: bytes) -> None:
        for body in bodies:
            self._stream.put(body)

    async def invisible(self) -> int:
        return 0  # no record of a stream ever is

    async def left(self) -> int:
        await anyio.sleep(0.3)
        (lease,) = await self.leases()
        return sum(lease.position is None or n > lease.position.sequence for n in await self.sequences())

    async def leases(self) -> Sequence[Lease]:
        return await self._leases.all()

    async def sequences(self) -> list[int]:
        return list(range(1, self._stream._sequence + 1))

    async def quarantined(self) -> list[tuple[bytes, str]]:
        return self.aside.bodies


class OnKinesis(StreamInMemory):
    """Over real sockets, with the leases in DynamoDB."""

    def __init__(self, client: Any, name: str) -> None:
        super().__init__()
        self._client = client
        self._name = name
        self._table = DynamoLeases(sessions, name, user_agent="attachd/test")

    def consumer(self) -> Source:
        stream = KinesisStream(
            sessions, self._name, pace_seconds=0.25, now=time.time, user_agent="attachd/test"
        )
        return self.made(stream, DynamoLeases(sessions, self._name, user_agent="attachd/test"))

    async def add(self, *bodies: bytes) -> None:
        for body in bodies:
            await self._client.put_record(StreamName=self._name, Data=body, PartitionKey="key")

    async def leases(self) -> Sequence[Lease]:
        async with self._table.open():
            return await self._table.all()

    async def sequences(self) -> list[int]:
        shards = await self._client.list_shards(StreamName=self._name)
        iterator = await self._client.get_shard_iterator(
            StreamName=self._name, ShardId=shards["Shards"][0]["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        answer = await self._client.get_records(ShardIterator=iterator["ShardIterator"])
        return [int(record["SequenceNumber"]) for record in answer["Records"]]


class InFile:
    """Lines. What is left of them is what the last to open it has not seen through."""

    remembers = False
    rereads = True

    class Counting(FileSource):
        done = 0

        async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
            self.done += delivery.id in self._in_hand and not isinstance(disposition, Release)
            await super().settle(delivery, disposition)

    def __init__(self, path: Path, logs: list[MutableMapping[str, Any]]) -> None:
        self._path = path
        self._path.touch()
        self._logs = logs

    def consumer(self) -> Source:
        self._last = self.Counting("f", lambda: self._path.open("rb"), poll_seconds=POLL_SECONDS)
        return self._last

    async def add(self, *bodies: bytes) -> None:
        with self._path.open("ab") as file:
            file.writelines(body + b"\n" for body in bodies)

    async def invisible(self) -> int:
        return 0

    async def left(self) -> int:
        return len(self._path.read_bytes().splitlines()) - self._last.done

    async def quarantined(self) -> list[tuple[bytes, str]]:
        """Told in the log, by the line's number."""
        lines = self._path.read_bytes().splitlines()
        said = [line for line in self._logs if line["event"] == "line.quarantined"]
        return [(lines[int(line["line"]) - 1], line["reason"]) for line in said]


class BodiesInIds:
    """Bodies in the ids of contacts that a source finds by itself; the line's part, the journal, is played here."""

    journal: MemoryJournal

    async def receive(self, limit: int) -> Sequence[Delivery]:
        deliveries = await super().receive(limit)  # type: ignore[misc]
        return [replace(d, body=body_of(d), handle=d.body) for d in deliveries]

    async def settle(self, delivery: Delivery, disposition: Disposition) -> None:
        if not isinstance(disposition, Release):
            entry = await self.journal.get(delivery.id)
            await self.journal.put(Entry(delivery.id, Stage.CLOSED, entry.version + 1 if entry else 1, 0.0))
        assert isinstance(delivery.handle, bytes)
        await super().settle(replace(delivery, body=delivery.handle, handle=None), disposition)  # type: ignore[misc]


class Astray:
    """Chats that no event tells of."""

    remembers = False
    rereads = False

    class Telling(BodiesInIds, SweepSource):
        pass

    def __init__(self, logs: list[MutableMapping[str, Any]]) -> None:
        self._logs = logs
        self._chats: list[Contact] = []
        self._journal = MemoryJournal()

    def consumer(self) -> Source:
        pace = Pace(rate=100, every_seconds=0.25, min_age_seconds=0, poll_seconds=POLL_SECONDS)
        made = self.Telling(
            "sweep",
            self,
            self._journal,
            pace,
            progress=Progress(anyio.current_time),
            now=time.time,
            dice=random.Random(1),
        )
        made.journal = self._journal
        return made

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def page(self, since: float, until: float, token: str | None) -> Page:
        assert since < until
        assert token is None
        await anyio.lowlevel.checkpoint()
        return Page(tuple(self._chats), len(self._chats))

    async def add(self, *bodies: bytes) -> None:
        arn = "arn:aws:connect:eu-central-1:111122223333:instance/i"
        for body in bodies:
            contact_id = f"{len(self._chats)} {body.decode()}"
            self._chats.append(Contact(contact_id, arn, "CHAT", contact_id, initiated_at=time.time()))

    async def invisible(self) -> int:
        return 0

    async def left(self) -> int:
        return sum([await self._journal.get(chat.id) is None for chat in self._chats])

    async def quarantined(self) -> list[tuple[bytes, str]]:
        said = [line for line in self._logs if line["event"] == "found.quarantined"]
        return [(line["contact"].partition(" ")[2].encode(), line["reason"]) for line in said]


class Unfinished:
    """Chats that a dead process has left: found at the start, and recalled from then on."""

    remembers = False
    rereads = False

    class Telling(BodiesInIds, ResumeSource):
        line: Line
        opened = 0

        @asynccontextmanager
        async def open(self) -> AsyncIterator[None]:
            async with self.line.running(), super().open():
                type(self).opened += 1
                try:
                    yield
                finally:
                    type(self).opened -= 1

    def __init__(self, logs: list[MutableMapping[str, Any]]) -> None:
        self._logs = logs
        self._count = 0
        self._connect = MemoryConnect()
        self._line = Line(anyio.current_time, attacher=self._connect)
        self._journal = self._line.journal

    def consumer(self) -> Source:
        made = self.Telling(
            self._journal,
            self._line.instances,
            owner="us",
            alive=self._alive,
            queued_too=False,
            progress=Progress(anyio.current_time),
            now=anyio.current_time,
            times=Times(persist=0.0, recalled=0.25, poll=POLL_SECONDS),
        )
        assert isinstance(self._journal, MemoryJournal)
        made.journal, made.line = self._journal, self._line
        return made

    async def _alive(self, _owner: str) -> bool:
        return False

    async def add(self, *bodies: bytes) -> None:
        arn = "arn:aws:connect:eu-central-1:111122223333:instance/i"
        for body in bodies:
            contact_id, self._count = f"{self._count} {body.decode()}", self._count + 1
            self._connect.states[contact_id] = ContactState(
                connected=True,
                queued=False,
                agent=False,
                ended=False,
                contact=Contact(contact_id, arn, "CHAT", contact_id),
            )
            owner = None if self.Telling.opened else "a dead process"
            entry = Entry(contact_id, Stage.CLAIMED, 1, anyio.current_time(), owner, instance_arn=arn)
            await self._journal.put(entry)
            if self.Telling.opened:
                await self._journal.recall(contact_id)

    async def invisible(self) -> int:
        return 0

    async def left(self) -> int:
        return len([e async for e in self._journal.entries() if e.stage is not Stage.CLOSED])

    async def quarantined(self) -> list[tuple[bytes, str]]:
        said = [line for line in self._logs if line["event"] == "found.quarantined"]
        return [(line["contact"].partition(" ")[2].encode(), line["reason"]) for line in said]


def body_of(delivery: Delivery) -> bytes:
    contact_id = decode(delivery.body, received_at=0.0, max_bytes=10_000).contact.id
    return contact_id.partition(" ")[2].encode()


@pytest.fixture(
    params=[
        "memory",
        "stream in memory",
        "sweep",
        "resume",
        pytest.param("file", marks=pytest.mark.real_time),
        pytest.param("sqs", marks=pytest.mark.real_time),
        pytest.param("sqs fifo", marks=pytest.mark.real_time),
        pytest.param("kinesis", marks=pytest.mark.real_time),
    ]
)
async def queue(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Feed]:
    if request.param == "memory":
        yield InMemory()
        return
    if request.param == "stream in memory":
        yield StreamInMemory()
        return
    if request.param in {"sweep", "resume", "file"}:
        with structlog.testing.capture_logs() as logs:
            if request.param == "file":
                yield InFile(tmp_path / "f", logs)
            else:
                yield Astray(logs) if request.param == "sweep" else Unfinished(logs)
        return
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("moto"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    if request.param == "kinesis":
        async with kinesis(f"contact-events-{uuid.uuid4()}") as made:
            yield made
        return
    async with SESSION.create_client("sqs") as client:
        fifo = request.param == "sqs fifo"
        names = [
            f"{kind}-{uuid.uuid4()}{'.fifo' if fifo else ''}" for kind in ("contact-events", "quarantine")
        ]
        attributes = {"FifoQueue": "true"} if fifo else {}
        urls = [
            (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"] for name in names
        ]
        yield OnSqs(client, *urls)


@asynccontextmanager
async def kinesis(name: str) -> AsyncIterator[Feed]:
    async with SESSION.create_client("kinesis") as client, SESSION.create_client("dynamodb") as tables:
        await client.create_stream(StreamName=name, ShardCount=1)
        await tables.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield OnKinesis(client, name)


@asynccontextmanager
async def consuming(queue: Feed, count: int = 1) -> AsyncIterator[list[Source]]:
    """So many consumers, open. Not a fixture: a source holds a task group, which one task must enter and leave."""
    with anyio.fail_after(60):
        async with AsyncExitStack() as stack:
            consumers = [queue.consumer() for _ in range(count)]
            for consumer in consumers:
                await stack.enter_async_context(consumer.open())
            yield consumers


async def receive_all(source: Source, count: int) -> list[Delivery]:
    """Poll until so many have come, or a poll brings none."""
    received: list[Delivery] = []
    while len(received) < count and (batch := await source.receive(10)):
        received += batch
    return received


async def settle_all(source: Source, deliveries: Sequence[Delivery], disposition: Disposition) -> None:
    async with anyio.create_task_group() as tasks:
        for delivery in deliveries:
            tasks.start_soon(source.settle, delivery, disposition)


# ── receive ────────────────────────────────────────────────────────────────────────────────────


async def test_a_delivery_carries_the_body_untouched_and_says_where_it_is_from(queue: Feed) -> None:
    body = '{"detail": "Grüße 🙂",\n\t"n": 1e400}  '.encode()
    if isinstance(queue, InFile | Astray | Unfinished):  # lines, and ids
        body = body.replace(b"\n\t", b"").strip()
    await queue.add(body)
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        assert (delivery.body, delivery.source, delivery.attempt) == (body, source.name, 1)
        assert delivery.id
        await source.settle(delivery, Acknowledge())


async def test_a_handle_is_never_shown(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        assert delivery.handle is None or str(delivery.handle) not in repr(delivery)
        await source.settle(delivery, Acknowledge())


async def test_receiving_brings_no_more_than_was_asked_for_and_in_the_end_everything_once(
    queue: Feed,
) -> None:
    await queue.add(*(b"%d" % n for n in range(5)))
    received: list[Delivery] = []
    async with consuming(queue) as (source,):
        while batch := await source.receive(2):
            assert len(batch) <= 2
            received += batch
        assert sorted(delivery.body for delivery in received) == [b"0", b"1", b"2", b"3", b"4"]
        assert len({delivery.id for delivery in received}) == 5
        await settle_all(source, received, Acknowledge())


async def test_a_limit_beyond_what_one_call_can_bring_is_no_error(queue: Feed) -> None:
    await queue.add(*(b"%d" % n for n in range(12)))
    async with consuming(queue) as (source,):
        received = list(await source.receive(1000))
        received += await receive_all(source, 12 - len(received))
        assert len(received) == 12
        await settle_all(source, received, Acknowledge())


async def test_what_is_in_hand_when_the_drain_begins_is_settled_as_ever(queue: Feed) -> None:
    await queue.add(b"0", b"1")
    async with consuming(queue) as (source,):
        received = await receive_all(source, 2)
        source.drain()
        source.drain()
        await settle_all(source, received, Acknowledge())
        assert list(await source.receive(10)) == []


async def test_an_empty_queue_is_told_after_the_poll(queue: Feed) -> None:
    async with consuming(queue) as (source,):
        started = anyio.current_time()
        assert list(await source.receive(10)) == []
        assert POLL_SECONDS - 0.2 <= anyio.current_time() - started < POLL_SECONDS + 1.5


async def test_a_message_that_arrives_meanwhile_ends_the_poll(queue: Feed) -> None:
    async with consuming(queue) as (source,), anyio.create_task_group() as tasks:

        async def add_later() -> None:
            await anyio.sleep(0.3)
            await queue.add(b"late")

        tasks.start_soon(add_later)
        if isinstance(queue, InFile):  # read to its end; what is written later, not at all
            assert list(await source.receive(10)) == []
            return
        (delivery,) = await source.receive(10)
        assert delivery.body == b"late"
        await source.settle(delivery, Acknowledge())


# ── settle ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_acknowledged_never_comes_again(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Acknowledge())
        assert await queue.left() == 0
    async with consuming(queue) as (source,):
        again = list(await source.receive(10))
        assert [delivery.body for delivery in again] == ([b"{}"] if queue.rereads else [])


async def test_many_are_acknowledged_at_once(queue: Feed) -> None:
    await queue.add(*(b"%d" % n for n in range(25)))
    async with consuming(queue) as (source,):
        received = await receive_all(source, 25)
        await settle_all(source, received, Acknowledge())
        assert await queue.left() == 0


async def test_a_release_hands_out_again_at_once_and_counts_the_attempts(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        for attempt in (1, 2, 3):
            (delivery,) = await source.receive(10)
            assert (delivery.body, delivery.attempt) == (b"{}", attempt)
            await source.settle(delivery, Release(0.0))
        assert await queue.invisible() == 0


async def test_a_release_for_later_stays_away_until_then_and_comes_then(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Release(2.0))
        released = anyio.current_time()
        while not (again := await source.receive(10)):
            assert anyio.current_time() < released + 5
        assert anyio.current_time() >= released + 1.8
        assert again[0].attempt == 2
        await source.settle(again[0], Acknowledge())


async def test_a_release_for_later_stays_away_after_the_source_has_been_left_where_that_is_remembered(
    queue: Feed,
) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Release(30.0))
    async with consuming(queue) as (source,):
        again = list(await source.receive(10))
        assert [delivery.body for delivery in again] == ([] if queue.remembers else [b"{}"])


async def test_what_is_quarantined_is_kept_aside_with_the_reason_and_never_comes_again(queue: Feed) -> None:
    body = '{"broken": "🙂'.encode()
    await queue.add(body)
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Quarantine("not_json: the body ends too soon"))
        assert await queue.left() == 0
        assert await queue.quarantined() == [(body, "not_json: the body ends too soon")]


async def test_each_delivery_of_a_batch_ends_in_its_own_way(queue: Feed) -> None:
    await queue.add(b"done", b"later", b"poison")
    async with consuming(queue) as (source,):
        received = {delivery.body: delivery for delivery in await receive_all(source, 3)}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.settle, received[b"done"], Acknowledge())
            tasks.start_soon(source.settle, received[b"later"], Release(0.0))
            tasks.start_soon(source.settle, received[b"poison"], Quarantine("poison"))
        (again,) = await source.receive(10)
        assert (again.body, again.attempt) == (b"later", 2)
        await source.settle(again, Acknowledge())
        assert await queue.left() == 0


async def test_settling_twice_raises_nothing_foreign(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Acknowledge())
        try:
            with anyio.move_on_after(1):
                await source.settle(delivery, Acknowledge())
                await source.settle(delivery, Release(0.0))
        except Transient:
            pass
        assert await queue.left() == 0


# ── in hand ────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_in_hand_is_handed_to_nobody_else_for_as_long_as_the_source_is_open(
    queue: Feed,
) -> None:
    await queue.add(b"one", b"two")
    # Two who read a file, or look for chats, find the same: the journal's claim is for that.
    theirs = 2 if isinstance(queue, InFile | Astray | Unfinished) else 0
    async with consuming(queue, 2) as (source, other):
        received = await receive_all(source, 2)
        found = await receive_all(other, theirs)
        assert len(found) == theirs
        until = anyio.current_time() + 2 * VISIBILITY_SECONDS
        while anyio.current_time() < until:
            assert list(await other.receive(10)) == []
        await settle_all(source, received, Acknowledge())
        await settle_all(other, found, Acknowledge())
        assert await queue.left() == 0


async def test_what_was_not_settled_comes_again_after_the_source_has_been_left(queue: Feed) -> None:
    await queue.add(b"{}")
    async with consuming(queue) as (source,):
        await source.receive(10)
    async with consuming(queue) as (source,):
        with anyio.fail_after(VISIBILITY_SECONDS + 3):
            while not (again := await source.receive(10)):
                pass
        assert again[0].attempt == (2 if queue.remembers else 1)
        await source.settle(again[0], Acknowledge())


async def test_leaving_a_source_leaves_nothing_invisible_that_was_settled(queue: Feed) -> None:
    await queue.add(*(b"%d" % n for n in range(12)))
    async with consuming(queue) as (source,):
        received = await receive_all(source, 12)
        await settle_all(source, received[:6], Acknowledge())
        await settle_all(source, received[6:], Release(0.0))
    assert (await queue.left(), await queue.invisible()) == (6, 0)


async def test_a_source_can_be_opened_again(queue: Feed) -> None:
    source = queue.consumer()
    for _ in range(2):
        await queue.add(b"{}")
        async with source.open():
            received = await receive_all(source, 2 if queue.rereads else 1)
            assert received
            await settle_all(source, received, Acknowledge())
