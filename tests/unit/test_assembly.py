"""What is put together from a configuration, and what of it is remembered over a restart."""

import time
from pathlib import Path

import pytest

from attachd import settings
from attachd.errors import Transient
from attachd.journals.sqlite import SqliteJournal
from attachd.lifecycle import Entry, Stage
from attachd.testing import MemoryRuntime
from attachd.wiring.assembly import AS_CONFIGURED, assembled

CONFIG = """
[source]
type = "sqs"
queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/contacts"
[journal]
type = "sqlite"
path = "{folder}/journal.sqlite"
[runtimes.ava]
type = "webhook"
url = "https://bots.example.com/attach"
secret = {{ env = "BOT_KEY" }}
[runtimes.sorry]
type = "webhook"
url = "https://sorry.example.com/attach"
secret = {{ env = "BOT_KEY" }}
[[bots]]
name = "concierge"
display_name = "Ava"
runtime = "ava"
max_chats = 10
[[rules]]
name = "every chat"
when.detail.channel = ["CHAT"]
bot = "concierge"
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_KEY", "whsec_" + "QUJD" * 11)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")


@pytest.mark.real_time
async def test_a_bot_with_a_cap_has_the_chats_after_a_restart_that_it_had_before(tmp_path: Path) -> None:
    (tmp_path / "attachd.toml").write_text(CONFIG.format(folder=tmp_path))
    now = time.time()

    def handed_over(
        contact_id: str, *, runtime: str = "ava", bot: str = "concierge", age: float = 60
    ) -> Entry:
        return Entry(contact_id, Stage.HANDED_OFF, 1, now - age, bot=bot, runtime=runtime, generation=1)

    journal = SqliteJournal(tmp_path / "journal.sqlite")
    async with journal.open():
        for entry in (
            handed_over("c-1"),
            handed_over("c-2", age=7200),
            handed_over("given up by now", age=26 * 3600),
            handed_over("taken by the fallback", runtime="sorry"),
            handed_over("another bot's", bot="other"),
            Entry("over", Stage.ENDED, 1, now, bot="concierge", runtime="ava"),
        ):
            await journal.put(entry)
    async with assembled(settings.load(tmp_path / "attachd.toml"), AS_CONFIGURED) as app:
        assert app.gates.open_chats("concierge") == 2
        app.gates.ended("c-2")
        assert app.gates.open_chats("concierge") == 1


@pytest.mark.real_time
async def test_the_gauge_of_a_runtimes_circuit_says_what_readyz_says(tmp_path: Path) -> None:
    (tmp_path / "attachd.toml").write_text(CONFIG.format(folder=tmp_path))
    async with assembled(settings.load(tmp_path / "attachd.toml"), AS_CONFIGURED) as app:
        gate = app.gates.runtimes["ava"]
        gate.runtime = MemoryRuntime()

        def told() -> tuple[float, bool]:
            labels = {"kind": "runtime", "name": "ava"}
            shown = app.metrics.registry.get_sample_value("attachd_circuit_open", labels)
            assert shown is not None
            return shown, any("circuit open" in sentence for sentence in app.trouble)

        assert told() == (0, False)
        app.gates.heard("ava", Transient("draining", after=0.0))
        assert told() == (1, True)
        await gate.probe()
        assert told() == (0, False)


@pytest.mark.real_time
async def test_a_bot_that_is_given_a_cap_by_a_reload_has_the_chats_from_before_the_restart(
    tmp_path: Path,
) -> None:
    config = tmp_path / "attachd.toml"
    config.write_text(CONFIG.format(folder=tmp_path).replace("max_chats = 10\n", ""))
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    async with journal.open():
        for n in range(3):
            await journal.put(
                Entry(
                    f"c-{n}", Stage.HANDED_OFF, 1, time.time(), bot="concierge", runtime="ava", generation=1
                )
            )
    async with assembled(settings.load(config), AS_CONFIGURED) as app:
        app.gates.cap({"concierge": 3})
        assert app.gates.open_chats("concierge") == 3
