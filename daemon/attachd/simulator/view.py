"""What people see of a run: the live view in a terminal, a line now and then elsewhere, the final report as a table.

Everything shown is the report's; nothing is counted here.
"""

import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import anyio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attachd.simulator.front.server import Simulator
from attachd.simulator.report import Report, Spread

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 10.0
_MOST_OF_THE_TIME = 0.05  # which counting and drawing may take; a huge run is drawn less often
_LABEL_WIDTH = 17
_FIGURE_WIDTH = 15
_GRAPH_WIDTH = 30
_BAR_WIDTH = 20
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.:-=+*#"
_BAR = "█▓░"
_ASCII_BAR = "#=-"
_VERDICTS = {
    "waiting for a bot": "waiting",
    "attached": "attached",
    "on time": "on_time",
    "late": "late",
    "never": "never",
    "customer gave up": "gave_up",
    "twice": "twice",
    "two at once": "two_at_once",
}
_CUSTOMERS = {
    "answered to the end": "finished",
    "gave up before a word": "gave_up",
    "left unanswered": "unanswered",
    "cut off": "cut_off",
    "never connected": "no_shows",
    "turned away": "turned_away",
    "still there": "present",
}
_CALLS = {
    "bots created": "created",
    "  connected": "connected",
    "  never connected": "never_connected",
    "replayed": "replayed",
    "throttled": "throttled",
    "failed": "failed",
    "for an ended chat": "after_the_end",
    "refused": "refused",
}


@asynccontextmanager
async def watched(simulator: Simulator, console: Console) -> AsyncIterator[None]:
    """Show a run for as long as the block lasts: live if the console is a terminal, else a line when there is news."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_live if console.is_terminal else _lines, simulator, console)
        yield
        tasks.cancel_scope.cancel()


async def _live(simulator: Simulator, console: Console) -> None:
    # What is printed meanwhile appears above the view; but what goes to a file is left alone.
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty()
    ) as live:
        while True:
            began = time.perf_counter()
            await simulator.clock.caught_up()
            live.update(shown(simulator, console), refresh=True)
            took = time.perf_counter() - began
            await anyio.sleep(max(_REFRESH_SECONDS, took / _MOST_OF_THE_TIME))


async def _lines(simulator: Simulator, console: Console) -> None:
    last = ""
    while True:
        await anyio.sleep(_LINE_SECONDS)
        await simulator.clock.caught_up()
        report = simulator.report()
        told = line(report)
        if told != last and report.chats.started:
            console.print(f"{report.seconds:.0f} s: {told}", soft_wrap=True, highlight=False, markup=False)
        last = told


def line(report: Report) -> str:
    """Say how far a run is, in one line."""
    chats, calls = report.chats, report.create_participant
    return (
        f"{chats.started} chats, {chats.open} open, {chats.waiting} waiting for a bot, {chats.attached} attached, "
        f"{chats.on_time} on time, {chats.late} late, {chats.never} never, {chats.twice} twice, "
        f"{calls.calls} CreateParticipant, {calls.throttled} throttled"
    )


def shown(simulator: Simulator, console: Console) -> Table:
    """Draw the live view as things are now, no wider than the console."""
    report, second = simulator.report(), int(simulator.now())
    chats, calls, quota, came = report.chats, report.create_participant, report.quota, report.customers
    ascii_only = console.options.ascii_only
    minutes, seconds = divmod(int(report.seconds), 60)
    view = Table.grid(padding=(0, 2))
    view.add_column(style="bold", no_wrap=True, min_width=_LABEL_WIDTH)
    view.add_column(no_wrap=True, overflow="crop")

    def row(label: str, good: Mapping[str, int], bad: Mapping[str, int]) -> None:
        view.add_row(label, _figures(good, bad, console.width))

    view.add_row(f"{minutes}:{seconds:02}", Text(simulator.url, "dim"))
    row("chats", {"started": chats.started, "open": chats.open, "ended": chats.ended}, {})
    row(
        "bots",
        {"awaited": chats.waiting, "attached": chats.attached, "on time": chats.on_time},
        {"late": chats.late, "never": chats.never, "twice": chats.twice, "at once": chats.two_at_once},
    )
    if came.get("arrived"):
        lost = {"gave up": came["gave_up"], "no answer": came["unanswered"], "cut off": came["cut_off"]}
        row(
            "customers",
            {"came": came["arrived"], "there": came["present"], "answered": came["finished"]},
            lost,
        )
    graph = _graph(simulator.ledger.per_second, second, quota.rate, _ASCII_LEVELS if ascii_only else _LEVELS)
    granted = simulator.ledger.per_second.get(second - 1, Counter())["granted"]
    graph.append(f"  {granted}/s of {quota.rate:g}/s, burst {quota.burst:g}")
    view.add_row("CreateParticipant", graph)
    failures = {"throttled": calls.throttled, "faults": calls.failed}
    row("", {"calls": calls.calls, "created": calls.created}, failures)
    longest = max(report.wait_for_bot.p99 or 0.0, report.wait_for_message.p99 or 0.0)
    bar = _ASCII_BAR if ascii_only else _BAR
    for name, spread in _spreads(report):
        view.add_row(name, _waits(spread, longest, bar))
    if report.publishing:
        row("events", {"published": report.publishing["published"]}, _unpublished(report))
    return view


def table(report: Report) -> Table:
    """Write the final report: a figure a line, with its share of the chats or calls it is counted among."""
    chats, calls, came = report.chats, report.create_participant, report.customers
    written = Table.grid(padding=(0, 2))
    written.add_column(no_wrap=True)
    written.add_column(justify="right", no_wrap=True)
    written.add_column(justify="right", no_wrap=True)

    def part(name: str, whole: int, parts: Mapping[str, int], *, zeros: bool = False) -> None:
        written.add_row(Text(name, "bold"), str(whole))
        for each, count in parts.items():
            if count or zeros:
                written.add_row(f"  {each}", str(count), f"{count / whole:.1%}" if whole else "")

    part("chats", chats.started, {"open": chats.open, "without a customer": chats.no_customer})
    served = chats.started - chats.no_customer
    verdicts = {name: getattr(chats, key) for name, key in _VERDICTS.items()}
    part("chats with a customer", served, verdicts, zeros=True)
    for name, spread in _spreads(report):
        for share in ("p50", "p90", "p99", "max"):
            if (seconds := getattr(spread, share)) is not None:
                written.add_row(f"  {name}, {share}", f"{seconds:.2f} s")
    if came.get("arrived"):
        part("customers played", came["arrived"], {name: came[key] for name, key in _CUSTOMERS.items()})
    part("CreateParticipant calls", calls.calls, {name: getattr(calls, key) for name, key in _CALLS.items()})
    for name, count, whole in _efficiency(report):
        written.add_row(f"  {name}", str(count), f"{count / whole:.1%}")
    if report.publishing:
        sent = {"published": report.publishing["published"], **_unpublished(report)}
        part("contact events", report.publishing["offered"], sent)
    return written


def printed(report: Report, console: Console) -> None:
    """Print the final report, in nothing but what the console's encoding has."""
    with console.capture() as captured:
        console.print(table(report))
    # rich shortens with an ellipsis, which not every encoding has
    written = captured.get()
    try:
        written.encode(console.encoding)
    except UnicodeEncodeError:
        written = written.replace("\N{HORIZONTAL ELLIPSIS}", "...")
        written = written.encode(console.encoding, "replace").decode(console.encoding)
    console.file.write(written)


def _spreads(report: Report) -> tuple[tuple[str, Spread], ...]:
    return ("wait for a bot", report.wait_for_bot), ("its first message", report.wait_for_message)


def _efficiency(report: Report) -> Iterator[tuple[str, int, float]]:
    """Return the calls wasted and those granted, of how many; of several quotas each, too, of which any was asked."""
    if report.create_participant.calls:
        yield "wasted, in all", report.wasted, report.create_participant.calls
        yield f"granted, of {report.quota.ideal:.0f} possible", report.quota.granted, report.quota.ideal
    if len(report.quotas) > 1:
        for whose, quota in report.quotas.items():
            if quota.ideal:
                yield f"granted in {whose}, of {quota.ideal:.0f}", quota.granted, quota.ideal


def _unpublished(report: Report) -> dict[str, int]:
    """Return apart what was dealt, `lost`, and what went wrong: `dropped` for want of room, or `failed`."""
    return {how: report.publishing[how] for how in ("lost", "dropped", "failed")}


def _figures(good: Mapping[str, int], bad: Mapping[str, int], width: int) -> Text:
    """Write `  3 open         1 late  `, as many to a line as there is room for; what is bad is red once there is any."""
    text, per_line = Text(), max(1, (width - _LABEL_WIDTH - 2) // _FIGURE_WIDTH)
    for number, (name, count) in enumerate([*good.items(), *bad.items()]):
        if number and number % per_line == 0:
            text.append("\n")
        style = "" if name in good else "red" if count else "dim"
        text.append(f"{count:>5} {name:<{_FIGURE_WIDTH - 6}}", style)
    return text


def _graph(per_second: Mapping[int, Counter[str]], now: int, rate: float, levels: str) -> Text:
    """Draw the granted calls of the last seconds against the quota's rate; a second with throttled ones is red."""
    seconds = [per_second.get(second, Counter()) for second in range(now - _GRAPH_WIDTH, now)]
    highest = max(rate, *(each["granted"] for each in seconds)) or 1
    text = Text()
    for each in seconds:
        level = round(each["granted"] / highest * (len(levels) - 1))
        text.append(levels[level], "red" if each["throttled"] else "green" if each["granted"] else "dim")
    return text


def _waits(spread: Spread, longest: float, bar: str) -> Text:
    """Draw p50, p90 and p99 into one bar, and write them."""
    text, drawn = Text(), 0
    if spread.p50 is None:
        return Text("nobody yet", "dim")
    for share, mark in zip((spread.p50, spread.p90, spread.p99), bar, strict=True):
        upto = round((share or 0.0) / longest * _BAR_WIDTH) if longest else 0
        text.append(mark * (upto - drawn), "cyan")
        drawn = max(drawn, upto)
    text.append(" " * (_BAR_WIDTH - drawn + 2))
    return text.append(f"p50 {spread.p50:.2f}  p90 {spread.p90:.2f}  p99 {spread.p99:.2f} s")
