"""An ONNX file without its large weights, read by walking the protobuf wire format instead of parsing it all.

`onnx.load` holds a file twice (its bytes and the parsed message). To add outputs to a model, or to see what
its nodes are, the weights are not needed: only their places in the file.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx

# Field numbers of onnx.proto
GRAPH = 7  # of ModelProto
INITIALIZER = 5  # of GraphProto
NAME, RAW_DATA = 8, 9  # of TensorProto

_FIXED = {1: 8, 5: 4}  # bytes of the wire types of fixed width


@dataclass(frozen=True)
class Outline:
    """A model whose large initializers have no data, and where in the file their bytes are: name → (start, length)."""

    model: onnx.ModelProto
    spans: dict[str, tuple[int, int]]


class _Unknown(ValueError):
    """The file holds something that this walk does not understand."""


def outline(path: Path, *, least: int) -> Outline | None:
    """The outline of an ONNX file, without raw data of `least` bytes or more; None when it has to be parsed whole.

    Raises `OSError` when the file cannot be read.
    """
    spans: dict[str, tuple[int, int]] = {}
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        out = bytearray()
        try:
            for number, start, body, end in _fields(file, 0, size):
                if number == GRAPH:
                    graph = _graph(file, body, end, least, spans)
                    out += _varint(GRAPH << 3 | 2) + _varint(len(graph)) + graph
                else:
                    out += _bytes(file, start, end)
            model = onnx.ModelProto()
            model.ParseFromString(bytes(out))
        except (_Unknown, UnicodeDecodeError):
            return None
        except Exception as error:  # DecodeError, a class of its own in each protobuf implementation
            if type(error).__name__ != "DecodeError":
                raise
            return None
    return Outline(model, spans)


def _graph(file: BinaryIO, begin: int, end: int, least: int, spans: dict[str, tuple[int, int]]) -> bytes:
    out = bytearray()
    for number, start, body, stop in _fields(file, begin, end):
        if number == INITIALIZER and stop - body >= least:
            tensor = _tensor(file, body, stop, least, spans)
            out += _varint(INITIALIZER << 3 | 2) + _varint(len(tensor)) + tensor
        else:
            out += _bytes(file, start, stop)
    return bytes(out)


def _tensor(file: BinaryIO, begin: int, end: int, least: int, spans: dict[str, tuple[int, int]]) -> bytes:
    """A TensorProto without its raw data, whose place is noted under its name."""
    out, name, span = bytearray(), "", None
    for number, start, body, stop in _fields(file, begin, end):
        if number == RAW_DATA and stop - body >= least:
            span = body, stop - body
            continue
        if number == NAME:
            name = _bytes(file, body, stop).decode()
        out += _bytes(file, start, stop)
    if span is not None:
        spans[name] = span
    return bytes(out)


def _fields(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message between two positions: number, start, start of the content, end."""
    while at < end:
        file.seek(at)
        key, body = _read_varint(file, at)
        kind = key & 7
        if kind == 0:
            stop = _read_varint(file, body)[1]
        elif kind == 2:
            length, body = _read_varint(file, body)
            stop = body + length
        elif kind in _FIXED:
            stop = body + _FIXED[kind]
        else:
            raise _Unknown(f"wire type {kind}")
        if stop > end:
            raise _Unknown("a field ends behind its message")
        yield key >> 3, at, body, stop
        at = stop


def _read_varint(file: BinaryIO, at: int) -> tuple[int, int]:
    """The number whose bytes begin at the file's position, which is `at`, and the position after it."""
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise _Unknown("a number that does not end")
        value |= (byte[0] & 127) << shift
        at, shift = at + 1, shift + 7
        if byte[0] < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)
