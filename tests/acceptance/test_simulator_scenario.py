"""`attachd simulate --scenario` as a process; two of them with one seed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from attachd.simulator.dials import Dials

PROGRAM = "import typer; from attachd.simulator.command import simulate; typer.run(simulate)"
EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"
INSTANCE = Dials().instance_id
SCENARIO = """
[connect]
flow = [{ step = "hold", seconds = 20, until_bot = true }, { step = "enter_queue", agent_after_seconds = 5 }]
after_contact_work_seconds = 4

[[faults]]
kind = "error"
when = "after"
probability = 0.3

[[faults]]
kind = "reset"
probability = 0.2

[[faults]]
kind = "garbled"
probability = 0.1

[[faults]]
kind = "throttling"
operations = ["SendMessage"]
from_seconds = 10
rate = 0.5
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


@contextmanager
def simulated(*arguments: str) -> Iterator[str]:
    """The URL of a simulator in a process of its own, which has nothing to complain about."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout.readline().partition("AWS_ENDPOINT_URL_CONNECT=")[2].split()[0]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert process.stderr.read() == ""


def page(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data=data), timeout=60) as answer:  # noqa: S310 - our own process
        content: bytes = answer.read()
        return content


def played(seed: int, scenario: Path) -> bytes:
    """One script against a fresh process; its truth, byte for byte."""
    with simulated("--scenario", str(scenario), "--seed", str(seed), "--clock", "manual") as url:
        once = {"total_max_attempts": 1}  # the SDK would sleep between tries
        where = {"endpoint_url": url, "region_name": "eu-central-1"}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        connect = boto3.client("connect", **where, **keys, config=Config(retries=once))
        service = boto3.client(
            "connectparticipant", **where, config=Config(retries=once, signature_version=UNSIGNED)
        )
        for number in range(6):
            # The truth tells. boto3 takes half an answer for one without members.
            with suppress(Unlucky, KeyError):
                customer(connect, service, number)
            page(f"{url}/_simulator/clock", {"advance": 3})
        page(f"{url}/_simulator/clock", {"advance": 60})
        return page(f"{url}/_simulator/truth")


class Unlucky(Exception):
    """Three tries were for nothing."""


def patiently(call: Callable[..., Any], **request: Any) -> Any:
    for _ in range(3):
        with suppress(ClientError, BotoCoreError):
            return call(**request)
    raise Unlucky


def customer(connect: Any, service: Any, number: int) -> None:
    """A chat with a bot, as far as it gets."""
    name = f"customer {number}"
    chat = patiently(
        connect.start_chat_contact,
        InstanceId=INSTANCE,
        ContactFlowId="flow",
        ParticipantDetails={"DisplayName": name},
        ClientToken=name,
    )
    bearer = join(service, chat["ParticipantToken"])
    bot = patiently(
        connect.create_participant,
        InstanceId=INSTANCE,
        ContactId=chat["ContactId"],
        ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
        ClientToken=name,
    )
    bot_bearer = join(service, bot["ParticipantCredentials"]["ParticipantToken"])
    for speaker in (bearer, bot_bearer) * 2:
        patiently(service.send_message, ConnectionToken=speaker, ContentType="text/plain", Content="hello")
    patiently(service.disconnect_participant, ConnectionToken=bot_bearer)


def join(service: Any, token: str) -> str:
    answer = patiently(
        service.create_participant_connection,
        ParticipantToken=token,
        Type=["CONNECTION_CREDENTIALS"],
        ConnectParticipant=True,
    )
    return str(answer["ConnectionCredentials"]["ConnectionToken"])


def test_two_processes_with_one_seed_have_one_truth_byte_for_byte(tmp_path: Path) -> None:
    scenario = tmp_path / "storm.toml"
    scenario.write_text(SCENARIO)
    first = played(7, scenario)
    told = json.loads(first)
    assert {call["fault"] for call in told["calls"]} >= {"", "error-1", "reset-2"}
    assert any(contact["state"] == "WITH_AGENT" for contact in told["contacts"])
    assert any(contact["custom_bots"]["spoke"] for contact in told["contacts"])
    assert played(7, scenario) == first
    assert played(8, scenario) != first


def test_a_crowd_whose_clock_is_moved_by_hand_is_the_same_crowd_every_time(tmp_path: Path) -> None:
    path = tmp_path / "crowd.toml"
    path.write_text('[traffic]\nchats = 20\narrivals = { kind = "poisson", per_second = 2 }\npatience = 5\n')

    def crowd(seed: int) -> bytes:
        options = ("--scenario", str(path), "--seed", str(seed), "--clock", "manual", "--quiet")
        with simulated(*options) as url:
            for _ in range(5):
                page(f"{url}/_simulator/clock", {"advance": 1.5})
            return page(f"{url}/_simulator/truth")

    first = crowd(7)
    assert {contact["state"] for contact in json.loads(first)["contacts"]} > {"ENDED"}
    assert crowd(7) == first
    assert crowd(8) != first


def test_no_fault_of_a_connection_makes_the_simulator_complain() -> None:
    kinds = [
        {"kind": "reset"},
        {"kind": "silence", "seconds": 0.05},
        {"kind": "silence"},
        {"kind": "garbled"},
        {"kind": "latency", "milliseconds": 5000},
    ]
    with simulated() as url:
        where = url.removeprefix("http://")
        for kind in kinds:
            page(f"{url}/_simulator/faults", [kind])
            connection = HTTPConnection(where, timeout=0.3)
            connection.request("GET", "/contacts/instance/contact")
            with pytest.raises((OSError, HTTPException)):
                connection.getresponse().read()
            connection.close()
        page(f"{url}/_simulator/faults", [])
        assert len(json.loads(page(f"{url}/_simulator/truth"))["calls"]) == len(kinds)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_a_good_scenario_is_said_to_be_one(path: Path) -> None:
    ended = subprocess.run(
        command("--scenario", str(path), "--check"), capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{path}: well-formed\n", "")


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_all_that_is_wrong_with_a_scenario_is_said_a_line_each(
    tmp_path: Path, check: tuple[str, ...]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[connect]\nflou = 3\n\n[[faults]]\nkind = 'rest'\n")
    ended = subprocess.run(
        command("--scenario", str(path), "--burst", "0", *check),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 78
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "--burst: input should be greater than or equal to 1",
        f"{path}:2: connect.flou: there is no such key; did you mean 'flow'?",
        f"{path}:5: faults[0].kind: there is no 'rest'; did you mean 'reset'?",
    ]


UNTAGGED = (
    b"[traffic]\narrivals = { kind = 'burst', chats = 1 }\n[[traffic.customers]]\ntags = { 'aws:x' = 'y' }\n"
)


@pytest.mark.parametrize("content", [None, b"\xff", UNTAGGED])
def test_a_scenario_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "storm.toml"
    if content is not None:
        path.write_bytes(content)
    ended = subprocess.run(
        command("--scenario", str(path)), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 78
    assert ended.stderr.startswith(f"{path}: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("clock", ["sundial", "manual:noon", "real:2026-01-01"])
def test_a_clock_that_makes_no_sense_is_a_usage_error(clock: str) -> None:
    ended = subprocess.run(
        command("--clock", clock), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert "Invalid value" in ended.stderr


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "storm.toml"
    path.write_text("seed = 5\n[quotas]\nCreateParticipant = [0, 1]\n")
    for options, statuses in (((), [404, 429]), (("--burst", "2"), [404, 404])):
        with simulated("--scenario", str(path), *options) as url:
            connect = boto3.client(
                "connect",
                endpoint_url=url,
                region_name="eu-central-1",
                aws_access_key_id="key",
                aws_secret_access_key="secret",
                config=Config(retries={"total_max_attempts": 1}),
            )
            seen = []
            for _ in range(2):
                with pytest.raises(ClientError) as refusal:
                    connect.create_participant(
                        InstanceId=INSTANCE,
                        ContactId="gone",
                        ParticipantDetails={"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
                    )
                seen.append(refusal.value.response["ResponseMetadata"]["HTTPStatusCode"])
            assert seen == statuses
