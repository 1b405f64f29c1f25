"""The configuration: ``tables`` says what may be set, ``loading`` reads a file and says what is wrong with it.

``sources`` are the tables of where events come from, ``fields`` and ``secrets`` the kinds of value, ``agreement`` is between tables, ``wording`` is how errors are told.
"""

from attachd.settings.loading import load, webhook
from attachd.settings.routing import Active, Otherwise, Rule
from attachd.settings.secrets import SecretRef
from attachd.settings.sources import KinesisSource, Source, SqsSource, SweepSource
from attachd.settings.tables import (
    Bot,
    Capabilities,
    DynamoJournal,
    Health,
    Instance,
    Journal,
    Logging,
    MemoryJournal,
    PythonRuntime,
    Quota,
    Runtime,
    Service,
    Settings,
    SqliteJournal,
    SqsRuntime,
    Timers,
    Waiting,
    WebhookRuntime,
)

__all__ = [
    "Active",
    "Bot",
    "Capabilities",
    "DynamoJournal",
    "Health",
    "Instance",
    "Journal",
    "KinesisSource",
    "Logging",
    "MemoryJournal",
    "Otherwise",
    "PythonRuntime",
    "Quota",
    "Rule",
    "Runtime",
    "SecretRef",
    "Service",
    "Settings",
    "Source",
    "SqliteJournal",
    "SqsRuntime",
    "SqsSource",
    "SweepSource",
    "Timers",
    "Waiting",
    "WebhookRuntime",
    "load",
    "webhook",
]
