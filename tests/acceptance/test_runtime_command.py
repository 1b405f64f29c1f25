"""`attachd runtime test NAME`: the runtime is made of its table as `attachd run` makes it, whatever its kind."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from aiohttp import web
from joserfc.jwk import ECKey

from acceptance.test_cli import GOOD, attachd
from certificates import Authority, Pair
from embedded import sqs
from integration.test_conformance import SECRET, Bot

CALLABLES = """
from attachd.errors import Permanent
from attachd.model import Outcome
import time

async def take(handoff):
    if handoff.connect_by < time.time():
        raise Permanent(Outcome.UNSERVED, "too_late")

async def ended(farewell):
    raise ValueError(f"I know no {farewell.key}")

async def stubborn(handoff):
    handoff.participant.token.reveal()
"""


def configured(folder: Path, runtime: str) -> str:
    path = folder / "attachd.toml"
    head, _, tail = GOOD.partition("[runtimes.ava]")
    path.write_text(f"{head}[runtimes.ava]\n{runtime}\n[health]{tail.partition('[health]')[2]}")
    return str(path)


async def examined(folder: Path, runtime: str, **env: str) -> CompletedProcess[str]:
    config = configured(folder, runtime)
    command = partial(attachd, "runtime", "test", "ava", "--config", config, env={"BOT_KEY": SECRET, **env})
    return await anyio.to_thread.run_sync(command)


def rows(done: CompletedProcess[str]) -> dict[str, str]:
    """What stands in the first column, by the check."""
    cells = [[cell.strip() for cell in line.split("│")] for line in done.stdout.splitlines() if "│" in line]
    return {check: mark for _, mark, check, *_ in cells if mark}


@asynccontextmanager
async def serving(bot: Bot, server: Pair, clients: Authority) -> AsyncIterator[None]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients.file)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", bot.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        bot.url = f"https://localhost:{runner.addresses[0][1]}/attach"
        yield
    finally:
        await runner.cleanup()


async def test_a_webhook_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority, bot = Authority(tmp_path), Bot()
    ours = authority.issue("attachd")
    async with serving(bot, authority.issue("bot"), authority):
        table = f"""
            type = "webhook"
            url = "{bot.url}"
            secret = {{ env = "BOT_KEY" }}
            ca = "{authority.file}"
            wants_ended = true
        """
        known = await examined(tmp_path, f'{table}client_cert = "{ours.cert}"\nclient_key = "{ours.key}"')
        unknown = await examined(tmp_path, table)
    assert known.returncode == 0, known.stdout + known.stderr
    assert set(rows(known).values()) == {"✓"}
    assert unknown.returncode == 1
    assert rows(unknown) == {"there": "✗", "attach": "✗", "redirect": "✓"}


async def test_a_queue(tmp_path: Path) -> None:
    (tmp_path / "bot.pub").write_bytes(ECKey.generate_key("P-256").as_pem(private=False))
    with sqs() as queues:
        url = queues.client.create_queue(QueueName="bot")["QueueUrl"]
        table = f'type = "sqs"\nqueue_url = "{url}"\npublic_key = "{tmp_path}/bot.pub"\nwants_ended = true'
        there = await examined(tmp_path, table, **queues.environment)
        misspelt = await examined(tmp_path, table.replace('/bot"', '/bott"'), **queues.environment)
        [kept] = queues.client.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"].values()
    assert there.returncode == 0, there.stdout + there.stderr
    assert rows(there) == dict.fromkeys(["there", "attach", "duplicate", "slow", "ended"], "✓")
    assert int(kept) > 10
    assert misspelt.returncode == 78
    assert "bott does not exist" in misspelt.stderr


async def test_a_callable(tmp_path: Path) -> None:
    (tmp_path / "mybot.py").write_text(CALLABLES)
    careful = await examined(tmp_path, 'type = "python"\ncallable = "mybot:take"', PYTHONPATH=str(tmp_path))
    careless = await examined(
        tmp_path,
        'type = "python"\ncallable = "mybot:stubborn"\nended = "mybot:ended"',
        PYTHONPATH=str(tmp_path),
    )
    assert careful.returncode == 0, careful.stdout + careful.stderr
    assert rows(careful)["ended"] == "✓"
    assert "not played" in careful.stdout
    assert careless.returncode == 1
    assert [check for check, mark in rows(careless).items() if mark == "✗"] == ["ended", "late"]


@pytest.mark.parametrize(
    ("runtime", "problem"),
    [
        ('type = "python"\ncallable = "nowhere:take"', "callable 'nowhere:take': ModuleNotFoundError"),
        ('type = "python"\ncallable = "json:dumps"', "is no async callable"),
        ('type = "python"\ncallable = "asyncio:sleep"\nended = "json:loads"', "async def loads(farewell)"),
        ('type = "sqs"\nqueue_url = "https://sqs/1/q"\npublic_key = "/none.pem"', "public_key /none.pem: "),
        (
            'type = "webhook"\nurl = "https://bot"\nsecret = { env = "BOT_KEY" }\nca = "/none.pem"',
            "ca /none.pem: No such file",
        ),
    ],
)
def test_a_table_that_cannot_work_is_said_by_check_too(tmp_path: Path, runtime: str, problem: str) -> None:
    done = attachd("check", "--config", configured(tmp_path, runtime))
    assert done.returncode == 78
    assert done.stderr.startswith("attachd: [runtimes.ava] ")
    assert problem in done.stderr
