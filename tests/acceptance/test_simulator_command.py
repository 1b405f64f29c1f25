"""`attachd simulate` as a process: what it prints, how it ends."""

import json
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest
import typer
from typer.testing import CliRunner

from attachd.simulator.command import simulate

PROGRAM = "import typer; from attachd.simulator.command import simulate; typer.run(simulate)"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *arguments]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_to_export_and_ends_cleanly_on_a_signal(ending: signal.Signals) -> None:
    with subprocess.Popen(
        command("--seed", "7"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        exported = dict(pair.split("=", 1) for pair in line.partition("export ")[2].split())
        assert set(exported) == {"AWS_ENDPOINT_URL_CONNECT", "AWS_ENDPOINT_URL_CONNECTPARTICIPANT"}
        connection = HTTPConnection(exported["AWS_ENDPOINT_URL_CONNECT"].removeprefix("http://"), timeout=60)
        connection.request("GET", "/_simulator/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.close()
        process.send_signal(ending)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_a_crowd_that_is_too_much_for_the_machine_does_not_keep_it_from_ending() -> None:
    with subprocess.Popen(
        command("--traffic", "constant:9000/s", "--quiet"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0


@pytest.mark.parametrize("streams", [(), ("--streams",)])
def test_streams_are_published_only_if_asked_for(streams: tuple[str, ...]) -> None:
    with subprocess.Popen(command(*streams), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        where = process.stdout.readline().partition("AWS_ENDPOINT_URL_CONNECT=http://")[2].split()[0]
        connection = HTTPConnection(where, timeout=60)
        connection.request("GET", "/_simulator/truth")
        assert ("streaming" in json.load(connection.getresponse())) == bool(streams)
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(("arguments", "last"), [((), 404), (("--all-quotas",), 429)])
def test_every_api_is_metered_only_if_asked_for(arguments: tuple[str, ...], last: int) -> None:
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        where = process.stdout.readline().partition("AWS_ENDPOINT_URL_CONNECT=http://")[2].split()[0]
        connection = HTTPConnection(where, timeout=60)
        statuses = []
        for _ in range(20):
            connection.request("GET", "/contacts/instance/gone")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        assert statuses[-1] == last
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:65536"),
        ("--events", "kafka:topic"),
        ("--events", "sqs:"),
        ("--instance-arn", "arn:aws:s3:::bucket"),
        ("--burst", "0"),
        ("--token-marker", "white space"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(arguments: tuple[str, str]) -> None:
    app = typer.Typer()
    app.command()(simulate)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2
    assert "Invalid value" in ended.output


@pytest.mark.parametrize("events", [(), ("--events", "eventbridge:default")])
def test_a_port_already_taken_is_told_in_one_line(events: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = subprocess.run(
            command("--listen", where, *events), capture_output=True, text=True, timeout=120, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"cannot listen on {where}: ")
    assert ended.stderr.count("\n") == 1
