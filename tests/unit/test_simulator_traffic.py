"""Customers who come by themselves, with a clock in hand: what they do, and when."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.simulator.dials import Dials
from attachd.simulator.flow import EnterQueue, Hold
from attachd.simulator.front.api import Api
from attachd.simulator.front.truth import truth
from attachd.simulator.state.world import World
from attachd.simulator.traffic.arrivals import Burst, Constant, Poisson
from attachd.simulator.traffic.plan import Customer, Traffic, Uniform, character, read_traffic
from unit.account import Account

START = 1_800_000_000.0
ONE = Traffic(Burst(1), connects_after=1.0, thinks=2.0, patience=30.0)


def playing(traffic: Traffic, **dials: Any) -> tuple[Account, Any]:
    """Let customers come to an account; the second is what became of them."""
    aws = Account(**dials)
    aws.api.play(traffic, aws.now)
    return aws, aws.api.customers.counts


def only_chat(aws: Account) -> Any:
    [contact] = truth(aws.world)["contacts"]
    return contact


def said(aws: Account) -> list[tuple[float, str, str]]:
    """Everything said, with seconds from the start."""
    return [(line["at"] - START, line["role"], line["content"]) for line in truth(aws.world)["messages"]]


def bot_joins(aws: Account) -> str:
    return aws.join(aws.bot_token(only_chat(aws)["id"]))


# ── one customer ───────────────────────────────────────────────────────────────────────────────


def test_a_customer_connects_hears_the_bot_says_a_line_hears_the_answer_and_leaves() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(5)
    bot = bot_joins(aws)
    aws.say(bot, "Hello.")
    aws.pass_time(10)
    aws.say(bot, "Nine to six.")
    aws.pass_time(10)
    assert said(aws) == [
        (5, "CUSTOM_BOT", "Hello."),
        (7, "CUSTOMER", "When are you open?"),
        (15, "CUSTOM_BOT", "Nine to six."),
    ]
    chat = only_chat(aws)
    assert (chat["connected_at"], chat["ended_at"]) == (START + 1, START + 17)
    assert chat["disconnect_reason"] == "CUSTOMER_DISCONNECT"
    assert (counts.arrived, counts.finished, counts.present) == (1, 1, 0)
    assert aws.api.customers.over


def test_a_customer_leaves_when_no_bot_has_spoken_in_the_time_they_have() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(10)
    bot_joins(aws)  # and is silent
    aws.pass_time(100)
    assert only_chat(aws)["ended_at"] == START + 1 + 30
    assert counts.gave_up == 1


def test_a_bot_that_speaks_in_the_last_moment_is_heard() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(1)
    bot = bot_joins(aws)
    aws.pass_time(29.999)
    aws.say(bot)
    aws.pass_time(5)
    assert [role for _, role, _ in said(aws)] == ["CUSTOM_BOT", "CUSTOMER"]
    assert counts.gave_up == 0


def test_a_customer_whose_line_is_not_answered_leaves_unanswered() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(1)
    aws.say(bot_joins(aws))
    aws.pass_time(100)
    assert only_chat(aws)["ended_at"] == START + 1 + 2 + 30
    assert (counts.gave_up, counts.unanswered) == (0, 1)


def test_a_bot_that_came_and_spoke_before_its_customer_is_heard_when_they_connect() -> None:
    aws, _ = playing(ONE)
    aws.pass_time(0)
    aws.say(bot_joins(aws), "Hello.")
    aws.pass_time(4)
    assert said(aws)[1] == (2, "CUSTOMER", "When are you open?")


def test_a_customer_who_never_connects_leaves_a_chat_that_connect_ends() -> None:
    aws, counts = playing(Traffic(Burst(1), never_connects=1.0))
    aws.pass_time(1000)
    assert only_chat(aws)["disconnect_reason"] == "CUSTOMER_CONNECTION_NOT_ESTABLISHED"
    assert (counts.no_shows, counts.present) == (1, 0)


@pytest.mark.parametrize("hand", ["flow", "customer"])
def test_a_customer_whose_chat_is_ended_by_somebody_else_is_gone_at_once(hand: str) -> None:
    aws, counts = playing(ONE)
    aws.pass_time(2)
    aws.control(only_chat(aws)["id"], "end", by=hand)
    assert (counts.cut_off, counts.present) == (1, 0)
    aws.pass_time(100)
    assert counts.gave_up == 0


def test_a_chat_stopped_before_its_customer_connects_cuts_them_off() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(0.5)
    aws.stop(only_chat(aws)["id"])
    aws.pass_time(1)
    assert (counts.cut_off, counts.present) == (1, 0)


def test_a_customer_who_wants_an_agent_waits_for_one_and_stays_a_while() -> None:
    kind = Customer(says=("agent, please",), then="wait for an agent")
    aws, counts = playing(
        Traffic(Burst(1), customers=(kind,), thinks=1.0, connects_after=0.0, stays_with_agent=40.0),
        flow=(Hold(20), EnterQueue(agent_after_seconds=15)),
    )
    aws.pass_time(1)
    bot = bot_joins(aws)
    aws.say(bot)
    aws.pass_time(2)
    aws.say(bot, "one moment")
    aws.pass_time(300)
    chat = only_chat(aws)
    assert chat["agent_connected_at"] == START + 35
    assert chat["ended_at"] == START + 75
    assert counts.finished == 1


def test_a_customer_nobody_takes_from_the_queue_leaves_unanswered() -> None:
    kind = Customer(says=(), then="wait for an agent")
    aws, counts = playing(Traffic(Burst(1), customers=(kind,), connects_after=0.0, patience=50.0))
    aws.pass_time(10)
    aws.say(bot_joins(aws))
    aws.control(only_chat(aws)["id"], "queue")
    aws.pass_time(100)
    assert only_chat(aws)["ended_at"] == START + 10 + 50
    assert counts.unanswered == 1


def test_a_customer_moves_on_with_a_transfer_and_leaves_the_last_contact() -> None:
    aws, counts = playing(ONE)
    aws.pass_time(2)
    chat = only_chat(aws)["id"]
    aws.control(chat, "agent")
    following = aws.control(chat, "transfer")["contact_id"]
    aws.pass_time(100)
    assert aws.told(following)["disconnect_reason"] == "CUSTOMER_DISCONNECT"
    assert (counts.finished, counts.cut_off) == (1, 0)


# ── what they are like ─────────────────────────────────────────────────────────────────────────


def test_a_kind_of_customer_is_seen_in_the_chat_and_its_events() -> None:
    kind = Customer(
        name="Cleo",
        subtype="connect:SMS",
        segment_attributes={"language": "de-DE"},
        attributes={"plan": "gold"},
        tags={"language": "de"},
    )
    aws, _ = playing(Traffic(Burst(1), customers=(kind,)))
    aws.pass_time(1)
    chat = only_chat(aws)
    assert chat["segment_attributes"] == {
        "connect:Subtype": {"ValueString": "connect:SMS"},
        "language": {"ValueString": "de-DE"},
    }
    assert chat["attributes"] == {"plan": "gold"}
    assert chat["tags"]["language"] == "de"
    assert truth(aws.world)["participants"][0]["display_name"] == "Cleo 1"
    assert aws.announced(chat["id"]) == ["INITIATED", "CONTACT_DATA_UPDATED", "CONNECTED_TO_SYSTEM"]
    assert aws.events[-1]["detail"]["tags"]["language"] == "de"


def test_a_guide_comes_with_what_its_customer_can_show() -> None:
    aws, counts = playing(Traffic(Burst(1), customers=(Customer(subtype="connect:Guide"),)))
    aws.pass_time(1)
    assert counts.turned_away == 0


def test_kinds_come_as_often_as_they_weigh() -> None:
    kinds = Customer(weight=3, name="often"), Customer(weight=1, name="seldom"), Customer(weight=0, name="no")
    traffic = Traffic(Poisson(1), customers=kinds)
    names = [character(traffic, "seed", number).kind.name for number in range(4000)]
    assert "no" not in names
    assert 2850 < names.count("often") < 3150


@given(st.integers(0, 10_000))
def test_what_a_customer_decides_depends_on_the_seed_and_their_number_alone(number: int) -> None:
    traffic = Traffic(Poisson(1), patience=Uniform(10, 20), never_connects=0.3)
    once = character(traffic, "seed", number)
    assert once == character(traffic, "seed", number)
    assert 10 <= once.patience <= 20
    other = Traffic(Constant(5), patience=Uniform(10, 20), never_connects=0.3)
    assert once == character(other, "seed", number)


# ── a crowd ────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30))
def test_the_truth_does_not_depend_on_how_often_anybody_looks(steps: list[float]) -> None:
    """Flows and customers share one time line, however coarse the clock that drives it."""
    traffic = Traffic(Poisson(1), chats=20, patience=Uniform(0, 30), connects_after=Uniform(0, 5))
    dials = Dials(seed=7, flow=(Hold(12), EnterQueue(agent_after_seconds=4)))

    def played(moments: list[float]) -> Any:
        world = World(dials)
        api = Api(world, lambda _: None)
        api.play(traffic, START)
        for moment in moments:
            api.advance(moment)
        return truth(world)

    moments = [START + sum(steps[:count]) for count in range(1, len(steps) + 1)]
    assert played([*moments, START + 1000]) == played([START + 1000])


def test_customers_cost_the_tested_client_no_quota_unless_asked_to() -> None:
    aws, counts = playing(Traffic(Burst(20), connects_after=0.0), metered=None)
    aws.pass_time(1)
    assert counts.turned_away == 0
    aws, counts = playing(Traffic(Burst(20), connects_after=0.0, spends_quota=True), metered=None)
    aws.pass_time(10)
    assert counts.turned_away == 12  # StartChatContact: 8 at once
    assert sum(each["connected_at"] is not None for each in truth(aws.world)["contacts"]) == 8
    aws, counts = playing(
        Traffic(Constant(5), chats=50, connects_after=0.0, spends_quota=True, patience=5.0), metered=None
    )
    aws.pass_time(100)
    assert (counts.turned_away, counts.gave_up) == (0, 50)  # throttled when leaving at 3/s, they try again


def test_customers_are_no_clients_and_leave_no_calls() -> None:
    aws, _ = playing(Traffic(Burst(3)))
    aws.pass_time(100)
    assert truth(aws.world)["calls"] == []


def test_a_second_traffic_may_come_while_the_first_is_there() -> None:
    aws, counts = playing(Traffic(Burst(3)))
    aws.pass_time(1)
    aws.api.play(Traffic(Burst(2)), aws.now)
    aws.pass_time(1)
    assert (counts.arrived, counts.present) == (5, 5)


# ── the table ──────────────────────────────────────────────────────────────────────────────────


def test_a_traffic_table_is_read_whole() -> None:
    table = {
        "arrivals": {"kind": "poisson", "per_second": 2},
        "seconds": 60,
        "patience": {"kind": "lognormal", "median": 30},
        "thinks": {"kind": "exponential", "mean": 3},
        "connects_after": 1,
        "customers": [{"weight": 3, "segment_attributes": {"language": "de-DE"}}, {"says": ["hi", "bye"]}],
    }
    traffic = read_traffic(table)
    assert traffic.arrivals == Poisson(2)
    assert [kind.weight for kind in traffic.customers] == [3, 1]
    assert traffic.customers[1].says == ("hi", "bye")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arrivals": {"kind": "poisson"}}, "traffic.arrivals: "),
        ({"arrivals": {"kind": "poisson", "per_second": 0}}, "traffic.arrivals: per_second must be above 0"),
        ({"arrivals": {"kind": "tide"}}, "traffic.arrivals.kind: "),
        ({"arrivals": {"kind": "day", "per_hour": [1, 2]}}, "must have 24 numbers"),
        ({"patience": -1}, "traffic: patience must be 0 or more"),
        ({"patience": float("inf")}, "traffic: patience must be 0 or more"),
        ({"patience": {"kind": "uniform", "low": 2, "high": 1}}, "traffic.patience: low and high"),
        ({"never_connects": 2}, "traffic: never_connects"),
        ({"patiense": 3}, "unknown field `patiense`"),
        ({"customers": [{"says": [""]}]}, "traffic.customers[0]: says"),
        ({"customers": []}, "traffic: customers must have one"),
        ({"patience": {"kind": "lognormal", "median": 30, "sigma": 1e6}}, "sigma must be from 0 to 10"),
        ({"arrivals": {"kind": "poisson", "per_second": 1e9}}, "at most 10000 a second"),
        ({"arrivals": {"kind": "burst", "chats": 1, "every_seconds": 1e-9}}, "at most 10000 a second"),
        ({"arrivals": {"kind": "day", "per_hour": [1] * 24, "speed": 1e12}}, "at most 10000 a second"),
        ({"customers": [{"subtype": "connect:Fax"}]}, "traffic.customers[0].subtype"),
    ],
)
def test_a_traffic_table_that_is_wrong_is_refused_with_the_path_of_the_key(change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"^traffic") as refused:
        read_traffic({"arrivals": {"kind": "burst", "chats": 1}} | change)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Customer(attributes={"not a name": "x"}), "Attributes: a name"),
        (Customer(tags={str(number): "x" for number in range(7)}), "Tags"),
        (Customer(name=""), None),
        (Customer(name="x" * 300), "ParticipantDetails.DisplayName"),
    ],
)
def test_customers_whom_connect_would_refuse_are_refused_before_anybody_comes(
    kind: Customer, said: str | None
) -> None:
    aws = Account()
    traffic = Traffic(Burst(5), customers=(Customer(), kind))
    if said is None:
        aws.api.play(traffic, aws.now)
        return
    with pytest.raises(ValueError, match=r"^traffic\.customers\[1\]: ") as refused:
        aws.api.play(traffic, aws.now)
    assert said in str(refused.value)
    assert not aws.world.contacts


def test_the_traffic_in_the_docs_is_a_good_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "simulator.md"
    [block] = [
        each for each in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL) if "[traffic]" in each
    ]
    table = tomllib.loads(block)["traffic"]
    traffic = read_traffic(table)
    assert set(table) == set(traffic.__struct_fields__) - {"chats"}
    aws, counts = playing(traffic)
    aws.pass_time(2000)
    assert counts.arrived == counts.gave_up + counts.no_shows > 1000
