"""Archived and dead-lettered events, carried down the line again by hand."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from anyio import to_thread

from acceptance.town import INSTANCE_ID, Robot, Town, town
from attachd.demo import processes

ARN = f"arn:aws:connect:eu-central-1:111122223333:instance/{INSTANCE_ID}"


async def replay(place: Town, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    command = processes.attachd("replay", *arguments, "--config", str(place.config))
    done = await to_thread.run_sync(
        lambda: subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=dict(os.environ) | place.environment,
            timeout=240,
            check=False,
        )
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_an_old_event_gets_its_chat_a_bot_once_if_its_age_is_to_be_overlooked(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    robot = Robot()
    async with town(tmp_path, robot) as place:
        chat = await place.start_chat()
        events = [
            contact_event(chat, at=time.time() - 86_400, instanceArn=ARN),
            contact_event(chat, "CONNECTED_TO_SYSTEM", at=time.time() - 86_400, instanceArn=ARN),
            b"{ damaged",
        ]
        archive = tmp_path / "archive.ndjson"
        archive.write_bytes(b"\n".join(events))

        status, said, logged = await replay(place, str(archive))
        assert (status, said.strip()) == (0, f"{archive}: 2 expired, 1 not_json"), logged
        assert robot.offers == []

        status, said, logged = await replay(place, "-", "--any-age", stdin=archive.read_bytes())
        assert (status, said.strip()) == (0, "-: 1 attached, 1 duplicate, 1 not_json"), logged
        assert (await place.bots(chat))["spoke"] == 1

        _, said, _ = await replay(place, str(archive), "--any-age")
        assert said.strip() == f"{archive}: 2 duplicate, 1 not_json"
        assert len(robot.offers) == 1
