"""Several instances behind one port: whose contact it is, whose quota, and who may ask."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from attachd.simulator.dials import Dials
from attachd.simulator.faults import Outage, Throttling
from attachd.simulator.ledger import report
from attachd.simulator.traffic.arrivals import Burst
from attachd.simulator.traffic.plan import Traffic
from attachd.simulator.view import table
from unit.account import Account, Refused
from unit.test_simulator_quotas import admitted

BERLIN = "arn:aws:connect:eu-central-1:111122223333:instance/berlin"
MUNICH = "arn:aws:connect:eu-central-1:111122223333:instance/munich"
LONDON = "arn:aws:connect:eu-west-2:111122223333:instance/london"
RIVAL = "arn:aws:connect:eu-central-1:999988887777:instance/rival"
ALL = (BERLIN, MUNICH, LONDON, RIVAL)


def at(aws: Account, instance: str) -> Account:
    """The same account's tools, turned to another instance."""
    other = Account.__new__(Account)
    vars(other).update(vars(aws))
    other.instance_id = instance.rpartition("/")[2]
    return other


def answered(verb: Callable[..., Any], *arguments: Any) -> int:
    """The status of a call."""
    try:
        verb(*arguments)
    except Refused as refusal:
        return int(str(refusal).split()[0])
    return 200


def signature(key: str = "AKIDEXAMPLE", region: str = "eu-central-1") -> str:
    scope = f"{key}/20270115/{region}/connect/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00"


def test_a_contact_belongs_to_the_instance_that_started_it_and_to_no_other() -> None:
    aws = Account(instances=ALL)
    contact_id = at(aws, MUNICH).start()["ContactId"]
    assert at(aws, MUNICH).describe(contact_id)["Arn"] == f"{MUNICH}/contact/{contact_id}"
    for verb in ("describe", "stop", "create", "attributes", "stream"):
        with pytest.raises(Refused, match="404 ResourceNotFoundException"):
            getattr(at(aws, BERLIN), verb)(contact_id)
    assert aws.told(contact_id)["instance_arn"] == MUNICH


def test_an_instance_that_does_not_exist_is_404_by_name() -> None:
    with pytest.raises(Refused, match=r"404 ResourceNotFoundException .*InstanceId"):
        at(Account(instances=ALL), "instance/paris").start()


def test_events_carry_the_account_region_and_arn_of_their_own_instance() -> None:
    aws = Account(instances=ALL)
    contact_id = at(aws, LONDON).start()["ContactId"]
    (event,) = aws.events
    assert (event["account"], event["region"]) == ("111122223333", "eu-west-2")
    assert event["resources"] == [f"{LONDON}/contact/{contact_id}", LONDON]
    assert event["detail"]["instanceArn"] == LONDON
    assert event["detail"]["tags"] == {"aws:connect:instanceId": "london"}


def test_a_contact_that_follows_another_stays_in_its_instance() -> None:
    aws = at(Account(instances=ALL), MUNICH)
    chat, _ = aws.chat()
    aws.control(chat, "agent")
    following = aws.control(chat, "transfer")["contact_id"]
    assert aws.describe(following)["Arn"].startswith(MUNICH)
    assert aws.events[-1]["detail"]["queueInfo"]["queueArn"].startswith(MUNICH)


def test_a_search_finds_the_contacts_of_its_own_instance_only() -> None:
    aws = Account(instances=ALL)
    here = at(aws, BERLIN).start()["ContactId"]
    at(aws, MUNICH).start()
    assert [found["Id"] for found in at(aws, BERLIN).search()["Contacts"]] == [here]


def test_a_persistent_chat_cannot_go_on_from_another_instance() -> None:
    aws = Account(instances=ALL)
    source = at(aws, BERLIN).start()["ContactId"]
    at(aws, BERLIN).stop(source)
    persistent = {"RehydrationType": "FROM_SEGMENT", "SourceContactId": source}
    with pytest.raises(Refused, match=r"404 .*SourceContactId"):
        at(aws, MUNICH).start(PersistentChat=persistent)
    assert at(aws, BERLIN).start(PersistentChat=persistent)["ContinuedFromContactId"] == source


def test_a_client_token_is_known_in_its_own_instance_only() -> None:
    aws = Account(instances=ALL)
    first, again = (at(aws, BERLIN).start(ClientToken="once") for _ in range(2))
    assert first == again
    assert at(aws, MUNICH).start(ClientToken="once") != first


def test_connects_quotas_are_shared_by_the_instances_of_one_account_and_region() -> None:
    aws = Account(instances=ALL)
    assert admitted(lambda: at(aws, BERLIN).create("gone")) == 8
    assert admitted(lambda: at(aws, MUNICH).create("gone")) == 0
    assert admitted(lambda: at(aws, LONDON).create("gone")) == 8
    assert admitted(lambda: at(aws, RIVAL).create("gone")) == 8


def test_the_participant_services_quotas_are_each_instances_own() -> None:
    aws = Account(instances=ALL, metered=frozenset({"SendMessage"}))
    berliner, bavarian = (at(aws, where).chat()[1] for where in (BERLIN, MUNICH))
    assert admitted(lambda: aws.say(berliner)) == 15
    assert admitted(lambda: aws.say(bavarian)) == 15


@pytest.mark.parametrize(
    ("authorization", "answer"),
    [
        ("", 200),
        ("Bearer something else", 200),
        (signature(), 200),
        (signature(key="OURS"), 200),
        (signature(region="eu-west-2"), 404),
        (signature(key="RIVALS"), 403),
        (signature(key="RIVALS", region="eu-west-2"), 403),
    ],
)
def test_who_signs_must_sign_for_the_instances_region_and_with_its_accounts_key(
    authorization: str, answer: int
) -> None:
    aws = Account(instances=ALL, access_keys={"OURS": "111122223333", "RIVALS": "999988887777"})
    chat = at(aws, BERLIN).start()["ContactId"]
    told = aws.send("GET", f"/contacts/berlin/{chat}", Authorization=authorization)
    assert told.status == answer
    codes = {200: None, 403: "AccessDeniedException", 404: "ResourceNotFoundException"}
    assert told.headers.get("x-amzn-ErrorType") == codes[answer]


def test_a_fault_strikes_the_instance_or_region_it_names_and_spares_the_others() -> None:
    aws = Account(instances=ALL)
    chats = {where: at(aws, where).chat() for where in ALL}

    def statuses() -> list[int]:
        calls = ("describe", chats[where][0]), ("say", chats[where][1])
        return [answered(getattr(at(aws, where), verb), told) for verb, told in calls]

    for where in ALL:
        aws.api.set_faults([Outage(instances=("munich",)), Outage(regions=("eu-west-2",))], aws.now)
        assert statuses() == ([503, 503] if where in {MUNICH, LONDON} else [200, 200])
    assert {call["instance_id"] for call in aws.all_told()["calls"] if call["fault"]} == {"munich", "london"}


def test_a_reduced_quota_is_each_instances_own() -> None:
    aws = Account(instances=ALL, metered=frozenset(), faults=(Throttling(rate=1, burst=2),))
    assert admitted(lambda: at(aws, BERLIN).create("gone")) == 2
    assert admitted(lambda: at(aws, MUNICH).create("gone")) == 2


def test_an_outage_is_met_before_anybody_asks_who_calls() -> None:
    aws = Account(instances=ALL, access_keys={"RIVALS": "999988887777"}, faults=(Outage(tries=(1,)),))
    told = [aws.send("GET", "/contacts/berlin/c", Authorization=signature(key="RIVALS")) for _ in range(2)]
    assert [answer.status for answer in told] == [503, 403]
    assert [call["fault"] for call in aws.all_told()["calls"]] == ["outage-1", ""]


def test_customers_come_to_the_instances_in_turn() -> None:
    aws = Account(instances=ALL)
    aws.api.play(Traffic(Burst(6)), aws.now)
    aws.pass_time(1)
    assert [each["instance_arn"] for each in aws.all_told()["contacts"]] == [*ALL, *ALL[:2]]


def test_a_report_tells_the_quota_of_each_account_and_region_and_of_all_together() -> None:
    aws = Account(instances=ALL)
    for where, calls in ((BERLIN, 6), (MUNICH, 6), (LONDON, 3)):
        for _ in range(calls):
            answered(at(aws, where).create, "gone")
    aws.now += 2
    answered(at(aws, LONDON).create, "gone")
    told = report(aws.world, aws.now)
    figures = {whose: (each.granted, each.ideal) for whose, each in told.quotas.items()}
    assert figures == {
        "111122223333 eu-central-1": (8, 8),
        "111122223333 eu-west-2": (4, 18),
        "999988887777 eu-central-1": (0, 0),
    }
    assert (told.quota.rate, told.quota.burst, told.quota.granted, told.quota.ideal) == (15, 24, 12, 26)
    written = Console(width=100, record=True, file=StringIO())
    written.print(table(told))
    lines = written.export_text()
    assert "granted in 111122223333 eu-west-2, of 18" in lines
    assert "999988887777" not in lines


@pytest.mark.parametrize(
    "dials",
    [
        {"instances": (BERLIN, BERLIN.replace("eu-central-1", "eu-west-2"))},
        {"instances": (BERLIN, "arn:aws:s3:::bucket")},
        {"access_keys": {"OURS": "not an account"}},
    ],
)
def test_instances_that_nobody_could_tell_apart_or_that_are_none_are_refused(dials: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"instance|account"):
        Dials(**dials)
