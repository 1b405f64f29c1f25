"""What a pattern says that its author can hardly have meant."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.contact_fields import CONTACT_EVENT
from attachd.patterns import compile_pattern
from attachd.patterns.lint import Finding, lint
from attachd.patterns.parse import parse
from attachd.patterns.service import complexity, refusals

CHAT = {"detail": {"channel": ["CHAT"]}}
QUICK = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def findings(*patterns: Any, known: Any = CONTACT_EVENT) -> list[str]:
    """Lint patterns named 0, 1, …; the findings, each as a line."""
    texts = {f"{n}": one if isinstance(one, str) else json.dumps(one) for n, one in enumerate(patterns)}
    return [str(finding) for finding in lint(texts, known)]


def test_good_rules_are_passed_over() -> None:
    opening = {"channel": ["CHAT"], "eventType": ["INITIATED", "CONNECTED_TO_SYSTEM"]}
    assert not findings(
        {"source": ["aws.connect"], "detail-type": ["Amazon Connect Contact Event"], "detail": opening},
        {"detail": {"tags": {"language": [{"prefix": "de"}], "my.own": [{"exists": False}]}}},
        {"detail": {"segmentAttributes": {"connect:Subtype": {"ValueString": ["connect:Chat"]}}}},
        {"detail": {"channel": [{"anything-but": ["VOICE"]}, {"equals-ignore-case": "chat"}]}},
        {"detail": {"channel": ["VOICE"]}},
    )


@pytest.mark.parametrize(
    ("pattern", "path", "message"),
    [
        ({"detail": {"chanel": ["CHAT"]}}, "detail.chanel", "no such field; did you mean 'detail.channel'?"),
        ({"detail": {"Channel": ["CHAT"]}}, "detail.Channel", "did you mean 'detail.channel'?"),
        ({"detial": {"channel": ["CHAT"]}}, "detial.channel", "did you mean 'detail.channel'?"),
        ({"channel": ["CHAT"]}, "channel", "did you mean 'detail.channel'?"),
        ({"detail": {"weather": ["fine"]}}, "detail.weather", "there is no such field"),
        ({"detail": {"channel": ["Chat"]}}, "detail.channel", "did you mean 'CHAT'?"),
        ({"detail": {"eventType": ["INITATED"]}}, "detail.eventType", "did you mean 'INITIATED'?"),
        ({"detail": {"channel": [{"prefix": "chat"}]}}, "detail.channel", "did you mean 'CHAT'?"),
        ({"detail": {"channel": [{"anything-but": "Voice"}]}}, "detail.channel", "did you mean 'VOICE'?"),
        ({"detail": {"channel": [5]}}, "detail.channel", "5.0 fits none of the values known"),
        (
            {"detail": {"channel": [{"anything-but": ["CHAT", "VOICE", "TASK", "EMAIL"]}]}},
            "detail.channel",
            "excludes all of the values known",
        ),
        ({"detail": {"tags": ["x"]}}, "detail.tags", "is an object"),
        ({"detail": {"contactId": {"x": [1]}}}, "detail.contactId.x", "'detail.contactId' is a value"),
        ({"detail": {"channel": {"prefix": ["C"]}}}, "detail.channel.prefix", "'prefix' is an operator"),
        ({"detail": {"channel": {"prefix": "C"}}}, "detail.channel.prefix", "an operator stands in an array"),
        ({"detail": {"channel": [{"prefx": "C"}]}}, "detail.channel", "did you mean 'prefix'?"),
        ({"detail": {"channel": [{"EXISTS": True}]}}, "detail.channel", "did you mean 'exists'?"),
        (
            {"detail": {"contactId": ["1"], "$or": [{"contactId": ["2"]}, {"customerId": ["3"]}]}},
            "detail.contactId",
            "the later condition replaces the earlier",
        ),
        ('{"detail": {"contactId": [{"numeric": [">", 0, "<", 5e-324]}]}}', "detail.contactId", "no number"),
        ('{"detail": {"contactId": [{"numeric": [">", 5, "<", 3]}]}}', "detail.contactId", "Bottom must be"),
    ],
)
def test_what_can_hardly_be_meant_is_found_and_a_remedy_offered(
    pattern: Any, path: str, message: str
) -> None:
    text = pattern if isinstance(pattern, str) else json.dumps(pattern)
    [finding] = lint({"rule": text}, CONTACT_EVENT)
    assert (finding.name, finding.path) == ("rule", path)
    assert message in finding.message


def test_without_knowing_the_events_any_field_may_be() -> None:
    assert lint({"rule": '{"weather": ["fine"], "detail": {"channel": ["Chat"]}}'}) == []


def test_of_two_identical_rules_the_later_never_decides() -> None:
    other = {"detail": {"channel": ["TASK"]}}
    assert findings(CHAT, other, {"detail.channel": ["CHAT"]}) == [
        "'2': it never decides: every event that it matches is matched by '0' before it"
    ]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"a": [{"exists": True}]}, {"a": [{"anything-but": "x"}], "b": [1]}),
        ({"a": ["x", "y"]}, {"a": ["y"]}),
        ({"a": [{"prefix": "a"}]}, {"a": [{"prefix": "ab"}, "ac", {"wildcard": "ad*"}]}),
        ({"a": [{"suffix": "a"}]}, {"a": [{"suffix": "ba"}, {"wildcard": "*a"}]}),
        ({"a": [{"numeric": [">", 0]}]}, {"a": [{"numeric": [">", 0, "<=", 5]}, 7]}),
        ({"a": [{"anything-but": "x"}]}, {"a": [{"anything-but": ["x", "y"]}, None]}),
        ({"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": [{"anything-but": {"prefix": "a"}}]}),
        ({"a": [{"equals-ignore-case": "AB"}]}, {"a": ["aB"]}),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, {"a": ["10.1.2.3", {"cidr": "10.3.0.0/16"}]}),
        ({"$or": [{"a": [1]}, {"b": [1]}]}, {"a": [1], "c": [1]}),
        ({"a": [{"exists": False}, 1]}, {"a": [{"exists": False}]}),
    ],
)
def test_a_rule_behind_a_wider_one_never_decides(wide: Any, narrow: Any) -> None:
    assert len(findings(wide, narrow, known=None)) == 1
    assert not findings(narrow, wide, known=None), "but the wider behind the narrower does"


def test_a_rule_may_be_shadowed_branch_by_branch() -> None:
    both = {"$or": [{"a": [1]}, {"b": [1]}]}
    assert findings({"a": [1]}, {"b": [1]}, both, known=None)[0].endswith("by '0' and '1' before it")
    assert not findings({"a": [1]}, both, known=None)


SOME = [1, 2, "a", "ab", "b", None, True]
SOME_TESTS = st.sampled_from(
    [
        *SOME,
        *({"exists": exists} for exists in (True, False)),
        *({"prefix": text} for text in ("", "a", "ab")),
        *({"suffix": text} for text in ("", "b", "ab")),
        *({"anything-but": it} for it in ("a", ["a", "ab"], 1, {"prefix": "a"}, {"prefix": "ab"})),
        {"numeric": [">", 1]},
        {"numeric": [">=", 1, "<", 3]},
        {"wildcard": "a*"},
        {"wildcard": "*"},
        {"equals-ignore-case": "AB"},
    ]
)
SOME_FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c.d", "c.e"]),
    st.lists(SOME_TESTS, min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)
SOME_VALUES = st.sampled_from(SOME) | st.lists(st.sampled_from(SOME), max_size=2)
SOME_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "a": SOME_VALUES,
        "b": SOME_VALUES,
        "c": st.lists(st.fixed_dictionaries({}, optional={"d": SOME_VALUES, "e": SOME_VALUES}), max_size=3),
    },
)


@QUICK
@given(st.lists(SOME_FIELDS, min_size=2, max_size=6), st.lists(SOME_EVENTS, min_size=5, max_size=20))
def test_what_is_said_never_to_decide_never_does(patterns: list[Any], events: list[Any]) -> None:
    texts = {f"{n}": json.dumps(pattern) for n, pattern in enumerate(patterns)}
    compiled = {name: compile_pattern(text) for name, text in texts.items()}
    for finding in lint(texts):
        for event in events:
            first = next((name for name, pattern in compiled.items() if pattern.matches(event)), None)
            assert first != finding.name


def test_a_finding_reads_as_a_line() -> None:
    assert str(Finding("rule", "a.b", "is odd")) == "'rule': a.b: is odd"
    assert str(Finding("rule", "", "is odd")) == "'rule': is odd"


@pytest.mark.parametrize(
    ("field", "prefixes"),
    [
        # A text that matches so many: the examples of event-ruler's MachineComplexityEvaluatorTest.
        ([{"wildcard": "*ab"}], 2),
        ([{"wildcard": "*aa"}], 3),
        ([{"wildcard": "a*bbb"}], 4),
        ([{"wildcard": "*ab*ad"}], 4),
        ([{"wildcard": "a*b*cd"}], 3),
        ([{"wildcard": "*ab*b*b*"}], 7),
        ([{"wildcard": "a*aaa"}, {"wildcard": "aa*aa"}], 7),
        ([{"wildcard": "*abc"}, {"wildcard": "*abcde"}], 4),
        ([{"anything-but": {"wildcard": ["*ab", "*b"]}}, {"prefix": "*a*a*a*a*a"}], 3),
        ([{"wildcard": "*:*:*:*"}], 7),
        ([{"prefix": "*"}], 0),
    ],
)
def test_wildcards_are_as_complex_as_the_service_finds_them(field: Any, prefixes: int) -> None:
    ((asked,),) = parse(json.dumps({"a": field})).branches
    assert complexity(asked) == prefixes


def test_the_pattern_that_aws_found_too_complex_is_refused_by_the_lint_and_the_bound_is_soon_found() -> None:
    for wildcard in ("*:*:*:*:*:event-bus/*", "*".join("abcdefghij" * 500), "*" + "ab" * 5_000):
        text = json.dumps({"a": [{"wildcard": wildcard}]})
        assert (
            "a",
            "EventBridge refuses it: too many wildcard characters, or repetitions after one",
        ) in list(refusals(text, parse(text).branches[0]))


def test_a_network_leaves_something_to_a_larger_one_and_nothing_to_a_smaller() -> None:
    small, large = ({"detail": {"tags": {"ip": [{"cidr": f"10.0.0.0/{bits}"}]}}} for bits in (24, 8))
    assert findings(small, large) == []
    assert len(findings(large, small)) == 1
