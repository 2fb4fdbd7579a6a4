"""An ONNX file without its large weights, read by walking the protobuf wire format instead of parsing it all.

`onnx.load` holds a file twice (its bytes and the parsed message). To add outputs to a model, or to see what
its nodes are, the weights are not needed: only their places in the file.
"""

import io
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune.model.elements import ExternalTensor
from onnxprune.model.network import LIFTED, Network, external
from onnxprune.model.tensors import is_external, nbytes_of
from onnxprune.model.wire import Damaged, content, fields, opening

# Field numbers of onnx.proto
GRAPH = 7  # of ModelProto
INITIALIZER = 5  # of GraphProto
NAME, RAW_DATA = 8, 9  # of TensorProto


def outline(path: Path, *, least: int | None = None) -> Network | None:
    """The network in an ONNX file, whose raw data of `least` bytes or more is left there; None if it has to be parsed.

    Raises `OSError` when the file cannot be read.
    """
    spans, least = dict[str, tuple[int, int]](), LIFTED if least is None else least
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        out = bytearray()
        try:
            for number, start, body, end in fields(file, 0, size):
                if number == GRAPH:
                    graph = _graph(file, body, end, least, spans)
                    out += opening(GRAPH, len(graph)) + graph
                else:
                    out += content(file, start, end)
            model = onnx.ModelProto()
            model.ParseFromString(bytes(out))
        except (Damaged, UnicodeDecodeError, DecodeError):
            return None
    tensors = {}
    for tensor in model.graph.initializer:
        if tensor.name in spans:
            tensors[tensor.name] = ExternalTensor(tensor, path, *spans[tensor.name])
            tensor.data_location = onnx.TensorProto.EXTERNAL
        elif is_external(tensor):
            tensors[tensor.name] = external(tensor, path.parent)
        elif nbytes_of(tensor) >= least:  # in one of the typed fields
            return None
    return Network(model, tensors)


def _graph(file: BinaryIO, begin: int, end: int, least: int, spans: dict[str, tuple[int, int]]) -> bytes:
    out = bytearray()
    for number, start, body, stop in fields(file, begin, end):
        if number == INITIALIZER and stop - body >= least:
            tensor = _tensor(file, body, stop, least, spans)
            out += opening(INITIALIZER, len(tensor)) + tensor
        else:
            out += content(file, start, stop)
    return bytes(out)


def _tensor(file: BinaryIO, begin: int, end: int, least: int, spans: dict[str, tuple[int, int]]) -> bytes:
    """A TensorProto without its raw data, whose place is noted under its name."""
    out, name, span = bytearray(), "", None
    for number, start, body, stop in fields(file, begin, end):
        if number == RAW_DATA and stop - body >= least:
            span = body, stop - body
            continue
        if number == NAME:
            name = content(file, body, stop).decode()
        out += content(file, start, stop)
    if span is not None:
        spans[name] = span
    return bytes(out)
