"""What probes and scrapers ask over HTTP: alive, ready, metrics.

/healthz   200 while every task gets on; 503 names the ones that do not. For liveness.
/readyz    200 while new chats are taken; 503 says why not. For readiness.
/metrics   the Prometheus text format.
"""

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from attachd.errors import Misconfigured
from attachd.metrics import Metrics


@asynccontextmanager
async def serving(
    listen: str,
    *,
    stalled: Callable[[], Sequence[str]],
    trouble: Callable[[], Sequence[str]],
    metrics: Metrics,
) -> AsyncIterator[str]:
    """Answer until the end; gives the address that is listened on.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        stalled: the tasks that do not get on.
        trouble: why no new chats are taken, a sentence each.
        metrics: what to expose.

    Raises:
        Misconfigured: the address cannot be listened on.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _verdict([f"{task} does not get on" for task in stalled()])

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(trouble())

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    try:
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        try:
            await site.start()
        except (OSError, UnicodeError) as error:
            raise Misconfigured([f"[health] listen {listen}: {_why(error)}"]) from None
        bound = runner.addresses[0]
        yield "http://{}:{}".format(f"[{bound[0]}]" if ":" in bound[0] else bound[0], bound[1])
    finally:
        await runner.cleanup()


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            "another process listens there, perhaps another attachd; "
            "give this one a port of its own: ATTACHD_HEALTH__LISTEN=127.0.0.1:8081"
        )
    return str(error)


def _verdict(problems: Sequence[str]) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")
