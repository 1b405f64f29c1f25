"""The Kinesis Producer Library's aggregated records, taken apart. Pure.

Four magic bytes, a protocol buffer, the MD5 of the buffer (aggregation-format.md in awslabs/amazon-kinesis-producer):

    message AggregatedRecord { repeated string partition_key_table = 1; repeated string explicit_hash_key_table = 2;
                               repeated Record records = 3; }
    message Record           { required uint64 partition_key_index = 1; optional uint64 explicit_hash_key_index = 2;
                               required bytes data = 3; repeated Tag tags = 4; }

Whatever is not exactly that is a plain record, whose bytes are its own affair. A KCL leaves out what hashes to another
shard, because the producer sends that again after a reshard; here it comes as a duplicate, which the journal knows.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

MAGIC: Final = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES: Final = 16
_RECORDS: Final = 3  # field numbers
_DATA: Final = 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_VARINT_BITS: Final = 64


def bodies(data: bytes) -> list[bytes]:
    """The bodies in a record: those of an aggregated one, in order, or the one that it is."""
    buffer, digest = data[len(MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    # MD5 is the format's own choice, against accidents and not against anybody.
    if not data.startswith(MAGIC) or hashlib.md5(buffer, usedforsecurity=False).digest() != digest:
        return [data]
    try:
        return [_data(record) for number, record in _fields(buffer) if number == _RECORDS]
    except ValueError:
        return [data]


def _data(record: bytes) -> bytes:
    found = [value for number, value in _fields(record) if number == _DATA]
    if not found:
        raise ValueError("a record without data")
    return found[-1]


def _fields(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message: number and, where it is a length-delimited one, its bytes."""
    at = 0
    while at < len(buffer):
        key, at = _varint(buffer, at)
        match key & 7:
            case wire if wire == _VARINT:
                _, at = _varint(buffer, at)
                size = 0
            case wire if wire == _BYTES:
                size, at = _varint(buffer, at)
            case wire if wire in {_FIXED64, _FIXED32}:
                size = 8 if wire == _FIXED64 else 4
            case wire:
                raise ValueError(f"wire type {wire}")
        if at + size > len(buffer):
            raise ValueError("cut off")
        if key & 7 == _BYTES:
            yield key >> 3, buffer[at : at + size]
        at += size


def _varint(buffer: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(buffer):
            raise ValueError("cut off")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    raise ValueError("a varint too long")
