"""What AWS answered, and what moto expects: other projects' data, read where it lies beside the repository."""

import json
from pathlib import Path
from typing import Any

import pytest

from attachd.patterns import PatternError, compile_pattern

DATA = Path(__file__).parents[3] / "shared" / "patterns"
REASON = "Event pattern is not valid. Reason: "

# The one known difference: the service limits how much its automaton may grow for a wildcard; ours does not grow.
UNLIMITED_HERE = {"content_wildcard_complex_EXC"}


def cases(name: str) -> list[Any]:
    file = DATA / name
    if not file.exists():
        missing = pytest.mark.skip(
            reason=f"no recorded cases: ../shared/patterns/{name} is not beside this repository"
        )
        return [pytest.param({}, marks=missing, id=f"{name}-absent")]
    return [pytest.param(case, id=case["id"]) for case in json.loads(file.read_text("utf-8"))["cases"]]


def decide(case: dict[str, Any]) -> tuple[str, str]:
    try:
        pattern = compile_pattern(case["pattern_text"])
    except PatternError as error:
        return "error", str(error)
    matches = pattern.matches(case["event_text"])
    assert (pattern.explain(case["event_text"]) is None) == matches
    assert pattern.matches(json.loads(case["event_text"])) == matches
    assert pattern.matches(case["event_text"].encode()) == matches
    return ("match" if matches else "no_match"), ""


@pytest.mark.parametrize("case", cases("aws-recorded.json"))
def test_decides_as_aws_did_and_refuses_in_its_words(case: dict[str, Any]) -> None:
    decision, message = decide(case)
    if case["id"] in UNLIMITED_HERE:
        assert decision != "error"
        return
    assert decision == case["expect"]
    if case.get("aws_error"):
        assert REASON + message == case["aws_error"]


@pytest.mark.parametrize("case", cases("moto.json"))
def test_decides_as_moto_expects(case: dict[str, Any]) -> None:
    assert decide(case)[0] == case["expect"]
