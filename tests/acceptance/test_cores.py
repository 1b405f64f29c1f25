"""A process that dies with tokens in its memory leaves no core file, whatever the machine would allow."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import anyio
import pytest

from acceptance.test_cli import GOOD, configured
from acceptance.town import SECRET
from attachd.demo import aws, processes

PATTERN = Path("/proc/sys/kernel/core_pattern")
UNLIMITED = ["/bin/sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh"]


def cores(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("core")]


IN_SIGHT = pytest.mark.skipif(
    PATTERN.read_text().startswith(("|", "/")), reason="this kernel puts core files where a test cannot look"
)


@IN_SIGHT
def test_a_process_that_does_not_forbid_it_would_leave_one(tmp_path: Path) -> None:
    died = subprocess.run(
        [*UNLIMITED, sys.executable, "-c", "import os; os.abort()"], cwd=tmp_path, check=False
    )
    assert died.returncode == -signal.SIGABRT
    assert cores(tmp_path) != [], "there are no core files here at all: the test below sees nothing"


@IN_SIGHT
def test_the_limit_is_not_all_that_keeps_it_from_leaving_one(tmp_path: Path) -> None:
    """A kernel that pipes cores to a program heeds no limit; here nobody sets one."""
    program = """
        import os, resource
        from attachd import cores
        resource.setrlimit = lambda *_: None
        cores.forbid()
        assert os.listdir("/proc/self/fd"), "process_open_fds is read there"
        os.abort()
    """
    died = subprocess.run([*UNLIMITED, sys.executable, "-c", dedent(program)], cwd=tmp_path, check=False)
    assert died.returncode == -signal.SIGABRT
    assert cores(tmp_path) == []


async def test_attachd_leaves_none(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "BOT_KEY": SECRET, **aws.credentials()}
    command = [*UNLIMITED, *processes.attachd("run", "--config", configured(tmp_path, GOOD))]
    async with await anyio.open_process(command, cwd=tmp_path, env=environment) as attachd:
        assert attachd.stderr is not None
        said = b""
        with anyio.fail_after(120):
            while b"attachd.starting" not in said:
                said += await attachd.stderr.receive()
        status = Path(f"/proc/{attachd.pid}/limits").read_text()
        assert [line.split()[4:6] for line in status.splitlines() if line.startswith("Max core file")] == [
            ["0", "0"]
        ]
        attachd.send_signal(signal.SIGABRT)
        assert await attachd.wait() == -signal.SIGABRT
    assert cores(tmp_path) == []
