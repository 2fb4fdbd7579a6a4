"""A model to bytes without a second copy of the weights.

`SerializeToString` needs twice the model on top of the message and stops at 2 GiB.  But a message is the sequence of
its fields, so it can be written in pieces: what is small is serialised, and the elements of large tensors are fetched
one at a time.  Written inline, the result is byte for byte `SerializeToString(deterministic=True)`.
https://protobuf.dev/programming-guides/encoding/
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.model.elements import Tensor
from onnxprune.model.graphs import tensors_of
from onnxprune.model.network import Network, whole
from onnxprune.model.tensors import BITS, TYPED_FIELDS, children, elements, label, nbytes
from onnxprune.model.wire import BYTES, FIXED, VARINT, number, opening

CHUNK = 4 << 20  # bytes written at once
LARGE = 64 << 10  # bytes from which on the elements of a tensor are fetched on their own

# Fields in which large tensors stand, by message.
HOLDERS: dict[type[Message], tuple[str, ...]] = {
    ModelProto: ("graph", "functions"),
    GraphProto: ("node", "initializer"),
    FunctionProto: ("node",),
    NodeProto: ("attribute",),
    AttributeProto: ("t", "tensors", "g", "graphs"),
}


@dataclass(frozen=True, eq=False)
class TensorData:
    """The elements of one large tensor, which are fetched only when they are written.

    Args:
        tensor: holds them, in a message or beside its graph.
        field: `raw_data`, or the typed field that they are in.
        length: bytes; of a typed field together with its tag.
        holder: field that the tensor stands in: `initializer`, or `t` and `tensors` of an attribute.
    """

    tensor: TensorProto | Tensor
    field: str
    length: int
    holder: str

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The elements, row by row, little-endian, perhaps some megabytes at a time."""
        if isinstance(self.tensor, Tensor):
            yield from self.tensor.pieces()
            return
        data = self.tensor.raw_data if self.field == "raw_data" else _field(self.tensor, self.field)
        if len(data) != self.length:
            raise ModelError(f"{label(self.tensor)} holds {len(data)} bytes where its dims ask for {self.length}")
        yield data


Piece = bytes | TensorData
Place = Callable[[TensorData], "list[Piece]"]  # the fields that stand for the elements of a large tensor


def inline(found: TensorData) -> list[Piece]:
    """The elements within the model, where they are."""
    return [header(TensorProto, "raw_data", found.length), found] if found.field == "raw_data" else [found]


def encode(model: ModelProto | Network, place: Place = inline, large: int = LARGE) -> list[Piece]:
    """The encoded model as pieces to be written one after the other.

    Args:
        model: not changed.
        place: what to write for the elements of tensors with at least `large` bytes.
        large: bytes.
    """
    if isinstance(model, ModelProto):
        return _Encoder(place, large).fields(model, "")
    inside = tensors_of(model.graph)
    beside = {id(tensor): model.tensors[key] for key, tensor in inside.items() if key in model.tensors}
    return _Encoder(place, large, beside).fields(model.graph, "")


def length(pieces: Iterable[Piece]) -> int:
    """Bytes that the pieces take together."""
    return sum(p.length if isinstance(p, TensorData) else len(p) for p in pieces)


def chunks(pieces: Iterable[Piece]) -> Iterator[bytes | memoryview]:
    """The pieces as bytes in chunks that are worth a system call; the elements of one tensor at a time."""
    pending = bytearray()
    for piece in pieces:
        if isinstance(piece, TensorData):
            yield bytes(pending)
            pending.clear()
            yield from piece.pieces()
        else:
            pending += piece
            if len(pending) > CHUNK:
                yield bytes(pending)
                pending.clear()
    yield bytes(pending)


def fingerprint(model: ModelProto) -> tuple[str, int]:
    """sha256 and length of the encoded model."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(encode(model)):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


_PLAIN = {AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.STRING}


@dataclass(frozen=True)
class _Encoder:
    """What to write for the elements of large tensors; `beside`: those beside their graph, by the id of the message."""

    place: Place
    large: int
    beside: Mapping[int, Tensor] = field(default_factory=dict)

    def fields(self, message: Message, holder: str, elements: Tensor | None = None) -> list[Piece]:
        """The fields of a message in the order of their numbers, unknown ones last, as protobuf writes them."""
        pieces: list[Piece] = []
        elsewhere = False  # whether the place says of itself where the elements are
        for part in sorted(message.DESCRIPTOR.fields, key=lambda f: f.number):
            name = part.name
            if isinstance(message, TensorProto) and (name == "raw_data" or name in TYPED_FIELDS):
                found = self._elements(message, name, holder, elements)
                elsewhere |= bool(found) and not any(isinstance(piece, TensorData) for piece in found)
                pieces += found
            elif elsewhere and name == "data_location":
                continue  # onnx's own loader writes "here" into every tensor
            elif name in HOLDERS.get(type(message), ()):
                for child in children(message, name):
                    inner = self._child(child, name)
                    pieces += [header(type(message), name, length(inner)), *inner]
            else:
                pieces.append(_field(message, name))
        return pieces + [_unknown(u) for u in UnknownFieldSet(message)]

    def _child(self, message: Message, holder: str) -> list[Piece]:
        elements = self.beside.get(id(message))
        if elements is not None and isinstance(message, TensorProto):
            message, elements = whole(message, elements)
            if elements is not None and not self._is_large(message):
                message.raw_data, elements = b"".join(elements.pieces()), None
        if elements is None and not self._is_large(message):
            return [_serialized(message)]
        return self.fields(message, holder, elements)

    def _is_large(self, message: Message) -> bool:
        """Whether a message holds a tensor whose elements take many bytes, or stand beside the graph."""
        if isinstance(message, TensorProto):
            # no element is longer than 16 bytes; small tensors are told apart without looking further
            large = message.data_type in BITS and elements(message) >= self.large // 16
            return id(message) in self.beside or (large and nbytes(message) >= self.large)
        if isinstance(message, AttributeProto) and message.type in _PLAIN:
            return False
        names = HOLDERS.get(type(message), ())
        return any(self._is_large(child) for name in names for child in children(message, name))

    def _elements(self, tensor: TensorProto, name: str, holder: str, given: Tensor | None) -> list[Piece]:
        if name == "raw_data":
            there = given is not None or tensor.HasField(name)
            return self.place(TensorData(given or tensor, name, nbytes(tensor), holder)) if there else []
        if not len(getattr(tensor, name)):
            return []
        return self.place(TensorData(tensor, name, len(_field(tensor, name)), holder))


def _serialized(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _field(message: Message, name: str) -> bytes:
    """One field, encoded; nothing if it is not set."""
    field, value = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
    alone = type(message)()
    if field.default_value == []:
        getattr(alone, name).MergeFrom(value)
    elif not message.HasField(name):
        return b""
    elif isinstance(value, Message):
        getattr(alone, name).CopyFrom(value)
    elif field.cpp_type == field.CPPTYPE_STRING:  # by hand: text that is not UTF-8 is kept and cannot be assigned
        text = value.encode() if isinstance(value, str) else value
        return header(type(message), name, len(text)) + text
    else:
        setattr(alone, name, value)
    return _serialized(alone)


def header(kind: type[Message], name: str, count: int) -> bytes:
    """Tag and length of a field with `count` bytes."""
    return opening(kind.DESCRIPTOR.fields_by_name[name].number, count)


def _unknown(field: Any) -> bytes:
    """A field that this onnx does not know yet."""
    tag, data = number(field.field_number << 3 | field.wire_type), field.data
    if field.wire_type == BYTES:
        return tag + number(len(data)) + data
    if field.wire_type == VARINT:
        return tag + number(data)
    if field.wire_type in FIXED:
        return tag + data.to_bytes(FIXED[field.wire_type], "little")
    raise ModelError(f"the model has an unknown field {field.field_number} in a form that protobuf gave up")
