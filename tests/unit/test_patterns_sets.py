"""Many patterns, asked together: names in the order given, whatever they are filed under."""

import json
from typing import Any

import pytest

from attachd.patterns import EventError, PatternError, PatternSet


def matching(patterns: dict[str, Any], event: Any) -> list[str]:
    return PatternSet({name: json.dumps(pattern) for name, pattern in patterns.items()}).matching(event)


def test_names_come_in_the_order_given_each_once() -> None:
    patterns = {
        "z": {"b": [{"exists": False}]},
        "a": {"$or": [{"a": [1]}, {"a": [{"numeric": [">", 0]}]}]},
        "m": {"a": [1]},
        "b": {"a": [2]},
    }
    assert matching(patterns, {"a": 1}) == ["z", "a", "m"]


def test_a_set_of_no_patterns_matches_nothing() -> None:
    assert PatternSet({}).matching({"a": 1}) == []
    assert len(PatternSet({})) == 0


def test_an_event_may_be_text_bytes_or_a_mapping() -> None:
    together = PatternSet({"one": b'{"a": [1.0]}', "two": '{"a": [2]}'})
    assert len(together) == 2
    for event in ('{"a": 1}', b'{"a": 1e0}', {"a": 1}):
        assert together.matching(event) == ["one"]


def test_a_bad_pattern_is_refused_in_its_own_words_and_named() -> None:
    with pytest.raises(PatternError, match="Empty arrays are not allowed") as refusal:
        PatternSet({"good": '{"a": [1]}', "bad": '{"a": []}'})
    assert refusal.value.path == "a"
    assert refusal.value.__notes__ == ["in the pattern 'bad'"]


def test_true_and_one_are_filed_apart() -> None:
    patterns = {"true": {"a": [True]}, "one": {"a": [1]}, "text": {"a": ["1"]}, "null": {"a": [None]}}
    assert [matching(patterns, {"a": value}) for value in (True, 1, "1", None, False)] == [
        ["true"],
        ["one"],
        ["text"],
        ["null"],
        [],
    ]


def test_text_that_folds_in_more_than_one_way_is_found_nevertheless() -> None:
    texts = ["ß", "İ", "\N{LATIN SMALL LETTER DOTLESS I}", "ŉ", "ǅ", "ﬁ", "ς", "🚀"]
    patterns = {text: {"a": [{"equals-ignore-case": text}]} for text in texts}
    for text in texts:
        for spelled in {text, text.lower(), text.upper()}:
            assert text in matching(patterns, {"a": spelled})


@pytest.mark.parametrize("value", range(-1, 12))
def test_ranges_that_overlap_in_every_way_are_all_found(value: int) -> None:
    bounds = [(low, high) for low in range(10) for high in range(low + 1, 11)]
    patterns = {f"{low} {high}": {"a": [{"numeric": [">=", low, "<=", high]}]} for low, high in bounds}
    expected = [f"{low} {high}" for low, high in bounds if low <= value <= high]
    assert matching(patterns, {"a": value}) == expected


@pytest.mark.parametrize("event", ["[1]", "{", b"\xff", {"a": float("nan")}, {"a": object()}, {1: 2}])
def test_what_is_no_event_is_refused(event: Any) -> None:
    patterns = PatternSet({"one": '{"a": [1]}', "absent": '{"b": [{"exists": false}]}'})
    assert patterns.matching(event) == []
    with pytest.raises(EventError):
        patterns.decide(event)
