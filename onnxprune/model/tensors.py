"""Tensors of a model wherever they stand, and how many bytes each one must have."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    TrainingInfoProto,
    numpy_helper,
)

from onnxprune.errors import ModelError

MAX_RANK = 64  # numpy's limit
LONGEST = 1 << 48  # positions of an axis, more than any address space has bytes
EMPTY = 1 << 26  # positions of an axis of a tensor without elements, which no file has to pay for

# Element types of tensors that may have channels.
CUTTABLE = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    | {TensorProto.INT8, TensorProto.UINT8}
)

# Bits of one element by data type.  Written out by number, so that types that are newer than the oldest supported
# onnx are known too.
BITS: dict[int, int] = dict(
    [
        *((kind, 64) for kind in (TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64, TensorProto.COMPLEX64)),
        *((kind, 32) for kind in (TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32)),
        *((kind, 16) for kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16)),
        *((kind, 8) for kind in (TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL)),
        (TensorProto.COMPLEX128, 128),
        *((kind, 8) for kind in (17, 18, 19, 20, 24)),  # float8 in five kinds
        *((kind, 6) for kind in (27, 28)),  # float6 in two kinds
        *((kind, 4) for kind in (21, 22, 23)),  # uint4, int4, float4
        *((kind, 2) for kind in (25, 26)),  # uint2, int2
    ]
)

# The typed field that may hold the elements in place of `raw_data`, and elements of the field per element.
TYPED: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

# Fields that tensors stand in, by message.
INSIDE: dict[type[Message], tuple[str, ...]] = {
    ModelProto: ("graph", "functions", "training_info"),
    TrainingInfoProto: ("initialization", "algorithm"),
    FunctionProto: ("node", "attribute_proto"),
    GraphProto: ("initializer", "sparse_initializer", "node"),
    NodeProto: ("attribute",),
    AttributeProto: ("t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs"),
    SparseTensorProto: ("values", "indices"),
}


def quoted(text: object, limit: int = 80) -> str:
    """A name from an untrusted file as it may be printed: control characters escaped, and not longer than `limit`.

    Of a longer one the middle is left out: the end of a path is the name of the file.
    """
    shown = repr(text)
    return shown if len(shown) <= limit else f"{shown[: limit // 2 - 1]}…{shown[-limit // 2 :]}"


def plain(text: object) -> str:
    """Other text from an untrusted file: one line, control characters escaped, without quotes around it."""
    return quoted(text, 200)[1:-1]


def label(tensor: TensorProto) -> str:
    """What to call a tensor in a message."""
    return f"tensor {quoted(tensor.name)}" if tensor.name else "an unnamed tensor"


def elements(tensor: TensorProto) -> int:
    """Number of elements, from the dims alone.

    Raises:
        ModelError: a negative size, or more axes than numpy can hold.
    """
    dims: Sequence[int] = tensor.dims
    if any(d < 0 for d in dims):
        raise ModelError(f"{label(tensor)} has a negative size: {quoted(list(dims))}")
    if max(dims, default=0) > (EMPTY if 0 in dims else LONGEST):
        raise ModelError(f"{label(tensor)} has an impossible size: {quoted(list(dims))}")
    if len(dims) > MAX_RANK:
        raise ModelError(f"{label(tensor)} has {len(dims)} axes, and at most {MAX_RANK} are supported")
    return math.prod(dims)


def nbytes(tensor: TensorProto) -> int:
    """Bytes that the elements take as `raw_data`, from the dims and the data type alone.

    Raises:
        ModelError: impossible dims, or a data type that is unknown or has no fixed size.
    """
    bits = BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(f"{label(tensor)} has data type {tensor.data_type}, which onnx {onnx.__version__} cannot size")
    return (elements(tensor) * bits + 7) // 8


def nbytes_of(tensor: TensorProto) -> int:
    """Bytes that the elements take as `raw_data`, from dims that `nbytes` has checked; 0 for types of no fixed size."""
    return (math.prod(tensor.dims) * BITS.get(tensor.data_type, 0) + 7) // 8


def is_external(tensor: TensorProto) -> bool:
    """Whether the elements are kept in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, dense and sparse, in graphs, bodies and functions."""
    return (tensor for tensor, _ in held(model))


def held(message: Message, attribute: bool = False) -> Iterator[tuple[TensorProto, bool]]:
    """Tensors inside a message, a sparse one as its values and its indices, and whether they are of attributes.

    Args:
        attribute: whether those that stand in no other message in it are.
    """
    for name in INSIDE.get(type(message), ()):
        for child in children(message, name):
            if isinstance(child, TensorProto):
                yield child, attribute
            else:
                sparse = attribute and isinstance(child, SparseTensorProto)
                yield from held(child, sparse or isinstance(child, AttributeProto))


def children(message: Message, name: str) -> Iterable[Any]:
    """The messages in a field, which is repeated or holds one at most."""
    value = getattr(message, name)
    if not isinstance(value, Message):
        return value
    return (value,) if message.HasField(name) else ()


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that a node holds as attributes: the branches of If, the bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes(*parts: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """These nodes, and those of the bodies inside them."""
    pending: list[Iterable[NodeProto]] = [*parts]
    while pending:
        for node in pending.pop():
            yield node
            pending += [body.node for body in bodies(node)]


def read_tensor(tensor: TensorProto) -> np.ndarray:
    """The elements of a tensor in their own type.  Raises ModelError."""
    if is_external(tensor):
        raise ModelError(f"the elements of {tensor.name!r} lie in another file: load the model together with its data")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"the elements of {tensor.name!r} cannot be read ({error}): the file is damaged") from None
