"""Where events come from, one source a table. Nothing is opened here."""

import os
import random
import socket
import time
import uuid
from dataclasses import dataclass
from functools import partial

from attachd import aws
from attachd import settings as s
from attachd.aws import NewSession
from attachd.instances import place
from attachd.metrics import Metrics
from attachd.ports import Journal, Leases, Source
from attachd.progress import Progress
from attachd.sources.kinesis.dynamodb import DynamoLeases
from attachd.sources.kinesis.memory import MemoryLeases
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.sqlite import SqliteLeases
from attachd.sources.kinesis.stream import KinesisStream
from attachd.sources.kinesis.timing import Timing
from attachd.sources.quarantine import SqsQuarantine
from attachd.sources.search import ConnectSearch
from attachd.sources.sqs import Queue, SqsSource
from attachd.sources.sweep import Pace, SweepSource
from attachd.streams import Edge
from attachd.wiring.parts import USER_AGENT


@dataclass(frozen=True)
class Sources:
    """Makes sources.

    Args:
        sessions: where clients come from.
        journal: what is known of contacts.
        dice: jitter.
        progress: where their tasks report.
        metrics: where streams show how they do.
        stall_seconds: how long one may be silent.
        shadow: none that calls Connect, and nothing is quarantined: a rehearsal's queue is its own, to throw away. Of a
            stream it takes nothing from anybody: its leases are its own and forgotten, and it polls.
    """

    sessions: NewSession
    journal: Journal
    dice: random.Random
    progress: Progress
    metrics: Metrics
    stall_seconds: float
    shadow: bool = False

    def of(self, config: s.Settings) -> list[Source]:
        """Every source that is configured."""
        tables = [t for t in config.origins if not (self.shadow and isinstance(t, s.SweepSource))]
        return [self._source(table, config) for table in tables]

    def _source(self, table: s.Source, config: s.Settings) -> Source:
        match table:
            case s.SqsSource():
                return self._sqs(table)
            case s.KinesisSource():
                return self._kinesis(table)
            case s.SweepSource():
                listed = next((t for t in config.instances if t.arn == table.instance), None)
                return self._sweep(table, listed)

    def _sqs(self, table: s.SqsSource) -> SqsSource:
        return SqsSource(
            self.sessions,
            Queue(table.queue_url, table.label, table.polls, round(table.poll), round(table.visibility)),
            aside=self._aside(table.quarantine_url),
            metrics=self.metrics,
            progress=self.progress,
            stall_seconds=self.stall_seconds,
            now=time.time,
            dice=self.dice,
            user_agent=USER_AGENT,
        )

    def _kinesis(self, table: s.KinesisSource) -> KinesisSource:
        made = KinesisSource(
            KinesisStream(
                self.sessions,
                table.stream,
                name=table.label,
                fan_out=table.application if table.fan_out and not self.shadow else None,
                pace_seconds=table.pace,
                now=time.time,
                user_agent=USER_AGENT,
            ),
            self._leases(table),
            aside=self._aside(table.quarantine_url),
            owner=f"{socket.gethostname()}:{uuid.uuid4()}",
            start=table.start if isinstance(table.start, float) else Edge(table.start),
            timing=Timing(poll=table.poll, lease=table.lease, stall=self.stall_seconds),
            progress=self.progress,
            now=time.time,
            dice=self.dice,
        )
        self.metrics.stream_behind.labels(made.name).set_function(lambda: made.behind)
        self.metrics.stream_shards.labels(made.name).set_function(lambda: made.shards)
        return made

    def _leases(self, table: s.KinesisSource) -> Leases:
        if self.shadow:
            return MemoryLeases()
        return (
            _lease_table(table, self.sessions) if table.leases == "dynamodb" else SqliteLeases(table.file())
        )

    def _sweep(self, table: s.SweepSource, listed: s.Instance | None) -> SweepSource:
        _, region = place(table.instance)
        role, endpoint = (listed.role, listed.endpoint) if listed else (None, None)
        sessions = partial(aws.session, os.environ, region=region, role=role)
        pace = Pace(
            rate=table.rate,
            every_seconds=table.every,
            min_age_seconds=table.min_age,
            max_age_seconds=table.max_age,
            stall_seconds=self.stall_seconds,
        )
        search = ConnectSearch(sessions, table.instance, endpoint_url=endpoint, user_agent=USER_AGENT)
        return SweepSource(
            table.label,
            search,
            self.journal,
            pace,
            progress=self.progress,
            now=time.time,
            dice=self.dice,
        )

    def _aside(self, url: str | None) -> SqsQuarantine | None:
        if url is None or self.shadow:
            return None
        return SqsQuarantine(self.sessions, url, dice=self.dice, user_agent=USER_AGENT)


async def create_leases(config: s.Settings) -> list[str]:
    """Make what a Kinesis source's leases need, where attachd may not make it by itself; what was done, a sentence each.

    Raises:
        Misconfigured: it cannot be made so.
        Transient: it cannot be made now.
    """
    said: list[str] = []
    for table in config.origins:
        if isinstance(table, s.KinesisSource) and table.leases == "dynamodb":
            said += await _lease_table(table, partial(aws.session, os.environ)).create()
    return said or ["no source keeps its leases in a table: nothing needs to be made"]


def _lease_table(table: s.KinesisSource, sessions: NewSession) -> DynamoLeases:
    return DynamoLeases(sessions, table.application, user_agent=USER_AGENT)
