"""The port: aiohttp's plain server in front of `api`, as one async context manager.

Only transport lives here: reading bodies within bounds, the simulator's own two pages, starting and stopping.
A websocket, when it comes, will be another path beside them.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from aiohttp import web

from attachd.simulator.api import Api
from attachd.simulator.dials import Dials
from attachd.simulator.errors import ApiError
from attachd.simulator.publish import Publisher, publishing
from attachd.simulator.truth import truth
from attachd.simulator.wire import encode
from attachd.simulator.world import World

_STOP_SECONDS = 1.0
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulator: where it is, what exists in it, what it announced (whether published or not)."""

    url: str
    world: World
    events: list[dict[str, Any]]
    publisher: Publisher | None

    @property
    def environment(self) -> dict[str, str]:
        """Variables which turn any AWS SDK or CLI to this simulator."""
        return {"AWS_ENDPOINT_URL_CONNECT": self.url, "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": self.url}

    def truth(self) -> dict[str, Any]:
        """Return what really happened, as `GET /_simulator/truth` answers it."""
        told = truth(self.world) | {"events": self.events}
        return told | {"publishing": self.publisher.counts()} if self.publisher else told


@asynccontextmanager
async def simulator(
    dials: Dials | None = None,
    *,
    now: Callable[[], float] = time.time,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Simulator]:
    """Run a simulator for as long as the block lasts; port 0 takes a free one.

    `now` returns seconds since the epoch. Raises OSError if the port is taken. With an events target the block
    holds a task group, so enter and leave it in the same task.
    """
    dials = dials or Dials()
    world = World(dials)
    events: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        publisher = None
        if dials.events is not None:
            publisher = await stack.enter_async_context(publishing(dials.events, dials.region))

        def announce(event: dict[str, Any]) -> None:
            events.append(event)
            if publisher is not None:
                publisher.offer(event)

        door = _Door(Api(world, announce), now, dials.body_within_seconds)
        # Bodies are never inflated: neither service takes Content-Encoding, and a bomb must stay small.
        server = web.Server(door.answer, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        running = Simulator(f"http://{_in_url(bound[0])}:{bound[1]}", world, events, publisher)
        door.running = running
        yield running


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Door:
    """Turns aiohttp's requests into calls of the Api, and its answers into responses."""

    def __init__(self, api: Api, now: Callable[[], float], body_seconds: float) -> None:
        self._api = api
        self._body_seconds = body_seconds
        self._now = now
        self.running: Simulator | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path.startswith("/_simulator/"):
            return self._own_page(request.method, path)
        try:
            body = await _read(request, self._body_seconds)
        except ApiError as error:
            answer = self._api.refuse(error, self._now())
        else:
            answer = self._api.call(request.method, path, request.headers, body, self._now())
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def _own_page(self, method: str, path: str) -> web.Response:
        if method == "GET" and path == "/_simulator/truth" and self.running is not None:
            return web.Response(body=encode(self.running.truth()), headers=_JSON)
        if method == "GET" and path == "/_simulator/health":
            return web.Response(body=b'{"status":"ok"}', headers=_JSON)
        return web.Response(status=404, body=b'{"message":"no such page"}', headers=_JSON)


async def _read(request: web.BaseRequest, within_seconds: float) -> bytes:
    """Read the whole body; one that is too large or does not arrive in time is an ApiError.

    The size limit is aiohttp's own, 1 MiB; no request of either service comes near it.
    """
    try:
        if request.content.is_eof():  # already here, as nearly always: no timer needed
            return await request.read()
        with anyio.fail_after(within_seconds):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError("RequestEntityTooLargeException", "the body is larger than 1 MiB") from None
    except web.RequestPayloadError:
        raise ApiError("SerializationException", "the body is not well-formed HTTP") from None
    except TimeoutError:
        raise ApiError("RequestTimeoutException", "the body did not arrive in time") from None
