"""Chance that stays: shares and splits are as large as they say, sticky, monotone, and know nothing of each other."""

import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.splits import draw, winner, within

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
KEYS = [f"contact-{n}" for n in range(20_000)]

names = st.text(max_size=8)
weights = st.dictionaries(names, st.integers(0, 1_000_000), min_size=1, max_size=6).filter(
    lambda given: any(given.values())
)


def test_the_draws_published_in_the_docs_are_those_made() -> None:
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| `(0\.\d+)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 4
    for salt, what, key, number in rows:
        assert f"{draw(salt, what, key):.12f}" == number, (salt, what, key)


def test_the_winners_published_in_the_docs_are_those_that_win() -> None:
    rows = re.findall(r"^\| `(\S+?)` \| (\w) \| (\w) \| (\w) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 4
    for key, *won in rows:
        splits = ({"a": 90, "b": 10}, {"a": 50, "b": 50}, {"a": 50, "b": 40, "c": 10})
        assert [winner(split, "next Ava", key) for split in splits] == won, key


@given(names, names, names)
def test_a_draw_is_above_0_below_1_and_the_first_52_bits_of_a_hash(salt: str, what: str, key: str) -> None:
    text = f"{salt}\n{what}\n{key}".encode("utf-8", "surrogatepass")
    bits = int(sha256(text).hexdigest()[:13], 16)
    assert 0 < draw(salt, what, key) == (bits + 0.5) / 2**52 < 1


@given(st.floats(0, 100), st.floats(0, 100), names, names)
def test_who_is_in_stays_when_a_share_is_widened(one: float, other: float, salt: str, key: str) -> None:
    narrow, wide = sorted((one, other))
    assert within(wide, salt, key) or not within(narrow, salt, key)
    assert within(100, salt, key)
    assert not within(0, salt, key)


@given(weights, st.data(), names, names)
def test_a_name_whose_weight_grows_wins_keys_and_loses_none_and_the_others_exchange_none(
    given_weights: dict[str, int], data: st.DataObject, salt: str, key: str
) -> None:
    grown = data.draw(st.sampled_from(sorted(given_weights)) | names)
    more = data.draw(st.integers(given_weights.get(grown, 0), 2_000_000))
    before, after = (winner(w, salt, key) for w in (given_weights, {**given_weights, grown: more}))
    assert after in {before, grown}


@given(weights, names, names)
def test_the_order_of_the_names_does_not_matter_and_no_weight_never_wins(
    given_weights: dict[str, int], salt: str, key: str
) -> None:
    won = winner(given_weights, salt, key)
    assert given_weights[won] > 0
    assert winner(dict(reversed(given_weights.items())), salt, key) == won


@pytest.mark.parametrize("split", [{"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 2}, {"a": 999, "b": 1}])
def test_each_wins_as_often_as_its_weight_says(split: dict[str, int]) -> None:
    won = Counter(winner(split, "salt", key) for key in KEYS)
    for name, weight in split.items():
        expected = weight / sum(split.values())
        sigma = (expected * (1 - expected) / len(KEYS)) ** 0.5
        assert abs(won[name] / len(KEYS) - expected) < 4 * sigma


def test_who_is_in_says_nothing_about_who_wins_nor_one_rule_about_another() -> None:
    """Were share and split of one draw, the first tenth would all fall to one name."""
    split = {"a": 50, "b": 50}
    share = [key for key in KEYS if within(10, "salt", key)]
    assert abs(len(share) / len(KEYS) - 0.1) < 0.01
    assert abs(Counter(winner(split, "salt", key) for key in share)["a"] / len(share) - 0.5) < 0.05
    both = sum(winner(split, "salt", key) == winner(split, "pepper", key) for key in KEYS)
    assert abs(both / len(KEYS) - 0.5) < 0.02
