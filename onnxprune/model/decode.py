"""Bytes to ModelProto without a second copy of the weights.

`ParseFromString` needs the whole file in memory beside the message.  But the concatenation of two encoded messages is
the encoding of their merge, so a file can be merged a few fields at a time, and the peak is the model and its largest
field.  https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

import hashlib
from typing import BinaryIO

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto

from onnxprune.model.wire import BYTES, Damaged, content, fields

CHUNK = 4 << 20  # bytes merged at once; a single longer field is a chunk of its own
GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number


def decode(stream: BinaryIO, size: int) -> tuple[ModelProto, str]:
    """The model in a stream of `size` bytes, and their sha256.  Memory: the model and once its largest field.

    Raises:
        Damaged: the bytes are not a ModelProto.
    """
    model, digest = ModelProto(), hashlib.sha256()

    def read(start: int, end: int) -> bytes:
        """What follows what was read before."""
        data = content(stream, start, end)
        if len(data) < end - start:
            raise Damaged("the file became shorter while it was read")
        digest.update(data)
        return data

    def merge(message: Message, start: int, end: int) -> None:
        try:
            message.MergeFromString(read(start, end))
        except DecodeError as error:
            raise Damaged(f"bytes {start} to {end} cannot be decoded") from error

    def merge_fields(message: Message, start: int, end: int) -> None:
        for number, at, body, stop in fields(stream, start, end):
            inside = message is model and number == GRAPH and content(stream, at, at + 1)[0] & 7 == BYTES
            if inside or stop - start > CHUNK:
                merge(message, start, at)
                start = at
            if inside:
                read(at, body)
                model.graph.SetInParent()
                merge_fields(model.graph, body, stop)
                start = stop
            elif stop - start > CHUNK:
                merge(message, start, stop)
                start = stop
        merge(message, start, end)

    merge_fields(model, 0, size)
    return model, digest.hexdigest()
