"""Amazon's own chat client, in Node, holds the customer's side against `attachd simulate` as a process."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config

HERE = Path(__file__).parents[1] / "chatjs"
PROGRAM = "import typer; from attachd.simulator.command import simulate; typer.run(simulate)"
REGION = "eu-central-1"
JOINED = "application/vnd.amazonaws.connect.event.participant.joined"
UNREACHABLE = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED)\b"
)


@pytest.fixture(scope="session")
def customer_js(pytestconfig: pytest.Config) -> Path:
    """The script among its packages, which are installed once and kept in pytest's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node or no npm here to run amazon-connect-chatjs")
    lock = (HERE / "package-lock.json").read_bytes()
    assert pytestconfig.cache is not None
    place = pytestconfig.cache.mkdir(f"chatjs-{sha256(lock).hexdigest()[:16]}")
    for name in ("package.json", "package-lock.json", "customer.js"):
        shutil.copy(HERE / name, place)
    if not (place / "node_modules" / ".package-lock.json").exists():  # npm writes it last
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        unreachable = "npm's registry cannot be reached from here to fetch amazon-connect-chatjs"
        try:
            done = subprocess.run(
                install, cwd=place, capture_output=True, text=True, timeout=120, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(unreachable)
        if done.returncode and UNREACHABLE.search(done.stderr):
            pytest.skip(unreachable)
        assert done.returncode == 0, done.stderr
    return place / "customer.js"


class Process:
    """A process which writes lines; no wait for one is longer than ten seconds."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def line(self) -> str:
        return self.lines.get(timeout=10)

    def write(self, said: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(said)}\n")

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait(timeout=10)
        self._reader.join(timeout=10)
        self.process.stdout.close()


@contextmanager
def running(*command: str) -> Iterator[Process]:
    process = Process(*command)
    try:
        yield process
    finally:
        process.stop()


class Page:
    """What happens on the customer's page, and what the customer does there."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.told: list[dict[str, Any]] = []

    def do(self, deed: str, **more: str) -> None:
        self._process.write({"deed": deed, **more})

    def until(self, event: str, **wanted: str) -> Any:
        """Return the data of the first such event, whenever it came or comes."""
        seen = 0
        while True:
            for told in self.told[seen:]:
                data = told.get("data") or {}
                if told["event"] == event and wanted.items() <= data.items():
                    return data
            seen = len(self.told)
            try:
                self.told.append(json.loads(self._process.line()))
            except Empty:
                raise AssertionError(f"no {event} {wanted}, but {self.told}") from None


def test_amazons_own_client_holds_the_customers_side_of_a_chat(customer_js: Path) -> None:
    node = shutil.which("node") or ""
    with running(sys.executable, "-c", PROGRAM) as simulator:
        exported = simulator.line().partition("AWS_ENDPOINT_URL_CONNECT=")[2].split()[0]
        session = botocore.session.Session()
        session.set_credentials("key", "secret")
        connect = session.create_client("connect", REGION, endpoint_url=exported)
        participant = session.create_client(
            "connectparticipant", REGION, endpoint_url=exported, config=Config(signature_version=UNSIGNED)
        )
        instance = _truth(exported)["instances"][0].rpartition("/")[2]
        chat = connect.start_chat_contact(
            InstanceId=instance, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}
        )
        with running(node, str(customer_js), exported, REGION) as browser:
            page = Page(browser)
            browser.write({name: value for name, value in chat.items() if name != "ResponseMetadata"})
            page.until("message", ContentType=JOINED, DisplayName="Cleo")

            bot = connect.create_participant(
                InstanceId=instance,
                ContactId=chat["ContactId"],
                ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
            )
            bearer = participant.create_participant_connection(
                ParticipantToken=bot["ParticipantCredentials"]["ParticipantToken"],
                Type=["CONNECTION_CREDENTIALS"],
                ConnectParticipant=True,
            )["ConnectionCredentials"]["ConnectionToken"]
            joined = page.until("message", ContentType=JOINED, DisplayName="Ava")
            assert joined["ParticipantRole"] == "CUSTOM_BOT"

            participant.send_event(
                ConnectionToken=bearer, ContentType="application/vnd.amazonaws.connect.event.typing"
            )
            page.until("typing", DisplayName="Ava")
            participant.send_message(
                ConnectionToken=bearer, ContentType="text/plain", Content="How may I help?"
            )
            page.until("message", Content="How may I help?")

            page.do("type")
            page.until("type done")
            page.do("say", text="Where is my parcel?")
            said = page.until("say done")
            heard = page.until("message", Content="Where is my parcel?")
            assert heard["Id"] == said["Id"]
            participant.send_event(
                ConnectionToken=bearer,
                ContentType="application/vnd.amazonaws.connect.event.message.read",
                Content=json.dumps({"messageId": said["Id"]}),
            )
            assert page.until("read")["MessageMetadata"]["MessageId"] == said["Id"]

            page.do("transcript")
            transcript = page.until("transcript done")["Transcript"]
            page.until("heartbeat")
            page.do("leave")
            page.until("ended")
            truth = _truth(exported)

    assert [(item["DisplayName"], item["Type"], item.get("Content")) for item in transcript] == [
        ("Cleo", "EVENT", None),
        ("Ava", "EVENT", None),
        ("Ava", "EVENT", None),
        ("Ava", "MESSAGE", "How may I help?"),
        ("Cleo", "EVENT", None),
        ("Cleo", "MESSAGE", "Where is my parcel?"),
    ]
    assert not [told for told in page.told if "failed" in told["event"]]
    [contact] = truth["contacts"]
    assert (contact["state"], contact["disconnect_reason"]) == ("ENDED", "CUSTOMER_DISCONNECT")
    assert [(message["role"], message["content"]) for message in truth["messages"]] == [
        ("CUSTOM_BOT", "How may I help?"),
        ("CUSTOMER", "Where is my parcel?"),
    ]
    assert all(each["connected_at"] and each["disconnected_at"] for each in truth["participants"])
    assert [each["eventType"] for each in (event["detail"] for event in truth["events"])] == [
        "INITIATED",
        "CONNECTED_TO_SYSTEM",
        "DISCONNECTED",
        "COMPLETED",
    ]


def _truth(url: str) -> Any:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/_simulator/truth")
    told = json.load(connection.getresponse())
    connection.close()
    return told
