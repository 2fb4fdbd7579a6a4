"""The protobuf wire format: numbers and fields as bytes, and a walk through a file that reads what is asked for."""

from collections.abc import Iterator
from typing import BinaryIO

VARINT = 0  # the wire type of numbers
FIXED = {1: 8, 5: 4}  # bytes of the wire types of fixed width
BYTES = 2  # the wire type of what has a length: text, bytes, messages


class Unknown(ValueError):
    """The file holds something that this walk does not understand."""


def fields(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message between two positions: number, start, start of the content, end.

    Raises:
        Unknown: there is no message, or one of another kind.
    """
    while at < end:
        file.seek(at)
        key, body = varint(file, at)
        kind = key & 7
        if not key >> 3:  # as in a file of zeros, however long
            raise Unknown("a field without a number")
        if kind == VARINT:
            stop = varint(file, body)[1]
        elif kind == BYTES:
            length, body = varint(file, body)
            stop = body + length
        elif kind in FIXED:
            stop = body + FIXED[kind]
        else:
            raise Unknown(f"wire type {kind}")
        if stop > end:
            raise Unknown("a field ends behind its message")
        yield key >> 3, at, body, stop
        at = stop


def varint(file: BinaryIO, at: int) -> tuple[int, int]:
    """The number whose bytes begin at the file's position, which is `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise Unknown("a number that does not end")
        value |= (byte[0] & 127) << shift
        at, shift = at + 1, shift + 7
        if byte[0] < 128:
            return value, at


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
