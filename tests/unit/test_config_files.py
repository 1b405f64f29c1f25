"""The files we ship for AWS, CI and containers say the same thing as each other, and no more than they must."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from attachd.journals.dynamodb.items import TTL
from attachd.journals.dynamodb.table import TABLE
from attachd.sources.kinesis import dynamodb as leases

ROOT = Path(__file__).parents[2]
TEMPLATES = {"sqs": "cloudformation.yaml", "kinesis": "cloudformation-kinesis.yaml"}
POLICIES = {"sqs": "iam-policy.json", "kinesis": "iam-policy-kinesis.json"}

# Every AWS action attachd takes: SQS in, one quarantine queue, bots attached, the journal in DynamoDB.
ACTIONS = {
    "connect:CreateParticipant",
    "connect:DescribeContact",
    "connect:GetContactAttributes",
    "connect:StartContactStreaming",
    "connect:UpdateParticipantRoleConfig",
    "connect:SearchContacts",
    "servicequotas:GetServiceQuota",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "sqs:SendMessage",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:Scan",
    "dynamodb:DescribeTable",
    "dynamodb:DescribeTimeToLive",
}


class Template(yaml.SafeLoader):
    """YAML with CloudFormation's short tags, read as the long form: `!Ref X` is `{"Ref": "X"}`."""


def function(loader: Any, tag: str, node: Any) -> dict[str, Any]:
    return {tag if tag == "Ref" else f"Fn::{tag}": loader.construct_scalar(node)}


Template.add_multi_constructor("!", function)


def template(kind: str = "sqs") -> dict[str, Any]:
    text = (ROOT / "config" / TEMPLATES[kind]).read_text()
    return dict(yaml.load(text, Loader=Template))  # noqa: S506 - it is a SafeLoader


def plain(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "config" / name).read_text()))


def properties(resource: str, kind: str = "sqs") -> dict[str, Any]:
    return dict(template(kind)["Resources"][resource]["Properties"])


def workflow(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / path).read_text()))


# ── AWS ────────────────────────────────────────────────────────────────────────────────────────


def test_the_rule_takes_the_openings_and_the_endings_of_chats() -> None:
    detail = plain("eventbridge-rule.json")["detail"]
    openings, endings = {"INITIATED", "CONNECTED_TO_SYSTEM"}, {"DISCONNECTED", "COMPLETED"}
    taken_by_others = {"QUEUED", "CONNECTED_TO_AGENT"}
    assert detail["channel"] == ["CHAT"]
    assert set(detail["eventType"]) == openings | taken_by_others | endings


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_rule_in_the_template_is_the_rule_in_its_file(kind: str) -> None:
    assert properties("ContactEventsRule", kind)["EventPattern"] == plain("eventbridge-rule.json")


def policies(kind: str = "sqs") -> dict[str, dict[str, Any]]:
    return {"file": plain(POLICIES[kind]), "template": properties("Policy", kind)["PolicyDocument"]}


@pytest.mark.parametrize("home", ["file", "template"])
def test_the_policy_allows_every_action_used_and_nothing_else(home: str) -> None:
    statements = policies()[home]["Statement"]
    assert {action for statement in statements for action in statement["Action"]} == ACTIONS
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    assert "*" not in "".join(ACTIONS)


def test_a_bot_is_attached_by_leave_of_the_instance_and_of_the_contact() -> None:
    instance, contact = plain("iam-policy.json")["Statement"][0]["Resource"]
    assert contact == f"{instance}/contact/*"


@pytest.mark.parametrize("home", ["file", "template"])
def test_no_resource_in_the_policy_is_wider_than_the_contacts_of_one_instance(home: str) -> None:
    for statement in policies()[home]["Statement"]:
        for resource in statement["Resource"]:
            arn = resource if isinstance(resource, str) else next(iter(resource.values()))
            assert "*" not in arn.removesuffix("/contact/*")
            assert arn != "*"


def test_the_policy_for_a_stream_allows_every_call_that_its_code_makes_and_nothing_else() -> None:
    room = ROOT / "daemon" / "attachd" / "sources"
    services = {"kinesis/stream": "kinesis", "kinesis/dynamodb": "dynamodb", "quarantine": "sqs"}
    called = {
        f"{service}:{re.sub('_', '', operation.title())}"
        for module, service in services.items()
        for operation in re.findall(
            r"self\._(?:client|pushed)\.([a-z_]+)", (room / f"{module}.py").read_text()
        )
    }
    # DescribeStream is for endpoints that do not know ListShards; AWS does.
    called -= {"kinesis:DescribeStream"}
    statements = plain("iam-policy-kinesis.json")["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}
    elsewhere = {a for a in ACTIONS if a.startswith(("connect:", "servicequotas:", "dynamodb:"))}
    assert allowed == called | elsewhere
    for statement in statements:
        for arn in statement["Resource"]:
            assert "*" not in arn.removesuffix("/contact/*").removesuffix("/consumer/APPLICATION:*")


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_policy_in_the_template_is_the_policy_in_its_file(kind: str) -> None:
    stream = "arn:aws:kinesis:REGION:ACCOUNT_ID:stream/CONTACT_EVENTS_STREAM"
    arns = {
        "arn:aws:sqs:REGION:ACCOUNT_ID:CONTACT_EVENTS_QUEUE": {"Fn::GetAtt": "ContactEvents.Arn"},
        "arn:aws:sqs:REGION:ACCOUNT_ID:QUARANTINE_QUEUE": {"Fn::GetAtt": "Quarantine.Arn"},
        "arn:aws:dynamodb:REGION:ACCOUNT_ID:table/JOURNAL_TABLE": {"Fn::GetAtt": "Journal.Arn"},
        "arn:aws:dynamodb:REGION:ACCOUNT_ID:table/APPLICATION": {"Fn::GetAtt": "Leases.Arn"},
        stream: {"Fn::GetAtt": "ContactEvents.Arn"},
        f"{stream}/consumer/APPLICATION:*": {"Fn::Sub": "${ContactEvents.Arn}/consumer/${Leases}:*"},
    }
    blanks = {
        "arn:aws:": "arn:${AWS::Partition}:",
        "REGION": "${AWS::Region}",
        "ACCOUNT_ID": "${AWS::AccountId}",
        "INSTANCE_ID": "${InstanceId}",
    }

    def filled(arn: str) -> dict[str, str]:
        if arn in arns:
            return arns[arn]
        for blank, value in blanks.items():
            arn = arn.replace(blank, value)
        return {"Fn::Sub": arn}

    in_file, in_template = policies(kind)["file"], policies(kind)["template"]
    for statement in in_file["Statement"]:
        statement["Resource"] = [filled(arn) for arn in statement["Resource"]]
    assert in_file == in_template


def test_what_cannot_be_received_or_delivered_ends_in_the_dead_letter_queue() -> None:
    dead_letters = {"Fn::GetAtt": "DeadLetters.Arn"}
    assert properties("ContactEvents")["RedrivePolicy"]["deadLetterTargetArn"] == dead_letters
    [target] = properties("ContactEventsRule")["Targets"]
    assert target["DeadLetterConfig"]["Arn"] == dead_letters
    assert target["Arn"] == {"Fn::GetAtt": "ContactEvents.Arn"}


def test_the_lease_table_in_the_template_is_the_one_that_attachd_makes() -> None:
    assert properties("Leases", "kinesis") == leases.SCHEMA


def test_a_chats_events_come_to_one_shard() -> None:
    [target] = properties("ContactEventsRule", "kinesis")["Targets"]
    assert target["KinesisParameters"] == {"PartitionKeyPath": "$.detail.contactId"}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_table_in_the_template_is_the_one_that_attachd_makes(kind: str) -> None:
    table = properties("Journal", kind)
    assert table.pop("TimeToLiveSpecification") == {"AttributeName": TTL, "Enabled": True}
    assert table == TABLE


def test_nobody_but_our_rule_may_put_events_into_the_queues() -> None:
    [statement] = properties("LetEventBridgeIn")["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == ["sqs:SendMessage"]
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": "ContactEventsRule.Arn"}}}


@pytest.mark.parametrize("name", TEMPLATES.values())
def test_cloudformation_would_take_the_template(name: str) -> None:
    pytest.importorskip("cfnlint", reason="cfn-lint, which comes with moto, is not installed")
    lint = [str(Path(sys.executable).with_name("cfn-lint")), "--include-checks", "I", "--"]
    finished = subprocess.run(
        [*lint, str(ROOT / "config" / name)], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, "")


# ── CI and hooks ───────────────────────────────────────────────────────────────────────────────


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_ci_runs_what_a_developer_runs_and_no_more() -> None:
    [job] = workflow(".github/workflows/ci.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make check", "make test"]
    assert make_targets() >= {"check", "test"}


def test_ci_runs_on_every_python_we_claim() -> None:
    [job] = workflow(".github/workflows/ci.yml")["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = [line.split(" :: ")[-1] for line in project["classifiers"] if "Python :: 3." in line]
    assert job["strategy"]["matrix"]["python"] == claimed


def test_every_hook_is_a_make_target() -> None:
    [repo] = workflow(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        make, target = hook["entry"].split()
        assert (make, hook["language"], hook["pass_filenames"]) == ("make", "system", False)
        assert target in make_targets()


# ── the container ──────────────────────────────────────────────────────────────────────────────


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "container" / "Containerfile").read_text()
    whole = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)
    ]


def the_last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def test_everything_copied_into_the_image_exists() -> None:
    copies = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    sources = [source for *copied, _target in copies for source in copied]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_starts_our_console_script_without_a_shell() -> None:
    program, *arguments = json.loads(the_last("ENTRYPOINT"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(program).is_absolute()
    assert Path(program).name in scripts
    assert arguments == []
    assert json.loads(the_last("CMD"))[0] == "run"


def test_the_image_runs_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    user, _, group = the_last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_stops_as_attachd_drains_and_leaves_health_to_the_orchestrator() -> None:
    assert the_last("STOPSIGNAL") == "SIGTERM"
    assert "HEALTHCHECK" not in dict(instructions())


def test_every_package_in_the_image_is_pinned_by_its_hash() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert installs
    for line in installs:
        for command in line.split("&&"):
            if "pip install" in command:
                assert "--require-hashes" in command or "--no-deps" in command


def test_the_image_is_built_from_all_that_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = (ROOT / "container" / "Containerfile").read_text()
    let_in = (ROOT / "container" / "Containerfile.dockerignore").read_text().splitlines()
    for source in wheel["force-include"]:
        assert f"COPY {source} " in copied
        assert f"!{source}" in let_in
