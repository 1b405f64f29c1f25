"""One line each, nothing secret in any of them, and the libraries' chatter in none."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.logs import SENSITIVE, Trail, redact
from attachd.model import Participant, Secret

CANARY = "canary-9f2c1e"


def _run(level: str, style: str, body: str) -> list[str]:
    """The lines that a program leaves on standard error, in a process of its own: logging is global."""
    program = (
        "import json, logging, structlog\n"
        "from attachd.logs import configure\n"
        "from attachd.model import Participant, Secret\n"
        f"CANARY = {CANARY!r}\n"
        f"configure({level!r}, {style!r})\n"
        "log = structlog.get_logger('attachd.test')\n"
    ) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == ""
    assert "Logging error" not in done.stderr
    return done.stderr.splitlines()


EVERYTHING = """
log.info("delivery", contact="c-1", text="two\\nlines", umlaut="ü€", surrogate="\\ud800", odd=object())
log.warning("warned", participant=Participant("p", Secret(CANARY), "never"), token=CANARY, nested={"a": [Secret(CANARY)]})
logging.getLogger("somebody").warning("plain %s", "words")
log.debug("too fine")
logging.getLogger("somebody").debug("too fine")
"""


@pytest.mark.real_time
def test_json_is_one_object_a_line_and_console_one_line_each_and_neither_shows_a_secret() -> None:
    lines = [json.loads(line) for line in _run("info", "json", EVERYTHING)]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("delivery", "info"),
        ("warned", "warning"),
        ("plain words", "warning"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["text"] == "two\nlines"
    assert lines[1]["token"] == "[redacted]"
    assert CANARY not in json.dumps(lines)

    console = _run("info", "console", EVERYTHING)
    assert len(console) == 3
    assert [word in line for word, line in zip(["delivery", "warned", "plain"], console, strict=True)]
    assert CANARY not in "\n".join(console)


@pytest.mark.real_time
def test_the_libraries_debug_lines_never_appear_and_their_warnings_do() -> None:
    lines = _run(
        "debug",
        "json",
        """
        for name in ("botocore", "botocore.hooks", "botocore.endpoint", "aiobotocore.httpsession",
                     "aiohttp.client", "aiohttp.access", "asyncio"):
            logging.getLogger(name).debug("X-Amz-Bearer: %s", CANARY)
            logging.getLogger(name).info("X-Amz-Bearer: %s", CANARY)
            logging.getLogger(name).warning("careful")
        log.debug("ours")
        """,
    )
    assert [json.loads(line)["event"] for line in lines] == ["careful"] * 7 + ["ours"]


@pytest.mark.real_time
@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exceptions_traceback_holds_no_secret_not_even_a_local_variables(style: str) -> None:
    lines = _run(
        "info",
        style,
        """
        def hand_off(token, participant):
            plain = token.reveal()
            raise RuntimeError(f"no runtime for {participant}")

        try:
            hand_off(Secret(CANARY), Participant("p", Secret(CANARY), "never"))
        except RuntimeError:
            log.exception("delivery.defect", message="m-1")
            logging.getLogger("somebody").exception("theirs")
        """,
    )
    text = "\n".join(lines)
    assert text.count("Traceback") == 2
    assert text.count("RuntimeError: no runtime for Participant(id='p'") == 2
    assert CANARY not in text
    if style == "json":
        assert [json.loads(line)["event"] for line in lines] == ["delivery.defect", "theirs"]


@pytest.mark.real_time
def test_to_configure_again_replaces_and_does_not_double() -> None:
    lines = _run("error", "console", "configure('info', 'json')\nlog.info('once')\n")
    assert [json.loads(line)["event"] for line in lines] == ["once"]


# ── redaction ──────────────────────────────────────────────────────────────────────────────────


def _redacted(**event: Any) -> dict[str, Any]:
    return dict(redact(None, "info", event))


@st.composite
def _around(draw: st.DrawFn, innermost: st.SearchStrategy[Any]) -> Any:
    """A value, wrapped in lists, tuples and dictionaries to some depth, among harmless neighbours."""
    value = draw(innermost)
    for wrapping in draw(st.lists(st.sampled_from(["list", "tuple", "dict"]), max_size=6)):
        match wrapping:
            case "list":
                value = [1, value, None]
            case "tuple":
                value = ("x", value)
            case _:
                value = {"harmless": 1, "inner": value}
    return value


@given(_around(st.builds(Secret, st.just(CANARY))))
def test_a_secret_is_blanked_by_its_type_at_any_depth(value: Any) -> None:
    shown = repr(_redacted(value=value))
    assert CANARY not in shown
    assert "[redacted]" in shown


def _spellings(name: str) -> list[str]:
    return [name, name.upper(), name.title(), f"_{name}", "-".join([name[:5], name[5:]])]


sensitive = st.sampled_from([spelling for name in sorted(SENSITIVE) for spelling in _spellings(name)])


@given(_around(st.dictionaries(sensitive, st.just(CANARY) | st.just([CANARY]), min_size=1)))
def test_a_value_is_blanked_by_its_name_in_any_casing_at_any_depth(value: Any) -> None:
    shown = repr(_redacted(value=value))
    assert CANARY not in shown


@pytest.mark.parametrize(
    "name",
    ["token", "participant_token", "ParticipantToken", "connectionToken", "Authorization", "X-Amz-Bearer"],
)
def test_the_names_under_which_connect_carries_a_credential_are_sensitive(name: str) -> None:
    assert _redacted(**{name: CANARY}) == {name: "[redacted]"}
    assert CANARY not in repr(_redacted(headers={name: CANARY}))


@pytest.mark.parametrize("name", ["contact", "participant", "client_token", "event", "tokens_spent"])
def test_what_is_no_credential_is_shown(name: str) -> None:
    assert _redacted(**{name: "c-1"}) == {name: "c-1"}


def test_redaction_leaves_what_it_was_given_as_it_was() -> None:
    inner = {"token": CANARY}
    _redacted(value=inner)
    assert inner == {"token": CANARY}


# ── the canonical line ─────────────────────────────────────────────────────────────────────────


def test_a_trail_keeps_what_was_noted_last_and_leaves_out_nothings() -> None:
    trail = Trail()
    trail.note(contact="c-1", bot=None, tries=1)
    trail.note(tries=2, rule=None)
    line = trail.line()
    assert {key: line[key] for key in ("contact", "tries")} == {"contact": "c-1", "tries": 2}
    assert set(line) == {"contact", "tries", "total_ms"}


def test_a_station_is_timed_even_if_it_fails_and_adds_up_over_several_passes() -> None:
    trail = Trail()
    with pytest.raises(RuntimeError), trail.station("attach"):
        raise RuntimeError
    first = trail.seconds["attach"]
    with trail.station("attach"):
        pass
    assert trail.seconds["attach"] >= first >= 0
    assert set(trail.line()) == {"attach_ms", "total_ms"}


def test_a_participant_in_a_line_shows_its_id_and_not_its_token() -> None:
    shown = repr(_redacted(participant=Participant("p-1", Secret(CANARY), "never")))
    assert "p-1" in shown
    assert CANARY not in shown


def test_console_lines_are_plain_where_no_terminal_is() -> None:
    assert "\x1b" not in "\n".join(_run("info", "console", EVERYTHING))
