"""Several sources in one process: each on its own, and a sweep for what none of them was told."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import boto3

from acceptance.town import INSTANCE_ID, Robot, Town, town
from attachd.demo import aws
from attachd.demo.processes import Running

STREAM = "contact-events-stream"


def with_sources(place: Town, tables: str) -> None:
    """Put these tables in place of the town's one source."""
    text = place.config.read_text()
    place.config.write_text(tables + re.sub(r"\[source\].*?(?=\[journal\])", "", text, flags=re.DOTALL))


def client(place: Town, service: str) -> Any:
    return boto3.client(
        service,
        region_name=aws.REGION,
        endpoint_url=place.embedded.url,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )


async def ready(daemon: Running, *, words: str = "") -> str:
    """Wait until ``/readyz`` says that, or 200 without words; what it said."""
    lines = daemon.log.read_text().splitlines()
    health = next(json.loads(line)["health"] for line in lines if "attachd.starting" in line)
    with anyio.fail_after(120):
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.get(f"{health}/readyz") as answer:
                    said = await answer.text()
                    if words in said if words else answer.status == 200:
                        return said
                await anyio.sleep(0.1)


async def test_of_two_sources_one_goes_and_comes_back_and_the_other_never_stops(tmp_path: Path) -> None:
    async with town(tmp_path, Robot()) as place:
        kinesis = client(place, "kinesis")
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        with_sources(
            place,
            f"""
            [[sources]]
            queue_url = "{place.embedded.queue_url}"
            poll = "1s"
            [[sources]]
            type = "kinesis"
            name = "stream"
            stream = "{STREAM}"
            leases_path = "{tmp_path}/leases.sqlite"
            poll = "1s"
            """,
        )
        async with place.attachd() as daemon:
            await ready(daemon)
            kinesis.delete_stream(StreamName=STREAM)
            said = await ready(daemon, words="source stream: ")
            assert "contact-events:" not in said
            await place.spoke(await place.start_chat())
            kinesis.create_stream(StreamName=STREAM, ShardCount=1)
            await ready(daemon)
        assert {line["source"] for line in place.deliveries()} == {"contact-events"}


async def test_a_chat_whose_events_all_go_astray_has_its_bot_by_the_sweep(tmp_path: Path) -> None:
    async with town(tmp_path, Robot()) as place:
        astray = client(place, "sqs").create_queue(QueueName="nobody-writes-here")["QueueUrl"]
        with_sources(
            place,
            f"""
            [[sources]]
            queue_url = "{astray}"
            poll = "1s"
            [[sources]]
            type = "sweep"
            instance = "arn:aws:connect:{aws.REGION}:111122223333:instance/{INSTANCE_ID}"
            every = "1s"
            min_age = "1s"
            """,
        )
        async with place.attachd() as daemon:
            await ready(daemon)
            await place.spoke(contact := await place.start_chat())
            (line,) = await place.settled(1)
            await anyio.sleep(3)  # some further sweeps
        assert (line["source"], line["contact"], line["outcome"]) == ("sweep", contact, "attached")
        assert len(place.deliveries()) == 1
        assert daemon.log.read_text().count("sweep.found") == 1
