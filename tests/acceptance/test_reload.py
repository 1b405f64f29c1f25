"""SIGHUP: new rules under a running attachd, over real events, calls and hand-offs."""

import json
import signal
from pathlib import Path
from typing import Any

import anyio

from acceptance.town import Robot, Town, town
from attachd.demo.play import truth
from attachd.demo.processes import Running

VIPS = """
            [[bots]]
            name = "butler"
            display_name = "James"
            runtime = "robot"
            [[rules]]
            name = "VIPs"
            when.attributes.vip = ["yes"]
            display_name = { de = "Johann (Bot)", default = "James (bot)" }
            language = "attributes.language"
            bot = "butler"
"""


async def said(daemon: Running, event: str, count: int = 1) -> dict[str, Any]:
    """The count-th record of this event, once it is there."""
    with anyio.fail_after(120):
        while True:
            lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if f'"{event}"' in line]
            if len(lines) >= count:
                return dict(lines[count - 1])
            await anyio.sleep(0.1)


async def served(place: Town, **attributes: str) -> tuple[str, str, str]:
    """Start a chat; by which rule it got which bot, under which name."""
    chat = await place.start_chat(**attributes)
    await place.spoke(chat)
    with anyio.fail_after(120):
        while not (
            mine := [d for d in place.deliveries() if d.get("contact") == chat and d["outcome"] == "attached"]
        ):
            await anyio.sleep(0.1)
    told = await truth(place.simulator.url)
    (name,) = [
        member["display_name"]
        for member in told["participants"]
        if member["contact_id"] == chat and member["role"] == "CUSTOM_BOT"
    ]
    return mine[0]["rule"], mine[0]["bot"], name


async def test_new_rules_are_in_force_at_once_and_a_file_with_an_error_changes_nothing(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, Robot()) as place, place.attachd() as daemon:
        await said(daemon, "attachd.ready")
        assert await served(place, vip="yes") == ("any chat", "concierge", "Ava")
        first = place.config.read_text()

        bots, rules = VIPS.split("            [[rules]]", 1)
        better = first.replace(
            "            [[rules]]\n", f"{bots}            [[rules]]{rules}            [[rules]]\n", 1
        )
        place.config.write_text(
            better.replace('display_name = "Ava"', 'display_name = "Eve"') + "\n[quota]\nrate = 4\n"
        )
        daemon.send(signal.SIGHUP)
        reloaded = await said(daemon, "configuration.reloaded")
        assert (reloaded["rules_added"], reloaded["bots_added"], reloaded["bots_changed"]) == (
            ["VIPs"],
            ["butler"],
            ["concierge"],
        )
        assert (await said(daemon, "configuration.needs_restart"))["tables"] == ["quota"]
        assert await served(place, vip="yes", language="de-AT") == ("VIPs", "butler", "Johann (Bot)")
        assert await served(place, vip="yes") == ("VIPs", "butler", "James (bot)")
        assert await served(place, vip="no") == ("any chat", "concierge", "Eve")
        calls = [call["operation"] for call in (await truth(place.simulator.url))["calls"]]
        assert calls.count("GetContactAttributes") == 3

        place.config.write_text(
            better.replace('["yes"]', '[{ prefx = "y" }]').replace('bot = "butler"', 'bot = "buttler"')
        )
        daemon.send(signal.SIGHUP)
        refused = await said(daemon, "configuration.refused")
        assert refused["level"] == "error"
        (pattern, bot) = sorted(refused["problems"], key=len, reverse=True)
        assert "[[rules]] 1 'VIPs', when: not an event pattern: Unrecognized match type prefx" in pattern
        assert "there is no bot named 'buttler'; did you mean 'butler'?" in bot
        assert await served(place, vip="yes") == ("VIPs", "butler", "James (bot)")

        place.config.write_text(first)
        daemon.send(signal.SIGHUP)
        assert (await said(daemon, "configuration.reloaded", 2))["rules_removed"] == ["VIPs"]
        assert await served(place, vip="yes") == ("any chat", "concierge", "Ava")
