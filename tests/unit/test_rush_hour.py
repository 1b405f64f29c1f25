"""The heart under load: the service over the simulated Connect, on virtual time. The simulator judges."""

import anyio
import pytest

from attachd.errors import Transient
from attachd.simulator import Dials
from attachd.simulator.faults import Error, Garbled, Reset, Silence, Throttling
from simulated import Town, now

CHATS, RATE, BURST = 120, 5.0, 8
IDEAL_SECONDS = (CHATS - BURST) / RATE


async def test_120_chats_at_once_are_attached_at_the_quota() -> None:
    town = Town(patience=120)
    async with town.open():
        for _ in range(CHATS):
            town.arrive(patience=60)
        begun = now()
    assert town.spoke() == [1] * CHATS
    assert len(town.creates("ThrottlingException")) <= 2
    last = max(call["at"] for call in town.creates(""))
    assert last - begun <= 1.05 * IDEAL_SECONDS


@pytest.mark.parametrize("replicas", [2, 4])
async def test_replicas_share_the_quota_and_are_hardly_slower_than_one(replicas: int) -> None:
    town = Town(patience=120, replicas=replicas)
    async with town.open():
        for _ in range(CHATS):
            town.arrive(patience=60)
        begun = now()
    assert town.spoke() == [1] * CHATS
    assert len(town.creates("ThrottlingException")) <= 4
    last = max(call["at"] for call in town.creates(""))
    assert last - begun <= 1.08 * IDEAL_SECONDS


async def test_under_twice_the_quota_for_five_minutes_nearly_every_token_ends_with_a_bot_that_speaks() -> (
    None
):
    town = Town(patience=30)
    async with town.open():
        for _ in range(round(300 * 2 * RATE)):
            town.arrive(patience=30)
            await anyio.sleep(1 / (2 * RATE))
    granted = town.creates("")
    served = sum(town.spoke())
    assert max(town.spoke()) == 1
    assert served >= 0.97 * len(granted)
    assert len(granted) >= 0.95 * RATE * 300
    ended_at = {contact["id"]: contact["ended_at"] for contact in town.truth()["contacts"]}
    in_vain = [
        call
        for call in town.creates()
        if (ended := ended_at[call["contact_id"]]) is not None and call["at"] > ended + 0.5
    ]
    assert in_vain == []  # what had been read for half a second was heeded


async def test_a_runtime_that_is_down_for_a_minute_costs_probes_and_no_chat_that_still_lives() -> None:
    town = Town(patience=180)
    async with town.open():
        down_at, up_at = now() + 60, now() + 120
        for n in range(360):
            town.arrive(patience=170)
            if n == 120:
                town.bots.down = Transient("unreachable", "connection refused")
            if n == 240:
                town.bots.down = None
            await anyio.sleep(0.5)
    meanwhile = [call for call in town.creates() if down_at + 2 < call["at"] < up_at]
    assert len(meanwhile) <= 5
    assert town.spoke() == [1] * 360


@pytest.mark.parametrize("seed", range(4))
async def test_with_three_calls_in_ten_failing_every_chat_that_lives_gets_one_bot(seed: int) -> None:
    """Half of the failures after the participant was made: errors, silence, resets, answers that nobody can read."""
    struck = ("CreateParticipant",)
    town = Town(
        dials=Dials(
            seed=seed,
            faults=(
                Error(operations=struck, probability=0.1),
                Throttling(operations=struck, probability=0.06),
                Error(operations=struck, probability=0.06, when="after"),
                Silence(operations=struck, probability=0.05, when="after"),
                Reset(operations=struck, probability=0.05, when="after"),
                Garbled(operations=struck, probability=0.05),
            ),
        ),
        patience=170,
    )
    async with town.open():
        for _ in range(200):
            town.arrive(patience=160)
            await anyio.sleep(0.4)
    calls = town.creates()
    assert 0.2 <= sum(bool(call["fault"]) for call in calls) / len(calls) <= 0.4
    assert town.spoke() == [1] * 200
    assert all(contact["custom_bots"]["existed"] == 1 for contact in town.truth()["contacts"])


async def test_after_a_throttling_storm_the_full_rate_is_back_within_five_seconds() -> None:
    town = Town(patience=300)
    async with town.open():
        for _ in range(300):
            town.arrive(patience=290)
        await anyio.sleep(10)
        town.api.set_faults([Throttling(operations=("CreateParticipant",))], now())
        await anyio.sleep(20)
        stormy = town.creates("ThrottlingException")
        town.api.set_faults([], now())
        over = now()
        await anyio.sleep(15)
    assert len(stormy) <= 40
    after = [call["at"] - over for call in town.creates("") if call["at"] > over]
    assert sum(5 <= at < 10 for at in after) >= 0.95 * 5 * RATE
    assert town.spoke() == [1] * 300
