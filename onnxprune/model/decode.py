"""Bytes to ModelProto without a second copy of the weights.

`ParseFromString` needs the whole file in memory beside the message.  But the concatenation of two encoded messages is
the encoding of their merge, so a file can be merged a few fields at a time, and the peak is the model and its largest
field.  https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto

from onnxprune.model.wire import BYTES, FIXED, VARINT

CHUNK = 4 << 20  # bytes merged at once; a single longer field is a chunk of its own
GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number


class Damaged(Exception):
    """The bytes are no protobuf message; says where."""


class _Window:
    """The part of a stream that was read and not yet merged, hashed on the way in."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size, self.digest = stream, size, hashlib.sha256()
        self.data, self.start, self.at = bytearray(), 0, 0  # `start`: position of data[0]; `at`: of the cursor

    def varint(self) -> int:
        """The number at the cursor."""
        self._fill(min(self.at + 10, self.size))
        value, offset = 0, self.at - self.start
        for i, byte in enumerate(self.data[offset : offset + 10]):
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                self.at += i + 1
                return value
        raise Damaged(f"no number ends within ten bytes of byte {self.at}")

    def merge(self, message: Message, stop: int) -> None:
        """Merge everything up to `stop` into a message, and forget it."""
        self._fill(stop)
        try:
            message.MergeFromString(memoryview(self.data)[: stop - self.start])
        except DecodeError as error:
            raise Damaged(f"bytes {self.start} to {stop} cannot be decoded") from error
        self.forget(stop)

    def forget(self, stop: int) -> None:
        """Drop what lies before `stop`."""
        self.data = self.data[stop - self.start :]
        self.start = stop

    def _fill(self, stop: int) -> None:
        """Read on until `stop` is in the window: one allocation, exact for a field longer than two chunks."""
        if stop <= self.start + len(self.data):
            return
        kept = len(self.data)
        grown = bytearray(min(self.size, max(stop, self.start + 2 * CHUNK)) - self.start)
        grown[:kept] = self.data
        self.data, rest = grown, memoryview(grown)[kept:]
        while len(rest):
            count = self.stream.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise Damaged("the file became shorter while it was read")
            self.digest.update(rest[:count])
            rest = rest[count:]


def decode(stream: BinaryIO, size: int) -> tuple[ModelProto, str]:
    """The model in a stream of `size` bytes, and their sha256.  Memory: the model and once its largest field.

    Raises:
        Damaged: the bytes are not a ModelProto.
    """
    window, model = _Window(stream, size), ModelProto()

    def graph(length: int) -> None:
        model.graph.SetInParent()
        _merge(window, window.at + length, model.graph, {})

    _merge(window, size, model, {GRAPH: graph})
    return model, window.digest.hexdigest()


def _merge(window: _Window, end: int, message: Message, inside: dict[int, Callable[[int], None]]) -> None:
    """Merge the fields up to `end`; those numbered in `inside` are read by their own function, given their length."""
    while window.at < end:
        begin = window.at
        tag = window.varint()
        number, wire = tag >> 3, tag & 7
        if not number or wire not in (VARINT, BYTES, *FIXED):
            raise Damaged(f"byte {begin} starts no field")
        stop = (window.varint() if wire == BYTES else 0) + FIXED.get(wire, 0)
        if wire == VARINT:
            window.varint()
        stop += window.at
        if stop > end:
            raise Damaged(f"{stop - window.at} bytes are announced at byte {window.at}, and {end - window.at} follow")
        if number in inside and wire == BYTES:
            window.merge(message, begin)
            window.forget(window.at)
            inside[number](stop - window.at)
            continue
        if stop - window.start > CHUNK:
            window.merge(message, begin)
        window.at = stop
        if stop - window.start > CHUNK:
            window.merge(message, stop)
    window.merge(message, end)
