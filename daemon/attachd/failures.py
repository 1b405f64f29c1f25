"""The failure table: what every way in which a call to Amazon Connect can fail means to us.

One row a failure, one place: ``connect`` translates by it, ``docs/reference.md`` prints it. No foreign exception passes,
since its text may quote a request. Nothing here calls anybody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NoReturn

import aiohttp
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
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from attachd.errors import Permanent, Transient
from attachd.model import Outcome

#: What a client raises; anything else that comes out of one is a reply that botocore's parser could not read.
FOREIGN: Final = (ClientError, BotoCoreError, aiohttp.ClientError, OSError)


@dataclass(frozen=True, slots=True)
class Failure:
    """One row.

    Attributes:
        reason: the slug in logs and metrics.
        outcome: how the chat's delivery ends; None if it is tried again.
        ambiguous: the call may have had its effect: the next try repeats the same ClientToken.
        after: seconds until the next try, at least.
        then: what attachd does next.
        told: who is told, beside the delivery's line and ``attachd_attach_tries``.
    """

    reason: str
    then: str
    outcome: Outcome | None = None
    ambiguous: bool = False
    after: float | None = None
    told: str = ""

    def error(self, detail: str) -> Transient | Permanent:
        """The failure as the line knows it."""
        if self.outcome is not None:
            return Permanent(self.outcome, self.reason, detail)
        return Transient(self.reason, detail, after=self.after, ambiguous=self.ambiguous)


_LATER: Final = "tries again, jittered, while the rule's patience lasts; each try buys a token"
_SAME: Final = "the same request again with the same ClientToken, " + _LATER.partition(", ")[2]
_ASK: Final = "one DescribeContact, then: over, an agent is there, too early, or `occupied`"
_GATE: Final = "opens the instance's circuit: its chats wait without calls; one tries after 2 s, 4 s … 30 s"
_CLIENTS: Final = "makes the clients anew and " + _GATE

THROTTLED: Final = Failure(
    "throttled",
    "cuts the rate by a tenth, takes the bucket for empty; the chat waits for its turn again",
    told="`attachd_quota_granted_rate`",
)
UNREACHABLE: Final = Failure("unreachable", _LATER)
TIMEOUT: Final = Failure("timeout", _SAME, ambiguous=True)
CONNECTION: Final = Failure("connection", _SAME, ambiguous=True)
TLS: Final = Failure("tls", _GATE, told="`/readyz`, an error in the log")
MALFORMED: Final = Failure("malformed_reply", _SAME, ambiguous=True)
INTERNAL: Final = Failure("connect_internal", _SAME, ambiguous=True)
CREDENTIALS: Final = Failure("credentials", _CLIENTS, told="`/readyz`, an error in the log")
DENIED: Final = Failure("access_denied", _GATE, told="`/readyz`, an error in the log")
INVALID: Final = Failure("invalid_request", "closes the contact", Outcome.REFUSED, told="a warning")
OCCUPIED: Final = Failure("quota_exceeded", _ASK, Outcome.OCCUPIED, told="a warning")
CONFLICT: Final = Failure("conflict", _ASK, Outcome.OCCUPIED, told="a warning")
SKEW: Final = Failure("clock_skew", _GATE, told="`/readyz`, an error in the log")
_GONE: Final = Failure("participant_gone", "the next generation, if there is time", Outcome.UNSERVED)

#: By AWS's error code: CreateParticipant's modelled errors first, then those common to all of AWS.
ERRORS: Final[Mapping[str, Failure]] = MappingProxyType(
    {
        "ConflictException": CONFLICT,
        "InternalServiceException": INTERNAL,
        "InvalidRequestException": INVALID,
        "ResourceNotFoundException": Failure(
            "not_found", "closes the contact", Outcome.REFUSED, told="a warning"
        ),
        "ServiceQuotaExceededException": OCCUPIED,
        "ThrottlingException": THROTTLED,
        "AccessDeniedException": DENIED,
        "ExpiredToken": CREDENTIALS,
        "ExpiredTokenException": CREDENTIALS,
        "InvalidSignatureException": CREDENTIALS,
        "RequestExpired": SKEW,
        "RequestLimitExceeded": THROTTLED,
        "RequestTimeTooSkewed": SKEW,
        "RequestTimeoutException": Failure("timeout", _LATER),
        "ServiceUnavailable": Failure("connect_unavailable", _SAME, ambiguous=True),
        "SignatureDoesNotMatch": CREDENTIALS,
        "Throttling": THROTTLED,
        "TooManyRequestsException": THROTTLED,
        "UnrecognizedClientException": CREDENTIALS,
        "ValidationException": INVALID,
        # Of other operations of a bot's recipe
        "InvalidParameterException": INVALID,
        "LimitExceededException": Failure(
            "limit_exceeded", "closes the contact", Outcome.REFUSED, told="a warning"
        ),
    }
)

# The Participant Service's authority is the token alone: denied means that token or participant is gone.
GONE: Final[Mapping[str, Failure]] = MappingProxyType(
    {"AccessDeniedException": _GONE, "ResourceNotFoundException": _GONE}
)

#: Failures that say something of the account's or the machine's state, and so of every call that would follow.
OF_THE_INSTANCE: Final = frozenset(failure.reason for failure in (DENIED, CREDENTIALS, SKEW, TLS))


def translate(
    error: Exception, operation: str, first: Mapping[str, Failure] = MappingProxyType({})
) -> NoReturn:
    """Raise ours for a foreign error. The cause is cut: it may quote the request.

    Args:
        error: what the client raised.
        operation: what was asked of it.
        first: rows that go before those of ``ERRORS``.

    Raises:
        Transient: worth another try.
        Permanent: not.
    """
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "?")
            if error.operation_name != operation:
                # Fetching credentials on the way: AssumeRole, AssumeRoleWithWebIdentity, SSO …
                raise CREDENTIALS.error(
                    f"{operation}: no AWS credentials: {error.operation_name} answered {status} {code}"
                ) from None
            row = first.get(code) or ERRORS.get(code) or _by_status(status, code)
            raise row.error(f"{operation} answered {status} {code} (request id {request_id})") from None
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            raise CREDENTIALS.error(f"{operation}: no usable AWS credentials") from None
        case SSLError():
            raise TLS.error(f"{operation}: Connect's certificate is not accepted") from None
        case EndpointConnectionError() if not isinstance(
            error.kwargs.get("error"), aiohttp.ClientConnectorError
        ):  # aiobotocore's name for a reset as well, which may come after the request was read
            raise CONNECTION.error(f"{operation}: the connection was lost") from None
        case ConnectTimeoutError() | EndpointConnectionError():
            raise UNREACHABLE.error(f"{operation}: Connect's endpoint does not answer") from None
        case ReadTimeoutError():
            raise TIMEOUT.error(f"{operation} did not answer in time") from None
        case BotoConnectionError() | HTTPClientError() | aiohttp.ClientError() | OSError():
            raise CONNECTION.error(f"{operation}: {type(error).__name__}") from None
        case BotoCoreError():
            raise INVALID.error(f"{operation}: {type(error).__name__} before the call") from None
        case _:  # botocore's parser raises anything over a body that is not AWS's
            raise MALFORMED.error(f"{operation}'s reply cannot be read: {type(error).__name__}") from None


def _by_status(status: int, code: str) -> Failure:
    """What the tables do not name passes: only a refusal that we know is one ends a chat for good."""
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return THROTTLED
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return CREDENTIALS
        case HTTPStatus.REQUEST_TIMEOUT:
            return ERRORS["RequestTimeoutException"]
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return INTERNAL
        case _:
            return Failure(code.lower()[:40] or "unmodelled", _LATER, after=5.0)
