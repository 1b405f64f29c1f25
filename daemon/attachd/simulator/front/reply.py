"""An answer on its way: at once as a rule; late, cut short, or never, if a fault has it so. Knows sockets, no rules."""

import socket
import struct
from math import inf

from aiohttp import web

from attachd.simulator.faults import Garbled, Reset, Silence
from attachd.simulator.front.api import Answer
from attachd.simulator.front.clock import Timekeeper

_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds


async def reply(request: web.BaseRequest, answer: Answer, clock: Timekeeper) -> web.StreamResponse:
    """Send an answer as its fault has it; returns when there is no more to be done."""
    if answer.delay_seconds:
        await clock.until(clock.now() + answer.delay_seconds)
    match answer.spoiled:
        case Silence(seconds=seconds):
            # The handler is cancelled once the client has gone away.
            await clock.until(inf if seconds is None else clock.now() + seconds)
            _close(request)
        case Reset():
            _reset(request)
        case Garbled(how="truncated"):
            return await _half(request, answer)
        case Garbled():
            return _response(answer, b"<" + answer.body)
        case None:
            return _response(answer, answer.body)
    return web.Response()  # which nobody will get


def _response(answer: Answer, body: bytes) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=body)


async def _half(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Promise the whole body, send half of it, and hang up."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    _close(request)
    return response


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()


def _reset(request: web.BaseRequest) -> None:
    if request.transport is not None:
        wire = request.transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        request.transport.abort()
