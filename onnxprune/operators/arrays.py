"""Arrays of a file as tensors of torch, and back.

Half precision is carried in float32: so it is trained, and onnxruntime on the CPU computes it there as well.  Unsigned
integers that torch cannot add are carried in int64, and packed ones in a byte each.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.operators.lazy_torch import Tensor, torch

Value = Any  # a Tensor, a list of them (a sequence), or an object array of text

CARRIERS: dict[int, str] = {  # type of an ONNX tensor → that of torch
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16), "float32"),
    **dict.fromkeys((17, 18, 19, 20), "float32"),  # float8
    TensorProto.DOUBLE: "float64",
    TensorProto.BOOL: "bool",
    **dict.fromkeys((TensorProto.INT8, 22, 26), "int8"),  # and int4, int2
    **dict.fromkeys((TensorProto.UINT8, 21, 25), "uint8"),  # and uint4, uint2
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT32: "int32",
    **dict.fromkeys((TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64), "int64"),
}
FLOATS = frozenset(kind for kind, dtype in CARRIERS.items() if dtype.startswith("float"))
_ENDS = {int(helper.np_dtype_to_tensor_dtype(d)): np.iinfo(d) for d in map(np.dtype, "i1 u1 i2 u2 i4".split())}
RANGES = {kind: (int(ends.min), int(ends.max)) for kind, ends in _ENDS.items()}
RANGES |= {22: (-8, 7), 21: (0, 15), 26: (-2, 1), 25: (0, 3)}


def carrier(kind: int) -> "torch.dtype":
    """The type in which elements of an ONNX type are computed.  Raises ModelError where torch has none."""
    if kind not in CARRIERS:
        name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)
        raise ModelError(f"elements of type {name} cannot be trained with")
    return getattr(torch, CARRIERS[kind])


def from_array(array: np.ndarray) -> Value:
    """An array as a tensor of its own; text stays an array."""
    if array.dtype.kind in "OSU":
        return array
    dtype = carrier(helper.np_dtype_to_tensor_dtype(array.dtype))
    if dtype == torch.float32 and array.dtype != np.float32:
        array = array.astype(np.float32)
    elif dtype == torch.int64:
        array = array.astype(np.int64)
    elif dtype in (torch.int8, torch.uint8):
        array = array.astype(np.int8 if dtype == torch.int8 else np.uint8)
    return torch.from_numpy(np.array(array, order="C"))


def to_array(tensor: Tensor, kind: int) -> np.ndarray:
    """The elements of a tensor as an array of an ONNX type; of whole numbers the nearest, within the range."""
    array = tensor.detach().cpu().numpy()
    if kind in RANGES and array.dtype.kind == "f":
        array = np.clip(np.rint(array), *RANGES[kind])
    return array.astype(helper.tensor_dtype_to_np_dtype(kind))


def attribute(value: Any) -> Any:
    """An attribute of a node as Python knows it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [attribute(v) for v in value] if isinstance(value, list) else value


def constant(tensor: onnx.TensorProto) -> Value:
    """The elements of a tensor of the file.  Raises ModelError."""
    from onnxprune.model.tensors import read_tensor

    return from_array(read_tensor(tensor))
