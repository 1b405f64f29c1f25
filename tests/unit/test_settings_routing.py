"""Rules in the file: what loads, what is refused with what to write, and what is doubted."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from attachd import settings, wiring
from attachd.doubts import doubts
from attachd.errors import Misconfigured
from attachd.settings import Settings

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
[[bots]]
name = "b"
display_name = "B"
runtime = "ava"
[[bots]]
name = "caller"
display_name = "C"
runtime = "ava"
role = "CUSTOMER"
"""
NOW = datetime(2026, 7, 4, tzinfo=UTC).timestamp()


def load(folder: Path, text: str) -> Settings:
    path = folder / "attachd.toml"
    path.write_text(WORLD + text)
    return settings.load(path)


def rule(text: str, name: str = "r") -> str:
    return f'[[rules]]\nname = "{name}"\n{text}\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "what does the chat get? Write 'bot', 'split' or 'no_bot = true'"),
        ("bot = []", "what does the chat get?"),
        ('bot = "a"\nno_bot = true', "'no_bot' beside 'bot' or 'split'"),
        ("split = { a = 1 }\nno_bot = true", "'no_bot' beside 'bot' or 'split'"),
        ('no_bot = true\nfallback = "ava"', "'fallback' beside 'no_bot'"),
        (
            'when.detail.channel = ["VOICE"]\nbot = "caller"\nstreaming_topic = "arn:aws:sns:eu-central-1:111122223333:x"',
            "streaming_topic: only chats are streamed, and its bots join calls",
        ),
        ("split = { a = 0, b = 0 }", "'split' has no weight above 0"),
        ("split = { a = 0.5, b = 1 }", "split a: "),
        ("split = { a = -1, b = 2 }", "split a: "),
        ("split = { a = 1, bb = 1 }", "split: there is no bot named 'bb'; did you mean 'b'?"),
        ("split = { a = 1, caller = 1 }", "its bots join in different roles"),
        ('split = { a = 1 }\nbot = "caller"', "its bots join in different roles"),
        ('bot = "a"\npercent = 101', "percent: "),
        ('bot = "a"\nsticky = "detail..x"', "not a path"),
        ('bot = "a"\ninclude = ["guide"]', "include 1: "),
        ('bot = "a"\ndisplay_name = ""', "display_name default: "),
        ('bot = "a"\ndisplay_name = { de = "" }', "display_name de: "),
        ('bot = "a"\nstreaming_topic = "arn:aws:sns:eu-central-1:111122223333:x.fifo"', "standard SNS topic"),
        ('bot = "a"\nactive = { days = ["mon"] }', "time_zone: missing"),
        ('bot = "a"\nactive = { time_zone = "CEST", days = ["mon"] }', "write one like 'Europe/Berlin'"),
        ('bot = "a"\nactive = { time_zone = "UTC", days = ["monday"] }', "days 1: "),
        ('bot = "a"\nactive = { time_zone = "UTC", days = [] }', "days: "),
        ('bot = "a"\nactive = { time_zone = "UTC", hours = "9-17" }', "write '09:00-17:00'"),
        ('bot = "a"\nactive = { time_zone = "UTC", hours = [] }', "hours: "),
        ('bot = "a"\nactive = { time_zone = "UTC", from = 2026-01-01 }', "write the time of day, too"),
        (
            'bot = "a"\nactive = { time_zone = "UTC", from = 2026-01-02T00:00:00, until = 2026-01-01T00:00:00 }',
            "'until' is not after 'from'",
        ),
        ('bot = "a"\nactive = { time_zone = "UTC", form = 2026-01-01T00:00:00 }', "did you mean 'from'?"),
    ],
)
def test_what_no_rule_can_mean_is_refused_in_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        load(tmp_path, rule(text))
    (one,) = refused.value.problems
    assert "[[rules]] 1 'r'" in one
    assert problem in one


def test_otherwise_is_refused_in_its_place_too(tmp_path: Path) -> None:
    text = rule('bot = "a"', "otherwise") + '[otherwise]\nbot = "aa"\nwhen = "{}"'
    with pytest.raises(Misconfigured) as refused:
        load(tmp_path, text)
    said = "\n".join(refused.value.problems)
    assert "[otherwise] when: there is no such key" in said
    assert "[otherwise] bot: there is no bot named 'aa'; did you mean 'a'?" in said
    assert "the name 'otherwise' stands there twice" in said


def test_otherwise_is_for_chats_alone(tmp_path: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"\[otherwise\] split: a bot with role CUSTOMER joins only VOICE"
    ):
        load(tmp_path, rule('bot = "a"') + "[otherwise]\nsplit = { caller = 1 }")


def test_a_moment_is_local_unless_it_says_otherwise(tmp_path: Path) -> None:
    text = 'bot = "a"\nactive = { time_zone = "Europe/Berlin", from = 2026-07-01T00:00:00, until = 2026-07-02T00:00:00Z }'
    (active,) = load(tmp_path, rule(text)).rules[0].active
    window = active.window()
    assert window.begins == datetime(2026, 6, 30, 22, tzinfo=UTC).timestamp()
    assert window.ends == datetime(2026, 7, 2, tzinfo=UTC).timestamp()


def test_a_loaded_rule_is_the_same_when_it_is_told_and_loaded_again(tmp_path: Path) -> None:
    loaded = load(tmp_path, rule('bot = "a"\nactive = { time_zone = "UTC", from = 2026-07-01T00:00:00 }'))
    assert Settings.model_validate(loaded.model_dump()) == loaded


def test_rules_are_built_with_what_they_are_configured_with(tmp_path: Path) -> None:
    built = wiring.rules(load(tmp_path, rule("split = { a = 9, b = 1 }") + "[otherwise]\nno_bot = true"))
    assert sorted(built.bots) == ["a", "b"]


BIG = 'when.detail.channel = ["CHAT"]\nbot = "a"\n'


@pytest.mark.parametrize(
    "limit",
    [
        "percent = 50",
        'active = { time_zone = "UTC", hours = "09:00-17:00" }',
        'when.attributes.vip = ["yes"]',
    ],
)
def test_a_rule_that_is_limited_leaves_something_to_the_next(tmp_path: Path, limit: str) -> None:
    assert doubts(load(tmp_path, rule(BIG + limit) + rule(BIG, "later")), NOW) == []


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", ""),
        ("", "percent = 50"),
        ("", 'active = { time_zone = "UTC", hours = "09:00-17:00" }'),
        ("", 'when.attributes.vip = ["yes"]'),
        ('include = ["guides", "transfers"]', 'include = ["guides"]'),
        (
            'active = { time_zone = "UTC", hours = "09:00-17:00" }',
            'active = { time_zone = "UTC", hours = "09:00-17:00" }',
        ),
        ('when.attributes.vip = ["yes"]', 'when.attributes.vip = ["yes"]'),
    ],
)
def test_a_rule_behind_one_that_leaves_nothing_never_decides(
    tmp_path: Path, earlier: str, later: str
) -> None:
    (doubt,) = doubts(load(tmp_path, rule(BIG + earlier) + rule(BIG + later, "later")), NOW)
    assert (doubt.name, doubt.path) == ("later", "")
    assert "it never decides" in doubt.message


def test_a_rule_that_includes_more_or_joins_another_channel_is_left_something(tmp_path: Path) -> None:
    any_channel = 'when.detail.channel = ["CHAT", "VOICE"]\nbot = "{}"\n'
    more = rule(BIG) + rule(BIG + 'include = ["guides"]', "more")
    other = rule(any_channel.format("a"), "chats") + rule(any_channel.format("caller"), "calls")
    assert doubts(load(tmp_path, more), NOW) == []
    assert doubts(load(tmp_path, other), NOW) == []


def test_a_rule_for_no_bot_takes_what_the_one_before_it_leaves_out(tmp_path: Path) -> None:
    text = rule(BIG) + rule('when.detail.channel = ["CHAT"]\nno_bot = true', "later")
    assert doubts(load(tmp_path, text), NOW) == []


def test_behind_no_bot_nothing_is_left_whatever_is_included(tmp_path: Path) -> None:
    text = rule('when.detail.channel = ["CHAT"]\nno_bot = true') + rule(BIG + 'include = ["guides"]', "later")
    (doubt,) = doubts(load(tmp_path, text), NOW)
    assert doubt.name == "later"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ('when.detail.initiationMethod = ["TRANSFER"]', "detail.initiationMethod", 'include = ["transfers"]'),
        (
            'when.detail.initiationMethod = ["MONITOR", "DISCONNECT"]',
            "detail.initiationMethod",
            '"disconnect_flows", "monitors"',
        ),
        (
            'when.detail.eventType = ["QUEUED"]',
            "detail.eventType",
            "asked of CONNECTED_TO_SYSTEM and INITIATED alone",
        ),
        ('when.detail.eventType = ["CONTACT_DATA_UPDATED"]', "detail.eventType", "it never decides"),
        (
            'when.detail.segmentAttributes."connect:Subtype".ValueString = ["connect:Guide"]',
            "detail.segmentAttributes.connect:Subtype.ValueString",
            'include = ["guides"]',
        ),
        ("percent = 0", "", "it is for 0 of 100"),
        ('active = { time_zone = "UTC", until = 2026-01-01T00:00:00 }', "", "its time is over"),
        ('when.attribute.vip = ["yes"]', "attribute.vip", "did you mean 'attributes.vip'?"),
        ('when.detail.channel = ["TASK", "EMAIL"]', "detail.channel", "its bots join CHAT contacts alone"),
        (
            "when.detail.tags.spent = [5]",
            "detail.tags.spent",
            "are text: no number, true, false or null fits",
        ),
        ('when.attributes.spent = [{ numeric = [">", 5] }, "x"]', "attributes.spent", 'write "5"'),
        ("percent = 50\nsticky = 'detail.custmerId'", "sticky", "did you mean 'detail.customerId'?"),
        ("sticky = 'detail.tags'\npercent = 50", "sticky", "it is an object"),
        (
            "display_name = { de = 'Ava (Bot)', default = 'Ava' }\nlanguage = 'detail.tag.language'",
            "language",
            "did you mean 'detail.tags.language'?",
        ),
    ],
)
def test_a_rule_that_can_never_decide_is_doubted_and_a_remedy_offered(
    tmp_path: Path, text: str, path: str, message: str
) -> None:
    (doubt,) = doubts(load(tmp_path, rule(f'bot = "a"\n{text}')), NOW)
    assert doubt.path == path
    assert message in doubt.message


@pytest.mark.parametrize(
    "text",
    [
        'when.detail.initiationMethod = ["TRANSFER"]\ninclude = ["transfers"]',
        'when.detail.initiationMethod = ["TRANSFER", "API"]',
        'when.detail.initiationMethod = [{ anything-but = "API" }]',
        'when.detail.initiationMethod = ["FROM_THE_FUTURE", "API"]',
        'when.detail.eventType = ["QUEUED", "INITIATED"]',
        'when.detail.eventType = ["CONTACT_DATA_UPDATED"]\ninclude = ["updates"]',
        """when = '{"$or": [{"detail": {"eventType": ["QUEUED"]}}, {"detail": {"channel": ["CHAT"]}}]}'""",
        'active = [{ time_zone = "UTC", until = 2026-01-01T00:00:00 }, { time_zone = "UTC", days = ["mon"] }]',
        'when.detail.channel = [{ anything-but = "VOICE" }]',
    ],
)
def test_a_rule_that_may_decide_is_not_said_never_to(tmp_path: Path, text: str) -> None:
    found = doubts(load(tmp_path, rule(f'bot = "a"\n{text}')), NOW)
    assert not [doubt for doubt in found if "never decides" in doubt.message]


def test_a_journal_that_forgets_a_chat_before_its_patience_ends_is_doubted(tmp_path: Path) -> None:
    text = rule('bot = "a"\nattach_within = "2h"') + '[service]\nkeep = "1h"\n'
    (doubt,) = doubts(load(tmp_path, text), NOW)
    assert (doubt.name, doubt.path) == ("r", "attach_within")
    assert "a second one" in doubt.message
    assert doubts(load(tmp_path, text.replace("1h", "3h")), NOW) == []


@pytest.mark.parametrize(
    "text",
    [
        'when.detail.tags.spent = ["5", { anything-but = 5 }, { exists = false }]',
        'sticky = "detail.tag.customer"',  # nothing is drawn
        'split = { a = 1 }\nsticky = "attributes.customer"',
        'display_name = "Ava"\nlanguage = "detail.tag.language"',
    ],
)
def test_a_rule_that_says_nothing_strange_is_not_doubted(tmp_path: Path, text: str) -> None:
    assert doubts(load(tmp_path, rule(f'bot = "a"\n{text}')), NOW) == []


def test_what_eventbridge_would_refuse_and_attachd_takes_is_told_to_who_asks(tmp_path: Path) -> None:
    stars = load(
        tmp_path, rule('bot = "a"\nwhen.detail.customerId = [{ wildcard = "*:*:*:*:*:event-bus/*" }]')
    )
    long = load(tmp_path, rule(f'bot = "a"\nwhen.detail.tags.t = ["{"x" * 5_000}"]'))
    assert doubts(stars, NOW) == doubts(long, NOW) == []
    (too_complex,), (too_long,) = (doubts(config, NOW, eventbridge=True) for config in (stars, long))
    assert too_complex.path == "detail.customerId"
    assert "EventBridge refuses it: too many wildcard characters" in too_complex.message
    assert "EventBridge takes 4096 characters at most" in too_long.message
