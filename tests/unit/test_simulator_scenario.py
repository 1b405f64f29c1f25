"""Scenario files: what they may say, and how all that is wrong with one is told at once."""

import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attachd.simulator.delivery import Delivery, KinesisStream, Queue
from attachd.simulator.dials import Dials
from attachd.simulator.faults import Error, Latency
from attachd.simulator.flow import Disconnect, EnterQueue, Hold, WaitForBot
from attachd.simulator.scenario.lines import line_of
from attachd.simulator.scenario.reading import Scenario, Unreadable, read

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))


def problems(text: str, **given: object) -> list[str]:
    with pytest.raises(Unreadable) as refusal:
        read(text, given=given, name="storm.toml")
    return list(refusal.value.problems)


def test_an_empty_scenario_is_the_default() -> None:
    assert read("") == Scenario(Dials())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_good_one(path: Path) -> None:
    assert read(path.read_text()).dials.faults


@pytest.mark.parametrize(
    "block", re.findall(r"```toml\n(.*?)```", (ROOT / "docs/simulator.md").read_text(), re.DOTALL)
)
def test_every_scenario_in_the_docs_is_a_good_one(block: str) -> None:
    read(block)


def test_the_calm_example_shows_defaults_where_it_says_so() -> None:
    calm = read((ROOT / "examples/scenarios/calm.toml").read_text()).dials
    default = Dials()
    told = {"seed", "flow", "faults", "quotas"}
    assert calm == Dials(**{name: getattr(calm, name) for name in told})
    assert calm.quotas == {"CreateParticipant": (default.rate, default.burst)}


def test_a_scenario_says_everything_that_dials_do() -> None:
    text = """
        seed = 9
        faults = [{ kind = "latency", milliseconds = 5 }]
        [connect]
        lapsed_bot_frees_its_slot = false
        error_of_a_second_bot = "ConflictException"
        event_moments_yet_to_come = "1970"
        instances = ["arn:aws:connect:eu-west-2:111122223333:instance/london"]
        access_keys = { OURS = "111122223333" }
        [[connect.flow]]
        step = "wait_for_bot"
        seconds = 3
        expired = [{ step = "hold" }, { step = "disconnect" }]
        [[connect.flow]]
        step = "enter_queue"
        queue = "gold"
        [quotas]
        metered = "all"
        concurrent_chats = 500
        SendMessage = [1, 2]
        [events]
        target = "sqs:http://localhost/queue"
        [events.delivery]
        lost = 0.01
        late_seconds = [60, 3600]
        [[connect.transfer_flow]]
        step = "disconnect"
    """
    assert read(text).dials == Dials(
        seed=9,
        faults=(Latency(milliseconds=5),),
        lapsed_bot_frees_its_slot=False,
        error_of_a_second_bot="ConflictException",
        instances=("arn:aws:connect:eu-west-2:111122223333:instance/london",),
        access_keys={"OURS": "111122223333"},
        flow=(WaitForBot(3, expired=(Hold(), Disconnect())), EnterQueue("gold")),
        transfer_flow=(Disconnect(),),
        metered=None,
        concurrent_chats=500,
        quotas={"SendMessage": (1, 2)},
        events=Queue("http://localhost/queue"),
        delivery=Delivery(lost=0.01, late_seconds=(60, 3600)),
        event_moments_yet_to_come="1970",
    )


def test_every_dial_has_a_place_in_the_file() -> None:
    """A dial that is added stands in [connect] until somebody says otherwise."""
    default = Dials()
    simple = {
        each.name: getattr(default, each.name)
        for each in fields(Dials)
        if isinstance(getattr(default, each.name), bool | int | float | str)
    }
    in_connect = {name: value for name, value in simple.items() if name not in {"seed", "rate", "burst"}}
    lines = ["[connect]"]
    for name, value in in_connect.items():
        written = str(value).lower() if isinstance(value, bool) else repr(value)
        if "quota" in name:
            lines.insert(0, f"quotas.{name} = {written}")
        else:
            lines.append(f"{name} = {written}")
    assert read("\n".join(lines)).dials == default


def test_a_target_is_told_in_short_or_as_a_table() -> None:
    by_contact = '[events]\ntarget = { kind = "kinesis", name = "s", partition_key = "contact id" }'
    assert read(by_contact).dials.events == KinesisStream("s", partition_key="contact id")
    assert read('[events]\ntarget = "kinesis:s"').dials.events == KinesisStream("s")


def test_what_is_given_wins_over_the_file_and_the_file_over_what_stands_in() -> None:
    text = 'seed = 1\n[quotas]\nCreateParticipant = [2, 3]\n[events]\ntarget = "sqs:a"\n'
    dials = read(text, given={"rate": 9, "events": "sqs:b"}, otherwise={"seed": 5, "burst": 4}).dials
    assert (dials.seed, dials.events) == (1, Queue("b"))
    assert dials.quotas["CreateParticipant"] == (9, 3)


def test_all_that_is_wrong_is_told_at_once_each_with_its_line_and_key() -> None:
    text = """sede = 7
seed = "x"

[connect]
lapsed_bot_frees_its_slots = true
connect_within_seconds = -1
flow = [
  { step = "hold", second = 3 },
  { step = "waitforbot", seconds = 3 },
  { step = "wait_for_bot", disconnected = [{ step = "enter_queue", agent_after_seconds = "1" }] },
]

[quotas]
metered = ["CreatParticipant"]
CreateParticipant = [5]
SendMesage = [1, 1]

[events]
target = "kafka:topic"

[[faults]]
kind = "latency"

[[faults]]
kind = "rest"

[[faults]]
kind = "reset"
probability = 2
wen = "before"
operations = ["SendMessages"]
"""
    assert problems(text, burst=0) == [
        "--burst: input should be greater than or equal to 1",
        "storm.toml:1: sede: there is no such key; did you mean 'seed'?",
        "storm.toml:2: seed: input should be a valid integer",
        "storm.toml:5: connect.lapsed_bot_frees_its_slots: there is no such key; did you mean 'lapsed_bot_frees_its_slot'?",
        "storm.toml:6: connect.connect_within_seconds: input should be greater than or equal to 0",
        "storm.toml:7: connect.flow[0].second: there is no such key; did you mean 'seconds'?",
        "storm.toml:7: connect.flow[1].step: there is no 'waitforbot'; did you mean 'wait_for_bot'?",
        "storm.toml:7: connect.flow[2].disconnected[0].agent_after_seconds: input should be a valid number",
        "storm.toml:14: quotas.metered: there is no operation 'CreatParticipant'; did you mean 'CreateParticipant'?",
        "storm.toml:15: quotas.CreateParticipant[1]: is missing",
        "storm.toml:16: quotas.SendMesage: there is no such key; did you mean 'SendMessage'?",
        "storm.toml:19: events.target: expected eventbridge:NAME, kinesis:STREAM or sqs:URL, got 'kafka:topic'",
        "storm.toml:21: faults[0].milliseconds: is missing",
        "storm.toml:25: faults[1].kind: there is no 'rest'; did you mean 'reset'?",
        "storm.toml:29: faults[2].probability: input should be less than or equal to 1",
        "storm.toml:30: faults[2].wen: there is no such key; did you mean 'when'?",
        "storm.toml:31: faults[2].operations: there is no operation 'SendMessages'; did you mean 'SendMessage'?",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = [", "storm.toml: Invalid value"),
        ("connect = 3", "storm.toml:1: connect: this is a table, [connect], with keys of its own"),
        ("flow = []", "storm.toml:1: flow: there is no such key; there are connect"),
        ("[connect]\nrate = 3", "storm.toml:2: connect.rate: there is no such key"),
        ("[connect]\nflow = [{}]", "storm.toml:2: connect.flow[0].step: is missing"),
        ("[connect]\ninstance_arn = 'x'", "not the ARN of an Amazon Connect instance"),
        ("[connect]\ninstances = ['x']", "storm.toml:2: connect.instances[0]: not the ARN"),
        ("[connect]\naccess_keys = { OURS = '1' }", "storm.toml:2: connect.access_keys.OURS: an account has"),
        ("[events.delivery]\nlost = 0.1\nlate = 2", "storm.toml:3: events.delivery.late: input should be less than or equal to 1"),
        ("[events.delivery]\nlate_seconds = [9, 1]", "storm.toml:2: events.delivery.late_seconds: must be the least"),
        ("[events.delivery]\nlast = 0.1", "storm.toml:2: events.delivery.last: there is no such key"),
        ("[events]\ntarget = { kind = 'kafka' }", "storm.toml:2: events.target.kind: there is no 'kafka'; there are"),
        ("[events]\ntarget = { kind = 'sqs', ulr = 'q', url = 'q' }", "events.target.ulr: there is no such key; did you"),
        ("[events]\ntarget = 3", "storm.toml:2: events.target: "),
        ("delivery = 3", "storm.toml:1: delivery: there is no such key"),
        ("[connect]\nlapsed_bot_frees_its_slot = 1", "input should be a valid boolean"),
        ("[quotas]\nmetered = 'some'", "storm.toml:2: quotas.metered: "),
        ("[quotas]\nSendMessage = 'x'", "storm.toml:2: quotas.SendMessage: "),
        ("[faults]\nkind = 'reset'", "storm.toml:1: faults: input should be a valid array"),
        ("[[faults]]\nkind = 'reset'\nprobability = nan", "storm.toml:3: faults[0].probability: "),
        ("[[faults]]\nkind = 'reset'\nname = 'a'\n" * 2, "two faults have one name: a"),
        ("seed = 2026-01-01", "storm.toml:1: seed: input should be a valid integer"),
        ("[" * 5000, "storm.toml: "),
    ],
)  # fmt: skip
def test_a_scenario_that_makes_no_sense_is_refused_with_a_sentence(text: str, said: str) -> None:
    [problem] = problems(text)
    assert said in problem


SIMPLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["step", "kind", "seconds"]), inside)
    ),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no finding
@given(
    st.dictionaries(
        st.sampled_from(["flow", "faults", "metered", "quotas", "events", "seed", "rate", "token_marker"]),
        SIMPLE,
    )
)
def test_whatever_is_said_is_taken_or_refused_never_a_crash(said: dict[str, object]) -> None:
    with suppress(Unreadable):
        assert isinstance(read("", given=said).dials, Dials)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("seed",), 1),
        (("connect",), 3),
        (("connect", "flow"), 4),
        (("connect", "flow", 1), 4),
        (("faults", 0, "name"), 10),
        (("faults", 1), 15),
        (("faults", 1, "kind"), 16),
        (("faults", 1, "missing"), 15),
        (("nothing",), 1),
    ],
)
def test_a_key_is_found_on_the_line_where_its_value_begins(path: tuple[str | int, ...], line: int) -> None:
    text = '''seed = 7

[connect]
flow = [
  { step = "hold" },
  { step = "disconnect" },
]

[[faults]]
name = """
kind = "reset"
[[faults]]
"""

[[faults]]
kind = "error"
'''
    assert line_of(text, path) == line


def test_the_scenarios_of_the_docs_and_examples_are_there_at_all() -> None:
    assert [path.name for path in EXAMPLES] == ["calm.toml", "outage.toml", "storm.toml"]
    assert isinstance(read(EXAMPLES[2].read_text()).dials.faults[1], Error)


def test_traffic_is_read_and_judged_with_the_rest() -> None:
    traffic = read('[traffic]\narrivals = { kind = "constant", per_second = 2 }\nchats = 3').traffic
    assert traffic is not None
    assert traffic.chats == 3
    assert problems("traffic = 3") == [
        "storm.toml:1: traffic: this is a table, [traffic], with keys of its own"
    ]
    [seed, says] = problems(
        "sede = 3\n[traffic]\narrivals = { kind = 'burst', chats = 1 }\n[[traffic.customers]]\nsays = 3"
    )
    assert seed.startswith("storm.toml:1: sede: ")
    assert says.startswith("storm.toml:5: traffic.customers[0].says: expected ")
