"""What is counted and measured, in one table. The same words as in the log and in the code.

``attachd_outcomes_total`` summed over its labels equals ``attachd_deliveries_received_total`` once nothing is
in hand: nothing is received and forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from attachd.errors import Permanent, Transient

_LATENCY: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0)
_REMAINING: Final = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 13.0, 14.0, 14.5, 15.0)


class Metrics:
    """Every metric of attachd, in a registry of its own."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        ProcessCollector(registry=r)
        self.received = Counter("attachd_deliveries_received", "Deliveries received", ["source"], registry=r)
        self.outcomes = Counter(
            "attachd_outcomes", "Deliveries by how they ended", ["source", "outcome"], registry=r
        )
        self.in_hand = Gauge("attachd_deliveries_in_hand", "Deliveries received and not settled", registry=r)
        self.unsettled = Counter(
            "attachd_settle_failures",
            "Deliveries that the source did not let us settle",
            ["source"],
            registry=r,
        )
        self.entry_failures = Counter(
            "attachd_batch_entry_failures",
            "Entries that SQS refused of a batch; each is tried again",
            ["source", "call", "reason"],
            registry=r,
        )
        self.receive_errors = Counter(
            "attachd_receive_errors", "Polls that failed", ["source", "reason"], registry=r
        )
        self.source_up = Gauge(
            "attachd_source_up",
            "1 while the source's last poll succeeded and it lets us settle",
            ["source"],
            registry=r,
        )
        self.stream_behind = Gauge(
            "attachd_stream_behind_seconds",
            "Between the newest record and the last one read, at most, on the shard that is furthest behind",
            ["source"],
            registry=r,
        )
        self.stream_shards = Gauge(
            "attachd_stream_shards", "Shards that this process holds the leases of", ["source"], registry=r
        )
        self.waiting = Gauge(
            "attachd_waiting", "Contacts waiting for a token or a runtime", ["account", "region"], registry=r
        )
        self.drain_eta = Gauge(
            "attachd_drain_eta_seconds",
            "How long those who wait will take at the rate now granted",
            ["account", "region"],
            registry=r,
        )
        self.granted_rate = Gauge(
            "attachd_quota_granted_rate",
            "CreateParticipant calls a second thought to be granted",
            ["account", "region"],
            registry=r,
        )
        self.circuits = Gauge(
            "attachd_circuit_open", "1 while no chat is led there", ["kind", "name"], registry=r
        )
        self.replicas = Gauge("attachd_replicas", "Replicas that live, this one included", registry=r)
        self.quota_share = Gauge(
            "attachd_quota_share", "The part of the account's rate that is ours to use, 0 to 1", registry=r
        )
        self.journal_errors = Counter(
            "attachd_journal_errors", "Requests that the journal failed", ["operation", "reason"], registry=r
        )
        self.open_chats = Gauge(
            "attachd_open_chats", "Chats that a bot has, as far as is known", ["bot"], registry=r
        )
        self.attach_tries = Counter(
            "attachd_attach_tries", "CreateParticipant calls by result", ["result"], registry=r
        )
        self.offers = Counter(
            "attachd_offers", "Offers to runtimes by result", ["runtime", "result"], registry=r
        )
        self.stations = Histogram(
            "attachd_station_seconds", "Time spent at each station", ["station"], buckets=_LATENCY, registry=r
        )
        self.attach_age = Histogram(
            "attachd_attach_age_seconds",
            "From the contact event to the runtime's acceptance",
            buckets=_LATENCY,
            registry=r,
        )
        self.remaining = Histogram(
            "attachd_connect_remaining_seconds",
            "Left of the 15 s when the runtime accepted",
            buckets=_REMAINING,
            registry=r,
        )

    def ended(self) -> dict[str, int]:
        """How many deliveries ended with which outcome, over all sources."""
        counts: dict[str, int] = {}
        for metric in self.outcomes.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    outcome = sample.labels["outcome"]
                    counts[outcome] = counts.get(outcome, 0) + int(sample.value)
        return counts

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


@contextmanager
def counted(counter: Counter, *labels: str) -> Iterator[None]:
    """Count a try by its result: ``ok``, or the reason that it failed for."""
    try:
        yield
    except (Transient, Permanent) as error:
        counter.labels(*labels, error.reason).inc()
        raise
    counter.labels(*labels, "ok").inc()
