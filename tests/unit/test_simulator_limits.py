"""How long a chat, its customer and a silence may last; all times are Connect's own, moved by hand."""

from typing import Any

import pytest

from attachd.simulator.flow import EnterQueue, Hold, WaitForBot
from unit.account import TOPIC, Account, Refused

EVENT = "application/vnd.amazonaws.connect.event."


@pytest.fixture
def aws() -> Account:
    return Account()


def configure(aws: Account, contact_id: str, **minutes: int) -> None:
    """Set timers, as customer_idle=2 or agent_close=3."""
    kinds = {"idle": "IDLE", "close": "DISCONNECT_NONCUSTOMER"}
    timers = []
    for name, value in minutes.items():
        role, _, kind = name.partition("_")
        duration = {"ParticipantTimerDurationInMinutes": value}
        timers.append({"ParticipantRole": role.upper(), "TimerType": kinds[kind], "TimerValue": duration})
    path = f"/contact/participant-role-config/{aws.dials.instance_id}/{contact_id}"
    aws.ask("PUT", path, {"ChannelConfiguration": {"Chat": {"ParticipantTimerConfigList": timers}}})


def events(aws: Account, contact_id: str) -> list[tuple[str, str, float]]:
    """What happened in a chat: short event name, by whom, seconds after the first."""
    items = [item for item in aws.world.contacts[contact_id].transcript if item.type == "EVENT"]
    return [
        (
            item.content_type.removeprefix(EVENT),
            item.participant.role if item.participant else "",
            item.at - items[0].at,
        )
        for item in items
    ]


# ── the chat ───────────────────────────────────────────────────────────────────────────────────


def test_a_chat_whose_customer_does_not_come_within_five_minutes_ends(aws: Account) -> None:
    started = aws.start()
    aws.pass_time(299.9)
    assert aws.told(started["ContactId"])["state"] == "STARTED"
    aws.pass_time(10)
    told = aws.told(started["ContactId"])
    assert (told["state"], told["disconnect_reason"]) == ("ENDED", "CUSTOMER_CONNECTION_NOT_ESTABLISHED")
    assert told["ended_at"] == told["started_at"] + 300
    assert aws.announced(started["ContactId"]) == ["INITIATED", "DISCONNECTED", "COMPLETED"]
    with pytest.raises(Refused, match="403 AccessDeniedException"):
        aws.join(started["ParticipantToken"])


@pytest.mark.parametrize(("more", "minutes"), [({}, 1500), ({"ChatDurationInMinutes": 60}, 60)])
def test_a_chat_lasts_as_long_as_it_was_given_and_no_longer(
    aws: Account, more: dict[str, Any], minutes: int
) -> None:
    started = aws.start(**more)
    aws.join(started["ParticipantToken"])
    aws.pass_time(60 * minutes + 5)
    told = aws.told(started["ContactId"])
    assert (told["disconnect_reason"], told["ended_at"] - told["started_at"]) == ("EXPIRED", 60 * minutes)


def test_contacts_that_follow_share_the_chats_duration(aws: Account) -> None:
    started = aws.start(ChatDurationInMinutes=60)
    aws.join(started["ParticipantToken"])
    aws.pass_time(1800)
    aws.control(started["ContactId"], "agent")
    second = aws.control(started["ContactId"], "transfer")["contact_id"]
    aws.pass_time(1800)
    assert aws.told(second)["disconnect_reason"] == "EXPIRED"
    assert aws.told(second)["ended_at"] == 1_800_000_000 + 3600


# ── silence ────────────────────────────────────────────────────────────────────────────────────


def with_bot(aws: Account, **minutes: int) -> tuple[str, str, str]:
    """A chat with timers, and a bot that has just joined; contact, customer's and bot's bearer."""
    chat, cleo = aws.chat()
    configure(aws, chat, **minutes)
    aws.pass_time(600)  # nothing runs while the customer is alone
    return chat, cleo, aws.join(aws.bot_token(chat))


def test_a_silent_customer_is_told_idle_and_only_then_counts_the_time_to_the_end() -> None:
    aws = Account(flow=(Hold(until_bot=True), WaitForBot(disconnected=(EnterQueue("rescue"),))))
    chat, _, bot = with_bot(aws, customer_idle=2, customer_close=3)
    aws.pass_time(120)
    aws.say(bot, "are you there?")
    aws.pass_time(1000)
    assert events(aws, chat)[1:] == [
        ("participant.joined", "CUSTOM_BOT", 600),
        ("participant.idle", "CUSTOMER", 720),
        ("participant.autodisconnection", "CUSTOMER", 900),
        ("participant.left", "CUSTOM_BOT", 900),
    ]
    assert aws.told(chat)["branches"] == ("Bot participant disconnected",)
    assert aws.describe(chat)["QueueInfo"]["Id"] == "rescue"
    with pytest.raises(Refused, match="403"):
        aws.say(bot)


def test_a_timer_alone_starts_at_once(aws: Account) -> None:
    chat, _, _ = with_bot(aws, customer_close=3)
    aws.pass_time(180)
    assert events(aws, chat)[2:] == [
        ("participant.autodisconnection", "CUSTOMER", 780),
        ("participant.left", "CUSTOM_BOT", 780),
    ]
    assert aws.told(chat)["state"] == "CONNECTED"


def test_a_message_starts_the_timers_anew_and_typing_does_not(aws: Account) -> None:
    chat, cleo, _ = with_bot(aws, customer_idle=2, customer_close=2)
    aws.pass_time(110)
    aws.say(cleo)
    aws.pass_time(110)
    aws.signal(cleo, "typing")
    aws.pass_time(11)
    aws.say(cleo, "back again")
    aws.say(cleo, "and once more")
    aws.pass_time(239)
    assert [(name, at) for name, role, at in events(aws, chat) if role == "CUSTOMER"][1:] == [
        ("typing", 820),
        ("participant.idle", 830),
        ("participant.returned", 831),
        ("participant.idle", 951),
    ]


def test_timers_stop_when_the_bot_leaves_and_start_when_another_comes(aws: Account) -> None:
    chat, _, bot = with_bot(aws, customer_idle=2)
    aws.pass_time(60)
    aws.leave(bot)
    aws.pass_time(600)
    aws.join(aws.bot_token(chat))
    aws.pass_time(119)
    assert "participant.idle" not in [name for name, _, _ in events(aws, chat)]
    aws.pass_time(1)
    assert events(aws, chat)[-1] == ("participant.idle", "CUSTOMER", 600 + 60 + 600 + 120)


def test_timers_set_while_a_bot_is_there_wait_for_the_next(aws: Account) -> None:
    chat, cleo = aws.chat()
    bot = aws.join(aws.bot_token(chat))
    configure(aws, chat, customer_idle=2)
    aws.say(cleo)
    aws.pass_time(600)
    assert "participant.idle" not in [name for name, _, _ in events(aws, chat)]
    aws.leave(bot)
    aws.join(aws.bot_token(chat))
    aws.pass_time(120)
    assert events(aws, chat)[-1][:2] == ("participant.idle", "CUSTOMER")


def test_a_bot_that_precedes_its_customer_starts_no_timer_until_the_customer_comes(aws: Account) -> None:
    started = aws.start()
    configure(aws, started["ContactId"], customer_idle=2)
    aws.join(aws.bot_token(started["ContactId"]))
    aws.pass_time(200)
    aws.join(started["ParticipantToken"])
    aws.pass_time(120)
    assert events(aws, started["ContactId"])[-1] == ("participant.idle", "CUSTOMER", 320)


def test_with_an_agent_both_roles_are_timed_and_with_a_bot_the_customer_alone(aws: Account) -> None:
    chat, _, _ = with_bot(aws, customer_idle=4, agent_idle=2)
    aws.pass_time(180)
    assert events(aws, chat)[-1][0] == "participant.joined"
    aws.control(chat, "agent")
    aws.pass_time(240)
    assert events(aws, chat)[-2:] == [
        ("participant.idle", "AGENT", 600 + 180 + 120),
        ("participant.idle", "CUSTOMER", 600 + 180 + 240),
    ]


@pytest.mark.parametrize("flow", [(), (Hold(),)])
def test_an_agent_whose_customer_is_silent_leaves_and_a_disconnect_flow_follows(
    flow: tuple[Hold, ...],
) -> None:
    aws = Account(disconnect_flow=flow)
    chat, _ = aws.chat()
    configure(aws, chat, customer_close=2)
    aws.control(chat, "agent")
    aws.pass_time(120)
    told = aws.told(chat)
    assert (told["state"], told["disconnect_reason"]) == ("ENDED", "IDLE_DISCONNECT")
    ended = [name for name, _, _ in events(aws, chat)][-1] == "chat.ended"
    following = [each for each in aws.world.contacts.values() if each.previous_contact_id == chat]
    assert (ended, len(following)) == ((False, 1) if flow else (True, 0))


def test_timers_last_for_the_chat_through_its_transfers(aws: Account) -> None:
    chat, _ = aws.chat()
    configure(aws, chat, customer_idle=2)
    aws.control(chat, "agent")
    second = aws.control(chat, "transfer")["contact_id"]
    aws.control(second, "agent")
    aws.pass_time(120)
    assert events(aws, second)[-1][:2] == ("participant.idle", "CUSTOMER")


def test_a_timer_named_twice_is_refused(aws: Account) -> None:
    timer = {
        "ParticipantRole": "CUSTOMER",
        "TimerType": "IDLE",
        "TimerValue": {"ParticipantTimerDurationInMinutes": 2},
    }
    path = f"/contact/participant-role-config/{aws.dials.instance_id}/{aws.start()['ContactId']}"
    body = {"ChannelConfiguration": {"Chat": {"ParticipantTimerConfigList": [timer, timer]}}}
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*twice"):
        aws.ask("PUT", path, body)


# ── what StartChatContact hands over by itself, and what a bot may ask for ─────────────────────


def test_a_chat_may_start_with_its_connection_and_its_stream(aws: Account) -> None:
    started = aws.start(
        ConnectionTypes=["WEBSOCKET", "CONNECTION_CREDENTIALS"],
        ChatStreamingConfiguration={"StreamingEndpointArn": TOPIC},
        ClientToken="once",
    )
    assert started["Websocket"]["Url"].startswith("ws://127.0.0.1/participant/websocket?X-Amz-Signature=")
    assert started["Websocket"]["ConnectionExpiry"] == "2027-01-15T09:00:00.000Z"
    assert [stream["id"] for stream in aws.told(started["ContactId"])["streams"]] == [started["StreamingId"]]
    with pytest.raises(Refused, match="403"):  # credentials alone connect nobody
        aws.say(started["ConnectionCredentials"]["ConnectionToken"])
    assert aws.start(ClientToken="once") == started


def test_a_chat_with_a_topic_of_no_use_does_not_start(aws: Account) -> None:
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*StreamingEndpointArn"):
        aws.start(ChatStreamingConfiguration={"StreamingEndpointArn": f"{TOPIC}.fifo"})
    assert aws.world.contacts == {}


def test_the_websockets_host_is_the_one_that_was_asked(aws: Account) -> None:
    token = aws.start()["ParticipantToken"]
    headers = {"X-Amz-Bearer": token, "Host": "simulator:8080"}
    answer = aws.send("POST", "/participant/connection", {"Type": ["WEBSOCKET"]}, **headers)
    assert b'"ws://simulator:8080/participant/websocket?' in answer.body
    assert b"ConnectionCredentials" not in answer.body


def test_whether_a_bot_may_have_a_websocket_is_a_dial() -> None:
    aws = Account(websocket_works_for_a_custom_bot=False)
    chat, _ = aws.chat()
    token = aws.bot_token(chat)
    with pytest.raises(Refused, match="400 ValidationException Type"):
        aws.connect(token, Type=["WEBSOCKET"])
    assert aws.told(chat)["custom_bots"]["connected"] == 0


def test_the_retired_acknowledgement_connects_if_the_dial_says_so() -> None:
    aws = Account(retired_acknowledgement_connects=True)
    started = aws.start()
    bearer = aws.connect(started["ParticipantToken"], ConnectParticipant=False)
    token = bearer["ConnectionCredentials"]["ConnectionToken"]
    aws.signal(token, "connection.acknowledged")
    aws.signal(token, "connection.acknowledged")
    aws.say(token)
    assert [name for name, _, _ in events(aws, started["ContactId"])] == ["participant.joined"]
