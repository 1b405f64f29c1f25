"""The port: aiohttp's plain server in front of `api`, as one async context manager.

Only transport lives here: reading bodies within bounds, the simulator's own pages, a clock which ticks while a flow waits for it, starting and stopping.
The chat's websocket is another path beside them (`sockets`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import msgspec
from aiohttp import web

from attachd.simulator.dials import Dials
from attachd.simulator.errors import ApiError
from attachd.simulator.front.api import Answer, Api
from attachd.simulator.front.sockets import Sockets
from attachd.simulator.front.truth import truth
from attachd.simulator.front.wire import encode
from attachd.simulator.ledger import Ledger
from attachd.simulator.operations.connections import WEBSOCKET_PATH
from attachd.simulator.operations.streaming import notifications
from attachd.simulator.outlets.publish import Publisher, publishing
from attachd.simulator.outlets.topics import publishing_to_topics
from attachd.simulator.report import Report
from attachd.simulator.state.nouns import Line
from attachd.simulator.state.world import World
from attachd.simulator.traffic.customers import Customers
from attachd.simulator.traffic.plan import Traffic, read_traffic

_STOP_SECONDS = 1.0
_TICK_SECONDS = 0.05
_JSON = {"Content-Type": "application/json"}
# A page elsewhere may hold the customer's side, as it may with AWS, where no cookie is trusted either.
_ANY_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Expose-Headers": "*",
}


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulator: where it is, what exists in it, what it announced (whether published or not)."""

    url: str
    world: World
    events: list[dict[str, Any]]
    publisher: Publisher | None
    streamer: Publisher | None
    """What publishes the lines of streamed chats, with `Dials.publish_streams`."""
    advance: Callable[[], None]
    """Let what is due by now happen; the port does so at every request, and every 50 ms while anything is due."""
    play: Callable[[Traffic], None]
    """Let customers come from now on; raises ValueError if one kind of them could not."""
    customers_gone: Callable[[], Awaitable[None]]
    """Wait until none of those who were to come by themselves is still to come or still there."""
    customers: Customers
    ledger: Ledger
    now: Callable[[], float]

    @property
    def environment(self) -> dict[str, str]:
        """Variables which turn any AWS SDK or CLI to this simulator."""
        return {"AWS_ENDPOINT_URL_CONNECT": self.url, "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": self.url}

    def truth(self) -> dict[str, Any]:
        """Return what really happened, as `GET /_simulator/truth` answers it."""
        self.advance()
        told = truth(self.world) | {"events": self.events}
        outlets = {"publishing": self.publisher, "streaming": self.streamer}
        return told | {name: outlet.counts() for name, outlet in outlets.items() if outlet is not None}

    def report(self) -> Report:
        """Return what it has come to so far, as `GET /_simulator/report` answers it."""
        self.advance()
        publishing = self.publisher.counts() if self.publisher else None
        return self.ledger.report(self.now(), asdict(self.customers.counts), publishing)


@asynccontextmanager
async def simulator(
    dials: Dials | None = None,
    *,
    now: Callable[[], float] = time.time,
    host: str = "127.0.0.1",
    port: int = 0,
    traffic: Traffic | None = None,
) -> AsyncIterator[Simulator]:
    """Run a simulator for as long as the block lasts; port 0 takes a free one.

    `now` returns seconds since the epoch. With `traffic`, customers come by themselves from the first moment. Raises
    OSError if the port is taken, ValueError for customers who could not come. With an events target or
    `publish_streams` the block holds a task group, so enter and leave it in the same task.
    """
    dials = dials or Dials()
    world = World(dials)
    events: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        publisher = streamer = None
        if dials.events is not None:
            publisher = await stack.enter_async_context(publishing(dials.events, dials.region))

        def announce(event: dict[str, Any]) -> None:
            events.append(event)
            if publisher is not None:
                publisher.offer(event)

        api = Api(world, announce)
        sockets = Sockets(api, now)
        if dials.publish_streams:
            streamer = await stack.enter_async_context(publishing_to_topics(dials.region))
            api.listeners.append(_streaming(world, streamer))
        clock = _Clock(api, sockets, now)
        stack.callback(clock.stop)
        door = _Door(api, sockets, clock, now, dials.body_within_seconds)
        # Bodies are never inflated: neither service takes Content-Encoding, and a bomb must stay small.
        server = web.Server(door.answer, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(sockets.close)
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        url = f"http://{_in_url(bound[0])}:{bound[1]}"

        def play(traffic: Traffic) -> None:
            api.play(traffic, now())
            clock.wind()

        running = Simulator(
            url=url,
            world=world,
            events=events,
            publisher=publisher,
            streamer=streamer,
            advance=clock.advance,
            play=play,
            customers_gone=clock.customers_gone,
            customers=api.customers,
            ledger=Ledger(world),
            now=now,
        )
        door.running = running
        if traffic is not None:
            running.play(traffic)
        yield running


def _streaming(world: World, streamer: Publisher) -> Callable[[Sequence[Line]], None]:
    def tell(lines: Sequence[Line]) -> None:
        for notification in notifications(world, lines):
            streamer.offer(notification)

    return tell


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Clock:
    """Looks at the time for the flows and customers who wait; does not tick while none does.

    A timer and no task, so that a simulator without an events target may be entered and left in different tasks.
    """

    def __init__(self, api: Api, sockets: Sockets, now: Callable[[], float]) -> None:
        self._api = api
        self._sockets = sockets
        self._now = now
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._gone = anyio.Event()

    def advance(self) -> None:
        """Let what is due happen; once the port is closed nothing does any more, and the truth stands still."""
        if not self._stopped:
            now = self._now()
            self._api.advance(now)
            self._sockets.expire(now)

    def wind(self) -> None:
        """See to it that the clock ticks, if there is anything to wait for."""
        if self._timer is None and self._api.due_at() is not None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        self.advance()
        self.wind()
        if self._api.customers.over:
            self._gone.set()
            self._gone = anyio.Event()  # for who comes next

    async def customers_gone(self) -> None:
        if not self._api.customers.over:
            await self._gone.wait()


class _Door:
    """Turns aiohttp's requests into calls of the Api, and its answers into responses."""

    def __init__(
        self, api: Api, sockets: Sockets, clock: _Clock, now: Callable[[], float], body_seconds: float
    ) -> None:
        self._api = api
        self._sockets = sockets
        self._clock = clock
        self._body_seconds = body_seconds
        self._now = now
        self.running: Simulator | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, own = request.raw_path, request.raw_path.startswith("/_simulator/")
        if own and request.method == "GET":
            return self._own_page(path.partition("?")[0])
        if path.startswith(WEBSOCKET_PATH):
            return await self._sockets.serve(request)
        response = await self._answer(request, path, own=own)
        if "Origin" in request.headers:
            response.headers.update(_ANY_ORIGIN)
        return response

    async def _answer(self, request: web.BaseRequest, path: str, *, own: bool) -> web.Response:
        if request.method == "OPTIONS":  # what a browser asks first; no AWS API has the method
            return web.Response(status=204)
        try:
            body = await _read(request, self._body_seconds)
        except ApiError as error:
            answer = self._api.refuse(error, self._now())
        else:
            if own:
                answer = self._control(request.method, path, body)
            else:
                answer = self._api.call(request.method, path, request.headers, body, self._now())
            self._clock.wind()
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def _control(self, method: str, path: str, body: bytes) -> Answer:
        if method != "POST":
            return Answer(404, _JSON, b'{"message":"no such page"}')
        if path == "/_simulator/traffic" and self.running is not None:
            try:
                self.running.play(read_traffic(msgspec.json.decode(body)))
            except (ValueError, msgspec.DecodeError) as error:
                return Answer(400, _JSON, encode({"message": str(error)}))
            return Answer(200, _JSON, b"{}")
        return self._api.control(path, body, self._now())

    def _own_page(self, path: str) -> web.Response:
        if path == "/_simulator/truth" and self.running is not None:
            return web.Response(body=encode(self.running.truth()), headers=_JSON)
        if path == "/_simulator/report" and self.running is not None:
            return web.Response(body=encode(self.running.report()), headers=_JSON)
        if path == "/_simulator/health":
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
