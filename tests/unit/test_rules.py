"""Which bot for which chat: first match wins, some contacts get none, and every verdict has its reason."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.errors import Permanent
from attachd.model import Bot, Choice, Contact, ContactEvent, Outcome
from attachd.patterns import compile_pattern
from attachd.patterns.event import MAX_NESTED_ARRAYS
from attachd.rules import Rule, Rules

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/i"


def _event(detail: Mapping[str, Any] | None = None, **contact: Any) -> ContactEvent:
    fields: dict[str, Any] = {"channel": "CHAT", "initiation_method": "API"} | contact
    document = {"detail": {"channel": "CHAT"} | dict(detail or {})}
    return ContactEvent("e", "INITIATED", 0.0, Contact("c-1", INSTANCE, initial_id="c-1", **fields), document)


def _rule(name: str, when: object = None, **changes: Any) -> Rule:
    pattern = compile_pattern(json.dumps({"detail": {"channel": ["CHAT"]}} if when is None else when))
    return Rule(name, pattern, (Bot(f"bot-{name}", "Ava", "ava"),), **changes)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.sampled_from("abc"))
def test_the_first_rule_that_matches_decides(wanted: list[str], given_key: str) -> None:
    rules = Rules(_rule(f"{n}", {"detail": {"key": [key]}}) for n, key in enumerate(wanted))
    event = _event({"key": given_key})
    if given_key in wanted:
        assert rules.choose(event).rule == str(wanted.index(given_key))
    else:
        with pytest.raises(Permanent, match="no rule matched") as refusal:
            rules.choose(event)
        assert refusal.value.outcome is Outcome.NO_BOT


def test_a_choice_carries_the_rules_bot_priority_and_patience() -> None:
    choice = Rules([_rule("vip", priority=7, patience=12.5)]).choose(_event())
    assert isinstance(choice, Choice)
    assert (choice.rule, choice.bots[0].name, choice.priority, choice.patience) == ("vip", "bot-vip", 7, 12.5)


@pytest.mark.parametrize(
    ("contact", "why"),
    [
        ({"channel": "VOICE"}, "of calls, only WEBRTC_API"),
        ({"channel": "TASK"}, "channel is TASK"),
        ({"channel": "EMAIL"}, "channel is EMAIL"),
        ({"channel": ""}, "channel is missing"),
        ({"segment_attributes": {"connect:Subtype": "connect:Guide"}}, "guide"),
        ({"initiation_method": "TRANSFER"}, "initiation method is TRANSFER"),
        ({"initiation_method": "QUEUE_TRANSFER"}, "initiation method is QUEUE_TRANSFER"),
        ({"initiation_method": "MONITOR"}, "initiation method is MONITOR"),
        ({"initiation_method": "DISCONNECT"}, "initiation method is DISCONNECT"),
    ],
)
def test_what_is_no_customers_chat_gets_no_bot_unless_a_rule_says_so(
    contact: dict[str, Any], why: str
) -> None:
    rules = Rules([_rule("everything", {"detail": {"channel": [{"exists": True}]}})])
    with pytest.raises(Permanent, match=why) as refusal:
        rules.choose(_event(**contact))
    assert refusal.value.outcome is Outcome.NO_BOT


@pytest.mark.parametrize("method", [None, "API", "INBOUND", "FLOW", "WEBRTC_API", "FROM_THE_FUTURE"])
@pytest.mark.parametrize("subtype", [None, "connect:Chat", "connect:SMS", "connect:WhatsApp"])
def test_any_other_chat_may_have_one(method: str | None, subtype: str | None) -> None:
    event = _event(initiation_method=method, segment_attributes={"connect:Subtype": subtype})
    assert Rules([_rule("chat")]).choose(event).rule == "chat"


def test_no_rules_no_bot() -> None:
    with pytest.raises(Permanent) as refusal:
        Rules([]).choose(_event())
    assert refusal.value.outcome is Outcome.NO_BOT


def test_explain_goes_through_every_rule_and_names_the_first_field_that_fails() -> None:
    rules = Rules(
        [
            _rule("german", {"detail": {"channel": ["CHAT"], "tags": {"language": [{"prefix": "de"}]}}}),
            _rule("voice", {"detail": {"channel": ["VOICE"], "nothing": ["x"]}}),
            _rule("chat"),
        ]
    )
    german, voice, chat = rules.explain(_event({"tags": {"language": "fr"}}))
    assert (german.rule, german.matched) == ("german", False)
    assert german.why.startswith('detail.tags.language: the event has "fr"')
    assert voice.why.startswith('detail.channel: the event has "CHAT"')
    assert (chat.matched, chat.why) == (True, "every field matches: bot-chat")


@given(st.lists(st.sampled_from("abc"), max_size=6), st.sampled_from("abc"))
def test_explain_and_choose_agree(wanted: list[str], given_key: str) -> None:
    rules = Rules(_rule(f"{n}", {"detail": {"key": [key]}}) for n, key in enumerate(wanted))
    event = _event({"key": given_key})
    matched = [verdict.rule for verdict in rules.explain(event) if verdict.matched]
    if matched:
        assert rules.choose(event).rule == matched[0]
    else:
        with pytest.raises(Permanent):
            rules.choose(event)


def _beyond_the_matcher() -> ContactEvent:
    nested: Any = "x"
    for _ in range(MAX_NESTED_ARRAYS + 1):
        nested = [nested]
    return _event({"key": nested})


def test_an_event_beyond_what_can_be_matched_is_too_large() -> None:
    with pytest.raises(Permanent) as refusal:
        Rules([_rule("key", {"detail": {"key": ["x"]}})]).choose(_beyond_the_matcher())
    assert refusal.value.outcome is Outcome.TOO_LARGE


def test_to_explain_an_event_beyond_what_can_be_matched_is_refused_in_the_same_words() -> None:
    with pytest.raises(Permanent) as refusal:
        list(Rules([_rule("key", {"detail": {"key": ["x"]}})]).explain(_beyond_the_matcher()))
    assert refusal.value.outcome is Outcome.TOO_LARGE
