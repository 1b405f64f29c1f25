"""What befalls contact events on their way: the laws of their fates, and the outlet which carries them out."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from attachd.simulator.delivery import Delivery, EventBus, KinesisStream, Queue, parse_target
from attachd.simulator.outlets.outlet import Outlet
from attachd.simulator.outlets.publish import Publisher
from attachd.simulator.state.mishaps import delays_of, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = 1_800_000_000.0

fractions = st.floats(0, 1)
ranges = st.tuples(st.floats(0, 100), st.floats(0, 100)).map(lambda pair: (min(pair), max(pair)))
deliveries = st.builds(
    Delivery,
    lost=fractions,
    duplicated=fractions,
    disordered=fractions,
    late=fractions,
    duplicate_seconds=ranges,
    disorder_seconds=ranges,
    late_seconds=ranges,
)
events = st.tuples(st.integers(), st.text(), st.integers(0, 1000))


# ── fates ──────────────────────────────────────────────────────────────────────────────────────


@given(deliveries, events)
def test_a_fate_is_a_function_of_seed_contact_and_ordinal(
    delivery: Delivery, event: tuple[int, str, int]
) -> None:
    assert delays_of(delivery, *event) == delays_of(delivery, *event)


@given(deliveries, events)
def test_no_copy_comes_before_its_event_or_later_than_the_dials_allow(
    delivery: Delivery, event: tuple[int, str, int]
) -> None:
    held = delivery.disorder_seconds[1] + delivery.late_seconds[1]
    for delay, most in zip(
        delays_of(delivery, *event), (held, held + delivery.duplicate_seconds[1]), strict=False
    ):
        assert 0 <= delay <= most


@given(deliveries.filter(lambda each: each.lost == 0), events)
def test_without_loss_everything_arrives(delivery: Delivery, event: tuple[int, str, int]) -> None:
    assert 1 <= len(delays_of(delivery, *event)) <= 2


@given(events)
def test_by_default_everything_arrives_once_and_at_once(event: tuple[int, str, int]) -> None:
    assert delays_of(Delivery(), *event) == (0.0,)


@given(deliveries, fractions, events)
def test_turning_the_loss_leaves_the_fate_of_what_arrives_alone(
    delivery: Delivery, lost: float, event: tuple[int, str, int]
) -> None:
    fates = {delays_of(each, *event) for each in (delivery, replace(delivery, lost=lost)) if not each.perfect}
    assert len(fates - {()}) <= 1


@pytest.mark.parametrize("dial", ["lost", "duplicated", "disordered", "late"])
def test_each_fraction_is_met_in_the_long_run(dial: str) -> None:
    turned: dict[str, Any] = {dial: 0.25}
    delivery = Delivery(**turned)
    fates = [delays_of(delivery, 7, f"contact {number}", 0) for number in range(4000)]
    assert sum(fate != (0.0,) for fate in fates) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"lost": 1.1}, {"late": -0.1}, {"late_seconds": (5, 1)}, {"late_seconds": (0, float("inf"))}],
)
def test_a_delivery_that_cannot_be_dealt_is_refused(wrong: dict[str, Any]) -> None:
    [dial] = wrong
    with pytest.raises(ValueError, match=dial):
        Delivery(**wrong)


def test_attempts_back_off_and_end_at_eventbridges_bound() -> None:
    waits = [retry_after(attempts) for attempts in range(1, 186)]
    assert waits[-1] is None
    known = [wait for wait in waits if wait is not None]
    assert len(known) == 184
    assert known == sorted(known)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("eventbridge:bus", EventBus("bus")),
        ("kinesis:stream", KinesisStream("stream")),
        ("sqs:https://q", Queue("https://q")),
    ],
)
def test_a_target_is_read_from_its_kind_and_name(text: str, target: object) -> None:
    assert parse_target(text) == target


def test_a_partition_key_which_is_no_ones_is_refused() -> None:
    nobodys: dict[str, Any] = {"partition_key": "subtype"}
    with pytest.raises(ValueError, match="partition_key"):
        KinesisStream("stream", **nobodys)


# ── the outlet ─────────────────────────────────────────────────────────────────────────────────


class Bus:
    """Takes events, unless told to refuse."""

    def __init__(self) -> None:
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _event: False
        self.got: list[tuple[float, str, int]] = []
        self.calls = 0

    async def send(self, batch: list[dict[str, Any]]) -> set[int]:
        self.calls += 1
        refused = {place for place, event in enumerate(batch) if self.refuses(event)}
        for place, event in enumerate(batch):
            if place not in refused:
                self.got.append((anyio.current_time(), event["detail"]["contactId"], event["ordinal"]))
        return refused


def event(contact_id: str, ordinal: int) -> dict[str, Any]:
    return {"id": f"{contact_id}-{ordinal}", "detail": {"contactId": contact_id}, "ordinal": ordinal}


async def carry(bus: Bus, arrivals: list[dict[str, Any]], seconds: float = 1000, **dials: Any) -> Publisher:
    """Let a publisher run for so long, then close it."""
    outlet = Outlet(bus.send, 10, now=lambda: EPOCH + anyio.current_time(), retry_after=retry_after)
    publisher = Publisher(outlet, Delivery(**dials), seed=7)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outlet.run)
        for each in arrivals:
            publisher.offer(each)
        await anyio.sleep(seconds)
        outlet.close()
    return publisher


def chats(*lengths: int) -> list[dict[str, Any]]:
    return [
        event(f"c{number}", ordinal) for number, length in enumerate(lengths) for ordinal in range(length)
    ]


async def test_without_mishaps_events_arrive_in_order_in_full_batches() -> None:
    bus = Bus()
    publisher = await carry(bus, chats(25))
    assert [ordinal for _, _, ordinal in bus.got] == list(range(25))
    assert bus.calls == 3
    assert publisher.counts()["published"] == 25


async def test_however_contacts_interleave_each_events_fate_is_the_same() -> None:
    dials = {"lost": 0.3, "duplicated": 0.3, "disordered": 0.5, "late": 0.2}
    arrivals = chats(20, 20, 20)
    one, other = Bus(), Bus()
    await carry(one, arrivals, **dials)
    await carry(other, sorted(arrivals, key=lambda each: each["ordinal"]), **dials)
    began = 1000.0  # the second run began when the first had ended
    told = sorted((contact, ordinal, round(at, 6)) for at, contact, ordinal in one.got)
    assert told == sorted((contact, ordinal, round(at - began, 6)) for at, contact, ordinal in other.got)


async def test_a_late_event_holds_up_no_other_and_comes_when_it_is_due() -> None:
    bus = Bus()
    publisher = await carry(bus, chats(200), late=0.1, late_seconds=(50, 60))
    on_time = [at for at, _, _ in bus.got if at == 0]
    late = [at for at, _, _ in bus.got if at > 0]
    assert len(on_time) + len(late) == 200
    assert late
    assert all(50 <= at <= 60 for at in late)
    delays = sorted(delay for sent in publisher.sent for delay in sent.delays if delay)
    assert sorted(late) == pytest.approx(delays)


async def test_the_truth_of_each_event_is_its_fate_and_its_times() -> None:
    publisher = await carry(Bus(), chats(100), lost=0.3, duplicated=0.3)
    for sent in publisher.sent:
        assert [at - EPOCH for at in sent.delivered_at] == pytest.approx(sent.delays, abs=1e-5)
    counts = publisher.counts()
    copies = sum(len(sent.delays) for sent in publisher.sent)
    assert counts["lost"] == sum(not sent.delays for sent in publisher.sent) > 0
    assert counts["published"] == copies > 100 - counts["lost"]


async def test_only_what_was_refused_is_tried_again_until_it_is_taken() -> None:
    bus = Bus()
    bus.refuses = lambda each: each["ordinal"] == 3 and anyio.current_time() < 5
    publisher = await carry(bus, chats(10))
    assert sorted(ordinal for _, _, ordinal in bus.got) == list(range(10))
    at, _, ordinal = bus.got[-1]
    assert ordinal == 3
    assert at == pytest.approx(7.0)  # tried at 0, 1, 3 and 7: it backs off
    assert publisher.counts() | {"retried": 3, "published": 10, "failed": 0} == publisher.counts()


async def test_a_target_that_cannot_be_reached_is_tried_for_a_day_and_no_longer() -> None:
    bus = Bus()

    async def away(_batch: list[dict[str, Any]]) -> set[int]:
        bus.calls += 1
        raise EndpointConnectionError(endpoint_url="nowhere")

    outlet = Outlet(away, 10, now=lambda: EPOCH, retry_after=retry_after)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outlet.run)
        outlet.offer(event("c", 0))
        await anyio.sleep(2 * 86400)
        assert outlet.counts()["failed"] == 1
        outlet.close()
    assert bus.calls == 185


async def test_at_the_end_what_waits_for_another_attempt_gets_its_last_and_what_is_not_due_stays() -> None:
    bus = Bus()
    bus.refuses = lambda each: (
        each["ordinal"] < 2 and not (each["ordinal"] == 1 and anyio.current_time() >= 1.5)
    )
    publisher = await carry(bus, chats(3), seconds=1.5)
    assert sorted(ordinal for _, _, ordinal in bus.got) == [1, 2]
    assert publisher.counts()["failed"] == 1
    late = await carry(Bus(), chats(3), seconds=1, late=1.0)
    assert late.counts()["pending"] == 3


async def test_a_delivery_cut_short_counts_as_failed() -> None:
    async def hangs(_batch: list[dict[str, Any]]) -> set[int]:
        await anyio.sleep_forever()
        raise AssertionError

    outlet = Outlet(hangs, 10, now=lambda: EPOCH, retry_after=retry_after)
    with anyio.move_on_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outlet.run)
            outlet.offer(event("c", 0))
            await anyio.sleep(1)
            outlet.close()
    assert outlet.counts()["failed"] == 1
    assert outlet.counts()["pending"] == 0
