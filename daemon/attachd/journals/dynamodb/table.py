"""The journal's table: checked at the start, made by ``create`` alone, asked in one way.

Of AWS's errors nothing but the code is told on: their text may quote the request, with its session token.

Source: DynamoDB API reference, CreateTable, TableDescription, "Error handling"; developer guide, "Time to Live (TTL)".
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final

import aiohttp
import anyio
import structlog
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.journals.dynamodb.items import TTL

_CALL_SECONDS: Final = 5.0  # two tries, and the wait for a connection
_CREATE_SECONDS: Final = 60
_CONNECTIONS: Final = 50
#: The table, as CreateTable takes it.
TABLE: Final[Mapping[str, Any]] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
}
_OPERATIONS: Final = {
    *("GetItem", "PutItem", "UpdateItem", "DescribeTable", "DescribeTimeToLive"),
    *("CreateTable", "UpdateTimeToLive", "Scan", "DeleteItem"),
}
_CREDENTIALS: Final = "journal_credentials"
_UNREACHABLE: Final = "journal_unreachable"
_UNREADABLE: Final = "journal_unreadable"
_OURS: Final = {_CREDENTIALS, _UNREACHABLE, _UNREADABLE}
#: A condition was not met: somebody else was first.
LOST: Final = "ConditionalCheckFailedException"
_MISSING: Final = "ResourceNotFoundException"
_DENIED: Final = "AccessDeniedException"

# Why, as a reason, by the code of AWS's error; any other is ``journal_failed``.
_REASONS: Final[Mapping[str, str]] = {
    _MISSING: "journal_missing",
    _DENIED: "journal_denied",
    "ProvisionedThroughputExceededException": "journal_throttled",
    "ThrottlingException": "journal_throttled",
    "RequestLimitExceeded": "journal_throttled",
    "UnrecognizedClientException": "journal_credentials",
    "ExpiredTokenException": "journal_credentials",
    "InvalidSignatureException": "journal_credentials",
}

# What to do, likewise.
_ADVICE: Final[Mapping[str, str]] = {
    LOST: "something else was written meanwhile",
    _MISSING: "it does not exist in this account and Region; `attachd journal create` makes it",
    _DENIED: "access denied; allow what config/iam-policy.json allows",
    "ProvisionedThroughputExceededException": "throttled; make it on-demand, or raise its capacity",
    "ThrottlingException": "throttled; raise its limits, or wait while it scales",
    "RequestLimitExceeded": "throttled; the account's DynamoDB quota in this Region is used up",
    "UnrecognizedClientException": "AWS does not know these credentials",
    "ExpiredTokenException": "the AWS credentials have expired",
    "InvalidSignatureException": "the AWS credentials are wrong, or this machine's clock is",
    "ValidationException": "the request is refused; its key must be the text `id` alone",
}

_NO_TTL: Final = (
    "old entries stay for ever, unless it may only not be asked; `attachd journal create` turns it on"
)

log = structlog.get_logger(__name__)


class TroubleError(Exception):
    """Why a call came to nothing: AWS's code, or our reason; a sentence; what is stored, if a condition failed."""

    def __init__(self, code: str, why: str, stored: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.reason = code if code in _OURS else _REASONS.get(code, "journal_failed")
        self.stored = stored


class JournalTable:
    """A table that attachd keeps its journal in.

    Args:
        sessions: where clients come from; Region, endpoint and credentials as every AWS tool takes them.
        name: its name.
        user_agent: sent with every call.
    """

    def __init__(self, sessions: NewSession, name: str, *, user_agent: str) -> None:
        self._sessions = sessions
        self.name = name
        self._user_agent = user_agent

    def client(self, attempts: int, read_seconds: float = 1.5) -> AbstractAsyncContextManager[Any]:
        """A DynamoDB client, whose calls are tried so often."""
        return aws.client(
            self._sessions,
            "dynamodb",
            user_agent=self._user_agent,
            connect_timeout=1,
            read_timeout=read_seconds,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": attempts, "mode": "standard"},
        )

    async def check(self, client: Any) -> None:
        """See that the table is there and is the journal's.

        Raises:
            Misconfigured: it does not exist, has another key, or may not be used.
            Transient: DynamoDB does not answer, or the table is still being made.
        """
        with self.told(final={_MISSING, _DENIED}):
            self._judge((await self.ask(client.describe_table))["Table"])
        if await self._ttl(client) != TTL:
            log.warning("journal.no_ttl", table=self.name, next=_NO_TTL)

    async def create(self) -> list[str]:
        """Make the table and turn its TTL on, where that is not done; what was done, a sentence each.

        Raises:
            Misconfigured: there is another table of that name, or it may not be made.
            Transient: DynamoDB does not answer; do it again.
        """
        async with self.client(3, read_seconds=10.0) as client:  # nobody waits in line for it
            with self.told(final={_DENIED}):
                done = [await self._make(client)]
                await self.ask(
                    client.current.get_waiter("table_exists").wait,
                    within=_CREATE_SECONDS,
                    WaiterConfig={"Delay": 1, "MaxAttempts": _CREATE_SECONDS},
                )
                self._judge((await self.ask(client.describe_table))["Table"])
                done.append(await self._turn_ttl_on(client))
            return [self._say(sentence) for sentence in done]

    async def _make(self, client: Any) -> str:
        try:
            await self.ask(client.create_table, within=_CREATE_SECONDS, **TABLE)
        except TroubleError as trouble:
            if trouble.code != "ResourceInUseException":
                raise
            return "was there already"
        return "made, on-demand"

    async def _turn_ttl_on(self, client: Any) -> str:
        if await self._ttl(client) == TTL:
            return f"TTL was on already, by {TTL}"
        ttl = {"Enabled": True, "AttributeName": TTL}
        try:
            await self.ask(client.update_time_to_live, within=_CREATE_SECONDS, TimeToLiveSpecification=ttl)
        except TroubleError as trouble:
            if trouble.code != "UnknownOperationException":
                raise
            return "this endpoint, an emulator's, knows no TTL: old entries stay for ever"
        return f"TTL turned on, by {TTL}"

    async def ask(
        self, call: Callable[..., Awaitable[Any]], *, within: float = _CALL_SECONDS, **parameters: Any
    ) -> Any:
        """One call, with the table's name; whatever goes wrong comes out as trouble."""
        try:
            with anyio.fail_after(within):
                answer = await call(TableName=self.name, **parameters)
            if answer is not None:  # a waiter's
                _ = answer["ResponseMetadata"]["RequestId"]  # botocore takes any 200 for an empty answer
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            raise _trouble(error) from None
        return answer

    @contextmanager
    def told(self, final: Collection[str] = ()) -> Iterator[None]:
        """Trouble becomes ours, with a sentence for the operator; ``final`` codes end the start."""
        try:
            yield
        except TroubleError as trouble:
            if trouble.code in final:
                raise Misconfigured([self._say(str(trouble))]) from None
            raise Transient(trouble.reason, self._say(str(trouble))) from None
        except (KeyError, TypeError, ValueError):
            hint = "what it holds is not attachd's, or a newer one's"
            raise Transient(_UNREADABLE, self._say(hint)) from None

    def _say(self, what: str) -> str:
        return f"[journal] table {self.name!r}: {what}"

    def _judge(self, table: Mapping[str, Any]) -> None:
        status = table["TableStatus"]
        if status == "CREATING":
            raise Transient("journal_missing", self._say("it is still being made"))
        if status not in {"ACTIVE", "UPDATING"}:
            raise Misconfigured([self._say(f"it is {status}")])
        (key_type,) = TABLE["AttributeDefinitions"]
        if table["KeySchema"] != TABLE["KeySchema"] or key_type not in table["AttributeDefinitions"]:
            hint = "its key is not the text `id` alone; give attachd a table of its own"
            raise Misconfigured([self._say(hint)])

    async def _ttl(self, client: Any) -> str | None:
        """The attribute that items expire by; none if they do not, or if that may not be asked."""
        try:
            told = (await self.ask(client.describe_time_to_live))["TimeToLiveDescription"]
        except TroubleError:
            return None
        return told.get("AttributeName") if told.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"} else None


def _trouble(error: Exception) -> TroubleError:
    """The one place where a foreign error becomes ours."""
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", ""))
            if error.operation_name not in _OPERATIONS:  # credentials were being fetched on the way
                return TroubleError(
                    _CREDENTIALS, f"no AWS credentials: {error.operation_name} answered {code}"
                )
            return TroubleError(
                code, _ADVICE.get(code, f"DynamoDB answered {code}"), error.response.get("Item")
            )
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return TroubleError(_CREDENTIALS, "no usable AWS credentials")
        case BotoCoreError() | aiohttp.ClientError() | OSError():
            hint = "check the network, the VPC endpoint, AWS_ENDPOINT_URL_DYNAMODB"
            return TroubleError(_UNREACHABLE, f"DynamoDB does not answer ({type(error).__name__}); {hint}")
        case _:
            return TroubleError(_UNREADABLE, f"DynamoDB's reply cannot be read ({type(error).__name__})")
