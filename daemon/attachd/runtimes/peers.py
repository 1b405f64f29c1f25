"""Unix sockets: who listens there?

Whoever can replace a socket's file can listen in its place, so the kernel is asked whose process it is before a byte is
written (unix(7), SO_PEERCRED: the credentials at the time of listen(2)).
"""

import pwd
import socket
import struct
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid


class WrongPeer(Exception):
    """Somebody else than expected listens. Nothing was sent."""


class UnixConnector(aiohttp.UnixConnector):
    """Connections to a socket behind which a certain user listens.

    Args:
        path: the socket.
        user: a name or a uid, looked up when a connection is made: a service's user may not be there before.
    """

    def __init__(self, path: str, user: str | int | None, *, limit: int) -> None:
        super().__init__(path, limit=limit)
        self._user = user

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        """The seam that aiohttp's own connectors are made by: a connection, before anything is sent on it."""
        made = await super()._create_connection(*args)
        if self._user is None:
            return made
        try:
            _demand(
                self._user, _listener(made.transport.get_extra_info("socket") if made.transport else None)
            )
        except WrongPeer:
            made.close()
            raise
        return made


def _listener(connection: socket.socket | None) -> int:
    if connection is None:
        raise WrongPeer("the connection was lost")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


def _demand(user: str | int, uid: int) -> None:
    try:
        wanted = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise WrongPeer(f"there is no user {user} now, and uid {uid} listens") from None
    if uid != wanted:
        raise WrongPeer(f"uid {uid} listens, and not {user}" + (f" ({wanted})" if wanted != user else ""))
