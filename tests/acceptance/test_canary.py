"""A participant token is a password: a marked one must be nowhere but in memory and in the hand-off."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web

from acceptance.town import Robot, Town, town
from attachd.demo.play import truth

MARKER = "canary7Q"


async def misbehave(event: dict[str, Any], number: int) -> web.Response | None:
    """Answer with what one was sent, as a runtime in debug mode does; refuse, be slow, then accept."""
    match number % 5:
        case 1:
            return web.json_response(event, status=500)
        case 2:
            return web.Response(status=503, text=json.dumps(event), headers={"Retry-After": "1"})
        case 3:
            return web.json_response(event, status=422)
        case 4:
            await anyio.sleep(4)
            return web.Response(
                status=302, headers={"Location": f"/?{event['data']['participant']['token']}"}
            )
        case _:
            return None


async def test_a_marked_token_is_in_no_log_metric_journal_or_queue(tmp_path: Path) -> None:
    robot = Robot(before=misbehave)
    async with town(tmp_path, robot, marker=MARKER, level="debug") as place, place.attachd() as daemon:
        for _ in range(8):
            await place.start_chat()
        outcomes = [line["outcome"] for line in await place.settled(16)]
        assert {"attached", "unserved"} <= set(outcomes)
        pages = [await place.get(f"{daemon.url}/{page}") for page in ("metrics", "healthz", "readyz", "")]
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        rows = _rows(tmp_path / "journal.sqlite", place)
        queued = _everything_queued(place)
        told = await truth(place.simulator.url)
    tokens = {offer["data"]["participant"]["token"] for offer in robot.offers}
    assert tokens
    assert all(MARKER in token for token in tokens), (
        "the canary is not in the hand-off: this test sees nothing"
    )
    assert {"attachd.log", "journal.sqlite", "journal.sqlite-wal", "attachd.toml"} <= set(files)
    seen = [name for name, content in files.items() if MARKER.encode() in content]
    assert seen == []
    assert MARKER not in "".join(pages)
    assert MARKER not in rows
    assert MARKER not in queued
    assert MARKER not in json.dumps(told["calls"])


def _rows(path: Path, place: Town) -> str:
    """The journal's rows, read from a copy: the file itself is locked by its owner."""
    copy = place.folder / "copy"
    copy.mkdir()
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        (copy / name).write_bytes((path.parent / name).read_bytes())
    with sqlite3.connect(copy / "journal.sqlite") as db:
        rows = db.execute("SELECT * FROM contacts").fetchall()
    db.close()
    assert len(rows) == 8
    return repr(rows)


def _everything_queued(place: Town) -> str:
    urls = (place.embedded.queue_url, place.embedded.quarantine_url, place.embedded.dead_letter_url)
    return repr(
        [
            place.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
            for url in urls
        ]
    )
