"""TLS towards a runtime: whose certificates are believed, and which one is shown.

Files are read again when they change, so that a renewed certificate needs no restart; connections that are open go on
with the old one. A renewal that cannot be read, such as one caught between its two files, changes nothing.
"""

import ssl
from collections.abc import Iterable
from pathlib import Path

import structlog

from attachd.errors import Misconfigured

log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Tls:
    """What to connect with.

    Args:
        ca: believe these certificate authorities alone, PEM; left out, those of the system.
        cert: show this certificate and its chain, PEM; left out, none.
        key: its private key, PEM, unencrypted; left out, it stands in ``cert``.

    Raises:
        Misconfigured: a file is missing, or is not what it should be.
    """

    def __init__(self, ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> None:
        self._ca, self._cert, self._key = ca, cert, key
        self._stamp = self._look()
        self._context = self._read()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection; another object when, and only when, the files have changed."""
        if (stamp := self._look()) != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._read()
            except Misconfigured as error:
                log.warning("tls.not_renewed", reason=str(error), next="goes on with what was read before")
            else:
                log.info("tls.renewed", files=[str(path) for path in self._files()])
        return self._context

    def _files(self) -> Iterable[Path]:
        return (path for path in (self._ca, self._cert, self._key) if path is not None)

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._files())

    def _read(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:  # an SSLError is one
            raise Misconfigured([f"ca {self._ca}: {_why(error)}"]) from None
        if self._cert is not None:
            named = f"client_cert {self._cert}" + (f", client_key {self._key}" if self._key else "")
            try:
                # Without a password OpenSSL would ask for it on the terminal, and wait.
                context.load_cert_chain(self._cert, self._key, password=b"")
            except OSError as error:
                raise Misconfigured([f"{named}: {_why(error)}"]) from None
        return context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _why(error: OSError) -> str:
    """In a word for the operator, such as ``No such file or directory`` or ``KEY_VALUES_MISMATCH``."""
    return (getattr(error, "reason", None) or error.strerror or type(error).__name__) + (
        "; PEM is wanted, and a private key without a password" if isinstance(error, ssl.SSLError) else ""
    )
