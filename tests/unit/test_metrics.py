"""What is counted, by which names; and that nothing is received and forgotten."""

import asyncio
import random
from collections.abc import Callable

import anyio
from prometheus_client.parser import text_string_to_metric_families

from attachd.errors import Permanent, Transient
from attachd.metrics import Metrics
from attachd.model import Outcome
from attachd.progress import Progress
from attachd.quota import Rate
from attachd.service import Limits, Service
from attachd.testing import Line, MemoryConnect, MemoryRuntime, MemorySource

EPOCH = 1_800_000_000.0
NAMES = {
    "attachd_deliveries_received_total": {"source"},
    "attachd_outcomes_total": {"source", "outcome"},
    "attachd_deliveries_in_hand": set(),
    "attachd_settle_failures_total": {"source"},
    "attachd_receive_errors_total": {"source", "reason"},
    "attachd_waiting": {"account", "region"},
    "attachd_drain_eta_seconds": {"account", "region"},
    "attachd_quota_granted_rate": {"account", "region"},
    "attachd_circuit_open": {"kind", "name"},
    "attachd_open_chats": {"bot"},
    "attachd_attach_tries_total": {"result"},
    "attachd_offers_total": {"runtime", "result"},
    "attachd_station_seconds_count": {"station"},
    "attachd_attach_age_seconds_count": set(),
    "attachd_connect_remaining_seconds_count": set(),
}


def _samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Name → label values, in the order of the labels' names → value, as a scraper reads them."""
    read: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            read.setdefault(sample.name, {})[labels] = sample.value
    return read


def test_the_names_and_labels_are_these() -> None:
    metrics = Metrics()
    metrics.received.labels("s").inc()
    metrics.outcomes.labels("s", "attached").inc()
    metrics.unsettled.labels("s").inc()
    metrics.receive_errors.labels("s", "timeout").inc()
    metrics.attach_tries.labels("ok").inc()
    metrics.offers.labels("r", "ok").inc()
    for gauge in (metrics.waiting, metrics.drain_eta, metrics.granted_rate):
        gauge.labels("111122223333", "eu-central-1").set(1)
    metrics.circuits.labels("runtime", "ava").set(0)
    metrics.open_chats.labels("b").set(1)
    metrics.stations.labels("admit").observe(0.1)
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels[sample.name] = set(sample.labels)
    assert {name: labels.get(name) for name in NAMES} == NAMES


def test_two_metrics_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.received.labels("s").inc()
    assert not _samples(other).get("attachd_deliveries_received_total")


async def test_the_sum_of_outcomes_is_the_deliveries_received(contact_event: Callable[..., bytes]) -> None:
    source, connect, runtime = MemorySource(), MemoryConnect(), MemoryRuntime()

    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    line = Line(now, attacher=connect, runtimes={"ava": runtime}, rate=Rate(4, 8))
    metrics = line.metrics
    service = Service(
        sources=[source],
        pipeline=line.pipeline,
        background=line.background,
        metrics=metrics,
        progress=Progress(asyncio.get_running_loop().time),
        limits=Limits(),
        dice=random.Random(1),
    )
    connect.faults.extend(
        [Transient("throttled"), Permanent(Outcome.REFUSED), RuntimeError("a defect of ours")]
    )
    source.faults.append(Transient("timeout"))
    bodies = [contact_event(f"c-{n}") for n in range(20)]
    bodies += [contact_event("c-1", "CONNECTED_TO_SYSTEM"), contact_event("c-2", "DISCONNECTED")]
    bodies += [b"no json", b"{}", contact_event(""), contact_event("x", "TELEPORTED"), b" " * 1_048_577]
    bodies += [contact_event("v", initiationMethod="TRANSFER"), contact_event("old", at=EPOCH - 3600)]
    for body in bodies:
        source.add(body)

    async with anyio.create_task_group() as group:
        group.start_soon(service.run)
        await anyio.sleep(40)
        service.stop()

    samples = _samples(metrics)
    received = samples["attachd_deliveries_received_total"]
    outcomes = samples["attachd_outcomes_total"]
    assert sum(outcomes.values()) == sum(received.values()) == len(source.settled)
    assert sum(received.values()) > len(bodies)  # the defect came twice
    assert {outcome for outcome, _ in outcomes} <= set(Outcome)
    for outcome in ("attached", "refused", "failed", "not_json", "too_large", "expired", "no_bot", "noted"):
        assert outcomes[outcome, "memory"] >= 1, outcome
    assert samples["attachd_deliveries_in_hand"][()] == 0
    assert len(line.room) == 0
    assert samples["attachd_receive_errors_total"]["timeout", "memory"] == 1
    attached = outcomes["attached", "memory"]
    assert samples["attachd_attach_tries_total"][("ok",)] == attached
    assert samples["attachd_offers_total"]["ok", "ava"] == attached
    assert samples["attachd_attach_age_seconds_count"][()] == attached
    assert samples["attachd_connect_remaining_seconds_count"][()] == attached
