"""The data files that a model file names, found without reading a weight, however large the model is."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from onnx import ModelProto, StringStringEntryProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.model.external import open_regular, resolve
from onnxprune.model.tensors import INSIDE
from onnxprune.model.wire import Damaged, content, fields, varint

MOST = 2_000_000  # fields that are looked at, of more than a hundred thousand nodes: some seconds

# Messages that tensors stand in, by message and number of the field.
_CHILDREN = {
    kind: {f.number: GetMessageClass(f.message_type) for f in map(kind.DESCRIPTOR.fields_by_name.get, names)}
    for kind, names in INSIDE.items()
}
_DATA = TensorProto.DESCRIPTOR.fields_by_name["external_data"].number
_WHERE = TensorProto.DESCRIPTOR.fields_by_name["data_location"].number


def data_files(path: Path) -> tuple[Path, ...]:
    """Data files that the model at a path refers to and that are there; none if it is no model."""
    found: dict[Path, None] = {}
    with suppress(OSError, ValueError, RecursionError):  # no file, no model: whoever reads it says so
        if (opened := open_regular(path)) is not None:
            with opened as file:
                for location in _locations(file, ModelProto, 0, file.seek(0, 2), count(1)):
                    with suppress(ModelError):
                        found[resolve(location, path)] = None
    return tuple(found)


def _locations(file: BinaryIO, kind: Any, begin: int, end: int, seen: Iterator[int]) -> Iterator[str]:
    """What the tensors within a message say of the file that their elements are in.  Raises Damaged for a bomb."""
    if kind is TensorProto:
        yield from _location(file, begin, end)
        return
    for number, _, body, stop in fields(file, begin, end):
        if next(seen) > MOST:
            raise Damaged("more fields than a model has")
        if number in _CHILDREN[kind]:
            yield from _locations(file, _CHILDREN[kind][number], body, stop, seen)


def _location(file: BinaryIO, begin: int, end: int) -> Iterator[str]:
    entries, outside = [], False
    for number, _, body, stop in fields(file, begin, end):
        if number == _DATA:
            entries.append(content(file, body, stop))
        elif number == _WHERE:
            file.seek(body)
            outside = varint(file, body)[0] == TensorProto.EXTERNAL
    if not outside:
        return
    for entry in entries:
        with suppress(Exception):  # DecodeError, a class of its own in each protobuf implementation
            found = StringStringEntryProto.FromString(entry)
            if found.key == "location" and isinstance(found.value, str):
                yield found.value
