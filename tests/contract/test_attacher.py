"""What every attacher keeps of its port's word: in memory, and over the SDK against the simulator."""

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Protocol

import aiohttp
import anyio
import pytest
from aiobotocore.session import get_session

from attachd.connect import Connect
from attachd.errors import Permanent, Transient
from attachd.model import AttachRequest, Outcome, Participant
from attachd.ports import Attacher
from attachd.simulator import Dials, Simulator, simulator
from attachd.testing import MemoryConnect

SESSION = get_session()  # one, since it remembers the service models it has read
MARKER = "CANARY"
START_CHAT = {"ContactFlowId": "flow", "ParticipantDetails": {"DisplayName": "Cleo"}}


class Place(Protocol):
    """An attacher, and the hand that moves the world behind it."""

    attacher: Attacher
    instance_id: str

    async def contact(self, **attributes: str) -> str:
        """A chat that waits for a bot."""
        ...

    async def never_was(self) -> str:
        """The id of a chat that Connect does not know."""
        ...

    async def ended(self) -> str:
        """A chat that is over."""
        ...

    async def throttle(self) -> None:
        """Let the next call meet an empty quota."""
        ...

    def dismissed(self, participant: Participant) -> bool:
        """Whether it was connected, and then disconnected, in truth."""
        ...

    def bots(self, contact_id: str) -> int:
        """How many custom participants the chat ever had."""
        ...


class InMemory:
    instance_id = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

    def __init__(self) -> None:
        self.connect = MemoryConnect(marker=MARKER)
        self.attacher: Attacher = self.connect
        self._contacts = 0

    async def contact(self, **attributes: str) -> str:
        self._contacts += 1
        self.connect.attributes[f"c-{self._contacts}"] = attributes
        return f"c-{self._contacts}"

    async def never_was(self) -> str:
        self.connect.faults.append(Permanent(Outcome.REFUSED, "not_found"))
        self.connect.attribute_faults.append(Permanent(Outcome.REFUSED, "not_found"))
        return "gone"

    async def ended(self) -> str:
        return await self.never_was()

    async def throttle(self) -> None:
        self.connect.faults.append(Transient("throttled"))

    def dismissed(self, participant: Participant) -> bool:
        return participant.id in self.connect.dismissed

    def bots(self, contact_id: str) -> int:
        return int(contact_id in self.connect.made)


class OverTheSdk:
    def __init__(self, sim: Simulator, attacher: Attacher) -> None:
        self.attacher = attacher
        self.sim = sim
        self.instance_id = sim.world.dials.instance_id

    async def contact(self, **attributes: str) -> str:
        async with (
            aiohttp.ClientSession() as http,
            http.put(
                f"{self.sim.url}/contact/chat",
                json={"InstanceId": self.instance_id, "Attributes": attributes, **START_CHAT},
            ) as answer,
        ):
            return str((await answer.json())["ContactId"])

    async def never_was(self) -> str:
        return "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

    async def ended(self) -> str:
        contact_id = await self.contact()
        await self.end(contact_id)
        return contact_id

    async def end(self, contact_id: str) -> None:
        body = {"InstanceId": self.instance_id, "ContactId": contact_id}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.sim.url}/contact/stop", json=body) as answer,
        ):
            assert answer.status == 200

    async def throttle(self) -> None:
        quota = self.sim.world.quotas["CreateParticipant", self.instance_id]
        while quota.take(0.0):
            pass

    def _participants(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.sim.truth()["participants"]
        return [member for member in told if member["role"] == "CUSTOM_BOT"]

    def dismissed(self, participant: Participant) -> bool:
        (bot,) = [member for member in self._participants() if member["id"] == participant.id]
        assert bot["token_sha256"] == sha256(participant.token.reveal().encode()).hexdigest()
        return bot["connected_at"] is not None and bot["disconnected_at"] is not None

    def bots(self, contact_id: str) -> int:
        return sum(member["contact_id"] == contact_id for member in self._participants())


@asynccontextmanager
async def over_the_sdk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OverTheSdk]:
    async with simulator(Dials(token_marker=MARKER), now=lambda: 0.0) as sim:
        for name, value in sim.environment.items():
            monkeypatch.setenv(name, value)
        connect = Connect(lambda: SESSION, "attachd/test")
        async with connect.open():
            yield OverTheSdk(sim, connect)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return monkeypatch


@pytest.fixture(params=["memory", pytest.param("sdk", marks=pytest.mark.real_time)])
async def place(request: pytest.FixtureRequest, aws: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield InMemory()
    else:
        async with over_the_sdk(aws) as made:
            yield made


def asking(place: Place, contact_id: str, generation: int = 1) -> AttachRequest:
    return AttachRequest(place.instance_id, contact_id, f"{contact_id}, generation {generation}", "Ava")


async def dismiss(attacher: Attacher, participant: Participant) -> None:
    """What the recipe makes of two calls."""
    await attacher.disconnect(await attacher.connect(participant))


def printed(error: BaseException) -> str:
    """Everything that a log could print of an exception."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


async def test_a_participant_is_made_with_an_id_a_secret_token_and_an_expiry(place: Place) -> None:
    contact_id = await place.contact()
    made = await place.attacher.attach(asking(place, contact_id))
    assert made.id
    assert made.expiry.endswith("Z")
    assert made.token.reveal().startswith(MARKER)
    assert MARKER not in repr(made)
    assert place.bots(contact_id) == 1


async def test_the_same_client_token_gets_the_same_participant(place: Place) -> None:
    contact_id = await place.contact()
    first = await place.attacher.attach(asking(place, contact_id))
    assert await place.attacher.attach(asking(place, contact_id)) == first
    assert place.bots(contact_id) == 1


async def test_the_same_request_many_times_at_once_makes_one_participant(place: Place) -> None:
    contact_id = await place.contact()
    made: list[Participant] = []

    async def attach() -> None:
        made.append(await place.attacher.attach(asking(place, contact_id)))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(attach)
    assert len(made) == 6
    assert all(participant == made[0] for participant in made)
    assert place.bots(contact_id) == 1


async def test_each_contact_gets_a_participant_of_its_own(place: Place) -> None:
    one, other = await place.contact(), await place.contact()
    first = await place.attacher.attach(asking(place, one))
    second = await place.attacher.attach(asking(place, other))
    assert first.id != second.id
    assert first.token != second.token


async def test_a_second_bot_is_refused_for_good_since_the_place_is_taken(place: Place) -> None:
    contact_id = await place.contact()
    await place.attacher.attach(asking(place, contact_id, 1))
    with pytest.raises(Permanent) as refused:
        await place.attacher.attach(asking(place, contact_id, 2))
    assert (refused.value.outcome, refused.value.reason) == (Outcome.OCCUPIED, "quota_exceeded")
    assert place.bots(contact_id) == 1


@pytest.mark.parametrize("which", ["never_was", "ended"])
async def test_a_contact_that_is_not_there_is_refused_for_good(place: Place, which: str) -> None:
    contact_id = await (place.never_was() if which == "never_was" else place.ended())
    with pytest.raises(Permanent) as refused:
        await place.attacher.attach(asking(place, contact_id))
    assert (refused.value.outcome, refused.value.reason) == (Outcome.REFUSED, "not_found")


async def test_a_throttled_call_had_no_effect_for_certain(place: Place) -> None:
    contact_id = await place.contact()
    await place.throttle()
    with pytest.raises(Transient) as throttled:
        await place.attacher.attach(asking(place, contact_id))
    assert (throttled.value.reason, throttled.value.ambiguous) == ("throttled", False)
    assert place.bots(contact_id) == 0


async def test_the_attributes_of_a_chat_are_read_and_those_of_one_that_never_was_are_refused(
    place: Place,
) -> None:
    contact_id = await place.contact(vip="yes", language="de")
    bare = await place.contact()
    read = place.attacher.read_attributes
    assert await read(place.instance_id, contact_id) == {"vip": "yes", "language": "de"}
    assert await read(place.instance_id, bare) == {}
    with pytest.raises(Permanent) as refused:
        await read(place.instance_id, await place.never_was())
    assert (refused.value.outcome, refused.value.reason) == (Outcome.REFUSED, "not_found")


async def test_a_dismissed_participant_was_connected_and_disconnected(place: Place) -> None:
    made = await place.attacher.attach(asking(place, await place.contact()))
    assert not place.dismissed(made)
    await dismiss(place.attacher, made)
    assert place.dismissed(made)


@pytest.mark.real_time
async def test_dismissing_a_participant_whose_chat_is_over_is_refused_for_good(
    aws: pytest.MonkeyPatch,
) -> None:
    async with over_the_sdk(aws) as place:
        contact_id = await place.contact()
        made = await place.attacher.attach(asking(place, contact_id))
        await place.end(contact_id)
        with pytest.raises(Permanent) as gone:
            await dismiss(place.attacher, made)
    assert MARKER not in printed(gone.value)
