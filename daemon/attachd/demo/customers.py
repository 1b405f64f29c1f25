"""The customers: each starts a chat, waits for a bot, asks it something, gets an answer, leaves."""

from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED

PATIENCE_SECONDS: Final = 45.0
_LOOK_SECONDS: Final = 0.5

QUESTIONS: Final = (
    "When are you open?",
    "Where is my order 20391?",
    "Can I bring my dog?",
    "My order is late.",
)


@dataclass(slots=True)
class Visit:
    """What one customer went through. Times are on the event loop's clock."""

    name: str
    language: str
    question: str
    contact_id: str = ""
    transcript: list[dict[str, Any]] = field(default_factory=list)
    answered: bool = False


class Customer:
    """A customer, over the same public APIs that a chat widget uses.

    Args:
        connect: an aiobotocore ``connect`` client.
        participants: an aiobotocore ``connectparticipant`` client, unsigned.
        instance_id: the Connect instance.
        flow_id: the contact flow that greets; any, for the simulator.
    """

    def __init__(self, connect: Any, participants: Any, instance_id: str, flow_id: str) -> None:
        self._connect = connect
        self._participants = participants
        self._instance_id = instance_id
        self._flow_id = flow_id

    async def visit(self, visit: Visit) -> None:
        """One chat from start to end; ``visit.answered`` says whether a bot answered in time."""
        chat = await self._connect.start_chat_contact(
            InstanceId=self._instance_id,
            ContactFlowId=self._flow_id,
            ParticipantDetails={"DisplayName": visit.name},
            SegmentAttributes={"language": {"ValueString": visit.language}},
        )
        visit.contact_id = chat["ContactId"]
        joined = await self._participants.create_participant_connection(
            ParticipantToken=chat["ParticipantToken"],
            Type=["CONNECTION_CREDENTIALS"],
            ConnectParticipant=True,
        )
        token = joined["ConnectionCredentials"]["ConnectionToken"]
        with anyio.move_on_after(PATIENCE_SECONDS):
            await self._bot_has_spoken(visit, token, times=1)
            await self._participants.send_message(
                ConnectionToken=token, ContentType="text/plain", Content=visit.question
            )
            await self._bot_has_spoken(visit, token, times=2)
            visit.answered = True
        await self._participants.disconnect_participant(ConnectionToken=token)

    async def _bot_has_spoken(self, visit: Visit, token: str, *, times: int) -> None:
        while True:
            page = await self._participants.get_transcript(
                ConnectionToken=token, MaxResults=100, SortOrder="ASCENDING"
            )
            visit.transcript = page["Transcript"]
            spoken = [item for item in visit.transcript if item.get("ParticipantRole") == "CUSTOM_BOT"]
            if sum(item["Type"] == "MESSAGE" for item in spoken) >= times:
                return
            await anyio.sleep(_LOOK_SECONDS)  # as a page without a websocket would


def clients(session: AioSession, url: str) -> tuple[Any, Any]:
    """Client factories for Connect and the Participant Service at ``url``, to be entered."""
    config = AioConfig(max_pool_connections=50)
    unsigned = AioConfig(max_pool_connections=50, signature_version=UNSIGNED)
    return (
        session.create_client("connect", endpoint_url=url, config=config),
        session.create_client("connectparticipant", endpoint_url=url, config=unsigned),
    )
