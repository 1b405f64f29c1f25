"""What one core of the simulator does: CreateParticipant over HTTP, beside a trivial call of moto's server.

Both are processes on the first core, tried one after the other by this process on the last core, over keep-alive
connections and with requests written beforehand. Beside calls a second of the wall clock stand calls a second of the
server's own CPU time, which other work on the machine disturbs less.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from rich.console import Console
from rich.table import Table

from attachd.simulator import Dials

CALLS, CONNECTIONS = 10_000, 16
PEER_CALLS = 2_000
SERVER_CORE, OWN_CORE = 0, (os.cpu_count() or 1) - 1
TICKS = os.sysconf("SC_CLK_TCK")
INSTANCE = Dials().instance_id
MOTO = """
import signal
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("moto at", server.get_host_and_port()[1])
signal.sigwait({signal.SIGINT})
server.stop()
"""


class Server:
    """A server process which has the first core for itself."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._stat = Path(f"/proc/{process.pid}/stat")

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used so far."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def started(says: str, *command: str) -> Iterator[Server]:
    """Start a server that prints its port after `says`."""
    pinned = ["taskset", "--cpu-list", str(SERVER_CORE), *command]
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    with subprocess.Popen(  # noqa: S603 - the project's own program, and moto's
        pinned, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            for line in process.stdout:
                if says in line:
                    port = line.partition(says)[2].split()[0].rstrip("/")
                    yield Server(process, int(port))
                    break
        finally:
            process.send_signal(signal.SIGINT)
            with closing(process.stdout):
                process.communicate()


def post(path: str, document: object, *headers: str, method: str = "POST") -> bytes:
    """Write a request."""
    body = json.dumps(document).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Line:
    """One keep-alive connection; opened again when the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: anyio.abc.SocketStream | None = None

    async def ask(self, request: bytes) -> bytes:
        """Send one request; return the body of a 200, raise for anything else."""
        if self._stream is None:
            self._stream = await anyio.connect_tcp("127.0.0.1", self._port)
            self._incoming = BufferedByteReceiveStream(self._stream)
        await self._stream.send(request)
        head = (await self._incoming.receive_until(b"\r\n\r\n", 65536)).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await self._incoming.receive_exactly(length) if length else b""
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(body.decode())
        if b"connection: close" in head or head.startswith(b"http/1.0"):
            await self._stream.aclose()
            self._stream = None
        return body


async def ask_all(port: int, requests: list[bytes]) -> list[bytes]:
    """Send all requests over a few connections, in no order."""
    bodies: list[bytes] = []
    waiting = iter(requests)

    async def one() -> None:
        line = Line(port)
        bodies.extend([await line.ask(request) for request in waiting])

    async with anyio.create_task_group() as tasks:
        for _ in range(min(CONNECTIONS, len(requests))):
            tasks.start_soon(one)
    return bodies


async def rates(server: Server, requests: list[bytes]) -> tuple[float, float]:
    """Return calls a second of the wall clock, and of the server's CPU time."""
    cpu, began = server.cpu_seconds(), time.perf_counter()
    await ask_all(server.port, requests)
    took = time.perf_counter() - began
    return len(requests) / took, len(requests) / (server.cpu_seconds() - cpu)


async def simulated() -> tuple[float, float]:
    """CreateParticipant, each for a chat of its own."""
    quota = ("--rate", "1e9", "--burst", "1e9", "--seed", "7")
    with started("http://127.0.0.1:", sys.executable, "-m", "attachd", "simulate", *quota) as server:
        chat = {"InstanceId": INSTANCE, "ContactFlowId": "f", "ParticipantDetails": {"DisplayName": "C"}}
        started_chats = await ask_all(server.port, [post("/contact/chat", chat, method="PUT")] * CALLS)
        details = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
        create = {"InstanceId": INSTANCE, "ParticipantDetails": details}
        requests = [
            post(
                "/contact/create-participant",
                create | {"ContactId": contact_id, "ClientToken": f"{contact_id} generation 1"},
            )
            for contact_id in (json.loads(body)["ContactId"] for body in started_chats)
        ]
        return await rates(server, requests)


async def peer() -> tuple[float, float]:
    """The least that moto's server can be asked: GetQueueUrl."""
    with started("moto at ", sys.executable, "-c", MOTO) as server:
        json_1_0 = "Content-Type: application/x-amz-json-1.0"
        scope = "Authorization: AWS4-HMAC-SHA256 Credential=k/20270115/eu-central-1/sqs/aws4_request"
        headers = (json_1_0, scope)
        create = post("/", {"QueueName": "q"}, "X-Amz-Target: AmazonSQS.CreateQueue", *headers)
        await ask_all(server.port, [create])
        find = post("/", {"QueueName": "q"}, "X-Amz-Target: AmazonSQS.GetQueueUrl", *headers)
        return await rates(server, [find] * PEER_CALLS)


async def main() -> None:
    """Measure both and print the table."""
    os.sched_setaffinity(0, {OWN_CORE})
    ours, theirs = await simulated(), await peer()
    table = Table("one core", "calls/s", "calls per CPU second")
    for name, (wall, cpu) in (("simulator, CreateParticipant", ours), ("moto server, GetQueueUrl", theirs)):
        table.add_row(name, f"{wall:,.0f}", f"{cpu:,.0f}")
    table.add_row("ratio", f"{ours[0] / theirs[0]:.1f}", f"{ours[1] / theirs[1]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    anyio.run(main)
