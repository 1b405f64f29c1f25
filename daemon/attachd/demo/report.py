"""What the demo shows: a table of what really happened, by the simulator's report and truth, and one whole transcript.

What attachd believes does not count here.
"""

from collections import Counter
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_ONE_THAT_SPOKE: Final = {"existed": 1, "connected": 1, "spoke": 1}


def good(report: dict[str, Any], truth: dict[str, Any]) -> bool:
    """Whether every chat got exactly one bot, and it spoke and answered."""
    started, finished = int(report["chats"]["started"]), int(report["customers"]["finished"])
    return 0 < started == finished == _one_bot_that_spoke(truth)


def _one_bot_that_spoke(truth: dict[str, Any]) -> int:
    return sum(contact["custom_bots"] == _ONE_THAT_SPOKE for contact in truth["contacts"])


def show(console: Console, report: dict[str, Any], truth: dict[str, Any]) -> None:
    """The table, then one chat, word for word."""
    calls = report["create_participant"]
    bots = [each for each in truth["participants"] if each["role"] == "CUSTOM_BOT" and each["connected_at"]]
    table = Table(title="what really happened, by the simulator", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("chats", str(report["chats"]["started"]))
    table.add_row("with exactly one bot that spoke", str(_one_bot_that_spoke(truth)))
    table.add_row("with two bots", str(sum(each["custom_bots"]["existed"] > 1 for each in truth["contacts"])))
    table.add_row("customers answered", str(report["customers"]["finished"]))
    for name, count in sorted(Counter(bot["display_name"] for bot in bots).items()):
        table.add_row(f"bot {name}", str(count))
    table.add_row("CreateParticipant calls", str(calls["calls"]))
    table.add_row("throttled", str(calls["throttled"]))
    table.add_row("wait for a bot, p50 / p99", _spread(report["wait_for_bot"]))
    table.add_row("wait for its first message, p50 / p99", _spread(report["wait_for_message"]))
    console.print(table)
    asked = next((line["contact_id"] for line in truth["messages"] if line["role"] == "CUSTOMER"), None)
    if asked is None:
        return
    console.print(f"\n[bold]one chat, word for word[/]  [dim]{asked}[/]")
    for line in _transcript(truth, asked):
        console.print(line, highlight=False)


def _transcript(truth: dict[str, Any], contact_id: str) -> list[str]:
    """Who came, what they said, who left, in order."""
    members = {each["id"]: each for each in truth["participants"] if each["contact_id"] == contact_id}
    lines: list[tuple[float, str]] = []
    for member in members.values():
        for at, what in ((member["connected_at"], "joined"), (member["disconnected_at"], "left")):
            if at is not None:
                lines.append((at, f"[dim]{_clock(at)} {escape(member['display_name'])} — {what}[/]"))
    for said in truth["messages"]:
        if said["contact_id"] == contact_id:
            colour = "cyan" if said["role"] == "CUSTOM_BOT" else "green"
            name = escape(members[said["participant_id"]]["display_name"])
            lines.append(
                (said["at"], f"[dim]{_clock(said['at'])}[/] [{colour}]{name}[/]: {escape(said['content'])}")
            )
    return [line for _, line in sorted(lines, key=itemgetter(0))]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _spread(waits: dict[str, Any]) -> str:
    return f"{waits['p50']:.2f} s / {waits['p99']:.2f} s" if waits["count"] else "–"
