"""A runtime behind a webhook: https, http or a unix socket, signed by Standard Webhooks.

The answers, and what they mean:

    2xx          accepted
    409          already has it: accepted before
    422          refused, for good
    410          the runtime is retired: refused, for good
    429, 503     not now; ``Retry-After`` in seconds is heeded
    401, 403     not now: it does not accept our signature, and an operator must look
    other        not now

A 2xx may say in ``Attachd-Chats: 17`` how many chats the bot has open; that counts more than what we think. ``HEAD`` asks
whether anybody is there, before a runtime that failed is given another chat; 502, 503 and 504 say no, all else yes.

Redirects are not followed: a credential goes where the operator said, and nowhere else. Timing is ours, not
Standard Webhooks': the token lives for 15 s, so a try is short and tries end with it.
"""

import re
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from standardwebhooks import Webhook

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import ChatEnded, Handoff, Outcome, Secret
from attachd.runtimes import payload

CHATS_HEADER: Final = "Attachd-Chats"
_KEY_BYTES: Final = (24, 64)
_NOBODY: Final = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class WebhookRuntime:
    """One endpoint.

    Raises:
        Misconfigured: a secret is none that Standard Webhooks would sign with.

    Args:
        url: ``https://…``, ``http://…``, or ``unix:///path/to.sock`` (then the path is ``/attach``).
        secrets: signing secrets; each signs, so that a receiver can rotate. The first is the current one.
        timeout_seconds: for one try.
        wants_ended: whether it is told of chats that are over.
        now: the wall clock.
        user_agent: sent with every call.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[Secret],
        *,
        timeout_seconds: float,
        wants_ended: bool = False,
        now: Callable[[], float],
        user_agent: str,
    ) -> None:
        self._socket_path = url.removeprefix("unix://") if url.startswith("unix://") else None
        self._url = url if self._socket_path is None else "http://runtime/attach"
        # Without path and query, which may hold a key of the runtime's.
        self._where = url if self._socket_path else "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self._signers = [_signer(secret) for secret in secrets]
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._wants_ended = wants_ended
        self._now = now
        self._user_agent = user_agent
        self._http: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep connections for reuse until the end."""
        connector = (
            aiohttp.TCPConnector(limit=100)
            if self._socket_path is None
            else aiohttp.UnixConnector(self._socket_path, limit=100)
        )
        headers = {"User-Agent": self._user_agent}
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as self._http:
            yield

    async def offer(self, handoff: Handoff) -> int | None:
        """See ``ports.Runtime``."""
        now = self._now()
        told = await self._post(handoff.key, payload.attached(handoff, now), now)
        return _count(told.get(CHATS_HEADER))

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""
        if self._wants_ended:
            now = self._now()
            await self._post(farewell.key, payload.ended(farewell, now), now)

    async def _post(self, key: str, body: bytes, now: float) -> CIMultiDictProxy[str]:
        headers = {"Content-Type": payload.CONTENT_TYPE, **self._signed(key, now, body)}
        # Status and headers alone count: a body that stalls or breaks must not turn a yes into a no, and what it
        # says may quote the token.
        status, told = await self._ask("POST", data=body, headers=headers)
        _judge(status, told.get("Retry-After"))
        return told

    async def probe(self) -> None:
        """See ``ports.Runtime``: HEAD, unsigned and without a body. Any answer will do, but a proxy's that nobody is there."""
        status, _ = await self._ask("HEAD")
        if status in _NOBODY:
            raise Transient("runtime_busy", f"{self._where} answered {status} to HEAD")

    async def _ask(self, method: str, **request: Any) -> tuple[int, CIMultiDictProxy[str]]:
        if self._http is None:
            raise RuntimeError("the runtime is not open")
        try:
            async with self._http.request(method, self._url, allow_redirects=False, **request) as reply:
                return reply.status, reply.headers
        except TimeoutError:
            seconds = self._timeout.total
            raise Transient(
                "timeout", f"{self._where} did not answer in {seconds} s", ambiguous=True
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise Transient("unreachable", f"{self._where}: {type(error).__name__}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Transient("unreachable", f"{self._where}: {type(error).__name__}", ambiguous=True) from None

    def _signed(self, key: str, now: float, body: bytes) -> dict[str, str]:
        at = datetime.fromtimestamp(int(now), UTC)
        signatures = [signer.sign(msg_id=key, timestamp=at, data=body.decode()) for signer in self._signers]
        return {
            "webhook-id": key,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": " ".join(signatures),
        }


def _signer(secret: Secret) -> Webhook:
    """24 to 64 bytes in base64, after ``whsec_`` or bare (Standard Webhooks, "Signature scheme")."""
    try:
        key = b64decode(secret.reveal().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not _KEY_BYTES[0] <= len(key) <= _KEY_BYTES[1]:
        raise Misconfigured(
            ["the secret is not 24 to 64 bytes in base64 after 'whsec_'; make one with 'attachd secret'"]
        )
    return Webhook(key)


def _judge(status: int, retry_after: str | None) -> None:
    """Return if the runtime has it; raise what its answer means otherwise."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.CONFLICT:
        return
    detail = f"the runtime answered {status}"
    match status:
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Permanent(Outcome.UNSERVED, "runtime_refused", detail)
        case HTTPStatus.GONE:
            raise Permanent(Outcome.UNSERVED, "runtime_retired", detail)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            raise Transient("runtime_unauthorized", f"{detail}; does it have the secret that we sign with?")
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            raise Transient("runtime_busy", detail, after=_seconds(retry_after))
        case _:
            raise Transient(f"runtime_{status}", detail)


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,6}", text) else None


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` as seconds; a date is not worth its clock skew inside 15 s and is passed over."""
    return float(retry_after) if retry_after is not None and re.fullmatch("[0-9]{1,6}", retry_after) else None
