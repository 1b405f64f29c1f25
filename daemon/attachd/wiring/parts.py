"""One thing from one table of the configuration each. Nothing is opened here."""

import os
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final

from attachd import aws
from attachd import settings as s
from attachd.aws import NewSession
from attachd.conformance import Make, Subject
from attachd.errors import Misconfigured
from attachd.journals.dynamodb.journal import DynamoJournal
from attachd.journals.memory import MemoryJournal
from attachd.journals.sqlite import SqliteJournal
from attachd.model import Bot, Recipe, Secret
from attachd.patterns import compile_pattern
from attachd.ports import Journal
from attachd.rule import Chance, Looks, Rule
from attachd.rules import Rules
from attachd.runtimes.python import PythonRuntime, load
from attachd.runtimes.seal import Seal
from attachd.runtimes.sqs import SqsRuntime
from attachd.runtimes.tls import Tls
from attachd.runtimes.webhook import WebhookRuntime
from attachd.service import Limits

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


def runtime(
    table: s.Runtime, *, now: Callable[[], float] = time.time, forged: bool = False
) -> WebhookRuntime | SqsRuntime | PythonRuntime:
    """A runtime; its secrets and keys are read, its callable is imported.

    Args:
        table: its table.
        now: the wall clock.
        forged: sign with a secret that nobody knows, to see whether that is noticed.
    """
    match table:
        case s.WebhookRuntime():
            signing = [reference.read() for reference in table.secret]
            return WebhookRuntime(
                table.url,
                [Secret(new_secret())] if forged else signing,
                timeout_seconds=table.timeout,
                wants_ended=table.wants_ended,
                tls=Tls(table.ca, table.client_cert, table.client_key),
                peer_user=table.peer_user,
                now=now,
                user_agent=USER_AGENT,
            )
        case s.SqsRuntime():
            return SqsRuntime(
                partial(aws.session, os.environ),
                table.queue_url,
                Seal(table.public_key),
                timeout_seconds=table.timeout,
                wants_ended=table.wants_ended,
                now=now,
                user_agent=USER_AGENT,
            )
        case s.PythonRuntime():
            ended = load(table.ended, "farewell") if table.ended is not None else None
            return PythonRuntime(load(table.callable), ended=ended, timeout_seconds=table.timeout)


def examined(table: s.Runtime) -> Make:
    """The runtime of a table, as ``conformance`` wants to make it."""

    def make(*, skew: float = 0.0, forged: bool = False) -> Subject:
        return runtime(table, now=lambda: time.time() - skew, forged=forged)

    return make


def new_secret() -> str:
    """A signing secret as Standard Webhooks has them: 32 random bytes."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def journal(config: s.Settings, sessions: NewSession, *, beside: bool = False) -> Journal:
    """The journal; for a command ``beside`` the service, not locked and not made."""
    match config.journal:
        case s.MemoryJournal():
            return MemoryJournal()
        case s.SqliteJournal() as table:
            return SqliteJournal(table.file(), beside=beside)
        case s.DynamoJournal() as table:
            return DynamoJournal(
                sessions, table.table, keep_seconds=config.service.keep, user_agent=USER_AGENT
            )


@asynccontextmanager
async def journal_beside(config: s.Settings) -> AsyncIterator[Journal]:
    """The journal of a service that may be running, opened.

    Raises:
        Misconfigured: it cannot be opened, or nobody outside the service can see it.
        Transient: it does not answer.
    """
    if isinstance(config.journal, s.MemoryJournal):
        raise Misconfigured(["[journal] type 'memory' is in the service's own memory: no command can see it"])
    made = journal(config, partial(aws.session, os.environ), beside=True)
    async with made.open():
        yield made


async def create_journal(config: s.Settings) -> list[str]:
    """Make what the journal needs, where attachd may not make it by itself; what was done, a sentence each.

    Raises:
        Misconfigured: it cannot be made so.
        Transient: it cannot be made now.
    """
    made = journal(config, partial(aws.session, os.environ))
    if isinstance(made, DynamoJournal):
        return await made.table.create()
    return [f"[journal] type {config.journal.type!r} needs nothing made"]


def limits(table: s.Service, crowded: Callable[[], bool]) -> Limits:
    """How much at once, and how to stop."""
    return Limits(
        in_hand=table.max_in_hand,
        drain_seconds=table.drain,
        release_seconds=table.release_after,
        stall_seconds=table.stall,
        crowded=crowded,
    )
