"""The seal on a hand-off that lies somewhere on its way: JWE for the runtime's public key (RFC 7516, compact).

    an EC key, P-256        ECDH-ES+A256KW, A256GCM
    an RSA key, 2048 bits+  RSA-OAEP-256, A256GCM

The header names the key (``kid``: the JWK's own, else its RFC 7638 thumbprint), so that a runtime can have several while
they are rotated. Only who holds the private key can read the payload; who sent it is for the queue's policy to say.
"""

import json
import warnings
from pathlib import Path
from typing import Final

from joserfc import jwe
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey

from attachd.errors import Misconfigured

_ENCRYPTION: Final = "A256GCM"
_RSA_BITS: Final = 2048


class Seal:
    """Seals for one key.

    Args:
        path: the runtime's public key: PEM (SubjectPublicKeyInfo), or a JWK as JSON.

    Raises:
        Misconfigured: it is missing, or no public key of a kind that is sealed for.
    """

    def __init__(self, path: Path) -> None:
        key = _read(path)
        if key.is_private:
            raise Misconfigured([f"public_key {path}: this is a private key, which is the runtime's alone"])
        match key:
            case ECKey(curve_name="P-256"):
                algorithm = "ECDH-ES+A256KW"
            case RSAKey() if key.raw_value.key_size >= _RSA_BITS:
                algorithm = "RSA-OAEP-256"
            case _:
                raise Misconfigured([_unfit(path)])
        self._key = key
        self._algorithms = [algorithm, _ENCRYPTION]
        self._header = {
            "alg": algorithm,
            "enc": _ENCRYPTION,
            "kid": key.kid or key.thumbprint(),
            "cty": "cloudevents+json",
        }

    def sealed(self, plain: bytes) -> str:
        """For the holder of the private key only; never twice the same."""
        return jwe.encrypt_compact(dict(self._header), plain, self._key, algorithms=self._algorithms)


def _read(path: Path) -> ECKey | RSAKey:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured([f"public_key {path}: {error}"]) from None
    for kind in (ECKey, RSAKey):
        try:
            with warnings.catch_warnings(
                action="ignore", category=SecurityWarning
            ):  # what is weak is refused
                return kind.import_key(json.loads(text) if text.lstrip().startswith("{") else text)
        except (
            JoseError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # joserfc lets foreign ones through
            continue
    raise Misconfigured([_unfit(path)])


def _unfit(path: Path) -> str:
    return f"public_key {path}: not a public key to seal for: EC P-256, or RSA from {_RSA_BITS} bits on, as PEM or JWK"
