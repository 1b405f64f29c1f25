"""The configuration: ``tables`` says what may be set, ``loading`` reads a file and says what is wrong with it.

``fields`` and ``secrets`` are the kinds of value, ``agreement`` is between tables, ``wording`` is how errors are told.
"""

from attachd.settings.loading import load
from attachd.settings.routing import Active, Otherwise, Rule
from attachd.settings.secrets import SecretRef
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
    SqsSource,
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
    "SqliteJournal",
    "SqsSource",
    "Timers",
    "Waiting",
    "WebhookRuntime",
    "load",
]
