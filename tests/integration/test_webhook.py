"""The webhook, against real sockets: what goes out, to whom, and what every answer comes out as."""

import base64
import json
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import socket
from typing import Any

import anyio
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from attachd.errors import Permanent, Transient
from attachd.model import Bot, ChatEnded, Connection, Contact, Handoff, Outcome, Participant, Secret
from attachd.runtimes.webhook import WebhookRuntime

TOKEN = "CANARY+QVFJREFIZ0c0dTk4eXpNa1ZqS2M2N3Y1c0pXbGhOQ2c/LzE1NTk="
INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
KEYS = [
    "whsec_" + base64.b64encode(f"signing key of the tests, number {n}".encode()).decode() for n in range(3)
]
HANDOFF = Handoff(
    key="c-1_2",
    contact=Contact(
        id="c-1",
        instance_arn=INSTANCE,
        channel="CHAT",
        initial_id="c-0",
        previous_id="c-0",
        related_id=None,
        initiation_method="API",
        initiated_at=1_799_999_999.5,
        segment_attributes={"connect:Subtype": "connect:Chat", "plan": "gold"},
        tags={"language": "de-AT", "emoji": "🙂"},
    ),
    bot=Bot("concierge", "Ava", "ava"),
    rule="web chat in German",
    generation=2,
    participant=Participant("p-1", Secret(TOKEN), "2027-01-16T08:00:00.000Z"),
    connect_by=time.time() + 3600,
)

FAREWELL = ChatEnded("c-1_2_ended", HANDOFF.contact, HANDOFF.bot.name, 2, "ended")

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Offer:
    """A request as the bot got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, key: str) -> Any:
        return Webhook(key).verify(self.body, self.headers)


@dataclass
class Bots:
    """An endpoint that keeps what it gets; accepts, or answers as ``reply`` says."""

    url: str = ""
    reply: Reply | None = None
    offers: list[Offer] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = dict(request.headers)
        self.offers.append(Offer(request.method, request.path, headers, await request.read()))
        self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        return await self.reply(request) if self.reply is not None else web.Response(status=202)


@asynccontextmanager
async def listening(bots: Bots, socket_path: Path | None = None) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", bots.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if socket_path is None:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            bots.url = f"http://127.0.0.1:{runner.addresses[0][1]}/bots/ava?tier=1"
        else:
            await web.UnixSite(runner, str(socket_path)).start()
            bots.url = f"unix://{socket_path}"
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def bots() -> AsyncIterator[Bots]:
    made = Bots()
    async with listening(made):
        yield made


def webhook(
    url: str,
    *keys: str,
    timeout: float = 1.0,
    wants_ended: bool = True,
    now: Callable[[], float] = time.time,
) -> WebhookRuntime:
    secrets = [Secret(key) for key in keys or (KEYS[0],)]
    return WebhookRuntime(
        url, secrets, timeout_seconds=timeout, wants_ended=wants_ended, now=now, user_agent="attachd/test"
    )


async def offer(bots: Bots, *, timeout: float = 1.0, handoff: Handoff = HANDOFF) -> None:  # noqa: ASYNC109 - the runtime's own
    runtime = webhook(bots.url, timeout=timeout)
    async with runtime.open():
        await runtime.offer(handoff)


def answering(status: int, text: str | bytes = "", **headers: str) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return reply


def assert_discreet(error: BaseException) -> None:
    printed = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert not any(TOKEN[i : i + 12] in printed for i in range(len(TOKEN) - 11))
    assert not any(key in printed for key in KEYS)


async def transient(call: Awaitable[Any]) -> Transient:
    with pytest.raises(Transient) as raised:
        await call
    assert_discreet(raised.value)
    return raised.value


async def permanent(call: Awaitable[None]) -> Permanent:
    with pytest.raises(Permanent) as raised:
        await call
    assert_discreet(raised.value)
    return raised.value


# ── what goes out ──────────────────────────────────────────────────────────────────────────────


async def test_the_body_is_the_documented_cloud_event(bots: Bots) -> None:
    runtime = webhook(bots.url, now=lambda: 1_800_000_001.0)
    async with runtime.open():
        await runtime.offer(replace(HANDOFF, connect_by=1_800_000_015.25))
    assert json.loads(bots.offers[0].body) == {
        "specversion": "1.0",
        "type": "attachd.chat.attached.v1",
        "source": INSTANCE,
        "subject": "c-1",
        "id": "c-1_2",
        "time": "2027-01-15T08:00:01.000Z",
        "datacontenttype": "application/json",
        "data": {
            "contact": {
                "id": "c-1",
                "initial_id": "c-0",
                "previous_id": "c-0",
                "related_id": None,
                "instance_arn": INSTANCE,
                "channel": "CHAT",
                "subtype": "connect:Chat",
                "initiation_method": "API",
                "initiated_at": "2027-01-15T07:59:59.500Z",
                "tags": {"language": "de-AT", "emoji": "🙂"},
                "segment_attributes": {"connect:Subtype": "connect:Chat", "plan": "gold"},
            },
            "bot": {"name": "concierge", "display_name": "Ava"},
            "rule": "web chat in German",
            "generation": 2,
            "participant": {
                "id": "p-1",
                "token": TOKEN,
                "expiry": "2027-01-16T08:00:00.000Z",
                "connect_by": "2027-01-15T08:00:15.250Z",
            },
        },
    }


async def test_an_end_is_the_documented_cloud_event_and_holds_no_credential(bots: Bots) -> None:
    runtime = webhook(bots.url, now=lambda: 1_800_000_001.0)
    async with runtime.open():
        await runtime.offer(replace(HANDOFF, connect_by=1_800_000_015.25))
        await runtime.ended(FAREWELL)
    hand_off, end = (json.loads(sent.body) for sent in bots.offers)
    assert end == {
        **hand_off,
        "type": "attachd.chat.ended.v1",
        "id": "c-1_2_ended",
        "data": {
            "contact": hand_off["data"]["contact"],
            "bot": {"name": "concierge"},
            "generation": 2,
            "reason": "ended",
        },
    }
    assert bots.offers[1].headers["webhook-id"] == "c-1_2_ended"
    assert TOKEN not in bots.offers[1].body.decode()


async def test_an_end_is_signed_as_a_hand_off_is(bots: Bots) -> None:
    runtime = webhook(bots.url, KEYS[0], KEYS[1])
    async with runtime.open():
        await runtime.ended(FAREWELL)
    bots.offers[0].verified(KEYS[0])
    bots.offers[0].verified(KEYS[1])


async def test_a_bot_that_did_not_ask_for_ends_is_not_told_of_them(bots: Bots) -> None:
    runtime = webhook(bots.url, wants_ended=False)
    async with runtime.open():
        await runtime.ended(FAREWELL)
    assert bots.offers == []


async def test_it_is_posted_to_the_very_url_as_a_structured_cloud_event(bots: Bots) -> None:
    await offer(bots)
    (sent,) = bots.offers
    assert (sent.method, sent.path) == ("POST", "/bots/ava")
    assert sent.headers["Content-Type"] == "application/cloudevents+json"
    assert sent.headers["User-Agent"] == "attachd/test"


async def test_over_a_unix_socket_the_path_is_attach(tmp_path: Path) -> None:
    made = Bots()
    async with listening(made, tmp_path / "bot.sock"):
        await offer(made)
    assert (made.offers[0].method, made.offers[0].path) == ("POST", "/attach")
    made.offers[0].verified(KEYS[0])


async def test_a_standard_webhooks_receiver_verifies_it(bots: Bots) -> None:
    await offer(bots)
    assert bots.offers[0].verified(KEYS[0])["id"] == HANDOFF.key
    with pytest.raises(WebhookVerificationError):
        bots.offers[0].verified(KEYS[1])


async def test_while_a_secret_is_rotated_receivers_with_either_one_verify_it(bots: Bots) -> None:
    runtime = webhook(bots.url, KEYS[0], KEYS[1])
    async with runtime.open():
        await runtime.offer(HANDOFF)
    bots.offers[0].verified(KEYS[0])
    bots.offers[0].verified(KEYS[1])
    with pytest.raises(WebhookVerificationError):
        bots.offers[0].verified(KEYS[2])


async def test_a_change_to_the_body_the_id_or_the_time_breaks_the_signature(bots: Bots) -> None:
    await offer(bots)
    (sent,) = bots.offers
    later = str(int(sent.headers["webhook-timestamp"]) + 1)
    for forged in (
        replace(sent, body=sent.body.replace(b"Ava", b"Eve")),
        replace(sent, headers=sent.headers | {"webhook-id": "c-1_3"}),
        replace(sent, headers=sent.headers | {"webhook-timestamp": later}),
    ):
        with pytest.raises(WebhookVerificationError):
            forged.verified(KEYS[0])


async def test_every_try_has_the_same_id_and_a_time_of_its_own(bots: Bots) -> None:
    times = iter([time.time(), time.time() + 4])
    runtime = webhook(bots.url, now=lambda: next(times))
    bots.reply = answering(503)
    async with runtime.open():
        for _ in range(2):
            await transient(runtime.offer(HANDOFF))
    first, second = bots.offers
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == HANDOFF.key
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) in {4, 5}
    for sent in bots.offers:
        sent.verified(KEYS[0])


async def test_a_contact_that_is_known_only_in_part_is_told_in_part(bots: Bots) -> None:
    bare = replace(HANDOFF, contact=Contact("c-1", INSTANCE, "CHAT", "c-1"))
    await offer(bots, handoff=bare)
    told = bots.offers[0].verified(KEYS[0])["data"]["contact"]
    assert (told["initiated_at"], told["subtype"], told["tags"]) == (None, None, {})


async def test_connections_are_used_again(bots: Bots) -> None:
    runtime = webhook(bots.url)
    async with runtime.open():
        for _ in range(5):
            await runtime.offer(HANDOFF)
    assert len(bots.offers) == 5
    assert len(bots.peers) == 1


async def test_a_bots_cookies_are_not_brought_back_to_it(bots: Bots) -> None:
    bots.reply = answering(202, Set_Cookie="session=1; Path=/")
    bots.url = bots.url.replace("127.0.0.1", "localhost")
    runtime = webhook(bots.url)
    async with runtime.open():
        for _ in range(2):
            await runtime.offer(HANDOFF)
    assert "Cookie" not in bots.offers[1].headers


# ── what comes back ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299, 409])
async def test_the_bot_has_the_chat_now_or_had_it_before(bots: Bots, status: int) -> None:
    bots.reply = answering(status)
    await offer(bots)
    assert len(bots.offers) == 1


@pytest.mark.parametrize(("status", "reason"), [(422, "runtime_refused"), (410, "runtime_retired")])
async def test_a_refusal_is_for_good_and_its_words_are_not_repeated(
    bots: Bots, status: int, reason: str
) -> None:
    bots.reply = answering(status, "not on Sundays")
    refused = await permanent(offer(bots))
    assert (refused.outcome, refused.reason) == (Outcome.UNSERVED, reason)
    assert "not on Sundays" not in str(refused)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "after"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("Fri, 15 Jan 2027 08:00:00 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_a_busy_bot_is_left_alone_for_the_seconds_it_asked_for(
    bots: Bots, status: int, retry_after: str, after: float | None
) -> None:
    bots.reply = answering(status, Retry_After=retry_after)
    busy = await transient(offer(bots))
    assert (busy.reason, busy.after, busy.ambiguous) == ("runtime_busy", after, False)


async def test_a_busy_bot_that_does_not_say_when_is_asked_in_our_own_time(bots: Bots) -> None:
    bots.reply = answering(503)
    assert (await transient(offer(bots))).after is None


async def test_no_bot_can_ask_us_to_wait_for_ever(bots: Bots) -> None:
    bots.reply = answering(503, Retry_After="9" * 400)
    after = (await transient(offer(bots))).after
    assert after is None or after < float("inf")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_bot_that_does_not_accept_our_signature_is_told_apart(bots: Bots, status: int) -> None:
    bots.reply = answering(status)
    unauthorized = await transient(offer(bots))
    assert unauthorized.reason == "runtime_unauthorized"
    assert "secret" in unauthorized.detail


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 500, 502, 504, 599])
async def test_any_other_answer_is_not_now(bots: Bots, status: int) -> None:
    bots.reply = answering(status, "oh dear")
    other = await transient(offer(bots))
    assert other.reason == f"runtime_{status}"
    assert "oh dear" not in str(other)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(bots: Bots, status: int) -> None:
    elsewhere = Bots()
    async with listening(elsewhere):
        bots.reply = answering(status, Location=elsewhere.url)
        assert (await transient(offer(bots))).reason == f"runtime_{status}"
    assert len(bots.offers) == 1
    assert elsewhere.offers == []


# ── what does not come back ────────────────────────────────────────────────────────────────────


async def silent(_request: web.Request) -> web.StreamResponse:
    await anyio.sleep(30)
    return web.Response()


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=500)
    await response.prepare(request)
    await response.write(b"oh dear")
    await anyio.sleep(30)
    return response


async def test_an_answer_that_never_ends_is_judged_by_its_beginning(bots: Bots) -> None:
    bots.reply = dripping
    with anyio.fail_after(2):
        assert (await transient(offer(bots, timeout=0.3))).reason in {"runtime_500", "timeout"}


async def test_a_slow_bot_may_have_taken_the_chat_and_holds_us_up_no_longer_than_the_timeout(
    bots: Bots,
) -> None:
    bots.reply = silent
    with anyio.fail_after(2):
        slow = await transient(offer(bots, timeout=0.3))
    assert (slow.reason, slow.ambiguous) == ("timeout", True)


async def test_no_try_outlives_the_token(bots: Bots) -> None:
    bots.reply = silent
    closing = replace(HANDOFF, connect_by=time.time() + 0.3)
    with anyio.fail_after(2):
        slow = await transient(offer(bots, timeout=10, handoff=closing))
    assert (slow.reason, slow.ambiguous) == ("timeout", True)


async def test_a_dead_token_is_sent_to_nobody(bots: Bots) -> None:
    late = await transient(offer(bots, handoff=replace(HANDOFF, connect_by=time.time())))
    assert (late.reason, late.ambiguous) == ("window_closed", False)
    assert bots.offers == []


async def test_a_participant_that_we_connected_has_no_fifteen_seconds_to_keep(bots: Bots) -> None:
    connected = replace(HANDOFF.participant, connection=Connection(Secret(TOKEN), "2027-01-16T08:00:00.000Z"))
    await offer(bots, handoff=replace(HANDOFF, connect_by=time.time() - 60, participant=connected))
    assert bots.offers[0].verified(KEYS[0])["data"]["participant"]["connection_token"] == TOKEN


async def test_a_bot_that_hangs_up_may_have_taken_the_chat(bots: Bots) -> None:
    bots.reply = hanging_up
    lost = await transient(offer(bots))
    assert (lost.reason, lost.ambiguous) == ("unreachable", True)
    assert len(bots.offers) == 1


async def test_a_refused_connection_had_no_effect_for_certain() -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = await transient(offer(Bots(f"http://127.0.0.1:{unused.getsockname()[1]}/attach")))
    assert (nobody.reason, nobody.ambiguous) == ("unreachable", False)
    assert "Connection refused" in str(nobody)


async def test_a_name_that_nobody_knows_is_told_from_a_port_where_nobody_listens() -> None:
    nobody = await transient(offer(Bots("http://no-such-host.invalid/attach")))
    assert (nobody.reason, nobody.ambiguous) == ("unreachable", False)
    assert re.search("[Nn]ame|resolution", str(nobody))


async def test_a_socket_that_is_not_there_had_no_effect_for_certain(tmp_path: Path) -> None:
    nobody = await transient(offer(Bots(f"unix://{tmp_path}/missing.sock")))
    assert (nobody.reason, nobody.ambiguous) == ("unreachable", False)
    assert "No such file" in str(nobody)


async def test_a_bot_that_starts_again_is_reached_again(tmp_path: Path) -> None:
    path = tmp_path / "bot.sock"
    runtime = webhook(f"unix://{path}")
    async with runtime.open():
        for _ in range(2):
            made = Bots()
            async with listening(made, path):
                await runtime.offer(HANDOFF)
            assert len(made.offers) == 1
            await transient(runtime.offer(HANDOFF))


# ── what is quoted of it ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "quoting",
    [
        lambda body: body,
        lambda body: b"x" * 150 + body,
        lambda body: json.dumps({"debug": body.decode()}).encode(),
        lambda _: f"Authorization: Bearer {TOKEN}".encode(),
        lambda _: f"token starts with {TOKEN[:14]}".encode(),
        lambda _: f"token ends with {TOKEN[-14:]}".encode(),
        lambda _: b"\xff\xfe" + TOKEN.encode() + b"\xff",
        lambda _: json.dumps({"token": TOKEN}).replace("/", "\\/").encode(),
    ],
)
@pytest.mark.parametrize("status", [410, 422, 500, 503])
async def test_an_answer_that_quotes_the_token_is_not_quoted(
    bots: Bots, status: int, quoting: Callable[[bytes], bytes]
) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=quoting(await request.read()))

    bots.reply = reply
    with pytest.raises((Transient, Permanent)) as failed:
        await offer(bots)
    assert_discreet(failed.value)
    assert str(status) in str(failed.value)


async def test_of_a_long_answer_only_the_beginning_is_quoted(bots: Bots) -> None:
    bots.reply = answering(500, "no " * 1_000_000)
    assert len(str(await transient(offer(bots)))) < 400


async def test_an_answer_that_is_no_text_is_still_an_answer(bots: Bots) -> None:
    bots.reply = answering(422, bytes(range(256)))
    assert (await permanent(offer(bots))).reason == "runtime_refused"


async def test_the_runtimes_own_repr_shows_no_secret(bots: Bots) -> None:
    runtime = webhook(bots.url)
    assert not any(key.removeprefix("whsec_") in repr(vars(runtime)) for key in KEYS)


@pytest.mark.parametrize("status", [202, 409])
@pytest.mark.parametrize("ending", ["stalls", "breaks off"])
async def test_a_yes_stands_whatever_becomes_of_its_body(bots: Bots, status: int, ending: str) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"yes, ")
        if ending == "stalls":
            await anyio.sleep(5)
        elif request.transport is not None:
            request.transport.abort()
        return response

    bots.reply = half
    await offer(bots)
    assert len(bots.offers) == 1


async def test_the_path_and_query_of_an_address_are_in_no_error() -> None:
    runtime = webhook("http://127.0.0.1:9/attach?key=hunter3")
    async with runtime.open():
        with pytest.raises(Transient) as refusal:
            await runtime.offer(HANDOFF)
    assert "hunter3" not in str(refusal.value)
    assert "http://127.0.0.1:9" in str(refusal.value)
