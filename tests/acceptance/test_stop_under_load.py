"""SIGTERM in the middle of everything: a process, a queue, 200 messages a second."""

import json
import re
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from acceptance.fast_queue import FastQueue, fast_queue
from acceptance.town import INSTANCE_ID, Robot, Town, town
from attachd.demo.processes import Running

ARN = f"arn:aws:connect:eu-central-1:111122223333:instance/{INSTANCE_ID}"
DRAIN_SECONDS = 30
PER_SECOND = 200


async def load(queue: FastQueue, event: Callable[..., bytes], sent: list[float]) -> None:
    """Ten messages, twenty times a second, two thirds of which open a chat."""
    kinds = ["INITIATED", "CONNECTED_TO_SYSTEM", "DISCONNECTED"]
    due = anyio.current_time()
    while True:
        for n in range(10):
            queue.add(event(str(uuid.uuid4()), kinds[n % 3], at=_wall(), instanceArn=ARN))
            sent.append(anyio.current_time())
        due += 10 / PER_SECOND
        await anyio.sleep_until(due)


def _wall() -> float:
    return datetime.now().astimezone().timestamp()


async def in_hand(place: Town, daemon: Running) -> float:
    """How many deliveries are in hand."""
    lines = daemon.log.read_text().splitlines()
    starting = json.loads(next(line for line in lines if "attachd.starting" in line))
    metrics = await place.get(f"{starting['health']}/metrics")
    (now,) = re.findall(r"^attachd_deliveries_in_hand (\S+)$", metrics, re.MULTILINE)
    return float(now)


@pytest.mark.parametrize("visibility", ["10s", "30s"])
async def test_a_stop_at_200_messages_a_second_leaves_none_invisible_and_ends_within_the_drain(
    tmp_path: Path, contact_event: Callable[..., bytes], visibility: str
) -> None:
    """Chats that Connect does not know, so that calls are made and refused; at one a second most of them wait."""
    sent: list[float] = []
    async with (
        fast_queue() as queue,
        town(tmp_path, Robot(), level="warning", visibility=visibility) as place,
    ):
        config = re.sub(r"queue_url = .*", f'queue_url = "{queue.url}"', place.config.read_text(), count=1)
        config = re.sub(r"quarantine_url = .*", "polls = 4", config)
        place.config.write_text(config + "[quota]\nrate = 1\n")
        overrides = {
            "AWS_ENDPOINT_URL_SQS": queue.endpoint,
            "ATTACHD_SERVICE__DRAIN": f"{DRAIN_SECONDS}s",
            "ATTACHD_LOGGING__LEVEL": "info",
        }
        async with anyio.create_task_group() as loading, place.attachd(**overrides) as daemon:
            loading.start_soon(load, queue, contact_event, sent)
            with anyio.fail_after(120):
                while (held := await in_hand(place, daemon)) < 2000:
                    await anyio.sleep(0.2)
            rate = len(sent) / (sent[-1] - sent[0])
            daemon.send(signal.SIGTERM)
            asked = anyio.current_time()
            with anyio.fail_after(120):
                assert await daemon.process.wait() == 0
            took = anyio.current_time() - asked
            loading.cancel_scope.cancel()
        sys.stdout.write(f"{rate:.0f} messages a second, {held:.0f} in hand: ended after {took:.1f} s\n")
        assert queue.invisible == 0
        assert rate > 0.9 * PER_SECOND
        assert took < DRAIN_SECONDS
        lines = place.deliveries()
        assert all(line["settled"] for line in lines)
        # There was much in hand, of which Connect was asked for little.
        assert sum(line["outcome"] == "interrupted" for line in lines) > 0.9 * held
        done = {line["message"] for line in lines if line["disposition"] == "acknowledge"}
        assert len(done) + len(queue) == len(sent)
        assert "claim.not_released" not in daemon.log.read_text()
