"""What people see of a run, as text."""

import io
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from attachd.simulator import view
from attachd.simulator.front.clock import Timekeeper
from attachd.simulator.front.server import Simulator
from attachd.simulator.ledger import Ledger
from attachd.simulator.traffic.arrivals import Constant
from attachd.simulator.traffic.plan import Traffic
from unit.account import Account, Refused

PAGE = Path(__file__).parents[2] / "docs" / "simulator.md"
PICTURES = re.findall(r"```text\n(.*?)\n```", PAGE.read_text(), re.DOTALL)


class Sent:
    """What a publisher would have counted."""

    def counts(self) -> dict[str, int]:
        return {"offered": 75, "lost": 0, "published": 70, "dropped": 2, "failed": 1}


def simulator(aws: Account, publisher: Any = None) -> Simulator:
    """The account, without a port."""
    return Simulator(
        url="http://127.0.0.1:40123",
        world=aws.world,
        events=aws.events,
        publisher=publisher,
        streamer=None,
        ledger=Ledger(aws.world),
        api=aws.api,
        clock=Timekeeper(lambda: aws.now, aws.api.advance, aws.api.due_at),
    )


@pytest.fixture
def town() -> tuple[Account, Simulator]:
    """Twenty customers in ten seconds; bots come for the first, more and more late, and two of those say nothing."""
    aws = Account(rate=2.0, burst=10.0)
    sim = simulator(aws, Sent())
    aws.api.play(Traffic(Constant(2), chats=20, patience=8.0, connects_after=0.0, thinks=60.0), aws.now)
    served = 0
    for step in range(20):
        aws.pass_time(0.5)
        if step % 3 < 2:
            bot = aws.join(aws.bot_token(list(aws.world.contacts)[served]))
            if served not in {3, 4}:
                aws.say(bot)
            served += 1
    for _ in range(12):
        with pytest.raises(Refused):
            aws.create(next(iter(aws.world.contacts)))
    aws.pass_time(5)
    return aws, sim


def printed(told: object, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, legacy_windows=False, **options)  # type: ignore[arg-type]
    console.print(told)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def console(width: int = 80, encoding: str = "utf-8") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width, force_terminal=True)


def test_the_live_view_of_a_known_run_is_the_picture_in_the_docs(town: tuple[Account, Simulator]) -> None:
    assert printed(view.shown(town[1], console())) == PICTURES[0]


def test_the_final_report_of_a_known_run_is_the_one_in_the_docs(town: tuple[Account, Simulator]) -> None:
    assert printed(view.table(town[1].report())) == PICTURES[1]


def test_a_narrow_terminal_gets_more_lines_and_none_is_too_long(town: tuple[Account, Simulator]) -> None:
    for width in (20, 40, 60, 79):
        shown = printed(view.shown(town[1], console(width)), width)
        assert max(len(line) for line in shown.splitlines()) <= width
    assert (
        len(
            re.findall(
                r"\d+ (?:started|open|ended|awaited|twice|at once)",
                printed(view.shown(town[1], console(40)), 40),
            )
        )
        == 6
    )


def test_a_terminal_without_unicode_gets_its_graphs_in_ascii(town: tuple[Account, Simulator]) -> None:
    assert printed(view.shown(town[1], console(encoding="ascii"))).isascii()


def drawn(sim: Simulator, **environ: str) -> str:
    file = io.StringIO()
    terminal = Console(
        file=file,
        width=100,
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
        _environ=environ,
    )
    terminal.print(view.shown(sim, terminal))
    return file.getvalue()


def test_what_is_bad_is_red(town: tuple[Account, Simulator]) -> None:
    assert "\x1b[31m    2 late" in drawn(town[1])


def test_no_color_is_honoured(town: tuple[Account, Simulator]) -> None:
    assert "2 late" in drawn(town[1], NO_COLOR="1")
    assert re.search(r"\x1b\[(?:\d+;)*3\d", drawn(town[1], NO_COLOR="1")) is None


async def test_without_a_terminal_a_line_is_written_when_there_is_news(
    town: tuple[Account, Simulator],
) -> None:
    aws, sim = town
    file = io.StringIO()
    async with view.watched(sim, Console(file=file, width=40)):
        await anyio.sleep(35)
        aws.pass_time(40)
        await anyio.sleep(10)
    assert len(file.getvalue().splitlines()) == 2
    assert file.getvalue().startswith("15 s: 20 chats, ")


async def test_nothing_is_written_of_a_run_in_which_nothing_happens() -> None:
    aws = Account()
    sim = simulator(aws)
    file = io.StringIO()
    async with view.watched(sim, Console(file=file)):
        await anyio.sleep(100)
    assert file.getvalue() == ""


def test_a_report_is_printed_on_a_narrow_terminal_without_an_ellipsis_of_its_own(
    town: tuple[Account, Simulator],
) -> None:
    written = io.BytesIO()
    narrow = io.TextIOWrapper(written, encoding="latin-1", write_through=True)
    view.printed(town[1].report(), Console(file=narrow, width=20))
    assert b"..." in written.getvalue()


def test_events_that_were_dealt_a_loss_are_told_apart_from_those_that_failed(
    town: tuple[Account, Simulator],
) -> None:
    out = io.StringIO()
    view.printed(town[1].report(), Console(file=out, width=100))
    events = out.getvalue().partition("contact events")[2]
    assert re.findall(r"(published|lost|dropped|failed) +(\d+)", events) == [
        ("published", "70"),
        ("dropped", "2"),
        ("failed", "1"),
    ]
