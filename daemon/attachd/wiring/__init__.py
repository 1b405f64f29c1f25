"""The composition root: alone names concrete classes, and turns a configuration into a running service.

``parts`` builds one thing from one table, ``connects`` the instances that chats come from, ``app`` puts them together and
serves.
"""

from attachd.wiring.app import Rehearsal, run
from attachd.wiring.parts import USER_AGENT, check, create_journal, examined, new_secret, rules

__all__ = ["USER_AGENT", "Rehearsal", "check", "create_journal", "examined", "new_secret", "rules", "run"]
