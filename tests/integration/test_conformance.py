"""`attachd runtime test`, against bots with one flaw each: every flaw is found, and nothing else is blamed."""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from attachd import settings, wiring
from attachd.conformance import Finding, examine
from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import ChatEnded, Handoff, Outcome
from attachd.runtimes.python import PythonRuntime

SECRET = "whsec_" + base64.b64encode(b"a key to sign with, for tests only").decode()


BROKEN = {
    "full": (503, {"Retry-After": "5"}),
    "redirects": (308, {"Location": "/elsewhere"}),
    "breaks": (500, {}),
}


@dataclass
class Bot:
    """A bot that keeps the contract, but for its flaw."""

    flaw: str = ""
    url: str = ""
    taken: set[str] = field(default_factory=set)
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=503 if self.flaw == "HEAD" else 405)
        if self.flaw in BROKEN:
            status, headers = BROKEN[self.flaw]
            return web.Response(status=status, headers=headers)
        body = await request.read()
        if not self._signed(body, dict(request.headers)):
            return web.Response(status=401)
        event = msgspec.json.decode(body)
        self.seen.append((event["type"], event["id"]))
        if event["type"] == "attachd.chat.ended.v1":
            return web.Response(status=404 if self.flaw == "ends" else 204)
        return await self._attach(event)

    def _signed(self, body: bytes, headers: dict[str, str]) -> bool:
        if self.flaw == "believes anybody":
            return True
        if self.flaw == "believes nobody":
            return False
        webhook = Webhook(SECRET)
        if self.flaw == "believes old ones":
            signed = webhook.sign(
                headers["webhook-id"],
                datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC),
                body.decode(),
            )
            return signed == headers["webhook-signature"]
        try:
            webhook.verify(body, headers)
        except WebhookVerificationError:
            return False
        return True

    async def _attach(self, event: dict[str, Any]) -> web.Response:
        connect_by = datetime.fromisoformat(event["data"]["participant"]["connect_by"])
        if connect_by < datetime.now(UTC):
            if self.flaw != "takes late ones":
                return web.Response(status=410 if self.flaw == "retires when late" else 422)
            assert connect_by > datetime.now(UTC) - timedelta(minutes=2)
        if self.flaw == "slow":
            await anyio.sleep(1.1)
        if event["id"] in self.taken:
            return web.Response(status=500 if self.flaw == "knows no duplicates" else 409)
        self.taken.add(event["id"])
        return web.Response(status=202)


@asynccontextmanager
async def serving(bot: Bot) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", bot.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        bot.url = "http://{}:{}/attach".format(*runner.addresses[0])
        yield
    finally:
        await runner.cleanup()


async def examined(bot: Bot, monkeypatch: pytest.MonkeyPatch, *, wants_ended: bool = True) -> list[Finding]:
    monkeypatch.setenv("BOT_KEY", SECRET)
    async with serving(bot):
        table = settings.webhook(bot.url, secret_env="BOT_KEY", ca=None, wants_ended=wants_ended)
        return await examine(wiring.examined(table), table.type, wants_ended=wants_ended)


EVERYTHING = [
    "there",
    "attach",
    "duplicate",
    "slow",
    "ended",
    "bad signature",
    "old signature",
    "late",
    "redirect",
]


async def test_a_bot_that_keeps_the_contract_passes_and_its_chats_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bot = Bot()
    findings = await examined(bot, monkeypatch)
    assert [finding.check for finding in findings] == EVERYTHING
    assert [finding for finding in findings if finding.mend] == []
    ended = {key.removesuffix("_ended") for kind, key in bot.seen if kind == "attachd.chat.ended.v1"}
    assert bot.taken <= ended, "no chat is left open"


@pytest.mark.parametrize(
    ("flaw", "blamed", "mend"),
    [
        ("HEAD", ["there"], "HEAD to it is how attachd looks"),
        ("knows no duplicates", ["duplicate"], "answer 409"),
        ("slow", ["slow"], "Answer first, connect next"),
        ("ends", ["ended"], "also when you know the chat no more"),
        ("believes anybody", ["bad signature", "old signature"], "Anybody can give it chats."),
        ("believes old ones", ["old signature"], "five minutes off"),
        ("takes late ones", ["late"], "answer 422"),
        ("retires when late", ["late"], "410 says that the runtime is retired"),
        ("full", ["attach"], "test it when it has room for 7 chats"),
        ("breaks", ["attach"], "Answer 202"),
        ("believes nobody", ["attach"], "Give both the same secret"),
        ("redirects", ["attach", "redirect"], "Answer 202"),
    ],
)
async def test_a_flaw_is_found_and_nothing_else_is_blamed(
    monkeypatch: pytest.MonkeyPatch, flaw: str, blamed: list[str], mend: str
) -> None:
    findings = [finding for finding in await examined(Bot(flaw), monkeypatch) if finding.mend]
    assert [finding.check for finding in findings] == blamed
    assert mend in findings[0].mend


async def test_a_bot_that_is_not_there_is_asked_for_no_more_than_one_chat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOT_KEY", SECRET)
    table = settings.webhook("http://127.0.0.1:9/attach", secret_env="BOT_KEY", ca=None, wants_ended=True)
    findings = await examine(wiring.examined(table), "webhook", wants_ended=True)
    assert [finding.check for finding in findings if finding.mend] == ["there", "attach"]


async def test_a_bot_that_does_not_want_to_be_told_of_ends_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = Bot("ends")
    findings = await examined(bot, monkeypatch, wants_ended=False)
    assert [finding for finding in findings if finding.mend] == []
    assert {kind for kind, _ in bot.seen} == {"attachd.chat.attached.v1"}


@pytest.mark.parametrize("careful", [True, False])
async def test_a_callable_is_examined_too_without_signatures(careful: bool) -> None:  # noqa: FBT001 - a parameter
    async def take(handoff: Handoff) -> None:
        if careful and handoff.connect_by < time.time():
            raise Permanent(Outcome.UNSERVED, "too_late")

    async def ended(_farewell: ChatEnded) -> None:
        if not careful:
            raise Transient("forgotten")

    def make(**_: Any) -> PythonRuntime:
        return PythonRuntime(take, ended=ended, timeout_seconds=1)

    findings = await examine(make, "python", wants_ended=True)
    assert [finding.check for finding in findings] == [
        "there",
        "attach",
        "duplicate",
        "slow",
        "ended",
        "late",
    ]
    assert [f.check for f in findings if f.mend] == ([] if careful else ["ended", "late"])


@pytest.mark.parametrize(
    ("url", "secret_env", "problem"),
    [
        ("http://127.0.0.1:9", None, "--secret-env"),
        ("ftp://127.0.0.1:9", "BOT_KEY", "not an address of a runtime"),
        ("http://user:hunter2@127.0.0.1:9", "BOT_KEY", "a password never stands here"),
    ],
)
def test_what_cannot_be_examined_is_said(url: str, secret_env: str | None, problem: str) -> None:
    with pytest.raises(Misconfigured, match=problem) as said:
        settings.webhook(url, secret_env=secret_env, ca=None, wants_ended=True)
    assert "hunter2" not in str(said.value)


def test_a_runtime_that_is_not_configured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVA_KEY", SECRET)
    config = settings.load(Path(__file__).parents[2] / "config" / "attachd.toml")
    assert config.runtime("ava").type == "webhook"
    with pytest.raises(
        Misconfigured, match=r"no table \[runtimes\.eva\]; there are ava, far, inhouse, local"
    ):
        config.runtime("eva")
