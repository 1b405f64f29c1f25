"""The pattern language, corner by corner. A case is (alternatives of field ``a``, the event's ``a``, the decision)."""

import json
from enum import StrEnum
from typing import Any

import pytest

from attachd.patterns import EventError, Mismatch, PatternError, compile_pattern


def accepts(alternatives: str, value: str) -> bool:
    return compile_pattern(f'{{"a": {alternatives}}}').matches(f'{{"a": {value}}}')


def matches(pattern: Any, event: Any) -> bool:
    return compile_pattern(json.dumps(pattern)).matches(event)


def refusal(pattern: str) -> PatternError:
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    return caught.value


@pytest.mark.parametrize(
    ("alternatives", "value", "expected"),
    [
        ('["x"]', '"x"', True),
        ('["x"]', '"X"', False),
        ('["true"]', "true", False),
        ("[true]", "true", True),
        ("[true]", "1", False),
        ("[1]", "true", False),
        ("[0]", "false", False),
        ('[1, {"prefix": "x"}]', "true", False),
        ('[0, {"prefix": "x"}, {"suffix": "x"}]', "false", False),
        ('[""]', "null", False),
        ("[null]", "null", True),
        ("[null]", "[]", False),
        ('["300"]', "300", False),
        ("[300]", "300.0", True),
        ("[300]", "3e2", True),
        ("[3.0e2]", "300", True),
        ("[0]", "-0.0", True),
        ("[9007199254740993]", "9007199254740993", True),
        ("[9007199254740993]", "9007199254740992", False),
        ("[9007199254740992]", "9007199254740993", False),
        ("[9007199254740993]", "9007199254740993.0", False),
        ("[1e400]", "1e400", True),
        ("[1e400]", "1E400", False),
        ("[0.1]", "0.10", True),
        ("[0.1]", "0.1000000000000000055511151231257827", False),
        ('["x", 5, null]', "5", True),
        ('[{"exactly": "10.0.0.1"}]', '"010.0.0.1"', False),
        ('["10.0.0.1"]', '"000000010.0.0.1"', True),
        ('["10.0.0.1"]', '"0000000010.0.0.1"', False),  # Java takes what is so long for a name
    ],
)
def test_equality_is_by_type_and_numbers_are_equal_by_value(
    alternatives: str, value: str, *, expected: bool
) -> None:
    assert accepts(alternatives, value) is expected


@pytest.mark.parametrize(
    ("alternatives", "value", "expected"),
    [
        ('[{"prefix": "a"}]', '"ab"', True),
        ('[{"prefix": "a"}]', '"ba"', False),
        ('[{"prefix": ""}]', '""', True),
        ('[{"prefix": ""}]', "5", False),
        ('[{"suffix": "b"}]', '"ab"', True),
        ('[{"suffix": ""}]', "null", False),
        ('[{"prefix": {"equals-ignore-case": "eVeNt"}}]', '"EVENTbridge"', True),
        ('[{"suffix": {"equals-ignore-case": ".PNG"}}]', '"a.png"', True),
        ('[{"suffix": {"equals-ignore-case": "aß"}}]', '"xASS"', True),
        ('[{"equals-ignore-case": "Straße"}]', '"STRASSE"', True),
        ('[{"equals-ignore-case": "STRASSE"}]', '"straße"', False),
        ('[{"equals-ignore-case": "é"}]', '"É"', True),
        ('[{"equals-ignore-case": "k"}]', '"\\u212a"', False),
        ('[{"equals-ignore-case": "ok 🚀 𐐨"}]', '"OK 🚀 𐐀"', True),
        ('[{"equals-ignore-case": "ǅ"}]', '"ǅ"', True),
        ('[{"equals-ignore-case": "a"}]', '"ab"', False),
        ('[{"equals-ignore-case": ""}]', '""', True),
        ('[{"equals-ignore-case": "5"}]', "5", False),
    ],
)
def test_prefix_suffix_and_ignoring_case(alternatives: str, value: str, *, expected: bool) -> None:
    assert accepts(alternatives, value) is expected


@pytest.mark.parametrize(
    ("wildcard", "value", "expected"),
    [
        ("a*b", "ab", True),
        ("a*b", "a\n*é b", True),
        ("a*b", "abc", False),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("*a*", "bab", True),
        ("aba*aba", "aba", False),
        ("ab*ba", "aba", False),
        ("*ab*ab", "xabab", True),
        ("*ab*ab", "xab", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        (r"a\\*", "a\\x", True),
        (r"\**", "*x", True),
    ],
)
def test_a_wildcard_is_any_run_of_characters_even_none(wildcard: str, value: str, *, expected: bool) -> None:
    assert matches({"a": [{"wildcard": wildcard}]}, {"a": value}) is expected
    assert matches({"a": [{"anything-but": {"wildcard": wildcard}}]}, {"a": value}) is not expected


@pytest.mark.parametrize(
    ("alternatives", "value", "expected"),
    [
        ('["=", 5]', "5.0", True),
        ('["=", 5]', '"5"', False),
        ('[">", 0, "<=", 5]', "5", True),
        ('[">", 0, "<=", 5]', "0", False),
        ('[">=", 0, "<", 5]', "0", True),
        ('[">=", 0, "<", 5]', "5", False),
        ('["<", 0]', "-1e308", True),
        ('[">", 0]', "null", False),
        ('[">", 0]', "true", False),
        ('[">", 0]', "9007199254740993", False),
    ],
)
def test_numeric_takes_only_numbers_it_can_compare(alternatives: str, value: str, *, expected: bool) -> None:
    assert accepts(f'[{{"numeric": {alternatives}}}]', value) is expected


@pytest.mark.parametrize(
    ("alternative", "value", "expected"),
    [
        ('{"cidr": "10.0.0.77/24"}', "10.0.0.255", True),
        ('{"cidr": "10.0.0.0/24"}', "10.0.1.0", False),
        ('{"cidr": "10.0.0.0/24"}', "10.0.0", False),
        ('{"cidr": "10.0.0.0/24"}', "10.0.0.256", False),
        ('{"cidr": "2001:db8::/64"}', "2001:DB8:0:0:1::", True),
        ('{"cidr": "2001:db8::/64"}', "2001:db8:0:1::", False),
        ('{"cidr": "0.0.0.0/0"}', "::1", False),
        ('{"cidr": "::/0"}', "10.0.0.1", False),
        ('{"cidr": "::ffff:a00:0/24"}', "10.0.0.9", True),
        ('"::1"', "0:0:0:0:0:0:0:1", True),
        ('"::1"', "::2", False),
        ('"10.0.0.1"', "010.0.0.1", True),
        ('"10.0.0.1"', "::ffff:a00:1", True),
        ('"999.0.0.1"', "999.0.0.1", True),
        ('{"anything-but": "10.0.0.1"}', "010.0.0.1", True),
    ],
)
def test_addresses_are_compared_as_addresses_within_their_family(
    alternative: str, value: str, *, expected: bool
) -> None:
    assert accepts(f"[{alternative}]", json.dumps(value)) is expected


@pytest.mark.parametrize(
    ("excluded", "value", "expected"),
    [
        ('"a"', '"a"', False),
        ('"a"', "5", True),
        ('"a"', "null", True),
        ('"a"', '["a", "b"]', True),
        ('"a"', '["a"]', False),
        ('"a"', "[]", False),
        ('"a"', "{}", False),
        ("5", "5.0", False),
        ("[5, 6]", '"5"', True),
        ("[5, 6]", "9007199254740993", True),
        ('{"prefix": ["a", "b"]}', '"bc"', False),
        ('{"prefix": "a"}', "true", True),
        ('{"suffix": "a"}', '"ba"', False),
        ('{"equals-ignore-case": ["A", "b"]}', '"B"', False),
        ('{"wildcard": ["a*", "*b"]}', '"xb"', False),
        ('{"wildcard": ""}', '"x"', True),
    ],
)
def test_anything_but_needs_a_value_and_takes_every_other_type(
    excluded: str, value: str, *, expected: bool
) -> None:
    assert accepts(f'[{{"anything-but": {excluded}}}]', value) is expected


def test_anything_but_does_not_match_a_missing_field() -> None:
    assert not matches({"a": [{"anything-but": "x"}]}, {})


@pytest.mark.parametrize(
    ("value", "exists"),
    [
        ("null", True),
        ('""', True),
        ("[null]", True),
        ("[[0]]", True),
        ("[]", False),
        ("{}", False),
        ('{"b": 1}', False),
    ],
)
def test_only_leaves_exist(value: str, *, exists: bool) -> None:
    assert accepts('[{"exists": true}]', value) is exists
    assert accepts('[{"exists": false}]', value) is not exists


def test_exists_false_may_stand_beside_values() -> None:
    pattern = {"a": [{"exists": False}, "x"]}
    assert [matches(pattern, event) for event in ({}, {"a": "x"}, {"a": "y"})] == [True, True, False]


def test_dotted_keys_and_nested_objects_are_one_path() -> None:
    for pattern in ({"a.b": [1]}, {"a": {"b": [1]}}):
        assert matches(pattern, {"a.b": 1})
        assert matches(pattern, {"a": {"b": 1}})
        assert not matches(pattern, {"a": {"b": {"b": 1}}})


def test_the_last_of_two_equal_keys_counts() -> None:
    pattern = compile_pattern('{"a": [1], "b": {"c": [1]}, "a": [2], "b": {"d": [1]}}')
    assert pattern.matches('{"a": 2, "b": {"c": 1, "d": 1}}')
    assert not pattern.matches('{"a": 1, "b": {"c": 1, "d": 1}}')
    assert not pattern.matches('{"a": 2, "b": {"d": 1}}'), "a repeated object merges"
    assert accepts("[2]", '1, "a": 2')
    assert not accepts("[1]", '1, "a": 2'), "also in an event"


def test_or_forks_at_any_depth_and_inside_itself() -> None:
    pattern = {"s": [1], "d": {"$or": [{"x": [1]}, {"y": {"$or": [{"z": [2]}, {"w": [3]}]}}]}}
    assert matches(pattern, {"s": 1, "d": {"x": 1}})
    assert matches(pattern, {"s": 1, "d": {"y": {"w": 3}}})
    assert not matches(pattern, {"s": 1, "d": {"y": {"w": 2}}})
    assert not matches(pattern, {"s": 2, "d": {"x": 1}})


def test_two_ors_of_one_object_both_hold() -> None:
    pattern = compile_pattern('{"$or": [{"a": [1]}, {"b": [1]}], "$or": [{"c": [1]}, {"d": [1]}]}')
    assert pattern.matches('{"a": 1, "d": 1}')
    assert not pattern.matches('{"a": 1, "b": 1}')


def test_an_or_branch_replaces_the_condition_around_it_as_the_service_has_it() -> None:
    assert matches({"a": [1], "$or": [{"a": [2]}, {"b": [1]}]}, {"a": 2})
    assert not matches({"$or": [{"a": [2]}, {"b": [1]}], "a": [1]}, {"a": 2})


TEAMS = {"team": [{"name": "a", "role": "x"}, {"name": "b", "role": "y"}]}


def test_two_fields_are_not_satisfied_from_different_elements() -> None:
    assert matches({"team": {"name": ["a"], "role": ["x"]}}, TEAMS)
    assert not matches({"team": {"name": ["a"], "role": ["y"]}}, TEAMS)
    assert matches({"team": {"name": ["a", "b"], "role": ["y"]}}, TEAMS)


def test_plain_values_of_one_array_are_free_of_each_other_and_nested_arrays_are_crushed() -> None:
    assert matches({"a": [3], "b": {"c": [1]}}, {"a": [[1, [2]], [[3]]], "b": [{"c": 1}]})


def test_a_value_and_values_below_the_same_key_come_from_one_element() -> None:
    pattern = {"a": ["x"], "a.b": [1]}
    assert matches(pattern, {"a": ["x", {"b": 1}]})
    assert matches(pattern, {"a": [["x", {"b": 1}]]})
    assert not matches(pattern, {"a": [["x"], {"b": 1}]})


def test_elements_of_inner_arrays_belong_to_their_outer_element() -> None:
    event = {"o": [{"k": 1, "i": [{"v": 1}, {"v": 2}]}, {"k": 2, "i": [{"v": 3, "w": 4}]}]}
    assert matches({"o": {"k": [1], "i": {"v": [2]}}}, event)
    assert not matches({"o": {"k": [1], "i": {"v": [3]}}}, event)
    assert matches({"o": {"i": {"v": [3], "w": [4]}, "k": [2]}}, event)


def test_absence_is_judged_against_the_element_that_earlier_fields_chose() -> None:
    event = {"o": [{"b": 1}, {"b": 2, "c": 1, "a": 1}]}
    assert matches({"o": {"b": [1], "c": [{"exists": False}]}}, event)
    assert not matches({"o": {"b": [2], "c": [{"exists": False}]}}, event)
    assert not matches({"o": {"b": [1], "a": [{"exists": False}]}}, event), (
        "a comes before b, when all is open"
    )


def test_fields_not_named_are_ignored_whatever_they_hold() -> None:
    assert matches({"a": [1]}, {"a": 1, "b": object(), "c": float("nan")})


def test_an_event_may_be_text_bytes_or_what_text_parses_to() -> None:
    class Kind(StrEnum):
        CHAT = "CHAT"

    pattern = compile_pattern(b'\xef\xbb\xbf{"a": ["CHAT"], "b": [2]}')
    for event in (
        '{"a": "CHAT", "b": 2}',
        b'{"a": "CHAT", "b": 2e0}',
        {"a": (Kind.CHAT,), "b": 2},
        {"a": ["CHAT"], "b": 2.0},
    ):
        assert pattern.matches(event)


@pytest.mark.parametrize(
    ("pattern", "message", "path"),
    [
        ("[1]", "Filter is not an object", ""),
        ("{}", "Empty objects are not allowed", ""),
        ('{"d": {"e": {}}}', "Empty objects are not allowed", "d.e"),
        ('{"d": {"e": 4}}', '"e" must be an object or an array', "d.e"),
        ('{"a": [[1]]}', "Match value must be String, number, true, false, or null", "a"),
        ('{"a": [{}]}', "Match expression name not found", "a"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression", "a"),
        ('{"a": [{"prefix": {}}]}', "Prefix expression name not found", "a"),
        ('{"a": [{"suffix": {"wildcard": "x"}}]}', "Unsupported suffix pattern: wildcard", "a"),
        ('{"a": [{"exists": 1}]}', "exists match pattern must be either true or false.", "a"),
        ('{"a": [{"exactly": 1}]}', "exact match pattern must be a string", "a"),
        ('{"a": [{"cidr": "10.0.0.0/32"}]}', "IPv4 mask bits must be < 32", "a"),
        ('{"a": [{"cidr": "::/128"}]}', "IPv6 mask bits must be < 128", "a"),
        ('{"a": [{"cidr": "10.0.0.0/-1"}]}', "Malformed CIDR, mask bits must not be negative", "a"),
        ('{"a": [{"cidr": "300.0.0.0/8"}]}', "Invalid IP address: 300.0.0.0", "a"),
        ('{"a": [{"numeric": []}]}', "Invalid member in numeric match: ]", "a"),
        ('{"a": [{"numeric": ["~", 1]}]}', "Unrecognized numeric range operator: ~", "a"),
        ('{"a": [{"numeric": ["=", "1"]}]}', "Value of equals must be numeric", "a"),
        ('{"a": [{"numeric": ["=", 1, 2]}]}', "Too many elements in numeric expression", "a"),
        ('{"a": [{"numeric": [">", 1, 2]}]}', "Bad value in numeric range: 2", "a"),
        ('{"a": [{"numeric": ["<", 5, ">", 1]}]}', "Too many elements in numeric expression", "a"),
        ('{"a": [{"numeric": [">", 1, "<", 5, 6]}]}', "Too many terms in numeric range expression", "a"),
        ('{"a": [{"numeric": [">=", 5, "<=", 5]}]}', "Bottom must be less than top", "a"),
        ('{"a": [{"numeric": ["=", 9007199254740993]}]}', "Cannot compare number : 9007199254740993", "a"),
        ('{"a": [{"anything-but": {"cidr": "10.0.0.0/8"}}]}', "Unsupported anything-but pattern: cidr", "a"),
        ('{"a": [{"anything-but": {"prefix": []}}]}', "Empty arrays are not allowed", "a"),
        (r'{"a": [{"wildcard": "é\\x"}]}', "Invalid escape character at pos 3", "a"),
        ('{"$or": {"a": [1]}}', "It must be an Array followed with $or.", "$or"),
        ('{"d": {"$or": [{"a": [1]}]}}', "There must have at least 2 Objects in $or relationship.", "d.$or"),
        ('{"$or": [{"a": [1]}, 2]}', "Only JSON object is allowed in array of $or relationship.", "$or"),
        (
            '{"$or": [{"a": [1]}, {"regex": ["x"]}]}',
            "regex is Ruler reserved fieldName which cannot be used inside $or.",
            "regex",
        ),
    ],
)
def test_a_refusal_speaks_as_event_ruler_does_and_names_the_field(
    pattern: str, message: str, path: str
) -> None:
    error = refusal(pattern)
    assert (str(error), error.path) == (message, path)


def test_a_list_of_excluded_values_is_of_one_kind() -> None:
    expected = "Inside anything but list, either all values are number or string, mixed type is not supported"
    for values in ('["a", 1]', "[]"):
        assert str(refusal(f'{{"a": [{{"anything-but": {values}}}]}}')) == expected


def test_a_refusal_points_at_the_place() -> None:
    error = refusal('{\n  "detail": {\n    "state": [{"prefix": 123}]\n  }\n}')
    assert (error.path, error.line, error.column) == ("detail.state", 3, 26)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a"}',
        '{"a": [1,]}',
        '{"a": [1]} x',
        '{"a": [NaN]}',
        '{"a": [01]}',
        "{'a': [1]}",
        b"\xff",
        '{"a": ["\n"]}',
    ],
)
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    assert (
        "Not valid JSON" in str(refusal(text if isinstance(text, str) else "{")) if text != b"\xff" else True
    )
    with pytest.raises(PatternError, match="Not valid JSON"):
        compile_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ('{"a":' * 3_000, "nested deeper"),
        ("[" * 5_000, "nested deeper"),
        ('{"a": ["' + "x" * 20_000 + '"]}', "characters"),
        ('{"' + "a." * 101 + '": [1]}', "more than 100 steps"),
        ("{" + ",".join(['"$or": [{"a": [1]}, {"b": [1]}]'] * 60) + "}", "more than 1000 combinations"),
        (
            "{"
            + ",".join(f'"$or": [{{"a{n}": [1]}}, {{"b{n}": [1]}}]' for n in range(9))
            + "".join(f',"k{n}": [1]' for n in range(100))
            + "}",
            "more than 50000 conditions",
        ),
    ],
)
def test_an_outsized_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        compile_pattern(pattern)


def test_explains_the_first_field_that_fails_in_the_order_written() -> None:
    pattern = compile_pattern(
        '{"source": ["aws.connect"], "detail": {"channel": ["CHAT", {"prefix": "V"}], "x": [1]}}'
    )
    event = {"source": "aws.connect", "detail": {"channel": "TASK"}}
    found = pattern.explain(event)
    assert found == Mismatch("detail.channel", ('"TASK"',), '["CHAT", {"prefix": "V"}]', "different")
    assert (
        str(found)
        == 'detail.channel: the event has "TASK"; the pattern wants ["CHAT", {"prefix": "V"}] (different)'
    )
    assert pattern.explain({"source": "aws.connect", "detail": {"channel": "CHAT", "x": 1}}) is None


@pytest.mark.parametrize(
    ("pattern", "event", "path", "has", "reason"),
    [
        ({"a": [1]}, {}, "a", (), "missing"),
        ({"a": [{"exists": False}]}, {"a": [None, 300.0, 0.5]}, "a", ("null", "300", "0.5"), "present"),
        ({"a": ["x"]}, '{"a": 9007199254740993}', "a", ("9007199254740993",), "different"),
        ({"team": {"role": ["y"], "name": ["a"]}}, TEAMS, "team.role", ('"x"', '"y"'), "other element"),
        ({"$or": [{"a": [1]}, {"b": [1], "c": [1]}]}, {"b": 1}, "c", (), "missing"),
    ],
)
def test_explains_every_way_to_fail(
    pattern: Any, event: Any, path: str, has: tuple[str, ...], reason: str
) -> None:
    found = compile_pattern(json.dumps(pattern)).explain(event)
    assert found is not None
    assert (found.path, found.has, found.reason) == (path, has, reason)


def test_an_explanation_stays_short() -> None:
    found = compile_pattern(json.dumps({"a": ["y" * 500]})).explain({"a": ["x" * 500] * 500})
    assert found is not None
    assert len(str(found)) < 1_000


NOT_EVENTS = {
    "an array": "[1]",
    "a string": '"a"',
    "nothing": "",
    "half an object": "{",
    "more than an object": '{"a": 1} x',
    "NaN": '{"a": NaN}',
    "not UTF-8": b"\xff",
    "objects without end": '{"a":' * 100_000,
    "arrays without end": "[" * 100_000,
    "arrays too deep": '{"a": ' + "[" * 100 + "1" + "]" * 100 + "}",
    "too long": '{"a": "' + "x" * 11_000_000 + '"}',
    "too many values": {"a": [1] * 300_000},
    "a foreign value": {"a": object()},
    "an infinity": {"a": float("inf")},
    "a foreign key": {1: 2},
    "too many digits": {"a": 10**5_000},
}


@pytest.mark.parametrize("event", NOT_EVENTS.values(), ids=NOT_EVENTS.keys())
def test_what_is_no_event_is_refused(event: Any) -> None:
    pattern = compile_pattern('{"a": [1]}')
    assert not pattern.matches(event)
    assert str(pattern.explain(event)).startswith("refused: ")
    with pytest.raises(EventError):
        pattern.decide(event)


def test_an_event_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    with pytest.raises(EventError):
        compile_pattern('{"a": [1]}').decide({"a": loop})
