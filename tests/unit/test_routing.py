"""What a rule asks beside its pattern, and what it gives: chance, times, attributes, looks, and what it includes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.errors import Permanent
from attachd.model import Bot, Choice, Contact, ContactEvent, Outcome
from attachd.patterns import compile_pattern
from attachd.rule import Chance, Looks, Rule
from attachd.rules import Rules, Undecided
from attachd.safety import INCLUDABLE
from attachd.schedules import Hours, Window
from attachd.splits import winner, within

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/i"
BOTS = {name: Bot(name, name.capitalize(), "ava") for name in ("a", "b", "c")}


def event(
    detail: Mapping[str, Any] | None = None,
    *,
    of: str = "c-1",
    kind: str = "INITIATED",
    at: float = 0.0,
    **contact: Any,
) -> ContactEvent:
    fields: dict[str, Any] = {"channel": "CHAT", "initiation_method": "API", "initial_id": of} | contact
    document = {"detail": {"channel": "CHAT"} | dict(detail or {})}
    return ContactEvent("e", kind, at, Contact(of, INSTANCE, **fields), document)


def rule(name: str = "rule", when: object = None, *, bots: str = "a", **changes: Any) -> Rule:
    pattern = json.dumps({"detail": {"channel": ["CHAT"]}} if when is None else when)
    return Rule(name, compile_pattern(pattern), tuple(BOTS[bot] for bot in bots), **changes)


def chosen(rules: Rules, seen: ContactEvent, attributes: Mapping[str, str] | None = None) -> Choice:
    choice = rules.choose(seen) if attributes is None else rules.choose(seen, attributes)
    assert isinstance(choice, Choice)
    return choice


def bots(rules: Rules, seen: ContactEvent, attributes: Mapping[str, str] | None = None) -> str:
    return "".join(bot.name for bot in chosen(rules, seen, attributes).bots)


def split(
    sticky: str = "detail.initialContactId", percent: float = 100, salt: str | None = None, **weights: int
) -> Chance:
    return Chance(tuple((BOTS[name], weight) for name, weight in weights.items()), percent, sticky, salt)


# ── no bot ─────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_without_bots_ends_the_search_and_is_named() -> None:
    rules = Rules([rule("people only", bots=""), rule("chat")])
    with pytest.raises(Permanent, match="rule 'people only' says no bot") as none:
        rules.choose(event())
    assert none.value.outcome is Outcome.NO_BOT


# ── chance ─────────────────────────────────────────────────────────────────────────────────────


@given(st.text(min_size=1), st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_a_split_puts_one_bot_before_the_rules_others(key: str, a: int, b: int, c: int) -> None:
    rules = Rules([rule("r", bots="cb", chance=split(a=a, b=b, c=c))])
    won = winner({"a": a, "b": b, "c": c}, "r", key)
    assert bots(rules, event(of=key)) == won + "cb".replace(won, "")


def test_a_split_without_other_bots_leaves_the_chat_to_the_one_drawn() -> None:
    rules = Rules([rule(bots="", chance=split(a=1, b=1))])
    assert {bots(rules, event(of=f"c-{n}")) for n in range(50)} == {"a", "b"}


def test_a_transferred_chat_keeps_its_bot() -> None:
    rules = Rules([rule(bots="", chance=split(a=1, b=1), include=frozenset({"transfers"}))])
    for n in range(50):
        first = event({"contactId": f"c-{n}"}, of=f"c-{n}")
        later = event(
            {"initialContactId": f"c-{n}"}, of=f"later-{n}", initial_id=f"c-{n}", initiation_method="TRANSFER"
        )
        assert bots(rules, first) == bots(rules, later)


@pytest.mark.parametrize(
    ("customer", "key"),
    [("Cleo", "Cleo"), (7, "7"), (7.5, "7.5"), (True, "true"), (["x", "y"], "x"), ([None, "y"], "y")],
)
def test_a_draw_sticks_to_the_value_at_its_path_whatever_its_type(customer: object, key: str) -> None:
    rules = Rules([rule("r", bots="", chance=split("detail.customerId", a=1, b=1))])
    for n in range(20):
        assert bots(rules, event({"customerId": customer}, of=f"c-{n}")) == winner({"a": 1, "b": 1}, "r", key)


@pytest.mark.parametrize("customer", [None, "", [], {}, {"id": "x"}])
def test_where_there_is_no_such_value_the_first_contact_counts(customer: object) -> None:
    rules = Rules([rule("r", bots="", chance=split("detail.customerId", a=1, b=1))])
    for n in range(20):
        assert bots(rules, event({"customerId": customer}, of=f"c-{n}")) == winner(
            {"a": 1, "b": 1}, "r", f"c-{n}"
        )


@given(st.text(min_size=1), st.floats(0, 100))
def test_chats_beyond_a_rules_share_go_on_to_the_next_rule(key: str, percent: float) -> None:
    rules = Rules([rule("share", bots="a", chance=Chance(percent=percent)), rule("rest", bots="b")])
    assert chosen(rules, event(of=key)).rule == ("share" if within(percent, "share", key) else "rest")


def test_why_a_chat_is_beyond_a_share_does_not_tell_whose_it_is() -> None:
    rules = Rules([rule(chance=Chance(percent=0, sticky="detail.customerId"))])
    with pytest.raises(Permanent, match=r"it is for 0 of 100 by detail\.customerId") as none:
        rules.choose(event({"customerId": "Cleo"}))
    assert "Cleo" not in str(none.value)


def test_rules_with_one_salt_draw_alike() -> None:
    one, other = (Rules([rule(name, bots="", chance=split(a=1, b=1, salt="s"))]) for name in ("x", "y"))
    assert all(bots(one, event(of=f"c-{n}")) == bots(other, event(of=f"c-{n}")) for n in range(50))


# ── times ──────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_holds_at_its_times_by_the_events_clock_and_not_by_ours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    office = (Window(berlin, frozenset(range(5)), (Hours.of("09:00-17:00"),)),)
    rules = Rules([rule("office", active=office), rule("else", bots="b")])
    for moment, name in (
        ("2026-07-03T09:00", "office"),
        ("2026-07-03T17:00", "else"),
        ("2026-07-04T12:00", "else"),
    ):
        at = datetime.fromisoformat(moment).replace(tzinfo=berlin).timestamp()
        assert chosen(rules, event(at=at)).rule == name
        stopped = next(iter(rules.explain(event(at=at))))
        assert stopped.stopped == ("" if name == "office" else "active")
        assert name == "office" or f"{moment.replace('T', ' ')} in Europe/Berlin" in stopped.why


def test_of_several_windows_any_will_do() -> None:
    utc = ZoneInfo("UTC")
    two = (Window(utc, begins=0.0, ends=10.0), Window(utc, begins=20.0, ends=30.0))
    rules = Rules([rule("then", active=two), rule("else", bots="b")])
    assert [chosen(rules, event(at=at)).rule for at in (5, 15, 25, 30)] == ["then", "else", "then", "else"]


# ── attributes ─────────────────────────────────────────────────────────────────────────────────

VIP = {"attributes": {"vip": ["yes"]}}
OR = {"$or": [{"detail": {"tags": {"vip": ["yes"]}}}, VIP]}


@pytest.mark.parametrize(
    ("when", "detail", "told"),
    [
        (VIP, {}, "undecided"),
        ({"detail": {"tags": {"language": ["de"]}}, **VIP}, {"tags": {"language": "de"}}, "undecided"),
        ({"detail": {"tags": {"language": ["de"]}}, **VIP}, {"tags": {"language": "fr"}}, "rest"),
        (OR, {"tags": {"vip": "yes"}}, "first"),
        (OR, {}, "undecided"),
        ({"attributes": {"vip": [{"exists": False}]}}, {}, "undecided"),
        ({"attributes": [{"exists": False}]}, {}, "undecided"),
        ({"detail": {"attributes": ["x"]}}, {"attributes": "x"}, "first"),
        ({"attributesOfMine": ["x"]}, {}, "rest"),
    ],
)
def test_attributes_are_asked_for_only_if_the_event_leaves_it_to_them(
    when: object, detail: dict[str, Any], told: str
) -> None:
    choice = Rules([rule("first", when, priority=3, patience=9.0), rule("rest")]).choose(event(detail))
    assert choice == Undecided("first", 3, 9.0) if told == "undecided" else choice.rule == told


def test_a_rule_above_that_matches_needs_nobodys_attributes() -> None:
    assert bots(Rules([rule("chat"), rule("VIPs", VIP, bots="b")]), event()) == "a"


@pytest.mark.parametrize("stop", ["active", "percent", "left out", "role"])
def test_a_rule_that_ends_otherwise_asks_for_no_attributes(stop: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "active": {"active": (Window(ZoneInfo("UTC"), ends=-1.0),)},
        "percent": {"chance": Chance(percent=0)},
    }
    seen = event(initiation_method="MONITOR") if stop == "left out" else event()
    vips = rule("VIPs", VIP, **changes.get(stop, {}))
    if stop == "role":
        vips = replace(vips, bots=(replace(BOTS["a"], role="CUSTOMER"),))
    rules = Rules([vips, rule("rest", bots="b", include=frozenset(INCLUDABLE))])
    assert chosen(rules, seen).rule == "rest"
    assert [verdict.stopped for verdict in rules.explain(seen)] == ["attributes", ""]
    assert next(iter(rules.explain(seen, {"vip": "yes"}))).stopped == stop


def test_what_sticks_to_an_attribute_or_looks_by_one_asks_for_them_once_it_matches() -> None:
    sticky = rule("sticky", bots="", chance=split("attributes.customer", a=1, b=1))
    dressed = rule("dressed", looks=Looks({"de": "Max", "default": "M"}, language="attributes.language"))
    for one in (sticky, dressed):
        rules = Rules([one])
        assert rules.choose(event()) == Undecided(one.name)
        assert next(iter(rules.explain(event()))).stopped == "attributes"
        assert chosen(rules, event(), {}).rule == one.name
    assert chosen(Rules([dressed]), event(), {"language": "de"}).bots[0].display_name == "Max"


def test_an_event_cannot_bring_attributes_of_its_own() -> None:
    forged = replace(event(), document={"detail": {"channel": "CHAT"}, "attributes": {"vip": "yes"}})
    rules = Rules([rule("VIPs", VIP), rule("rest", bots="b")])
    assert rules.choose(forged) == Undecided("VIPs")
    assert bots(rules, forged, {}) == "b"


values = st.sampled_from(["x", "y"])
leaves = st.lists(
    st.sampled_from(["x", "y", {"exists": False}, {"exists": True}, {"anything-but": "x"}]),
    min_size=1,
    max_size=2,
)
fields = st.dictionaries(st.sampled_from(["p", "q"]), leaves, min_size=1)
plain = st.dictionaries(st.sampled_from(["detail", "attributes"]), fields, min_size=1)
whens = plain | st.tuples(plain, plain).map(lambda pair: {"$or": list(pair)})


@given(
    st.lists(whens, max_size=4),
    st.dictionaries(st.sampled_from(["p", "q"]), values | st.lists(values, max_size=2)),
    st.dictionaries(st.sampled_from(["p", "q"]), values),
)
def test_asked_or_not_asked_the_decision_is_the_same(
    patterns: list[Any], detail: dict[str, Any], attributes: dict[str, str]
) -> None:
    """Undecided at worst: what is decided without attributes is what would be decided with any."""
    rules = Rules([*(rule(f"{n}", when) for n, when in enumerate(patterns)), rule("last", bots="b")])
    without, known = rules.choose(event(detail)), chosen(rules, event(detail), attributes)
    first = next(
        (
            f"{n}"
            for n, when in enumerate(patterns)
            if compile_pattern(json.dumps(when)).matches(
                {"detail": {"channel": "CHAT", **detail}, "attributes": attributes}
            )
        ),
        "last",
    )
    assert known.rule == first
    if isinstance(without, Choice):
        assert without == known
    else:
        assert without.rule == "last" or known.rule == "last" or int(without.rule) <= int(known.rule)


# ── looks ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("de", "Ava (Bot)"),
        ("de-AT", "Ava aus Wien"),
        ("de_at", "Ava aus Wien"),
        ("DE-CH-1996", "Ava (Bot)"),
        ("fr", "Ava"),
        ("d", "Ava"),
        ("", "Ava"),
        ("default", "Ava"),
        ("x-" * 500_000, "Ava"),
    ],
)
def test_the_display_name_is_that_of_the_chats_language(tag: str, name: str) -> None:
    looks = Looks({"de": "Ava (Bot)", "de-AT": "Ava aus Wien", "default": "Ava"})
    choice = chosen(Rules([rule(bots="ab", looks=looks)]), event({"tags": {"language": tag}}))
    assert [bot.display_name for bot in choice.bots] == [name, name]


def test_without_a_default_the_bots_own_name_is() -> None:
    choice = chosen(Rules([rule(looks=Looks({"de": "Max"}))]), event())
    assert choice.bots[0].display_name == "A"


def test_the_rules_streaming_topic_goes_before_the_bots_and_the_bot_is_as_ever_elsewhere() -> None:
    bot = replace(BOTS["a"], recipe=replace(BOTS["a"].recipe, streaming_topic="bots", connect=True))
    first = replace(
        rule("first", {"detail": {"tags": {"x": ["y"]}}}, looks=Looks(topic="rules")), bots=(bot,)
    )
    rules = Rules([first, replace(rule("second"), bots=(bot,))])
    one, other = chosen(rules, event({"tags": {"x": "y"}})), chosen(rules, event())
    assert [c.bots[0].recipe.streaming_topic for c in (one, other)] == ["rules", "bots"]
    assert one.bots[0].recipe.connect


# ── what is left out ───────────────────────────────────────────────────────────────────────────

LEFT_OUT: list[tuple[str, dict[str, Any]]] = [
    ("guides", {"segment_attributes": {"connect:Subtype": "connect:Guide"}}),
    ("transfers", {"initiation_method": "TRANSFER"}),
    ("transfers", {"initiation_method": "QUEUE_TRANSFER"}),
    ("monitors", {"initiation_method": "MONITOR"}),
    ("disconnect_flows", {"initiation_method": "DISCONNECT"}),
    ("updates", {"kind": "CONTACT_DATA_UPDATED"}),
]


@pytest.mark.parametrize(("kind", "contact"), LEFT_OUT)
def test_what_is_hardly_meant_is_left_out_until_a_rule_includes_it(
    kind: str, contact: dict[str, Any]
) -> None:
    rules = Rules(
        [
            rule("plain"),
            rule("other", include=frozenset(INCLUDABLE) - {kind}),
            rule("all", include=frozenset({kind})),
        ]
    )
    assert chosen(rules, event(**contact)).rule == "all"
    assert [verdict.stopped for verdict in rules.explain(event(**contact))] == ["left out", "left out", ""]


def test_a_contact_that_is_two_of_them_must_be_included_as_both() -> None:
    guide = event(initiation_method="TRANSFER", segment_attributes={"connect:Subtype": "connect:Guide"})
    one, both = (
        rule("one", include=frozenset({"guides"})),
        rule("both", include=frozenset({"guides", "transfers"})),
    )
    assert chosen(Rules([one, both]), guide).rule == "both"


@pytest.mark.parametrize("kind", ["QUEUED", "CONNECTED_TO_AGENT", "DISCONNECTED", "COMPLETED", "PAUSED"])
def test_nothing_includes_events_that_end_or_pause_a_chat(kind: str) -> None:
    (verdict,) = Rules([rule(include=frozenset(INCLUDABLE))]).explain(event(kind=kind))
    assert (verdict.stopped, verdict.why) == ("left out", f"{kind} opens no CHAT contact")


@pytest.mark.parametrize("channel", ["TASK", "EMAIL", "VOICE", ""])
def test_nothing_includes_what_connect_refuses(channel: str) -> None:
    anything = rule("any", {"detail": {"channel": [{"exists": True}]}}, include=frozenset(INCLUDABLE))
    with pytest.raises(Permanent) as none:
        Rules([anything]).choose(event(channel=channel))
    assert none.value.outcome is Outcome.NO_BOT
    assert [verdict.stopped for verdict in Rules([anything]).explain(event(channel=channel))] == ["never"]
