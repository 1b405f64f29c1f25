"""Connect's rules, call by call, in virtual time and without a socket."""

from typing import Any

import pytest

from attachd.simulator.dials import Dials
from attachd.simulator.front.truth import truth
from unit.account import Account, Refused

JOINED = "application/vnd.amazonaws.connect.event.participant.joined"
LEFT = "application/vnd.amazonaws.connect.event.participant.left"
ENDED = "application/vnd.amazonaws.connect.event.chat.ended"


@pytest.fixture
def aws() -> Account:
    return Account()


# ── the life of a contact ──────────────────────────────────────────────────────────────────────


def test_a_chat_is_initiated_then_connected_by_its_customer_then_disconnected(aws: Account) -> None:
    chat = aws.start()
    aws.now += 1
    customer = aws.join(chat["ParticipantToken"])
    aws.now += 1
    aws.leave(customer)
    assert [event["detail"]["eventType"] for event in aws.events] == [
        "INITIATED",
        "CONNECTED_TO_SYSTEM",
        "DISCONNECTED",
        "COMPLETED",
    ]
    described = aws.describe(chat["ContactId"])
    assert described["InitiationTimestamp"] == 1_800_000_000
    assert described["ConnectedToSystemTimestamp"] == 1_800_000_001
    assert described["DisconnectTimestamp"] == 1_800_000_002
    assert described["DisconnectReason"] == "CUSTOMER_DISCONNECT"


def test_a_contact_event_has_the_documented_shape(aws: Account) -> None:
    chat = aws.start(
        Attributes={"secret": "never in an event"},
        SegmentAttributes={"brand": {"ValueMap": {"tier": {"ValueList": [{"ValueInteger": 3}]}}}},
    )
    (event,) = aws.events
    arn = aws.dials.instance_arn
    assert event == {
        "version": "0",
        "id": event["id"],
        "detail-type": "Amazon Connect Contact Event",
        "source": "aws.connect",
        "account": "111122223333",
        "time": "2027-01-15T08:00:00Z",
        "region": "eu-central-1",
        "resources": [f"{arn}/contact/{chat['ContactId']}", arn],
        "detail": {
            "eventType": "INITIATED",
            "contactId": chat["ContactId"],
            "channel": "CHAT",
            "instanceArn": arn,
            "initiationMethod": "API",
            "initiationTimestamp": "2027-01-15T08:00:00.000Z",
            "segmentAttributes": {
                "connect:Subtype": {"valueString": "connect:Chat"},
                "brand": {"valueMap": {"tier": {"valueList": [{"valueInteger": 3}]}}},
            },
            "tags": {"aws:connect:instanceId": aws.dials.instance_id},
        },
    }


def test_the_client_token_of_start_chat_starts_one_chat(aws: Account) -> None:
    assert aws.start(ClientToken="once") == aws.start(ClientToken="once")
    assert aws.start(ClientToken="twice")["ContactId"] != aws.start()["ContactId"]
    assert len(aws.world.contacts) == 3


def test_a_stopped_chat_cannot_be_stopped_again(aws: Account) -> None:
    chat = aws.start()
    assert aws.stop(chat["ContactId"]) == {}
    with pytest.raises(Refused, match="410 ContactNotFoundException"):
        aws.stop(chat["ContactId"])


@pytest.mark.parametrize("verb", ["stop", "describe", "create"])
def test_an_unknown_contact_is_not_found(aws: Account, verb: str) -> None:
    with pytest.raises(Refused, match="404 ResourceNotFoundException"):
        getattr(aws, verb)("no-such-contact")


def test_an_unknown_instance_is_not_found(aws: Account) -> None:
    with pytest.raises(Refused, match=r"404 ResourceNotFoundException .*InstanceId"):
        aws.start(InstanceId="another")


# ── CreateParticipant ──────────────────────────────────────────────────────────────────────────


def test_a_bot_is_created_once_and_replayed_token_and_all(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    first = aws.create(chat, ClientToken="generation-0")
    aws.now += 60
    assert aws.create(chat, ClientToken="generation-0") == first
    assert truth(aws.world)["contacts"][0]["custom_bots"] == {"existed": 1, "connected": 0, "spoke": 0}


def test_a_client_token_is_forgotten_after_its_window() -> None:
    aws = Account(client_token_remembered_seconds=30)
    chat = aws.start()["ContactId"]
    first = aws.create(chat, ClientToken="generation-0")
    aws.now += 30
    assert aws.create(chat, ClientToken="generation-0") != first


def test_a_client_token_belongs_to_its_contact(aws: Account) -> None:
    one, other = aws.start()["ContactId"], aws.start()["ContactId"]
    assert aws.create(one, ClientToken="t") != aws.create(other, ClientToken="t")


def test_a_second_bot_exceeds_the_quota_of_the_contact(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.create(chat, ClientToken="one")
    with pytest.raises(Refused, match="402 ServiceQuotaExceededException"):
        aws.create(chat, ClientToken="other")


def test_a_bot_which_has_left_makes_room_for_the_next(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.leave(aws.join(aws.bot_token(chat)))
    aws.join(aws.bot_token(chat))
    assert truth(aws.world)["contacts"][0]["custom_bots"]["connected"] == 2


@pytest.mark.parametrize("frees", [True, False])
def test_whether_a_lapsed_bot_frees_its_slot_is_a_dial(*, frees: bool) -> None:
    aws = Account(lapsed_bot_frees_its_slot=frees)
    chat = aws.start()["ContactId"]
    aws.create(chat, ClientToken="one")
    aws.now += 15.001
    if frees:
        aws.create(chat, ClientToken="next")
    else:
        with pytest.raises(Refused, match="402"):
            aws.create(chat, ClientToken="next")


def test_an_ended_contact_takes_no_bot_not_even_a_replayed_one(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.create(chat, ClientToken="one")
    aws.stop(chat)
    with pytest.raises(Refused, match="404 ResourceNotFoundException"):
        aws.create(chat, ClientToken="one")


@pytest.mark.parametrize("role", ["AGENT", "CUSTOMER", "SYSTEM", "SUPERVISOR"])
def test_only_a_custom_bot_may_be_added_to_a_chat(aws: Account, role: str) -> None:
    with pytest.raises(Refused, match="400 InvalidRequestException ParticipantRole"):
        aws.create(aws.start()["ContactId"], role=role)


@pytest.mark.parametrize("details", [{}, {"DisplayName": None}])
def test_a_bot_needs_a_display_name(aws: Account, details: dict[str, Any]) -> None:
    chat = aws.start()["ContactId"]
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*DisplayName"):
        aws.create(chat, ParticipantDetails={"ParticipantRole": "CUSTOM_BOT"} | details)


def test_eight_calls_may_come_at_once_and_then_five_a_second(aws: Account) -> None:
    chats = [aws.start()["ContactId"] for _ in range(20)]
    for chat in chats[:8]:
        aws.create(chat)
    with pytest.raises(Refused, match="429 ThrottlingException"):
        aws.create(chats[8])
    aws.now += 0.2
    aws.create(chats[8])
    with pytest.raises(Refused, match="429"):
        aws.create(chats[9])


def test_a_call_for_a_vanished_chat_spends_quota_all_the_same() -> None:
    aws = Account(burst=1)
    with pytest.raises(Refused, match="404"):
        aws.create("gone")
    with pytest.raises(Refused, match="429"):
        aws.create(aws.start()["ContactId"])


# ── the fifteen seconds, and the bearer tokens ─────────────────────────────────────────────────


def test_a_bot_may_connect_at_fifteen_seconds_but_not_later(aws: Account) -> None:
    in_time, late = aws.bot_token(aws.start()["ContactId"]), aws.bot_token(aws.start()["ContactId"])
    aws.now += 15
    aws.connect(in_time)
    aws.now += 0.001
    with pytest.raises(Refused, match="404 ResourceNotFoundException"):
        aws.connect(late)


def test_a_bot_which_connected_in_time_may_connect_again_later(aws: Account) -> None:
    token = aws.bot_token(aws.chat()[0])
    aws.connect(token)
    aws.now += 3600
    assert aws.join(token)
    assert aws.world.participants[token].connected_at == 1_800_000_000


def test_credentials_alone_do_not_make_a_bot_connected(aws: Account) -> None:
    token = aws.bot_token(aws.start()["ContactId"])
    connection = aws.connect(token, ConnectParticipant=False)["ConnectionCredentials"]["ConnectionToken"]
    with pytest.raises(Refused, match="403 AccessDeniedException"):
        aws.say(connection)
    aws.now += 16
    with pytest.raises(Refused, match="404"):
        aws.connect(token)


def test_a_connection_token_lasts_a_day(aws: Account) -> None:
    answer = aws.connect(aws.start()["ParticipantToken"])["ConnectionCredentials"]
    assert answer["Expiry"] == "2027-01-16T08:00:00.000Z"
    aws.now += 86399
    aws.say(answer["ConnectionToken"])
    aws.now += 1
    with pytest.raises(Refused, match="403"):
        aws.say(answer["ConnectionToken"])


@pytest.mark.parametrize("verb", ["connect", "say", "read", "leave"])
def test_a_bearer_nobody_issued_is_denied(aws: Account, verb: str) -> None:
    with pytest.raises(Refused, match="403 AccessDeniedException"):
        getattr(aws, verb)("forged")


@pytest.mark.parametrize("verb", ["say", "read", "leave"])
def test_a_participant_token_is_no_connection_token(aws: Account, verb: str) -> None:
    with pytest.raises(Refused, match="403"):
        getattr(aws, verb)(aws.start()["ParticipantToken"])


@pytest.mark.parametrize("verb", ["connect", "say", "read", "leave"])
def test_every_token_is_dead_once_the_chat_has_ended(aws: Account, verb: str) -> None:
    chat = aws.start()
    token = aws.bot_token(chat["ContactId"])
    bearer = aws.join(token)
    aws.stop(chat["ContactId"])
    with pytest.raises(Refused, match="403 AccessDeniedException"):
        getattr(aws, verb)(token if verb == "connect" else bearer)


def test_a_connection_type_not_played_yet_is_refused_by_name(aws: Account) -> None:
    with pytest.raises(Refused, match=r"400 ValidationException .*WEBRTC_CONNECTION"):
        aws.connect(aws.start()["ParticipantToken"], Type=["WEBRTC_CONNECTION"])


def test_connecting_needs_a_type_or_the_wish_to_connect(aws: Account) -> None:
    token = aws.start()["ParticipantToken"]
    with pytest.raises(Refused, match="400 ValidationException Type"):
        aws.ask("POST", "/participant/connection", {}, token)
    assert aws.ask("POST", "/participant/connection", {"ConnectParticipant": True}, token) == {}


# ── talking ────────────────────────────────────────────────────────────────────────────────────


def test_the_transcript_tells_who_joined_spoke_and_left(aws: Account) -> None:
    chat = aws.start(InitialMessage={"ContentType": "text/plain", "Content": "anyone?"})
    customer = aws.join(chat["ParticipantToken"])
    bot = aws.join(aws.bot_token(chat["ContactId"]))
    aws.say(bot)
    aws.leave(bot)
    assert aws.kinds(customer) == ["text/plain", JOINED, JOINED, "text/plain", LEFT]
    items = aws.read(customer)["Transcript"]
    assert [item["Type"] for item in items] == ["EVENT", "MESSAGE", "EVENT", "EVENT", "MESSAGE"]
    assert items[1]["ParticipantRole"] == "CUSTOM_BOT"
    assert items[1]["DisplayName"] == "Ava"
    assert items[1]["Content"] == "hello"


def test_the_customer_ends_the_chat_by_leaving_and_the_bot_does_not(aws: Account) -> None:
    chat = aws.start()
    customer = aws.join(chat["ParticipantToken"])
    bot = aws.join(aws.bot_token(chat["ContactId"]))
    aws.leave(bot)
    assert aws.world.contacts[chat["ContactId"]].stage == "CONNECTED"
    aws.leave(customer)
    contact = aws.world.contacts[chat["ContactId"]]
    assert contact.stage == "ENDED"
    assert [item.content_type for item in contact.transcript] == [JOINED, JOINED, LEFT, LEFT, ENDED]


def test_the_same_client_token_says_a_thing_once(aws: Account) -> None:
    bearer = aws.join(aws.start()["ParticipantToken"])
    assert aws.say(bearer, ClientToken="once") == aws.say(bearer, ClientToken="once")
    assert aws.kinds(bearer) == [JOINED, "text/plain"]


@pytest.mark.parametrize(
    ("kind", "longest"),
    [
        ("text/plain", 1024),
        ("text/markdown", 1024),
        ("application/json", 12000),
        ("application/vnd.amazonaws.connect.message.interactive.response", 12288),
    ],
)
def test_a_message_may_be_as_long_as_its_content_type_allows(aws: Account, kind: str, longest: int) -> None:
    bearer = aws.join(aws.start()["ParticipantToken"])
    aws.say(bearer, "x" * longest, kind)
    with pytest.raises(Refused, match="400 ValidationException Content"):
        aws.say(bearer, "x" * (longest + 1), kind)


def test_an_unsupported_content_type_is_refused(aws: Account) -> None:
    with pytest.raises(Refused, match="400 ValidationException ContentType"):
        aws.say(aws.join(aws.start()["ParticipantToken"]), kind="text/html")


@pytest.fixture
def talk(aws: Account) -> tuple[Account, str]:
    """A chat of 25 items, one a second: the joining, then messages 1 to 24."""
    bearer = aws.join(aws.start()["ParticipantToken"])
    for number in range(1, 25):
        aws.now += 1
        aws.say(bearer, str(number))
    return aws, bearer


def shown(page: Any) -> list[str]:
    return [item.get("Content", "joined") for item in page["Transcript"]]


def test_a_transcript_shows_the_ten_latest_items_latest_first(talk: tuple[Account, str]) -> None:
    aws, bearer = talk
    assert shown(aws.read(bearer)) == [str(number) for number in range(24, 14, -1)]


@pytest.mark.parametrize("direction", ["FORWARD", "BACKWARD"])
@pytest.mark.parametrize("size", [1, 7, 25, 100])
def test_following_next_token_shows_every_item_once(
    talk: tuple[Account, str], direction: str, size: int
) -> None:
    aws, bearer = talk
    seen: list[str] = []
    ask: dict[str, Any] = {"ScanDirection": direction, "MaxResults": size}
    while True:
        page = aws.read(bearer, **ask)
        assert len(page["Transcript"]) <= size
        seen += shown(page)
        if "NextToken" not in page:
            break
        ask["NextToken"] = page["NextToken"]
    assert sorted(seen) == sorted(["joined", *map(str, range(1, 25))])


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({"StartPosition": {"MostRecent": 2}}, ["24", "23"]),
        ({"StartPosition": {"MostRecent": 2}, "SortOrder": "ASCENDING"}, ["23", "24"]),
        ({"StartPosition": {"AbsoluteTime": "2027-01-15T08:00:22.500Z"}}, ["24", "23"]),
        (
            {"StartPosition": {"AbsoluteTime": "2027-01-15T08:00:01.500Z"}, "ScanDirection": "BACKWARD"},
            ["1", "joined"],
        ),
        ({"ScanDirection": "FORWARD", "SortOrder": "ASCENDING", "MaxResults": 2}, ["joined", "1"]),
        ({"StartPosition": {"AbsoluteTime": "2030-01-01T00:00:00Z"}}, []),
        ({"StartPosition": {"AbsoluteTime": "1999-01-01T00:00:00"}, "ScanDirection": "BACKWARD"}, []),
    ],
)
def test_a_transcript_starts_where_it_is_told(
    talk: tuple[Account, str], ask: dict[str, Any], expected: list[str]
) -> None:
    aws, bearer = talk
    assert shown(aws.read(bearer, **ask)) == expected


def test_a_transcript_starts_at_a_named_item(talk: tuple[Account, str]) -> None:
    aws, bearer = talk
    item_id = aws.read(bearer, StartPosition={"MostRecent": 3})["Transcript"][-1]["Id"]
    assert shown(aws.read(bearer, StartPosition={"Id": item_id})) == ["24", "23", "22"]


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        ({"NextToken": "forged"}, "NextToken"),
        ({"StartPosition": {"Id": "nowhere"}}, "StartPosition.Id"),
        ({"StartPosition": {"AbsoluteTime": "noon"}}, "StartPosition.AbsoluteTime"),
        ({"MaxResults": 101}, "MaxResults"),
    ],
)
def test_a_position_that_makes_no_sense_is_refused(
    talk: tuple[Account, str], ask: dict[str, Any], field: str
) -> None:
    aws, bearer = talk
    with pytest.raises(Refused, match=f"400 ValidationException .*{field}"):
        aws.read(bearer, **ask)


def test_another_contacts_transcript_is_denied(aws: Account) -> None:
    bearer = aws.join(aws.start()["ParticipantToken"])
    with pytest.raises(Refused, match="403"):
        aws.read(bearer, ContactId=aws.start()["ContactId"])


# ── what the simulator itself promises ─────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_ids_and_tokens_and_another_does_not() -> None:
    def story(seed: int) -> Any:
        aws = Account(seed=seed)
        return aws.start(), aws.create(next(iter(aws.world.contacts))), aws.events

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_every_token_carries_the_marker_and_the_truth_carries_none() -> None:
    aws = Account(token_marker="CANARY")
    chat = aws.start()
    bot = aws.bot_token(chat["ContactId"])
    for token in (chat["ParticipantToken"], bot, aws.join(bot), aws.join(chat["ParticipantToken"])):
        assert "CANARY" in token
    assert "CANARY" not in repr(truth(aws.world))
    assert "CANARY" not in repr(list(aws.world.participants.values()))
    assert "CANARY" not in repr(aws.events)


def test_the_truth_counts_bots_which_existed_connected_and_spoke(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.create(chat)
    aws.now += 16
    quiet = aws.join(aws.bot_token(chat))
    aws.leave(quiet)
    aws.say(aws.join(aws.bot_token(chat)))
    told = truth(aws.world)
    assert told["contacts"][0]["custom_bots"] == {"existed": 3, "connected": 2, "spoke": 1}
    assert [call["operation"] for call in told["calls"]][:2] == ["StartChatContact", "CreateParticipant"]
    assert {call["contact_id"] for call in told["calls"]} == {chat}
    assert told["messages"][0]["role"] == "CUSTOM_BOT"


def test_the_truth_remembers_refused_calls_with_their_code(aws: Account) -> None:
    with pytest.raises(Refused):
        aws.create("gone")
    (call,) = truth(aws.world)["calls"]
    assert call == {
        "operation": "CreateParticipant",
        "at": aws.now,
        "status": 404,
        "code": "ResourceNotFoundException",
        "contact_id": "gone",
        "instance_id": aws.instance_id,
        "fault": "",
        "effect": False,
    }


@pytest.mark.parametrize(
    "dials",
    [
        {"instance_arn": "arn:aws:s3:::bucket"},
        {"token_marker": "white space"},
        {"token_marker": ""},
        {"rate": -1},
        {"burst": 0},
    ],
)
def test_a_dial_that_makes_no_sense_is_refused(dials: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"instance|token_marker|rate|burst"):
        Dials(**dials)
