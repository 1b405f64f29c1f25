"""Contact events from a file: every line once, what is released again, and an end that can be waited for."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import anyio
import pytest

from attachd.errors import Misconfigured
from attachd.model import Acknowledge, Quarantine, Release
from attachd.sources.file import FileSource


def lines(text: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(text)


@pytest.mark.real_time
async def test_every_line_that_is_not_empty_is_handed_out_once_with_its_number() -> None:
    source = FileSource("f", lines(b'{"a":1}\n\n  {"b":2}  \nno json'), poll_seconds=0.2)
    async with source.open():
        received = []
        while not source.finished.is_set():
            for delivery in await source.receive(2):
                received.append((delivery.id, delivery.body))
                await source.settle(delivery, Acknowledge())
    assert received == [("1", b'{"a":1}'), ("3", b'{"b":2}'), ("4", b"no json")]


@pytest.mark.real_time
async def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    source = FileSource("f", lines(b'\xef\xbb\xbf{"a":1}\n'), poll_seconds=0.2)
    async with source.open():
        (delivery,) = await source.receive(2)
    assert delivery.body == b'{"a":1}'


@pytest.mark.real_time
async def test_what_is_released_comes_again_and_only_then_is_the_file_finished() -> None:
    source = FileSource("f", lines(b"x\n"), poll_seconds=0.2)
    async with source.open():
        (first,) = await source.receive(10)
        await source.settle(first, Release(0.05))
        assert not source.finished.is_set()
        (second,) = await source.receive(10)
        assert (first.attempt, second.attempt) == (1, 2)
        assert not source.finished.is_set()
        await source.settle(second, Quarantine("not_json"))
        await source.finished.wait()
        assert await source.receive(10) == []


@pytest.mark.real_time
async def test_an_empty_file_is_finished_at_once() -> None:
    source = FileSource("f", lines(b""))
    async with source.open():
        with anyio.fail_after(5):
            await source.finished.wait()


async def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "nothing.ndjson"
    with pytest.raises(Misconfigured, match=r"nothing\.ndjson: No such file"):
        async with FileSource(str(path), lambda: path.open("rb")).open():
            pass


@pytest.mark.real_time
async def test_a_pipe_that_stays_open_does_not_hold_up_the_end() -> None:
    reading, writing = os.pipe()
    source = FileSource("pipe", lambda: os.fdopen(reading, "rb"), poll_seconds=0.2)
    with anyio.fail_after(5):
        async with source.open():
            os.write(writing, b"one\n")
            (delivery,) = await source.receive(10)
            assert delivery.body == b"one"
            os.close(writing)
            await source.settle(delivery, Acknowledge())
            await source.finished.wait()
