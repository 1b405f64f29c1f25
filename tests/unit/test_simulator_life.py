"""A contact's way through flows, queues, agents and transfers, in virtual time."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.simulator import Dials, Disconnect, EnterQueue, Hold, WaitForBot
from attachd.simulator.flow import Step
from attachd.simulator.front.api import Api
from attachd.simulator.front.truth import truth
from attachd.simulator.state.life import MOVES, IllegalMove, Stage, moved
from attachd.simulator.state.world import World
from unit.account import Account, Refused

HANDS = "agent", "queue", "transfer", "end"


@pytest.fixture
def aws() -> Account:
    return Account()


# ── the table ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("to", Stage)
def test_a_move_is_in_the_table_or_is_illegal(stage: Stage, to: Stage) -> None:
    if to in MOVES[stage]:
        assert moved(stage, to) is to
    else:
        with pytest.raises(IllegalMove, match=stage):
            moved(stage, to)


def test_every_stage_can_end_and_an_end_is_final() -> None:
    assert all(Stage.ENDED in MOVES[stage] for stage in Stage if stage is not Stage.ENDED)
    assert not MOVES[Stage.ENDED]


# ── queues and agents ──────────────────────────────────────────────────────────────────────────


def test_a_chat_goes_from_its_flow_by_a_queue_to_an_agent_and_ends(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.control(chat, "queue", queue="gold")
    aws.now += 2
    aws.control(chat, "agent")
    aws.control(chat, "end")
    assert aws.announced(chat) == [
        "INITIATED",
        "CONNECTED_TO_SYSTEM",
        "QUEUED",
        "CONNECTED_TO_AGENT",
        "DISCONNECTED",
        "COMPLETED",
    ]
    queued, joined = aws.events[2]["detail"], aws.events[3]["detail"]
    assert queued["queueInfo"] == {
        "queueArn": f"{aws.dials.instance_arn}/queue/gold",
        "queueType": "STANDARD",
        "enqueueTimestamp": "2027-01-15T08:00:00.000Z",
    }
    assert "agentInfo" not in queued
    assert joined["agentInfo"]["connectedToAgentTimestamp"] == "2027-01-15T08:00:02.000Z"
    described = aws.describe(chat)
    assert described["AgentInfo"]["ConnectedToAgentTimestamp"] == aws.now
    assert described["DisconnectReason"] == "AGENT_DISCONNECT"


def test_an_agent_comes_by_way_of_a_queue(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    assert aws.announced(chat)[2:] == ["QUEUED", "CONNECTED_TO_AGENT"]


def test_an_agent_who_joins_drops_the_bot_whether_it_had_connected_or_not(aws: Account) -> None:
    (quiet, _), (loud, _) = aws.chat(), aws.chat()
    waiting, bearer = aws.bot_token(quiet), aws.join(aws.bot_token(loud))
    aws.control(quiet, "agent")
    aws.control(loud, "agent")
    with pytest.raises(Refused, match="403"):
        aws.connect(waiting)
    with pytest.raises(Refused, match="403"):
        aws.say(bearer)


def test_a_bot_may_join_in_a_queue_but_not_beside_an_agent(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.control(chat, "queue")
    aws.create(chat, ClientToken="t")
    aws.control(chat, "agent")
    for token in ("t", "u"):
        with pytest.raises(Refused, match="409 ConflictException"):
            aws.create(chat, ClientToken=token)


@pytest.mark.parametrize(("seconds", "last"), [(0.0, "COMPLETED"), (None, "DISCONNECTED")])
def test_completed_may_never_come(seconds: float | None, last: str) -> None:
    aws = Account(after_contact_work_seconds=seconds)
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    aws.control(chat, "end")
    aws.pass_time(1e6)
    assert aws.announced(chat)[-1] == last


def test_completed_waits_for_the_agents_after_contact_work() -> None:
    aws = Account(after_contact_work_seconds=30)
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    aws.control(chat, "end")
    aws.pass_time(29.9)
    assert aws.announced(chat)[-1] == "DISCONNECTED"
    aws.pass_time(50)
    assert aws.announced(chat)[-1] == "COMPLETED"
    assert aws.events[-1]["time"] == "2027-01-15T08:00:30Z"


@pytest.mark.parametrize(
    ("verb", "before"),
    [
        ("queue", []),
        ("agent", []),
        ("transfer", []),
        ("transfer", ["join"]),
        ("queue", ["agent"]),
        ("end", ["end"]),
    ],
)
def test_what_cannot_happen_now_is_refused_and_changes_nothing(
    aws: Account, verb: str, before: list[str]
) -> None:
    started = aws.start()
    chat = started["ContactId"]
    if before:
        aws.join(started["ParticipantToken"])
    for each in before:
        if each != "join":
            aws.control(chat, each)
    known = truth(aws.world)
    with pytest.raises(Refused, match="409"):
        aws.control(chat, verb)
    assert truth(aws.world) == known


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/_simulator/contacts/gone/end", b"", 404),
        ("/_simulator/contacts/{}/dance", b"", 404),
        ("/_simulator/elsewhere", b"", 404),
        ("/_simulator/contacts/{}/end", b"{", 400),
        ("/_simulator/contacts/{}/end", b'{"by":"fate"}', 400),
        ("/_simulator/contacts/{}/end", b'{"bye":"agent"}', 400),
        ("/_simulator/contacts/{}/end", b'{"by":"agent"}', 409),
    ],
)
def test_a_hand_that_reaches_nowhere_is_told_so(aws: Account, path: str, body: bytes, status: int) -> None:
    chat, _ = aws.chat()
    assert aws.api.control(path.format(chat), body, aws.now).status == status


# ── transfers and what follows ─────────────────────────────────────────────────────────────────


def test_a_transfer_is_a_new_contact_of_the_same_chat(aws: Account) -> None:
    first, cleo = aws.chat()
    aws.say(cleo, "one")
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]
    third = aws.control(second, "transfer")["contact_id"]
    told = [(each["initiation_method"], each["state"]) for each in truth(aws.world)["contacts"]]
    assert told == [("API", "ENDED"), ("TRANSFER", "ENDED"), ("QUEUE_TRANSFER", "QUEUED")]
    initiated = [event["detail"] for event in aws.events if event["detail"]["eventType"] == "INITIATED"]
    assert [each.get("initialContactId") for each in initiated] == [None, first, first]
    assert [each.get("previousContactId") for each in initiated] == [None, first, second]
    assert aws.announced(second)[:3] == ["INITIATED", "CONNECTED_TO_SYSTEM", "QUEUED"]
    aws.say(cleo, "two")
    page = aws.read(cleo, SortOrder="ASCENDING", MaxResults=100)
    said = [(item["Content"], item["ContactId"]) for item in page["Transcript"] if item["Type"] == "MESSAGE"]
    assert said == [("one", first), ("two", third)]
    assert page["InitialContactId"] == first
    assert [message["content"] for message in truth(aws.world)["messages"]] == ["one", "two"]


def test_attributes_are_the_chats_and_tags_go_on(aws: Account) -> None:
    first, _ = aws.chat()
    aws.tag(first, language="de")
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]
    aws.update(first, mood="fine")
    assert aws.describe(second)["Attributes"] == {"mood": "fine"}
    aws.untag(second, "language")
    assert aws.describe(first)["Tags"]["language"] == "de"


def test_an_agents_end_leads_through_the_disconnect_flow_where_a_bot_may_ask(aws: Account) -> None:
    aws = Account(disconnect_flow=(Hold(until_bot=True), WaitForBot()))
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    survey = aws.control(chat, "end")["contact_id"]
    assert survey != chat
    assert aws.describe(survey)["InitiationMethod"] == "DISCONNECT"
    aws.leave(aws.join(aws.bot_token(survey)))
    assert aws.told(survey)["disconnect_reason"] == "CONTACT_FLOW_DISCONNECT"
    assert aws.told(survey)["branches"] == ("Bot participant disconnected",)


def test_a_persistent_chat_goes_on_where_the_last_contact_ended(aws: Account) -> None:
    first, cleo = aws.chat()
    aws.say(cleo, "one")
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]
    aws.stop(second)
    past = {"RehydrationType": "ENTIRE_PAST_SESSION", "SourceContactId": first}
    resumed = aws.start(PersistentChat=past)
    assert resumed["ContinuedFromContactId"] == second
    assert aws.events[-1]["detail"]["relatedContactId"] == second
    assert "initialContactId" not in aws.events[-1]["detail"]
    page = aws.read(aws.join(resumed["ParticipantToken"]), MaxResults=100)
    assert "one" in [item.get("Content") for item in page["Transcript"]]
    segment = {"RehydrationType": "FROM_SEGMENT", "SourceContactId": first}
    assert aws.start(PersistentChat=segment)["ContinuedFromContactId"] == first


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"SourceContactId": "gone", "RehydrationType": "FROM_SEGMENT"}, "404 ResourceNotFoundException"),
        ({"RehydrationType": "FROM_SEGMENT"}, "400 InvalidRequestException"),
        (
            {"SourceContactId": "alive", "RehydrationType": "FROM_SEGMENT"},
            "400 InvalidRequestException .*ended",
        ),
    ],
)
def test_a_persistent_chat_needs_a_chat_that_has_ended(
    aws: Account, more: dict[str, str], refusal: str
) -> None:
    alive = aws.start()["ContactId"]
    source = {name: alive if value == "alive" else value for name, value in more.items()}
    with pytest.raises(Refused, match=refusal):
        aws.start(PersistentChat=source)


def test_a_guide_needs_a_customer_who_can_show_it(aws: Account) -> None:
    guide = {"connect:Subtype": {"ValueString": "connect:Guide"}}
    with pytest.raises(Refused, match=r"400 InvalidRequestException SupportedMessagingContentTypes"):
        aws.start(SegmentAttributes=guide)
    kind = "application/vnd.amazonaws.connect.message.interactive"
    aws.start(
        SegmentAttributes=guide, SupportedMessagingContentTypes=[kind, f"{kind}.response", "text/plain"]
    )
    attributes = aws.events[-1]["detail"]["segmentAttributes"]
    assert attributes == {"connect:Subtype": {"valueString": "connect:Guide"}}


def test_an_sms_takes_plain_text_only_and_begins_as_its_dial_says() -> None:
    aws = Account(sms_initiation_method="INBOUND")
    started = aws.start(SegmentAttributes={"connect:Subtype": {"ValueString": "connect:SMS"}})
    bearer = aws.join(started["ParticipantToken"])
    assert aws.describe(started["ContactId"])["InitiationMethod"] == "INBOUND"
    aws.say(bearer, "hello")
    with pytest.raises(Refused, match="400 ValidationException"):
        aws.say(bearer, "*hello*", "text/markdown")


# ── flows ──────────────────────────────────────────────────────────────────────────────────────


def test_by_default_a_chat_waits_as_long_as_it_may_bot_or_no_bot(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.leave(aws.join(aws.bot_token(chat)))
    aws.pass_time(86_400)
    assert aws.told(chat)["state"] == "CONNECTED"
    assert aws.world.contacts[chat].due.keys() == {"duration"}


def test_a_flow_begins_only_once_the_customer_has_connected() -> None:
    aws = Account(flow=(EnterQueue(),))
    started = aws.start()
    aws.pass_time(60)
    assert aws.told(started["ContactId"])["state"] == "STARTED"
    aws.join(started["ParticipantToken"])
    assert aws.told(started["ContactId"])["state"] == "QUEUED"


BRANCHES: dict[str, Any] = {
    "disconnected": (EnterQueue("disconnected"),),
    "not_found": (EnterQueue("not_found"),),
    "expired": (EnterQueue("expired"),),
    "error": (EnterQueue("error"),),
}


def queue_reached(aws: Account, chat: str) -> str:
    queue: str = aws.describe(chat)["QueueInfo"]["Id"]
    return queue


def test_a_flow_that_waits_for_a_bot_who_is_not_there_does_not_wait() -> None:
    aws = Account(flow=(WaitForBot(60, **BRANCHES),))
    chat, _ = aws.chat()
    assert queue_reached(aws, chat) == "not_found"
    assert aws.told(chat)["branches"] == ("Participant not found",)


def test_a_bot_that_leaves_sends_the_flow_on() -> None:
    aws = Account(flow=(Hold(3), WaitForBot(60, **BRANCHES)))
    chat, _ = aws.chat()
    bot = aws.join(aws.bot_token(chat))
    aws.pass_time(3)
    assert aws.told(chat)["step"] == "WaitForBot"
    aws.leave(bot)
    assert queue_reached(aws, chat) == "disconnected"


def test_a_wait_that_expires_does_not_disconnect_the_bot() -> None:
    aws = Account(flow=(Hold(until_bot=True), WaitForBot(60, expired=(Hold(),))))
    chat, _ = aws.chat()
    bot = aws.join(aws.bot_token(chat))
    aws.pass_time(61)
    assert aws.told(chat)["branches"] == ("Time expired",)
    aws.say(bot)


def test_a_wait_longer_than_a_week_is_an_error() -> None:
    aws = Account(flow=(WaitForBot(7 * 86_400 + 1, **BRANCHES),))
    chat, _ = aws.chat()
    assert queue_reached(aws, chat) == "error"


def test_a_bot_that_never_connected_counts_as_its_dial_says() -> None:
    for frees, queue in ((True, "not_found"), (False, None)):
        aws = Account(flow=(Hold(20), WaitForBot(60, **BRANCHES)), lapsed_bot_frees_its_slot=frees)
        chat, _ = aws.chat()
        aws.create(chat)
        aws.pass_time(20)
        assert aws.describe(chat).get("QueueInfo", {}).get("Id") == queue


def test_a_hold_which_a_bot_overtook_does_not_ring_later() -> None:
    aws = Account(flow=(Hold(10, until_bot=True), WaitForBot(60, **BRANCHES)))
    chat, _ = aws.chat()
    aws.create(chat)
    aws.pass_time(11)
    assert aws.told(chat)["step"] == "WaitForBot"


def test_a_flow_without_more_steps_disconnects() -> None:
    aws = Account(flow=(Hold(5),))
    chat, _ = aws.chat()
    aws.pass_time(7)
    told = aws.told(chat)
    assert (told["disconnect_reason"], told["ended_at"]) == ("CONTACT_FLOW_DISCONNECT", 1_800_000_005)


# ── laws ───────────────────────────────────────────────────────────────────────────────────────

seconds = st.none() | st.integers(0, 5).map(float)
leaves = st.one_of(
    st.builds(Hold, seconds, st.booleans()),
    st.builds(EnterQueue, st.just("standard"), seconds),
    st.just(Disconnect()),
)


def waits(inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    flow = st.lists(inner, max_size=2).map(tuple)
    return st.builds(WaitForBot, seconds, flow, flow, flow, flow)


flows = st.lists(st.recursive(leaves, waits, max_leaves=6), max_size=4).map(tuple)
deeds = st.lists(st.sampled_from(["bot", "leave", *HANDS]) | st.integers(0, 4), max_size=15)


def live(flow: Any, script: list[Any], *, looks: int) -> Account:
    """Do as the script says, looking at the clock so many times in every pause."""
    aws = Account(flow=flow, after_contact_work_seconds=3, rate=1e9, burst=1e9)
    chat, _ = aws.chat()
    bots: list[str] = []
    for deed in script:
        if isinstance(deed, int):
            for _ in range(looks):
                aws.pass_time(deed / looks)
            aws.now = float(round(aws.now, 6))
            continue
        try:
            if deed == "bot":
                bots.append(aws.join(aws.bot_token(chat)))
            elif deed == "leave":
                aws.leave(bots[-1] if bots else "nobody")
            else:
                chat = aws.control(chat, deed)["contact_id"]
        except Refused:
            pass
    return aws


@settings(deadline=None, max_examples=200)
@given(flows, deeds)
def test_what_happens_does_not_depend_on_how_often_one_looks(flow: Any, script: list[Any]) -> None:
    once, often = live(flow, script, looks=1), live(flow, script, looks=4)
    assert [event["detail"] for event in once.events] == [event["detail"] for event in often.events]


@settings(deadline=None, max_examples=200)
@given(flows, deeds)
def test_every_contact_begins_once_ends_at_most_once_and_has_one_bot_at_a_time(
    flow: Any, script: list[Any]
) -> None:
    aws = live(flow, script, looks=1)
    for contact in aws.world.contacts.values():
        told = aws.announced(contact.id)
        assert told[0] == "INITIATED"
        assert told.count("DISCONNECTED") == (contact.stage is Stage.ENDED)
        assert max(told.count(each) for each in told) == 1
        there = [each for each in contact.participants if each.disconnected_at is None]
        assert sum(each.role == "CUSTOM_BOT" for each in there) <= 1
        if contact.stage is Stage.WITH_AGENT:
            assert not any(each.role == "CUSTOM_BOT" for each in there)
        if contact.stage is Stage.ENDED:
            assert not there


# ── questions AWS leaves open ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "code", ["ConflictException", "InvalidRequestException", "ServiceQuotaExceededException"]
)
def test_how_a_bot_beside_an_agent_is_refused_is_a_dial(code: str) -> None:
    aws = Account(error_beside_an_agent=code)
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    with pytest.raises(Refused, match=code):
        aws.create(chat)


def test_how_an_ended_contact_a_second_bot_and_a_third_topic_are_refused_are_dials() -> None:
    code = "InvalidRequestException"
    aws = Account(error_of_an_ended_contact=code, error_of_a_second_bot=code, error_of_a_third_topic=code)
    chat, _ = aws.chat()
    aws.create(chat)
    aws.stream(chat)
    aws.stream(chat)
    with pytest.raises(Refused, match=f"400 {code} .*already"):
        aws.create(chat)
    with pytest.raises(Refused, match=f"400 {code} .*topics"):
        aws.stream(chat)
    aws.stop(chat)
    with pytest.raises(Refused, match=f"400 {code} .*ended"):
        aws.create(chat)


@pytest.mark.parametrize("may", [True, False])
def test_whether_a_bot_may_precede_the_customer_is_a_dial(*, may: bool) -> None:
    aws = Account(bot_may_precede_the_customer=may)
    chat = aws.start()["ContactId"]
    if may:
        aws.create(chat)
    else:
        with pytest.raises(Refused, match="409 ConflictException"):
            aws.create(chat)


def test_a_replayed_client_token_may_bring_a_new_token_of_the_same_bot() -> None:
    aws = Account(replayed_client_token_answers="a new token")
    chat, _ = aws.chat()
    first, again = aws.create(chat, ClientToken="t"), aws.create(chat, ClientToken="t")
    assert first["ParticipantId"] == again["ParticipantId"]
    tokens = [each["ParticipantCredentials"]["ParticipantToken"] for each in (first, again)]
    assert tokens[0] != tokens[1]
    for token in tokens:
        aws.join(token)
    assert aws.told(chat)["custom_bots"]["existed"] == 1


def test_a_replayed_client_token_may_be_an_error() -> None:
    aws = Account(replayed_client_token_answers="an error")
    chat, _ = aws.chat()
    aws.create(chat, ClientToken="t")
    with pytest.raises(Refused, match=r"409 ConflictException .*ClientToken"):
        aws.create(chat, ClientToken="t")


@pytest.mark.parametrize(
    "dials",
    [
        {"replayed_client_token_answers": "perhaps"},
        {"error_beside_an_agent": "NoSuchException"},
        {"quotas": {"CreateParticipant": (5, 0)}},
    ],
)
def test_a_dial_that_makes_no_sense_is_refused(dials: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"replayed|error_|CreateParticipant"):
        Api(World(Dials(**dials)), lambda _event: None)


@pytest.mark.parametrize(
    "step",
    [
        lambda: Hold(-1),
        lambda: WaitForBot(expired=(EnterQueue(agent_after_seconds=float("nan")),)),
        lambda: WaitForBot(float("inf")),
    ],
)
def test_a_step_of_a_flow_that_makes_no_sense_is_refused(step: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"greater than|finite"):
        step()
