"""IP addresses as event-ruler reads them.

Here: text to address, text to network. No matching policy, and never a name lookup.

Source: event-ruler's ``CIDR``, which hands what looks like an address to Java's ``InetAddress``. Hence the corners
where Python's ``ipaddress`` differs: leading zeros are decimal padding (``010.0.0.1`` is ``10.0.0.1``) and
``::ffff:a00:1`` is an IPv4 address.
"""

from __future__ import annotations

from dataclasses import dataclass

_V4_BITS, _V6_BITS = 32, 128
_V4_LONGEST = 15  # InetAddress takes anything longer for a host name
_V6_GROUPS = 8
_V6_ALPHABET = frozenset("0123456789abcdefABCDEF:")
_MAPPED = 0xFFFF  # what stands above the lower 32 bits of an IPv4-mapped IPv6 address
_JAVA_INT_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Address:
    """An address: its family as a number of bits, and its value. Families never equal each other."""

    bits: int
    value: int


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses of one family which share their leading bits with ``value``; ``host_bits`` are free."""

    bits: int
    prefix: int
    host_bits: int

    @property
    def first(self) -> Address:
        """Give the lowest address inside."""
        return Address(self.bits, self.prefix << self.host_bits)

    def __contains__(self, address: Address) -> bool:
        """Tell whether the address is of this family and inside."""
        return address.bits == self.bits and address.value >> self.host_bits == self.prefix


def parse_address(text: str) -> Address | None:
    """Read an address literal; None for anything else."""
    if _looks_like_v4(text):
        return _v4(text)
    if _looks_like_v6(text):
        return _v6(text)
    return None


def parse_network(text: str) -> Network:
    """Read ``address/mask``; host bits may be set.

    Raises:
        ValueError: with event-ruler's message. A mask that leaves no host bit (/32, /128) is refused, as there.
    """
    halves = text.rstrip("/").split("/")  # as Java's split: empty strings at the end do not count
    if len(halves) != 2:  # noqa: PLR2004 - one slash makes two halves
        raise ValueError("Malformed CIDR, one '/' required")
    mask = _mask(halves[1])
    address = parse_address(halves[0])
    if address is None:
        looks = _looks_like_v4(halves[0]) or _looks_like_v6(halves[0])
        raise ValueError(f"{'Invalid' if looks else 'Nonstandard'} IP address: {halves[0]}")
    if mask >= address.bits:
        version = 4 if address.bits == _V4_BITS else 6
        raise ValueError(f"IPv{version} mask bits must be < {address.bits}")
    host_bits = address.bits - mask
    return Network(address.bits, address.value >> host_bits, host_bits)


def _mask(text: str) -> int:
    digits = text[1:] if text[:1] in {"+", "-"} else text
    try:
        value = int(digits) if digits.isdecimal() else _JAVA_INT_MAX + 1
    except ValueError:  # thousands of digits
        value = _JAVA_INT_MAX + 1
    if value > _JAVA_INT_MAX:
        raise ValueError("Malformed CIDR, mask bits must be an integer")
    if value and text.startswith("-"):
        raise ValueError("Malformed CIDR, mask bits must not be negative")
    return value


def _looks_like_v4(text: str) -> bool:
    parts = text.split(".", 4)
    return len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts)  # noqa: PLR2004 - octets


def _looks_like_v6(text: str) -> bool:
    return ":" in text and _V6_ALPHABET.issuperset(text)


def _v4(text: str) -> Address | None:
    if len(text) > _V4_LONGEST:
        return None
    octets = [int(part) for part in text.split(".")]
    return None if max(octets) > 0xFF else Address(_V4_BITS, int.from_bytes(bytes(octets)))  # noqa: PLR2004 - a byte


def _v6(text: str) -> Address | None:
    head, gap, tail = text.partition("::")
    left = head.split(":") if head else []
    right = tail.split(":") if tail else []
    missing = _V6_GROUPS - len(left) - len(right)
    if (missing < 1) if gap else (missing != 0):
        return None
    value = 0
    for group in [*left, *["0"] * missing, *right]:
        piece = group.lstrip("0") or group[:1]
        if not piece or len(piece) > 4:  # noqa: PLR2004 - 16 bits in hexadecimal
            return None
        value = value << 16 | int(piece, 16)
    if value >> _V4_BITS == _MAPPED:
        return Address(_V4_BITS, value & 0xFFFFFFFF)
    return Address(_V6_BITS, value)
