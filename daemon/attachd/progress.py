"""Who is still getting on: every long-running task reports here, and whoever stops is named.

``/healthz`` and the systemd watchdog read it. Alive means getting on, not merely running.
"""

from collections.abc import Callable


class Progress:
    """When each task last reported, on a monotonic clock given as ``now``.

    Args:
        now: the clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due: dict[str, float] = {}

    def reporter(self, task: str, within_seconds: float) -> Callable[[], None]:
        """A function for the task to call at least that often, from now on."""

        def report() -> None:
            self._due[task] = self._now() + within_seconds

        report()
        return report

    def done(self, task: str) -> None:
        """The task has ended as it should; it need not report any more."""
        self._due.pop(task, None)

    def stalled(self) -> list[str]:
        """The tasks that are overdue, by name."""
        now = self._now()
        return sorted(task for task, due in self._due.items() if now > due)
