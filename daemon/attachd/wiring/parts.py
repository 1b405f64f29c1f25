"""One thing from one table of the configuration each. Nothing is opened here."""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Final

from aiobotocore.session import AioSession

from attachd import aws
from attachd import settings as s
from attachd.errors import Misconfigured
from attachd.journals.dynamodb import DynamoJournal
from attachd.journals.memory import MemoryJournal
from attachd.journals.sqlite import SqliteJournal
from attachd.model import Bot, Recipe, Secret
from attachd.patterns import compile_pattern
from attachd.ports import Journal, Source
from attachd.rule import Chance, Looks, Rule
from attachd.rules import Rules
from attachd.runtimes.python import PythonRuntime, load
from attachd.runtimes.webhook import WebhookRuntime
from attachd.service import Limits
from attachd.sources.sqs import SqsSource

_ANY_CHAT: Final = '{"detail":{"channel":["CHAT"]}}'
USER_AGENT: Final = f"attachd/{version('attachd')}"


def rules(config: s.Settings) -> Rules:
    """The rules in force under a configuration."""
    bots = {table.name: _bot(table) for table in config.bots}
    made = [
        replace(
            _decision(table.name, table.when, table, bots, table.percent),
            active=tuple(active.window() for active in table.active),
        )
        for table in config.rules
    ]
    if config.otherwise is not None:
        made.append(_decision("otherwise", _ANY_CHAT, config.otherwise, bots))
    return Rules(made)


def _decision(
    name: str, when: str, table: s.Rule | s.Otherwise, bots: Mapping[str, Bot], percent: float = 100
) -> Rule:
    arms = tuple((bots[arm], weight) for arm, weight in table.split.items())
    return Rule(
        name=name,
        when=compile_pattern(when),
        bots=tuple(bots[one] for one in table.bot),
        priority=table.priority,
        patience=table.attach_within,
        fallback=table.fallback,
        chance=Chance(arms, percent, table.sticky, table.salt),
        looks=Looks(table.display_name, table.language, table.streaming_topic),
        include=frozenset(table.include),
    )


def _bot(table: s.Bot) -> Bot:
    return Bot(
        name=table.name,
        display_name=table.display_name,
        runtime=table.runtime,
        role=table.role,
        capabilities=table.capabilities.as_request(),
        recipe=Recipe(table.streaming_topic, table.timers.as_request(), table.connect),
    )


def check(config: s.Settings) -> None:
    """Build everything that can be built without a network: secrets are read, callables imported.

    Raises:
        Misconfigured: with every problem found.
    """
    rules(config)
    problems: list[str] = []
    for name, table in config.runtimes.items():
        try:
            runtime(table)
        except Misconfigured as error:
            problems += [f"[runtimes.{name}] {problem}" for problem in error.problems]
    if problems:
        raise Misconfigured(problems)


def runtime(table: s.Runtime) -> WebhookRuntime | PythonRuntime:
    """A runtime; its secrets are read, its callable is imported."""
    match table:
        case s.WebhookRuntime():
            secrets: list[Secret] = [reference.read() for reference in table.secret]
            return WebhookRuntime(
                table.url, secrets, timeout_seconds=table.timeout, now=time.time, user_agent=USER_AGENT
            )
        case s.PythonRuntime():
            return PythonRuntime(load(table.callable), timeout_seconds=table.timeout)


def journal(config: s.Settings, session: AioSession) -> Journal:
    """The journal."""
    match config.journal:
        case s.MemoryJournal():
            return MemoryJournal()
        case s.SqliteJournal() as table:
            return SqliteJournal(table.file())
        case s.DynamoJournal() as table:
            return DynamoJournal(
                session, table.table, keep_seconds=config.service.keep, user_agent=USER_AGENT
            )


async def create_journal(config: s.Settings) -> list[str]:
    """Make what the journal needs, where attachd may not make it by itself; what was done, a sentence each.

    Raises:
        Misconfigured: it cannot be made so.
        Transient: it cannot be made now.
    """
    made = journal(config, aws.session(os.environ))
    if isinstance(made, DynamoJournal):
        return await made.create()
    return [f"[journal] type {config.journal.type!r} needs nothing made"]


def source(table: s.SqsSource, session: AioSession, dice: random.Random) -> Source:
    """A source."""
    return SqsSource(
        session,
        table.queue_url,
        quarantine_url=table.quarantine_url,
        poll_seconds=round(table.poll),
        visibility_seconds=round(table.visibility),
        now=time.time,
        dice=dice,
        user_agent=USER_AGENT,
    )


def limits(table: s.Service) -> Limits:
    """How much at once, and how to stop."""
    return Limits(
        in_hand=table.max_in_hand,
        drain_seconds=table.drain,
        release_seconds=table.release_after,
        stall_seconds=table.stall,
    )
