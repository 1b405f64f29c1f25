"""However large, deep or twisted: a decision or a refusal, within steps that grow with the input and not faster.

Steps are lines of the package run, so the figures are the same on every machine. What runs outside Python (string
search, look-ups, JSON) is linear by the interpreter's own word.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import attachd.patterns
from attachd.patterns import EventError, PatternError, PatternSet, compile_pattern
from attachd.patterns.arrays import Need, first_contradiction
from attachd.patterns.event import MAX_TESTS, FlatEvent, Place

HOME = str(Path(attachd.patterns.__file__).parent)


def steps(act: Callable[[], object]) -> int:
    """Count the lines of the package that this runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


PRESENT = [{"exists": True}]
OTHER = [{"anything-but": 0}]


def elements(size: int) -> list[dict[str, int]]:
    return [{"w": n, "x": n, "y": n, "z": n} for n in range(size)]


def ends(size: int) -> list[dict[str, int]]:
    return [{"v": 1} if n % 2 else {"w": 2} for n in range(size)]


GROWING: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "four fields of one array": (
        {"a": {"w": PRESENT, "x": OTHER, "y": [1], "z": [2]}},
        lambda size: {"a": elements(size)},
    ),
    "four arrays beside each other": (
        {**{key: {"x": PRESENT, "y": OTHER} for key in "abc"}, "d": {"x": [1], "y": [2]}},
        lambda size: dict.fromkeys("abcd", elements(size)),
    ),
    "absence in every element": (
        {"a": {"w": PRESENT, "x": PRESENT, "q": [{"exists": False}, 9], "z": [-1]}},
        lambda size: {"a": elements(size)},
    ),
    "plain values": (
        {"a": [{"prefix": "b"}], "b": [{"wildcard": "*b*b"}]},
        lambda size: dict.fromkeys("ab", ["a" * 9] * size),
    ),
    "arrays in arrays": (
        {"a": {"v": PRESENT, "a": {"v": [1], "w": [2]}}},
        lambda size: {"a": [{"v": 1, "a": ends(8)}] * size},
    ),
    "keys with dots": ({"a.b.c": [1]}, lambda size: {f"a.{n}": {"c": 1} for n in range(size)}),
}


@pytest.mark.parametrize(("pattern", "event"), GROWING.values(), ids=GROWING.keys())
def test_twice_the_event_takes_twice_the_steps(pattern: Any, event: Callable[[int], Any]) -> None:
    compiled = compile_pattern(json.dumps(pattern))
    together = PatternSet({"one": json.dumps(pattern), "other": '{"a": {"x": [7]}}'})
    small, large = event(40), event(160)
    assert steps(lambda: compiled.matches(large)) < 4.5 * steps(lambda: compiled.matches(small))
    assert steps(lambda: together.matching(large)) < 4.5 * steps(lambda: together.matching(small))


def test_four_fields_over_an_array_of_forty_take_a_few_steps_a_value() -> None:
    pattern = compile_pattern(json.dumps({"a": {"w": [1], "x": [2], "y": [3], "z": [4]}}))
    event = {"a": elements(40)}
    assert not pattern.matches(event)
    assert steps(lambda: pattern.matches(event)) < 40 * 4 * 20, "a step is about 50 ns: far less than 1 ms"


def test_four_fields_over_forty_arrays_of_forty_take_a_few_steps_an_object() -> None:
    pattern = compile_pattern(
        json.dumps({"a": {"b": {"w": [{"prefix": "4"}, 1], "x": [2], "y": [3], "z": [4]}}})
    )
    event: Any = {"a": [{"b": elements(40)} for _ in range(40)]}
    assert not pattern.matches(event)
    assert steps(lambda: pattern.matches(event)) < 40 * 40 * 15, "a step is about 40 ns"
    event["a"][-1]["b"].append({"w": "4", "x": 2, "y": 3, "z": 4})
    assert pattern.matches(event)


@pytest.mark.parametrize("stars", [10, 1_000])
def test_a_wildcard_takes_a_step_a_star_however_long_the_text(stars: int) -> None:
    pattern = compile_pattern(json.dumps({"a": [{"wildcard": "*a" * stars + "b"}]}))
    for length in (10, 100_000):
        text = "a" * length
        assert steps(lambda text=text: pattern.matches({"a": text})) < 5 * stars + 100  # type: ignore[misc]


def test_a_set_asks_as_little_of_an_event_with_a_thousand_rules_as_with_ten() -> None:
    def rules(count: int) -> PatternSet:
        return PatternSet(
            {f"{n}": json.dumps({"s": ["x"], "d": {"c": ["CHAT"], "t": [f"t{n}"]}}) for n in range(count)}
        )

    event = {"s": "x", "d": {"c": "CHAT", "t": "t7"}}
    few, many = rules(10), rules(1_000)
    assert few.matching(event) == many.matching(event) == ["7"]
    assert steps(lambda: many.matching(event)) == steps(lambda: few.matching(event))


@pytest.mark.parametrize(
    "test",
    [
        lambda n: {"prefix": f"{n:04}-"},
        lambda n: {"suffix": f"-{n:04}"},
        lambda n: {"equals-ignore-case": f"T{n}"},
        lambda n: {"prefix": {"equals-ignore-case": f"T{n:04}"}},
        lambda n: {"suffix": {"equals-ignore-case": f"T{n:04}"}},
        lambda n: {"wildcard": f"{n:04}*x"},
        lambda n: {"wildcard": f"https://*/{n:04}"},
        lambda n: {"numeric": [">=", n, "<", n + 1]},
        lambda n: {"numeric": ["=", n]},
        lambda n: {"cidr": f"10.{n // 256}.{n % 256}.0/24"},
        lambda n: f"10.{n // 256}.{n % 256}.1",
        lambda n: n,
    ],
)
def test_a_rule_is_found_by_any_operator_without_asking_the_others(test: Any) -> None:
    texts = {f"{n}": json.dumps({"s": ["x"], "a": [test(n)]}) for n in range(200)}
    together = PatternSet(texts)
    apart = {name: compile_pattern(text) for name, text in texts.items()}
    for value in ("0007-x-t0007", "t7", 7, "10.0.7.1", "https://x/0007", None, True):
        event = {"s": "x", "a": value}
        assert together.matching(event) == [name for name, one in apart.items() if one.matches(event)]
        assert steps(lambda event=event: together.matching(event)) < 200  # type: ignore[misc]


def test_what_many_patterns_share_is_asked_once() -> None:
    shared = [{"wildcard": f"*{n}*{n}*"} for n in range(50)]
    pattern = json.dumps({"a": shared, "b": [{"anything-but": "x"}], "c": shared})
    one, many = PatternSet({"0": pattern}), PatternSet({f"{n}": pattern for n in range(100)})
    event = dict.fromkeys("abc", "49 49")
    assert len(many.matching(event)) == 100
    once = steps(lambda: one.matching(event))
    assert once > 100
    assert steps(lambda: many.matching(event)) < once + 2 * 100, "to name them, and no more"


def tangled(elements: int) -> tuple[dict[str, Any], str]:
    """An event whose dotted keys put values of one path into four arrays, and a pattern that wants them all."""
    dice = random.Random(1)
    names = [f"f{n}" for n in range(12)]
    prefixes = {"a": "b.c.d.", "a.b": "c.d.", "a.b.c": "d.", "a.b.c.d": ""}
    event = {
        key: [{prefix + name: 1 for name in names if dice.random() < 0.3} for _ in range(elements)]
        for key, prefix in prefixes.items()
    }
    return event, json.dumps({"a.b.c.d": {name: [1] for name in names}})


def test_arrays_tangled_by_dotted_keys_are_refused_in_bounded_steps() -> None:
    event, text = tangled(elements=40)
    for match in (compile_pattern(text).decide, PatternSet({"tangled": text}).decide):
        with pytest.raises(EventError, match="choices"):
            match(event)


def test_an_event_that_asks_for_too_many_tests_is_refused() -> None:
    branches = [{"a": [{"wildcard": f"*{n}*x"}]} for n in range(400)]
    text = json.dumps({"$or": branches})
    event = {"a": ["x"] * (MAX_TESTS // 400 + 1)}
    for match in (compile_pattern(text).decide, PatternSet({"greedy": text}).decide):
        with pytest.raises(EventError, match="tests"):
            match(event)


def test_tangled_arrays_are_refused_for_all_patterns_together() -> None:
    event, text = tangled(elements=8)
    assert compile_pattern(text).matches(event)
    assert PatternSet({"one": text}).matching(event) == ["one"]
    with pytest.raises(EventError, match="choices"):
        PatternSet({f"{n}": text for n in range(8)}).decide(event)


def test_keeping_elements_apart_counts_among_the_tests() -> None:
    places = [Place(0, 0, 0), Place(1, 0, 1), Place(1, 0, 1)]
    needs = [Need(frozenset([place]), None) for place in (1, 2)]
    assert first_contradiction(needs, FlatEvent({}, places, tests_left=2)) == 1
    with pytest.raises(EventError, match="tests"):
        first_contradiction(needs, FlatEvent({}, places, tests_left=1))
    tangled = [needs[0], Need(frozenset([2]), frozenset([2]))]  # what may be absent has to be tried out
    assert first_contradiction(tangled, FlatEvent({}, places, tests_left=15)) is None
    with pytest.raises(EventError, match="tests"):
        first_contradiction(tangled, FlatEvent({}, places, tests_left=14))


def test_what_is_excluded_counts_among_the_tests() -> None:
    text = json.dumps({"a": [{"anything-but": {"wildcard": [f"*{n}*x" for n in range(999)]}}]})
    with pytest.raises(EventError, match="tests"):
        compile_pattern(text).decide({"a": ["x"] * (MAX_TESTS // 999 + 1)})


HUGE = {
    "ten thousand branches": json.dumps({"$or": [{"a": [n]} for n in range(10_000)]}),
    "branches upon branches": json.dumps({f"k{n}": {"$or": [{"a": [1]}, {"b": [1]}]} for n in range(11)}),
    "depth": '{"a":' * 10_000 + "[1]" + "}" * 10_000,
    "a long text": json.dumps({"a": ["x" * 100_000]}),
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_a_huge_pattern_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(PatternError, match=r"more than|deeper|at most"):
        compile_pattern(text)


DEEP: list[Any] = [1]
for _ in range(50_000):
    DEEP = [DEEP]

DECIDED = {
    "deep objects beside": '{"a": 1, "b": ' + '{"a":' * 400 + "1" + "}" * 400 + "}",
    "a huge integer": '{"a": ' + "9" * 100_000 + "}",
    "a huge fraction": '{"a": 0.' + "3" * 100_000 + "}",
    "a huge exponent": '{"a": 1e' + "9" * 1_000 + "}",
    "a tiny exponent": '{"a": 1e-' + "9" * 1_000 + "}",
    "many keys": json.dumps({f"k{n}": n for n in range(100_000)}),
    "many dots": json.dumps({"a" + "." * 100_000: 1}),
    "a long string": json.dumps({"a": "10." * 100_000}),
    "many colons": json.dumps({"a": ":" * 100_000}),
    "odd text": '{"a": "\\ud800\\u0000"}',
}


@pytest.mark.parametrize("event", DECIDED.values(), ids=DECIDED.keys())
def test_an_odd_event_is_decided(event: str) -> None:
    text = '{"a": [1, "::1", {"cidr": "10.0.0.0/8"}, {"numeric": [">", 5]}, {"wildcard": "*q*"}]}'
    decision = compile_pattern(text).matches(event)
    assert decision is event.startswith('{"a": 1, ')
    assert PatternSet({"odd": text}).matching(event) == ["odd"] * decision


def test_depth_beyond_the_stack_is_refused() -> None:
    with pytest.raises(EventError):
        compile_pattern('{"a": [1]}').decide({"a": DEEP})
    with pytest.raises(EventError):
        PatternSet({"deep": '{"a": [1]}'}).decide('{"a": ' + "[" * 100_000)


def test_a_list_of_more_objects_than_values_are_allowed_is_refused() -> None:
    one = {"b": 1, "c": 2}
    pattern = compile_pattern('{"a": {"b": [1]}}')
    assert pattern.matches({"a": [one] * 80_000})
    with pytest.raises(EventError, match="values"):
        pattern.decide({"a": [one] * 90_000})


def test_objects_and_arrays_that_stand_in_many_places_are_counted_before_they_are_read() -> None:
    huge: Any = {f"k{n}": n for n in range(100_000)}
    for text in ('{"a": {"b": [2]}}', '{"a": [2]}', '{"a": {"b": [{"exists": false}]}}'):
        for many in ([huge] * 100_000, [list(huge)] * 100_000, [{"b": list(huge)}] * 100_000):
            assert not compile_pattern(text).matches({"a": many}) or "exists" not in text
            assert PatternSet({"one": text}).matching({"a": many}) == []
