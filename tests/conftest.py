"""What every test may use: builders of events, and virtual time for the unit and contract tests."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
EPOCH = 1_800_000_000.0

_VIRTUAL = {"unit", "contract"}


def pytest_configure() -> None:
    """No loop before the first test: looptime asks for the current one, and asyncio would make one and leak it."""
    asyncio.set_event_loop(None)
    # A law is no stopwatch: a busy machine must not fail one.
    hypothesis.settings.register_profile("house", deadline=None)
    hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit and contract tests run in virtual time, unless they say ``real_time``."""
    here = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(here).parts[0]
        if room in _VIRTUAL and item.get_closest_marker("real_time") is None:
            item.add_marker(pytest.mark.looptime(start=0))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Embedded AWS, one for each module that asks; its URL."""
    from embedded import server  # noqa: PLC0415 - takes a second, and most tests do without

    with server() as url:
        yield url


@pytest.fixture
def contact_event() -> Callable[..., bytes]:
    """Builds an EventBridge envelope of a contact event; synthetic, from the documented field table."""

    def build(
        contact_id: str = "c-1", event_type: str = "INITIATED", *, at: float = EPOCH, **detail: Any
    ) -> bytes:
        moment = _iso(at)
        return json.dumps(
            {
                "version": "0",
                "id": f"event-{contact_id}-{event_type}",
                "detail-type": "Amazon Connect Contact Event",
                "source": "aws.connect",
                "account": "111122223333",
                "time": moment.replace(".000Z", "Z"),
                "region": "eu-central-1",
                "resources": [f"{INSTANCE}/contact/{contact_id}", INSTANCE],
                "detail": {
                    "eventType": event_type,
                    "contactId": contact_id,
                    "channel": "CHAT",
                    "instanceArn": INSTANCE,
                    "initiationMethod": "API",
                    "initiationTimestamp": moment,
                    "connectedToSystemTimestamp": "1970-01-01T00:00:00.001Z",
                    "segmentAttributes": {"connect:Subtype": {"valueString": "connect:Chat"}},
                    "tags": {"aws:connect:instanceId": INSTANCE.rpartition("/")[2]},
                }
                | detail,
            }
        ).encode()

    return build


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
