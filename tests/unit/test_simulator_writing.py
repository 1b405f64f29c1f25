"""What can be written on a contact, and how contacts are found again, in virtual time and without a socket."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.simulator.operations.streaming import notifications
from unit.account import TOPIC, Account, Refused


@pytest.fixture
def aws() -> Account:
    return Account()


# ── attributes and tags ────────────────────────────────────────────────────────────────────────


def test_attributes_are_added_and_replaced_and_announced_without_their_values(aws: Account) -> None:
    chat = aws.start(Attributes={"plan": "gold", "name": "Cleo"})["ContactId"]
    aws.update(chat, plan="silver", mood="fine")
    assert aws.attributes(chat) == {"plan": "silver", "name": "Cleo", "mood": "fine"}
    assert aws.events[-1]["detail"]["eventType"] == "CONTACT_DATA_UPDATED"
    assert aws.events[-1]["detail"]["updatedProperties"] == ["UserDefinedAttributes"]
    assert "silver" not in repr(aws.events)


def test_attributes_of_an_ended_chat_can_still_be_written(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.stop(chat)
    aws.update(chat, resolved="yes")
    assert aws.describe(chat)["Attributes"] == {"resolved": "yes"}


def test_attributes_too_large_together_change_nothing(aws: Account) -> None:
    chat = aws.start(Attributes={"a": "x" * 20_000})["ContactId"]
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*32768"):
        aws.update(chat, b="é" * 7_000)
    assert set(aws.attributes(chat)) == {"a"}


@pytest.mark.parametrize("name", ["white space", "dotted.name", "ä"])
def test_an_attribute_name_of_other_characters_is_refused(aws: Account, name: str) -> None:
    with pytest.raises(Refused, match=r"400 InvalidRequestException Attributes"):
        aws.update(aws.start()["ContactId"], **{name: "value"})


def test_tags_appear_in_later_events_and_not_in_earlier_ones(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.tag(chat, language="de")
    aws.tag(chat, tier="gold")
    aws.untag(chat, "language", "never-there")
    aws.stop(chat)
    system = {"aws:connect:instanceId": aws.dials.instance_id}
    tags = [event["detail"]["tags"] for event in aws.events if event["detail"]["eventType"] != "COMPLETED"]
    assert tags == [
        system,
        system,
        system | {"language": "de"},
        system | {"language": "de", "tier": "gold"},
        system | {"tier": "gold"},
        system | {"tier": "gold"},
    ]
    assert [event["detail"].get("updatedProperties") for event in aws.events[2:5]] == [["Tags"]] * 3


def test_a_seventh_tag_is_refused_however_they_were_added(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.tag(chat, **{f"key{number}": "v" for number in range(6)})
    aws.tag(chat, key0="another")
    with pytest.raises(Refused, match=r"400 InvalidRequestException Tags"):
        aws.tag(chat, key6="v")


def test_a_tag_of_awss_own_cannot_be_removed(aws: Account) -> None:
    with pytest.raises(Refused, match=r"400 .*TagKeys"):
        aws.untag(aws.start()["ContactId"], "aws:connect:instanceId")


@pytest.mark.parametrize("verb", ["attributes", "update", "tag", "stream"])
def test_an_unknown_contact_is_not_found(aws: Account, verb: str) -> None:
    more = {"k": "v"} if verb in {"update", "tag"} else {}
    with pytest.raises(Refused, match="404 ResourceNotFoundException"):
        getattr(aws, verb)("no-such-contact", **more)


# ── streaming and timers ───────────────────────────────────────────────────────────────────────


def test_a_chat_streams_to_two_topics_and_one_that_stops_makes_room(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    first, _ = aws.stream(chat, token="1"), aws.stream(chat, token="2")
    with pytest.raises(Refused, match="429 LimitExceededException"):
        aws.stream(chat, token="3")
    aws.unstream(chat, first)
    aws.stream(chat, token="3")
    assert [stream["topic_arn"] for stream in aws.told(chat)["streams"]] == [TOPIC, TOPIC]


def test_the_same_client_token_streams_once(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    assert aws.stream(chat, token="once") == aws.stream(chat, token="once")
    assert len(aws.told(chat)["streams"]) == 1


@pytest.mark.parametrize(
    "topic",
    [
        f"{TOPIC}.fifo",
        TOPIC.replace("eu-central-1", "us-east-1"),
        TOPIC.replace("sns", "sqs"),
        "chats",
    ],
)
def test_only_a_standard_topic_of_the_instances_region_is_streamed_to(aws: Account, topic: str) -> None:
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*StreamingEndpointArn"):
        aws.stream(aws.start()["ContactId"], topic)


def test_a_stream_nobody_started_cannot_be_stopped(aws: Account) -> None:
    with pytest.raises(Refused, match=r"404 ResourceNotFoundException .*StreamingId"):
        aws.unstream(aws.start()["ContactId"], "no-such-stream")


def test_streaming_belongs_to_the_initial_contact_and_outlives_it(aws: Account) -> None:
    first, _ = aws.chat()
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]
    with pytest.raises(Refused, match=r"404 .*initial"):
        aws.stream(second)
    aws.stream(first)
    aws.stop(second)
    with pytest.raises(Refused, match=r"404 .*ended"):
        aws.stream(first)


def test_a_stream_tells_of_every_contact_of_its_chat_and_of_no_other(aws: Account) -> None:
    published: list[dict[str, Any]] = []
    aws.api.listeners.append(lambda lines: published.extend(notifications(aws.world, lines)))
    first, cleo = aws.chat()
    stream = aws.stream(first)
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]
    aws.say(cleo)
    aws.say(aws.chat()[1])
    aws.unstream(first, stream)
    aws.leave(cleo)
    told = [
        (attributes["ContactId"]["StringValue"], attributes["ContentType"]["StringValue"].rpartition(".")[2])
        for attributes in (each["MessageAttributes"] for each in published)
    ]
    assert told == [(first, "joined"), (first, "left"), (first, "succeeded"), (second, "text/plain")]
    assert {each["MessageAttributes"]["InitialContactId"]["StringValue"] for each in published} == {first}


def test_timers_are_set_replaced_and_unset(aws: Account) -> None:
    chat = aws.start()["ContactId"]
    aws.set_timers(chat, ParticipantTimerDurationInMinutes=5)
    aws.set_timers(chat, ParticipantTimerDurationInMinutes=7)
    assert aws.told(chat)["timers"] == [{"role": "CUSTOMER", "type": "IDLE", "minutes": 7}]
    aws.set_timers(chat, ParticipantTimerAction="Unset")
    assert aws.told(chat)["timers"] == []


@pytest.mark.parametrize(
    "value", [{}, {"ParticipantTimerDurationInMinutes": 5, "ParticipantTimerAction": "Unset"}]
)
def test_a_timers_value_is_one_thing(aws: Account, value: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"400 InvalidRequestException TimerValue"):
        aws.set_timers(aws.start()["ContactId"], **value)


# ── search ─────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(
    before=st.lists(st.integers(0, 3), max_size=20),
    size=st.integers(1, 7),
    order=st.sampled_from(["ASCENDING", "DESCENDING"]),
)
def test_pages_hold_every_contact_once_whoever_comes_meanwhile(
    before: list[int], size: int, order: str
) -> None:
    aws = Account()
    chats = set()
    for gap in before:
        aws.now += gap
        chats.add(aws.start()["ContactId"])
    found: list[str] = []
    newcomers = iter(range(5))
    more: dict[str, str] = {}
    while True:
        page = aws.search(MaxResults=size, Sort={"FieldName": "INITIATION_TIMESTAMP", "Order": order}, **more)
        assert len(page["Contacts"]) <= size
        found += [contact["Id"] for contact in page["Contacts"]]
        if next(newcomers, None) is not None:
            aws.start()
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert chats <= set(found)
    assert len(found) == len(set(found))


def test_a_search_counts_all_and_shows_a_page(aws: Account) -> None:
    for _ in range(3):
        aws.start()
    page = aws.search(MaxResults=2)
    assert (page["TotalCount"], len(page["Contacts"])) == (3, 2)


def test_contacts_are_found_by_how_they_began_and_by_their_agent(aws: Account) -> None:
    first, _ = aws.chat()
    aws.control(first, "agent")
    second = aws.control(first, "transfer")["contact_id"]

    def ids(**criteria: Any) -> list[str]:
        return [contact["Id"] for contact in aws.search(SearchCriteria=criteria)["Contacts"]]

    assert ids(InitiationMethods=["TRANSFER"]) == [second]
    assert ids(InitiationMethods=["API"], Channels=["CHAT"]) == [first]
    assert ids(Channels=["VOICE"]) == []
    assert ids(AgentIds=[aws.describe(first)["AgentInfo"]["Id"]]) == [first]
    assert set(ids(QueueIds=["standard"])) == {first, second}


def test_a_search_by_the_moment_of_the_end_finds_the_ended_only(aws: Account) -> None:
    ended, _ = aws.start()["ContactId"], aws.start()
    aws.stop(ended)
    when = {"Type": "DISCONNECT_TIMESTAMP", "StartTime": aws.now, "EndTime": aws.now}
    assert [contact["Id"] for contact in aws.search(TimeRange=when)["Contacts"]] == [ended]


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        ({"NextToken": "forged"}, "NextToken"),
        ({"NextToken": "é"}, "NextToken"),
        ({"TimeRange": {"Type": "INITIATION_TIMESTAMP", "StartTime": 2, "EndTime": 1}}, "EndTime"),
        ({"TimeRange": {"Type": "INITIATION_TIMESTAMP", "StartTime": 0, "EndTime": 9e9}}, "TimeRange"),
        ({"Sort": {"FieldName": "CHANNEL", "Order": "ASCENDING"}}, "FieldName"),
        ({"SearchCriteria": {"ActiveRegions": ["eu-central-1"]}}, "ActiveRegions"),
    ],
)
def test_a_search_that_makes_no_sense_or_is_not_played_is_refused(
    aws: Account, ask: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused, match=f"400 InvalidParameterException .*{field}"):
        aws.search(**ask)


def test_a_moment_that_is_no_number_is_a_serialization_error(aws: Account) -> None:
    when = {"Type": "INITIATION_TIMESTAMP", "StartTime": "noon", "EndTime": 1}
    with pytest.raises(Refused, match=r"400 SerializationException .*StartTime"):
        aws.search(TimeRange=when)


# ── typing and receipts ────────────────────────────────────────────────────────────────────────


def test_typing_is_a_line_of_the_transcript(aws: Account) -> None:
    _, cleo = aws.chat()
    answer = aws.signal(cleo, "typing")
    (line,) = aws.read(cleo, MaxResults=1)["Transcript"]
    assert (line["Id"], line["Type"]) == (answer["Id"], "EVENT")
    assert line["ContentType"].endswith("event.typing")
    assert "Content" not in line


def test_a_receipt_stands_in_the_metadata_of_its_message(aws: Account) -> None:
    chat, cleo = aws.chat()
    bot = aws.join(aws.bot_token(chat))
    message = aws.say(bot)["Id"]
    aws.signal(cleo, "message.delivered", Content=f'{{"messageId":"{message}"}}')
    aws.now += 1
    aws.signal(cleo, "message.read", Content=f'{{"messageId":"{message}"}}')
    (line,) = aws.read(bot, MaxResults=1)["Transcript"]
    (receipt,) = line["MessageMetadata"]["Receipts"]
    assert receipt["DeliveredTimestamp"] == "2027-01-15T08:00:00.000Z"
    assert receipt["ReadTimestamp"] == "2027-01-15T08:00:01.000Z"


def test_receipts_conflict_with_a_third_participant(aws: Account) -> None:
    chat, cleo = aws.chat()
    message = aws.say(aws.join(aws.bot_token(chat)))["Id"]
    third = aws.world.add(aws.world.contacts[chat], "SUPERVISOR", "Sue", aws.now)
    aws.world.connect(third, aws.now)
    with pytest.raises(Refused, match="409 ConflictException"):
        aws.signal(cleo, "message.read", Content=f'{{"messageId":"{message}"}}')


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"messageId":"nowhere"}', "{}", '{"messageId":{}}'])
def test_a_receipt_for_nothing_is_refused(aws: Account, content: str) -> None:
    _, cleo = aws.chat()
    with pytest.raises(Refused, match=r"400 ValidationException Content"):
        aws.signal(cleo, "message.read", Content=content)


@pytest.mark.parametrize("kind", ["connection.acknowledged", "participant.joined", "chat.ended"])
def test_nobody_may_send_an_event_of_the_systems_or_a_retired_one(aws: Account, kind: str) -> None:
    _, cleo = aws.chat()
    with pytest.raises(Refused, match=r"400 ValidationException ContentType"):
        aws.signal(cleo, kind)


def test_the_same_client_token_types_once(aws: Account) -> None:
    _, cleo = aws.chat()
    assert aws.signal(cleo, "typing", ClientToken="once") == aws.signal(cleo, "typing", ClientToken="once")
    assert len(aws.read(cleo)["Transcript"]) == 2
