"""Leases in DynamoDB: the Kinesis Client Library's table and its conditional writes, for as many workers as share it.

Only the attributes that are ours to write are written; whatever else a KCL keeps in an item stays there
(throughputKBps …), and items that are no lease of a single stream are left alone.

Source: ``DynamoDBLeaseSerializer`` and ``DynamoDBLeaseRefresher`` in awslabs/amazon-kinesis-client.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from attachd import aws
from attachd.aws import NewSession
from attachd.errors import Misconfigured, Transient
from attachd.sources.calls import CONFLICT, IN_USE, NOT_FOUND, call
from attachd.streams import Lease

_KEY: Final = "leaseKey"
#: The table, as CreateTable takes it.
SCHEMA: Final[dict[str, Any]] = {
    "AttributeDefinitions": [{"AttributeName": _KEY, "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": _KEY, "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
_CREATE_SECONDS: Final = 10.0
_TIMEOUT_SECONDS: Final = 2.0  # a call that hangs must not cost a lease

# A KCL's hand-over in two steps: what it says of it ends with any write of ours.
_PENDING: Final = (
    "pendingCheckpoint",
    "pendingCheckpointSubSequenceNumber",
    "pendingCheckpointState",
    "checkpointOwner",
)

log = structlog.get_logger(__name__)


class DynamoLeases:
    """A lease table.

    Args:
        sessions: where clients come from.
        table: its name, which is a KCL application's name.
        user_agent: sent with every call.
    """

    def __init__(self, sessions: NewSession, table: str, *, user_agent: str) -> None:
        self._sessions = sessions
        self._table = table
        self._user_agent = user_agent
        self._client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``ports.Leases``."""
        made = aws.client(
            self._sessions, "dynamodb", user_agent=self._user_agent, read_timeout=_TIMEOUT_SECONDS
        )
        async with made as self._client:
            try:
                answer = await call(self._client.describe_table, "DescribeTable", TableName=self._table)
            except Transient as error:
                if error.reason == NOT_FOUND:
                    raise Misconfigured(
                        [f"table {self._table} does not exist; `attachd leases create` makes it"]
                    ) from None
                log.warning("kinesis.leases_not_checked", table=self._table, reason=str(error))
            else:
                self._judge(answer.get("Table") or {})
            yield

    def _judge(self, table: dict[str, Any]) -> None:
        if table.get("KeySchema", SCHEMA["KeySchema"]) != SCHEMA["KeySchema"]:
            raise Misconfigured(
                [
                    f"table {self._table}: its key is not the text {_KEY} alone; leases need a table of their own"
                ]
            )

    async def create(self) -> list[str]:
        """Make the table, on-demand, where it is missing; what was done, a sentence each.

        Raises:
            Misconfigured: there is another table of that name.
            Transient: it cannot be made now.
        """
        made = aws.client(
            self._sessions, "dynamodb", user_agent=self._user_agent, read_timeout=_CREATE_SECONDS
        )
        async with made as dynamodb:
            try:
                await call(dynamodb.create_table, "CreateTable", TableName=self._table, **SCHEMA)
            except Transient as error:
                if error.reason != IN_USE:
                    raise
                answer = await call(dynamodb.describe_table, "DescribeTable", TableName=self._table)
                self._judge(answer.get("Table") or {})
                return [f"table {self._table} was there already"]
        return [f"table {self._table} made, on-demand; it takes some seconds to be there"]

    async def all(self) -> Sequence[Lease]:
        """See ``ports.Leases``."""
        leases: list[Lease] = []
        page: dict[str, Any] = {"TableName": self._table, "ConsistentRead": True}
        while True:
            answer = await call(self._client.scan, f"Scan of {self._table}", **page)
            leases += [lease for item in answer.get("Items") or () if (lease := _read(item)) is not None]
            if not (last := answer.get("LastEvaluatedKey")):
                return leases
            page["ExclusiveStartKey"] = last

    async def put(self, lease: Lease, was: Lease | None) -> bool:
        """See ``ports.Leases``."""
        try:
            if was is None:
                await call(
                    self._client.put_item,
                    f"PutItem in {self._table}",
                    TableName=self._table,
                    Item=_item(lease),
                    ConditionExpression="attribute_not_exists(leaseKey)",
                )
            else:
                await call(
                    self._client.update_item, f"UpdateItem in {self._table}", **self._update(lease, was)
                )
        except Transient as error:
            if error.reason != CONFLICT:
                raise
            stored = await self._get(lease.shard)
            return stored is not None and (stored.owner, stored.counter) == (lease.owner, lease.counter)
        return True

    def _update(self, lease: Lease, was: Lease) -> dict[str, Any]:
        written = {name: value for name, value in _item(lease).items() if name != _KEY}
        removed = [*_PENDING, *(["leaseOwner"] if lease.owner is None else [])]
        names = {f"#{i}": name for i, name in enumerate([*written, *removed])}
        token = {name: sign for sign, name in names.items()}
        values = {f":{sign[1:]}": written[name] for sign, name in names.items() if name in written}
        owner = "attribute_not_exists(#owner)" if was.owner is None else "#owner = :owner"
        if was.owner is not None:
            values[":owner"] = {"S": was.owner}
        return {
            "TableName": self._table,
            "Key": {_KEY: {"S": lease.shard}},
            "UpdateExpression": (
                f"SET {', '.join(f'{token[name]} = :{token[name][1:]}' for name in written)} "
                f"REMOVE {', '.join(token[name] for name in removed)}"
            ),
            "ConditionExpression": f"#counter = :counter AND {owner}",
            "ExpressionAttributeNames": names | {"#counter": "leaseCounter", "#owner": "leaseOwner"},
            "ExpressionAttributeValues": values | {":counter": {"N": str(was.counter)}},
        }

    async def drop(self, lease: Lease) -> None:
        """See ``ports.Leases``."""
        try:
            await call(
                self._client.delete_item,
                f"DeleteItem in {self._table}",
                TableName=self._table,
                Key={_KEY: {"S": lease.shard}},
                ConditionExpression="leaseCounter = :counter",
                ExpressionAttributeValues={":counter": {"N": str(lease.counter)}},
            )
        except Transient as error:
            if error.reason != CONFLICT:
                raise

    async def _get(self, shard_id: str) -> Lease | None:
        answer = await call(
            self._client.get_item,
            f"GetItem in {self._table}",
            TableName=self._table,
            Key={_KEY: {"S": shard_id}},
            ConsistentRead=True,
        )
        return _read(answer.get("Item") or {})


def _item(lease: Lease) -> dict[str, Any]:
    item: dict[str, Any] = {
        _KEY: {"S": lease.shard},
        "leaseCounter": {"N": str(lease.counter)},
        "ownerSwitchesSinceCheckpoint": {"N": str(lease.switches)},
        "checkpoint": {"S": str(lease.checkpoint)},
        "checkpointSubSequenceNumber": {"N": str(lease.sub)},
    }
    if lease.owner is not None:
        item["leaseOwner"] = {"S": lease.owner}
    if lease.parents:
        item["parentShardId"] = {"SS": sorted(lease.parents)}
    if lease.children:
        item["childShardIds"] = {"SS": sorted(lease.children)}
    if lease.hash_range is not None:
        item["startingHashKey"], item["endingHashKey"] = ({"S": key} for key in lease.hash_range)
    if lease.since is not None:
        item["attachdSince"] = {"N": repr(lease.since)}
    return item


def _read(item: dict[str, Any]) -> Lease | None:
    """The item as a lease; None if it is none. Only what a lease cannot be without must be there."""

    def text(name: str) -> str | None:
        return str(item[name]["S"]) if "S" in item.get(name, {}) else None

    def number(name: str) -> int:
        return int(item.get(name, {}).get("N", 0))

    key, checkpoint = text(_KEY), text("checkpoint")
    # With colons: a lease of a multi-stream application. Its version 3 keeps a leader, metrics and more in the table.
    if key is None or checkpoint is None or ":" in key or text("entityType") not in {None, "LEASE"}:
        return None
    hashes = text("startingHashKey"), text("endingHashKey")
    return Lease(
        key,
        checkpoint,
        sub=number("checkpointSubSequenceNumber"),
        owner=text("leaseOwner"),
        counter=number("leaseCounter"),
        switches=number("ownerSwitchesSinceCheckpoint"),
        parents=frozenset(item.get("parentShardId", {}).get("SS", ())),
        children=frozenset(item.get("childShardIds", {}).get("SS", ())),
        hash_range=(hashes[0], hashes[1]) if hashes[0] and hashes[1] else None,
        since=float(item["attachdSince"]["N"]) if "attachdSince" in item else None,
    )
