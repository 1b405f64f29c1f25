"""A service in memory over the simulated Connect, both on the event loop's clock: minutes of rush hour in a second.

Nothing here is a fake of Connect: requests are bytes for the simulator's own front door, whose quotas, rules and
faults answer them; what it answers goes through ``failures`` as a client's would.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup  # noqa: TC002
from botocore.exceptions import ClientError, ReadTimeoutError

from attachd.errors import Permanent, Transient
from attachd.failures import GONE, Failure, translate
from attachd.model import (
    AttachRequest,
    Bot,
    ChatEnded,
    Connection,
    ContactState,
    Handoff,
    Participant,
    Secret,
)
from attachd.patterns import compile_pattern
from attachd.progress import Progress
from attachd.quota import Rate
from attachd.replicas import Replicas
from attachd.rules import Rule, Rules
from attachd.service import Limits, Service
from attachd.simulator import Dials
from attachd.simulator.faults import Garbled, Reset, Silence
from attachd.simulator.front.api import Answer, Api
from attachd.simulator.front.truth import truth
from attachd.simulator.state.world import World
from attachd.testing import Line, MemorySource, MemoryTable

EPOCH = 1_800_000_000.0
READ_SECONDS = 4.0


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


class Wire:
    """The way to the simulator and back, with a latency of 20 to 120 ms."""

    def __init__(self, api: Api, seed: int = 0) -> None:
        self.api = api
        self._dice = random.Random(seed)

    async def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        bearer: str = "",
        *,
        first: Mapping[str, Failure] = GONE,
    ) -> dict[str, Any]:
        await anyio.sleep(self._dice.uniform(0.01, 0.06))
        headers = {"Content-Type": "application/json", "X-Amz-Bearer": bearer}
        answer = self.api.call(method, path, headers, json.dumps(body or {}).encode(), now())
        await anyio.sleep(self._dice.uniform(0.01, 0.06))
        try:
            return await _received(answer, operation)
        except Exception as error:  # noqa: BLE001 - as in ``connect``
            translate(error, operation, first if bearer else {})


async def _received(answer: Answer, operation: str) -> dict[str, Any]:
    if answer.delay_seconds >= READ_SECONDS or isinstance(answer.spoiled, Silence):
        await anyio.sleep(READ_SECONDS)
        raise ReadTimeoutError(endpoint_url="simulator")
    await anyio.sleep(answer.delay_seconds)
    if isinstance(answer.spoiled, Reset):
        raise ConnectionResetError
    if isinstance(answer.spoiled, Garbled):
        raise ValueError("not JSON")  # noqa: TRY004 - as a parser does
    document: dict[str, Any] = json.loads(answer.body)
    if answer.status == 200:
        return document
    code = answer.headers["x-amzn-ErrorType"]
    said = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": answer.status, "RequestId": "r"}}
    raise ClientError(said, operation)


class SimulatedConnect:
    """``ports.Attacher`` over the wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def attach(self, request: AttachRequest) -> Participant:
        body = {
            "InstanceId": request.instance_id,
            "ContactId": request.contact_id,
            "ClientToken": request.client_token,
            "ParticipantDetails": {"ParticipantRole": request.role, "DisplayName": request.display_name},
        }
        answer = await self._wire.call("CreateParticipant", "POST", "/contact/create-participant", body)
        credentials = answer["ParticipantCredentials"]
        return Participant(
            answer["ParticipantId"], Secret(credentials["ParticipantToken"]), credentials["Expiry"]
        )

    async def stream(self, instance_id: str, contact_id: str, topic: str, client_token: str) -> None:
        raise NotImplementedError

    async def set_timers(self, instance_id: str, contact_id: str, timers: Mapping[str, int]) -> None:
        raise NotImplementedError

    async def read_attributes(self, instance_id: str, initial_contact_id: str) -> Mapping[str, str]:
        raise NotImplementedError

    async def connect(self, participant: Participant) -> Connection:
        body = {"Type": ["CONNECTION_CREDENTIALS"], "ConnectParticipant": True}
        answer = await self._wire.call(
            "CreateParticipantConnection", "POST", "/participant/connection", body, participant.token.reveal()
        )
        credentials = answer["ConnectionCredentials"]
        return Connection(Secret(credentials["ConnectionToken"]), credentials["Expiry"])

    async def disconnect(self, connection: Connection) -> None:
        await self._wire.call(
            "DisconnectParticipant", "POST", "/participant/disconnect", {}, connection.token.reveal()
        )

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:
        answer = await self._wire.call("DescribeContact", "GET", f"/contacts/{instance_id}/{contact_id}")
        contact = answer["Contact"]
        return ContactState(
            connected="ConnectedToSystemTimestamp" in contact,
            queued="QueueInfo" in contact,
            agent="AgentInfo" in contact,
            ended="DisconnectTimestamp" in contact,
        )


@dataclass
class Bots:
    """A runtime whose bots connect and speak, unless it is down."""

    wire: Wire
    down: Transient | None = None
    accepted: dict[str, Handoff] = field(default_factory=dict)
    offers: int = 0

    async def offer(self, handoff: Handoff) -> int | None:
        self.offers += 1
        await anyio.sleep(0.03)
        if self.down is not None:
            raise self.down
        if handoff.key in self.accepted:
            return None
        self.accepted[handoff.key] = handoff
        try:
            connection = await SimulatedConnect(self.wire).connect(handoff.participant)
            said = {"ContentType": "text/plain", "Content": "Hello"}
            await self.wire.call(
                "SendMessage", "POST", "/participant/message", said, connection.token.reveal()
            )
        except (Transient, Permanent):
            del self.accepted[handoff.key]
            raise Transient("runtime_500", "the bot could not connect") from None
        return None

    async def ended(self, farewell: ChatEnded) -> None:
        pass

    async def probe(self) -> None:
        if self.down is not None:
            raise self.down


def _rules(patience: float) -> Rules:
    chats = compile_pattern('{"detail":{"channel":["CHAT"]}}')
    return Rules([Rule("chat", chats, (Bot("concierge", "Ava", "ava"),), patience=patience)])


class Town:
    """One simulated account, and one or more replicas of the service that share its queue."""

    def __init__(self, *, dials: Dials | None = None, patience: float = 60.0, replicas: int = 1) -> None:
        self.world = World(dials or Dials())
        self.api = Api(self.world, self._announce)
        self.wire = Wire(self.api)
        self.bots = Bots(self.wire)
        self.source = MemorySource(poll_seconds=1.0)
        self._customers: TaskGroup | None = None
        self._journal = MemoryTable()
        self.replicas = [_Replica(self, f"replica-{n}", patience) for n in range(replicas)]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serving; at the end what is in hand is seen through."""
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            for replica in self.replicas:
                await stack.enter_async_context(replica.replicas.joined())
                tasks.start_soon(replica.service.run)
                await anyio.sleep(0.7)  # so that they beat at different moments
            await anyio.sleep(10)  # until all have seen each other, and the burst is whole
            async with anyio.create_task_group() as self._customers:
                yield
            for replica in self.replicas:
                replica.service.stop()

    def arrive(self, patience: float = 3600.0) -> None:
        """A customer comes, connects, and leaves when no bot has spoken within their patience."""
        assert self._customers is not None
        self._customers.start_soon(self._customer, patience)

    async def _customer(self, patience: float) -> None:
        instance = self.world.dials.instance_id
        details = {"DisplayName": "Cleo"}
        body = {"InstanceId": instance, "ContactFlowId": "flow", "ParticipantDetails": details}
        chat = self._do("PUT", "/contact/chat", body)
        joined = self._do(
            "POST",
            "/participant/connection",
            {"Type": ["CONNECTION_CREDENTIALS"], "ConnectParticipant": True},
            chat["ParticipantToken"],
        )
        await anyio.sleep(patience)
        if not self.served(chat["ContactId"]):
            token = joined["ConnectionCredentials"]["ConnectionToken"]
            self._do("POST", "/participant/disconnect", {}, token)

    def served(self, contact_id: str) -> bool:
        """Whether a bot has spoken."""
        members = self.world.contacts[contact_id].participants
        return any(member.role == "CUSTOM_BOT" and member.messages_sent for member in members)

    def _do(self, method: str, path: str, body: Mapping[str, Any], bearer: str = "") -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "X-Amz-Bearer": bearer}
        answer = self.api.call(method, path, headers, json.dumps(body).encode(), now())
        assert answer.status == 200, answer
        document: dict[str, Any] = json.loads(answer.body)
        return document

    def _announce(self, event: dict[str, Any]) -> None:
        self.source.add(json.dumps(event).encode())

    def truth(self) -> dict[str, Any]:
        """What really happened."""
        return truth(self.world)

    def creates(self, code: str | None = None) -> list[dict[str, Any]]:
        """The CreateParticipant calls, all or those that ended with this code; empty for success."""
        calls = [call for call in self.truth()["calls"] if call["operation"] == "CreateParticipant"]
        return calls if code is None else [call for call in calls if call["code"] == code]

    def spoke(self) -> list[int]:
        """How many bots spoke, by chat."""
        return [contact["custom_bots"]["spoke"] for contact in self.truth()["contacts"]]


class _Replica:
    """A service, and its share of the quota."""

    def __init__(self, town: Town, owner: str, patience: float) -> None:
        quota = town.world.dials
        whole = Rate(0.98 * quota.rate, int(0.98 * quota.burst))
        journal = town._journal
        self.replicas = Replicas(
            journal,
            owner,
            seats=lambda: round(quota.burst),
            waiting=lambda: len(self.line.room),
            on_share=self._share,
        )
        self.line = Line(
            now,
            attacher=SimulatedConnect(town.wire),
            runtimes={"ava": town.bots},
            rules=_rules(patience),
            rate=whole,
            journal=journal,
            owner=owner,
        )
        self._whole = whole
        self.service = Service(
            sources=[town.source],
            pipeline=self.line.pipeline,
            background=self.line.background | {"replicas": self.replicas.run},
            metrics=self.line.metrics,
            progress=Progress(asyncio.get_running_loop().time),
            limits=Limits(in_hand=20_000),
            dice=random.Random(2),
        )

    def _share(self, share: float, count: int) -> None:
        self.line.room.change(self._whole.part(share, 1 / count) if share else None)
