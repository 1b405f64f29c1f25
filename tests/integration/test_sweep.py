"""SearchContacts over a socket: who waits and who does not, page by page, and what refusals are to us."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore import UNSIGNED

from attachd import aws
from attachd.errors import Transient
from attachd.simulator import Dials, Simulator, simulator
from attachd.sources.search import ConnectSearch

SESSION = get_session()
ENVIRON = {"AWS_REGION": "eu-central-1"}
KEYS = {"aws_access_key_id": "OURS", "aws_secret_access_key": "secret", "region_name": "eu-central-1"}


@asynccontextmanager
async def searching(sim: Simulator, arn: str | None = None) -> AsyncIterator[ConnectSearch]:
    search = ConnectSearch(
        partial(aws.session, ENVIRON),
        arn or sim.world.dials.instance_arn,
        endpoint_url=sim.url,
        user_agent="attachd/test",
    )
    async with search.open():
        yield search


@asynccontextmanager
async def desk(sim: Simulator) -> AsyncIterator[tuple[Any, Any]]:
    unsigned = AioConfig(signature_version=UNSIGNED)
    async with (
        SESSION.create_client("connect", endpoint_url=sim.url, **KEYS) as connect,
        SESSION.create_client(
            "connectparticipant", "eu-central-1", endpoint_url=sim.url, config=unsigned
        ) as participants,
    ):
        yield connect, participants


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


async def test_open_chats_that_wait_for_nobody_are_listed_over_pages_as_their_events_would_tell_of_them() -> (
    None
):
    async with (
        simulator(Dials(metered=frozenset())) as sim,
        desk(sim) as (connect, participants),
        searching(sim) as search,
    ):
        instance = sim.world.dials.instance_id
        started = []
        for _ in range(103):
            chat = await connect.start_chat_contact(
                InstanceId=instance, ContactFlowId="flow", ParticipantDetails={"DisplayName": "Cleo"}
            )
            started.append(chat)
        joined = await participants.create_participant_connection(
            ParticipantToken=started[0]["ParticipantToken"],
            Type=["CONNECTION_CREDENTIALS"],
            ConnectParticipant=True,
        )
        await participants.disconnect_participant(
            ConnectionToken=joined["ConnectionCredentials"]["ConnectionToken"]
        )
        began = [contact.started_at for contact in sim.world.contacts.values()]
        since, until = min(began) - 1, max(began) + 1
        first = await search.page(since, until, None)
        assert (first.looked_at, first.next is not None) == (100, True)
        second = await search.page(since, until, first.next)
        assert (second.looked_at, second.next) == (3, None)
        found = {contact.id: contact for contact in first.open_chats + second.open_chats}
        assert set(found) == {chat["ContactId"] for chat in started[1:]}
        one = found[started[1]["ContactId"]]
        assert (one.channel, one.initiation_method, one.instance_id) == ("CHAT", "API", instance)
        assert one.segment_attributes["connect:Subtype"] == "connect:Chat"
        assert one.initiated_at is not None
        assert since < one.initiated_at < until


async def test_a_search_beyond_the_quota_is_throttled_and_one_of_a_strange_instance_refused() -> None:
    async with simulator(Dials(metered=frozenset({"SearchContacts"}))) as sim, searching(sim) as search:
        await search.page(0, 1, None)
        with pytest.raises(Transient) as throttled:
            await search.page(0, 1, None)
        assert throttled.value.reason == "throttled"
    async with simulator(Dials()) as sim:
        strange = sim.world.dials.instance_arn[:-4] + "0000"
        async with searching(sim, strange) as search:
            with pytest.raises(Transient) as refused:
                await search.page(0, 1, None)
            assert refused.value.reason == "not_found"
