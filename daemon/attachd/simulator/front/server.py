"""The port: aiohttp's plain server in front of `api`, as one async context manager.

Only transport lives here: reading bodies within bounds, the simulator's own pages, starting and stopping.
The chat's websocket is another path beside them.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio
import msgspec
from aiohttp import web

from attachd.simulator.dials import Dials
from attachd.simulator.errors import ApiError
from attachd.simulator.faults import AnyFault
from attachd.simulator.front.api import Answer, Api
from attachd.simulator.front.clock import Timekeeper
from attachd.simulator.front.control import move
from attachd.simulator.front.port import Port
from attachd.simulator.front.reply import reply
from attachd.simulator.front.sockets import Sockets
from attachd.simulator.front.truth import published, truth
from attachd.simulator.front.wire import encode
from attachd.simulator.ledger import Ledger
from attachd.simulator.operations.connections import WEBSOCKET_PATH
from attachd.simulator.operations.streaming import notifications
from attachd.simulator.outlets.outlet import Outlet, opened
from attachd.simulator.outlets.publish import Publisher, publishing
from attachd.simulator.outlets.topics import ToTopics
from attachd.simulator.report import Report
from attachd.simulator.state.nouns import Line
from attachd.simulator.state.world import World
from attachd.simulator.traffic.customers import Customers
from attachd.simulator.traffic.plan import Traffic, read_traffic

_STOP_SECONDS = 1.0
_LOOK_SECONDS = 1.0  # a run that is more than the machine can play is told of as far as it has come
_JSON = {"Content-Type": "application/json"}
# A page elsewhere may hold the customer's side, as it may with AWS, where no cookie is trusted either.
_ANY_ORIGIN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Expose-Headers": "*",
}


@dataclass(slots=True)
class Simulator:
    """A running simulator: where it is, what exists in it, what it announced (whether published or not)."""

    url: str
    world: World
    events: list[dict[str, Any]]
    publisher: Publisher | None
    streamer: Outlet | None
    """What publishes the lines of streamed chats, with `Dials.publish_streams`."""
    ledger: Ledger
    api: Api = field(repr=False)
    clock: Timekeeper = field(repr=False)

    def now(self) -> float:
        """Return what time it is here, in seconds since the epoch."""
        return self.clock.now()

    def advance(self) -> None:
        """Let what is due by now happen; the port does so at every request, and every 50 ms while anything is due."""
        self.clock.catch_up()

    @property
    def customers(self) -> Customers:
        """Those who come by themselves."""
        return self.api.customers

    def play(self, traffic: Traffic) -> None:
        """Let customers come from now on; raises ValueError if one kind of them could not."""
        self.api.play(traffic, self.clock.now())
        self.clock.wind()

    async def customers_gone(self) -> None:
        """Wait until none of those who were to come by themselves is still to come or still there."""
        await self.clock.until_so(lambda: self.api.customers.over)

    @property
    def faults(self) -> tuple[AnyFault, ...]:
        """What goes wrong; set it to have something else go wrong, from now on."""
        return self.api.faults

    @faults.setter
    def faults(self, faults: Iterable[AnyFault]) -> None:
        self.api.set_faults(faults, self.clock.now())

    @property
    def environment(self) -> dict[str, str]:
        """Variables which turn any AWS SDK or CLI to this simulator."""
        return {"AWS_ENDPOINT_URL_CONNECT": self.url, "AWS_ENDPOINT_URL_CONNECTPARTICIPANT": self.url}

    def truth(self) -> dict[str, Any]:
        """Return what really happened, as `GET /_simulator/truth` answers it."""
        self.clock.catch_up(_LOOK_SECONDS)
        told = truth(self.world) | {"events": self.events}
        if self.publisher is not None:
            told |= published(self.publisher)
        if self.streamer is not None:
            told["streaming"] = self.streamer.counts()
        return told

    def report(self) -> Report:
        """Return what it has come to so far, as `GET /_simulator/report` answers it."""
        self.clock.catch_up(_LOOK_SECONDS)
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

    `now` returns seconds since the epoch; with a ManualClock time stands still until that is moved. With `traffic`,
    customers come by themselves from the first moment. Raises OSError if the port is taken, ValueError for customers
    who could not come. With an events target or `publish_streams` the block holds a task group, so enter and leave it
    in the same task.
    """
    dials = dials or Dials()
    world = World(dials)
    events: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        publisher = streamer = None
        region = dials.existing()[0].region
        if dials.events is not None:
            publisher = await stack.enter_async_context(
                publishing(dials.events, region, now=now, delivery=dials.delivery, seed=dials.seed)
            )

        def announce(event: dict[str, Any]) -> None:
            events.append(event)
            if publisher is not None:
                publisher.offer(event)

        api = Api(world, announce, now())
        sockets = Sockets(api, now)
        if dials.publish_streams:
            streamer = await stack.enter_async_context(opened(ToTopics(), region, now=now))
            api.listeners.append(_streaming(world, streamer))

        def advance(at: float, within_seconds: float) -> bool:
            done = api.advance(at, within_seconds)
            if done:
                sockets.expire(at)
            return done

        clock = Timekeeper(now, advance, api.due_at)
        door = _Door(api, sockets, clock, dials.body_within_seconds)
        # Bodies are never inflated: neither service takes Content-Encoding, and a bomb must stay small. A handler ends
        # with its connection, so that an answer which never comes is not held for a client which has gone.
        server = Port(door.answer, access_log=None, auto_decompress=False, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback(sockets.close)
        stack.callback(clock.stop)  # first of all, or answers still held would hold up the rest
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        url = f"http://{_in_url(bound[0])}:{bound[1]}"
        running = Simulator(url, world, events, publisher, streamer, Ledger(world), api, clock)
        door.running = running
        if traffic is not None:
            running.play(traffic)
        yield running


def _streaming(world: World, streamer: Outlet) -> Callable[[Sequence[Line]], None]:
    def tell(lines: Sequence[Line]) -> None:
        for notification in notifications(world, lines):
            streamer.offer(notification)

    return tell


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Door:
    """Turns aiohttp's requests into calls of the Api, and its answers into responses."""

    def __init__(self, api: Api, sockets: Sockets, clock: Timekeeper, body_seconds: float) -> None:
        self._api = api
        self._sockets = sockets
        self._clock = clock
        self._body_seconds = body_seconds
        self.running: Simulator | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, own = request.raw_path, request.raw_path.startswith("/_simulator/")
        if not path.startswith("/_simulator/health"):
            await self._clock.caught_up()
        if own and request.method == "GET":
            return self._own_page(path.partition("?")[0])
        if path.startswith(WEBSOCKET_PATH):
            return await self._sockets.serve(request)
        response = await self._answer(request, path, own=own)
        if "Origin" in request.headers:
            response.headers.update(_ANY_ORIGIN)
        return response

    async def _answer(self, request: web.BaseRequest, path: str, *, own: bool) -> web.StreamResponse:
        if request.method == "OPTIONS":  # what a browser asks first; no AWS API has the method
            return web.Response(status=204)
        try:
            body = await _read(request, self._body_seconds)
        except ApiError as error:
            answer = self._api.refuse(error, self._clock.now())
        else:
            if own:
                answer = self._control(request.method, path, body)
                await self._clock.caught_up()
                self._clock.catch_up()  # nothing is left but to tell those who wait
            else:
                answer = self._api.call(request.method, path, request.headers, body, self._clock.now())
            self._clock.wind()
        return await reply(request, answer, self._clock)

    def _control(self, method: str, path: str, body: bytes) -> Answer:
        if method != "POST":
            return Answer(404, _JSON, b'{"message":"no such page"}')
        try:
            return self._do(path, body)
        except RecursionError:
            return Answer(400, _JSON, b'{"message":"the body is nested too deeply"}')

    def _do(self, path: str, body: bytes) -> Answer:
        if path == "/_simulator/traffic" and self.running is not None:
            try:
                self.running.play(read_traffic(msgspec.json.decode(body)))
            except (ValueError, msgspec.DecodeError) as error:
                return Answer(400, _JSON, encode({"message": str(error)}))
            return Answer(200, _JSON, b"{}")
        if path == "/_simulator/clock":
            status, told = move(self._clock.now, body)
            return Answer(status, _JSON, encode(told))
        return self._api.control(path, body, self._clock.now())

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
