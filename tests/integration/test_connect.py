"""The calls to Connect: what goes over the wire, and what every answer, or the lack of one, comes out as."""

import json
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Any

import anyio
import pytest
from aiobotocore.session import AioSession, get_session
from aiohttp import web

from attachd import aws
from attachd.connect import Connect
from attachd.errors import Misconfigured, Permanent, Transient
from attachd.failures import ERRORS
from attachd.model import AttachRequest, ContactState, Outcome, Participant, Secret

TOKEN = "CANARY-participant-token"
CONNECTION = "CANARY-connection-token"
SESSION = get_session()  # one, since it remembers the service models it has read
REQUEST = AttachRequest(
    instance_id="0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    contact_id="6ba7b810-9dad-41d1-80b4-00c04fd430c8",
    client_token="a-client-token-of-ours",
    display_name="Ava, the concierge",
    capabilities={"Video": "SEND"},
)
PARTICIPANT = Participant("p-1", Secret(TOKEN), "2026-01-02T00:00:00Z")
CREATED = {
    "ParticipantId": "p-1",
    "ParticipantCredentials": {"ParticipantToken": TOKEN, "Expiry": "2026-01-02T00:00:00Z"},
}
CONNECTED = {"ConnectionCredentials": {"ConnectionToken": CONNECTION, "Expiry": "2026-01-02T00:00:00Z"}}
PATHS = {
    "/contact/create-participant": CREATED,
    "/participant/connection": CONNECTED,
    "/participant/disconnect": {},
}

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Call:
    """A request as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Scripted:
    """Connect and the Participant Service: answers well, or as ``replies`` says for a path."""

    url: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Call(request.path, headers, json.loads(text) if text.startswith("{") else {}))
        if (reply := self.replies.get(request.path)) is not None:
            return await reply(request)
        return web.json_response(PATHS[request.path])

    def on_create(self, reply: Reply) -> None:
        self.replies["/contact/create-participant"] = reply


@asynccontextmanager
async def serving(answer: Reply) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture
async def server(credentials: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scripted]:  # noqa: ARG001 - ordered before
    scripted = Scripted()
    async with serving(scripted.answer) as scripted.url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", scripted.url)
        yield scripted


@pytest.fixture
async def connect(server: Scripted) -> AsyncIterator[Connect]:  # noqa: ARG001 - its address is in the environment
    made = Connect(lambda: SESSION, "attachd/test")
    async with made.open():
        yield made


def refusing(
    status: int, code: str | None = None, *, in_body: bool = False, body: dict[str, Any] | None = None
) -> Reply:
    """An error as AWS spells it, whose message quotes the whole request."""

    async def reply(request: web.Request) -> web.StreamResponse:
        quoted = f"you said {await request.text()} {dict(request.headers)} {TOKEN} {CONNECTION}"
        document = body if body is not None else {"message": quoted}
        headers = {"x-amzn-RequestId": "request-1"}
        if code is not None and in_body:
            document = document | {"__type": f"com.amazonaws.connect#{code}"}
        elif code is not None:
            headers["x-amzn-ErrorType"] = f"{code}:http://internal.amazon.com/coral/"
        return web.json_response(document, status=status, headers=headers)

    return reply


def saying(text: str | bytes, status: int = 200) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(body=body, status=status, content_type="application/json")

    return reply


async def silent(_request: web.Request) -> web.StreamResponse:
    await anyio.sleep(30)
    return web.Response()


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def resetting(request: web.Request) -> web.StreamResponse:
    """RST, after the request has been read."""
    assert request.transport is not None
    wire = request.transport.get_extra_info("socket")
    wire.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def half_a_reply(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(json.dumps(CREATED).encode()[:-5])
    assert request.transport is not None
    request.transport.abort()
    return response


async def a_reply_that_stops(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"ParticipantId"')
    await anyio.sleep(30)
    return response


def printed(error: BaseException) -> str:
    """Everything that a log could print of an exception, and of those that it does not hide."""
    seen, at = [], error
    while at is not None:
        seen.append("".join(traceback.format_exception(at)) + str(at) + repr(at) + repr(vars(at)))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)  # type: ignore[assignment]
    return "\n".join(seen)


def assert_discreet(error: BaseException) -> None:
    said = printed(error)
    for secret in ("CANARY", REQUEST.client_token, REQUEST.display_name, "the-secret-key", "you said"):
        assert secret not in said


async def transient(call: Awaitable[Any]) -> tuple[str, float | None, bool]:
    with pytest.raises(Transient) as raised:
        await call
    assert_discreet(raised.value)
    return raised.value.reason, raised.value.after, raised.value.ambiguous


async def permanent(call: Awaitable[Any]) -> tuple[Outcome, str]:
    with pytest.raises(Permanent) as raised:
        await call
    assert_discreet(raised.value)
    return raised.value.outcome, raised.value.reason


async def dismiss(connect: Connect, participant: Participant) -> None:
    """What the recipe makes of two calls."""
    await connect.disconnect(await connect.connect(participant))


# ── what goes over the wire ────────────────────────────────────────────────────────────────────


async def test_every_field_of_the_request_goes_over_the_wire(server: Scripted, connect: Connect) -> None:
    made = await connect.attach(REQUEST)
    (call,) = server.calls
    assert call.path == "/contact/create-participant"
    assert call.body == {
        "InstanceId": REQUEST.instance_id,
        "ContactId": REQUEST.contact_id,
        "ClientToken": REQUEST.client_token,
        "ParticipantDetails": {
            "ParticipantRole": "CUSTOM_BOT",
            "DisplayName": REQUEST.display_name,
            "ParticipantCapabilities": {"Video": "SEND"},
        },
    }
    assert made == PARTICIPANT


async def test_a_request_without_capabilities_names_none(server: Scripted, connect: Connect) -> None:
    await connect.attach(AttachRequest("i", "c", "t", "Ava", role="AGENT"))
    assert server.calls[0].body["ParticipantDetails"] == {"ParticipantRole": "AGENT", "DisplayName": "Ava"}


async def test_create_participant_is_signed_and_the_participant_service_gets_the_bearer_alone(
    server: Scripted, connect: Connect
) -> None:
    await connect.attach(REQUEST)
    await dismiss(connect, PARTICIPANT)
    create, join, leave = server.calls
    assert create.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    assert [call.path for call in (join, leave)] == ["/participant/connection", "/participant/disconnect"]
    assert [call.headers["x-amz-bearer"] for call in (join, leave)] == [TOKEN, CONNECTION]
    assert not any("authorization" in call.headers for call in (join, leave))
    assert join.body == {"Type": ["CONNECTION_CREDENTIALS"], "ConnectParticipant": True}
    assert all(call.headers["user-agent"].startswith("attachd/test") for call in server.calls)


async def test_a_dismissal_whose_first_call_fails_makes_no_second(server: Scripted, connect: Connect) -> None:
    server.replies["/participant/connection"] = refusing(500, "InternalServerException")
    await transient(dismiss(connect, PARTICIPANT))
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "reply",
    [
        refusing(429, "ThrottlingException"),
        refusing(500, "InternalServiceException"),
        refusing(503, "ServiceUnavailable"),
        hanging_up,
        half_a_reply,
    ],
)
async def test_the_sdk_never_tries_again_by_itself(server: Scripted, connect: Connect, reply: Reply) -> None:
    server.on_create(reply)
    server.replies["/participant/connection"] = reply
    await transient(connect.attach(REQUEST))
    await transient(dismiss(connect, PARTICIPANT))
    assert len(server.calls) == 2


async def test_fifty_calls_are_under_way_at_once(server: Scripted, connect: Connect) -> None:
    all_there = anyio.Event()

    async def together(_request: web.Request) -> web.StreamResponse:
        if len(server.calls) == 50:
            all_there.set()
        await all_there.wait()
        return web.json_response(CREATED)

    server.on_create(together)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(connect.attach, REQUEST)


# ── the table ──────────────────────────────────────────────────────────────────────────────────

TRANSIENTS = [
    (429, "ThrottlingException", "throttled", None, False),
    (400, "ThrottlingException", "throttled", None, False),
    (429, "TooManyRequestsException", "throttled", None, False),
    (400, "Throttling", "throttled", None, False),
    (503, "RequestLimitExceeded", "throttled", None, False),
    (400, "RequestTimeoutException", "timeout", None, False),
    (500, "InternalServiceException", "connect_internal", None, True),
    (503, "ServiceUnavailable", "connect_unavailable", None, True),
    (403, "AccessDeniedException", "access_denied", None, False),
    (403, "UnrecognizedClientException", "credentials", None, False),
    (403, "InvalidSignatureException", "credentials", None, False),
    (403, "ExpiredTokenException", "credentials", None, False),
    (403, "ExpiredToken", "credentials", None, False),
    (403, "SignatureDoesNotMatch", "credentials", None, False),
    (400, "RequestExpired", "clock_skew", None, False),
    (403, "RequestTimeTooSkewed", "clock_skew", None, False),
]
PERMANENTS = [
    (402, "ServiceQuotaExceededException", Outcome.OCCUPIED, "quota_exceeded"),
    (409, "ConflictException", Outcome.OCCUPIED, "conflict"),
    (404, "ResourceNotFoundException", Outcome.REFUSED, "not_found"),
    (400, "InvalidRequestException", Outcome.REFUSED, "invalid_request"),
    (400, "ValidationException", Outcome.REFUSED, "invalid_request"),
    (400, "InvalidParameterException", Outcome.REFUSED, "invalid_request"),
    (429, "LimitExceededException", Outcome.REFUSED, "limit_exceeded"),
]


def test_every_row_of_the_table_is_tried_here() -> None:
    assert {row[1] for row in TRANSIENTS} | {row[1] for row in PERMANENTS} == set(ERRORS)


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize(("status", "code", "reason", "after", "ambiguous"), TRANSIENTS)
async def test_an_error_that_passes_is_told_with_its_reason(
    server: Scripted,
    connect: Connect,
    status: int,
    code: str,
    reason: str,
    after: float | None,
    ambiguous: bool,  # noqa: FBT001 - a column of the table
    in_body: bool,  # noqa: FBT001 - both spellings of AWS
) -> None:
    server.on_create(refusing(status, code, in_body=in_body))
    assert await transient(connect.attach(REQUEST)) == (reason, after, ambiguous)


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize(("status", "code", "outcome", "reason"), PERMANENTS)
async def test_an_error_that_stays_ends_the_delivery_with_its_outcome(
    server: Scripted,
    connect: Connect,
    status: int,
    code: str,
    outcome: Outcome,
    reason: str,
    in_body: bool,  # noqa: FBT001 - both spellings of AWS
) -> None:
    server.on_create(refusing(status, code, in_body=in_body))
    assert await permanent(connect.attach(REQUEST)) == (outcome, reason)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, "SomethingNew", ("connect_internal", None, True)),
        (500, None, ("connect_internal", None, True)),
        (502, None, ("connect_internal", None, True)),
        (504, None, ("connect_internal", None, True)),
        (429, "SomethingNew", ("throttled", None, False)),
        (429, None, ("throttled", None, False)),
    ],
)
async def test_an_unmodelled_error_is_judged_by_its_status(
    server: Scripted, connect: Connect, status: int, code: str | None, expected: tuple[str, None, bool]
) -> None:
    server.on_create(refusing(status, code))
    assert await transient(connect.attach(REQUEST)) == expected


@pytest.mark.parametrize(
    ("status", "code"), [(400, "Surprise"), (404, None), (407, None), (421, None), (425, None)]
)
async def test_a_refusal_that_is_not_known_as_one_ends_no_chat_for_good(
    server: Scripted, connect: Connect, status: int, code: str | None
) -> None:
    server.on_create(refusing(status, code))
    _, after, ambiguous = await transient(connect.attach(REQUEST))
    assert (after, ambiguous) == (5.0, False)


@pytest.mark.parametrize("code", ["RequestTimeoutException", "RequestTimeout", None])
async def test_a_request_that_arrived_too_slowly_is_worth_another_try(
    server: Scripted, connect: Connect, code: str | None
) -> None:
    server.on_create(refusing(408, code))
    _, _, ambiguous = await transient(connect.attach(REQUEST))
    assert ambiguous is False


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "InvalidClientTokenId"),
        (403, "MissingAuthenticationToken"),
        (403, "SignatureDoesNotMatch"),
        (403, "OptInRequired"),
        (403, None),
        (401, None),
    ],
)
async def test_no_trouble_with_our_own_credentials_ever_refuses_a_chat_for_good(
    server: Scripted, connect: Connect, status: int, code: str | None
) -> None:
    server.on_create(refusing(status, code))
    assert await transient(connect.attach(REQUEST)) == ("credentials", None, False)


async def test_the_request_id_is_told_for_the_support_case(server: Scripted, connect: Connect) -> None:
    server.on_create(refusing(429, "ThrottlingException"))
    with pytest.raises(Transient, match="request-1"):
        await connect.attach(REQUEST)


# ── no answer, or half of one ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (silent, "timeout"),
        (a_reply_that_stops, "timeout"),
        (hanging_up, "connection"),
        (resetting, "connection"),
        (half_a_reply, "connection"),
    ],
)
async def test_a_call_that_is_not_answered_may_have_had_its_effect(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, reply: Reply, reason: str
) -> None:
    monkeypatch.setattr("attachd.connect._READ_SECONDS", 0.3)
    server.on_create(reply)
    connect = Connect(lambda: SESSION, "attachd/test")
    async with connect.open():
        with anyio.fail_after(3):
            assert await transient(connect.attach(REQUEST)) == (reason, None, True)


@pytest.mark.usefixtures("credentials")
async def test_a_refused_connection_had_no_effect_for_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        connect = Connect(lambda: SESSION, "attachd/test")
        async with connect.open():
            assert await transient(connect.attach(REQUEST)) == ("unreachable", None, False)
            reason, _, _ = await transient(dismiss(connect, PARTICIPANT))
            assert reason == "unreachable"


MALFORMED = [
    "",
    "{}",
    "{",
    "null",
    "true",
    "[]",
    '"text"',
    "<html>a proxy speaks</html>",
    b"\xff\xfe\x00",
    '{"ParticipantId": "p-1"}',
    '{"ParticipantId": "p-1", "ParticipantCredentials": null}',
    '{"ParticipantId": "p-1", "ParticipantCredentials": {}}',
    '{"ParticipantId": "p-1", "ParticipantCredentials": []}',
    '{"ParticipantId": "p-1", "ParticipantCredentials": "token"}',
    json.dumps({"ParticipantCredentials": CREATED["ParticipantCredentials"]}),
    json.dumps(CREATED | {"ParticipantId": None}),
    json.dumps(CREATED | {"ParticipantCredentials": {"ParticipantToken": None}}),
    "[" * 100_000,
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:60]))
async def test_a_malformed_answer_may_have_had_its_effect(
    server: Scripted, connect: Connect, body: str | bytes
) -> None:
    server.on_create(saying(body))
    assert await transient(connect.attach(REQUEST)) == ("malformed_reply", None, True)


@pytest.mark.parametrize("body", ["[]", "null", b"\xff\xfe\x00", "<html>a proxy speaks</html>"])
async def test_a_malformed_error_is_judged_by_its_status(
    server: Scripted, connect: Connect, body: str | bytes
) -> None:
    server.on_create(saying(body, status=503))
    _, _, ambiguous = await transient(connect.attach(REQUEST))
    assert ambiguous is True


async def test_an_answer_without_an_expiry_is_good_enough(server: Scripted, connect: Connect) -> None:
    bare = {"ParticipantId": "p-1", "ParticipantCredentials": {"ParticipantToken": TOKEN}}
    server.on_create(saying(json.dumps(bare)))
    assert await connect.attach(REQUEST) == Participant("p-1", Secret(TOKEN), "")


async def test_a_request_that_the_sdk_itself_refuses_never_leaves(server: Scripted, connect: Connect) -> None:
    request = AttachRequest("", "", REQUEST.client_token, REQUEST.display_name)
    assert await permanent(connect.attach(request)) == (Outcome.REFUSED, "invalid_request")
    assert server.calls == []


# ── dismissal ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/participant/connection", "/participant/disconnect"])
@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDeniedException"), (404, "ResourceNotFoundException")]
)
async def test_a_participant_that_is_gone_is_not_asked_after_again(
    server: Scripted, connect: Connect, path: str, status: int, code: str
) -> None:
    server.replies[path] = refusing(status, code)
    await permanent(dismiss(connect, PARTICIPANT))
    assert [call.path for call in server.calls].count(path) == 1


@pytest.mark.parametrize("path", ["/participant/connection", "/participant/disconnect"])
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [(429, "ThrottlingException", "throttled"), (500, "InternalServerException", "connect_internal")],
)
async def test_a_participant_service_that_is_unwell_is_worth_another_try(
    server: Scripted, connect: Connect, path: str, status: int, code: str, reason: str
) -> None:
    server.replies[path] = refusing(status, code)
    assert (await transient(dismiss(connect, PARTICIPANT)))[0] == reason


@pytest.mark.parametrize("path", ["/participant/connection", "/participant/disconnect"])
async def test_an_error_of_a_dismissal_names_the_call_that_failed(
    server: Scripted, connect: Connect, path: str
) -> None:
    server.replies[path] = refusing(500, "InternalServerException")
    operation = "CreateParticipantConnection" if path.endswith("connection") else "DisconnectParticipant"
    with pytest.raises(Transient, match=operation):
        await dismiss(connect, PARTICIPANT)


@pytest.mark.parametrize("body", ["{}", "[]", '{"ConnectionCredentials": {}}', b"\xff\xfe\x00"], ids=repr)
async def test_a_malformed_answer_to_a_dismissal_is_worth_another_try(
    server: Scripted, connect: Connect, body: str | bytes
) -> None:
    server.replies["/participant/connection"] = saying(body)
    assert (await transient(dismiss(connect, PARTICIPANT)))[0] == "malformed_reply"


# ── credentials and Region ─────────────────────────────────────────────────────────────────────


def without_keys(monkeypatch: pytest.MonkeyPatch) -> AioSession:
    """A session that has found no credentials yet."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return get_session()


async def test_without_credentials_nothing_leaves_and_a_later_try_may_find_some(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_keys(monkeypatch)
    connect = Connect(get_session, "attachd/test")
    async with connect.open():
        assert await transient(connect.attach(REQUEST)) == ("credentials", None, False)
    assert server.calls == []


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidIdentityToken", "ExpiredTokenException"])
async def test_a_role_that_cannot_be_assumed_refuses_no_chat_for_good(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    async def sts(_request: web.Request) -> web.StreamResponse:
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{TOKEN}</Message></Error></ErrorResponse>"
        return web.Response(status=403 if code == "AccessDenied" else 400, text=text, content_type="text/xml")

    (tmp_path / "identity").write_text("an identity token")
    session = without_keys(monkeypatch)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/attachd")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "identity"))
    server.replies["/"] = sts
    connect = Connect(lambda: session, "attachd/test")
    async with connect.open():
        assert await transient(connect.attach(REQUEST)) == ("credentials", None, False)
    assert {call.path for call in server.calls} == {"/"}


@pytest.mark.usefixtures("server")
async def test_without_a_region_the_operator_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Misconfigured, match="AWS_REGION"):
        async with Connect(get_session, "attachd/test").open():
            pass


async def test_a_redirect_is_not_followed_and_takes_no_token_anywhere(
    server: Scripted, connect: Connect
) -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(str(request.headers))
        return web.json_response({})

    async with serving(elsewhere) as url:

        async def away(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{url}/"})

        server.on_create(away)
        server.replies["/participant/connection"] = away
        await transient(connect.attach(REQUEST))
        await transient(dismiss(connect, PARTICIPANT))
    assert seen == []


# ── sessions, roles, quotas ────────────────────────────────────────────────────────────────────

ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASSUMED{n}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
ROLE = "arn:aws:iam::444455556666:role/attachd"


async def test_a_role_is_assumed_for_its_instances_and_its_region_is_called(server: Scripted) -> None:
    async def sts(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=ASSUMED.format(n=1), content_type="text/xml")

    server.replies["/"] = sts
    connect = Connect(lambda: aws.session({}, region="eu-west-1", role=ROLE), "attachd/test")
    async with connect.open():
        for _ in range(3):
            await connect.attach(REQUEST)
    assert [call.path for call in server.calls] == ["/"] + ["/contact/create-participant"] * 3
    signed = server.calls[-1].headers["authorization"]
    assert "Credential=ASSUMED1/" in signed
    assert "/eu-west-1/connect/" in signed


async def test_aws_region_counts_as_it_does_with_other_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert aws.session({"AWS_REGION": "eu-west-2"}).get_config_variable("region") == "eu-west-2"


async def test_credentials_that_are_refused_are_read_anew(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("attachd.connect._RENEW_SECONDS", 0.0)
    without_keys(monkeypatch)
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))

    async def reply(request: web.Request) -> web.StreamResponse:
        if "Credential=OLD" in request.headers["Authorization"]:
            return await refusing(403, "ExpiredTokenException")(request)
        return web.json_response(CREATED)

    server.on_create(reply)
    made: list[AioSession] = []

    def sessions() -> AioSession:
        made.append(aws.session({}))
        return made[-1]

    connect = Connect(sessions, "attachd/test")
    async with connect.open():
        assert (await transient(connect.attach(REQUEST)))[0] == "credentials"
        keys.write_text("[default]\naws_access_key_id = NEW\naws_secret_access_key = s\n")
        assert await connect.attach(REQUEST) == PARTICIPANT
        for _ in range(3):  # and not made anew for every call
            await connect.attach(REQUEST)
    assert len(made) == 2


async def test_the_quota_in_force_is_read_from_service_quotas(server: Scripted) -> None:
    server.replies["/"] = saying('{"Quota": {"QuotaCode": "L-8FE21897", "Value": 12.0}}')
    assert await aws.applied_quota(SESSION, "L-8FE21897", "attachd/test") == 12.0
    (call,) = server.calls
    assert call.body == {"ServiceCode": "connect", "QuotaCode": "L-8FE21897"}


@pytest.mark.parametrize(
    "reply", [refusing(400, "AccessDeniedException"), saying("{}"), saying("<html>"), hanging_up]
)
async def test_a_quota_that_cannot_be_read_is_no_more_than_that(server: Scripted, reply: Reply) -> None:
    server.replies["/"] = reply
    with pytest.raises(Transient, match="quota_not_read"):
        await aws.applied_quota(SESSION, "L-8FE21897", "attachd/test")


async def test_describe_contact_tells_where_the_contact_is(server: Scripted, connect: Connect) -> None:
    sentinel, moment = 0.001, 1_800_000_000.0
    path = f"/contacts/{REQUEST.instance_id}/{REQUEST.contact_id}"
    told = {"ConnectedToSystemTimestamp": moment, "AgentInfo": {"ConnectedToAgentTimestamp": sentinel}}
    server.replies[path] = saying(json.dumps({"Contact": told}))
    state = await connect.describe(REQUEST.instance_id, REQUEST.contact_id)
    assert state == ContactState(connected=True, queued=False, agent=False, ended=False)
    told |= {"AgentInfo": {"ConnectedToAgentTimestamp": moment}, "DisconnectTimestamp": moment}
    told |= {"QueueInfo": {"EnqueueTimestamp": moment}}
    server.replies[path] = saying(json.dumps({"Contact": told}))
    state = await connect.describe(REQUEST.instance_id, REQUEST.contact_id)
    assert state == ContactState(connected=True, queued=True, agent=True, ended=True)


async def test_streaming_and_timers_go_over_the_wire(server: Scripted, connect: Connect) -> None:
    stream, timers = (
        "/contact/start-streaming",
        f"/contact/participant-role-config/{REQUEST.instance_id}/{REQUEST.contact_id}",
    )
    server.replies |= {stream: saying('{"StreamingId": "s"}'), timers: saying("{}")}
    topic = "arn:aws:sns:eu-central-1:111122223333:chats"
    await connect.stream(REQUEST.instance_id, REQUEST.contact_id, topic, "token")
    await connect.set_timers(REQUEST.instance_id, REQUEST.contact_id, {"IDLE": 5})
    assert [call.path for call in server.calls] == [stream, timers]
    assert server.calls[0].body["ChatStreamingConfiguration"] == {"StreamingEndpointArn": topic}
    assert server.calls[1].body["ChannelConfiguration"]["Chat"]["ParticipantTimerConfigList"] == [
        {
            "ParticipantRole": "CUSTOMER",
            "TimerType": "IDLE",
            "TimerValue": {"ParticipantTimerDurationInMinutes": 5},
        }
    ]
