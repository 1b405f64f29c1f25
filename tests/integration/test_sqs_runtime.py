"""A bot behind a queue, on moto's real SQS: what lies there, who can read it, and what SQS's failures come out as."""

import base64
import json
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from structlog.testing import capture_logs

from attachd import aws
from attachd.errors import Misconfigured, Transient
from attachd.model import Bot, ChatEnded, Connection, Contact, Handoff, Participant, Secret
from attachd.runtimes.seal import Seal
from attachd.runtimes.sqs import SqsRuntime
from embedded import Queues, sqs

TOKEN = "CANARY+QVFJREFIZ0c0dTk4eXpNa1ZqS2M2N3Y1c0pXbGhOQ2c/LzE1NTk="
INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
KEY = ECKey.generate_key("P-256")


def handoff(contact: str = "c-1", generation: int = 1, *, seconds: float = 15) -> Handoff:
    return Handoff(
        key=f"{contact}_{generation}",
        contact=Contact(contact, INSTANCE, "CHAT", contact, tags={"language": "de", "emoji": "🙂"}),
        bot=Bot("concierge", "Ava", "ava"),
        rule="chat",
        generation=generation,
        participant=Participant("p-1", Secret(TOKEN), "2027-01-16T08:00:00.000Z"),
        connect_by=time.time() + seconds,
    )


FAREWELL = ChatEnded("c-1_1_ended", handoff().contact, handoff().bot.name, 1, "ended")


@pytest.fixture(scope="module")
def queues() -> Iterator[Queues]:
    with sqs() as made:
        yield made


@pytest.fixture
def make(queues: Queues, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Makes queues; attachd's clients find them."""
    for name, value in queues.environment.items():
        monkeypatch.setenv(name, value)

    def queue(name: str = "bot", **attributes: str) -> str:
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        made = queues.client.create_queue(QueueName=f"{tmp_path.name[-40:]}-{name}", Attributes=attributes)
        return str(made["QueueUrl"])

    return queue


def seal(folder: Path, key: ECKey | RSAKey = KEY) -> Seal:
    path = folder / "bot.pub"
    path.write_bytes(key.as_pem(private=False))
    return Seal(path)


@asynccontextmanager
async def runtime(
    queue_url: str, sealing: Seal, *, wants_ended: bool = True, try_seconds: float = 5
) -> AsyncIterator[SqsRuntime]:
    made = SqsRuntime(
        partial(aws.session, os.environ),
        queue_url,
        sealing,
        timeout_seconds=try_seconds,
        wants_ended=wants_ended,
        now=time.time,
        user_agent="attachd/test",
    )
    async with made.open():
        yield made


def messages(queues: Queues, url: str) -> list[dict[str, Any]]:
    """Everything that lies there; taken away."""
    found: list[dict[str, Any]] = []
    asked = {"QueueUrl": url, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    while got := queues.client.receive_message(MaxNumberOfMessages=10, **asked).get("Messages", []):
        for message in got:
            queues.client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        found += got
    return found


def clear(message: dict[str, Any]) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


def parts(jwe: str) -> tuple[dict[str, Any], list[bytes], bytes]:
    """The header, the other four parts, and what the seal's tag covers beside the ciphertext."""
    head, *rest = jwe.split(".")
    return json.loads(_decoded(head)), [_decoded(part) for part in rest], head.encode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def opened(jwe: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> dict[str, Any]:
    """RFC 7516 and 7518 by the letter, without a JOSE library: whatever a bot is written in can do this."""
    header, (wrapped, iv, ciphertext, tag), covered = parts(jwe)
    assert header["enc"] == "A256GCM"
    if isinstance(key, rsa.RSAPrivateKey):
        assert header["alg"] == "RSA-OAEP-256"
        content_key = key.decrypt(wrapped, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    else:
        assert header["alg"] == "ECDH-ES+A256KW"
        x, y = (int.from_bytes(_decoded(header["epk"][name])) for name in ("x", "y"))
        shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
        name = b"ECDH-ES+A256KW"
        info = len(name).to_bytes(4) + name + bytes(8) + (256).to_bytes(4)
        content_key = aes_key_unwrap(ConcatKDFHash(SHA256(), 32, info).derive(shared), wrapped)
    event: dict[str, Any] = json.loads(AESGCM(content_key).decrypt(iv, ciphertext + tag, covered))
    return event


def private(key: ECKey | RSAKey) -> Any:
    assert key.private_key is not None
    return key.private_key


async def failed(call: Any) -> Transient:
    with pytest.raises(Transient) as raised:
        await call
    printed = "".join(traceback.format_exception(raised.value)) + repr(vars(raised.value))
    assert TOKEN[:6] not in printed
    return raised.value


# ── what lies there ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "another"),
    [
        (KEY, ECKey.generate_key("P-256")),
        (RSAKey.generate_key(2048), RSAKey.generate_key(2048)),
    ],
    ids=["EC", "RSA"],
)
async def test_only_who_has_the_private_key_can_read_a_hand_off(
    queues: Queues, make: Callable[..., str], tmp_path: Path, key: ECKey | RSAKey, another: ECKey | RSAKey
) -> None:
    url = make()
    async with runtime(url, seal(tmp_path, key)) as sqs_runtime:
        await sqs_runtime.offer(handoff())
        await sqs_runtime.offer(handoff("c-2"))
    first, second = messages(queues, url)
    assert "CANARY" not in json.dumps([first, second])
    event = opened(first["Body"], private(key))
    assert (event["type"], event["id"]) == ("attachd.chat.attached.v1", "c-1_1")
    assert event["data"]["participant"]["token"] == TOKEN
    assert event["data"]["contact"]["tags"] == {"language": "de", "emoji": "🙂"}
    assert opened(second["Body"], private(key))["subject"] == "c-2"
    header, _, _ = parts(first["Body"])
    assert header["kid"] == key.thumbprint()
    assert header["cty"] == "cloudevents+json"
    with pytest.raises((InvalidUnwrap, ValueError)):
        opened(first["Body"], private(another))


async def test_what_a_consumer_needs_to_drop_a_late_one_stands_in_clear_and_no_credential(
    queues: Queues, make: Callable[..., str], tmp_path: Path
) -> None:
    url, offered = make(), handoff()
    connected = replace(offered.participant, connection=Connection(Secret(TOKEN), "2027-01-16T08:00:00.000Z"))
    async with runtime(url, seal(tmp_path)) as sqs_runtime:
        await sqs_runtime.offer(offered)
        await sqs_runtime.offer(replace(handoff("c-2", seconds=-60), participant=connected))
        await sqs_runtime.ended(FAREWELL)
    attached, by_us, ended = messages(queues, url)
    assert clear(attached).keys() == {"attachd.id", "attachd.type", "attachd.connect_by"}
    assert clear(attached)["attachd.id"] == "c-1_1"
    event = opened(attached["Body"], private(KEY))
    assert clear(attached)["attachd.connect_by"] == event["data"]["participant"]["connect_by"]
    assert clear(by_us) == {"attachd.id": "c-2_1", "attachd.type": "attachd.chat.attached.v1"}
    assert clear(ended) == {"attachd.id": "c-1_1_ended", "attachd.type": "attachd.chat.ended.v1"}
    assert opened(ended["Body"], private(KEY))["data"]["reason"] == "ended"


async def test_a_fifo_queue_keeps_a_contacts_messages_in_order_and_drops_what_came_before(
    queues: Queues, make: Callable[..., str], tmp_path: Path
) -> None:
    url = make("bot.fifo")
    long = "c" * 200
    async with runtime(url, seal(tmp_path)) as sqs_runtime:
        for _ in range(3):
            await sqs_runtime.offer(handoff())
        await sqs_runtime.ended(FAREWELL)
        await sqs_runtime.offer(handoff(long))
    found = messages(queues, url)
    assert [clear(message)["attachd.id"] for message in found] == ["c-1_1", "c-1_1_ended", f"{long}_1"]
    ids = [(m["Attributes"]["MessageGroupId"], m["Attributes"]["MessageDeduplicationId"]) for m in found]
    assert ids[:2] == [("c-1", "c-1_1"), ("c-1", "c-1_1_ended")]
    # SQS takes no more than 128 characters.
    assert ids[2] == (sha256(long.encode()).hexdigest(), sha256(f"{long}_1".encode()).hexdigest())


async def test_a_dead_token_is_not_put_there(
    queues: Queues, make: Callable[..., str], tmp_path: Path
) -> None:
    url = make()
    async with runtime(url, seal(tmp_path)) as sqs_runtime:
        late = await failed(sqs_runtime.offer(handoff(seconds=0)))
    assert (late.reason, late.ambiguous) == ("window_closed", False)
    assert messages(queues, url) == []


async def test_a_bot_that_did_not_ask_for_ends_is_not_told_of_them(
    queues: Queues, make: Callable[..., str], tmp_path: Path
) -> None:
    url = make()
    async with runtime(url, seal(tmp_path), wants_ended=False) as sqs_runtime:
        await sqs_runtime.ended(FAREWELL)
    assert messages(queues, url) == []


# ── whether it is there ────────────────────────────────────────────────────────────────────────


async def test_a_queue_that_does_not_exist_ends_the_start(make: Callable[..., str], tmp_path: Path) -> None:
    url = make() + "-misspelt"
    with pytest.raises(Misconfigured, match="misspelt does not exist"):
        async with runtime(url, seal(tmp_path)):
            pass


async def test_a_queue_that_is_deleted_later_is_not_there_for_the_probe(
    queues: Queues, make: Callable[..., str], tmp_path: Path
) -> None:
    url = make()
    async with runtime(url, seal(tmp_path)) as sqs_runtime:
        await sqs_runtime.probe()
        queues.client.delete_queue(QueueUrl=url)
        assert (await failed(sqs_runtime.probe())).reason == "queue_missing"
        assert (await failed(sqs_runtime.offer(handoff()))).reason == "queue_missing"


async def test_a_queue_that_keeps_messages_for_days_is_warned_of(
    make: Callable[..., str], tmp_path: Path
) -> None:
    with capture_logs() as logs:
        async with runtime(make("default"), seal(tmp_path)):
            pass
        async with runtime(make("short", MessageRetentionPeriod="60"), seal(tmp_path)):
            pass
    assert [(line["event"], line["seconds"]) for line in logs] == [("runtime.messages_kept", 345_600)]


@pytest.mark.parametrize(
    ("answer", "reason", "ambiguous"),
    [("throttled", "throttled", False), ("broken", "sqs_internal", True), ("slow", "timeout", True)],
)
async def test_a_queue_that_fails_may_do_better_next_time(
    queues: Queues, make: Callable[..., str], tmp_path: Path, answer: str, reason: str, *, ambiguous: bool
) -> None:
    async with runtime(make(), seal(tmp_path), try_seconds=1.5) as sqs_runtime:
        queues.answers.append(answer)
        error = await failed(sqs_runtime.offer(handoff()))
        assert (error.reason, error.ambiguous) == (reason, ambiguous)
        await sqs_runtime.offer(handoff())


async def test_no_try_outlives_the_token(queues: Queues, make: Callable[..., str], tmp_path: Path) -> None:
    async with runtime(make(), seal(tmp_path), try_seconds=5) as sqs_runtime:
        await sqs_runtime.offer(handoff("c-0"))  # the first call loads what the next has
        queues.answers.append("slow")
        began = time.monotonic()
        assert (await failed(sqs_runtime.offer(handoff(seconds=0.5)))).reason == "timeout"
        assert time.monotonic() - began < queues.slow_seconds - 1


@pytest.mark.parametrize(
    ("status", "body", "reason", "ambiguous"),
    [
        (403, {"__type": "com.amazonaws.sqs#AccessDeniedException"}, "access_denied", False),
        (403, {"__type": "UnrecognizedClientException"}, "credentials", False),
        (400, {"__type": "com.amazonaws.sqs#InvalidMessageContents"}, "sqs_refused", False),
        (503, {"__type": "ServiceUnavailable"}, "sqs_internal", True),
        (200, [], "malformed_reply", True),
    ],
)
async def test_what_sqs_says_is_told_in_one_word(
    make: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: Any,
    reason: str,
    *,
    ambiguous: bool,
) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status, content_type="application/x-amz-json-1.0")

    url = make()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://{}:{}".format(*runner.addresses[0]))
        async with runtime(url, seal(tmp_path)) as sqs_runtime:
            error = await failed(sqs_runtime.offer(handoff()))
    finally:
        await runner.cleanup()
    assert (error.reason, error.ambiguous) == (reason, ambiguous)


async def test_rotated_credentials_are_taken_up_under_way(
    queues: Queues, make: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attachd.aws._RENEW_SECONDS", 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "old")
    url = make()
    async with runtime(url, seal(tmp_path)) as made:
        await made.offer(handoff("c-1"))
        queues.expired.add("old")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new")
        with pytest.raises(Transient) as failed:
            await made.offer(handoff("c-2"))
        assert failed.value.reason == "credentials"
        await made.offer(handoff("c-2"))
    assert [clear(message)["attachd.id"] for message in messages(queues, url)] == ["c-1_1", "c-2_1"]


async def test_an_sqs_that_nobody_reaches_does_not_end_the_start(
    make: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    with capture_logs() as logs:
        async with runtime(url, seal(tmp_path)) as sqs_runtime:
            error = await failed(sqs_runtime.offer(handoff()))
    assert (error.reason, error.ambiguous) == ("unreachable", False)
    assert [line["event"] for line in logs] == ["runtime.not_checked"]


async def test_without_a_region_the_start_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(Misconfigured, match="AWS_REGION"):
        async with runtime("http://127.0.0.1:1/111122223333/bot", seal(tmp_path)):
            pass


# ── keys ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", [KEY, RSAKey.generate_key(2048)], ids=["EC", "RSA"])
def test_a_key_may_be_pem_or_a_jwk_whose_id_is_kept(tmp_path: Path, key: ECKey | RSAKey) -> None:
    path = tmp_path / "bot.pub"
    for text, kid in (
        (key.as_pem(private=False).decode(), key.thumbprint()),
        (json.dumps(key.as_dict(private=False)), key.thumbprint()),
        (json.dumps(key.as_dict(private=False) | {"kid": "2027-01", "use": "enc"}), "2027-01"),
    ):
        path.write_text(text)
        jwe = Seal(path).sealed(b'{"a": 1}')
        assert parts(jwe)[0]["kid"] == kid
        assert opened(jwe, private(key)) == {"a": 1}


def test_a_private_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bot.key"
    for text in (KEY.as_pem(private=True).decode(), json.dumps(KEY.as_dict(private=True))):
        path.write_text(text)
        with pytest.raises(
            Misconfigured, match="this is a private key, which is the runtime's alone"
        ) as said:
            Seal(path)
        assert str(KEY.as_dict(private=True)["d"]) not in str(said.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_YSBrZXkgdG8gc2lnbiB3aXRo",
        "{}",
        "[1]",
        '{"kty": "EC"}',
        '{"kty": "EC", "crv": "P-256", "x": 1, "y": 2}',
        json.dumps(ECKey.generate_key("P-384").as_dict(private=False)),
        json.dumps(OKPKey.generate_key("X25519").as_dict(private=False)),
        json.dumps(OctKey.generate_key(256).as_dict()),
        rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    ],
    ids=["empty", "a secret", "{}", "[1]", "half", "numbers", "P-384", "X25519", "symmetric", "RSA 1024"],
)
def test_what_is_no_key_to_seal_for_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bot.pub"
    path.write_text(text)
    with pytest.raises(Misconfigured) as said:
        Seal(path)
    assert str(said.value).startswith(f"public_key {path}: not a public key to seal for")


def test_a_key_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"bot\.pub: .*No such file"):
        Seal(tmp_path / "bot.pub")
