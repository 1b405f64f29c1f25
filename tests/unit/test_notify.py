"""sd_notify over real datagram sockets; silent and harmless where nobody listens."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.notify import Notifier

pytestmark = pytest.mark.real_time


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(2.0)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hears(self) -> dict[str, str]:
        lines = self._socket.recv(65_536).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def vanish(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "n.sock") if request.param == "path" else f"@attachd-{uuid.uuid4().hex}"
    manager = Manager(address)
    yield manager
    manager.vanish()


def _tell_everything(notifier: Notifier) -> None:
    notifier.ready("taking chats")
    notifier.status("busy")
    notifier.alive()
    notifier.stopping("draining", 60.0)


def test_the_manager_hears_readiness_status_watchdog_and_drain(manager: Manager) -> None:
    _tell_everything(Notifier({"NOTIFY_SOCKET": manager.address}))
    assert manager.hears() == {"READY": "1", "STATUS": "taking chats"}
    assert manager.hears() == {"STATUS": "busy"}
    assert manager.hears() == {"WATCHDOG": "1"}
    assert manager.hears() == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "70000000"}


@pytest.mark.parametrize("status", ["one\ntwo", "bad\nREADY=1", "a\r\nb", "ü€"])
def test_a_status_of_several_lines_stays_one_field(manager: Manager, status: str) -> None:
    """A newline begins the next assignment: a foreign error's text must not make one."""
    Notifier({"NOTIFY_SOCKET": manager.address}).status(status)
    assert set(manager.hears()) == {"STATUS"}


def test_without_a_manager_nothing_is_said() -> None:
    _tell_everything(Notifier({}))
    _tell_everything(Notifier({"NOTIFY_SOCKET": ""}))


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-is-there", "/" + "x" * 300])
def test_a_manager_that_is_not_there_is_no_error(address: str) -> None:
    _tell_everything(Notifier({"NOTIFY_SOCKET": address}))


def test_a_manager_that_vanishes_is_no_error(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("taking chats")
    manager.vanish()
    _tell_everything(notifier)


def test_a_manager_that_does_not_listen_does_not_hold_us_up(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for _ in range(5000):
        notifier.status("x" * 100)
    assert manager.hears()["STATUS"] == "x" * 100


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
    ],
)
def test_the_watchdogs_period_is_ours_only_if_it_names_us(environ: dict[str, str], seconds: float) -> None:
    assert Notifier(environ).watchdog_seconds == seconds


def test_a_reload_is_told_with_its_time_and_ends_with_readiness(manager: Manager) -> None:
    """systemd takes the readiness for the reload's own by that time (sd_notify(3), RELOADING=1)."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.ready("taking chats")
    heard = manager.hears()
    assert heard["RELOADING"] == "1"
    assert before <= int(heard["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.hears()["READY"] == "1"
