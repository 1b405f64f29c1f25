"""Laws of the pattern language, on random patterns and events: against a naive matcher, and against hostility.

The naive matcher shares nothing with the real one: it flattens by recursion, tries every value of every field in turn,
as event-ruler is described to do, and needs no bounds, since its inputs are small.
"""

import ipaddress
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.patterns import EventError, PatternError, PatternSet, compile_pattern
from attachd.patterns.event import Wanted, flatten

QUICK = settings(max_examples=300, deadline=None, derandomize=True, database=None)

# ── the naive matcher ──────────────────────────────────────────────────────────────────────────

Where = dict[int, int]


def naive_matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    leaves: dict[str, list[tuple[Any, Where]]] = {}
    for path, value, where in naive_leaves(event, [], {}, iter(range(10_000))):
        leaves.setdefault(path, []).append((value, where))
    return any(
        naive_branch(sorted(branch.items()), leaves, {}) for branch in naive_branches(pattern, [], [{}])
    )


def naive_leaves(
    node: Any, path: list[str], where: Where, ids: Iterator[int]
) -> Iterator[tuple[str, Any, Where]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from naive_leaves(child, [*path, key], where, ids)
    elif isinstance(node, list):
        array = next(ids)
        for index, child in enumerate(node):
            inside = {**where, array: index} if isinstance(child, dict | list) else where
            yield from naive_leaves(child, path, inside, ids)
    else:
        yield ".".join(path), node, where


def naive_branches(
    node: dict[str, Any], path: list[str], branches: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    for key, value in node.items():
        if key == "$or":
            branches = [
                b for option in value for b in naive_branches(option, path, [dict(b) for b in branches])
            ]
        elif isinstance(value, dict):
            branches = naive_branches(value, [*path, key], branches)
        else:
            branches = [{**branch, ".".join([*path, key]): value} for branch in branches]
    return branches


def naive_branch(
    fields: list[tuple[str, Any]], leaves: dict[str, list[tuple[Any, Where]]], chosen: Where
) -> bool:
    if not fields:
        return True
    (path, alternatives), *rest = fields
    left = [
        (value, {**chosen, **where})
        for value, where in leaves.get(path, [])
        if all(chosen.get(array, index) == index for array, index in where.items())
    ]
    if not left and {"exists": False} in alternatives and naive_branch(rest, leaves, chosen):
        return True
    return any(
        naive_branch(rest, leaves, extended)
        for value, extended in left
        if any(naive_test(test, value) for test in alternatives)
    )


def naive_test(test: Any, value: Any) -> bool:
    if not isinstance(test, dict):
        return naive_equal(test, value)
    [(name, operand)] = test.items()
    if name == "exists":
        return bool(operand)
    if name == "anything-but":
        return not naive_excluded(operand, value)
    if name == "numeric":
        return naive_numeric(operand, value)
    return isinstance(value, str) and naive_text(name, operand, value)


def naive_equal(wanted: Any, value: Any) -> bool:
    if is_number(wanted) and is_number(value):
        return Decimal(repr(wanted)) == Decimal(repr(value))
    return type(wanted) is type(value) and bool(wanted == value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def naive_excluded(operand: Any, value: Any) -> bool:
    if isinstance(operand, dict):
        [(name, texts)] = operand.items()
        return isinstance(value, str) and any(
            naive_text(name, text, value) for text in (texts if isinstance(texts, list) else [texts])
        )
    return any(naive_equal(one, value) for one in (operand if isinstance(operand, list) else [operand]))


def naive_numeric(operand: list[Any], value: Any) -> bool:
    compare = {
        "<": lambda o: o < 0,
        "<=": lambda o: o <= 0,
        ">": lambda o: o > 0,
        ">=": lambda o: o >= 0,
        "=": lambda o: o == 0,
    }
    pairs = zip(operand[::2], operand[1::2], strict=True)
    return is_number(value) and all(
        compare[name](Decimal(repr(value)) - Decimal(repr(n))) for name, n in pairs
    )


def naive_text(name: str, operand: Any, value: str) -> bool:
    if isinstance(operand, dict):
        pieces = (value[:n] if name == "prefix" else value[len(value) - n :] for n in range(len(value) + 1))
        return any(naive_text("equals-ignore-case", operand["equals-ignore-case"], piece) for piece in pieces)
    match name:
        case "prefix":
            return operand in [value[:n] for n in range(len(value) + 1)]
        case "suffix":
            return operand in [value[n:] for n in range(len(value) + 1)]
        case "wildcard":
            return naive_wildcard(operand, value)
        case "cidr":
            return naive_cidr(operand, value)
        case _:
            return naive_caseless(operand, value)


def naive_wildcard(wildcard: str, value: str) -> bool:
    if not wildcard:
        return not value
    if wildcard[0] == "*":
        return any(naive_wildcard(wildcard[1:], value[n:]) for n in range(len(value) + 1))
    literal = wildcard[1] if wildcard[0] == "\\" else wildcard[0]
    rest = wildcard[2:] if wildcard[0] == "\\" else wildcard[1:]
    return value[:1] == literal and naive_wildcard(rest, value[1:])


def naive_caseless(text: str, value: str) -> bool:
    if not text:
        return not value
    spellings = (text[0], text[0].lower(), text[0].upper())
    return any(value.startswith(s) and naive_caseless(text[1:], value[len(s) :]) for s in spellings)


def naive_cidr(network: str, value: str) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


# ── random patterns and events, from so few words that they often meet ─────────────────────────

WORDS = st.sampled_from(["", "a", "A", "b", "ab", "ba", "aba", "ß", "ss", "SS", "é", "É", "🚀"])
NUMBERS = st.sampled_from([0, 1, 1.0, 2, -1, 0.5, 1e23, 300])
LEAVES = st.one_of(WORDS, NUMBERS, st.sampled_from([None, True, False, "10.0.0.7", "::1"]))
KEYS = st.sampled_from(["a", "b", "c", "a.b", "a-", "b.c"])
WILDCARDS = st.sampled_from(["", "*", "a*", "*a", "a*a", "*b*", r"\*", "a*b*a"])
EVENTS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_size=3,
)


def one_key(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda value: {name: value}, operand)


def one_or_many(operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return operand | st.lists(operand, min_size=1, max_size=2)


TEXT_TESTS = st.one_of(
    *(one_key(name, WORDS | one_key("equals-ignore-case", WORDS)) for name in ("prefix", "suffix")),
    one_key("equals-ignore-case", WORDS),
    one_key("wildcard", WILDCARDS),
    one_key("cidr", st.sampled_from(["10.0.0.0/24", "10.0.0.1/31", "::/64"])),
)
EXCLUSIONS = st.one_of(
    one_or_many(WORDS),
    one_or_many(NUMBERS),
    *(one_key(name, one_or_many(WORDS.filter(bool))) for name in ("prefix", "suffix", "equals-ignore-case")),
    one_key("wildcard", one_or_many(WILDCARDS)),
)
RANGES = st.sampled_from(
    [["=", 1], ["<", 1], ["<=", 1], [">", 0.5], [">=", 1], [">", 0, "<=", 1], [">=", -1, "<", 300]]
)
TESTS = st.one_of(
    LEAVES,
    TEXT_TESTS,
    one_key("numeric", RANGES),
    one_key("anything-but", EXCLUSIONS),
    one_key("exists", st.booleans()),
)


def fields(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(KEYS, inner, min_size=1, max_size=3)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    forked = st.builds(
        lambda f, options: {**f, "$or": options},
        fields(inner),
        st.lists(fields(inner), min_size=2, max_size=3),
    )
    return fields(inner) | forked


def patterns(tests: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return objects(st.recursive(st.lists(tests, min_size=1, max_size=2), fields, max_leaves=4))


@QUICK
@given(tests=st.lists(TESTS, min_size=1, max_size=3), values=st.lists(EVENTS | LEAVES, max_size=3))
def test_every_test_agrees_with_the_naive_matcher(tests: list[Any], values: list[Any]) -> None:
    pattern, event = {"a": tests}, {"a": values}
    assert compile_pattern(json.dumps(pattern)).matches(event) == naive_matches(pattern, event)


SHAPES = st.sampled_from(
    [[1], [2], [{"exists": False}], [{"exists": True}], [{"exists": False}, 1], [{"anything-but": 1}]]
)
SHAPED_LEAVES = st.sampled_from([1, 2, None])


def shaped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=4)


@settings(QUICK, max_examples=1_000)
@given(
    pattern=objects(SHAPES | fields(SHAPES | fields(SHAPES))),
    event=st.dictionaries(
        KEYS, shaped(shaped(SHAPED_LEAVES | shaped(SHAPED_LEAVES))), min_size=1, max_size=3
    ),
)
def test_array_consistency_agrees_with_the_naive_matcher(
    pattern: dict[str, Any], event: dict[str, Any]
) -> None:
    compiled = compile_pattern(json.dumps(pattern))
    expected = naive_matches(pattern, event)
    assert compiled.matches(event) == expected
    assert compiled.matches(json.dumps(event)) == expected
    assert (compiled.explain(event) is None) == expected


def records(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists of objects, most of one shape."""
    return st.lists(st.dictionaries(KEYS, inner, min_size=1, max_size=3), min_size=1, max_size=3)


RECORDS = st.dictionaries(KEYS, records(SHAPED_LEAVES | records(SHAPED_LEAVES)), min_size=1, max_size=2)


@QUICK
@given(pattern=objects(SHAPES | fields(SHAPES | fields(SHAPES))), event=RECORDS)
def test_lists_of_objects_are_kept_apart_as_the_naive_matcher_does(
    pattern: dict[str, Any], event: dict[str, Any]
) -> None:
    compiled = compile_pattern(json.dumps(pattern))
    expected = naive_matches(pattern, event)
    assert compiled.matches(event) == expected
    assert (compiled.explain(event) is None) == expected


def veiled(part: Any) -> Any:
    """The same event, its objects of a type that is read one by one."""
    if isinstance(part, dict):
        return MappingProxyType({key: veiled(value) for key, value in part.items()})
    return [veiled(value) for value in part] if isinstance(part, list) else part


def standing(event: Any, paths: list[str]) -> dict[str, list[str]]:
    """Each value with the elements around it: which one of its array, and so on outwards."""
    flat = flatten(event, Wanted.of(paths))

    def chain(place: int) -> list[int]:
        outwards: list[int] = []
        while place:
            array, around, _ = flat.places[place]
            first = next(n for n, other in enumerate(flat.places) if n and other.array == array)
            outwards.append(place - first)
            place = around
        return outwards

    return {
        path: sorted(f"{value!r} {chain(place)}" for value, place in found)
        for path, found in flat.values.items()
    }


@QUICK
@given(
    event=RECORDS | EVENTS, paths=st.lists(st.lists(KEYS, min_size=1, max_size=3).map(".".join), min_size=1)
)
def test_lists_of_objects_are_read_field_by_field_as_one_by_one(
    event: dict[str, Any], paths: list[str]
) -> None:
    assert standing(event, paths) == standing(veiled(event), paths)


@settings(QUICK, max_examples=150)
@given(written=st.lists(patterns(TESTS), max_size=8), events=st.lists(EVENTS, min_size=1, max_size=3))
def test_a_set_names_the_patterns_that_match_each_by_itself(written: list[Any], events: list[Any]) -> None:
    texts = {f"{n}": json.dumps(pattern) for n, pattern in enumerate(written)}
    together, apart = PatternSet(texts), {name: compile_pattern(text) for name, text in texts.items()}
    for event in events:
        assert together.matching(event) == [name for name, one in apart.items() if one.matches(event)]


@settings(QUICK, max_examples=150)
@given(
    written=st.lists(objects(SHAPES | fields(SHAPES)), max_size=6),
    event=st.dictionaries(KEYS, shaped(shaped(SHAPED_LEAVES)), min_size=1, max_size=3),
)
def test_a_set_keeps_array_elements_apart(written: list[Any], event: dict[str, Any]) -> None:
    together = PatternSet({f"{n}": json.dumps(pattern) for n, pattern in enumerate(written)})
    assert together.matching(event) == [
        f"{n}" for n, pattern in enumerate(written) if naive_matches(pattern, event)
    ]


@settings(QUICK, max_examples=150)
@given(tests=st.lists(TESTS, min_size=1, max_size=20), values=st.lists(LEAVES, min_size=1, max_size=4))
def test_a_set_finds_every_test_by_its_value(tests: list[Any], values: list[Any]) -> None:
    together = PatternSet({f"{n}": json.dumps({"a": [test]}) for n, test in enumerate(tests)})
    for value in values:
        expected = [f"{n}" for n, test in enumerate(tests) if naive_matches({"a": [test]}, {"a": value})]
        assert together.matching({"a": value}) == expected


@QUICK
@given(st.text())
def test_every_text_equals_itself_in_every_way(text: str) -> None:
    ways: list[Any] = [text, *({name: text} for name in ("prefix", "suffix", "equals-ignore-case"))]
    ways += [{name: {"equals-ignore-case": text}} for name in ("prefix", "suffix")]
    ways.append({"wildcard": text.replace("\\", "\\\\").replace("*", "\\*")})
    for way in ways:
        assert compile_pattern(json.dumps({"a": [way]})).matches({"a": text})
    assert not compile_pattern(json.dumps({"a": [{"anything-but": text}]})).matches({"a": text})


@QUICK
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_equals_each_of_its_spellings(value: float) -> None:
    pattern = compile_pattern(f'{{"a": [{value!r}], "b": [{{"numeric": ["=", {value!r}]}}]}}')
    plain = f"{Decimal(repr(value)):f}"
    assert pattern.matches(f'{{"a": {plain}, "b": {plain}}}')
    assert pattern.matches({"a": value, "b": value})


# ── hostility ──────────────────────────────────────────────────────────────────────────────────

SEEDS = [
    '{"a": ["x", 1, null, true, {"prefix": "a"}, {"suffix": {"equals-ignore-case": "ß"}}]}',
    '{"a": {"b.c": [{"numeric": [">", 0, "<=", 5]}, {"exists": false}], "$or": [{"x": [1e400]}, {"y": [2]}]}}',
    '{"a": [{"anything-but": {"wildcard": ["*a*", "b\\\\*"]}}, {"cidr": "10.0.0.0/24"}, "::1", "1.2.3.4"]}',
    '{"a": [{"b": [{"c": 1}, [[2]], {}]}, -0.0, 9007199254740993, "\\ud800", "🚀"], "a.b": {"c": [[], [1]]}}',
    '{"$or": [{"a": [{"anything-but": [1, 2]}]}, {"a": {"$or": [{"b": [{"wildcard": "a*"}]}, {"c": [""]}]}}]}',
]
SHARDS = [
    *'{}[]":,.*\\/-+0123456789eE \n\x00aßİ',
    *('"$or"', '"exists"', '"numeric"', '"anything-but"', "null", "NaN", "1e999", "9" * 400, "\ud800", "**"),
    *("[" * 150, '{"a":' * 150),
]
KEY_WORDS = [
    "a",
    "b",
    "a.b",
    "c",
    "$or",
    "prefix",
    "suffix",
    "equals-ignore-case",
    "wildcard",
    "numeric",
    "exists",
    "cidr",
    "anything-but",
    "exactly",
]
ATOMS = [
    None,
    True,
    False,
    0,
    -1,
    300.0,
    1e308,
    2**53 + 1,
    "",
    "a",
    "*",
    "a*\\*",
    "**",
    "10.0.0.0/24",
    "::",
    "<",
    ">=",
    "ß",
]


def mangled(dice: random.Random) -> str:
    text = dice.choice(SEEDS)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(text) + 1)
        piece = dice.choice([dice.choice(SHARDS), text[at : at + 20], dice.choice(SEEDS)[at : at + 30]])
        text = text[:at] + piece + text[at + dice.choice([0, 0, 1, 8]) :]
    return text


def misshapen(dice: random.Random, depth: int) -> Any:
    kind = dice.random()
    if depth == 0 or kind < 0.3:
        return dice.choice(ATOMS)
    if kind < 0.6:
        return [misshapen(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {dice.choice(KEY_WORDS): misshapen(dice, depth - 1) for _ in range(dice.choice([1, 1, 1, 2, 3]))}


def test_ten_thousand_hostile_patterns_and_events_are_decided_or_refused() -> None:
    dice = random.Random(20_240_901)
    readable = SEEDS[:3]
    read = decided = 0
    for _ in range(10_000):
        text, event = (
            mangled(dice)
            if dice.random() < 0.5
            else json.dumps({"a": misshapen(dice, 4), dice.choice(KEY_WORDS): [1]})
            for _ in range(2)
        )
        with suppress(PatternError):
            compile_pattern(text)
            readable[dice.randrange(3)] = text
            read += 1
        names = dict(zip("abc", readable, strict=True))
        with suppress(EventError):
            matching = PatternSet(names).decide(event)
            for name, text in names.items():
                pattern = compile_pattern(text)
                assert (pattern.explain(event) is None) == pattern.matches(event) == (name in matching)
            decided += 1
    assert read > 500, "hostile, but not so hostile that nothing gets through"
    assert decided > 2_000


@QUICK
@given(pattern=patterns(TESTS), event=EVENTS)
def test_a_cut_or_doubled_text_is_decided_or_refused(pattern: Any, event: Any) -> None:
    text = json.dumps(pattern)
    compiled = compile_pattern(text)
    for broken in (text[:-1], text * 2, text[1:]):
        with pytest.raises(PatternError):
            compile_pattern(broken)
    for broken in (json.dumps(event) * 2, json.dumps(event)[:-1]):
        with pytest.raises(EventError):
            compiled.decide(broken)
