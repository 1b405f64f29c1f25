"""Two runs with one seed have one truth; and what one contact meets does not hang on when the others come."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from itertools import cycle
from typing import Any

import anyio
import looptime
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attachd.simulator.dials import Dials
from attachd.simulator.front.api import Answer
from attachd.simulator.front.truth import truth
from attachd.simulator.scenario.reading import OPERATIONS, read
from unit.account import Account, Refused

EPOCH = 1_800_000_000.0
STORM = """
[connect]
after_contact_work_seconds = 3
flow = [
  { step = "hold", seconds = 20, until_bot = true },
  { step = "wait_for_bot", seconds = 30, expired = [{ step = "enter_queue", agent_after_seconds = 4 }] },
  { step = "enter_queue", agent_after_seconds = 5 },
]
disconnect_flow = [{ step = "hold", seconds = 2 }]

[quotas]
metered = "all"

[[faults]]
kind = "latency"
milliseconds = 300
sigma = 1.0

[[faults]]
kind = "error"
probability = 0.2

[[faults]]
kind = "error"
name = "ambiguous"
probability = 0.2
when = "after"

[[faults]]
kind = "throttling"
operations = ["SendMessage"]
from_seconds = 10
until_seconds = 20
rate = 1
"""


def canonical(aws: Account) -> bytes:
    return msgspec.json.encode(truth(aws.world) | {"events": aws.events}, order="deterministic")


# ── a whole town, at once ──────────────────────────────────────────────────────────────────────


class Town(Account):
    """An account whose clock is the loop's, and whose callers wait as long as an answer takes."""

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        self.now = EPOCH + anyio.current_time()
        answer = super().send(method, path, body, **headers)
        self.answered_in = answer.delay_seconds
        return answer

    async def tried(self, verb: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Ask up to four times, a second apart, as an SDK would; None if that was for nothing."""
        for _ in range(4):
            try:
                answer = verb(*arguments, **more)
            except Refused:
                await anyio.sleep(self.answered_in + 1)
            else:
                await anyio.sleep(self.answered_in)
                return answer
        return None


async def customer(aws: Town, name: str, dice: random.Random) -> None:
    await anyio.sleep(dice.random() * 10)
    chat = await aws.tried(aws.start, ParticipantDetails={"DisplayName": name})
    if chat is None:
        return
    bearer = await aws.tried(aws.join, chat["ParticipantToken"])
    await anyio.sleep(dice.random() * 5)
    bot = await aws.tried(aws.bot_token, chat["ContactId"], ClientToken=name)
    bot_bearer = await aws.tried(aws.join, bot or "nobody")
    for number in range(dice.randrange(5)):
        await aws.tried(aws.say, bearer or "nobody", f"{number}")
        await anyio.sleep(dice.random() * 3)
        await aws.tried(aws.say, bot_bearer or "nobody", f"re: {number}")
    await anyio.sleep(dice.random() * 30)
    await aws.tried(aws.leave, dice.choice((bearer, bot_bearer)) or "nobody")


def played(seed: int) -> Town:
    """Play the storm in a loop of its own, whose clock begins at nought and jumps."""
    dials = read(STORM, given={"seed": seed}).dials
    aws = Town(**{each.name: getattr(dials, each.name) for each in fields(dials)})

    async def everybody() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(customer, aws, f"customer {number}", random.Random(number))

    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=0)) as runner:
        runner.run(everybody())
    aws.pass_time(100)
    return aws


def test_a_town_of_concurrent_customers_in_a_storm_has_one_truth_for_each_seed() -> None:
    first = played(7)
    told = truth(first.world)
    faults = {fault for call in told["calls"] for fault in call["fault"].split(" + ")}
    assert faults == {"latency-1", "error-2", "ambiguous", "throttling-4"}
    assert {"WITH_AGENT", "ENDED"} <= {contact["state"] for contact in told["contacts"]}
    assert canonical(first) == canonical(played(7))
    assert canonical(first) != canonical(played(8))


# ── the law ────────────────────────────────────────────────────────────────────────────────────

BERLIN = "arn:aws:connect:eu-central-1:111122223333:instance/berlin"
LONDON = "arn:aws:connect:eu-west-2:999988887777:instance/london"
SECONDS = st.integers(0, 20)
STEPS = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"step": st.just("hold"), "seconds": SECONDS, "until_bot": st.booleans()}),
        st.fixed_dictionaries({"step": st.just("enter_queue"), "agent_after_seconds": SECONDS}),
        st.just({"step": "disconnect"}),
    ),
    lambda step: st.fixed_dictionaries(
        {"step": st.just("wait_for_bot"), "seconds": SECONDS},
        optional={
            branch: st.lists(step, max_size=2) for branch in ("disconnected", "not_found", "expired", "error")
        },
    ),
    max_leaves=5,
)
CHOICE: dict[str, st.SearchStrategy[Any]] = {
    "operations": st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=3, unique=True),
    "regions": st.just(["eu-west-2"]),
    "probability": st.sampled_from([0.1, 0.5, 1]),
    "from_seconds": st.integers(0, 10),
    "until_seconds": st.integers(11, 40),
    "tries": st.lists(st.integers(1, 3), max_size=2),
}
DEEDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "latency": {"milliseconds": SECONDS, "sigma": st.just(1)},
    "error": {"when": st.sampled_from(["before", "after"])},
    "silence": {"when": st.sampled_from(["before", "after"])},
    "reset": {"when": st.sampled_from(["before", "after"])},
    "garbled": {},
    "throttling": {},
    "access_denied": {},
    "outage": {},
}
FAULTS = st.lists(
    st.sampled_from(sorted(DEEDS)).flatmap(
        lambda kind: st.fixed_dictionaries({"kind": st.just(kind)} | DEEDS[kind], optional=CHOICE)
    ),
    max_size=4,
)
SCENARIOS = st.fixed_dictionaries(
    {
        "seed": st.integers(),
        "flow": st.lists(STEPS, max_size=3),
        "disconnect_flow": st.lists(STEPS, max_size=2),
        "after_contact_work_seconds": st.sampled_from([None, 0, 3]),
        "faults": FAULTS,
        "metered": st.just([]),  # a quota is what contacts share
        "instances": st.sampled_from([[], [BERLIN, LONDON]]),
    }
)
VERBS = (
    "timers",
    "websocket",
    "join",
    "bot",
    "bot joins",
    "say",
    "answer",
    "bot leaves",
    "leave",
    "tag",
    "stream",
    "agent",
    "stop",
)
# What each of several customers does, one thing a second
OPENINGS = st.sampled_from([[], ["join"], ["join", "bot", "bot joins"]])
SCRIPTS = st.lists(
    st.builds(lambda opening, rest: opening + rest, OPENINGS, st.lists(st.sampled_from(VERBS), max_size=10)),
    min_size=1,
    max_size=4,
)


# A busy machine is no finding
LAW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Caller:
    """One customer, her bot, and an agent's hand, with what they have been told so far."""

    def __init__(self, aws: Account, instance_id: str, name: str, script: list[str]) -> None:
        self._aws = aws
        self._instance_id = instance_id
        self._name = name
        self._script = ["start", *script]
        self._chat = self._token = self._bearer = self._bot_token = self._bot_bearer = "none"

    def act(self, second: int) -> None:
        if second < len(self._script):
            self._aws.instance_id = self._instance_id
            with suppress(Refused):  # the truth tells
                self._do(self._script[second])

    def _do(self, verb: str) -> None:  # noqa: C901, PLR0912 - a table of verbs
        aws = self._aws
        match verb:
            case "start":
                answer = aws.start(ParticipantDetails={"DisplayName": self._name})
                self._chat, self._token = answer["ContactId"], answer["ParticipantToken"]
            case "join":
                self._bearer = aws.join(self._token)
            case "bot":
                self._bot_token = aws.bot_token(self._chat)
            case "bot joins":
                self._bot_bearer = aws.join(self._bot_token)
            case "say":
                aws.say(self._bearer)
            case "answer":
                aws.say(self._bot_bearer)
            case "bot leaves":
                aws.leave(self._bot_bearer)
            case "websocket":
                aws.connect(self._token, Type=["WEBSOCKET", "CONNECTION_CREDENTIALS"])
            case "timers":
                aws.set_timers(self._chat, ParticipantTimerDurationInMinutes=2)
            case "leave":
                aws.leave(self._bearer)
            case "tag":
                aws.tag(self._chat, plan="gold")
            case "stream":
                aws.stream(self._chat)
            case "agent":
                aws.control(self._chat, "agent")
            case _:
                aws.stop(self._chat)


def run(dials: Dials, scripts: list[list[str]], order: random.Random | None = None) -> Account:
    """Let everyone act, each second; in which order within a second, the dice say."""
    aws = Account(**{each.name: getattr(dials, each.name) for each in fields(dials)})
    callers = [
        Caller(aws, instance_id, f"customer {number}", script)
        for number, (instance_id, script) in enumerate(zip(cycle(aws.world.instances), scripts, strict=False))
    ]
    for second in range(16):
        if order is not None:
            order.shuffle(callers)
        for caller in callers:
            caller.act(second)
        aws.pass_time(1)
    aws.pass_time(300)
    return aws


def by_contact(aws: Account) -> dict[str, bytes]:
    """What the truth tells of each contact, and of no other."""
    told = truth(aws.world)
    lists = {
        contact["id"]: {
            "contact": contact,
            **{
                key: [each for each in told[key] if each["contact_id"] == contact["id"]]
                for key in ("participants", "messages", "calls")
            },
            "events": [each for each in aws.events if each["detail"]["contactId"] == contact["id"]],
        }
        for contact in told["contacts"]
    }
    return {contact: msgspec.json.encode(own, order="deterministic") for contact, own in lists.items()}


@LAW
@given(SCENARIOS, SCRIPTS)
def test_any_scenario_and_any_script_have_one_truth(
    scenario: dict[str, Any], scripts: list[list[str]]
) -> None:
    dials = read("", given=scenario).dials
    assert canonical(run(dials, scripts)) == canonical(run(dials, scripts))


@LAW
@given(SCENARIOS, SCRIPTS, st.randoms(use_true_random=False))
def test_what_happens_to_a_contact_does_not_hang_on_the_order_in_which_others_come(
    scenario: dict[str, Any], scripts: list[list[str]], order: random.Random
) -> None:
    dials = read("", given=scenario).dials
    assert by_contact(run(dials, scripts)) == by_contact(run(dials, scripts, order))


def test_contacts_started_alike_are_told_apart_by_their_order_and_by_no_client_token() -> None:
    def ids(seed: int, *tokens: str) -> list[str]:
        aws = Account(seed=seed)
        return [aws.start(ClientToken=token)["ContactId"] for token in tokens]

    assert ids(1, "a", "b") == ids(1, "c", "d")
    assert len(set(ids(1, "a", "b"))) == 2
    assert set(ids(1, "a", "b")).isdisjoint(ids(2, "a", "b"))
