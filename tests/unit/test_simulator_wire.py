"""The wire: requests checked against botocore's models, errors as SDKs read them, hostile bytes survived."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attachd.simulator.dials import Dials
from attachd.simulator.front.api import Answer, Api
from attachd.simulator.state.world import World

DIALS = Dials(rate=1e9, burst=1e9)
FRONT_DOOR = Api(World(DIALS), lambda _event: None)
BOT = {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"}
CREATE = {"InstanceId": DIALS.instance_id, "ContactId": "c", "ParticipantDetails": BOT}
START = {
    "InstanceId": DIALS.instance_id,
    "ContactFlowId": "f",
    "ParticipantDetails": {"DisplayName": "Cleo"},
}
ROUTES = {
    "CreateParticipant": ("POST", "/contact/create-participant"),
    "StartChatContact": ("PUT", "/contact/chat"),
    "StopContact": ("POST", "/contact/stop"),
    "CreateParticipantConnection": ("POST", "/participant/connection"),
    "StartContactStreaming": ("POST", "/contact/start-streaming"),
    "StopContactStreaming": ("POST", "/contact/stop-streaming"),
    "UpdateContactAttributes": ("POST", "/contact/attributes"),
    "SearchContacts": ("POST", "/search-contacts"),
    "TagContact": ("POST", "/contact/tags"),
    "UntagContact": ("DELETE", f"/contact/tags/{DIALS.instance_id}/c?TagKeys=k"),
    "UpdateParticipantRoleConfig": ("PUT", f"/contact/participant-role-config/{DIALS.instance_id}/c"),
    "SendMessage": ("POST", "/participant/message"),
    "SendEvent": ("POST", "/participant/event"),
    "GetTranscript": ("POST", "/participant/transcript"),
    "DisconnectParticipant": ("POST", "/participant/disconnect"),
}


@pytest.fixture(scope="module")
def api() -> Api:
    return Api(World(DIALS), lambda _event: None)


def call(api: Api, operation: str, body: bytes, bearer: str | None = "bearer") -> Answer:
    headers = {} if bearer is None else {"X-Amz-Bearer": bearer}
    return api.call(*ROUTES[operation], headers, body, 0.0)


def told(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.headers["x-amzn-ErrorType"], msgspec.json.decode(answer.body)["Message"]


@pytest.mark.parametrize(
    ("operation", "body", "code", "field"),
    [
        ("CreateParticipant", CREATE | {"ContactId": None}, "InvalidRequestException", "ContactId"),
        ("CreateParticipant", CREATE | {"ContactId": ""}, "InvalidRequestException", "ContactId"),
        ("CreateParticipant", CREATE | {"ContactId": "c" * 257}, "InvalidRequestException", "ContactId"),
        ("CreateParticipant", CREATE | {"InstanceId": "i" * 101}, "InvalidRequestException", "InstanceId"),
        ("CreateParticipant", CREATE | {"ClientToken": "t" * 501}, "InvalidRequestException", "ClientToken"),
        (
            "CreateParticipant",
            CREATE | {"ParticipantDetails": BOT | {"DisplayName": "n" * 257}},
            "InvalidRequestException",
            "ParticipantDetails.DisplayName",
        ),
        (
            "CreateParticipant",
            CREATE | {"ParticipantDetails": BOT | {"ParticipantRole": "GHOST"}},
            "InvalidRequestException",
            "ParticipantDetails.ParticipantRole",
        ),
        ("CreateParticipant", CREATE | {"ContactId": 7}, "SerializationException", "ContactId"),
        (
            "CreateParticipant",
            CREATE | {"ParticipantDetails": []},
            "SerializationException",
            "ParticipantDetails",
        ),
        (
            "StartChatContact",
            START | {"ChatDurationInMinutes": 59},
            "InvalidParameterException",
            "ChatDurationInMinutes",
        ),
        (
            "StartChatContact",
            START | {"ChatDurationInMinutes": True},
            "SerializationException",
            "ChatDurationInMinutes",
        ),
        (
            "StartChatContact",
            START | {"ChatDurationInMinutes": 2**31},
            "SerializationException",
            "ChatDurationInMinutes",
        ),
        ("StartChatContact", START | {"ContactFlowId": None}, "InvalidParameterException", "ContactFlowId"),
        (
            "StartChatContact",
            START | {"Attributes": {"": "v"}},
            "InvalidParameterException",
            "Attributes key",
        ),
        (
            "StartChatContact",
            START | {"Attributes": {"k": None}},
            "InvalidParameterException",
            "Attributes.k",
        ),
        (
            "StartChatContact",
            START | {"SegmentAttributes": {"a": {"ValueMap": {"b": {"ValueString": "v" * 1025}}}}},
            "InvalidParameterException",
            "SegmentAttributes.a.ValueMap.b.ValueString",
        ),
        ("CreateParticipantConnection", {"Type": []}, "ValidationException", "Type"),
        ("CreateParticipantConnection", {"Type": [None]}, "ValidationException", "Type.1"),
        ("CreateParticipantConnection", {"Type": ["TELEPATHY"]}, "ValidationException", "Type.1"),
        ("CreateParticipantConnection", {"Type": "WEBSOCKET"}, "SerializationException", "Type"),
        (
            "CreateParticipantConnection",
            {"ConnectParticipant": "yes"},
            "SerializationException",
            "ConnectParticipant",
        ),
        ("SendMessage", {"ContentType": "text/plain"}, "ValidationException", "Content"),
        (
            "SendMessage",
            {"ContentType": "text/plain", "Content": "x" * 16385},
            "ValidationException",
            "Content",
        ),
        ("GetTranscript", {"MaxResults": -1}, "ValidationException", "MaxResults"),
        ("GetTranscript", {"StartPosition": {"MostRecent": 101}}, "ValidationException", "MostRecent"),
    ],
)
def test_a_broken_constraint_is_a_400_which_names_the_field(
    api: Api, operation: str, body: Any, code: str, field: str
) -> None:
    status, told_code, message = told(call(api, operation, msgspec.json.encode(body)))
    assert (status, told_code) == (400, code)
    assert f"'{field}'" in message or field in message


@pytest.mark.parametrize("bearer", [None, "", "b" * 1001])
def test_a_missing_empty_or_endless_bearer_is_a_validation_error(api: Api, bearer: str | None) -> None:
    status, code, message = told(call(api, "DisconnectParticipant", b"{}", bearer))
    assert (status, code) == (400, "ValidationException")
    assert "ConnectionToken" in message


def test_a_bearer_in_the_body_is_no_bearer(api: Api) -> None:
    answer = call(api, "DisconnectParticipant", b'{"ConnectionToken":"t"}', None)
    assert told(answer)[1] == "ValidationException"


def test_a_refusal_never_repeats_the_value_it_refuses(api: Api) -> None:
    answer = call(api, "DisconnectParticipant", b"{}", "SECRET" * 200)
    assert b"SECRET" not in answer.body


def test_every_broken_constraint_is_reported_at_once(api: Api) -> None:
    _, _, message = told(call(api, "CreateParticipant", b"{}"))
    assert message.startswith("3 validation errors detected: ")


def test_unknown_members_are_ignored_as_aws_ignores_them(api: Api) -> None:
    answer = call(api, "StartChatContact", msgspec.json.encode(START | {"FromTheFuture": [1]}))
    assert answer.status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"a":"\\ud800"}', b"[" * 100_000]
)
def test_malformed_json_is_a_serialization_error(api: Api, body: bytes) -> None:
    status, code, _ = told(call(api, "CreateParticipant", body))
    assert (status, code) == (400, "SerializationException")


def test_attributes_nested_without_end_are_refused(api: Api) -> None:
    nested = b'{"ValueMap":{"a":' * 400 + b"{}" + b"}}" * 400
    body = msgspec.json.encode(START | {"SegmentAttributes": {"a": msgspec.Raw(nested)}})
    assert told(call(api, "StartChatContact", body))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("POST", "/contact/resume", "does not play ResumeContact yet"),
        ("GET", "/participant/views/token", "does not play DescribeView yet"),
        ("POST", "/participant/attachment", "does not play GetAttachment yet"),
        ("GET", "/contact/create-participant", "no operation"),
        ("POST", "/", "no operation"),
        ("BREW", "/coffee", "no operation"),
        ("GET", "/contacts/i/c/d", "no operation"),
    ],
)
def test_what_is_not_simulated_is_unknown_and_says_so(api: Api, method: str, path: str, message: str) -> None:
    status, code, sentence = told(api.call(method, path, {}, b"", 0.0))
    assert (status, code) == (404, "UnknownOperationException")
    assert message in sentence


def test_uri_labels_are_decoded(api: Api) -> None:
    path = f"/contacts/{DIALS.instance_id}/a%2Fb%C3%A9"
    assert told(api.call("GET", path, {}, b"", 0.0))[0] == 404
    assert api._world.calls[-1].contact_id == "a/bé"


def test_every_answer_carries_its_own_request_id(api: Api) -> None:
    answers = [call(api, "StopContact", b"{}") for _ in range(3)]
    assert len({answer.headers["x-amzn-RequestId"] for answer in answers}) == 3


names = st.text(max_size=8) | st.sampled_from(
    [
        "InstanceId",
        "ContactId",
        "ContactFlowId",
        "ParticipantDetails",
        "ParticipantRole",
        "DisplayName",
        "ClientToken",
        "Attributes",
        "SegmentAttributes",
        "ValueMap",
        "ValueList",
        "ValueString",
        "Type",
        "ConnectParticipant",
        "ContentType",
        "Content",
        "StartPosition",
        "AbsoluteTime",
        "MostRecent",
        "NextToken",
        "MaxResults",
        "TimeRange",
        "SearchCriteria",
        "Tags",
        "ChannelConfiguration",
        "ChatStreamingConfiguration",
        "PersistentChat",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=25,
)


@settings(deadline=None, max_examples=300)
@given(operation=st.sampled_from(sorted(ROUTES)), body=anything | st.dictionaries(names, anything))
def test_no_json_whatever_can_crash_an_operation(operation: str, body: Any) -> None:
    world = World(DIALS)
    hostile = Api(world, lambda _event: None)
    start = hostile.call("PUT", "/contact/chat", {}, msgspec.json.encode(START), 0.0)
    token = msgspec.json.decode(start.body)["ParticipantToken"]
    world.connect(world.participants[token], 0.0)
    bearer = token if "Connection" in operation else world.issue_connection(world.participants[token], 9e9)
    answer = call(hostile, operation, msgspec.json.encode(body), bearer)
    assert answer.status == 200 or 400 <= answer.status < 500
    msgspec.json.decode(answer.body)


@settings(deadline=None, max_examples=200)
@given(
    body=st.binary(max_size=200),
    bearer=st.text(max_size=30),
    path=st.text(max_size=30),
    method=st.text(max_size=5),
)
def test_no_bytes_whatever_can_crash_the_front_door(body: bytes, bearer: str, path: str, method: str) -> None:
    for wanted, where in [*ROUTES.values(), (method, path), ("GET", f"/contacts/{path}/x")]:
        answer = FRONT_DOOR.call(wanted, where, {"X-Amz-Bearer": bearer}, body, 0.0)
        assert 400 <= answer.status < 500 or answer.status == 200
