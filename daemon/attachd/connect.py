"""Amazon Connect and its Participant Service: the calls. What their errors mean to us is ``failures``'s.

The SDK's own retries are off: every try must buy a token of the quota, and only the line can do that
(measured for 120 chats at once against 5/s: botocore's standard mode attaches 19 to 26 of them). Credentials
go in and out as ``Secret``; no foreign exception leaves this module, since its text may quote a request.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.exceptions import BotoCoreError, NoRegionError

from attachd import summaries
from attachd.errors import Misconfigured, Transient
from attachd.failures import CREDENTIALS, GONE, Failure, translate
from attachd.model import AttachRequest, Connection, ContactState, Participant, Secret

_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 4.0
_CONNECTIONS: Final = 50  # the default of 10 caps a client at 166 calls/s at 50 ms each
_RENEW_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two services' clients."""

    connect: Any
    participants: Any


class Connect:
    """One account and Region's Amazon Connect. See ``ports.Attacher``.

    Args:
        sessions: makes a new session, which reads credentials anew.
        user_agent: of every call.
        endpoint_url: instead of where AWS tools would go.
    """

    def __init__(
        self, sessions: Callable[[], AioSession], user_agent: str, *, endpoint_url: str | None = None
    ) -> None:
        self._sessions = sessions
        self._user_agent = user_agent
        self._endpoint_url = endpoint_url
        self._pair: _Pair | None = None
        self._made_at = 0.0
        self._stale = False
        self._making = anyio.Lock()
        self._stacks: list[AsyncExitStack] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Make the clients, once: making them blocks for up to 0.2 s.

        Raises:
            Misconfigured: no Region is set.
        """
        try:
            await self._make()
        except BotoCoreError as error:
            advice = (
                "set AWS_REGION, or a profile that has a region"
                if isinstance(error, NoRegionError)
                else "try `aws sts get-caller-identity`"
            )
            raise Misconfigured([f"AWS: {type(error).__name__} ({advice})"]) from None
        try:
            yield
        finally:
            while self._stacks:
                await self._stacks.pop().aclose()

    async def attach(self, request: AttachRequest) -> Participant:
        """CreateParticipant."""
        details: dict[str, Any] = {"ParticipantRole": request.role, "DisplayName": request.display_name}
        if request.capabilities:
            details["ParticipantCapabilities"] = dict(request.capabilities)
        with self._translated("CreateParticipant"):
            clients = await self._clients()
            answer = await clients.connect.create_participant(
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

    async def stream(self, instance_id: str, contact_id: str, topic: str, client_token: str) -> None:
        """StartContactStreaming."""
        with self._translated("StartContactStreaming"):
            clients = await self._clients()
            await clients.connect.start_contact_streaming(
                InstanceId=instance_id,
                ContactId=contact_id,
                ChatStreamingConfiguration={"StreamingEndpointArn": topic},
                ClientToken=client_token,
            )

    async def set_timers(self, instance_id: str, contact_id: str, timers: Mapping[str, int]) -> None:
        """UpdateParticipantRoleConfig, for the customer."""
        configured = [
            {
                "ParticipantRole": "CUSTOMER",
                "TimerType": kind,
                "TimerValue": {"ParticipantTimerDurationInMinutes": minutes},
            }
            for kind, minutes in timers.items()
        ]
        with self._translated("UpdateParticipantRoleConfig"):
            clients = await self._clients()
            await clients.connect.update_participant_role_config(
                InstanceId=instance_id,
                ContactId=contact_id,
                ChannelConfiguration={"Chat": {"ParticipantTimerConfigList": configured}},
            )

    async def read_attributes(self, instance_id: str, initial_contact_id: str) -> Mapping[str, str]:
        """GetContactAttributes."""
        with self._translated("GetContactAttributes"):
            clients = await self._clients()
            answer = await clients.connect.get_contact_attributes(
                InstanceId=instance_id, InitialContactId=initial_contact_id
            )
            return dict(answer["Attributes"])

    async def connect(self, participant: Participant) -> Connection:
        """CreateParticipantConnection."""
        with self._translated("CreateParticipantConnection", GONE):
            clients = await self._clients()
            answer = await clients.participants.create_participant_connection(
                ParticipantToken=participant.token.reveal(),
                Type=["CONNECTION_CREDENTIALS"],
                ConnectParticipant=True,
            )
            credentials = answer["ConnectionCredentials"]
            return Connection(Secret(credentials["ConnectionToken"]), str(credentials.get("Expiry", "")))

    async def disconnect(self, connection: Connection) -> None:
        """DisconnectParticipant. Takes the flow's "Bot participant disconnected" branch."""
        with self._translated("DisconnectParticipant", GONE):
            clients = await self._clients()
            await clients.participants.disconnect_participant(ConnectionToken=connection.token.reveal())

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:
        """DescribeContact."""
        with self._translated("DescribeContact"):
            clients = await self._clients()
            answer = await clients.connect.describe_contact(InstanceId=instance_id, ContactId=contact_id)
            told = answer["Contact"]
            instance_arn, contact, _ = str(told.get("Arn", "")).partition("/contact/")
            return ContactState(
                connected=summaries.moment(told.get("ConnectedToSystemTimestamp")) is not None,
                queued=summaries.queued(told),
                agent=summaries.with_agent(told),
                ended=summaries.ended(told),
                contact=summaries.contact(told, instance_arn) if contact else None,
            )

    @contextmanager
    def _translated(
        self, operation: str, first: Mapping[str, Failure] = MappingProxyType({})
    ) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a client or its parser raises, it leaves as ours
            try:
                translate(error, operation, first)
            except Transient as ours:
                self._stale = self._stale or ours.reason == CREDENTIALS.reason
                raise

    async def _clients(self) -> _Pair:
        """The clients; new ones if the credentials of these are refused, since only a new session reads them anew."""
        async with self._making:
            if self._stale and anyio.current_time() >= self._made_at + _RENEW_SECONDS:
                log.info("connect.clients_renewed", reason="the credentials were refused")
                await self._make()
            if self._pair is None:
                raise RuntimeError("Connect is not open")
            return self._pair

    async def _make(self) -> None:
        """Make both clients. The former ones stay open for the calls that they are in the middle of."""
        common: dict[str, Any] = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "max_pool_connections": _CONNECTIONS,
            "user_agent": self._user_agent,
            "http_session_cls": _Straight,
        }
        # The Participant Service takes a bearer token, not Signature Version 4, whatever botocore's model says.
        signed, unsigned = AioConfig(**common), AioConfig(signature_version=UNSIGNED, **common)
        session = self._sessions()
        async with AsyncExitStack() as stack:
            self._pair = _Pair(
                *[
                    await stack.enter_async_context(
                        session.create_client(service, config=config, endpoint_url=self._endpoint_url)
                    )
                    for service, config in (("connect", signed), ("connectparticipant", unsigned))
                ]
            )
            self._stacks.append(stack.pop_all())
        self._made_at, self._stale = anyio.current_time(), False
        if len(self._stacks) > 2:  # noqa: PLR2004 - these, and those before them, whose last calls are under way
            await self._stacks.pop(0).aclose()


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
