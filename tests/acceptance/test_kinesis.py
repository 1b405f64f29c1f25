"""The whole line over a Kinesis stream: a real process, killed and started again, an embedded AWS."""

import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from anyio.to_thread import run_sync

from acceptance.town import Robot, Town, town
from attachd.demo import aws, processes

#: To the second it is held in virtual time, by ``tests/unit/test_kinesis_fleet.py``.
SOON_SECONDS = 20


def client(place: Town, service: str) -> Any:
    return boto3.client(
        service,
        region_name=aws.REGION,
        endpoint_url=place.embedded.url,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )


@asynccontextmanager
async def streaming(place: Town, leases: str) -> AsyncIterator[None]:
    """The town's events go through a stream of two shards, and attachd reads that."""
    kinesis, sqs = client(place, "kinesis"), client(place, "sqs")
    kinesis.create_stream(StreamName="events", ShardCount=2)
    source = f"""
            [source]
            type = "kinesis"
            stream = "events"
            application = "acceptance"
            leases = "{leases}"
            leases_path = "{place.folder}/leases.sqlite"
            quarantine_url = "{place.embedded.quarantine_url}"
            poll = "1s"
            pace = "250ms"
            lease = "5s"
            """
    if leases == "dynamodb":
        source += '[journal]\ntype = "dynamodb"\n'
        until = r"(?=\[\[bots\]\])"
    else:
        until = r"(?=\[journal\])"
    text = place.config.read_text()
    place.config.write_text(re.sub(rf"\[source\].*?{until}", lambda _: source, text, flags=re.DOTALL))

    if leases == "dynamodb":
        for what in ("leases", "journal"):
            made = await anyio.run_process(
                processes.attachd(what, "create", "--config", str(place.config)),
                env=os.environ
                | aws.credentials()
                | {"AWS_ENDPOINT_URL_DYNAMODB": place.embedded.url, "BOT_KEY": "x"},
            )
            assert b"made, on-demand" in made.stdout

    def carry() -> None:
        answer = sqs.receive_message(QueueUrl=place.embedded.queue_url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            kinesis.put_record(
                StreamName="events", Data=message["Body"].encode(), PartitionKey=message["MessageId"]
            )
            sqs.delete_message(QueueUrl=place.embedded.queue_url, ReceiptHandle=message["ReceiptHandle"])

    async def carry_for_ever() -> None:
        while True:
            await run_sync(carry)
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(carry_for_ever)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("leases", ["sqlite", "dynamodb"])
async def test_a_chat_whose_event_is_in_a_stream_has_its_bot_once_whatever_is_killed(
    tmp_path: Path, leases: str
) -> None:
    robot = Robot()
    async with town(tmp_path, robot) as place, streaming(place, leases):
        async with place.attachd() as first:
            one = await place.start_chat()
            await place.spoke(one)
            place.kill(first)
            await first.process.wait()
        two = await place.start_chat()  # while nobody reads
        client(place, "kinesis").put_record(StreamName="events", Data=b"\x00 no JSON", PartitionKey="k")
        async with place.attachd() as second:
            await place.spoke(two)
            with anyio.fail_after(120):
                while taken(place) < 4:
                    await anyio.sleep(0.1)
                await anyio.sleep(2)  # both shards are read in that time
                while "not_json" not in outcomes(place) or unfinished(place):
                    await anyio.sleep(0.1)
            second.process.terminate()
            assert await second.process.wait() == 0
        seen = len(place.deliveries())
        async with place.attachd():
            await anyio.sleep(4)  # all was finished, and the leases were handed over: nothing comes again
            assert len(place.deliveries()) == seen
        assert await place.bots(one) == {"existed": 1, "connected": 1, "spoke": 1}
        assert await place.bots(two) == {"existed": 1, "connected": 1, "spoke": 1}
        kept = client(place, "sqs").receive_message(
            QueueUrl=place.embedded.quarantine_url, MessageAttributeNames=["All"]
        )
        assert [m["MessageAttributes"]["attachd.encoding"]["StringValue"] for m in kept["Messages"]] == [
            "base64"
        ]


async def test_two_replicas_share_the_shards_and_what_one_was_killed_over_the_other_has_soon(
    tmp_path: Path,
) -> None:
    robot = Robot()
    async with town(tmp_path, robot) as place, streaming(place, "dynamodb"):
        async with place.attachd("one") as one, place.attachd("two"):
            with anyio.fail_after(60):
                while len(owners(place)) < 2:
                    await anyio.sleep(0.2)
            first = [await place.start_chat() for _ in range(6)]
            for contact_id in first:
                await place.spoke(contact_id)
            with anyio.fail_after(60):
                while len(owners(place)) < 2:
                    await anyio.sleep(0.2)
            place.kill(one)
            await one.process.wait()
            killed = time.time()
            second = [await place.start_chat() for _ in range(6)]
            with anyio.fail_after(60):
                while not (taken_over := [at for at in takings(place, "two") if at > killed]):
                    await anyio.sleep(0.1)
                while len(owners(place)) > 1:
                    await anyio.sleep(0.1)
            # By the survivor's log, whatever we ourselves were slow with: a lease of 5 s, and a busy machine's time.
            assert min(taken_over) - killed < SOON_SECONDS
            for contact_id in second:
                await place.spoke(contact_id)
        for contact_id in [*first, *second]:
            bots = await place.bots(contact_id)
            assert (bots["existed"], bots["spoke"]) == (1, 1)


async def test_a_rehearsal_reads_the_stream_beside_a_live_process_and_takes_nothing_from_it(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, Robot()) as place, streaming(place, "dynamodb"):
        async with place.attachd("live"):
            await place.spoke(await place.start_chat())
            command = processes.attachd("run", "--shadow", "--config", str(place.config))
            async with processes.running(
                "shadow", command, place.environment, place.folder, says="attachd.starting"
            ) as shadow:
                await place.spoke(await place.start_chat())
                with anyio.fail_after(60):
                    while shadow.log.read_text().count('"outcome": "attached"') < 2:
                        await anyio.sleep(0.1)
                assert len(owners(place)) == 1
        assert "lease_lost" not in (place.folder / "live.log").read_text()


def outcomes(place: Town) -> set[str]:
    return {line["outcome"] for line in place.deliveries()}


def unfinished(place: Town) -> set[str]:
    """Records that were released when they came last."""
    last = {line["message"]: line["disposition"] for line in place.deliveries()}
    return {message for message, disposition in last.items() if disposition == "release"}


def taken(place: Town) -> int:
    """How often a shard was taken: twice by each life that has both."""
    return (place.folder / "attachd.log").read_text().count('"kinesis.shard_taken"')


def takings(place: Town, name: str) -> list[float]:
    """When that process took a shard, by its log."""
    lines = (place.folder / f"{name}.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if '"kinesis.shard_taken"' in line]
    return [datetime.fromisoformat(record["timestamp"]).timestamp() for record in records]


def owners(place: Town) -> set[str]:
    items = client(place, "dynamodb").scan(TableName="acceptance")["Items"]
    return {item["leaseOwner"]["S"] for item in items if "leaseOwner" in item}
