"""Who is at the other end of a webhook: certificates over real TLS, credentials of a real unix socket."""

import os
import pwd
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from attachd.errors import Misconfigured, Transient
from attachd.model import Bot, Contact, Handoff, Participant, Secret
from attachd.runtimes.tls import Tls
from attachd.runtimes.webhook import WebhookRuntime
from certificates import Authority, Pair

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
KEY = "whsec_YSBrZXkgdG8gc2lnbiB3aXRoLCBmb3IgdGVzdHM="


def handoff(number: int = 1) -> Handoff:
    return Handoff(
        key=f"c-{number}_1",
        contact=Contact(f"c-{number}", INSTANCE, "CHAT", f"c-{number}"),
        bot=Bot("concierge", "Ava", "ava"),
        rule="chat",
        generation=1,
        participant=Participant("p-1", Secret("CANARY-token"), "2027-01-16T08:00:00.000Z"),
        connect_by=time.time() + 15,
    )


@dataclass
class Bots:
    """What an endpoint has seen: paths, and the names in the certificates that it was shown."""

    url: str = ""
    seen: list[str] = field(default_factory=list)
    shown: list[str | None] = field(default_factory=list)
    peers: set[object] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        self.seen.append(request.path)
        self.shown.append(dict(x[0] for x in certificate["subject"])["commonName"] if certificate else None)
        self.peers.add(request.transport.get_extra_info("peername"))
        return web.Response(status=202)


@asynccontextmanager
async def serving(server: Pair, believes: Authority | None = None) -> AsyncIterator[Bots]:
    """An endpoint with this certificate; it wants to see one of those that ``believes`` signs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.cert, server.key)
    if believes is not None:
        context.load_verify_locations(believes.file)
        context.verify_mode = ssl.CERT_REQUIRED
    bots = Bots()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", bots.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        bots.url = f"https://localhost:{runner.addresses[0][1]}/attach"
        yield bots
    finally:
        await runner.cleanup()


@asynccontextmanager
async def webhook(
    url: str, tls: Tls | None = None, peer_user: str | int | None = None
) -> AsyncIterator[WebhookRuntime]:
    runtime = WebhookRuntime(
        url,
        [Secret(KEY)],
        timeout_seconds=3,
        tls=tls,
        peer_user=peer_user,
        now=time.time,
        user_agent="attachd/test",
    )
    async with runtime.open():
        yield runtime


async def refused(url: str, tls: Tls | None = None, peer_user: str | int | None = None) -> Transient:
    async with webhook(url, tls, peer_user) as runtime:
        with pytest.raises(Transient) as raised:
            await runtime.offer(handoff())
    return raised.value


# ── https ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_bot_whose_certificate_the_pinned_authority_signed_gets_its_chats(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.issue("bot")) as bots, webhook(bots.url, Tls(authority.file)) as runtime:
        for number in range(3):
            await runtime.offer(handoff(number))
        await runtime.probe()
    assert bots.seen == ["/attach"] * 4
    assert len(bots.peers) == 1, "connections are used again"


async def test_a_bot_that_another_authority_vouches_for_gets_nothing(tmp_path: Path) -> None:
    authority, another = Authority(tmp_path, "ca"), Authority(tmp_path, "another")
    async with serving(another.issue("bot")) as bots:
        for tls in (Tls(authority.file), None):  # nor does the system's list know either
            error = await refused(bots.url, tls)
            assert (error.reason, error.ambiguous) == ("tls", False)
            assert "unable to get local issuer certificate" in error.detail
    assert bots.seen == []


async def test_an_authority_that_is_pinned_is_the_only_one_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    [known] = Tls(authority.file).context.get_ca_certs()
    assert known["subject"] == ((("commonName", "ca"),),)


@pytest.mark.parametrize(
    ("days", "hosts", "problem"),
    [(-1, ("localhost",), "certificate has expired"), (1, ("elsewhere.test",), "Hostname mismatch")],
)
async def test_a_certificate_that_is_out_of_date_or_for_another_host_is_not_believed(
    tmp_path: Path, days: float, hosts: tuple[str, ...], problem: str
) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.issue("bot", days=days, hosts=hosts)) as bots:
        error = await refused(bots.url, Tls(authority.file))
    assert error.reason == "tls"
    assert problem in error.detail
    assert bots.seen == []


async def test_a_bot_that_wants_to_see_our_certificate_is_shown_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("attachd")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.cert.read_bytes() + ours.key.read_bytes())
    async with serving(authority.issue("bot"), believes=authority) as bots:
        for tls in (Tls(authority.file, ours.cert, ours.key), Tls(authority.file, both)):
            async with webhook(bots.url, tls) as runtime:
                await runtime.offer(handoff())
    assert bots.shown == ["attachd", "attachd"]


async def test_without_a_certificate_that_it_wants_the_bot_gets_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(authority.issue("bot"), believes=authority) as bots:
        assert (await refused(bots.url, Tls(authority.file))).reason in {"tls", "unreachable"}
    assert bots.seen == []


async def test_a_bot_that_says_what_is_wrong_with_our_certificate_is_quoted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("bot")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED

    def turn_away(listening: socket.socket) -> None:
        with context.wrap_socket(
            listening.accept()[0], server_side=True, do_handshake_on_connect=False
        ) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            with socket.socket(
                fileno=tls.detach()
            ) as plain:  # what was sent is read: no reset overtakes the alert
                while plain.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, turn_away, listening)
            url = f"https://localhost:{listening.getsockname()[1]}/attach"
            error = await refused(url, Tls(authority.file))
    assert error.reason == "tls"
    assert "CERTIFICATE_REQUIRED" in error.detail


async def test_a_certificate_that_was_renewed_on_disk_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("attachd")
    tls = Tls(authority.file, ours.cert, ours.key)
    async with (
        serving(authority.issue("bot"), believes=authority) as bots,
        webhook(bots.url, tls) as runtime,
    ):
        await runtime.offer(handoff(1))
        renewed = authority.issue("attachd-2")
        renewed.cert.replace(ours.cert)
        await runtime.offer(handoff(2))  # caught between its files: the old one still does
        renewed.key.replace(ours.key)
        await runtime.offer(handoff(3))
        await runtime.offer(handoff(4))
    assert bots.shown == ["attachd", "attachd", "attachd-2", "attachd-2"]
    assert len(bots.peers) == 2


async def test_an_authority_that_was_replaced_on_disk_is_believed_without_a_restart(tmp_path: Path) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(before.file.read_bytes())
    async with serving(after.issue("bot")) as bots, webhook(bots.url, Tls(pinned)) as runtime:
        with pytest.raises(Transient):
            await runtime.offer(handoff())
        pinned.write_bytes(after.file.read_bytes())
        await runtime.offer(handoff())
        pinned.unlink()
        await runtime.offer(handoff(2))
    assert len(bots.seen) == 2


def test_files_that_are_not_what_they_should_be_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, locked = authority.issue("attachd"), authority.issue("locked", password=b"hunter2")
    for tls, problem in (
        ({"ca": tmp_path / "missing.pem"}, "missing.pem: No such file or directory"),
        ({"ca": ours.key}, "attachd.key: "),
        ({"cert": ours.cert}, "attachd.pem: "),
        ({"cert": ours.cert, "key": locked.key}, "locked.key: "),  # and nobody is asked for the password
        ({"cert": locked.cert, "key": ours.key}, "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(Misconfigured, match=problem.replace(".", r"\.")):
            Tls(**tls)


# ── unix sockets ───────────────────────────────────────────────────────────────────────────────

LISTENER = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(path)
    os.chmod(path, 0o777)
    if uid != os.geteuid():
        os.setuid(uid)
    listening.listen()
    print("listening", flush=True)
    connection, _ = listening.accept()
    got = b""
    while chunk := connection.recv(65536):
        got += chunk
        if b"token" in got:
            connection.sendall(b"HTTP/1.1 202 Accepted\\r\\nContent-Length: 0\\r\\n\\r\\n")
    print(len(got), flush=True)
"""


@contextmanager
def listener(path: Path, uid: int) -> Iterator["subprocess.Popen[str]"]:
    """Another process, of this user, behind the socket; prints how many bytes it was sent when it is left."""
    command = [sys.executable, "-c", LISTENER, str(path), str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process
        finally:
            process.kill()


def bytes_sent(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize("by", ["name", "number"])
async def test_a_listener_of_the_expected_user_gets_the_chat(tmp_path: Path, by: str) -> None:
    uid = os.geteuid()
    with listener(tmp_path / "bot.sock", uid) as process:
        user = pwd.getpwuid(uid).pw_name if by == "name" else uid
        async with webhook(f"unix://{tmp_path}/bot.sock", peer_user=user) as runtime:
            await runtime.offer(handoff())
        assert bytes_sent(process) > 0


@pytest.mark.parametrize("user", [os.geteuid() + 1, "nobody", "nobody-by-that-name"])
async def test_a_listener_of_another_user_is_sent_not_a_byte(tmp_path: Path, user: str | int) -> None:
    with listener(tmp_path / "bot.sock", os.geteuid()) as process:
        error = await refused(f"unix://{tmp_path}/bot.sock", peer_user=user)
        assert (error.reason, error.ambiguous) == ("wrong_peer", False)
        assert f"uid {os.geteuid()} listens" in error.detail
        assert str(user) in error.detail
        assert bytes_sent(process) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
async def test_who_listens_counts_not_whose_the_file_is(tmp_path: Path) -> None:
    with listener(tmp_path / "bot.sock", uid=65_534) as process:
        error = await refused(f"unix://{tmp_path}/bot.sock", peer_user=0)
        assert "uid 65534 listens" in error.detail
        assert bytes_sent(process) == 0
