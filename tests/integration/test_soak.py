"""The soak of ``bench/soak.py``, shorter: events go through each kind of source, and nothing of them stays."""

import logging
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

BENCH = Path(__file__).parents[2] / "bench" / "soak.py"
EVENTS = 20_000


@pytest.fixture(scope="module")
def soak() -> dict[str, Any]:
    return runpy.run_path(str(BENCH))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("name", ["sqs", "kinesis", "file", "sweep"])
async def test_events_without_end_leave_memory_as_it_was(soak: dict[str, Any], name: str) -> None:
    went = await soak["soaked"](name, EVENTS)
    assert len(went.held) == 10
    assert went.unanswered < EVENTS / 100  # of a machine that stood still for a while
    assert went.growth < soak["FLAT_BYTES"], went.held
    assert set(soak["SOURCES"]) == {"sqs", "kinesis", "file", "sweep"}
