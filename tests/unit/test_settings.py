"""The configuration: what loads, and that every error is said at once, in its place, and no secret with it."""

import json
import math
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attachd.errors import Misconfigured
from attachd.settings import KinesisSource, SecretRef, Settings, SqsSource, load

CANARY = "canary-9f2c1e"

MINIMAL = """
[source]
type = "sqs"
queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/contact-events"

[[bots]]
name = "concierge"
display_name = "Ava"
runtime = "ava"

[[rules]]
name = "web chat"
bot = "concierge"

[runtimes.ava]
type = "webhook"
url = "https://bot.internal/attach"
secret = { env = "AVA_KEY" }
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 - nothing else here may look at the environment

    for name in [name for name in os.environ if name.upper().startswith("ATTACHD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "attachd.toml"


def _load(file: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (environ or {}).items():
            environment.setenv(name, value)
        return load(file)


def _problems(file: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with a file, each problem without the file's name, which each must begin with."""
    with pytest.raises(Misconfigured) as refusal:
        _load(file, text, environ)
    problems = list(refusal.value.problems)
    assert problems
    return [problem.removeprefix(f"{file}: ") for problem in problems]


# ── what loads ─────────────────────────────────────────────────────────────────────────────────


def test_a_minimal_file_loads_with_the_documented_defaults(file: Path) -> None:
    config = _load(file, MINIMAL)
    assert (config.quota.rate, config.quota.burst, config.quota.headroom) == (None, None, 0.02)
    assert config.journal.type == "sqlite"
    assert (config.rules[0].attach_within, config.rules[0].priority) == (60, 0)
    assert json.loads(config.rules[0].when) == {"detail": {"channel": ["CHAT"]}}
    assert (config.logging.level, config.logging.format) == ("info", "json")
    assert config.health.listen == "127.0.0.1:8080"


def test_a_file_is_utf_8_whatever_the_locale(file: Path) -> None:
    assert _load(file, MINIMAL.replace("Ava", "Åva 😀")).bots[0].display_name == "Åva 😀"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"250ms"', 0.25),
        ('"60s"', 60),
        ('"5m"', 300),
        ('"2h"', 7200),
        ('"3d"', 259200),
        ("45", 45),
        ('"1.5 m"', 90),
        ("0.5", 0.5),
        ('" 7s "', 7),
    ],
)
def test_durations_are_read_with_their_units(file: Path, written: str, seconds: float) -> None:
    assert _load(file, f"{MINIMAL}[service]\ndrain = {written}\n").service.drain == seconds


@pytest.mark.parametrize(
    "when",
    [
        "when.detail.tags.language = [{ prefix = 'de' }]",
        """when = '{"detail":{"tags":{"language":["de"]}}}'""",
    ],
)
def test_a_pattern_is_a_table_or_the_text_that_aws_shows(file: Path, when: str) -> None:
    config = _load(file, MINIMAL.replace('name = "web chat"', f'name = "web chat"\n{when}'))
    assert "language" in json.loads(config.rules[0].when)["detail"]["tags"]


def test_settings_cannot_be_changed(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        _load(file, MINIMAL).quota.rate = 6  # type: ignore[misc]  # that is the point


# ── what does not, and what is said ────────────────────────────────────────────────────────────


def test_every_error_is_said_at_once_and_names_file_table_and_key(file: Path) -> None:
    text = (
        MINIMAL.replace('display_name = "Ava"', "")
        .replace("https://sqs", "sqs")
        .replace('runtime = "ava"', 'runtime = "avva"')
        + '[quota]\nrate = -1\n[service]\ndrain = "soon"\n[logging]\nlevel = "loud"\n'
    )
    with pytest.raises(Misconfigured) as refusal:
        _load(file, text)
    problems = refusal.value.problems
    assert all(problem.startswith(f"{file}: ") for problem in problems)
    for place in (
        "[[bots]] 1 'concierge', display_name: missing",
        "[source] queue_url: ",
        "[[bots]] 1 'concierge', runtime: there is no table [runtimes.avva]; did you mean 'ava'?",
        "[quota] rate: ",
        "[service] drain: not a duration",
        "[logging] level: ",
    ):
        assert [problem for problem in problems if place in problem], place


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[quota]\nraet = 4\n", "[quota] raet: there is no such key; did you mean 'rate'?"),
        ("[servcie]\ndrain = 4\n", "servcie: there is no such key; did you mean 'service'?"),
        ("[logging]\ncolour = 4\n", "[logging] colour: there is no such key; there are format, level"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(file: Path, text: str, problem: str) -> None:
    assert _problems(file, MINIMAL + text) == [problem]


def test_missing_tables_are_named(file: Path) -> None:
    assert _problems(file, "") == [f"[{t}]: missing" for t in ("bots", "rules", "runtimes", "source")]


@pytest.mark.parametrize("value", ['"5 fortnights"', '"-5s"', '"5"', "0", "-1", '"0s"', "nan", "[]", "{}"])
def test_what_is_no_duration_is_refused(file: Path, value: str) -> None:
    (problem,) = _problems(file, f"{MINIMAL}[service]\ndrain = {value}\n")
    assert problem.startswith("[service] drain: ")


@pytest.mark.parametrize("value", ["inf", f'"{"9" * 400}d"'])
def test_no_duration_is_without_end(file: Path, value: str) -> None:
    (problem,) = _problems(file, f"{MINIMAL}[service]\ndrain = {value}\n")
    assert problem.startswith("[service] drain: ")


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ('.detail.channel = "CHAT"', '"channel" must be an object or an array (at detail.channel)'),
        (
            ".detail.channel = [{ prefx = 'C' }]",
            "Unrecognized match type prefx (at detail.channel; did you mean 'prefix'?)",
        ),
        (
            ' = """{\n\\"detail\\": {\\"channel\\": [{\\"prefx\\": \\"C\\"}]}}"""',
            "Unrecognized match type prefx (at detail.channel, line 2, column 34; did you mean 'prefix'?)",
        ),
        (" = '[]'", "Filter is not an object (at line 1, column 1)"),
    ],
)
def test_a_bad_pattern_is_refused_in_eventbridges_words_and_with_its_place(
    file: Path, when: str, said: str
) -> None:
    problems = _problems(file, MINIMAL.replace('name = "web chat"', f'name = "web chat"\nwhen{when}'))
    assert f"[[rules]] 1 'web chat', when: not an event pattern: {said}" in problems


def test_an_error_inside_a_list_brings_no_second_one_about_its_length(file: Path) -> None:
    """An invalid rule is there all the same: to say that there is none sends the reader astray."""
    (problem,) = _problems(
        file, MINIMAL.replace('bot = "concierge"', 'bot = "concierge"\nattach_within = "soon"')
    )
    assert problem.startswith("[[rules]] 1 'web chat', attach_within: not a duration")


@pytest.mark.parametrize(
    ("text", "line"),
    [("[source\n", 1), ("a = 1\nb = \n", 2), ('a = 1\n\nb = "x\n', 3), ("a = 1\na = 2\n", 2)],
)
def test_a_syntax_error_shows_its_line(file: Path, text: str, line: int) -> None:
    (problem,) = _problems(file, text)
    assert f"line {line}" in problem


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'a = "\xfc"')
    for path in (tmp_path / "nowhere.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(Misconfigured) as refusal:
            load(path)
        assert str(path) in refusal.value.problems[0]


def test_names_that_stand_there_twice_are_said(file: Path) -> None:
    twice = MINIMAL[MINIMAL.index("[[bots]]") : MINIMAL.index("[runtimes.ava]")]
    assert _problems(file, MINIMAL + twice) == [
        "[[bots]]: the name 'concierge' stands there twice",
        "[[rules]]: the name 'web chat' stands there twice",
    ]


@pytest.mark.parametrize(
    ("named", "hint"), [("concierg", "; did you mean 'concierge'?"), ("xyz", "; there are concierge")]
)
def test_a_rule_for_a_bot_that_is_not_there_is_said(file: Path, named: str, hint: str) -> None:
    text = MINIMAL.replace('bot = "concierge"', f'bot = "{named}"')
    assert _problems(file, text) == [f"[[rules]] 1 'web chat', bot: there is no bot named '{named}'{hint}"]


@pytest.mark.parametrize("listen", ["", "8080", "127.0.0.1", "127.0.0.1:", ":8080", "h:70000", "h:-1", "h:x"])
def test_what_cannot_be_listened_on_is_refused(file: Path, listen: str) -> None:
    (problem,) = _problems(file, f'{MINIMAL}[health]\nlisten = "{listen}"\n')
    assert problem.startswith("[health] listen: ")


@pytest.mark.parametrize(
    "line",
    ["_cli_parse_args = ['--x']", "_env_prefix = 'OTHER_'", "_env_file = 'x'", "__pydantic_self__ = 1"],
)
def test_the_parsers_own_parameters_are_no_keys(file: Path, line: str) -> None:
    (problem,) = _problems(file, line + "\n" + MINIMAL)
    assert problem.startswith(f"{line.split(' =', maxsplit=1)[0]}: there is no such key")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x = " + "[" * 5000 + "]" * 5000, id="nested"),
        pytest.param("x = " + "1" * 5000, id="digits"),
        pytest.param(
            MINIMAL.replace('bot = "con', "when = " + "{a=" * 300 + "1" + "}" * 300 + '\nbot = "con'),
            id="when",
        ),
        pytest.param(
            MINIMAL.replace('bot = "con', 'when.detail.x = [2026-01-01]\nbot = "con'),
            id="a date in a pattern",
        ),
    ],
)
def test_a_hostile_file_is_a_bad_file(file: Path, text: str) -> None:
    assert _problems(file, text)


# ── the environment ────────────────────────────────────────────────────────────────────────────


def _with_environment(file: Path, text: str, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return _load(file, text, environ)


def test_any_key_can_be_overridden_from_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _with_environment(
        file,
        MINIMAL + "[quota]\nburst = 3\n[service]\ndrain = 9\n",
        monkeypatch,
        ATTACHD_QUOTA__RATE="4",
        ATTACHD_SOURCE__QUEUE_URL="https://sqs/other/queue",
        ATTACHD_LOGGING__LEVEL="debug",
        ATTACHD_SERVICE__DRAIN="2m",
        ATTACHD_JOURNAL__TYPE="memory",
    )
    assert (config.quota.rate, config.quota.burst) == (4, 3)
    assert isinstance(config.source, SqsSource)
    assert config.source.queue_url == "https://sqs/other/queue"
    assert (config.logging.level, config.logging.format) == ("debug", "json")
    assert config.service.drain == 120
    assert config.journal.type == "memory"


def test_a_required_key_may_come_from_the_environment_with_its_table_partly_in_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if "queue_url" not in line)
    config = _with_environment(
        file,
        text.replace('type = "sqs"', "poll = 9"),
        monkeypatch,
        ATTACHD_SOURCE__QUEUE_URL="https://sqs/a/q",
    )
    assert isinstance(config.source, SqsSource)
    assert (config.source.queue_url, config.source.poll) == ("https://sqs/a/q", 9)


def test_overrides_come_from_the_environment_that_is_given(file: Path) -> None:
    assert _load(file, MINIMAL, {"ATTACHD_QUOTA__RATE": "4"}).quota.rate == 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ATTACHD_QUOTTA__RATE", "quota"),
        ("ATTACHD_QUOTA_RATE", "quota"),
        ("ATTACHD_LOGING__LEVEL", "logging"),
    ],
)
def test_a_misspelt_override_is_an_error(file: Path, name: str, hint: str) -> None:
    (problem,) = _problems(file, MINIMAL, {name: CANARY})
    assert problem.startswith(f"environment variable {name}: ")
    assert f"did you mean '{hint}'?" in problem
    assert CANARY not in problem


def test_a_misspelt_key_in_an_override_is_an_error_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHD_QUOTA__RAET", "4")
    (problem,) = _problems(file, MINIMAL, {"ATTACHD_QUOTA__RAET": "4"})
    assert "[quota] raet: there is no such key; did you mean 'rate'?" in problem


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ATTACHD_QUOTA__RATE", "fast", "[quota] rate: "),
        ("ATTACHD_SERVICE__DRAIN", "soon", "[service] drain: "),
        ("ATTACHD_JOURNAL__UNAVAILABLE", "hope", "[journal] unavailable: "),
    ],
)
def test_an_override_that_is_wrong_is_named_instead_of_the_file(
    file: Path, variable: str, value: str, said: str
) -> None:
    text = MINIMAL + "[journal]\ntype = 'sqlite'\n[logging]\nlevel = 'loud'\n"
    problems = _problems(file, text, {variable: value})
    assert [p.startswith(f"environment variable {variable}: {said}") for p in problems].count(True) == 1
    assert [p.startswith("[logging] level: ") for p in problems].count(True) == 1


def test_other_programs_variables_are_none_of_ours(file: Path) -> None:
    theirs = {"PATH": "/bin", "QUOTA__RATE": "4", "AWS_REGION": "x", "XATTACHD_Y": "1"}
    assert _load(file, MINIMAL, theirs) == _load(file, MINIMAL, {})


def test_an_override_that_cannot_be_read_is_said_without_its_value(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHD_QUOTA", "{" + CANARY)
    problems = _problems(file, MINIMAL, {"ATTACHD_QUOTA": "{" + CANARY})
    assert any("quota" in problem for problem in problems)
    assert CANARY not in "\n".join(problems)


# ── secrets ────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_is_read_from_where_its_reference_says(tmp_path: Path) -> None:
    (tmp_path / "ava.key").write_text(f"  {CANARY}\n")
    for reference, environ in (
        (SecretRef(env="AVA_KEY"), {"AVA_KEY": CANARY}),
        (SecretRef(file=tmp_path / "ava.key"), {}),
        (SecretRef(credential="ava.key"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}),
    ):
        secret = reference.read(environ)
        assert secret.reveal() == CANARY
        assert CANARY not in repr(reference)


def test_a_secret_that_is_missing_empty_or_no_text_is_named_and_not_made_up(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    here = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    for reference, environ, named in (
        (SecretRef(env="AVA_KEY"), {}, "AVA_KEY"),
        (SecretRef(env="AVA_KEY"), {"AVA_KEY": "  "}, "AVA_KEY"),
        (SecretRef(file=tmp_path / "nowhere"), {}, "nowhere"),
        (SecretRef(file=tmp_path / "empty"), {}, "empty"),
        (SecretRef(file=tmp_path / "bytes"), {}, "bytes"),
        (SecretRef(file=tmp_path), {}, tmp_path.name),
        (SecretRef(credential="nowhere"), here, "nowhere"),
        (SecretRef(credential="empty"), here, "empty"),
        (SecretRef(credential="ava.key"), {}, "$CREDENTIALS_DIRECTORY is not set"),
    ):
        with pytest.raises(Misconfigured) as refusal:
            reference.read(environ)
        assert named in str(refusal.value)


LITERALS = [
    f'"{CANARY}"',
    f'["{CANARY}"]',
    f'{{ value = "{CANARY}" }}',
    f'{{ env = ["{CANARY}"] }}',
    f'{{ env = "A", literal = "{CANARY}" }}',
    f'[{{ env = "A" }}, "{CANARY}"]',
]


@pytest.mark.parametrize("literal", LITERALS)
def test_a_literal_secret_is_refused_and_never_repeated(file: Path, literal: str) -> None:
    text = MINIMAL.replace('{ env = "AVA_KEY" }', literal)
    with pytest.raises(Misconfigured) as refusal:
        _load(file, text)
    shown: BaseException | None = refusal.value
    while shown is not None:
        assert CANARY not in str(shown)
        assert CANARY not in repr(shown)
        shown = shown.__cause__ or shown.__context__


def test_a_literal_secret_in_the_environment_is_refused_and_never_repeated(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (CANARY, f'"{CANARY}"', "{" + CANARY):
        monkeypatch.setenv("ATTACHD_RUNTIMES__AVA__SECRET", value)
        problems = _problems(file, MINIMAL, {"ATTACHD_RUNTIMES__AVA__SECRET": value})
        assert CANARY not in "\n".join(problems)


@pytest.mark.parametrize("reference", [f'"{CANARY}"', "{}", '{ env = "A", file = "b" }', "7"])
def test_who_gives_no_reference_is_told_once_and_in_plain_words_what_to_write(
    file: Path, reference: str
) -> None:
    (problem,) = _problems(file, MINIMAL.replace('{ env = "AVA_KEY" }', reference))
    assert problem.startswith("[runtimes] ava secret: ")
    assert all(word in problem for word in ("credential", "env", "file"))


# ── any table at all ───────────────────────────────────────────────────────────────────────────

scalars = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.dates(date(1, 1, 1))
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["sqs", "memory", "sqlite", "webhook", "python", "concierge", "ava", "60s", "1:2"])
)
keys = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [
        "name",
        "type",
        "bot",
        "runtime",
        "when",
        "url",
        "secret",
        "env",
        "file",
        "queue_url",
        "rate",
        "listen",
        "path",
        "callable",
        "detail",
        "channel",
        "poll",
        "capabilities",
        "display_name",
        "drain",
        "stall",
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
tables = st.dictionaries(keys, values, max_size=5)
whole_files = st.fixed_dictionaries(
    {},
    optional={
        "source": tables | values,
        "journal": tables | values,
        "quota": tables | values,
        "bots": st.lists(tables | values, max_size=3) | values,
        "rules": st.lists(tables | values, max_size=3) | values,
        "runtimes": st.dictionaries(keys, tables | values, max_size=3) | values,
        "service": tables | values,
        "health": tables | values,
        "logging": tables | values,
        "x": values,
    },
)


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(document=whole_files)
@example(document={"bots": [{"name": {"x": 1}}], "rules": [{"name": [], "bot": {}}], "runtimes": {}})
@example(document={"runtimes": {"": {"type": []}, "a": {"type": {"b": 1}}}})
@example(document={"rules": [{"when": {"detail": {"x": [math.nan]}}}]})
@example(document={"rules": [{"when": date(2027, 1, 1)}]})
def test_any_file_is_settings_or_misconfigured(document: dict[str, Any], file: Path) -> None:
    text = "\n".join(f"{_key(key)} = {_toml(value)}" for key, value in document.items())
    try:
        assert isinstance(_load(file, text), Settings)
    except Misconfigured as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.startswith(str(file)) for problem in problems)


def _key(key: str) -> str:
    return _toml(key)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08X}" for c in value)
            return f'"{escaped}"'
        case float() | int():
            return repr(value)
        case date():
            return value.isoformat()
        case dict():
            return "{" + ", ".join(f"{_key(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            raise TypeError(value)


@pytest.mark.parametrize(
    "url",
    [
        "https:///attach",
        "https://bot internal/attach",
        "http://bot:99999/x",
        "unix://run/x.sock",
        "ftp://bot/x",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(file: Path, url: str) -> None:
    (problem,) = _problems(file, re.sub(r'(?m)^url = ".*"', f'url = "{url}"', MINIMAL))
    assert problem.startswith("[runtimes] ava url: ")


def test_a_password_in_an_address_is_refused_and_not_repeated(file: Path) -> None:
    (problem,) = _problems(file, re.sub(r'(?m)^url = ".*"', f'url = "https://user:{CANARY}@bot/x"', MINIMAL))
    assert CANARY not in problem


@pytest.mark.parametrize("slot", ["env", "file", "credential"])
def test_a_secret_in_the_place_of_its_name_is_refused_and_not_repeated(file: Path, slot: str) -> None:
    literal = f'{{ {slot} = "whsec_{CANARY}" }}'
    (problem,) = _problems(file, MINIMAL.replace('{ env = "AVA_KEY" }', literal))
    assert "never the secret itself" in problem
    assert CANARY not in problem


def test_an_arn_is_told_from_a_queues_url(file: Path) -> None:
    arn = "arn:aws:sqs:eu-central-1:111122223333:contact-events"
    (problem,) = _problems(file, re.sub(r'queue_url = ".*"', f'queue_url = "{arn}"', MINIMAL))
    assert "its ARN is not its URL" in problem


ARN = "arn:aws:connect:{region}:111122223333:instance/{name}"


def _instance(name: str, region: str = "eu-central-1", more: str = "") -> str:
    return f'[[instances]]\narn = "{ARN.format(region=region, name=name)}"\n{more}\n'


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (_instance("a") + _instance("a"), "stands there twice"),
        (
            _instance("a", more="quota.rate = 4") + _instance("b", more="quota.rate = 9"),
            "two quotas for account 111122223333 in eu-central-1",
        ),
        (_instance("a", more='endpoint = "connect.internal"'), "not an endpoint"),
        (_instance("a", more='endpoint = "https://"'), "not an endpoint"),
        (
            _instance("a")
            + '[[bots]]\nname = "b"\ndisplay_name = "B"\nruntime = "ava"\n'
            + 'streaming_topic = "arn:aws:sns:us-east-1:111122223333:chats"\n',
            "a topic in us-east-1, and no instance is there: they are in eu-central-1",
        ),
        ('[[rules]]\nname = "r"\nbot = ["concierge", "concierge"]\n', "'concierge' stands there twice"),
        (
            (
                '[[bots]]\nname = "b"\ndisplay_name = "B"\nruntime = "ava"\nconnect = true\n'
                '[[rules]]\nname = "r"\nbot = ["concierge", "b"]\n'
            ),
            "connects some of its bots and not the others",
        ),
        (
            (
                '[[bots]]\nname = "b"\ndisplay_name = "B"\nruntime = "ava"\n'
                'timers = { idle = "10m", disconnect = "5m" }\n'
            ),
            "disconnected before they count as idle",
        ),
        ('[[rules]]\nname = "r"\nbot = "concierge"\nfallback = "avo"\n', "did you mean 'ava'?"),
        ('[[rules]]\nname = "r"\nbot = "concierge"\nfallback = "ava"\n', "own runtime already"),
    ],
)
def test_what_cannot_work_together_is_said_before_it_runs(file: Path, more: str, problem: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(problem)):
        _load(file, MINIMAL + more)


def test_instances_of_one_account_may_say_the_same_quota_each(file: Path) -> None:
    more = _instance("a", more="quota.rate = 4") + _instance("b", more="quota.rate = 4")
    assert len(_load(file, MINIMAL + more).instances) == 2


# ── several sources ────────────────────────────────────────────────────────────────────────────

TWO = """
[[sources]]
queue_url = "https://sqs.eu-central-1.amazonaws.com/111122223333/contact-events"
[[sources]]
type = "kinesis"
stream = "{stream}"
"""


def several(text: str) -> str:
    return MINIMAL.replace(MINIMAL.split("[[bots]]", maxsplit=1)[0], text)


def test_several_sources_are_called_by_their_own_names(file: Path) -> None:
    config = _load(file, several(TWO.format(stream="arn:aws:kinesis:eu-west-1:111122223333:stream/events")))
    assert [source.label for source in config.origins] == ["contact-events", "events"]


def test_two_sources_of_one_name_are_told_apart_by_the_operator(file: Path) -> None:
    text = several(TWO.format(stream="contact-events"))
    assert _problems(file, text) == [
        "[[sources]]: the name 'contact-events' stands there twice: give each a 'name' of its own"
    ]
    config = _load(file, text.replace("[[bots]]", 'name = "stream"\n[[bots]]', 1))
    assert [source.label for source in config.origins] == ["contact-events", "stream"]


def test_two_streams_do_not_share_leases(file: Path) -> None:
    table = '[[sources]]\ntype = "kinesis"\nstream = "{}"\n'
    (problem,) = _problems(file, several(table.format("a") + table.format("b")))
    assert "the leases of 'attachd-kinesis'" in problem


def test_a_key_of_one_of_several_sources_is_named_by_its_place(file: Path) -> None:
    (problem,) = _problems(file, several(TWO.format(stream="a b")))
    assert problem.startswith("[[sources]] 2, stream: ")


def test_one_source_and_several_are_not_both(file: Path) -> None:
    (problem,) = _problems(file, MINIMAL + TWO.format(stream="events"))
    assert problem.startswith("[source] and [[sources]]: ")


def test_a_source_from_the_environment_alone_is_not_missing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHD_SOURCE__QUEUE_URL", "https://sqs/a/q")
    (source,) = _load(file, several("")).origins
    assert source.label == "q"
    (problem,) = _problems(file, several("") + "[xyz]\n")
    assert problem.startswith("xyz: there is no such key")


# ── kinesis ────────────────────────────────────────────────────────────────────────────────────

SQS_TABLE = MINIMAL.split("[[bots]]", maxsplit=1)[0]


def kinesis(*lines: str) -> str:
    return MINIMAL.replace(SQS_TABLE, "\n".join(["[source]", 'type = "kinesis"', *lines, "\n"]))


def test_a_stream_is_all_that_kinesis_needs(file: Path) -> None:
    source = _load(file, kinesis('stream = "contact-events"')).source
    assert isinstance(source, KinesisSource)
    assert (source.start, source.leases, source.application, source.fan_out) == (
        "TRIM_HORIZON",
        "sqlite",
        "attachd-kinesis",
        False,
    )
    assert source.file({"STATE_DIRECTORY": "/var/lib/attachd:/b"}) == Path(
        "/var/lib/attachd/attachd-kinesis.leases.sqlite"
    )


@pytest.mark.parametrize(
    "stream",
    ["contact-events", "a.b_c-1", "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/contact-events"],
)
def test_a_stream_is_named_or_given_by_its_arn(file: Path, stream: str) -> None:
    source = _load(file, kinesis(f'stream = "{stream}"')).source
    assert isinstance(source, KinesisSource)
    assert source.stream == stream


@pytest.mark.parametrize(
    "stream", ["", "a b", "https://kinesis", "arn:aws:sqs:eu-central-1:111122223333:queue"]
)
def test_what_is_no_stream_is_refused(file: Path, stream: str) -> None:
    [problem] = _problems(file, kinesis(f'stream = "{stream}"'))
    assert problem.startswith("[source] stream: ")


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ('"TRIM_HORIZON"', "TRIM_HORIZON"),
        ('"LATEST"', "LATEST"),
        ("2026-01-31T08:00:00Z", 1769846400.0),
        ("{ timestamp = 2026-01-31T09:00:00+01:00 }", 1769846400.0),
        ('{ timestamp = "2026-01-31T08:00:00Z" }', 1769846400.0),
        ("1769846400", 1769846400.0),
    ],
)
def test_a_stream_begins_at_an_edge_or_at_a_moment(file: Path, written: str, start: str | float) -> None:
    source = _load(file, kinesis('stream = "events"', f"start = {written}")).source
    assert isinstance(source, KinesisSource)
    assert source.start == start


@pytest.mark.parametrize(
    "written", ['"latest"', "2026-01-31T08:00:00", "true", "{ timestamp = true }", '"soon"', "[]"]
)
def test_a_start_that_is_none_or_has_no_zone_is_refused_in_one_sentence(file: Path, written: str) -> None:
    [problem] = _problems(file, kinesis('stream = "events"', f"start = {written}"))
    assert problem.startswith("[source] start: write 'TRIM_HORIZON', 'LATEST', or a moment")


def test_a_key_of_another_source_is_said_to_be_none_of_this_one(file: Path) -> None:
    [problem] = _problems(file, kinesis('stream = "events"', 'visibility = "30s"'))
    assert problem.startswith("[source] visibility: there is no such key")


# ── who is at the other end of a webhook ───────────────────────────────────────────────────────


def _runtime(**keys: str) -> str:
    lines = [f"{key} = {value}" for key, value in keys.items() if key != "url"]
    url = keys.get("url", "https://bot.internal/attach")
    return MINIMAL.replace("https://bot.internal/attach", url) + "\n".join(lines) + "\n"


def test_certificates_and_the_listening_user_are_optional_and_stand_in_the_runtimes_table(file: Path) -> None:
    tls = _load(file, _runtime(ca="'/tls/ca.pem'", client_cert="'/tls/us.pem'", client_key="'/tls/us.key'"))
    assert tls.runtimes["ava"].model_dump()["client_key"] == Path("/tls/us.key")
    for user, read in (("'ava'", "ava"), ("991", 991), ("'991'", 991)):
        local = _load(file, _runtime(url="unix:///run/ava.sock", peer_user=user))
        assert local.runtimes["ava"].model_dump()["peer_user"] == read


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"url": "http://bot.internal", "ca": "'/ca.pem'"}, "ca and client_cert are for https://"),
        ({"url": "unix:///run/ava.sock", "client_cert": "'/us.pem'"}, "ca and client_cert are for https://"),
        ({"client_key": "'/us.key'"}, "client_key is the key of a client_cert, which is missing"),
        ({"peer_user": "'ava'"}, "peer_user is for unix://"),
        ({"url": "unix:///run/ava.sock", "peer_user": "-1"}, "peer_user: not a user"),
        ({"url": "unix:///run/ava.sock", "peer_user": "true"}, "peer_user: not a user"),
        ({"url": "unix:///run/ava.sock", "peer_user": "''"}, "peer_user: not a user"),
    ],
)
def test_certificates_are_for_https_and_users_for_sockets(
    file: Path, keys: dict[str, str], problem: str
) -> None:
    [said] = _problems(file, _runtime(**keys))
    assert said.startswith("[runtimes] ava")
    assert problem in said
