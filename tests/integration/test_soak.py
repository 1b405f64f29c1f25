"""The soak of ``bench/soak.py``, shorter: events go through each kind of source, and nothing of them stays."""

import gc
import logging
import runpy
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

BENCH = Path(__file__).parents[2] / "bench" / "soak.py"
EVENTS = 10_000
BYTES_AN_EVENT = 20  # an id in a list is more


def holds() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture(scope="module")
def soak() -> dict[str, Any]:
    return runpy.run_path(str(BENCH))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("name", "of_its_window"),  # a sweep remembers what it found for as long as it may find it again
    [("sqs", 0), ("kinesis", 0), ("file", 0), ("sweep", 150 * EVENTS)],
    ids=["sqs", "kinesis", "file", "sweep"],
)
async def test_events_without_end_leave_memory_as_it_was(
    soak: dict[str, Any], name: str, of_its_window: int
) -> None:
    """By Python's own count: the system's is too coarse for so few to show that something of each stays."""
    tracemalloc.start()
    try:
        went = await soak["soaked"](name, EVENTS, holds)
    finally:
        tracemalloc.stop()
    assert len(went.held) == 10
    assert went.unanswered < EVENTS / 100  # of a machine that stood still for a while
    assert went.growth < of_its_window + BYTES_AN_EVENT * EVENTS, [round(b / 1e6, 2) for b in went.held]
    assert set(soak["SOURCES"]) == {"sqs", "kinesis", "file", "sweep"}
