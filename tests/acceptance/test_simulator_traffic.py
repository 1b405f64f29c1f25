"""`attachd simulate` with customers of its own: a real process, a real SDK for the bots, a real terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from attachd.simulator import Dials

PROGRAM = "import typer; from attachd.simulator.command import simulate; typer.run(simulate)"
ONCE = {"total_max_attempts": 1}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


@contextmanager
def simulating(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().partition("AWS_ENDPOINT_URL_CONNECT=")[2].split()[0]
        finally:
            process.terminate()


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    host, _, page = url.removeprefix("http://").partition("/")
    connection = HTTPConnection(host, timeout=60)
    connection.request("GET" if body is None else "POST", f"/{page}", json.dumps(body))
    answer = connection.getresponse()
    told = json.load(answer)
    connection.close()
    return answer.status, told


def fetch(url: str, body: Any = None) -> Any:
    status, told = ask(url, body)
    assert status == 200, told
    return told


class Attacher:
    """Bots by boto3: of four, one never connects, one is silent, two talk; chats without a talk are stopped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connect = boto3.client(
            "connect",
            region_name="eu-central-1",
            endpoint_url=url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries=ONCE),
        )
        self._participants = boto3.client(
            "connectparticipant",
            region_name="eu-central-1",
            endpoint_url=url,
            config=Config(retries=ONCE, signature_version=UNSIGNED),
        )
        self._seen: dict[str, int] = {}
        self._called: Counter[str] = Counter()
        self._talking: dict[str, str] = {}

    def look(self) -> None:
        for contact in fetch(f"{self._url}/_simulator/truth")["contacts"]:
            contact_id, kind = contact["id"], self._seen.setdefault(contact["id"], len(self._seen)) % 4
            if contact_id not in self._called:
                self.attach(contact_id)
            elif (
                contact["ended_at"] is None
                and contact["connected_at"] is not None
                and contact_id not in self._talking
            ):
                self._connect.stop_contact(InstanceId=Dials().instance_id, ContactId=contact_id)
            elif contact["ended_at"] is not None and kind == 0 and self._called[contact_id] < 2:
                self.attach(contact_id)  # too late, on purpose
        for contact_id, bearer in list(self._talking.items()):
            self.answer(contact_id, bearer)

    def attach(self, contact_id: str) -> None:
        kind = self._seen[contact_id] % 4
        self._called[contact_id] += 1
        try:
            token = self.create(contact_id)
            if kind == 2:
                token = self.create(contact_id)  # a replay
        except ClientError:
            return
        if kind == 0:
            return
        joined = self._participants.create_participant_connection(
            ParticipantToken=token,
            Type=["CONNECTION_CREDENTIALS"],
            ConnectParticipant=True,
        )
        bearer = joined["ConnectionCredentials"]["ConnectionToken"]
        if kind > 1:
            self.say(bearer, "Hello.")
            self._talking[contact_id] = bearer

    def create(self, contact_id: str) -> str:
        made = self._connect.create_participant(
            InstanceId=Dials().instance_id,
            ContactId=contact_id,
            ClientToken=contact_id,
            ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
        )
        return str(made["ParticipantCredentials"]["ParticipantToken"])

    def answer(self, contact_id: str, bearer: str) -> None:
        try:
            page = self._participants.get_transcript(ConnectionToken=bearer, MaxResults=1)
            if page["Transcript"][0].get("ParticipantRole") == "CUSTOMER":
                self.say(bearer, "Nine to six.")
        except ClientError:  # they have left
            del self._talking[contact_id]

    def say(self, bearer: str, content: str) -> None:
        self._participants.send_message(ConnectionToken=bearer, ContentType="text/plain", Content=content)


def figures(truth: Any) -> dict[str, Any]:
    """Work out from the truth what the report must say."""
    contacts = truth["contacts"]
    bots = [each for each in truth["participants"] if each["role"] == "CUSTOM_BOT"]
    calls = [each for each in truth["calls"] if each["operation"] == "CreateParticipant"]
    arrived = {each["id"]: each["connected_at"] for each in contacts}
    waits = sorted(
        max(0.0, bot["connected_at"] - arrived[bot["contact_id"]]) for bot in bots if bot["connected_at"]
    )
    return {
        "started": len(contacts),
        "attached": sum(each["custom_bots"]["connected"] > 0 for each in contacts),
        "on_time": sum(each["custom_bots"]["spoke"] > 0 for each in contacts),
        "late": sum(each["custom_bots"]["connected"] > each["custom_bots"]["spoke"] for each in contacts),
        "never": sum(each["custom_bots"]["connected"] == 0 for each in contacts),
        "calls": len(calls),
        "created": len(bots),
        "replayed": sum(each["status"] == 200 for each in calls) - len(bots),
        "throttled": sum(each["status"] == 429 for each in calls),
        "after_the_end": sum(each["status"] == 404 for each in calls),
        "never_connected": sum(each["connected_at"] is None for each in bots),
        "p50": statistics.median_low(waits),
        "max": waits[-1],
    }


def test_the_report_of_forty_customers_says_what_the_truth_says(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with simulating("--rate", "10", "--burst", "20", "--report", str(file)) as (process, url):
        traffic = {
            "arrivals": {"kind": "poisson", "per_second": 20},
            "chats": 40,
            "patience": 60,
            "connects_after": {"kind": "uniform", "low": 0, "high": 0.3},
            "thinks": 0.2,
        }
        fetch(f"{url}/_simulator/traffic", traffic)
        attacher = Attacher(url)
        deadline = time.monotonic() + 50  # before anybody's patience ends, however slow this machine is
        while (report := fetch(f"{url}/_simulator/report"))["customers"]["present"] or report["chats"][
            "started"
        ] < 40:
            attacher.look()
            assert time.monotonic() < deadline
        attacher.look()
        report, truth = fetch(f"{url}/_simulator/report"), fetch(f"{url}/_simulator/truth")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        printed = process.stdout.read()
        assert process.wait(60) == 0
    flat = report["chats"] | report["create_participant"] | report["wait_for_bot"]
    expected = figures(truth)
    assert {name: flat[name] for name in expected} == expected
    assert flat["after_the_end"] > 0
    assert flat["replayed"] > 0
    assert report["chats"]["twice"] == report["chats"]["open"] == 0
    assert 0 < report["customers"]["finished"] <= report["chats"]["on_time"]
    assert report["customers"]["cut_off"] == report["chats"]["late"] + report["chats"]["never"] > 0
    assert json.loads(file.read_text()) | {"seconds": 0} == report | {"seconds": 0}
    assert re.search(r"^  on time +" + str(flat["on_time"]) + r" ", printed, re.MULTILINE)
    assert "simulated-" not in printed + file.read_text()  # no token


@pytest.mark.parametrize(
    ("arguments", "status"),
    [((), 0), (("--fail-on", "twice"), 0), (("--fail-on", "twice,never"), 1), (("--quiet",), 0)],
)
def test_a_bounded_run_ends_when_its_customers_have_left(arguments: tuple[str, ...], status: int) -> None:
    ended = subprocess.run(
        command("--traffic", "burst:3", "--chats", "3", "--patience", "0.3", *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (status, "")
    assert ("never" in ended.stdout) is ("--quiet" not in arguments)


def test_a_run_for_some_seconds_without_customers_ends_after_them() -> None:
    ended = subprocess.run(command("--for", "0.3"), capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout.count("\n")) == (0, "", 1)


def test_a_traffic_that_makes_no_sense_is_400_with_the_path_of_the_key() -> None:
    with simulating() as (_, url):
        for body, said in (
            ([], "traffic: Expected `object`"),
            ({"arrivals": {"kind": "burst", "chats": 0}}, "traffic.arrivals: chats"),
            (
                {"arrivals": {"kind": "burst", "chats": 1}, "customers": [{"attributes": {"ä": ""}}]},
                "customers[0]",
            ),
        ):
            status, told = ask(f"{url}/_simulator/traffic", body)
            assert status == 400
            assert said in told["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--traffic", "tide:2/s"),
        ("--chats", "3"),
        ("--patience", "3"),
        ("--fail-on", "sometimes"),
        ("--report", "/nowhere/report.json"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error(arguments: tuple[str, ...]) -> None:
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "Invalid value" in ended.stderr


def test_in_a_terminal_a_run_is_shown_live_follows_its_size_and_leaves_the_report() -> None:
    controller, terminal = pty.openpty()
    resize(terminal, 100)
    arguments = "--traffic", "constant:10/s", "--chats", "20", "--patience", "1.5"
    overriding = {"NO_COLOR", "COLUMNS", "LINES"}  # which a runner of tests may have set
    environment = {name: value for name, value in os.environ.items() if name not in overriding}
    environment["TERM"] = "xterm-256color"
    with subprocess.Popen(
        command(*arguments), stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as process:
        shown = read_until(controller, rb"\d+ awaited")
        resize(terminal, 50)
        shown += read_until(controller, rb"20 started")
        shown += read_until(controller, rb"gave up before a word +20")
        assert process.wait(60) == 0
    os.close(terminal)
    os.close(controller)
    text = re.sub(rb"\x1b\[[\d;?]*[A-Za-z]", b"", shown).decode()
    frames = text.split("bots  ")
    assert re.search(r"\d+ started +\d+ open +\d+ ended", frames[0])
    assert not re.search(r"\d+ started +\d+ open +\d+ ended", frames[-2])  # half as wide
    assert b"\x1b[31m" in shown  # customers gave up
    assert text.count("Amazon Connect is simulated at") == 1


def resize(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def read_until(controller: int, wanted: bytes, within: float = 120.0) -> bytes:
    """Read what a terminal is sent, colours and all, until `wanted` stands in it."""
    shown, deadline = b"", time.monotonic() + within
    while not re.search(wanted, re.sub(rb"\x1b\[[\d;?]*[A-Za-z]", b"", shown)):
        ready, _, _ = select.select([controller], [], [], deadline - time.monotonic())
        assert ready, shown.decode(errors="replace")
        shown += os.read(controller, 65536)
    return shown
