"""The nouns: a Secret that cannot be shown, and data that cannot be changed."""

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from string import Template
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from attachd import model
from attachd.model import Bot, Contact, Delivery, Handoff, Participant, Secret

CANARY = "canary-9f2c1e"

SHOWN: list[Callable[[Secret], str]] = [
    repr,
    str,
    "{}".format,
    "{!r:>40}".format,
    lambda secret: f"{secret:>60}",
    lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - that form is the point
    ascii,
    lambda secret: repr({"token": [secret]}),
    pprint.pformat,
    lambda secret: json.dumps({"token": secret}, default=str),
    lambda secret: "".join(traceback.format_exception(ValueError("no", secret))),
    lambda token: Template("$token").substitute(token=token),
]


@pytest.mark.parametrize("show", SHOWN)
def test_a_secret_does_not_show_itself(show: Callable[[Secret], str]) -> None:
    assert CANARY not in show(Secret(CANARY))


@dataclasses.dataclass
class _Holder:
    token: Secret


TAKEN: list[Callable[[Secret], object]] = [
    pickle.dumps,
    lambda secret: pickle.dumps(secret, protocol=0),
    copy.copy,
    copy.deepcopy,
    lambda secret: copy.deepcopy({"a": [secret]}),
    lambda secret: dataclasses.asdict(_Holder(secret)),
    json.dumps,
    msgspec.json.encode,
    msgspec.msgpack.encode,
    msgspec.to_builtins,
    lambda secret: msgspec.json.encode(_Holder(secret)),
    hash,
    vars,
    Secret.__reduce__,
    Secret.__getstate__,
]


@pytest.mark.parametrize("take", TAKEN)
def test_a_secret_cannot_be_pickled_copied_hashed_or_encoded(take: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as refusal:
        take(Secret(CANARY))
    assert CANARY not in str(refusal.value)


def test_a_traceback_with_local_variables_as_error_reporters_take_it_shows_no_secret() -> None:
    def hand_off(token: Secret) -> None:
        raise ValueError(f"no runtime for {token}", token)

    with pytest.raises(ValueError, match="no runtime for Secret") as failure:
        hand_off(Secret(CANARY))
    reported = traceback.TracebackException.from_exception(failure.value, capture_locals=True)
    assert "token = Secret(…)" in "".join(reported.format())
    assert CANARY not in "".join(reported.format())


def test_a_secret_is_not_dumped_by_pydantic() -> None:
    with pytest.raises(PydanticSerializationError) as refusal:
        TypeAdapter(Any).dump_json({"token": Secret(CANARY)})
    assert CANARY not in str(refusal.value)


def test_a_secret_has_no_kinds() -> None:
    with pytest.raises(TypeError):
        type("Loud", (Secret,), {"__repr__": Secret.reveal})


@given(st.text())
def test_a_secret_gives_back_exactly_what_was_put_in(value: str) -> None:
    assert Secret(value).reveal() == value


def test_secrets_are_equal_by_value_and_to_nothing_else() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("ä\ud800") == Secret("ä\ud800")


def _participant() -> Participant:
    return Participant("p-1", Secret(CANARY), "2027-01-01T00:00:00Z")


def test_whatever_holds_a_secret_has_a_repr_without_it() -> None:
    contact = Contact("c-1", "arn:aws:connect:r:a:instance/i", "CHAT", "c-1")
    handoff = Handoff("c-1_1", contact, Bot("b", "B", "r"), "rule", 1, _participant(), 15.0)
    assert CANARY not in repr(_participant())
    assert CANARY not in repr(handoff)
    with pytest.raises(TypeError):
        dataclasses.asdict(handoff)


def test_a_deliverys_handle_is_not_in_its_repr() -> None:
    assert CANARY not in repr(Delivery("sqs", "m-1", b"{}", 0.0, handle=CANARY))


def _nouns() -> list[type[Any]]:
    return [
        noun for noun in vars(model).values() if isinstance(noun, type) and dataclasses.is_dataclass(noun)
    ]


@pytest.mark.parametrize("noun", _nouns())
def test_every_noun_is_frozen_and_holds_no_callable(noun: type[Any]) -> None:
    assert noun.__dataclass_params__.frozen
    assert not hasattr(noun(*["x"] * len(dataclasses.fields(noun))), "__dict__")
    assert not [field.name for field in dataclasses.fields(noun) if "Callable" in str(field.type)]


@pytest.mark.parametrize(
    ("arn", "instance"),
    [
        ("arn:aws:connect:eu-central-1:111122223333:instance/abc", "abc"),
        ("arn:aws-us-gov:connect:us-gov-west-1:111122223333:instance/abc", "abc"),
    ],
)
def test_the_instance_id_is_the_last_part_of_its_arn(arn: str, instance: str) -> None:
    assert Contact("c", arn, "CHAT", "c").instance_id == instance


@pytest.mark.parametrize(
    ("attributes", "subtype"),
    [({"connect:Subtype": "connect:SMS"}, "connect:SMS"), ({"connect:Subtype": 3}, None), ({}, None)],
)
def test_the_subtype_is_a_text_or_nothing(attributes: dict[str, Any], subtype: str | None) -> None:
    assert Contact("c", "arn", "CHAT", "c", segment_attributes=attributes).subtype == subtype
