"""Everything but the calls: an attacher and a runtime that say yes and do nothing, for rehearsals.

The decisions are made and logged as ever, quotas and all; no participant exists and no token is handed to anybody.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio

from attachd.model import AttachRequest, ChatEnded, Connection, ContactState, Handoff, Participant, Secret


class ShadowConnect:
    """See ``ports.Attacher``. Every call succeeds, and none is made."""

    async def attach(self, request: AttachRequest) -> Participant:
        """See ``ports.Attacher``."""
        await anyio.lowlevel.checkpoint()
        return Participant(f"shadow-{request.client_token[:12]}", Secret("shadow"), expiry="")

    async def stream(self, instance_id: str, contact_id: str, topic: str, client_token: str) -> None:
        """See ``ports.Attacher``."""

    async def set_timers(self, instance_id: str, contact_id: str, timers: Mapping[str, int]) -> None:
        """See ``ports.Attacher``."""

    async def read_attributes(self, instance_id: str, initial_contact_id: str) -> Mapping[str, str]:  # noqa: ARG002 - the port's
        """See ``ports.Attacher``. Nobody is asked, so there are none."""
        return {}

    async def connect(self, participant: Participant) -> Connection:
        """See ``ports.Attacher``."""
        return Connection(participant.token, participant.expiry)

    async def disconnect(self, connection: Connection) -> None:
        """See ``ports.Attacher``."""

    async def describe(self, instance_id: str, contact_id: str) -> ContactState:  # noqa: ARG002 - the port's
        """See ``ports.Attacher``."""
        return ContactState(connected=True, queued=False, agent=False, ended=False)


class ShadowRuntime:
    """See ``ports.Runtime``. Accepts, and hands nothing to anybody."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Nothing to open."""
        yield

    async def offer(self, handoff: Handoff) -> int | None:  # noqa: ARG002 - the port's
        """See ``ports.Runtime``."""
        await anyio.lowlevel.checkpoint()
        return None

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""

    async def probe(self) -> None:
        """See ``ports.Runtime``."""
