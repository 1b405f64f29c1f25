"""The journal in one DynamoDB table: for several processes, on as many machines.

An entry is an item, replaced only by a conditional write on its version; a race that is lost costs no second
read, since the refusal brings what is stored. All replicas beat in *one* item, an attribute each: a write there
answers with all of them as they are after it, in one request, strongly consistent. It alone has no TTL; entries
are forgotten by the table's.

Source: DynamoDB API reference, PutItem, UpdateItem (``ReturnValues``).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Any, Final

import anyio

from attachd.aws import NewSession
from attachd.journals.dynamodb import items
from attachd.journals.dynamodb.items import RECALLED, REPLICAS, TTL
from attachd.journals.dynamodb.table import LOST, JournalTable, TroubleError
from attachd.lifecycle import ALL, Entry, Wanted
from attachd.model import Beat

_BEAT_SECONDS: Final = 2.0  # one try: the next beat is the next try
_WATCH_SECONDS: Final = 2.5  # every replica beats at least every 2 s


class DynamoJournal:
    """A table of contacts, and of the replicas that serve them.

    Args:
        sessions: where clients come from; Region, endpoint and credentials as every AWS tool takes them.
        table: its name.
        keep_seconds: an entry may be forgotten so long after its last change.
        user_agent: sent with every call.
    """

    def __init__(self, sessions: NewSession, table: str, *, keep_seconds: float, user_agent: str) -> None:
        self.table = JournalTable(sessions, table, user_agent=user_agent)
        self._keep_seconds = keep_seconds
        self._entries: Any = None
        self._beats: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connect, and check the table. See ``JournalTable.check``."""
        # One client each: who has much to write must not look dead for it.
        async with self.table.client(2) as self._entries, self.table.client(1) as self._beats:
            await self.table.check(self._entries)
            yield

    async def get(self, contact_id: str) -> Entry | None:
        """See ``ports.Journal``."""
        with self.table.told():
            answer = await self.table.ask(
                self._entries.get_item, Key=items.key(contact_id), ConsistentRead=True
            )
            return items.entry_of(answer["Item"]) if "Item" in answer else None

    async def put(self, entry: Entry) -> Entry:
        """See ``ports.Journal``."""
        with self.table.told():
            try:
                await self.table.ask(
                    self._entries.put_item,
                    Item=items.item_of(entry)
                    | {TTL: {"N": str(ceil(entry.changed_at + self._keep_seconds))}},
                    ConditionExpression="attribute_not_exists(#id) OR #version = :before",
                    ExpressionAttributeNames={"#id": "id", "#version": "version"},
                    ExpressionAttributeValues={":before": items.number(entry.version - 1)},
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except TroubleError as trouble:
                if trouble.code != LOST:
                    raise
                if trouble.stored is not None:
                    return items.entry_of(trouble.stored)
                stored = await self.get(entry.contact_id)  # an emulator may leave it out
                if stored is None:
                    raise
                return stored
            return entry

    async def purge(self, before: float) -> int:  # noqa: ARG002 - the port asks
        """See ``ports.Journal``. The table's TTL does it."""
        return 0

    async def entries(self, wanted: Wanted = ALL) -> AsyncGenerator[Entry, None]:
        """See ``ports.Journal``. Reads the whole table, eventually consistent: half a unit for every 4 kB that it holds."""
        asked: dict[str, Any] = items.filter_of(wanted)
        while True:
            with self.table.told():
                answer = await self.table.ask(self._entries.scan, **asked)
                page = [items.entry_of(item) for item in answer["Items"]]
                following = answer.get("LastEvaluatedKey")
            for entry in page:
                yield entry
            if following is None:
                return
            asked["ExclusiveStartKey"] = following

    async def forget(self, entry: Entry) -> bool:
        """See ``ports.Journal``."""
        with self.table.told():
            try:
                await self.table.ask(
                    self._entries.delete_item,
                    Key=items.key(entry.contact_id),
                    ConditionExpression="#version = :version",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues={":version": items.number(entry.version)},
                )
            except TroubleError as trouble:
                if trouble.code != LOST:
                    raise
                return False
            return True

    async def recall(self, contact_id: str) -> None:
        """See ``ports.Journal``."""
        with self.table.told():
            await self.table.ask(
                self._entries.update_item,
                Key=RECALLED,
                UpdateExpression="ADD #contacts :contact",
                ExpressionAttributeNames={"#contacts": "contacts"},
                ExpressionAttributeValues={":contact": {"SS": [contact_id]}},
            )

    async def recalled(self) -> Sequence[str]:
        """See ``ports.Journal``. Where there are none, half a read unit; all of them are in one item."""
        with self.table.told():
            there = await self.table.ask(self._entries.get_item, Key=RECALLED)
            if "contacts" not in there.get("Item", {}):
                return []
            taken = await self.table.ask(
                self._entries.update_item,
                Key=RECALLED,
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
        with self.table.told():
            answer = await self.table.ask(self._beats.get_item, Key=REPLICAS, ConsistentRead=True)
            return {beat.owner: beat.count for beat in items.beats_of(answer.get("Item", {}))}

    async def beat(self, beat: Beat) -> Sequence[Beat]:
        """See ``ports.Journal``."""
        with self.table.told():
            answer = await self.table.ask(
                self._beats.update_item,
                within=_BEAT_SECONDS,
                Key=REPLICAS,
                UpdateExpression="SET #owner = :beat",
                ConditionExpression="attribute_not_exists(#owner) OR #owner.#count <= :count",
                ExpressionAttributeNames={"#owner": beat.owner, "#count": "count"},
                ExpressionAttributeValues={":beat": items.value_of(beat), ":count": items.number(beat.count)},
                ReturnValues="ALL_NEW",
            )
            return items.beats_of(answer["Attributes"])

    async def retire(self, beat: Beat) -> None:
        """See ``ports.Journal``."""
        with self.table.told():
            try:
                await self.table.ask(
                    self._beats.update_item,
                    within=_BEAT_SECONDS,
                    Key=REPLICAS,
                    UpdateExpression="REMOVE #owner",
                    ConditionExpression="#owner.#count <= :count",
                    ExpressionAttributeNames={"#owner": beat.owner, "#count": "count"},
                    ExpressionAttributeValues={":count": items.number(beat.count)},
                )
            except TroubleError as trouble:
                if trouble.code != LOST:
                    raise
