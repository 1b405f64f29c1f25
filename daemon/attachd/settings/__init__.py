"""The configuration: ``tables`` says what may be set, ``loading`` reads a file and says what is wrong with it."""

from attachd.settings.loading import load
from attachd.settings.tables import (
    Bot,
    Capabilities,
    DynamoJournal,
    Health,
    Journal,
    Logging,
    MemoryJournal,
    PythonRuntime,
    Quota,
    Rule,
    Runtime,
    SecretRef,
    Service,
    Settings,
    SqliteJournal,
    SqsSource,
    WebhookRuntime,
)

__all__ = [
    "Bot",
    "Capabilities",
    "DynamoJournal",
    "Health",
    "Journal",
    "Logging",
    "MemoryJournal",
    "PythonRuntime",
    "Quota",
    "Rule",
    "Runtime",
    "SecretRef",
    "Service",
    "Settings",
    "SqliteJournal",
    "SqsSource",
    "WebhookRuntime",
    "load",
]
