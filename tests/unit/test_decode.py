"""Bytes → ContactEvent, or a Permanent with one of the documented outcomes. Nothing else, whatever the bytes."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attachd.contact_fields import EVENT_TYPES
from attachd.decode import DETAIL_TYPE, decode
from attachd.errors import Permanent
from attachd.model import ContactEvent, Outcome

INSTANCE = "arn:aws:connect:eu-central-1:111122223333:instance/5a3b9c1e-0000-4000-8000-0123456789ab"
CONTACT = f"{INSTANCE}/contact/c-1"
RECEIVED = 1_800_000_000.0
LIMIT = 1_048_576
DOCUMENTED = {
    Outcome.TOO_LARGE,
    Outcome.NOT_JSON,
    Outcome.NOT_A_CONTACT_EVENT,
    Outcome.NO_CONTACT_ID,
    Outcome.UNKNOWN_TYPE,
}


def _document(detail: Mapping[str, Any] | None = None, **envelope: Any) -> dict[str, Any]:
    minimal = {"eventType": "INITIATED", "contactId": "c-1", "channel": "CHAT", "instanceArn": INSTANCE}
    return {
        "detail-type": DETAIL_TYPE,
        "time": "2027-01-15T08:00:00Z",
        "detail": minimal | dict(detail or {}),
    } | envelope


def _decode(document: object, **limits: int) -> ContactEvent:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(body, received_at=RECEIVED, max_bytes=limits.get("max_bytes", LIMIT))


def _judge(body: bytes) -> ContactEvent | Outcome:
    try:
        return _decode(body)
    except Permanent as error:
        refusal = error
    assert refusal.outcome in DOCUMENTED
    str(refusal).encode()  # goes into a log and beside a quarantined body
    assert len(str(refusal)) < 500
    return refusal.outcome


# ── any bytes ──────────────────────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    [
        "eventType",
        "contactId",
        "channel",
        "instanceArn",
        "initialContactId",
        "tags",
        "segmentAttributes",
        "initiationTimestamp",
        "initiationMethod",
        "ContactId",
        "EventType",
        "InstanceArn",
        "Tags",
    ]
)
plausible = (
    json_values
    | st.sampled_from([*EVENT_TYPES, "c-1", INSTANCE, "CHAT", "1970-01-01T00:00:00.001Z"])
    | st.dictionaries(st.text(max_size=5), json_values, max_size=3)
)
envelopes = st.builds(
    lambda detail, envelope: _document(detail) | envelope,
    st.dictionaries(names, plausible, max_size=8),
    st.dictionaries(st.sampled_from(["id", "time", "detail-type", "resources", "x"]), plausible, max_size=2),
)
documents = (
    envelopes
    | envelopes.map(lambda document: document["detail"])
    | envelopes.map(lambda document: _notification(json.dumps(document)))
    | plausible.map(lambda message: _notification(message))  # noqa: PLW0108 - it is defined below
)


def _notification(message: object) -> dict[str, Any]:
    """As SNS writes it (developer guide, "HTTP/HTTPS notification JSON format")."""
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:contact-events",
        "Message": message,
        "Timestamp": "2027-01-15T08:00:01.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/x.pem",
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
    }


@pytest.mark.parametrize("contact_id", ["c\r\nx-evil: 1", "c\u001b[2J", "c\x00", "c\u2028"])
def test_an_id_that_could_break_out_of_a_header_or_a_line_is_none(contact_id: str) -> None:
    with pytest.raises(Permanent) as refused:
        decode(json.dumps(_document({"contactId": contact_id})).encode(), received_at=0.0, max_bytes=LIMIT)
    assert refused.value.outcome is Outcome.NO_CONTACT_ID


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_documented_outcome(body: bytes) -> None:
    _judge(body)


@settings(max_examples=300, deadline=None)
@given(documents | json_values)
@example(_document({"contactId": "\ud800"}))
@example(_document({"eventType": "\udfff"}))
@example({"detail-type": "\ud800", "detail": {}})
@example(_document({"tags": {"\ud800": "\ud800"}}))
def test_any_json_is_an_event_or_a_documented_outcome(document: object) -> None:
    event = _judge(json.dumps(document).encode())
    if isinstance(event, ContactEvent):
        assert event.type in EVENT_TYPES
        assert 0 < len(event.contact.id) <= 256
        assert event.contact.initial_id
        assert event.time == event.time
        assert all(isinstance(value, str) for value in event.contact.tags.values())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_event_is_an_event_or_a_documented_outcome(data: st.DataObject) -> None:
    body = bytearray(json.dumps(_document({"tags": {"a": "ü€😀"}}), ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                body[at] = data.draw(st.integers(0, 255))
            case "cut":
                del body[at : at + data.draw(st.integers(1, 30))]
            case _:
                body[at:at] = data.draw(st.binary(max_size=8))
        if not body:
            break
    _judge(bytes(body))


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"", Outcome.NOT_JSON),
        (b"{", Outcome.NOT_JSON),
        (b"\x00", Outcome.NOT_JSON),
        (b'{"detail": NaN}', Outcome.NOT_JSON),
        (b'{"detail": -Infinity}', Outcome.NOT_JSON),
        (b"\xef\xbb\xbf{}", Outcome.NOT_JSON),
        (json.dumps({"detail": {}}).encode("utf-16"), Outcome.NOT_JSON),
        (json.dumps({"detail": {}}).encode("utf-16-le"), Outcome.NOT_JSON),
        (b'{"detail":{}} and more', Outcome.NOT_JSON),
        (b"[" * 500_000, Outcome.NOT_JSON),
        (b'{"a":' * 100_000, Outcome.NOT_JSON),
        (b"[" * 500_000 + b"]" * 500_000, Outcome.NOT_JSON),
        (b"null", Outcome.NOT_A_CONTACT_EVENT),
        (b'"text"', Outcome.NOT_A_CONTACT_EVENT),
        (b"[]", Outcome.NOT_A_CONTACT_EVENT),
        (b"{}", Outcome.NOT_A_CONTACT_EVENT),
        (b'{"detail":[]}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"detail":{}}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"Type":"Notification"}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"Type":"Notification","Message":{}}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"Type":"Notification","Message":"{"}', Outcome.NOT_JSON),
        (b'{"Type":"Notification","Message":"\\ud800"}', Outcome.NOT_JSON),
        (b'{"Type":"SubscriptionConfirmation","Message":"{}"}', Outcome.NOT_A_CONTACT_EVENT),
        (json.dumps(_notification(json.dumps(_notification("{}")))).encode(), Outcome.NOT_A_CONTACT_EVENT),
        (b'{"contactId":"c-1"}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"eventType":"INITIATED"}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"contactId":"c-1","EventType":"INITIATED"}', Outcome.NOT_A_CONTACT_EVENT),
        (b'{"contactId":"c-1","eventType":"NEW"}', Outcome.UNKNOWN_TYPE),
        (b'{"contactId":7,"eventType":"INITIATED"}', Outcome.NO_CONTACT_ID),
    ],
)
def test_what_is_no_contact_event_ends_as_its_own_outcome(body: bytes, outcome: Outcome) -> None:
    assert _judge(body) is outcome


@pytest.mark.parametrize("digits", [20, 400, 4_000, 5_000, 500_000])
@pytest.mark.parametrize("where", ["version", "detail-type", "eventType", "contactId", "float"])
def test_a_huge_number_anywhere_is_survived_in_no_time(digits: int, where: str) -> None:
    started = time.perf_counter()
    number = "9" * digits + (".5e999" if where == "float" else "")
    document = _document()
    holder = document["detail"] if where in {"eventType", "contactId"} else document
    holder["x" if where == "float" else where] = "HERE"
    _judge(json.dumps(document).replace('"HERE"', number).encode())
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("where", ["detail-type", "eventType", "x"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_survived_around_the_interpreters_limit_too(
    where: str, opening: str, closing: str
) -> None:
    document = _document()
    (document["detail"] if where == "eventType" else document)[where] = "HERE"
    text = json.dumps(document)
    for depth in [*range(850, 1010), 20_000]:
        _judge(text.replace('"HERE"', opening * depth + "1" + closing * depth).encode())


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_refused_unread() -> None:
    body = json.dumps(_document()).encode()
    assert _decode(body, max_bytes=len(body)).contact.id == "c-1"
    with pytest.raises(Permanent) as refusal:
        _decode(body, max_bytes=len(body) - 1)
    assert refusal.value.outcome is Outcome.TOO_LARGE
    with pytest.raises(Permanent) as refusal:
        _decode(b"[" * (LIMIT + 1))
    assert refusal.value.outcome is Outcome.TOO_LARGE


def test_the_largest_body_is_judged_in_bounded_time() -> None:
    tags = {f"k{n}": "v" for n in range(60_000)}
    body = json.dumps(_document({"tags": tags, "segmentAttributes": tags})).encode()[:LIMIT]
    started = time.perf_counter()
    _judge(body)
    _judge(b'{"a":0,' * 1 + b'"a":0,' * 170_000 + b'"detail":{}}')
    assert time.perf_counter() - started < 2.0


def test_of_a_key_given_twice_the_last_counts() -> None:
    body = json.dumps(_document()).replace('"contactId": "c-1"', '"contactId": "c-0", "contactId": "c-1"')
    assert _decode(body.encode()).contact.id == "c-1"


# ── what AWS leaves open ───────────────────────────────────────────────────────────────────────

SAMPLE = {
    "initiationMethod": "API",
    "initialContactId": "c-0",
    "previousContactId": "c-9",
    "relatedContactId": "c-8",
    "initiationTimestamp": "2027-01-15T07:59:59.500Z",
    "segmentAttributes": {"connect:Subtype": {"ValueString": "connect:Chat"}},
    "tags": {"language": "de"},
}


def test_everything_documented_is_read() -> None:
    event = _decode(_document(SAMPLE, id="e-1"))
    contact = event.contact
    assert (event.id, event.type) == ("e-1", "INITIATED")
    assert event.time == datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
    assert (contact.id, contact.initial_id, contact.previous_id, contact.related_id) == (
        "c-1",
        "c-0",
        "c-9",
        "c-8",
    )
    assert contact.initiated_at == event.time - 0.5
    assert (contact.channel, contact.initiation_method, contact.subtype) == ("CHAT", "API", "connect:Chat")
    assert contact.tags == {"language": "de"}
    assert contact.instance_id == "5a3b9c1e-0000-4000-8000-0123456789ab"


def test_both_casings_are_one_event() -> None:
    camel = _document(SAMPLE)
    pascal = camel | {"detail": {key[:1].upper() + key[1:]: value for key, value in camel["detail"].items()}}
    assert _decode(pascal) == _decode(camel)


@pytest.mark.parametrize("channel", ["CHAT", "Chat", "chat"])
def test_a_channel_is_the_same_in_any_casing_to_us_and_to_the_rules(channel: str) -> None:
    event = _decode(_document({"channel": channel}))
    assert event.contact.channel == "CHAT"
    assert event.document["detail"]["channel"] == "CHAT"


@pytest.mark.parametrize(
    "wrapped",
    [{"valueString": "connect:Guide"}, {"ValueString": "connect:Guide"}, "connect:Guide"],
)
def test_a_segment_attribute_is_its_plain_value_in_any_wrapping(wrapped: object) -> None:
    event = _decode(_document({"segmentAttributes": {"connect:Subtype": wrapped}}))
    assert event.contact.subtype == "connect:Guide"


def test_other_kinds_of_segment_attributes_come_plain_too() -> None:
    attributes = {"n": {"valueInteger": 3}, "m": {"valueMap": {"a": {"valueString": "b"}}}, "odd": {}}
    flat = _decode(_document({"segmentAttributes": attributes})).contact.segment_attributes
    assert flat["n"] == 3
    assert flat["m"] == {"a": {"valueString": "b"}}
    assert "odd" not in flat


@pytest.mark.parametrize("absent", [{}, {"initialContactId": None}, {"initialContactId": ""}])
def test_a_first_contact_is_its_own_initial_contact(absent: dict[str, Any]) -> None:
    assert _decode(_document(absent)).contact.initial_id == "c-1"


@pytest.mark.parametrize("resources", [[CONTACT, INSTANCE], [INSTANCE, CONTACT], [], "nonsense", None])
def test_resources_are_not_relied_on(resources: object) -> None:
    expected = _decode(_document()).contact
    assert _decode(_document(resources=resources)).contact == expected


def test_unknown_fields_are_kept_for_rules_and_otherwise_ignored() -> None:
    event = _decode(_document({"fromTheFuture": {"a": [1]}}, envelopeOfTheFuture=1))
    assert event.contact == _decode(_document()).contact
    assert event.document["detail"]["fromTheFuture"] == {"a": [1]}


@pytest.mark.parametrize(
    "value",
    [
        "1970-01-01T00:00:00.001Z",
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "",
        "soon",
        None,
        17,
        "2027-13-01T00:00:00Z",
    ],
)
def test_a_sentinel_or_unreadable_time_has_not_happened(value: object) -> None:
    event = _decode(_document({"initiationTimestamp": value}, time=value))
    assert event.contact.initiated_at is None
    assert event.time == RECEIVED


@pytest.mark.parametrize(
    "text",
    ["2027-01-15T08:00:00Z", "2027-01-15T08:00:00.000Z", "2027-01-15T10:00:00+02:00", "2027-01-15T08:00:00"],
)
def test_a_time_is_utc_wherever_this_runs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert _decode(_document(time=text)).time == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("contact_id", ["", None, 7, ["c-1"], "x" * 257])
def test_no_contact_without_an_id(contact_id: object) -> None:
    with pytest.raises(Permanent) as refusal:
        _decode(_document({"contactId": contact_id}))
    assert refusal.value.outcome is Outcome.NO_CONTACT_ID


@pytest.mark.parametrize("event_type", ["TELEPORTED", "", None, 7, ["INITIATED"]])
def test_an_unknown_event_type_is_told_apart(event_type: object) -> None:
    with pytest.raises(Permanent) as refusal:
        _decode(_document({"eventType": event_type}))
    assert refusal.value.outcome is Outcome.UNKNOWN_TYPE


@pytest.mark.parametrize("arn", ["", None, 7, "arn:aws:connect:eu-central-1:111122223333:contact/x"])
def test_an_event_without_an_instance_is_none_of_connects(arn: object) -> None:
    with pytest.raises(Permanent) as refusal:
        _decode(_document({"instanceArn": arn}))
    assert refusal.value.outcome is Outcome.NOT_A_CONTACT_EVENT


def test_the_document_is_the_whole_event() -> None:
    document = _document(SAMPLE, id="e-1", account="111122223333")
    assert _decode(document).document == document


# ── body forms ─────────────────────────────────────────────────────────────────────────────────


def test_an_event_is_the_same_wrapped_by_sns_and_delivered_raw() -> None:
    bare = _document()
    assert _decode(_notification(json.dumps(bare))) == _decode(bare)


@pytest.mark.parametrize("casing", [str, lambda key: key[:1].upper() + key[1:]], ids=["camel", "Pascal"])
def test_the_detail_alone_is_an_event(casing: Any) -> None:
    detail = _document()["detail"] | {"initiationTimestamp": "2027-01-15T07:59:59.000Z"}
    event = _decode({casing(key): value for key, value in detail.items()})
    whole = _decode(_document(detail))
    assert (event.contact, event.type) == (whole.contact, whole.type)
    assert event.document["detail-type"] == DETAIL_TYPE


@pytest.mark.parametrize(
    ("event_type", "connected", "moment"),
    [
        ("INITIATED", "2027-01-15T07:30:00.000Z", "2027-01-15T07:00:00+00:00"),
        ("CONNECTED_TO_SYSTEM", "2027-01-15T07:30:00.000Z", "2027-01-15T07:30:00+00:00"),
        ("CONNECTED_TO_SYSTEM", "1970-01-01T00:00:00.001Z", "2027-01-15T07:00:00+00:00"),
    ],
)
def test_the_detail_alone_is_as_old_as_the_moment_that_it_is_about(
    event_type: str, connected: str, moment: str
) -> None:
    detail = _document()["detail"] | {
        "eventType": event_type,
        "initiationTimestamp": "2027-01-15T07:00:00.000Z",
        "connectedToSystemTimestamp": connected,
    }
    assert datetime.fromtimestamp(_decode(detail).time, UTC).isoformat() == moment


def test_a_detail_that_names_no_moment_is_as_old_as_its_receipt() -> None:
    assert _decode(_document()["detail"]).time == RECEIVED
