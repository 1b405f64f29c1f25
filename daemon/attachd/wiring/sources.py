"""Where events come from, one source a table. Nothing is opened here."""

import os
import random
import socket
import time
import uuid
from dataclasses import dataclass

from aiobotocore.session import AioSession

from attachd import aws
from attachd import settings as s
from attachd.metrics import Metrics
from attachd.ports import Source
from attachd.progress import Progress
from attachd.sources.kinesis.dynamodb import DynamoLeases
from attachd.sources.kinesis.quarantine import SqsQuarantine
from attachd.sources.kinesis.source import KinesisSource
from attachd.sources.kinesis.sqlite import SqliteLeases
from attachd.sources.kinesis.stream import KinesisStream
from attachd.sources.kinesis.timing import Timing
from attachd.sources.sqs import SqsSource
from attachd.streams import Edge
from attachd.wiring.parts import USER_AGENT


@dataclass(frozen=True)
class Sources:
    """Makes sources.

    Args:
        session: where clients come from.
        dice: jitter.
        progress: where their tasks report.
        metrics: where streams show how they do.
        stall_seconds: how long one may be silent.
    """

    session: AioSession
    dice: random.Random
    progress: Progress
    metrics: Metrics
    stall_seconds: float

    def source(self, table: s.Source) -> Source:
        """A source."""
        match table:
            case s.SqsSource():
                return self._sqs(table)
            case s.KinesisSource():
                return self._kinesis(table)

    def _sqs(self, table: s.SqsSource) -> SqsSource:
        return SqsSource(
            self.session,
            table.queue_url,
            quarantine_url=table.quarantine_url,
            poll_seconds=round(table.poll),
            visibility_seconds=round(table.visibility),
            now=time.time,
            dice=self.dice,
            user_agent=USER_AGENT,
        )

    def _kinesis(self, table: s.KinesisSource) -> KinesisSource:
        url = table.quarantine_url
        made = KinesisSource(
            KinesisStream(
                self.session,
                table.stream,
                fan_out=table.application if table.fan_out else None,
                pace_seconds=table.pace,
                now=time.time,
                user_agent=USER_AGENT,
            ),
            _leases(table, self.session) if table.leases == "dynamodb" else SqliteLeases(table.file()),
            aside=None
            if url is None
            else SqsQuarantine(self.session, url, dice=self.dice, user_agent=USER_AGENT),
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


async def create_leases(config: s.Settings) -> list[str]:
    """Make what a Kinesis source's leases need, where attachd may not make it by itself; what was done, a sentence each.

    Raises:
        Misconfigured: it cannot be made so.
        Transient: it cannot be made now.
    """
    table = config.source
    if isinstance(table, s.KinesisSource) and table.leases == "dynamodb":
        return await _leases(table, aws.session(os.environ)).create()
    return ["[source] keeps no leases in a table: nothing needs to be made"]


def _leases(table: s.KinesisSource, session: AioSession) -> DynamoLeases:
    return DynamoLeases(session, table.application, user_agent=USER_AGENT)
