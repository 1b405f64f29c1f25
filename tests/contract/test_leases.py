"""What every lease table keeps of its port's word, and what the two on disk keep besides."""

import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session

from attachd.errors import Misconfigured, Transient
from attachd.ports import Leases
from attachd.sources.kinesis.dynamodb import DynamoLeases
from attachd.sources.kinesis.sqlite import SqliteLeases
from attachd.streams import SHARD_END, Edge, Lease, Position
from attachd.testing import MemoryLeases

SESSION = get_session()
SHARD = "shardId-000000000007"
# Sequence numbers have up to 56 digits and 128-bit neighbours: more than any float or SQLite integer holds.
FAR = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
FRESH = Lease(SHARD, Edge.TRIM_HORIZON)
FULL = Lease(
    SHARD,
    str(FAR),
    sub=3,
    owner="host:7d1c",
    counter=12,
    switches=2,
    parents=frozenset({"shardId-000000000001", "shardId-000000000002"}),
    children=frozenset({"shardId-000000000009"}),
    hash_range=("0", str(2**128 - 1)),
    since=1_769_846_400.125,
)


def sessions() -> Any:
    return SESSION


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


async def made(name: str) -> DynamoLeases:
    """A table as a KCL application makes its own: by the key alone."""
    async with SESSION.create_client("dynamodb") as client:
        await client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    return DynamoLeases(sessions, name, user_agent="attachd/test")


@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.real_time),
        pytest.param("dynamodb", marks=pytest.mark.real_time),
    ]
)
async def leases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Leases]:
    made_: Leases = MemoryLeases()
    if request.param == "sqlite":
        made_ = SqliteLeases(tmp_path / "leases.sqlite")
    elif request.param == "dynamodb":
        request.getfixturevalue("aws")
        made_ = await made(f"application-{uuid.uuid4()}")
    async with made_.open():
        yield made_


# ── every one ──────────────────────────────────────────────────────────────────────────────────


async def test_a_lease_is_made_once(leases: Leases) -> None:
    assert list(await leases.all()) == []
    assert await leases.put(FRESH, None)
    assert list(await leases.all()) == [FRESH]
    assert not await leases.put(replace(FRESH, checkpoint=Edge.LATEST, counter=5), None)
    assert list(await leases.all()) == [FRESH]


async def test_everything_that_a_lease_holds_comes_back_exactly(leases: Leases) -> None:
    assert await leases.put(FULL, None)
    assert list(await leases.all()) == [FULL]
    bare = Lease(SHARD, Edge.LATEST, counter=13)
    assert await leases.put(bare, FULL)
    (stored,) = await leases.all()
    assert (stored.owner, stored.checkpoint, stored.sub) == (None, "LATEST", 0)


async def test_a_life_of_moves_goes_through_one_after_the_other(leases: Leases) -> None:
    lease: Lease | None = None
    moves = [
        FRESH,
        FRESH.taken("one"),
        (held := FRESH.taken("one").renewed()),
        (stolen := held.finished_to(Position(FAR, 1)).taken("two")),
        stolen.ended(["shardId-000000000009"]).released(),
    ]
    for move in moves:
        assert await leases.put(move, lease)
        lease = move
        assert list(await leases.all()) == [move]
    assert lease is not None
    assert (lease.checkpoint, lease.owner, lease.switches) == (SHARD_END, None, 0)


async def test_a_write_is_refused_when_the_counter_or_the_owner_is_not_what_it_was(leases: Leases) -> None:
    mine = FRESH.taken("me")
    await leases.put(FRESH, None)
    await leases.put(mine, FRESH)
    for was in (FRESH, replace(mine, counter=9), replace(mine, owner="another"), replace(mine, owner=None)):
        assert not await leases.put(replace(was.renewed(), owner="thief"), was)
    assert list(await leases.all()) == [mine]


async def test_of_two_that_take_the_same_lease_one_has_it(leases: Leases) -> None:
    await leases.put(FRESH, None)
    assert await leases.put(FRESH.taken("one"), FRESH)
    assert not await leases.put(FRESH.taken("two"), FRESH)
    (stored,) = await leases.all()
    assert stored.owner == "one"


async def test_a_write_that_has_happened_may_be_repeated(leases: Leases) -> None:
    await leases.put(FRESH, None)
    mine = FRESH.taken("me")
    assert await leases.put(mine, FRESH)
    assert await leases.put(mine, FRESH)
    await leases.put(mine.renewed(), mine)
    assert not await leases.put(mine, FRESH)


async def test_a_lease_that_is_not_there_cannot_be_written(leases: Leases) -> None:
    assert not await leases.put(FRESH.taken("me"), FRESH)
    assert list(await leases.all()) == []


async def test_a_lease_is_dropped_if_nobody_wrote_it_since(leases: Leases) -> None:
    await leases.put(FRESH, None)
    await leases.drop(FRESH.renewed())
    assert list(await leases.all()) == [FRESH]
    await leases.drop(FRESH)
    await leases.drop(FRESH)
    assert list(await leases.all()) == []


async def test_there_may_be_many(leases: Leases) -> None:
    many = {f"shardId-{n:012d}": replace(FULL, shard=f"shardId-{n:012d}") for n in range(300)}
    for lease in many.values():
        await leases.put(lease, None)
    assert {lease.shard: lease for lease in await leases.all()} == many


# ── the file ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.real_time
async def test_a_file_that_was_left_by_the_dead_is_free_at_once_and_keeps_its_checkpoints(
    tmp_path: Path,
) -> None:
    leases = SqliteLeases(tmp_path / "leases.sqlite")
    async with leases.open():
        await leases.put(FULL, None)
    async with leases.open():
        (stored,) = await leases.all()
    assert stored.owner is None
    assert stored.position == FULL.position
    assert stored.counter > FULL.counter


@pytest.mark.real_time
async def test_a_file_is_for_one_process(tmp_path: Path) -> None:
    path = tmp_path / "leases.sqlite"
    async with SqliteLeases(path).open():
        with pytest.raises(Misconfigured, match="dynamodb"):
            async with SqliteLeases(path).open():
                pass


@pytest.mark.real_time
@pytest.mark.parametrize("what", ["a folder", "no database", "another's", "a newer one's"])
async def test_a_file_that_cannot_be_used_is_said_to_be_so(tmp_path: Path, what: str) -> None:
    path = tmp_path / "leases.sqlite"
    match what:
        case "a folder":
            path.mkdir()
        case "no database":
            path.write_bytes(b"no database at all, and long enough to be looked at" * 20)
        case "another's":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE customers (name TEXT)")
        case "a newer one's":
            async with SqliteLeases(path).open():
                pass
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA user_version = 99")
    with pytest.raises(Misconfigured, match=r"leases\.sqlite"):
        async with SqliteLeases(path).open():
            pass


# ── the table ──────────────────────────────────────────────────────────────────────────────────


async def item(table: str) -> dict[str, Any]:
    async with SESSION.create_client("dynamodb") as client:
        answer = await client.get_item(TableName=table, Key={"leaseKey": {"S": SHARD}})
        return dict(answer["Item"])


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_an_item_is_written_in_the_librarys_own_words() -> None:
    name = f"application-{uuid.uuid4()}"
    leases = await made(name)
    async with leases.open():
        await leases.put(FULL, None)
        assert await item(name) == {
            "leaseKey": {"S": SHARD},
            "leaseOwner": {"S": "host:7d1c"},
            "leaseCounter": {"N": "12"},
            "checkpoint": {"S": str(FAR)},
            "checkpointSubSequenceNumber": {"N": "3"},
            "ownerSwitchesSinceCheckpoint": {"N": "2"},
            "parentShardId": {"SS": ["shardId-000000000001", "shardId-000000000002"]},
            "childShardIds": {"SS": ["shardId-000000000009"]},
            "startingHashKey": {"S": "0"},
            "endingHashKey": {"S": str(2**128 - 1)},
            "attachdSince": {"N": "1769846400.125"},
        }
        await leases.put(FULL.released(), FULL)
        assert "leaseOwner" not in await item(name)


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_what_the_library_left_is_taken_over_at_its_checkpoint_and_what_it_keeps_besides_stays() -> (
    None
):
    name = f"application-{uuid.uuid4()}"
    leases = await made(name)
    async with SESSION.create_client("dynamodb") as client, leases.open():
        await client.put_item(
            TableName=name,
            Item={
                "leaseKey": {"S": SHARD},
                "leaseOwner": {"S": "ip-10-0-0-1:5b6f"},
                "leaseCounter": {"N": "4711"},
                "checkpoint": {"S": str(FAR)},
                "checkpointSubSequenceNumber": {"N": "2"},
                "ownerSwitchesSinceCheckpoint": {"N": "0"},
                "parentShardId": {"SS": ["shardId-000000000001"]},
                "throughputKBps": {"N": "12.5"},
                "checkpointOwner": {"S": "ip-10-0-0-2:99"},
                "pendingCheckpoint": {"S": "LATEST"},
            },
        )
        (theirs,) = await leases.all()
        assert theirs.position == Position(FAR, 2)
        ours = theirs.taken("attachd")
        assert await leases.put(ours, theirs)
        stored = await item(name)
        assert stored["leaseOwner"] == {"S": "attachd"}
        assert stored["leaseCounter"] == {"N": "4712"}
        assert stored["ownerSwitchesSinceCheckpoint"] == {"N": "1"}
        assert stored["throughputKBps"] == {"N": "12.5"}
        assert not {"checkpointOwner", "pendingCheckpoint"} & stored.keys()


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_items_that_are_no_leases_of_one_stream_are_left_alone() -> None:
    name = f"application-{uuid.uuid4()}"
    leases = await made(name)
    strange: list[dict[str, Any]] = [
        {"leaseKey": {"S": "111122223333:other:1:shardId-000000000000"}, "checkpoint": {"S": "LATEST"}},
        {"leaseKey": {"S": "leader"}, "entityType": {"S": "LEADER"}},
        {
            "leaseKey": {"S": "worker"},
            "entityType": {"S": "WORKER_METRIC_STATS"},
            "checkpoint": {"S": "LATEST"},
        },
    ]
    async with SESSION.create_client("dynamodb") as client, leases.open():
        for stranger in strange:
            await client.put_item(TableName=name, Item=stranger)
        assert list(await leases.all()) == []
        bare = {"leaseKey": {"S": SHARD}, "checkpoint": {"S": "TRIM_HORIZON"}}
        for item in (bare, bare | {"entityType": {"S": "LEASE"}}):
            await client.put_item(TableName=name, Item=item)
            assert list(await leases.all()) == [FRESH]


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_a_table_that_is_not_there_is_made_by_its_command_alone_and_once() -> None:
    name = f"application-{uuid.uuid4()}"
    leases = DynamoLeases(sessions, name, user_agent="attachd/test")
    with pytest.raises(Misconfigured, match="`attachd leases create` makes it"):
        async with leases.open():
            pass
    assert await leases.create() == [f"table {name} made, on-demand; it takes some seconds to be there"]
    assert await leases.create() == [f"table {name} was there already"]
    async with leases.open():
        assert await leases.put(FRESH, None)


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_a_table_with_another_key_is_refused() -> None:
    name = f"journal-{uuid.uuid4()}"
    async with SESSION.create_client("dynamodb") as client:
        await client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    leases = DynamoLeases(sessions, name, user_agent="attachd/test")
    with pytest.raises(Misconfigured, match="leases need a table of their own"):
        await leases.create()
    with pytest.raises(Misconfigured, match="leases need a table of their own"):
        async with leases.open():
            pass


@pytest.mark.real_time
@pytest.mark.usefixtures("aws")
async def test_a_table_that_does_not_answer_is_a_passing_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    leases = DynamoLeases(sessions, "application", user_agent="attachd/test")
    async with leases.open():
        with pytest.raises(Transient):
            await leases.all()
        with pytest.raises(Transient):
            await leases.put(FRESH, None)
