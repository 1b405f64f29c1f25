"""aiohttp's server without aiohttp's words: what it could not read, or what failed, it would log and answer with its text.

A header may hold a token, and a parser's complaint quotes the header. So only the kind of the error is logged, and the
answer is ours.
"""

from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

_log = structlog.get_logger(__name__)
_UNREADABLE = 400


class Port(web.Server):
    """Answers each connection by a handler which keeps what it read to itself."""

    def __call__(self) -> RequestHandler:
        """Return the handler of one connection."""
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Handler(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what was read
    ) -> web.StreamResponse:
        if status < 500 or isinstance(exc, HttpProcessingError):  # noqa: PLR2004 - where the server's own failures begin
            status, code, said = _UNREADABLE, "SerializationException", "the request is not well-formed HTTP"
            _log.warning("simulator.request_unreadable", error=type(exc).__name__)
        else:
            status, code, said = 500, "InternalServiceException", "The service failed"
            _log.error("simulator.request_failed", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        response = web.Response(
            status=status,
            text=f'{{"Message":"{said}"}}',
            content_type="application/json",
            headers={"x-amzn-ErrorType": code},
        )
        response.force_close()
        return response

    def log_exception(self, *_args: Any, exc_info: Any = None, **_more: Any) -> None:
        _log.error("simulator.connection_failed", error=type(exc_info).__name__)

    def log_debug(self, *_args: Any, **_more: Any) -> None:
        """Say nothing: what aiohttp debugs with is the text of what it read."""
