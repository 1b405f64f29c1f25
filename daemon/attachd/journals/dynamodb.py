"""The journal in one DynamoDB table: for several processes, on as many machines.

An entry is an item, replaced only by a conditional write on its version; a race that is lost costs no second
read, since the refusal brings what is stored. All replicas beat in *one* item, an attribute each: a write there
answers with all of them as they are after it, in one request, strongly consistent. It alone has no TTL; entries
are forgotten by the table's.

The table is checked at the start, and made by ``create`` alone (``attachd journal create``). Of AWS's errors
nothing but the code is told on: their text may quote the request, with its session token.

Source: DynamoDB API reference, PutItem, UpdateItem (``ReturnValues``), TableDescription; developer guide, "Time to
Live (TTL)".
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import asdict
from math import ceil, isfinite
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
from attachd.lifecycle import ALL, Entry, Stage, Wanted
from attachd.model import Beat

_CALL_SECONDS: Final = 5.0  # two tries, and the wait for a connection
_BEAT_SECONDS: Final = 2.0  # one try: the next beat is the next try
_CREATE_SECONDS: Final = 60
_CONNECTIONS: Final = 50
#: The table, as CreateTable takes it, and the attribute that its items expire by.
TABLE: Final[Mapping[str, Any]] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
}
TTL: Final = "expires_at"
_REPLICAS: Final = {"id": {"S": "replicas"}}
_RECALLED: Final = {"id": {"S": "recalled"}}
_WATCH_SECONDS: Final = 2.5  # every replica beats at least every 2 s
_OPERATIONS: Final = {
    *("GetItem", "PutItem", "UpdateItem", "DescribeTable", "DescribeTimeToLive"),
    *("CreateTable", "UpdateTimeToLive", "Scan", "DeleteItem"),
}
_CREDENTIALS: Final = "journal_credentials"
_UNREACHABLE: Final = "journal_unreachable"
_UNREADABLE: Final = "journal_unreadable"
_OURS: Final = {_CREDENTIALS, _UNREACHABLE, _UNREADABLE}
_LOST: Final = "ConditionalCheckFailedException"
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
    _LOST: "a later beat of ours is there already",
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


class _TroubleError(Exception):
    """Why a call came to nothing: AWS's code, or our reason; a sentence; what is stored, if a condition failed."""

    def __init__(self, code: str, why: str, stored: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.reason = code if code in _OURS else _REASONS.get(code, "journal_failed")
        self.stored = stored


class DynamoJournal:
    """A table of contacts, and of the replicas that serve them.

    Args:
        sessions: where clients come from; Region, endpoint and credentials as every AWS tool takes them.
        table: its name.
        keep_seconds: an entry may be forgotten so long after its last change.
        user_agent: sent with every call.
    """

    def __init__(self, sessions: NewSession, table: str, *, keep_seconds: float, user_agent: str) -> None:
        self._sessions = sessions
        self._table = table
        self._keep_seconds = keep_seconds
        self._user_agent = user_agent
        self._entries: Any = None
        self._beats: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, and check the table.

        Raises:
            Misconfigured: it does not exist, has another key, or may not be used.
            Transient: DynamoDB does not answer, or the table is still being made.
        """
        async with self._client(2) as self._entries, self._client(1) as self._beats:
            with self._told(final={_MISSING, _DENIED}):
                self._judge((await self._ask(self._entries.describe_table))["Table"])
            if await self._ttl(self._entries) != TTL:
                log.warning("journal.no_ttl", table=self._table, next=_NO_TTL)
            yield

    def _client(self, attempts: int, read_seconds: float = 1.5) -> AbstractAsyncContextManager[Any]:
        """Entries and beats have one each: who has much to write must not look dead for it."""
        return aws.client(
            self._sessions,
            "dynamodb",
            user_agent=self._user_agent,
            connect_timeout=1,
            read_timeout=read_seconds,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": attempts, "mode": "standard"},
        )

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
            told = (await self._ask(client.describe_time_to_live))["TimeToLiveDescription"]
        except _TroubleError:
            return None
        return told.get("AttributeName") if told.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"} else None

    async def create(self) -> list[str]:
        """Make the table and turn its TTL on, where that is not done; what was done, a sentence each.

        Raises:
            Misconfigured: there is another table of that name, or it may not be made.
            Transient: DynamoDB does not answer; do it again.
        """
        async with self._client(3, read_seconds=10.0) as client:  # nobody waits in line for it
            with self._told(final={_DENIED}):
                done = [await self._make(client)]
                await self._ask(
                    client.current.get_waiter("table_exists").wait,
                    within=_CREATE_SECONDS,
                    WaiterConfig={"Delay": 1, "MaxAttempts": _CREATE_SECONDS},
                )
                self._judge((await self._ask(client.describe_table))["Table"])
                if await self._ttl(client) == TTL:
                    done.append(f"TTL was on already, by {TTL}")
                else:
                    ttl = {"Enabled": True, "AttributeName": TTL}
                    await self._ask(
                        client.update_time_to_live, within=_CREATE_SECONDS, TimeToLiveSpecification=ttl
                    )
                    done.append(f"TTL turned on, by {TTL}")
            return [self._say(sentence) for sentence in done]

    async def _make(self, client: Any) -> str:
        try:
            await self._ask(client.create_table, within=_CREATE_SECONDS, **TABLE)
        except _TroubleError as trouble:
            if trouble.code != "ResourceInUseException":
                raise
            return "was there already"
        return "made, on-demand"

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        with self._told():
            answer = await self._ask(self._entries.get_item, Key=_key(contact_id), ConsistentRead=True)
            return _entry(answer["Item"]) if "Item" in answer else None

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""
        with self._told():
            try:
                await self._ask(
                    self._entries.put_item,
                    Item=_item(entry) | {TTL: {"N": str(ceil(entry.changed_at + self._keep_seconds))}},
                    ConditionExpression="attribute_not_exists(#id) OR #version = :before",
                    ExpressionAttributeNames={"#id": "id", "#version": "version"},
                    ExpressionAttributeValues={":before": _number(entry.version - 1)},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except _TroubleError as trouble:
                if trouble.stored is None:
                    raise
                return _entry(trouble.stored)
            return entry

    async def purge(self, before: float) -> int:  # noqa: ARG002 - the port asks
        """See ``ports.Journal``. The table's TTL does it."""
        return 0

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``. Reads the whole table, eventually consistent: half a unit for every 4 kB that it holds."""
        asked: dict[str, Any] = _filter(wanted)
        while True:
            with self._told():
                answer = await self._ask(self._entries.scan, **asked)
                page = [_entry(item) for item in answer["Items"]]
                following = answer.get("LastEvaluatedKey")
            for entry in page:
                yield entry
            if following is None:
                return
            asked["ExclusiveStartKey"] = following

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        with self._told():
            try:
                await self._ask(
                    self._entries.delete_item,
                    Key=_key(entry.contact_id),
                    ConditionExpression="#version = :version",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues={":version": _number(entry.version)},
                )
            except _TroubleError as trouble:
                if trouble.code != _LOST:
                    raise
                return False
            return True

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        with self._told():
            await self._ask(
                self._entries.update_item,
                Key=_RECALLED,
                UpdateExpression="ADD #contacts :contact",
                ExpressionAttributeNames={"#contacts": "contacts"},
                ExpressionAttributeValues={":contact": {"SS": [contact_id]}},
            )

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``. Where there are none, half a read unit; all of them are in one item."""
        with self._told():
            there = await self._ask(self._entries.get_item, Key=_RECALLED)
            if "contacts" not in there.get("Item", {}):
                return []
            taken = await self._ask(
                self._entries.update_item,
                Key=_RECALLED,
                UpdateExpression="REMOVE #contacts",
                ExpressionAttributeNames={"#contacts": "contacts"},
                ReturnValues="UPDATED_OLD",
            )
            return list(taken.get("Attributes", {}).get("contacts", {}).get("SS", []))

    async def at_work(self) -> frozenset[str]:
        """See ``ports.Journal``. Whose count moves while we watch, lives."""
        before = await self._beats_now()
        if not before:
            return frozenset()
        await anyio.sleep(_WATCH_SECONDS)
        return frozenset(owner for owner, n in (await self._beats_now()).items() if before.get(owner) != n)

    async def _beats_now(self) -> dict[str, int]:
        with self._told():
            answer = await self._ask(self._beats.get_item, Key=_REPLICAS, ConsistentRead=True)
            return {beat.owner: beat.count for beat in _beats(answer.get("Item", {}))}

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``."""
        with self._told():
            answer = await self._ask(
                self._beats.update_item,
                within=_BEAT_SECONDS,
                Key=_REPLICAS,
                UpdateExpression="SET #owner = :beat",
                ConditionExpression="attribute_not_exists(#owner) OR #owner.#count <= :count",
                ExpressionAttributeNames={"#owner": beat.owner, "#count": "count"},
                ExpressionAttributeValues={":beat": _beat_value(beat), ":count": _number(beat.count)},
                ReturnValues="ALL_NEW",
            )
            return _beats(answer["Attributes"])

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        with self._told():
            try:
                await self._ask(
                    self._beats.update_item,
                    within=_BEAT_SECONDS,
                    Key=_REPLICAS,
                    UpdateExpression="REMOVE #owner",
                    ConditionExpression="#owner.#count <= :count",
                    ExpressionAttributeNames={"#owner": beat.owner, "#count": "count"},
                    ExpressionAttributeValues={":count": _number(beat.count)},
                )
            except _TroubleError as trouble:
                if trouble.code != _LOST:
                    raise

    async def _ask(
        self, call: Callable[..., Awaitable[Any]], *, within: float = _CALL_SECONDS, **parameters: Any
    ) -> Any:
        """One call, with the table's name; whatever goes wrong comes out as trouble."""
        try:
            with anyio.fail_after(within):
                answer = await call(TableName=self._table, **parameters)
            if answer is not None:  # a waiter's
                _ = answer["ResponseMetadata"]["RequestId"]  # botocore takes any 200 for an empty answer
        except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
            raise _trouble(error) from None
        return answer

    @contextmanager
    def _told(self, final: Collection[str] = ()) -> Iterator[None]:
        """Trouble becomes ours, with a sentence for the operator; ``final`` codes end the start."""
        try:
            yield
        except _TroubleError as trouble:
            if trouble.code in final:
                raise Misconfigured([self._say(str(trouble))]) from None
            raise Transient(trouble.reason, self._say(str(trouble))) from None
        except (KeyError, TypeError, ValueError):
            hint = "what it holds is not attachd's, or a newer one's"
            raise Transient(_UNREADABLE, self._say(hint)) from None

    def _say(self, what: str) -> str:
        return f"[journal] table {self._table!r}: {what}"


def _trouble(error: Exception) -> _TroubleError:
    """The one place where a foreign error becomes ours."""
    match error:
        case ClientError():
            code = str(error.response.get("Error", {}).get("Code", ""))
            if error.operation_name not in _OPERATIONS:  # credentials were being fetched on the way
                return _TroubleError(
                    _CREDENTIALS, f"no AWS credentials: {error.operation_name} answered {code}"
                )
            return _TroubleError(
                code, _ADVICE.get(code, f"DynamoDB answered {code}"), error.response.get("Item")
            )
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return _TroubleError(_CREDENTIALS, "no usable AWS credentials")
        case BotoCoreError() | aiohttp.ClientError() | OSError():
            hint = "check the network, the VPC endpoint, AWS_ENDPOINT_URL_DYNAMODB"
            return _TroubleError(_UNREACHABLE, f"DynamoDB does not answer ({type(error).__name__}); {hint}")
        case _:
            return _TroubleError(_UNREADABLE, f"DynamoDB's reply cannot be read ({type(error).__name__})")


# ── what stands in the table ───────────────────────────────────────────────────────────────────


def _key(contact_id: str) -> dict[str, Any]:
    return {"id": {"S": f"contact#{contact_id}"}}


def _number(value: float) -> dict[str, str]:
    return {"N": repr(value)}


def _item(entry: Entry) -> dict[str, Any]:
    values = {name: value for name, value in asdict(entry).items() if value is not None}
    return _key(entry.contact_id) | {
        name: {"S": str(value)} if isinstance(value, str) else _number(value)
        for name, value in values.items()
    }


def _entry(item: Mapping[str, Any]) -> Entry:
    values = {name: _value(name, value) for name, value in item.items() if name not in {"id", TTL}}
    return Entry(**values | {"stage": Stage(values["stage"])})


def _value(name: str, value: Mapping[str, str]) -> Any:
    """Every number but those that count is a time."""
    if "N" not in value:
        return value["S"]
    return int(value["N"]) if name in {"version", "generation"} else float(value["N"])


def _filter(wanted: Wanted) -> dict[str, Any]:
    """Scan's filter: what it leaves out is read, and paid for, all the same."""
    terms = ["begins_with(#id, :contact)"]
    names, values = {"#id": "id"}, {":contact": {"S": "contact#"}}

    def ask(term: str, name: str, **given: dict[str, str]) -> None:
        terms.append(term)
        names[f"#{name}"] = name
        values.update({f":{key}": value for key, value in given.items()})

    stages = {f"stage{number}": {"S": str(stage)} for number, stage in enumerate(sorted(wanted.stages))}
    ask(f"#stage IN ({', '.join(f':{key}' for key in stages)})", "stage", **stages)
    if wanted.bot is not None:
        ask("#bot = :bot", "bot", bot={"S": wanted.bot})
    if isfinite(wanted.since):
        ask("#changed_at >= :since", "changed_at", since=_number(wanted.since))
    if isfinite(wanted.before):
        ask("#changed_at < :before", "changed_at", before=_number(wanted.before))
    return {
        "FilterExpression": " AND ".join(terms),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def _beat_value(beat: Beat) -> dict[str, Any]:
    return {"M": {name: _number(value) for name, value in asdict(beat).items() if name != "owner"}}


def _beats(attributes: Mapping[str, Any]) -> list[Beat]:
    rows = {owner: value["M"] for owner, value in attributes.items() if "M" in value}
    return [
        Beat(owner, int(row["count"]["N"]), int(row["waiting"]["N"]), float(row["reserved"]["N"]))
        for owner, row in rows.items()
    ]
