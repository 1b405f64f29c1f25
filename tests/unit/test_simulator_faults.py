"""Faults: whom they strike, what the client sees, what the world does, what the truth tells."""

from statistics import median
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from attachd.simulator.faults import (
    AccessDenied,
    ClockSkew,
    Deed,
    Error,
    ExpiredCredentials,
    Garbled,
    Latency,
    Outage,
    Reset,
    Silence,
    Throttling,
)
from attachd.simulator.front.api import Answer
from attachd.simulator.front.truth import truth
from attachd.simulator.scenario.reading import OPERATIONS
from unit.account import Account, Refused

BOTS = ("CreateParticipant",)


def last_call(aws: Account) -> dict[str, Any]:
    told: dict[str, Any] = truth(aws.world)["calls"][-1]
    return told


def try_bot(aws: Account, chat: str, token: str = "", **headers: str) -> Answer:
    """CreateParticipant, and whatever comes of it."""
    body = {
        "InstanceId": aws.dials.instance_id,
        "ContactId": chat,
        "ClientToken": token,
        "ParticipantDetails": {"ParticipantRole": "CUSTOM_BOT", "DisplayName": "Ava"},
    }
    return aws.api.call(
        "POST", "/contact/create-participant", CIMultiDict(headers), msgspec.json.encode(body), aws.now
    )


def bots(aws: Account) -> int:
    return sum(each["custom_bots"]["existed"] for each in truth(aws.world)["contacts"])


# ── what each does ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "status", "code", "effect"),
    [
        (Error(), 500, "InternalServiceException", False),
        (Error(when="after"), 500, "InternalServiceException", True),
        (Silence(), 0, "", False),
        (Silence(when="after", seconds=3), 0, "", True),
        (Reset(), 0, "", False),
        (Reset(when="after"), 0, "", True),
        (Garbled(), 200, "", True),
        (Garbled(how="malformed"), 200, "", True),
        (Throttling(), 429, "ThrottlingException", False),
        (AccessDenied(), 403, "AccessDeniedException", False),
        (Outage(), 503, "ServiceUnavailableException", False),
        (Outage(how="reset"), 0, "", False),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else None,
)
def test_a_fault_does_one_thing_and_the_truth_tells_which(
    fault: Deed, status: int, code: str, *, effect: bool
) -> None:
    aws = Account()
    chat = aws.start()["ContactId"]
    aws.api.set_faults([fault], aws.now)
    answer = try_bot(aws, chat)
    told = last_call(aws)
    assert (told["status"], told["code"], told["effect"]) == (status, code, effect)
    assert told["fault"] == f"{fault.kind}-1"
    assert bots(aws) == int(effect)
    if status > 200:
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, code)
    else:
        assert answer.spoiled is not None


def test_the_participant_service_fails_under_its_own_name() -> None:
    aws = Account(faults=(Error(),))
    with pytest.raises(Refused, match="500 InternalServerException"):
        aws.connect("token")


def test_a_bot_made_by_a_call_that_failed_is_the_one_which_the_retry_gets() -> None:
    aws = Account(faults=(Error(operations=BOTS, when="after", tries=(1,)),))
    chat = aws.start()["ContactId"]
    assert try_bot(aws, chat, "generation-0").status == 500
    assert try_bot(aws, chat, "generation-0").status == 200
    assert bots(aws) == 1


def test_a_refusal_that_is_no_faults_work_is_not_laid_at_its_door() -> None:
    aws = Account(faults=(Error(when="after"),), burst=1)
    assert try_bot(aws, "gone").status == 404
    assert last_call(aws)["fault"] == ""
    assert try_bot(aws, "gone").status == 429
    assert last_call(aws)["fault"] == ""


@pytest.mark.parametrize(("spend", "then"), [(True, 429), (False, 200)])
def test_a_call_that_fails_spends_quota_as_any_refused_call_does(*, spend: bool, then: int) -> None:
    aws = Account(faults=(Error(operations=BOTS, tries=(1,)),), burst=1, refused_calls_spend_quota=spend)
    chat = aws.start()["ContactId"]
    assert try_bot(aws, chat).status == 500
    assert try_bot(aws, chat).status == then


def test_a_reduced_quota_comes_on_top_of_the_usual_one() -> None:
    aws = Account(faults=(Throttling(operations=BOTS, rate=1, burst=2),))
    chats = [aws.start()["ContactId"] for _ in range(4)]
    assert [try_bot(aws, chat).status for chat in chats] == [200, 200, 429, 429]
    aws.now += 1
    assert try_bot(aws, chats[2]).status == 200


def authorization(key: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential={key}/20270115/eu-central-1/connect/aws4_request, SignedHeaders=host, Signature=0"


def test_expired_credentials_are_refused_until_others_come() -> None:
    aws = Account(faults=(ExpiredCredentials(),))
    chat = aws.start()["ContactId"]  # unsigned: nothing can expire
    for _ in range(2):
        assert try_bot(aws, chat, Authorization=authorization("AKIAOLD")).status == 403
        assert last_call(aws)["code"] == "ExpiredTokenException"
    assert try_bot(aws, chat, authorization=authorization("AKIANEW")).status == 200
    assert try_bot(aws, chat, Authorization=authorization("AKIAOLD")).status == 403


@pytest.mark.parametrize(("ahead", "status"), [(299, 200), (301, 403), (-299, 200), (-301, 403)])
def test_a_signature_may_be_five_minutes_off_awss_clock_and_the_date_tells_the_client(
    ahead: int, status: int
) -> None:
    aws = Account(faults=(ClockSkew(seconds=ahead),))
    chat = aws.start()["ContactId"]
    when = {"Authorization": authorization("AKIA"), "X-Amz-Date": "20270115T080000Z"}
    answer = try_bot(aws, chat, **when)
    assert answer.status == status
    assert (
        answer.headers["Date"]
        == {
            299: "Fri, 15 Jan 2027 08:04:59 GMT",
            301: "Fri, 15 Jan 2027 08:05:01 GMT",
            -299: "Fri, 15 Jan 2027 07:55:01 GMT",
            -301: "Fri, 15 Jan 2027 07:54:59 GMT",
        }[ahead]
    )
    assert last_call(aws)["fault"] == "clock_skew-1"
    if status == 403:
        assert answer.headers["x-amzn-ErrorType"] == "InvalidSignatureException"
        corrected = {"X-Amz-Date": "20270115T080501Z" if ahead > 0 else "20270115T075459Z"}
        assert try_bot(aws, chat, **(when | corrected)).status == 200


@pytest.mark.parametrize("signed_at", ["", "yesterday", "99999999T999999Z"])
def test_a_signature_whose_date_cannot_be_read_is_let_pass(signed_at: str) -> None:
    aws = Account(faults=(ClockSkew(seconds=900),))
    chat = aws.start()["ContactId"]
    headers = {"Authorization": authorization("AKIA"), "X-Amz-Date": signed_at}
    assert try_bot(aws, chat, **headers).status == 200


def test_latencies_are_fixed_uniform_or_lognormal_and_add_up() -> None:
    shapes = {
        "fixed": Latency(milliseconds=200),
        "uniform": Latency(milliseconds=100, up_to_milliseconds=300),
        "lognormal": Latency(milliseconds=200, sigma=0.5),
    }
    seen = {}
    for name, fault in shapes.items():
        aws = Account(faults=(fault,))
        seen[name] = [aws.send("GET", f"/contacts/i/{n}").delay_seconds for n in range(1000)]
    assert set(seen["fixed"]) == {0.2}
    assert min(seen["uniform"]) >= 0.1
    assert max(seen["uniform"]) < 0.3
    assert 0.19 < median(seen["uniform"]) < 0.21
    assert 0.18 < median(seen["lognormal"]) < 0.22
    assert max(seen["lognormal"]) > 0.5
    aws = Account(faults=(shapes["fixed"], Latency(milliseconds=50)))
    assert aws.send("GET", "/contacts/i/1").delay_seconds == pytest.approx(0.25)
    assert last_call(aws)["fault"] == "latency-1 + latency-2"


def test_of_two_deeds_the_first_in_the_list_is_done() -> None:
    aws = Account(faults=(Latency(milliseconds=9), Reset(name="cut", tries=(1,)), Error(name="fail")))
    try_bot(aws, "gone")
    assert last_call(aws)["fault"] == "latency-1 + cut"
    try_bot(aws, "gone")
    assert last_call(aws)["fault"] == "latency-1 + fail"


# ── whom it strikes ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("chosen", "struck"),
    [
        ({}, True),
        ({"operations": ("DescribeContact",)}, True),
        ({"operations": ("StopContact",)}, False),
        ({"instances": ("0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",)}, True),
        ({"instances": ("another",)}, False),
        ({"regions": ("eu-central-1",)}, True),
        ({"regions": ("us-east-1",)}, False),
        ({"tries": (1, 2)}, True),
        ({"tries": (2,)}, False),
        ({"probability": 0}, False),
        ({"from_seconds": 1}, False),
        ({"until_seconds": 1}, True),
    ],
    ids=str,
)
def test_a_fault_strikes_the_calls_which_fit_all_it_says(chosen: dict[str, Any], *, struck: bool) -> None:
    aws = Account(faults=(AccessDenied(**chosen),))
    assert (aws.send("GET", "/contacts/i/c").status == 403) is struck


def test_a_fault_lasts_from_its_first_second_to_its_last() -> None:
    aws = Account()
    aws.api.set_faults([Outage(from_seconds=10, until_seconds=20)], aws.now)
    statuses = []
    for _ in range(5):
        statuses.append(aws.send("GET", "/contacts/i/c").status)
        aws.now += 5
    assert statuses == [404, 404, 503, 503, 404]


def test_tries_are_counted_for_each_contact_and_operation_since_the_list_was_set() -> None:
    aws = Account(faults=(Error(tries=(1,)),))
    one, other = ([aws.send("GET", f"/contacts/i/{c}").status for _ in range(3)] for c in "ab")
    assert one == other == [500, 404, 404]
    aws.api.set_faults(aws.api.faults, aws.now)
    assert aws.send("GET", "/contacts/i/a").status == 500


def test_a_call_about_no_contact_is_known_again_by_what_it_asks_for() -> None:
    """A retry is the same call, whatever ClientToken an SDK invented for it."""
    aws = Account(faults=(Error(operations=("StartChatContact",), tries=(1,)),))
    for customer in ("Cleo", "Dora"):
        with pytest.raises(Refused, match="500"):
            aws.start(ParticipantDetails={"DisplayName": customer}, ClientToken="1")
        aws.start(ParticipantDetails={"DisplayName": customer}, ClientToken="2")


def test_a_share_of_calls_is_struck_and_which_depends_on_nobody_else() -> None:
    def struck(contacts: list[int], seed: int = 0) -> set[int]:
        aws = Account(faults=(AccessDenied(probability=0.3),), seed=seed)
        return {each for each in contacts if aws.send("GET", f"/contacts/i/{each}").status == 403}

    everyone = list(range(2000))
    chosen = struck(everyone)
    assert 520 < len(chosen) < 680
    assert struck(everyone[::-1]) == chosen
    assert struck(everyone[::7]) == chosen & set(everyone[::7])
    assert struck(everyone, seed=1) != chosen


# ── set and replaced ───────────────────────────────────────────────────────────────────────────


def test_a_test_in_any_language_starts_and_stops_a_storm() -> None:
    aws = Account()
    storm = [{"kind": "throttling", "name": "storm", "operations": list(BOTS)}]
    answer = aws.api.control("/_simulator/faults", msgspec.json.encode(storm), aws.now)
    assert (answer.status, answer.body) == (200, b'{"faults":["storm"]}')
    assert try_bot(aws, "gone").status == 429
    assert aws.api.control("/_simulator/faults", b"[]", aws.now).status == 200
    assert try_bot(aws, "gone").status == 404


def test_bad_faults_are_refused_with_all_that_is_wrong_and_the_old_ones_stay() -> None:
    aws = Account(faults=(AccessDenied(),))
    bad = [
        {"kind": "reset", "wen": "after"},
        {"kind": "latency"},
        {"kind": "error", "operations": ["Nothing"]},
    ]
    answer = aws.api.control("/_simulator/faults", msgspec.json.encode(bad), aws.now)
    assert answer.status == 400
    assert msgspec.json.decode(answer.body)["problems"] == [
        "faults[0].wen: there is no such key; did you mean 'when'?",
        "faults[1].milliseconds: is missing",
        "faults[2].operations: there is no operation 'Nothing'; there are " + ", ".join(sorted(OPERATIONS)),
    ]
    assert try_bot(aws, "gone").status == 403


@pytest.mark.parametrize("body", [b"", b"{}", b"[NaN]", b"[" * 100_000, b"\xff", b"[3]", b"null"])
def test_a_body_that_is_no_list_of_faults_is_a_400(body: bytes) -> None:
    assert Account().api.control("/_simulator/faults", body, 0.0).status == 400


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ((Reset(name="a"), Error(name="a")), "two faults have one name: a"),
        ((Reset(operations=("Nothing",)),), "no operation to strike: Nothing"),
    ],
)
def test_faults_that_make_no_sense_together_are_refused(faults: tuple[Deed, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Account().api.set_faults(faults, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reset(probability=1.1),
        lambda: Reset(tries=(0,)),
        lambda: Reset(from_seconds=5, until_seconds=5),
        lambda: Latency(milliseconds=-1),
        lambda: Latency(milliseconds=2, up_to_milliseconds=1),
        lambda: Latency(milliseconds=2, up_to_milliseconds=3, sigma=1),
        lambda: ClockSkew(seconds=float("inf")),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        make()
