"""What the docs say is what the code does."""

import doctest
import json
import re
import runpy
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attachd import settings, wiring
from attachd.decode import decode
from attachd.doubts import doubts
from attachd.explaining import tried
from attachd.model import Bot, ChatEnded, Handoff, Outcome, Participant, Secret
from attachd.patterns.operators import OPERATORS
from attachd.runtimes import payload

ROOT = Path(__file__).parents[2]
DOCS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_reference_is_what_make_docs_writes() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "generate.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text() == written, "run `make docs`"


def test_the_plan_of_the_house_is_what_make_docs_writes() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "rooms.py"))["plan"]()
    assert (ROOT / "docs" / "rooms.md").read_text() == written, "run `make docs`"


def test_the_configuration_in_the_readme_is_a_good_one(tmp_path: Path) -> None:
    [block] = blocks(ROOT / "README.md", "toml")
    path = tmp_path / "attachd.toml"
    path.write_text(block)
    loaded = settings.load(path)
    assert [rule.name for rule in loaded.rules] == ["web chat in German"]


def test_the_annotated_configuration_is_a_good_one_and_shows_every_key() -> None:
    path = ROOT / "config" / "attachd.toml"
    loaded = settings.load(path)
    shown = set(_keys(tomllib.loads(path.read_text())))
    told = loaded.model_dump(
        exclude_none=True, exclude={"rules": {"__all__": {"when"}}, "otherwise": True, "sources": True}
    )
    assert shown >= set(_keys(told))
    assert settings.Rule.model_fields.keys() > settings.Otherwise.model_fields.keys(), "told once, for both"


def test_the_annotated_configuration_shows_the_defaults() -> None:
    text = (ROOT / "config" / "attachd.toml").read_text()
    loaded = settings.load(ROOT / "config" / "attachd.toml")
    assert loaded.quota.headroom == settings.Quota().headroom
    assert loaded.waiting == settings.Waiting()
    assert loaded.service == settings.Service()
    assert loaded.health == settings.Health()
    assert loaded.logging == settings.Logging()
    assert isinstance(loaded.source, settings.SqsSource)
    bare = settings.SqsSource(
        type="sqs",
        name=loaded.source.label,
        queue_url=loaded.source.queue_url,
        quarantine_url=loaded.source.quarantine_url,
    )
    assert loaded.source == bare
    assert "\t" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda path: path.name)
def test_no_rule_that_is_shipped_is_warned_of(path: Path) -> None:
    assert not doubts(settings.load(path), now=1_800_000_000.0)


def test_the_annotated_configuration_shows_a_stream_too_with_every_key_and_its_defaults() -> None:
    text = (ROOT / "config" / "attachd.toml").read_text()
    block = text[text.index("# [source]") : text.index("# Beside either")]
    table = tomllib.loads("\n".join(line.removeprefix("# ") for line in block.splitlines()))["source"]
    shown = settings.KinesisSource(**table)
    assert set(table) == set(settings.KinesisSource.model_fields)
    kept = {key: table[key] for key in ("type", "name", "stream", "quarantine_url", "leases_path")}
    assert shown == settings.KinesisSource(**kept)
    assert shown.file() == settings.KinesisSource(type="kinesis", stream="x").file(
        {"STATE_DIRECTORY": "/var/lib/attachd"}
    )


def test_the_annotated_configuration_shows_a_sweep_with_every_key_and_its_defaults() -> None:
    text = (ROOT / "config" / "attachd.toml").read_text()
    block = text[text.index("# [[sources]]") : text.index("# ── what is known of contacts")]
    (table,) = tomllib.loads("\n".join(line.removeprefix("# ") for line in block.splitlines()))["sources"]
    assert set(table) == set(settings.SweepSource.model_fields)
    kept = {key: table[key] for key in ("type", "name", "instance")}
    assert settings.SweepSource(**table) == settings.SweepSource(**kept)


def test_the_events_in_the_docs_are_those_that_are_sent(contact_event: Callable[..., bytes]) -> None:
    event = decode(contact_event("c-1"), received_at=2e9, max_bytes=10_000)
    handoff = Handoff(
        key="c-1_1",
        contact=event.contact,
        bot=Bot("concierge", "Ava", "ava"),
        rule="chat",
        generation=1,
        participant=Participant(
            "participant-1", Secret("(a password: never log it)"), "2026-01-02T00:00:00Z"
        ),
        connect_by=event.time + 15,
    )
    farewell = ChatEnded("c-1_1_ended", handoff.contact, handoff.bot.name, handoff.generation, "ended")
    shown, shown_at_the_end = blocks(ROOT / "docs" / "runtimes.md", "json")
    assert json.loads(shown) == json.loads(payload.attached(handoff, event.time))
    assert json.loads(shown_at_the_end) == json.loads(payload.ended(farewell, event.time))


def test_operations_says_what_to_do_about_every_outcome() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [outcome for outcome in Outcome if f"`{outcome.value}`" not in page] == []


def test_every_rule_shown_on_the_page_of_rules_is_a_good_one(tmp_path: Path) -> None:
    world = (ROOT / "examples" / "rules" / "attachd.toml").read_text().partition("[[rules]]")[0]
    world += '[[bots]]\nname = "concierge-next"\ndisplay_name = "Ava"\nruntime = "ava"\n'
    shown = [
        block
        for block in blocks(ROOT / "docs" / "rules.md", "toml")
        if "bot" in block and "json" not in block
    ]
    assert len(shown) >= 7
    for block in shown:
        path = tmp_path / "attachd.toml"
        path.write_text(world + block)
        assert doubts(settings.load(path), now=0.0) == [], block


def test_the_rules_to_be_tried_do_as_is_expected_of_them() -> None:
    folder = ROOT / "examples" / "rules"
    trials = list(tried(wiring.rules(settings.load(folder / "attachd.toml")), folder))
    assert len(trials) >= 6
    assert [trial for trial in trials if trial.wrong] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_is_there(page: Path) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page.read_text())
    assert [name for name in named if f"def {name}(" not in tests] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_example_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        assert compile(block, str(page), "exec", flags=0) is not None


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_session_shown_goes_as_shown(page: Path) -> None:
    session = doctest.DocTestParser().get_doctest("".join(blocks(page, "pycon")), {}, page.name, str(page), 0)
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(
        session, out=said.append
    )
    assert not failed, "".join(said)


@pytest.mark.parametrize("operator", sorted(OPERATORS | {"$or"}))
def test_the_language_is_told_with_an_example_of_every_operator(operator: str) -> None:
    assert f'"{operator}": ' in "".join(blocks(ROOT / "docs" / "rules.md", "pycon"))


def _keys(table: Any, path: str = "") -> Iterator[str]:
    """Every key of a document, by its path; list positions left out, names of runtimes too."""
    if isinstance(table, dict):
        for key, value in table.items():
            name = "*" if path == "/runtimes" else key
            yield f"{path}/{name}"
            yield from _keys(value, f"{path}/{name}")
    elif isinstance(table, list | tuple):
        for item in table:
            yield from _keys(item, path)


def test_every_clause_of_the_delivery_contract_is_held_by_a_test_that_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "delivery-contract.md").read_text()))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 15
    assert named <= there, named - there
