"""systemd's sd_notify: readiness, status, watchdog, reload and drain, over a datagram socket.

Silent where no service manager listens. Thirty lines here rather than a dependency: the one on the registry
has had no release since 2017 (docs/adr/0002-dependencies.md). Source: sd_notify(3).
"""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Tells the service manager, if there is one.

    Args:
        environ: where ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are looked up.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watchdog_pid = environ.get("WATCHDOG_PID", str(os.getpid()))
        ours = watchdog_pid == str(os.getpid())
        self.watchdog_seconds = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 if ours else 0.0

    def ready(self, status: str) -> None:
        """The service does its work from now on."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog. Call it only while every task gets on."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is read anew; ``ready`` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the configuration anew")

    def stopping(self, status: str, drain_seconds: float) -> None:
        """The drain has begun and may take that long."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int((drain_seconds + 10) * 1e6)}")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        # A line is an assignment: a status that quotes somebody's error must not be able to make one.
        message = "\n".join(" ".join(assignment.splitlines()) for assignment in assignments)
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(0)
            try:
                sock.sendto(message.encode(), address)
            except OSError:
                # A manager that went away, or a full buffer, must not stop the work; the watchdog tells it.
                return
