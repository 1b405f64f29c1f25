"""A spell of failures is told once a minute, and once when it is over."""

from attachd.spells import Over, Spell


def test_a_spell_is_told_when_it_begins_and_once_a_minute_while_it_lasts() -> None:
    spell = Spell()
    assert [now for now in range(0, 130, 10) if spell.failed("no route", now)] == [0, 60, 120]
    assert spell.why(121.0) == "no route"
    assert spell.succeeded(125.0) == Over(failures=13, seconds=125.0)
    assert (spell.succeeded(126.0), spell.why(126.0)) == (None, None)
    assert spell.failed("no route", 127.0), "another spell"


def test_fewer_failures_than_make_a_spell_are_told_to_nobody() -> None:
    spell = Spell(least=3)
    for now in (0.0, 1.0):
        assert not spell.failed("throttled", now)
    assert (spell.why(1.0), spell.succeeded(2.0)) == (None, None)
    assert [spell.failed("throttled", now) for now in (3.0, 4.0, 5.0)] == [False, False, True]
    assert spell.why(5.0) == "throttled"


def test_what_failed_when_anybody_last_tried_a_minute_ago_says_nothing_of_now() -> None:
    spell = Spell(least=2)
    spell.failed("down", 0.0)
    assert spell.failed("down", 1.0)
    assert (spell.why(60.9), spell.why(61.0)) == ("down", None)
    assert not spell.failed("down", 61.0), "the first of another spell"
