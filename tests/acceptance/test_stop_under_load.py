"""SIGTERM in the middle of everything: a process, a queue, 200 messages a second."""

import json
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from acceptance.town import INSTANCE_ID, Robot, Town, town
from attachd.demo.processes import Running

ARN = f"arn:aws:connect:eu-central-1:111122223333:instance/{INSTANCE_ID}"
DRAIN_SECONDS = 4
PER_SECOND = 200


@contextmanager
def load(place: Town, event: Callable[..., bytes]) -> Iterator[list[int]]:
    """Twenty batches of ten a second, until the block is left; gives the count of what was sent, so far.

    What a slow machine did not send in time is not made up for: it would be slower still.
    """
    sent, stop = [0], threading.Event()
    client: Any = place.sqs()

    def send() -> None:
        while not stop.is_set():
            kinds = ["INITIATED", "CONNECTED_TO_SYSTEM", "DISCONNECTED"]
            at = time.monotonic() + 10 / PER_SECOND
            bodies = [
                event(str(uuid.uuid4()), kinds[n % 3], at=time.time(), instanceArn=ARN) for n in range(10)
            ]
            entries = [{"Id": str(n), "MessageBody": body.decode()} for n, body in enumerate(bodies)]
            client.send_message_batch(QueueUrl=place.embedded.queue_url, Entries=entries)
            sent[0] += 10
            stop.wait(max(0.0, at - time.monotonic()))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


async def in_hand(place: Town, daemon: Running, count: int) -> None:
    """Wait until so many deliveries are in hand."""
    lines = daemon.log.read_text().splitlines()
    starting = json.loads(next(line for line in lines if "attachd.starting" in line))
    with anyio.fail_after(240):
        while True:
            metrics = await place.get(f"{starting['health']}/metrics")
            (now,) = re.findall(r"^attachd_deliveries_in_hand (\S+)$", metrics, re.MULTILINE)
            if float(now) >= count:
                return
            await anyio.sleep(0.1)


def at(daemon: Running, event: str) -> float:
    """When that was, by its log."""
    line = next(line for line in daemon.log.read_text().splitlines() if f'"{event}"' in line)
    return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()


async def test_a_stop_at_200_messages_a_second_leaves_none_invisible_and_ends_within_the_drain(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    """Chats that Connect does not know, so that calls are made and refused; at one a second most of them wait."""
    async with town(tmp_path, Robot(), level="warning") as place:
        config = place.config.read_text().replace('poll = "1s"', 'poll = "1s"\npolls = 4')
        place.config.write_text(config + "[quota]\nrate = 1\n")
        limits = {"ATTACHD_SERVICE__DRAIN": f"{DRAIN_SECONDS}s", "ATTACHD_LOGGING__LEVEL": "info"}
        with load(place, contact_event) as sent:
            async with place.attachd(**limits) as daemon:
                await in_hand(place, daemon, 120)
                daemon.send(signal.SIGTERM)
                with anyio.fail_after(120):
                    assert await daemon.process.wait() == 0
        took = at(daemon, "attachd.stopped") - at(daemon, "attachd.stopping")
        assert took < DRAIN_SECONDS + 15  # a busy machine's; to see all through would take minutes
        counted = place.sqs().get_queue_attributes(QueueUrl=place.embedded.queue_url, AttributeNames=["All"])[
            "Attributes"
        ]
        assert counted["ApproximateNumberOfMessagesNotVisible"] == "0"
        lines = place.deliveries()
        assert all(line["settled"] for line in lines)
        waited = [line for line in lines if line["outcome"] == "interrupted"]
        assert len(waited) > 50  # there was much in hand, and much of it could not be seen through
        # By message: polls at once may be handed the same one, as SQS's own page says. What one hand has done with and
        # the other has given back is both, and comes again as a duplicate; what must never be is that one is neither.
        done = {line["message"] for line in lines if line["disposition"] == "acknowledge"}
        assert sent[0] <= len(done) + int(counted["ApproximateNumberOfMessages"]) <= sent[0] + 10
