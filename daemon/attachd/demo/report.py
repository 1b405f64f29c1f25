"""What the demo shows: a table of what really happened, by the simulator's truth, and one whole transcript."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attachd.demo.customers import Visit


@dataclass(frozen=True, slots=True)
class Verdict:
    """The truth in numbers. Times are seconds from the start of a chat."""

    chats: int
    one_bot_that_spoke: int
    two_bots: int
    answered: int
    per_bot: dict[str, int]
    calls: int
    throttled: int
    to_attach: tuple[float, ...]
    to_message: tuple[float, ...]

    @property
    def good(self) -> bool:
        """Every chat got exactly one bot, and it spoke and answered."""
        return (
            self.chats == self.one_bot_that_spoke == self.answered and self.two_bots == 0 and self.chats > 0
        )


def judge(truth: dict[str, Any], visits: Sequence[Visit]) -> Verdict:
    """Read the simulator's truth; what attachd believes does not count here."""
    started = {contact["id"]: contact["started_at"] for contact in truth["contacts"]}
    bots = [p for p in truth["participants"] if p["role"] == "CUSTOM_BOT"]
    first_words: dict[str, float] = {}
    for message in truth["messages"]:
        if message["role"] == "CUSTOM_BOT":
            first_words.setdefault(message["contact_id"], message["at"])
    existed: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for bot in bots:
        existed[bot["contact_id"]].append(bot)
    calls = [call for call in truth["calls"] if call["operation"] == "CreateParticipant"]
    attached = [bot for bot in bots if bot["connected_at"] is not None]
    return Verdict(
        chats=len(started),
        one_bot_that_spoke=sum(len(b) == 1 and b[0]["messages_sent"] > 0 for b in existed.values()),
        two_bots=sum(len(b) > 1 for b in existed.values()),
        answered=sum(visit.answered for visit in visits),
        per_bot=dict(Counter(bot["display_name"] for bot in attached)),
        calls=len(calls),
        throttled=sum(call["status"] == 429 for call in calls),  # noqa: PLR2004 - HTTP's own
        to_attach=tuple(sorted(bot["connected_at"] - started[bot["contact_id"]] for bot in attached)),
        to_message=tuple(sorted(at - started[contact] for contact, at in first_words.items())),
    )


def show(console: Console, verdict: Verdict, visits: Sequence[Visit]) -> None:
    """The table, then one chat, word for word."""
    table = Table(title="what really happened, by the simulator", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("chats", str(verdict.chats))
    table.add_row("with exactly one bot that spoke", str(verdict.one_bot_that_spoke))
    table.add_row("with two bots", str(verdict.two_bots))
    table.add_row("customers answered", str(verdict.answered))
    for name, count in sorted(verdict.per_bot.items()):
        table.add_row(f"bot {name}", str(count))
    table.add_row("CreateParticipant calls", str(verdict.calls))
    table.add_row("throttled", str(verdict.throttled))
    table.add_row("time to attach, p50 / p99", _spread(verdict.to_attach))
    table.add_row("time to first bot message, p50 / p99", _spread(verdict.to_message))
    console.print(table)
    told = next((visit for visit in visits if visit.answered), None)
    if told is None:
        return
    console.print(f"\n[bold]one chat, word for word[/]  [dim]{told.contact_id}[/]")
    for item in told.transcript:
        console.print(_line(item), highlight=False)


def _line(item: dict[str, Any]) -> str:
    at = item["AbsoluteTime"][11:19]
    if item["Type"] == "MESSAGE":
        colour = "cyan" if item["ParticipantRole"] == "CUSTOM_BOT" else "green"
        return f"[dim]{at}[/] [{colour}]{escape(item['DisplayName'])}[/]: {escape(item['Content'])}"
    event = item["ContentType"].rpartition("event.")[2].replace(".", " ")
    return f"[dim]{at} {escape(item.get('DisplayName', ''))} — {event}[/]"


def _spread(ordered: Sequence[float]) -> str:
    if not ordered:
        return "–"
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return f"{ordered[len(ordered) // 2]:.2f} s / {p99:.2f} s"
