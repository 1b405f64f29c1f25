"""What of a new configuration is in force at once, what takes a restart, and what is refused."""

from pathlib import Path

import pytest

from attachd import settings
from attachd.errors import Misconfigured
from attachd.settings import Settings
from attachd.wiring.reloading import Change, change

WORLD = """
[source]
queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/contact-events"
[runtimes.ava]
type = "webhook"
url = "https://bot.internal/attach"
secret = { env = "AVA_KEY" }
[[bots]]
name = "a"
display_name = "A"
runtime = "ava"
[[rules]]
name = "one"
when.detail.channel = ["CHAT"]
bot = "a"
[[rules]]
name = "two"
bot = "a"
"""


@pytest.fixture
def load(tmp_path: Path) -> "Load":
    return Load(tmp_path)


class Load:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "attachd.toml"

    def __call__(self, text: str) -> Settings:
        self._path.write_text(text)
        return settings.load(self._path)

    def change(self, *replacements: tuple[str, str], more: str = "") -> Change:
        text = WORLD + more
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        return change(self(WORLD), self(text))


def test_the_same_file_changes_nothing(load: Load) -> None:
    same = load.change()
    assert (same.config, same.told, same.needs_restart) == (load(WORLD), {}, ())


def test_what_is_added_changed_and_removed_is_told_by_name(load: Load) -> None:
    more = '[[bots]]\nname = "b"\ndisplay_name = "B"\nruntime = "ava"\n[otherwise]\nno_bot = true\n'
    told = load.change(
        ('name = "one"', 'name = "new"'), ('["CHAT"]\nbot', '["CHAT"]\npriority = 1\nbot'), more=more
    ).told
    assert told == {
        "rules_added": ["new"],
        "rules_removed": ["one"],
        "bots_added": ["b"],
        "otherwise_changed": True,
    }
    changed = load.change(
        ('display_name = "A"', 'display_name = "Ava"'), ('"two"\n', '"two"\npercent = 5\n')
    ).told
    assert changed == {"rules_changed": ["two"], "bots_changed": ["a"]}


def test_another_order_is_a_change_since_the_first_match_decides(load: Load) -> None:
    swapped = load.change(('"one"', '"x"'), ('"two"', '"one"'), ('"x"', '"two"')).told
    assert swapped["rules_in_order"] == ["two", "one"]


def test_what_takes_a_restart_stays_as_it_was_and_is_named_every_time(load: Load) -> None:
    more = "[quota]\nrate = 4\n[health]\nlisten = '127.0.0.1:9'\n"
    told = load.change(('"https://bot.internal/attach"', '"https://other.internal/attach"'), more=more)
    assert told.needs_restart == ("health", "quota", "runtimes")
    assert told.config == load(WORLD)
    assert change(told.config, load(WORLD + more)).needs_restart == ("health", "quota")


def test_a_bot_of_a_runtime_that_is_not_open_is_refused(load: Load) -> None:
    with pytest.raises(
        Misconfigured, match=r"\[runtimes.new\]: a bot or a rule asks for it, and it takes a restart"
    ):
        load.change(("[runtimes.ava]", "[runtimes.new]"), ('runtime = "ava"', 'runtime = "new"'))
