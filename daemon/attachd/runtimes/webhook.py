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

Redirects are not followed, and no proxy is used: a credential goes where the operator said, and nowhere else. Timing is
ours, not Standard Webhooks': the token lives for 15 s, so a try is short, and none outlives the token.
"""

import os
import re
import socket
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from standardwebhooks import Webhook

from attachd.errors import Misconfigured, Permanent, Transient
from attachd.model import ChatEnded, Handoff, Outcome, Secret
from attachd.runtimes import payload
from attachd.runtimes.peers import UnixConnector, WrongPeer
from attachd.runtimes.tls import Tls

CHATS_HEADER: Final = "Attachd-Chats"
_KEY_BYTES: Final = (24, 64)
_CONNECTIONS: Final = 100
_NOBODY: Final = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class WebhookRuntime:
    """One endpoint.

    Raises:
        Misconfigured: a secret is none that Standard Webhooks would sign with.

    Args:
        url: ``https://…``, ``http://…``, or ``unix:///path/to.sock`` (then the path is ``/attach``).
        secrets: signing secrets; each signs, so that a receiver can rotate. The first is the current one.
        timeout_seconds: for one try, from the first byte to the last.
        wants_ended: whether it is told of chats that are over.
        tls: how https is done; left out, as the system does it.
        peer_user: who must listen on the unix socket, a name or a uid; left out, anybody.
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
        tls: Tls | None = None,
        peer_user: str | int | None = None,
        now: Callable[[], float],
        user_agent: str,
    ) -> None:
        self._socket_path = url.removeprefix("unix://") if url.startswith("unix://") else None
        self._url = url if self._socket_path is None else "http://runtime/attach"
        # Without path and query, which may hold a key of the runtime's.
        self._where = url if self._socket_path else "{0.scheme}://{0.netloc}".format(urlsplit(url))
        self._signers = [_signer(secret) for secret in secrets]
        self._timeout_seconds = timeout_seconds
        self._wants_ended = wants_ended
        self._tls = tls
        self._peer_user = peer_user
        self._now = now
        self._user_agent = user_agent
        self._http: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep connections for reuse until the end."""
        connector = (
            aiohttp.TCPConnector(limit=_CONNECTIONS)
            if self._socket_path is None
            else UnixConnector(self._socket_path, self._peer_user, limit=_CONNECTIONS)
        )
        headers = {"User-Agent": self._user_agent}
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar()
        ) as self._http:
            yield

    async def offer(self, handoff: Handoff) -> int | None:
        """See ``ports.Runtime``. Connected by us, a participant has no ``connect_by`` to keep."""
        now, seconds = self._now(), self._timeout_seconds
        if (
            handoff.participant.connection is None
            and (seconds := min(seconds, handoff.connect_by - now)) <= 0
        ):
            raise Transient("window_closed", f"{self._where} was not asked: connect_by has passed")
        told = await self._post(handoff.key, payload.attached(handoff, now), now, seconds)
        return _count(told.get(CHATS_HEADER))

    async def ended(self, farewell: ChatEnded) -> None:
        """See ``ports.Runtime``."""
        if self._wants_ended:
            now = self._now()
            await self._post(farewell.key, payload.ended(farewell, now), now, self._timeout_seconds)

    async def probe(self) -> None:
        """See ``ports.Runtime``: HEAD, unsigned and without a body. Any answer will do, but a proxy's that nobody is there."""
        status, _ = await self._ask("HEAD", self._timeout_seconds)
        if status in _NOBODY:
            raise Transient("runtime_busy", f"{self._where} answered {status} to HEAD")

    async def _post(self, key: str, body: bytes, now: float, seconds: float) -> CIMultiDictProxy[str]:
        headers = {"Content-Type": payload.CONTENT_TYPE, **self._signed(key, now, body)}
        # Status and headers alone count: a body that stalls or breaks must not turn a yes into a no, and what it
        # says may quote the token.
        status, told = await self._ask("POST", seconds, data=body, headers=headers)
        _judge(status, told.get("Retry-After"))
        return told

    async def _ask(self, method: str, seconds: float, **request: Any) -> tuple[int, CIMultiDictProxy[str]]:
        if self._http is None:
            raise RuntimeError("the runtime is not open")
        # To the millisecond: aiohttp rounds what is longer than the threshold up to whole seconds.
        request["timeout"] = aiohttp.ClientTimeout(total=seconds, ceil_threshold=inf)
        request["ssl"] = True if self._tls is None else self._tls.context
        try:
            async with self._http.request(method, self._url, allow_redirects=False, **request) as reply:
                return reply.status, reply.headers
        except TimeoutError:
            detail = f"{self._where} did not answer in {seconds:.1f} s"
            raise Transient("timeout", detail, ambiguous=True) from None
        except WrongPeer as error:
            raise Transient("wrong_peer", f"{self._where}: {error}; nothing was sent") from None
        except aiohttp.ClientSSLError as error:
            raise Transient("tls", f"{self._where}: {_tls_problem(error)}") from None
        except aiohttp.ClientConnectorError as error:
            raise Transient("unreachable", f"{self._where}: {_no_connection(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, ssl.SSLError):  # of ours, TLS 1.3 complains after the handshake
                detail = f"{self._where}: {_tls_problem(error.__cause__)}"
                raise Transient("tls", detail, ambiguous=True) from None
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


def _tls_problem(error: BaseException) -> str:
    """In OpenSSL's own words, such as ``certificate has expired`` or ``TLSV13_ALERT_CERTIFICATE_REQUIRED``."""
    cause = error.__cause__ or error
    return str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(error).__name__)


def _no_connection(error: aiohttp.ClientConnectorError) -> str:
    """In the system's own words: whether nobody listens or there is no such name is all the difference at night."""
    why = error.os_error
    if isinstance(why, socket.gaierror):
        return why.strerror or type(why).__name__
    return os.strerror(why.errno) if why.errno else type(error).__name__


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
