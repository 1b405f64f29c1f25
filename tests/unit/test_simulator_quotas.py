"""Which APIs are metered, and how."""

from collections.abc import Callable
from typing import Any

import pytest

from attachd.simulator.dials import Dials
from attachd.simulator.front.api import Api
from attachd.simulator.state.quotas import DOCUMENTED, quota_of
from attachd.simulator.state.world import World
from unit.account import Account, Refused


def admitted(call: Callable[[], Any], most: int = 100) -> int:
    """Count the calls that come through at once, be they refused for other reasons."""
    for count in range(most):
        try:
            call()
        except Refused as refused:
            if str(refused).startswith("429"):
                return count
    return most


def test_only_create_participant_is_metered_unless_a_dial_asks_for_more() -> None:
    aws = Account()
    assert {name for name, _ in aws.world.quotas} == {"CreateParticipant"}
    assert admitted(aws.search) == 100


@pytest.mark.parametrize(
    ("verb", "arguments", "burst"),
    [
        ("search", (), 1),
        ("untag", ("gone", "key"), 5),
        ("start", (), 8),
        ("create", ("gone",), 8),
        ("connect", ("forged",), 9),
        ("describe", ("gone",), 15),
        ("leave", ("forged",), 5),
        ("read", ("forged",), 12),
        ("say", ("forged",), 15),
    ],
)
def test_with_all_apis_metered_each_has_its_documented_burst(
    verb: str, arguments: tuple[str, ...], burst: int
) -> None:
    aws = Account(metered=None)
    assert admitted(lambda: getattr(aws, verb)(*arguments)) == burst


def test_each_api_has_a_bucket_of_its_own() -> None:
    aws = Account(metered=None)
    admitted(lambda: aws.describe("gone"))
    with pytest.raises(Refused, match="404"):
        aws.create("gone")


def test_a_quota_named_in_a_dial_is_another_and_is_metered() -> None:
    aws = Account(quotas={"DescribeContact": (1, 3), "CreateParticipant": (1, 2)})
    assert admitted(lambda: aws.describe("gone")) == 3
    assert admitted(lambda: aws.create("gone")) == 2
    aws.now += 1
    assert admitted(lambda: aws.describe("gone")) == 1


def test_all_but_named_ones_can_be_switched_off() -> None:
    aws = Account(metered=frozenset({"StopContact"}))
    assert admitted(lambda: aws.create("gone")) == 100
    assert admitted(lambda: aws.stop("gone")) == 15


@pytest.mark.parametrize("shared", [True, False])
def test_whether_messages_and_events_share_a_quota_is_a_dial(*, shared: bool) -> None:
    aws = Account(metered=None, send_message_and_send_event_share_a_quota=shared)
    admitted(lambda: aws.say("forged"))
    assert (admitted(lambda: aws.signal("forged", "typing")) == 0) is shared


@pytest.mark.parametrize("spend", [True, False])
def test_whether_refused_calls_spend_quota_is_a_dial(*, spend: bool) -> None:
    aws = Account(refused_calls_spend_quota=spend)
    assert (admitted(lambda: aws.create("gone")) == 8) is spend
    assert admitted(lambda: aws.create(aws.start()["ContactId"])) == (0 if spend else 8)


def test_too_many_starts_are_refused_by_a_name_of_their_own() -> None:
    aws = Account(metered=None)
    admitted(aws.start)
    with pytest.raises(Refused, match="429 TooManyRequestsException"):
        aws.start()
    admitted(lambda: aws.describe("gone"))
    with pytest.raises(Refused, match="429 ThrottlingException"):
        aws.describe("gone")


def test_an_instance_has_so_many_chats_at_once_and_takes_another_when_one_has_ended() -> None:
    aws = Account(
        instances=tuple(f"arn:aws:connect:eu-central-1:111122223333:instance/{name}" for name in "ab"),
        concurrent_chats=2,
    )
    first, _ = aws.chat()
    aws.control(first, "agent")
    following = aws.control(first, "transfer")["contact_id"]
    aws.start()
    with pytest.raises(Refused, match="429 LimitExceededException"):
        aws.start()
    aws.instance_id = "b"
    aws.start()
    aws.instance_id = "a"
    aws.stop(following)
    assert aws.start()


def test_a_quota_of_no_operation_is_refused_rather_than_ignored() -> None:
    with pytest.raises(ValueError, match="CreatParticipant"):
        Api(World(Dials(quotas={"CreatParticipant": (1, 1)})), lambda _event: None)


def test_every_documented_quota_is_of_an_operation_that_is_played() -> None:
    aws = Account(metered=None)
    assert set(DOCUMENTED) <= {name for name, _ in aws.world.quotas}
    assert quota_of("UntagContact", aws.dials) == (2, 5)
