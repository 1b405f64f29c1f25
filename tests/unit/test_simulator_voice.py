"""WebRTC calls: who may be added, when, and what their contacts announce."""

from typing import Any

import pytest

from attachd.simulator.ledger import report
from unit.account import CREDENTIALS, TOPIC, Account, Refused

WEBRTC = ["WEBRTC_CONNECTION"]


class Call(Account):
    """An account with one call in it."""

    def __init__(self, **dials: Any) -> None:
        super().__init__(**dials)
        body = {"ContactFlowId": "flow", "ParticipantDetails": {"DisplayName": "Cleo"}, "ClientToken": "once"}
        self.body = body | {"InstanceId": self.instance_id}
        self.started = self.ask("PUT", "/contact/webrtc", self.body)
        self.id = self.started["ContactId"]

    def add(self, contact_id: str = "", **more: Any) -> str:
        created = self.create(contact_id or self.id, role="CUSTOMER", **more)
        return str(created["ParticipantCredentials"]["ParticipantToken"])

    def dial_in(self, token: str) -> Any:
        return self.ask("POST", "/participant/connection", {"Type": WEBRTC}, token)["WebRTCConnection"]

    def hang_up(self, token: str) -> None:
        asked = {"Type": CREDENTIALS}
        answer = self.ask("POST", "/participant/connection", asked, token)
        self.leave(answer["ConnectionCredentials"]["ConnectionToken"])

    def members(self, role: str = "CUSTOMER") -> list[Any]:
        return [member for member in self.all_told()["participants"] if member["role"] == role]


@pytest.fixture
def call() -> Call:
    """A call that is with its agent."""
    made = Call()
    made.control(made.id, "agent")
    return made


def test_a_call_is_voice_by_webrtc_and_is_in_its_flow_at_once() -> None:
    call = Call()
    described = call.describe(call.id)
    assert (described["Channel"], described["InitiationMethod"]) == ("VOICE", "WEBRTC_API")
    assert described["SegmentAttributes"] == {"connect:Subtype": {"ValueString": "connect:WebRTC"}}
    (event,) = call.events
    assert event["detail"]["eventType"] == "INITIATED"
    assert event["detail"]["channel"] == "VOICE"
    assert event["detail"]["initiationMethod"] == "WEBRTC_API"
    assert event["detail"]["segmentAttributes"] == {"connect:Subtype": {"valueString": "connect:WebRTC"}}
    assert call.told(call.id)["state"] == "CONNECTED"
    assert call.told(call.id)["step"] == "Hold"


def test_starting_a_call_answers_a_way_in_and_replays_it_to_the_same_client_token() -> None:
    call = Call()
    media = call.started["ConnectionData"]
    assert media["Meeting"]["MeetingId"] == call.id
    assert media["Meeting"]["MediaRegion"] == "eu-central-1"
    assert media["Attendee"]["AttendeeId"] == call.started["ParticipantId"]
    assert call.ask("PUT", "/contact/webrtc", call.body) == call.started
    assert len(call.events) == 1


def test_ids_and_tokens_of_one_call_do_not_hang_on_another() -> None:
    def dealt(*callers: str) -> Any:
        aws = Account(seed=3)
        for name in callers:
            body = {"ContactFlowId": "flow", "ParticipantDetails": {"DisplayName": name}}
            answer = aws.ask("PUT", "/contact/webrtc", body | {"InstanceId": aws.instance_id})
            if name == "Cleo":
                return answer
        return None

    assert dealt("Cleo") == dealt("Dora", "Cleo")


def test_nobody_is_added_before_the_agent_is_connected() -> None:
    call = Call()
    for verb in ("queue", "agent"):
        with pytest.raises(Refused, match="400 InvalidRequestException"):
            call.add()
        call.control(call.id, verb)
    assert call.add()


def test_whoever_joins_gets_a_contact_of_its_own_after_the_initial_one(call: Call) -> None:
    token = call.add()
    announced = len(call.events)
    assert call.dial_in(token)["Meeting"]["MeetingId"] == call.id
    (event,) = call.events[announced:]
    detail = event["detail"]
    assert (detail["eventType"], detail["channel"]) == ("INITIATED", "VOICE")
    assert detail["previousContactId"] == detail["initialContactId"] == call.id != detail["contactId"]
    call.dial_in(token)
    assert len(call.events) == announced + 1
    call.hang_up(token)
    assert call.announced(detail["contactId"]) == ["INITIATED", "DISCONNECTED", "COMPLETED"]
    assert call.told(call.id)["state"] == "WITH_AGENT"


def test_nobody_is_added_by_a_later_contact_of_the_call(call: Call) -> None:
    call.dial_in(call.add())
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*initial"):
        call.add(call.events[-1]["detail"]["contactId"])


def test_capabilities_are_kept_and_others_than_send_refused(call: Call) -> None:
    details = {"ParticipantRole": "CUSTOMER", "DisplayName": "Ben"}
    both = {"Video": "SEND", "ScreenShare": "SEND"}
    call.add(ParticipantDetails=details | {"ParticipantCapabilities": both})
    assert call.members()[-1]["capabilities"] == both
    with pytest.raises(Refused, match=r"ParticipantCapabilities\.Video"):
        call.add(ParticipantDetails=details | {"ParticipantCapabilities": {"Video": "NONE"}})


def test_a_call_has_six_places_and_a_seventh_is_refused_as_the_dial_says(call: Call) -> None:
    tokens = [call.add() for _ in range(4)]
    with pytest.raises(Refused, match="402 ServiceQuotaExceededException"):
        call.add()
    call.dial_in(tokens[0])
    call.hang_up(tokens[0])
    call.now += 61
    assert call.add()
    full = Call(error_of_a_full_call="ConflictException")
    full.control(full.id, "agent")
    for _ in range(4):
        full.add()
    with pytest.raises(Refused, match="409 ConflictException"):
        full.add()


@pytest.mark.parametrize(("seconds", "back"), [(60, True), (60.001, False)])
def test_credentials_of_who_left_are_good_for_a_minute(call: Call, seconds: float, back: bool) -> None:  # noqa: FBT001
    token = call.add()
    call.dial_in(token)
    call.hang_up(token)
    call.now += seconds
    if back:
        call.dial_in(token)
        joined = [event["detail"] for event in call.events if event["detail"].get("previousContactId")]
        assert len({detail["contactId"] for detail in joined}) == 2
        assert len(call.members()) == 2
    else:
        with pytest.raises(Refused, match="403 AccessDeniedException"):
            call.dial_in(token)


def test_the_end_of_the_call_ends_the_contact_of_everybody_who_joined(call: Call) -> None:
    token = call.add()
    call.dial_in(token)
    own = call.events[-1]["detail"]["contactId"]
    call.stop(call.id)
    assert call.announced(own)[-2:] == ["DISCONNECTED", "COMPLETED"]
    assert all(member["disconnected_at"] == call.now for member in call.members())
    with pytest.raises(Refused, match="403 AccessDeniedException"):
        call.dial_in(token)


def test_a_transfer_takes_the_first_user_along_and_lets_the_others_go(call: Call) -> None:
    joined, waiting = call.add(), call.add()
    call.dial_in(joined)
    following = call.control(call.id, "transfer")["contact_id"]
    assert call.describe(following)["Channel"] == "VOICE"
    assert call.dial_in(call.started["ParticipantToken"])["Meeting"]["MeetingId"] == call.id
    for token in (joined, waiting):
        with pytest.raises(Refused, match="403 AccessDeniedException"):
            call.dial_in(token)
    present = [member["contact_id"] for member in call.members() if member["disconnected_at"] is None]
    assert present == [following]


def test_a_client_token_adds_one_user_before_and_after_it_has_joined(call: Call) -> None:
    token = call.add(ClientToken="ben")
    call.dial_in(token)
    assert call.add(ClientToken="ben") == token
    anew = Call(replayed_client_token_answers="a new token")
    anew.control(anew.id, "agent")
    first = anew.add(ClientToken="ben")
    anew.dial_in(first)
    assert anew.add(ClientToken="ben") != first
    assert len(anew.members()) == 2


def test_each_channel_refuses_the_others_role_streams_timers_and_connection(call: Call) -> None:
    chat, _ = call.chat()
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*CUSTOM_BOT for a CHAT"):
        call.add(chat)
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*CUSTOMER for a VOICE"):
        call.create(call.id)
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*chat"):
        call.stream(call.id, TOPIC)
    with pytest.raises(Refused, match=r"400 InvalidRequestException .*chat"):
        call.set_timers(call.id, ParticipantTimerDurationInMinutes=5)
    with pytest.raises(Refused, match="400 ValidationException"):
        call.dial_in(call.start()["ParticipantToken"])
    with pytest.raises(Refused, match=r"400 ValidationException .*Type"):
        call.connect(call.add(), Type=["WEBSOCKET"])


def test_a_call_is_no_chat_which_a_report_might_miss_a_bot_in(call: Call) -> None:
    call.chat()
    assert report(call.world, call.now).chats.started == 1


def test_a_search_tells_calls_from_chats(call: Call) -> None:
    call.chat()
    for channel in ("VOICE", "CHAT"):
        found = call.search(SearchCriteria={"Channels": [channel]})["Contacts"]
        assert {contact["Channel"] for contact in found} == {channel}
    assert call.told(call.id)["channel"] == "VOICE"
