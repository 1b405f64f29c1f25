"""The commands, as an operator types them: real processes, their output and their exit status."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from acceptance.town import SECRET, Robot, town
from attachd.demo import aws, processes
from attachd.demo.play import shipped

GOOD = """
[source]
type = "sqs"
queue_url = "http://127.0.0.1:9/111122223333/contact-events"

[journal]
type = "memory"

[[bots]]
name = "concierge"
display_name = "Ava"
runtime = "ava"

[[rules]]
name = "German chats"
when.detail.channel = ["CHAT"]
when.detail.tags.language = [{ prefix = "de" }]
bot = "concierge"

[runtimes.ava]
type = "webhook"
url = "http://127.0.0.1:9/attach"
secret = { env = "BOT_KEY" }

[health]
listen = "127.0.0.1:0"
"""


def attachd(
    *arguments: str, env: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        processes.attachd(*arguments),
        env={
            "PATH": os.environ["PATH"],
            "BOT_KEY": SECRET,
            "COLUMNS": "120",
            **aws.credentials(),
            **(env or {}),
        },
        input=stdin.decode(),
        capture_output=True,
        text=True,
        timeout=240,  # for the machine: a met deadline costs nothing
        check=False,
    )


def configured(folder: Path, text: str = GOOD) -> str:
    path = folder / "attachd.toml"
    path.write_text(text)
    return str(path)


def test_a_good_configuration_is_said_to_be_good(tmp_path: Path) -> None:
    done = attachd("check", "--config", configured(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "good: 1 rules, 1 bots, 1 runtimes" in done.stdout


def test_a_rule_that_can_hardly_be_meant_is_warned_of_and_the_configuration_good(tmp_path: Path) -> None:
    odd = GOOD.replace('["CHAT"]', '["Chat"]')
    done = attachd("check", "--config", configured(tmp_path, odd))
    assert done.returncode == 0
    assert "warning: rule 'German chats': detail.channel" in done.stderr
    assert "did you mean 'CHAT'?" in done.stderr
    assert "good: 1 rules" in done.stdout


def test_a_secret_that_is_missing_hides_no_doubt_about_the_rules(tmp_path: Path) -> None:
    odd = GOOD.replace('["CHAT"]', '["Chat"]').replace("BOT_KEY", "NO_SUCH_KEY")
    done = attachd("check", "--config", configured(tmp_path, odd))
    assert done.returncode == 78
    assert "did you mean 'CHAT'?" in done.stderr
    assert "environment variable NO_SUCH_KEY is not set" in done.stderr
    assert "good" not in done.stdout


def test_a_misspelt_operator_is_told_with_what_was_meant(tmp_path: Path) -> None:
    done = attachd("check", "--config", configured(tmp_path, GOOD.replace("prefix =", "prefx =")))
    assert done.returncode == 78
    assert "Unrecognized match type prefx (at detail.tags.language; did you mean 'prefix'?)" in done.stderr


def test_a_bad_configuration_names_file_table_key_and_every_error_at_once(tmp_path: Path) -> None:
    bad = (
        GOOD.replace("queue_url =", "queue_ulr =")
        .replace('bot = "concierge"', 'bot = "conciegre"\nattach_within = "soon"')
        .replace('prefix = "de"', "prefiks = 'de'")
        .replace('type = "memory"', 'type = "stone"')
        + "\n[quota]\nrate = -5\n[qouta]\n"
    )
    path = configured(tmp_path, bad)
    done = attachd("check", "--config", path)
    assert done.returncode == 78
    for expected in (
        f"{path}: [source] queue_ulr: there is no such key; did you mean 'queue_url'?",
        f"{path}: [source] queue_url: missing",
        f"{path}: [journal]: unknown type; there are 'memory', 'sqlite'",
        f"{path}: [quota] rate: ",
        f"{path}: qouta: there is no such key; did you mean 'quota'?",
        f"{path}: [[rules]] 1 'German chats', attach_within: not a duration",
        f"{path}: [[rules]] 1 'German chats', when: not an event pattern: Unrecognized match type prefiks",
        f"{path}: [[rules]] 1 'German chats', bot: there is no bot named 'conciegre'; did you mean 'concierge'?",
    ):
        assert expected in done.stderr
    assert attachd("run", "--config", path).returncode == 78


def test_a_missing_file_or_secret_is_a_configuration_error(tmp_path: Path) -> None:
    missing = attachd("check", "--config", str(tmp_path / "none.toml"))
    assert missing.returncode == 78
    assert missing.stderr == (
        f"attachd: {tmp_path}/none.toml: No such file or directory; name another one with --config FILE\n"
    )
    nothing = attachd("rules", "test", str(tmp_path), "--config", configured(tmp_path))
    assert nothing.stderr == (
        f"attachd: {tmp_path}/expected.toml: No such file or directory; it says which bot each event is to get\n"
    )
    no_event = attachd("explain", "none.json", "--config", configured(tmp_path))
    assert no_event.stderr == "attachd: none.json: No such file or directory\n"
    unset = attachd("check", "--config", configured(tmp_path), env={"BOT_KEY": ""})
    assert unset.returncode == 78
    assert "[runtimes.ava] secret environment variable BOT_KEY is empty" in unset.stderr


def test_explain_says_which_bot_by_which_rule_or_why_none(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    config = configured(tmp_path)
    german, english = tmp_path / "german.json", tmp_path / "english.json"
    german.write_bytes(contact_event("c-1", tags={"language": "de-AT"}))
    english.write_bytes(contact_event("c-2", tags={"language": "en"}))
    yes = attachd("explain", str(german), "--config", config)
    assert yes.returncode == 0
    assert "bot concierge: rule 'German chats' is the first that matches" in yes.stdout
    no = attachd("explain", str(english), "--config", config)
    assert no.returncode == 1
    assert "no bot: no rule matched" in no.stdout
    assert "detail.tags.language" in no.stdout
    told = json.loads(attachd("explain", "-", "--json", "--config", config, stdin=german.read_bytes()).stdout)
    assert (told["bot"], told["rule"], told["rules"][0]["matched"]) == ("concierge", "German chats", True)
    ended = attachd("explain", "-", "--config", config, stdin=contact_event("c-1", "DISCONNECTED"))
    assert "DISCONNECTED opens no CHAT" in ended.stdout
    garbage = attachd("explain", "-", "--config", config, stdin=b"{")
    assert garbage.returncode == 1
    assert "not_json" in garbage.stderr


def test_a_rehearsal_is_of_the_queue_or_of_a_file(tmp_path: Path) -> None:
    done = attachd("run", "--config", configured(tmp_path), "--shadow", "--dry-run", "-", stdin=b"")
    assert done.returncode == 2
    assert "give one of them" in done.stderr


def test_explain_stands_in_for_connect_where_a_rule_asks_for_attributes(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    config = configured(tmp_path, GOOD.replace("when.detail.tags", "when.attributes"))
    event = contact_event("c-1")

    def told(*options: str) -> tuple[int, dict[str, Any]]:
        done = attachd("explain", "-", "--json", "--config", config, *options, stdin=event)
        return done.returncode, json.loads(done.stdout)

    status, unknown = told()
    assert (status, unknown["bot"], unknown["rule"]) == (1, None, "German chats")
    assert unknown["rules"][0]["stopped"] == "attributes"
    assert "asks for the contact's attributes" in unknown["reason"]
    assert told("--attribute", "language=de-AT")[1]["bot"] == "concierge"
    assert told("-a", "language=fr", "-a", "vip=yes")[1]["rules"][0]["stopped"] == "pattern"
    assert told("--no-attributes")[0] == 1
    assert attachd("explain", "-", "--config", config, "-a", "language", stdin=event).returncode == 2


def test_rules_test_holds_a_folder_of_events_to_what_is_expected(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    config, folder = configured(tmp_path), tmp_path / "events"
    folder.mkdir()

    def tried(expected: str, *options: str) -> subprocess.CompletedProcess[str]:
        (folder / "expected.toml").write_text(expected)
        return attachd("rules", "test", str(folder), "--config", config, *options)

    assert attachd("rules", "test", str(folder), "--config", config).returncode == 78
    (folder / "german.json").write_bytes(contact_event("c-1", tags={"language": "de"}))
    (folder / "french.json").write_bytes(contact_event("c-2", tags={"language": "fr"}))
    german, french = '["german.json"]\nbot = "concierge"\n', '["french.json"]\nno_bot = true\n'
    good = tried(german + french)
    assert (good.returncode, good.stderr) == (0, "")
    assert "✓ german.json: concierge by 'German chats'" in good.stdout
    assert "2 events, 0 wrong" in good.stdout
    for expected, wrong in (
        (german, "✗ french.json: no bot: no rule matched (nothing is expected of it"),
        (german + french.replace("no_bot = true", 'bot = "concierge"'), "(expected concierge)"),
        (german.replace("concierge", "other") + french, "concierge by 'German chats' (expected other)"),
        (german + 'rule = "x"\n' + french, "(expected rule 'x')"),
        (german.replace('bot = "concierge"', "no_bot = true") + french, "(no bot was expected)"),
        (german + french + '["gone.json"]\nno_bot = true', "✗ gone.json: "),
    ):
        bad = tried(expected)
        assert bad.returncode == 1
        assert wrong in bad.stdout
        assert "1 wrong" in bad.stdout
    told = json.loads(tried(german, "--json").stdout)
    assert [(trial["event"], trial["good"]) for trial in told] == [
        ("french.json", False),
        ("german.json", True),
    ]
    for expected, problem in (
        ("", "expects nothing"),
        ('["german.json"]', "write either 'bot' or 'no_bot = true'"),
        ('["german.json"]\nbots = "concierge"\nno_bot = true', "['german.json'] bots: "),
        ("[", "expected.toml: "),
    ):
        unreadable = tried(expected)
        assert unreadable.returncode == 78
        assert problem in unreadable.stderr
        assert "Traceback" not in unreadable.stderr
    assert attachd("rules", "test", str(tmp_path / "none"), "--config", config).returncode == 78


def test_a_dry_run_decides_and_logs_for_each_event_of_a_file_and_calls_nobody(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    """Every address in the configuration is one where nobody answers."""
    now = time.time()
    events = [
        contact_event("c-1", at=now, tags={"language": "de-DE"}),
        contact_event("c-2", at=now, tags={"language": "en"}),
        contact_event("c-1", "CONNECTED_TO_SYSTEM", at=now, tags={"language": "de-DE"}),
        contact_event("c-3", "DISCONNECTED", at=now),
        b"no json",
    ]
    options = ("run", "--config", configured(tmp_path), "--dry-run", "-")
    done = attachd(*options, stdin=b"\n".join(event.replace(b"\n", b" ") for event in events))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line["rehearsal"] for line in lines)
    ends = {line["message"]: line for line in lines if line["event"] == "delivery"}
    assert {ends[n]["outcome"] for n in ("2", "5")} == {"no_bot", "not_json"}
    assert (ends["1"]["outcome"], ends["1"]["bot"]) == ("attached", "concierge")
    assert {ends["3"]["outcome"], ends["4"]["outcome"]} == {"duplicate", "noted"}
    assert not list(tmp_path.glob("*.sqlite*"))


@pytest.mark.parametrize("weak", ["not base64 at all!", "abc", "whsec_AAAA", "whsec_"])
def test_a_secret_that_would_sign_with_next_to_nothing_is_refused_and_not_repeated(
    tmp_path: Path, weak: str
) -> None:
    done = attachd("check", "--config", configured(tmp_path), env={"BOT_KEY": weak})
    assert done.returncode == 78
    assert "make one with 'attachd secret'" in done.stderr
    assert weak not in done.stderr.replace("after 'whsec_'", "")


def test_text_of_an_event_or_a_rule_does_not_steer_the_terminal(
    tmp_path: Path, contact_event: Callable[..., bytes]
) -> None:
    config = configured(tmp_path, GOOD.replace("German chats", "chats [/] x"))
    event = contact_event("c-1", tags={"language": "\u001b[2J[/red] hi"})
    done = attachd("explain", "-", "--config", config, stdin=event)
    assert (done.returncode, done.stderr) == (1, "")
    assert "chats [/] x" in done.stdout
    assert "[/red] hi" in done.stdout
    assert "\u001b[2J" not in done.stdout


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('boom')", "def (", "import sys; sys.exit(3)", "take = len"]
)
def test_a_bot_module_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, body: str) -> None:
    (tmp_path / "my_bot.py").write_text(body)
    table = '[runtimes.ava]\ntype = "python"\ncallable = "my_bot:take"\n'
    config = configured(tmp_path, GOOD[: GOOD.index("[runtimes.ava]")] + table)
    done = attachd("check", "--config", config, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 78
    assert "[runtimes.ava] callable 'my_bot:take'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_demo_that_cannot_be_played_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = attachd("demo", "--keep", str(tmp_path / "file"))
    assert done.returncode == 1
    assert "the demo cannot be played" in done.stderr
    assert "Traceback" not in done.stderr


async def test_sigterm_ends_the_demo_with_everything_it_started(tmp_path: Path) -> None:
    command = processes.attachd("demo", "--chats", "20", "--seconds", "20", "--keep", str(tmp_path))
    async with await anyio.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as demo:
        log = tmp_path / "attachd.log"
        with anyio.fail_after(120):
            while not (log.exists() and '"outcome": "attached"' in log.read_text()):
                await anyio.sleep(0.1)
        demo.terminate()
        with anyio.fail_after(120):
            await demo.wait()
    assert "attachd.stopped" in log.read_text()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in command for command in commands)


def test_a_new_secret_signs(tmp_path: Path) -> None:
    made = attachd("secret").stdout.strip()
    assert made.startswith("whsec_")
    assert attachd("check", "--config", configured(tmp_path), env={"BOT_KEY": made}).returncode == 0


async def test_a_queue_that_does_not_exist_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with aws.embedded(shipped("config/eventbridge-rule.json")) as embedded:
        nowhere = embedded.queue_url + "-typo"
        config = configured(tmp_path, GOOD.replace("http://127.0.0.1:9/111122223333/contact-events", nowhere))
        done = attachd("run", "--config", config, env=embedded.environment)
        assert done.returncode == 78
        assert f"queue {nowhere} does not exist, and attachd never makes one" in done.stderr
        assert attachd("run", "--config", config, env=embedded.environment).returncode == 78


async def test_an_aws_that_does_not_answer_at_the_start_is_waited_for(tmp_path: Path) -> None:
    nothing = {"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9", "BOT_KEY": SECRET, **aws.credentials()}
    command = processes.attachd("run", "--config", configured(tmp_path))
    async with processes.running("attachd", command, nothing, tmp_path, says="attachd.starting") as daemon:
        with anyio.fail_after(120):
            while "source.poll_failed" not in daemon.log.read_text():
                await anyio.sleep(0.1)
        assert daemon.process.returncode is None


async def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    robot = Robot()
    async with town(tmp_path, robot) as place, place.attachd() as daemon:
        await place.spoke(await place.start_chat())
        daemon.send(signal.SIGTERM)
        with anyio.fail_after(120):
            assert await daemon.process.wait() == 0
    log = daemon.log.read_text()
    assert '"next": "draining for at most 60 s"' in log
    assert "attachd.stopped" in log


def test_the_demo_ends_with_one_bot_for_every_chat(tmp_path: Path) -> None:
    done = attachd("demo", "--chats", "12", "--seconds", "2", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with exactly one bot that spoke" in done.stdout
    assert "Hello, I am" in done.stdout


# ── journal ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("journal", "status", "says"),
    [
        ('type = "memory"', 0, "needs nothing made"),
        ('type = "dynamodb"', 1, "check the network, the VPC endpoint, AWS_ENDPOINT_URL_DYNAMODB"),
        ('type = "dynamodb"\ntable = "no"', 78, "[journal] table: "),
    ],
)
def test_journal_create_says_what_it_did_or_why_not(
    tmp_path: Path, journal: str, status: int, says: str
) -> None:
    config = tmp_path / "attachd.toml"
    config.write_text(GOOD.replace('type = "memory"', journal))
    env = {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"}
    done = attachd("journal", "create", "--config", str(config), env=env)
    assert done.returncode == status
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
