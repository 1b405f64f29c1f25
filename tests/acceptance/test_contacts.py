"""`attachd contacts`, as an operator types it, beside whoever serves from the journal."""

import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from acceptance.test_cli import GOOD, attachd, configured
from acceptance.town import SECRET
from attachd.demo import aws, processes
from attachd.journals.sqlite import SqliteJournal
from attachd.lifecycle import Entry, Stage
from attachd.model import Beat

LONG = "7228b21b-dc21-4d4f-ac79-a27cacf0ff99"
ARN = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"


def entries() -> list[Entry]:
    now = time.time()
    return [
        Entry(
            "in-hand",
            Stage.ATTACHING,
            2,
            now - 5,
            "us",
            bot="ava",
            rule="any chat",
            instance_arn=ARN,
            since=now,
        ),
        Entry("stranded", Stage.ATTACHED, 3, now - 70, "gone", bot="ava", instance_arn=ARN, since=now),
        Entry(
            "closed",
            Stage.CLOSED,
            4,
            now - 4000,
            bot="max",
            reason="unserved",
            requested_at=now,
            instance_arn=ARN,
        ),
        Entry("served", Stage.HANDED_OFF, 4, now - 90_000, "gone", bot="ava", runtime="ava"),
        Entry("over\x1b[31m", Stage.ENDED, 5, now - 200_000, reason="ended"),
    ]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[str, SqliteJournal]]:
    """A journal that somebody, who calls themselves us, serves from."""
    path = folder / "journal.sqlite"
    config = configured(folder, GOOD.replace('type = "memory"', f'type = "sqlite"\npath = "{path}"'))
    journal = SqliteJournal(path)
    async with journal.open():
        await journal.beat(Beat("us", 1, 0, 0.0))
        for entry in entries():
            await journal.put(entry)
        yield config, journal


async def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await anyio.to_thread.run_sync(lambda: attachd("contacts", *arguments, env={"COLUMNS": "160"}))


async def test_contacts_are_listed_beside_the_service_by_stage_bot_and_age(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, _):

        async def listed(*filters: str) -> list[str]:
            done = await typed("--json", "--config", config, *filters)
            assert (done.returncode, done.stderr) == (0, "")
            return [one["contact_id"] for one in json.loads(done.stdout)]

        assert await listed() == ["over\x1b[31m", "served", "closed", "stranded", "in-hand"]
        assert await listed("--stage", "closed", "--stage", "attached") == ["closed", "stranded"]
        assert await listed("--bot", "ava", "--age", "2h") == ["stranded", "in-hand"]
        assert await listed("--older-than", "1d") == ["over\x1b[31m", "served"]
        wrong = await typed("--older-than", "soon", "--config", config)
        assert wrong.returncode == 2
        assert "not a duration" in wrong.stderr
        assert "Value error" not in wrong.stderr


async def test_the_table_says_whose_owner_is_at_work_and_shows_nothing_that_steers_a_terminal(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (config, _):
        shown = (await typed("--config", config)).stdout
    rows = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    assert "at work" in rows["in-hand"]
    assert "gone" in rows["stranded"]
    assert "gone" not in rows["served"], "nobody needs to have it in hand any more"
    assert "unserved" in rows["closed"]
    assert "5 contacts" in shown
    assert "\x1b[31m" not in shown


async def test_one_contact_is_shown_and_one_that_is_not_known_is_said_not_to_be(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, _):
        shown = await typed("show", "stranded", "--config", config)
        unknown = await typed("show", "c-9", "--config", config)
    assert shown.returncode == 0
    for expected in ("attached", "ava", ARN, "gone"):
        assert expected in shown.stdout
    assert (unknown.returncode, unknown.stderr) == (1, "attachd: the journal does not know contact c-9\n")


async def test_the_configuration_may_be_named_before_the_verb_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, journal):
        shown = await typed("--config", config, "--json", "show", "stranded")
        assert json.loads(shown.stdout)["contact_id"] == "stranded"
        assert (await typed("--config", config, "forget", "stranded")).returncode == 0
        assert await journal.get("stranded") is None
        filtered = await typed("--bot", "ava", "--config", config, "forget", "served")
        assert (filtered.returncode, await journal.get("served") is not None) == (2, True)
        assert "a list" in filtered.stderr


async def test_a_contacts_id_is_whole_however_narrow_the_terminal_since_show_asks_for_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (config, journal):
        await journal.put(Entry(LONG, Stage.CLAIMED, 1, time.time(), "us", bot="concierge", rule="web chat"))
        listed = attachd("contacts", "--config", config, env={"COLUMNS": "80"})
    assert LONG in listed.stdout


async def test_people_are_told_times_that_they_can_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, journal):
        await journal.put(Entry(LONG, Stage.CLAIMED, 1, 1_800_000_000.0, "us"))
        shown = await typed("show", LONG, "--config", config)
    assert "2027-01-15T08:00:00.000Z" in shown.stdout


async def test_a_contact_is_forgotten_unless_it_is_being_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, journal):
        assert (await typed("forget", "stranded", "--config", config)).returncode == 0
        assert await journal.get("stranded") is None
        refused = await typed("forget", "in-hand", "--config", config)
        assert refused.returncode == 1
        assert "in the hand of us, which is at work" in refused.stderr
        assert await journal.get("in-hand") is not None


async def test_a_retry_recalls_a_contact_and_opens_one_that_was_closed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (config, journal):
        for contact_id in ("stranded", "closed"):
            assert (await typed("retry", contact_id, "--config", config)).returncode == 0
        assert sorted(await journal.recalled()) == ["closed", "stranded"]
        opened = await journal.get("closed")
        assert opened is not None
        assert (opened.stage, opened.generation, opened.owner) == (Stage.CLAIMED, 2, None)
        served = await typed("retry", "served", "--config", config)
        assert (served.returncode, "a bot has it" in served.stderr) == (1, True)


async def test_a_watch_shows_what_changes_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def shows(text: str) -> None:
        with anyio.fail_after(120):
            while text not in out.read_text():
                await anyio.sleep(0.1)

    env = {"PATH": os.environ["PATH"], "BOT_KEY": SECRET, "TERM": "xterm", **aws.credentials()}
    with out.open("w") as file:
        async with serving(tmp_path) as (config, journal):
            command = processes.attachd("contacts", "--watch", "--config", config)
            async with await anyio.open_process(command, env=env, stdout=file, stderr=file) as process:
                try:
                    await shows("5 contacts")
                    await journal.put(Entry("newcomer", Stage.CLAIMED, 1, time.time(), "us"))
                    await shows("6 contacts")
                    process.send_signal(signal.SIGINT)
                    with anyio.fail_after(120):
                        assert await process.wait() == 0
                finally:
                    if process.returncode is None:
                        process.kill()
    assert "newcomer" in out.read_text()


def test_a_journal_in_the_services_memory_is_said_to_be_out_of_sight(tmp_path: Path) -> None:
    done = attachd("contacts", "--config", configured(tmp_path))
    assert done.returncode == 78
    assert "no command can see it" in done.stderr
