"""The protobuf wire format: numbers and fields as bytes, and a walk through a file that reads what is asked for."""

from collections.abc import Iterator
from typing import BinaryIO

VARINT = 0  # the wire type of numbers
FIXED = {1: 8, 5: 4}  # bytes of the wire types of fixed width
BYTES = 2  # the wire type of what has a length: text, bytes, messages


class Damaged(ValueError):
    """The bytes are no protobuf message; says where."""


def fields(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message between two positions: number, start, start of the content, end.

    Raises Damaged.
    """
    while at < end:
        file.seek(at)
        key, body = varint(file, at)
        kind = key & 7
        if not key >> 3 or kind not in (VARINT, BYTES, *FIXED):  # as in a file of zeros, however long
            raise Damaged(f"byte {at} starts no field")
        stop = varint(file, body)[1] if kind == VARINT else body + FIXED.get(kind, 0)
        if kind == BYTES:
            length, body = varint(file, body)
            stop = body + length
        if stop > end:
            raise Damaged(f"{stop - body} bytes are announced at byte {body}, and {end - body} follow")
        yield key >> 3, at, body, stop
        at = stop


def varint(file: BinaryIO, at: int) -> tuple[int, int]:
    """The number whose bytes begin at the file's position, which is `at`, and the position after it."""
    value = 0
    for k in range(10):
        if not (byte := file.read(1)):
            break
        value |= (byte[0] & 127) << 7 * k
        if byte[0] < 128:
            return value, at + k + 1
    raise Damaged(f"no number ends within ten bytes of byte {at}")


def content(file: BinaryIO, start: int, end: int) -> bytes:
    """The bytes between two positions."""
    file.seek(start)
    return file.read(end - start)


def number(value: int) -> bytes:
    """A number as the wire has it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def opening(field: int, count: int) -> bytes:
    """What stands before the `count` bytes of a field."""
    return number(field << 3 | BYTES) + number(count)
