"""Amazon Connect and its Participant Service: the calls, and what their errors mean to us, in one table.

The SDK's own retries are off: every try must buy a token of the quota, and only the line can do that
(measured for 120 chats at once against 5/s: botocore's standard mode attaches 19 to 26 of them). Credentials
go in and out as ``Secret``; no foreign exception leaves this module, since its text may quote a request.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import AttachRequest, Outcome, Participant, Secret

_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 4.0
_CONNECTIONS: Final = 50  # the default of 10 caps a client at 166 calls/s at 50 ms each


class _Row(Protocol):
    def __call__(self, detail: str) -> Exception: ...


def _later(reason: str, *, after: float | None = None, ambiguous: bool = False) -> _Row:
    return lambda detail: Transient(reason, detail, after=after, ambiguous=ambiguous)


def _never(outcome: Outcome, reason: str) -> _Row:
    return lambda detail: Permanent(outcome, reason, detail)


# CreateParticipant's modelled errors (botocore's service model), then those common to all of AWS.
# 402 and 409 say that the contact has, or cannot have, a custom participant: never "again".
ERRORS: Final[Mapping[str, _Row]] = {
    "ThrottlingException": _later("throttled"),
    "TooManyRequestsException": _later("throttled"),
    "Throttling": _later("throttled"),
    "RequestLimitExceeded": _later("throttled"),
    "RequestTimeoutException": _later("timeout"),
    "ValidationException": _never(Outcome.REFUSED, "invalid_request"),
    "InternalServiceException": _later("connect_internal", ambiguous=True),
    "ServiceUnavailable": _later("connect_unavailable", ambiguous=True),
    "ServiceQuotaExceededException": _never(Outcome.OCCUPIED, "quota_exceeded"),
    "ConflictException": _never(Outcome.OCCUPIED, "conflict"),
    "ResourceNotFoundException": _never(Outcome.REFUSED, "not_found"),
    "InvalidRequestException": _never(Outcome.REFUSED, "invalid_request"),
    "AccessDeniedException": _later("access_denied", after=30.0),
    "UnrecognizedClientException": _later("credentials", after=10.0),
    "InvalidSignatureException": _later("credentials", after=10.0),
    "ExpiredTokenException": _later("credentials", after=10.0),
    "ExpiredToken": _later("credentials", after=10.0),
    "RequestExpired": _later("clock_skew", after=10.0),
}

# The Participant Service's authority is the token alone: denied means that token or participant is gone.
GONE: Final[Mapping[str, _Row]] = {
    "AccessDeniedException": _never(Outcome.UNSERVED, "participant_gone"),
    "ResourceNotFoundException": _never(Outcome.UNSERVED, "participant_gone"),
}


class Connect:
    """One account and Region's Amazon Connect.

    Args:
        connect: an aiobotocore ``connect`` client.
        participants: an aiobotocore ``connectparticipant`` client, unsigned.
    """

    def __init__(self, connect: Any, participants: Any) -> None:
        self._connect = connect
        self._participants = participants

    async def attach(self, request: AttachRequest) -> Participant:
        """See ``ports.Attacher``. API reference: CreateParticipant."""
        details: dict[str, Any] = {"ParticipantRole": request.role, "DisplayName": request.display_name}
        if request.capabilities:
            details["ParticipantCapabilities"] = dict(request.capabilities)
        try:
            answer = await self._connect.create_participant(
                InstanceId=request.instance_id,
                ContactId=request.contact_id,
                ClientToken=request.client_token,
                ParticipantDetails=details,
            )
            credentials = answer["ParticipantCredentials"]
            return Participant(
                id=answer["ParticipantId"],
                token=Secret(credentials["ParticipantToken"]),
                expiry=str(credentials.get("Expiry", "")),
            )
        except (ClientError, BotoCoreError, aiohttp.ClientError, OSError) as error:
            _translate(error, "CreateParticipant")
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            detail = f"CreateParticipant's reply cannot be read: {type(error).__name__}"
            raise Transient("malformed_reply", detail, ambiguous=True) from None

    async def dismiss(self, participant: Participant) -> None:
        """See ``ports.Attacher``. Takes the flow's "Bot participant disconnected" branch."""
        operation = "CreateParticipantConnection"
        try:
            answer = await self._participants.create_participant_connection(
                ParticipantToken=participant.token.reveal(),
                Type=["CONNECTION_CREDENTIALS"],
                ConnectParticipant=True,
            )
            operation = "DisconnectParticipant"
            await self._participants.disconnect_participant(
                ConnectionToken=answer["ConnectionCredentials"]["ConnectionToken"]
            )
        except (ClientError, BotoCoreError, aiohttp.ClientError, OSError) as error:
            _translate(error, operation, GONE)
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            detail = f"{operation}'s reply cannot be read: {type(error).__name__}"
            raise Transient("malformed_reply", detail) from None


class _Straight(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore ships no types
    """No redirects: aiobotocore leaves aiohttp's default on, and a bearer token would go wherever a reply says."""

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        if not session.trace_configs:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse)
            trace.freeze()
            session.trace_configs.append(trace)
        return session


async def _refuse(*_: object) -> None:
    raise aiohttp.ClientError("redirected")


@asynccontextmanager
async def clients(
    session: AioSession, user_agent: str, *, endpoint_url: str | None = None
) -> AsyncIterator[Connect]:
    """A ``Connect`` over clients of its own, made once: making one blocks for up to 0.2 s.

    Region, endpoint (unless given) and credentials come from where every AWS tool takes them.

    Raises:
        Misconfigured: no Region is set.
    """
    common: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "max_pool_connections": _CONNECTIONS,
        "user_agent": user_agent,
        "http_session_cls": _Straight,
    }
    # The Participant Service takes a bearer token, not Signature Version 4, whatever botocore's model says.
    signed, unsigned = AioConfig(**common), AioConfig(signature_version=UNSIGNED, **common)
    try:
        async with (
            session.create_client("connect", config=signed, endpoint_url=endpoint_url) as connect,
            session.create_client(
                "connectparticipant", config=unsigned, endpoint_url=endpoint_url
            ) as participants,
        ):
            yield Connect(connect, participants)
    except BotoCoreError as error:
        raise Misconfigured([f"AWS: {error} (set AWS_REGION, or a profile that has a region)"]) from None


def _translate(
    error: Exception, operation: str, first: Mapping[str, _Row] = MappingProxyType({})
) -> NoReturn:
    """The one place where a foreign error becomes ours. The cause is cut: it may quote the request."""
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "?")
            if error.operation_name != operation:
                # Fetching credentials on the way: AssumeRole, AssumeRoleWithWebIdentity, SSO …
                detail = f"{operation}: no AWS credentials: {error.operation_name} answered {status} {code}"
                raise Transient("credentials", detail, after=10.0) from None
            row = first.get(code) or ERRORS.get(code) or _by_status(status, code)
            raise row(f"{operation} answered {status} {code} (request id {request_id})") from None
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            raise Transient("credentials", f"{operation}: no usable AWS credentials", after=10.0) from None
        case ConnectTimeoutError() | EndpointConnectionError():
            raise Transient("unreachable", f"{operation}: Connect's endpoint does not answer") from None
        case ReadTimeoutError():
            raise Transient("timeout", f"{operation} did not answer in time", ambiguous=True) from None
        case BotoConnectionError() | HTTPClientError() | aiohttp.ClientError() | OSError():
            detail = f"{operation}: {type(error).__name__}"
            raise Transient("connection", detail, ambiguous=True) from None
        case _:
            raise Permanent(
                Outcome.REFUSED, "invalid_request", f"{operation}: {type(error).__name__} before the call"
            ) from None


def _by_status(status: int, code: str) -> _Row:
    """What the tables do not name passes: only a refusal that we know is one ends a chat for good."""
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return _later("throttled")
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return _later("credentials", after=10.0)
        case HTTPStatus.REQUEST_TIMEOUT:
            return _later("timeout")
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _later("connect_internal", ambiguous=True)
        case _:
            return _later(code.lower()[:40] or "unmodelled", after=5.0)
