"""Customers who come by themselves, in a test's own simulator, on the real clock and a real socket."""

import anyio
import msgspec
from aiohttp import ClientSession

from attachd.simulator import Dials, Hold, Traffic, read_traffic, simulator

CROWD = read_traffic(
    {"arrivals": {"kind": "burst", "chats": 30}, "connects_after": 0, "patience": 0.3, "never_connects": 0.2}
)


async def test_a_block_can_wait_for_the_last_customer_and_ask_for_the_report() -> None:
    async with simulator(Dials(seed=7), traffic=CROWD) as sim, ClientSession(sim.url) as http:
        with anyio.fail_after(10):
            await sim.customers_gone()
            sim.play(CROWD)
            assert sim.customers.counts.present == 0  # they come when somebody looks
            await sim.customers_gone()
        report = sim.report()
        async with http.get("/_simulator/report") as answer:
            told = await answer.json()
    assert report.chats.started == report.customers["arrived"] == 60
    assert report.chats.never == report.chats.gave_up == report.customers["gave_up"]
    assert report.chats.no_customer == report.customers["no_shows"] > 0
    assert told | {"seconds": 0} == msgspec.to_builtins(report) | {"seconds": 0}
    assert len(sim.events) == 60 + 3 * report.chats.never


async def test_nobody_coming_is_nobody_to_wait_for() -> None:
    async with simulator(Dials(flow=(Hold(),))) as sim:
        await sim.customers_gone()
        assert sim.customers.over


async def test_two_runs_with_one_seed_have_one_truth() -> None:
    truths = []
    for _ in range(2):
        clock = [1_800_000_000.0]
        async with simulator(Dials(seed=7), now=lambda clock=clock: clock[0], traffic=_three()) as sim:  # type: ignore[misc]
            for _ in range(20):
                clock[0] += 3
                sim.advance()
            truths.append(sim.truth())
    assert truths[0] == truths[1]
    assert len(truths[0]["contacts"]) == 3


def _three() -> Traffic:
    return read_traffic({"arrivals": {"kind": "poisson", "per_second": 1}, "chats": 3})
