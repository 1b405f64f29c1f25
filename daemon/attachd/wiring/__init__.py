"""The composition root: alone names concrete classes, and turns a configuration into a running service.

``parts`` builds one thing from one table, ``sources`` what events come from, ``connects`` the instances that chats come
from, ``assembly`` puts them together, ``app`` serves, ``reloading`` says what a new configuration may change meanwhile.
"""

from attachd.wiring.app import run
from attachd.wiring.assembly import Mode
from attachd.wiring.parts import (
    USER_AGENT,
    check,
    create_journal,
    examined,
    journal_beside,
    new_secret,
    rules,
)
from attachd.wiring.sources import create_leases

__all__ = [
    "USER_AGENT",
    "Mode",
    "check",
    "create_journal",
    "create_leases",
    "examined",
    "journal_beside",
    "new_secret",
    "rules",
    "run",
]
