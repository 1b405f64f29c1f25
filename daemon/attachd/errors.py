"""What can go wrong, said as what to do about it.

An adapter translates every foreign exception into one of these, once, at its edge. Nothing here names a
library, and no message may hold a credential.

    Exception
    ├── Transient       try again, later
    ├── Permanent       never again; the outcome says how the delivery ends
    └── Misconfigured   stop; the operator must change something
"""

from collections.abc import Iterable

from attachd.model import Outcome


class Transient(Exception):
    """The try failed; a later one may succeed.

    Args:
        reason: a short slug, bounded in number, fit for a metric label: ``throttled``, ``timeout`` …
        detail: a sentence for the operator.
        after: seconds the peer asked us to wait, if it said so.
        ambiguous: whether the try may have had its effect all the same (a timeout, a 500).
    """

    def __init__(
        self, reason: str, detail: str = "", *, after: float | None = None, ambiguous: bool = False
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.after = after
        self.ambiguous = ambiguous


class Permanent(Exception):
    """No later try can succeed; the delivery ends with ``outcome``.

    Args:
        outcome: how the delivery ends.
        reason: a short slug, bounded in number; the outcome's own name unless given.
        detail: a sentence for the operator.
    """

    def __init__(self, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        self.outcome = outcome
        self.reason = reason or outcome.value
        self.detail = detail
        super().__init__(f"{self.reason}: {detail}" if detail else self.reason)


class Misconfigured(Exception):
    """The configuration, or the account it points at, cannot work as it is. Exit status 78.

    Args:
        problems: one sentence each, every one that was found.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
