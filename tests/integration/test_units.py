"""The systemd units, judged by systemd itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
UNIT = UNITS / "attachd.service"
DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))
INSTALLED = "/opt/attachd/bin/attachd"
DRAIN_SECONDS = 60  # attachd's default

analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze is not on this machine")


def systemd_analyze(*arguments: str) -> tuple[int, str]:
    """The exit status, and what systemd has to say about attachd (it may speak of this machine's units, too)."""
    assert analyze
    finished = subprocess.run(
        [analyze, "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
    said = f"{finished.stdout}{finished.stderr}".splitlines()
    return finished.returncode, "\n".join(line for line in said if "attachd" in line)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as installed, but for the program: verify wants one that exists."""
    stand_in = shutil.which("true")
    assert stand_in
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(INSTALLED, stand_in))
    return copy


def added(unit: Path, drop_in: Path) -> Path:
    folder = unit.with_name(f"{unit.name}.d")
    folder.mkdir()
    shutil.copy(drop_in, folder)
    return unit


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), flags=re.MULTILINE)


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_unit(unit: Path) -> None:
    assert systemd_analyze("verify", "--man=no", str(unit)) == (0, "")


@needs_systemd
def test_systemd_would_say_so_if_there_were(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nProtectEverything=yes"))
    assert "ProtectEverything" in systemd_analyze("verify", "--man=no", str(unit))[1]


@needs_systemd
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_has_nothing_to_say_against_a_drop_in(unit: Path, drop_in: Path) -> None:
    assert systemd_analyze("verify", "--man=no", str(added(unit, drop_in))) == (0, "")


@needs_systemd
def test_the_sandbox_leaves_an_exposure_of_at_most_one_and_a_half() -> None:
    status, said = systemd_analyze("security", "--offline=true", "--threshold=15", str(UNIT))
    assert status == 0, said


@needs_systemd
def test_a_unit_without_the_sandbox_would_not_pass(unit: Path) -> None:
    unit.write_text(
        re.sub(r"^(Protect|Restrict|Capability|SystemCall).*\n", "", unit.read_text(), flags=re.MULTILINE)
    )
    assert systemd_analyze("security", "--offline=true", "--threshold=15", str(unit))[0] != 0


def test_every_program_in_the_unit_is_the_one_that_is_installed() -> None:
    for command in settings("ExecStart"):
        assert command.split()[0] == INSTALLED
        assert command.endswith("--config /etc/attachd/attachd.toml")


def test_the_drain_has_time_before_the_kill() -> None:
    [seconds] = settings("TimeoutStopSec")
    assert int(seconds) > DRAIN_SECONDS
    assert settings("KillSignal") == ["SIGTERM"]
    assert settings("KillMode") == ["mixed"]


def test_a_bad_configuration_is_not_tried_for_ever() -> None:
    assert settings("RestartPreventExitStatus") == ["78"]
    [burst] = settings("StartLimitBurst")
    [restart_seconds] = settings("RestartSec")
    assert settings("StartLimitIntervalSec") == ["2min"]
    assert (
        int(burst) * (int(restart_seconds) + 5) <= 120
    )  # 5: as long as a check may take for the limit to bite


def test_no_core_file_can_hold_a_token() -> None:
    assert settings("LimitCORE") == ["0"]
