"""Aggregated records, as the Kinesis Producer Library writes them: written here by another hand than the one that reads."""

import hashlib


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def chunk(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def record(data: bytes, key: int = 0, *, tagged: bool = False) -> bytes:
    inner = varint(1 << 3) + varint(key) + varint(2 << 3) + varint(key) + chunk(3, data)
    return inner + (chunk(4, chunk(1, b"tag")) if tagged else b"")


def message(*data: bytes, tagged: bool = False) -> bytes:
    tables = (
        chunk(1, b"partition") + chunk(1, b"another") + chunk(2, b"340282366920938463463374607431768211455")
    )
    return tables + b"".join(chunk(3, record(body, tagged=tagged)) for body in data)


def sealed(buffer: bytes) -> bytes:
    return b"\xf3\x89\x9a\xc2" + buffer + hashlib.md5(buffer, usedforsecurity=False).digest()


def aggregated(*data: bytes, tagged: bool = False) -> bytes:
    return sealed(message(*data, tagged=tagged))
