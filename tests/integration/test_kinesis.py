"""Kinesis over real sockets: its traps against an endpoint of our own; resharding while records flow against moto."""

import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from aiobotocore.session import get_session

from attachd.errors import Misconfigured, Transient
from attachd.model import Acknowledge, Delivery, Quarantine
from attachd.progress import Progress
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.stream import KinesisStream
from attachd.sources.kinesis.timing import Timing
from attachd.sources.quarantine import SqsQuarantine
from attachd.streams import SHARD_END, Edge, Lease
from attachd.testing import MemoryLeases
from integration.kinesis_server import ARN, Scripted, refusing, saying, serving

SESSION = get_session()  # one, since it remembers the service models it has read
FIRST = "shardId-000000000000"


def sessions() -> Any:
    return SESSION


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:
    async with serving() as scripted:
        environment(monkeypatch, scripted.url)
        yield scripted


def environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


def stream(name: str = "events", *, pace: float = 0.1, fan_out: str | None = None) -> KinesisStream:
    return KinesisStream(
        sessions,
        name,
        pace_seconds=pace,
        fan_out=fan_out,
        now=time.time,
        user_agent="attachd/test",
        idle_seconds=1.0,
    )


def consumer(
    over: KinesisStream,
    leases: MemoryLeases,
    *,
    start: Edge | float = Edge.TRIM_HORIZON,
    aside: SqsQuarantine | None = None,
    timing: Timing | None = None,
    owner: str = "us",
) -> KinesisSource:
    return KinesisSource(
        over,
        leases,
        aside=aside,
        owner=owner,
        start=start,
        timing=timing or Timing(poll=1.0, checkpoint=0.1, discover=0.5),
        progress=Progress(anyio.current_time),
        now=time.time,
        dice=random.Random(1),
    )


async def received(source: KinesisSource, count: int, *, within: float = 20.0) -> list[Delivery]:
    """So many, each acknowledged, whatever fails meanwhile."""
    got: list[Delivery] = []
    with anyio.fail_after(within):
        while len(got) < count:
            try:
                batch = await source.receive(10)
            except Transient:
                continue
            for delivery in batch:
                await source.settle(delivery, Acknowledge())
            got += batch
    return got


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


# ── the nine, where they need the wire ─────────────────────────────────────────────────────────


async def test_r2_a_reply_that_cannot_be_read_halts_nothing(server: Scripted) -> None:
    shard = server.grow()
    server.put(shard, b"one", b"two", b"three")
    server.on(
        "GetRecords",
        saying(b"{not json"),
        saying(b'{"Records": [{"SequenceNumber": "x"}], "NextShardIterator": "i"}'),
        saying(b'{"Records": "none", "NextShardIterator": "i"}'),
    )
    async with consumer(stream(), MemoryLeases()).open():
        pass
    source = consumer(stream(), MemoryLeases())
    async with source.open():
        assert bodies(await received(source, 3)) == [b"one", b"two", b"three"]


async def test_r3_ten_idle_shards_at_default_settings_cost_a_record_a_second_at_most(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, moto)
    async with emulated(10) as (client, name):
        source = consumer(stream(name, pace=1.0), MemoryLeases(), timing=Timing())
        async with source.open():
            assert list(await source.receive(10)) == []
            for key in ("a", "b", "c"):
                began = anyio.current_time()
                await client.put_record(StreamName=name, Data=b"now", PartitionKey=key)
                (delivery,) = await source.receive(10)
                assert anyio.current_time() - began < 2.0
                await source.settle(delivery, Acknowledge())


async def test_r4_an_iterator_that_expires_before_the_first_read_resumes_at_the_checkpoint(
    server: Scripted,
) -> None:
    shard = server.grow()
    server.put(shard, *(b"%d" % n for n in range(10)))
    leases = MemoryLeases({FIRST: Lease(FIRST, "4")})
    server.on("GetRecords", refusing("ExpiredIteratorException"))
    source = consumer(stream(), leases, start=Edge.LATEST)
    async with source.open():
        assert bodies(await received(source, 6)) == [b"%d" % n for n in range(4, 10)]
    asked = [
        (c.body["ShardIteratorType"], c.body["StartingSequenceNumber"]) for c in server.of("GetShardIterator")
    ]
    assert asked == [("AT_SEQUENCE_NUMBER", "4")] * 2


async def test_a_stream_that_pads_its_sequence_numbers_gets_them_back_as_they_were(server: Scripted) -> None:
    server.digits = 20  # some compare them as text
    server.put(shard := server.grow(), b"0", b"1")
    leases = MemoryLeases()
    async with (source := consumer(stream(), leases)).open():
        await received(source, 2)
    assert leases.rows[FIRST].checkpoint == "2".zfill(20)
    server.put(shard, b"2")
    async with (source := consumer(stream(), leases)).open():
        assert bodies(await received(source, 1)) == [b"2"]
    assert server.of("GetShardIterator")[-1].body["StartingSequenceNumber"] == "2".zfill(20)


async def test_a_checkpoint_that_is_none_of_the_streams_is_given_up_for_its_oldest_record(
    server: Scripted,
) -> None:
    server.put(server.grow(), b"0", b"1")
    leases = MemoryLeases({FIRST: Lease(FIRST, "4711", counter=7)})
    server.on("GetShardIterator", refusing("InvalidArgumentException"))
    async with (source := consumer(stream(), leases)).open():
        assert bodies(await received(source, 2)) == [b"0", b"1"]
    assert [c.body["ShardIteratorType"] for c in server.of("GetShardIterator")] == [
        "AT_SEQUENCE_NUMBER",
        "TRIM_HORIZON",
    ]


async def test_r4_latest_that_expires_before_the_first_record_means_the_same_moment_again(
    server: Scripted,
) -> None:
    shard = server.grow()
    leases = MemoryLeases({FIRST: Lease(FIRST, Edge.LATEST)})  # a library's: it does not say when
    source = consumer(stream(), leases, start=Edge.LATEST)
    async with source.open():
        await anyio.sleep(0.3)
        server.on("GetRecords", refusing("ExpiredIteratorException"))
        server.put(shard, b"between")
        assert bodies(await received(source, 1)) == [b"between"]
    first, second = (c.body for c in server.of("GetShardIterator"))
    assert first["ShardIteratorType"] == "LATEST"
    assert second["ShardIteratorType"] == "AT_TIMESTAMP"
    assert abs(second["Timestamp"] - time.time()) < 60


async def test_r5_an_iterator_that_is_throttled_after_expiry_costs_a_moment_and_not_the_shard(
    server: Scripted,
) -> None:
    shard = server.grow()
    server.put(shard, b"one")
    source = consumer(stream(), MemoryLeases())
    async with source.open():
        await received(source, 1)
        server.on("GetRecords", refusing("ExpiredIteratorException"))
        server.on("GetShardIterator", *[refusing("ProvisionedThroughputExceededException")] * 2)
        server.put(shard, b"two")
        assert bodies(await received(source, 1)) == [b"two"]
        assert source._share.trouble == []


async def test_r7_of_250_shards_all_are_known(server: Scripted) -> None:
    for _ in range(250):
        server.grow()
    source = consumer(stream(pace=5.0), leases := MemoryLeases())
    async with source.open():
        assert source.shards == 250
    assert len(leases.rows) == 250
    assert [call.body for call in server.of("ListShards")][:3] == [
        {"StreamName": "events"},
        {"NextToken": "100"},
        {"NextToken": "200"},
    ]


# ── what an endpoint may do ────────────────────────────────────────────────────────────────────


async def test_a_stream_that_does_not_exist_is_not_made(server: Scripted) -> None:
    server.on("ListShards", refusing("ResourceNotFoundException"))
    with pytest.raises(Misconfigured, match="events does not exist"):
        async with consumer(stream(), MemoryLeases()).open():
            pass


async def test_an_endpoint_that_does_not_know_list_shards_is_asked_the_older_way_page_by_page(
    server: Scripted,
) -> None:
    for _ in range(150):
        server.grow()
    server.on("ListShards", refusing("UnknownOperationException"))
    async with stream().open():
        pass
    server.on("ListShards", refusing("UnknownOperationException"))
    made = stream()
    async with made.open():
        assert len((await made.shards()).shards) == 150
    assert len(server.of("ListShards")) == 2  # once for each: it is not asked for what it does not know again


async def test_a_denied_call_and_a_partition_are_told_and_got_over(server: Scripted) -> None:
    shard = server.grow()
    source = consumer(stream(), MemoryLeases())
    async with source.open():
        server.on("GetRecords", *[refusing("AccessDeniedException")] * 3)
        with pytest.raises(Transient) as failed:
            await source.receive(10)
        assert failed.value.reason == "access_denied"
        assert "events" in failed.value.detail
        server.put(shard, b"after")
        assert bodies(await received(source, 1)) == [b"after"]


async def test_a_reply_without_an_iterator_does_not_end_a_shard_that_is_listed_as_open(
    server: Scripted,
) -> None:
    shard = server.grow()
    server.put(shard, b"one")
    server.on("GetRecords", saying(b"{}"), saying(b'{"Records": []}'))
    source = consumer(stream(), leases := MemoryLeases())
    async with source.open():
        assert bodies(await received(source, 1)) == [b"one"]
        assert leases.rows[FIRST].checkpoint != SHARD_END


async def test_a_listing_without_shards_ends_none_either(server: Scripted) -> None:
    shard = server.grow()
    server.put(shard, b"0")
    source = consumer(stream(), leases := MemoryLeases())
    async with source.open():
        await received(source, 1)
        server.on("ListShards", saying(b"{}"), saying(b"{}"))
        await anyio.sleep(1.0)  # it is asked every half second here
        server.on("ListShards", saying(b"{}"), saying(b"{}"))
        server.on("GetRecords", saying(b"{}"))
        await anyio.sleep(1.0)
        server.put(shard, b"1")
        assert bodies(await received(source, 1)) == [b"1"]
        assert not leases.rows[FIRST].finished


async def test_a_reply_that_says_nothing_does_not_end_a_closed_shard(server: Scripted) -> None:
    server.put(shard := server.grow(), *(b"%d" % n for n in range(5)))
    server.split(shard)
    server.on("GetRecords", saying(b"{}"))
    async with (source := consumer(stream(), MemoryLeases())).open():
        assert bodies(await received(source, 5)) == [b"%d" % n for n in range(5)]


async def test_a_closed_shard_ends_when_the_endpoint_says_so_and_its_child_begins(server: Scripted) -> None:
    shard = server.grow()
    server.put(shard, b"parent")
    source = consumer(stream(), leases := MemoryLeases())
    async with source.open():
        await received(source, 1)
        shard.closed = True
        server.put(server.grow(FIRST), b"child")
        assert bodies(await received(source, 1)) == [b"child"]
    assert leases.rows[FIRST].finished


async def test_a_shard_is_read_at_its_pace_and_no_faster_than_leaves_others_room(server: Scripted) -> None:
    shard = server.grow()
    server.put(shard, *(b"%d" % n for n in range(3000)))
    source = consumer(stream(pace=0.5), MemoryLeases())
    async with source.open():
        await received(source, 3000)
        reads = [call.at for call in server.of("GetRecords")]
        assert len(reads) <= 2 + (reads[-1] - reads[0]) / 0.25  # 4 a second of its 5, while there is more
        idle = anyio.current_time()
        await anyio.sleep(3)
    later = [call.at for call in server.of("GetRecords") if call.at > idle]
    assert 2 <= len(later) <= 2 + (later[-1] - later[0]) / 0.5  # 2 a second when there is not


async def test_however_much_there_is_a_shard_is_not_read_faster_than_aws_allows(server: Scripted) -> None:
    server.put(server.grow(), *(b"%d" % n for n in range(8000)))
    async with (source := consumer(stream(pace=0.2), MemoryLeases())).open():
        await received(source, 8000)
    reads = [call.at for call in server.of("GetRecords")]
    assert len(reads) <= 2 + (reads[-1] - reads[0]) / 0.2


async def test_an_arn_is_sent_as_one_to_the_region_it_names(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    shard = server.grow()
    server.put(shard, b"one")
    made = stream(ARN)
    assert made.name == "events"
    source = consumer(made, MemoryLeases())
    async with source.open():
        await received(source, 1)
    assert server.of("ListShards")[0].body == {"StreamARN": ARN}
    assert server.of("GetShardIterator")[0].body["StreamARN"] == ARN
    assert server.of("GetRecords")[0].body["StreamARN"] == ARN


# ── enhanced fan-out ───────────────────────────────────────────────────────────────────────────


def pushed(*records: tuple[int, bytes], then: str | None = "") -> dict[str, Any]:
    from integration.kinesis_server import record  # noqa: PLC0415 - a test's own name is `record` otherwise

    last = records[-1][0] if records else 0
    event: dict[str, Any] = {"Records": [record(n, data) for n, data in records], "MillisBehindLatest": 0}
    return event | ({} if then is None else {"ContinuationSequenceNumber": then or str(last)})


async def test_a_subscription_brings_records_and_the_next_goes_on_where_it_ended(server: Scripted) -> None:
    server.grow()
    server.events.append([pushed((1, b"one"), (2, b"two")), pushed(then="7")])
    server.events.append([pushed((9, b"three"))])
    source = consumer(stream(fan_out="attachd"), MemoryLeases())
    async with source.open():
        assert bodies(await received(source, 3)) == [b"one", b"two", b"three"]
    first, second, *_ = server.of("SubscribeToShard")
    assert first.body == {
        "ConsumerARN": f"{ARN}/consumer/attachd:1",
        "ShardId": FIRST,
        "StartingPosition": {"Type": "TRIM_HORIZON"},
    }
    assert second.body["StartingPosition"] == {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "7"}
    assert second.at - first.at >= 4.9  # sooner is refused
    assert server.of("GetRecords") == []


async def test_a_subscription_that_breaks_off_is_made_again_at_the_last_record(server: Scripted) -> None:
    server.grow()
    server.events.append([pushed((1, b"one")), {"!": "InternalFailureException", "message": "no"}])
    server.on("SubscribeToShard", refusing("ResourceInUseException"))
    server.events.append([pushed((1, b"one"), (2, b"two"))])
    source = consumer(stream(fan_out="attachd"), MemoryLeases())
    async with source.open():
        assert bodies(await received(source, 2, within=30)) == [b"one", b"two"]
    _refused, first, last = server.of("SubscribeToShard")
    assert last.at - first.at >= 5  # sooner it would be refused, however the first one ended
    assert last.body["StartingPosition"] == {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "1"}
    assert len(server.of("DescribeStreamConsumer")) == 1


async def test_a_consumer_that_is_not_registered_is_and_once(server: Scripted) -> None:
    for n in range(12):
        server.grow()
        server.events.append([pushed((n, b"%d" % n))])
    server.on("DescribeStreamConsumer", refusing("ResourceNotFoundException"))
    source = consumer(stream(fan_out="attachd"), MemoryLeases())
    async with source.open():
        await received(source, 12)
    assert len(server.of("DescribeStreamConsumer")) == 1  # of which AWS allows 20 a second
    assert [call.body for call in server.of("RegisterStreamConsumer")] == [
        {"StreamARN": ARN, "ConsumerName": "attachd"}
    ]


async def test_a_pushed_shard_ends_with_its_children(server: Scripted) -> None:
    shard = server.grow()
    server.events.append(
        [pushed((1, b"last"), then=None) | {"ChildShards": [{"ShardId": "shardId-000000000001"}]}]
    )
    shard.closed = True
    server.grow(FIRST)
    server.events.append([pushed((2, b"child"))])
    source = consumer(stream(fan_out="attachd"), leases := MemoryLeases())
    async with source.open():
        assert bodies(await received(source, 2)) == [b"last", b"child"]
    assert leases.rows[FIRST].checkpoint == SHARD_END
    assert leases.rows[FIRST].children == {"shardId-000000000001"}


# ── an emulator ────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def emulated(shards: int) -> AsyncIterator[tuple[Any, str]]:
    name = f"events-{uuid.uuid4()}"
    async with SESSION.create_client("kinesis") as client:
        await client.create_stream(StreamName=name, ShardCount=shards)
        yield client, name


@pytest.mark.parametrize("how", ["split", "merge", "both"])
async def test_every_record_is_handled_in_order_and_children_after_parents_while_a_stream_is_resharded(
    server: Scripted, how: str
) -> None:
    for _ in range(2):
        server.grow()

    async def produce(n: int) -> bytes:
        if n in {20, 45} and how != "merge":
            server.split(server.open[0])
        if n in {30, 60} and how != "split" and len(server.open) > 1:
            server.merge(*server.open[-2:])
        server.put(server.open[n % len(server.open)], b"%d" % n)
        await anyio.sleep(0.02)
        return b"%d" % n

    leases = MemoryLeases()
    got = await flow(consumer(stream(), leases), leases, produce)
    assert len(got) == 90  # each once
    assert {shard for shard, lease in leases.rows.items() if lease.finished} == {
        shard.id for shard in server.shards.values() if shard.closed
    }


@pytest.mark.parametrize("how", ["split", "merge", "both"])
async def test_every_record_is_handled_while_an_emulator_reshards_that_ends_no_shard_and_fills_closed_ones(
    moto: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    environment(monkeypatch, moto)
    async with emulated(2) as (client, name):

        async def produce(n: int) -> bytes:
            if n == 20 and how != "merge":
                await split(client, name, FIRST)
            if n == 40 and how != "split":
                await merge(client, name)
            await client.put_record(StreamName=name, Data=b"%d" % n, PartitionKey=str(n))
            return b"%d" % n

        leases = MemoryLeases()
        await flow(consumer(stream(name), leases), leases, produce)


async def flow(
    source: KinesisSource, leases: MemoryLeases, produce: Callable[[int], Awaitable[bytes]]
) -> list[Delivery]:
    """Ninety records are put and handled at the same time; what was handled."""
    put: list[bytes] = []
    got: list[Delivery] = []

    async def put_all() -> None:
        for n in range(90):
            put.append(await produce(n))  # noqa: PERF401 - the consumer looks on

    async with source.open(), anyio.create_task_group() as tasks:
        tasks.start_soon(put_all)
        with anyio.fail_after(60):
            while not (len(put) == 90 and set(put) <= set(bodies(got)) and await quiet(leases)):
                for delivery in await source.receive(10):
                    parents = leases.rows[delivery.id.partition(":")[0]].parents & leases.rows.keys()
                    assert all(leases.rows[parent].finished for parent in parents)
                    got.append(delivery)
                    await source.settle(delivery, Acknowledge())
    for shard in leases.rows:
        sequences = [int(d.id.partition(":")[2]) for d in got if d.id.startswith(shard)]
        assert sequences == sorted(set(sequences))
    return got


async def quiet(leases: MemoryLeases) -> bool:
    """Every shard that has a child is finished."""
    return all(leases.rows[p].finished for lease in leases.rows.values() for p in lease.parents) and any(
        lease.parents for lease in leases.rows.values()
    )


async def split(client: Any, name: str, shard_id: str) -> None:
    listed = (await client.list_shards(StreamName=name))["Shards"]
    [keys] = [shard["HashKeyRange"] for shard in listed if shard["ShardId"] == shard_id]
    middle = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
    await client.split_shard(StreamName=name, ShardToSplit=shard_id, NewStartingHashKey=str(middle))


async def merge(client: Any, name: str) -> None:
    """The last two that are open and adjacent."""
    listed = (await client.list_shards(StreamName=name))["Shards"]
    open_ = [shard for shard in listed if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
    left, right = sorted(open_, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))[-2:]
    await client.merge_shards(
        StreamName=name, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
    )


async def test_latest_and_a_moment_begin_there_in_an_emulator_too(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, moto)
    async with emulated(1) as (client, name):
        await client.put_record(StreamName=name, Data=b"old", PartitionKey="k")
        await anyio.sleep(2.1)  # a moment is told to the second
        moment = datetime.now(UTC).timestamp()
        for start in (Edge.LATEST, moment):
            source = consumer(stream(name), MemoryLeases(), start=start)
            async with source.open():
                await client.put_record(StreamName=name, Data=b"new", PartitionKey="k")
                first = (await received(source, 1))[0]
                assert first.body == b"new"


@pytest.mark.parametrize("body", [b"{}", "Grüße 🙂".encode(), b"\x00\xff", b"\x01", b""])
async def test_whatever_bytes_are_quarantined_come_out_of_the_queue_again(
    moto: str, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    environment(monkeypatch, moto)
    async with SESSION.create_client("sqs") as queues:
        url = (await queues.create_queue(QueueName=f"quarantine-{uuid.uuid4()}"))["QueueUrl"]
        aside = SqsQuarantine(sessions, url, dice=random.Random(1), user_agent="attachd/test")
        async with aside.open():
            await aside.put(body, f"{FIRST}:1", "not_json: " + "x" * 300)
        answer = await queues.receive_message(QueueUrl=url, MessageAttributeNames=["All"])
        (message,) = answer["Messages"]
        attributes = {k: v["StringValue"] for k, v in message["MessageAttributes"].items()}
        assert attributes["attachd.message_id"] == f"{FIRST}:1"
        assert attributes["attachd.reason"].startswith("not_json")
        assert decoded(message["Body"], attributes) == body


def decoded(text: str, attributes: dict[str, str]) -> bytes:
    import base64  # noqa: PLC0415 - here alone

    return base64.b64decode(text) if attributes.get("attachd.encoding") == "base64" else text.encode()


async def test_a_body_that_the_queue_will_never_take_holds_up_no_shard(server: Scripted) -> None:
    server.put(server.grow(), b"too large")
    server.on("AmazonSQS.GetQueueAttributes", saying(b"{}"))
    server.on("AmazonSQS.SendMessage", refusing("ServiceUnavailable", 503), refusing("InvalidParameterValue"))
    aside = SqsQuarantine(sessions, f"{server.url}/1/q", dice=random.Random(1), user_agent="attachd/test")
    source = consumer(stream(), leases := MemoryLeases(), aside=aside)
    async with source.open():
        (delivery,) = await source.receive(10)
        await source.settle(delivery, Quarantine("too_large"))
    assert leases.rows[FIRST].position is not None
    assert len(server.of("AmazonSQS.SendMessage")) == 2


async def test_a_quarantine_that_does_not_exist_is_not_made(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, moto)
    url = f"{moto}/123456789012/never-made"
    with pytest.raises(Misconfigured, match="never-made"):
        async with SqsQuarantine(sessions, url, dice=random.Random(1), user_agent="attachd/test").open():
            pass


async def test_a_reading_can_be_left_at_any_time(server: Scripted) -> None:
    shard = server.grow()
    server.put(shard, b"one")
    made = stream()
    async with made.open(), aclosing(made.read(FIRST, Edge.TRIM_HORIZON)) as batches:
        async for batch in batches:
            assert [record.data for record in batch.records] == [b"one"]
            break
