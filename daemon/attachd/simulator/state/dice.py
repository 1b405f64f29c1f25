"""Where ids and tokens come from: the nth of a kind for one owner is a pure function of seed, owner, kind and n.

An owner is a contact; so what one contact is dealt does not hang on what others do meanwhile. BLAKE2 and counters, no
generator with a state of its own: owners by the hundred thousand cost a counter each, and the garbage collector nothing.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

_FRACTION = 2.0**-53
_written = msgspec.json.Encoder(order="deterministic").encode


class Dice:
    """What is drawn in one world."""

    __slots__ = ("_drawn", "_seed")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[str, int] = {}

    def new_id(self, owner: str, kind: str) -> str:
        """Return the owner's next version 4 UUID of this kind."""
        return uuid4(self._next(owner, kind, 16))

    def new_secret(self, owner: str, kind: str) -> str:
        """Return the owner's next 256 bits of this kind, as 64 hexadecimal digits."""
        return self._next(owner, kind, 32)

    def _next(self, owner: str, kind: str, size: int) -> str:
        drawing = f"{kind} {owner}"
        number = self._drawn[drawing] = self._drawn.get(drawing, 0) + 1
        return blake2b(f"{self._seed} {number} {drawing}".encode(), digest_size=size).hexdigest()


def uuid4(digits: str) -> str:
    """Write 32 hexadecimal digits as a random UUID, whose version and variant take six of the bits."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"


def likeness(request: Mapping[str, Any]) -> str:
    """Return what calls have in common which ask for the same thing, 32 hexadecimal digits.

    A ClientToken does not count: SDKs invent a random one for every call that has none.
    """
    asked = {name: value for name, value in request.items() if name != "ClientToken"}
    try:
        written = _written(asked)
    except UnicodeEncodeError:  # a header need not be UTF-8; aiohttp hands such bytes on as lone surrogates
        written = json.dumps(asked, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass")
    return blake2b(written, digest_size=16).hexdigest()


def chances(*of: object) -> tuple[float, float]:
    """Return two independent numbers, each at least 0 and less than 1, drawn for these things."""
    digest = blake2b("\0".join(map(str, of)).encode(errors="surrogatepass"), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
    return (first >> 11) * _FRACTION, (second >> 11) * _FRACTION
