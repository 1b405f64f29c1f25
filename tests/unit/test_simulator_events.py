"""Contact events, field by field, for every step of a contact's life."""

from typing import Any

import pytest

from unit.account import Account


def of(aws: Account, contact_id: str) -> dict[str, Any]:
    """The details of a contact's events by type, the last of each."""
    details = [event["detail"] for event in aws.events]
    return {each["eventType"]: each for each in details if each["contactId"] == contact_id}


def test_every_step_of_a_chat_adds_its_own_fields_and_keeps_the_others() -> None:
    aws = Account(after_contact_work_seconds=90)
    started = aws.start(CustomerId="customer-7")
    chat = started["ContactId"]
    aws.pass_time(1)
    cleo = aws.join(started["ParticipantToken"])
    aws.say(cleo)
    aws.pass_time(1)
    aws.control(chat, "queue", queue="gold")
    aws.pass_time(1)
    aws.control(chat, "agent")
    aws.pass_time(1)
    aws.control(chat, "end")
    aws.pass_time(90)
    arn = aws.dials.instance_arn
    before = {
        "contactId": chat,
        "channel": "CHAT",
        "instanceArn": arn,
        "initiationMethod": "API",
        "initiationTimestamp": "2027-01-15T08:00:00.000Z",
        "customerId": "customer-7",
        "segmentAttributes": {"connect:Subtype": {"valueString": "connect:Chat"}},
        "tags": {"aws:connect:instanceId": aws.instance_id},
    }
    steps: dict[str, dict[str, Any]] = {
        "INITIATED": {},
        "CONNECTED_TO_SYSTEM": {"connectedToSystemTimestamp": "2027-01-15T08:00:01.000Z"},
        "QUEUED": {
            "queueInfo": {
                "queueArn": f"{arn}/queue/gold",
                "queueType": "STANDARD",
                "enqueueTimestamp": "2027-01-15T08:00:02.000Z",
            }
        },
        "CONNECTED_TO_AGENT": {
            "agentInfo": {
                "agentArn": aws.world.contacts[chat].agent_arn,
                "connectedToAgentTimestamp": "2027-01-15T08:00:03.000Z",
            }
        },
        "DISCONNECTED": {
            "disconnectTimestamp": "2027-01-15T08:00:04.000Z",
            "chatMetrics": {
                "chatContactMetrics": {
                    "multiParty": False,
                    "totalMessages": 1,
                    "totalBotMessages": 0,
                    "totalBotMessageLengthInChars": 0,
                    "conversationTurnCount": 0,
                    "conversationCloseTimeInMillis": 3000,
                },
                "customerMetrics": {
                    "participantId": started["ParticipantId"],
                    "participantType": "Customer",
                    "messagesSent": 1,
                    "messageLengthInChars": 5,
                    "lastMessageTimestamp": "2027-01-15T08:00:01.000Z",
                },
            },
        },
        "COMPLETED": {},
    }
    told = of(aws, chat)
    assert list(told) == list(steps)
    for event_type, adds in steps.items():
        before |= adds
        if event_type == "COMPLETED":
            before["agentInfo"] = before["agentInfo"] | {
                "afterContactWorkStartTimestamp": "2027-01-15T08:00:04.000Z",
                "afterContactWorkEndTimestamp": "2027-01-15T08:01:34.000Z",
                "afterContactWorkDuration": 90,
            }
        assert told[event_type] == before | {"eventType": event_type}


def test_metrics_count_who_said_how_much_and_how_soon_the_agent_answered() -> None:
    aws = Account()
    chat, cleo = aws.chat()
    bot = aws.join(aws.bot_token(chat))
    aws.say(cleo, "hello")
    aws.say(bot, "how may I help?")
    aws.say(cleo, "an agent")
    aws.control(chat, "agent")
    aws.pass_time(2)
    agent = next(member for member in aws.world.contacts[chat].participants if member.role == "AGENT")
    aws.say(aws.world.issue_connection(agent, aws.now + 60), "here I am")
    described = aws.describe(chat)
    aws.control(chat, "transfer")
    assert described["ChatMetrics"] == {
        "ChatContactMetrics": {
            "MultiParty": False,
            "TotalMessages": 4,
            "TotalBotMessages": 1,
            "TotalBotMessageLengthInChars": 15,
            "ConversationTurnCount": 2,
            "AgentFirstResponseTimestamp": aws.now,
            "AgentFirstResponseTimeInMillis": 2000,
        },
        "AgentMetrics": {
            "ParticipantId": agent.id,
            "ParticipantType": "Agent",
            "MessagesSent": 1,
            "MessageLengthInChars": 9,
            "LastMessageTimestamp": aws.now,
        },
        "CustomerMetrics": described["ChatMetrics"]["CustomerMetrics"],
    }
    following = aws.events[-1]["detail"]["contactId"]
    assert aws.describe(following)["ChatMetrics"]["ChatContactMetrics"]["TotalMessages"] == 0


@pytest.mark.parametrize(("dial", "shown"), [("absent", None), ("1970", "1970-01-01T00:00:00.001Z")])
def test_how_an_event_writes_a_moment_yet_to_come_is_a_dial(dial: str, shown: str | None) -> None:
    aws = Account(event_moments_yet_to_come=dial)
    chat, _ = aws.chat()
    assert of(aws, chat)["INITIATED"].get("connectedToSystemTimestamp") == shown
    assert of(aws, chat)["CONNECTED_TO_SYSTEM"]["connectedToSystemTimestamp"] == "2027-01-15T08:00:00.000Z"


@pytest.mark.parametrize("dial", ["valueString", "ValueString"])
def test_how_an_event_spells_segment_attributes_is_a_dial(dial: str) -> None:
    aws = Account(event_segment_attributes_have=dial)
    chat, _ = aws.chat()
    assert of(aws, chat)["INITIATED"]["segmentAttributes"] == {"connect:Subtype": {dial: "connect:Chat"}}


@pytest.mark.parametrize(("dial", "place"), [("contact", 0), ("instance", 1)])
def test_whose_arn_comes_first_in_an_events_resources_is_a_dial(dial: str, place: int) -> None:
    aws = Account(event_resources_begin_with=dial)
    chat, _ = aws.chat()
    assert aws.events[0]["resources"][place].endswith(f"/contact/{chat}")
    assert aws.events[0]["resources"][1 - place] == aws.dials.instance_arn
