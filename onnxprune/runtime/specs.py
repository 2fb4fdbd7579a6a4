"""What a model takes and gives: the name, element type and shape of its inputs and outputs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import ModelError

Dim = int | str | None
Feed = dict[str, np.ndarray]

# Names that exporters write where they mean "unknown": equal ones say nothing about equal sizes.
ANONYMOUS = {"", "?", "none", "unk", "unknown", "dynamic", "-1"}

# onnxruntime's spelling → ONNX element type
_ELEMENT = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(double)": onnx.TensorProto.DOUBLE,
    **{
        f"tensor({name.lower()})": number
        for name, number in onnx.TensorProto.DataType.items()
        if name not in ("UNDEFINED", "FLOAT", "DOUBLE")
    },
}


@dataclass(frozen=True)
class Spec:
    """One input or output: `shape` has an integer where a size is fixed, a name or None where it is free.

    `shape` is None where even the rank is unknown; onnxruntime reports that as a scalar.
    """

    name: str
    element: int  # onnx.TensorProto.DataType; 0 where it is no tensor
    shape: tuple[Dim, ...] | None
    kind: str = "tensor"

    @property
    def dtype(self) -> np.dtype:
        """The numpy element type; bfloat16, float8 and int4 are those of ml_dtypes."""
        if not self.element:
            raise ModelError(
                f"'{self.name}' is no tensor ({self.kind}), and such values can be neither made up nor compared; "
                "--no-verify --no-measure prunes without running the model"
            )
        try:
            return np.dtype(helper.tensor_dtype_to_np_dtype(self.element))
        except KeyError:
            raise ModelError(f"'{self.name}' has data type {self.element}, which this onnx does not know") from None

    @property
    def batch(self) -> int | None:
        """The fixed size of the first axis, or None where it is free."""
        return self.shape[0] if self.shape and isinstance(self.shape[0], int) else None

    @property
    def closed(self) -> bool:
        """Whether the rank and all sizes are fixed."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    def __str__(self) -> str:
        return f"'{self.name}' {describe(self.shape)} {self.dtype.name if self.element else self.kind}"


def describe(shape: Iterable[Dim] | None) -> str:
    """A shape as people write it: `[N, 3, 224, 224]`, with `?` for what has no name."""
    return "[unknown rank]" if shape is None else f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def fits(shape: Iterable[int], spec: Spec, *, skip_first: bool = False) -> bool:
    """Whether `shape` agrees with the rank and the fixed sizes of `spec`; `skip_first` leaves out axis 0."""
    if spec.shape is None:
        return True
    shape = tuple(shape)
    pairs = list(zip(shape, spec.shape, strict=False))[int(skip_first) :]
    return len(shape) == len(spec.shape) and all(not isinstance(want, int) or have == want for have, want in pairs)


def from_argument(argument: Any) -> Spec:
    """The spec of one of a session's `NodeArg`s."""
    element = _ELEMENT.get(argument.type, 0)
    shape = tuple(d if not isinstance(d, int) or d >= 0 else None for d in argument.shape)
    return Spec(argument.name, element, shape, argument.type)


def from_value_info(value: onnx.ValueInfoProto) -> Spec:
    """The spec of an input or output as the model file declares it."""
    kind = value.type.WhichOneof("value") or "value of unknown type"
    if kind != "tensor_type":
        return Spec(value.name, 0, None, kind.removesuffix("_type"))
    tensor = value.type.tensor_type
    shape = tuple(_dim(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return Spec(value.name, tensor.elem_type, shape)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return dim.dim_param or None


def model_inputs(model: onnx.ModelProto) -> tuple[Spec, ...]:
    """The inputs that a caller feeds: graph inputs that are not initializers (ir 3 lists weights among them)."""
    weights = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    return tuple(from_value_info(v) for v in model.graph.input if v.name not in weights)


def model_outputs(model: onnx.ModelProto) -> tuple[Spec, ...]:
    """The outputs that the model file declares."""
    return tuple(from_value_info(v) for v in model.graph.output)


def anonymous(dim: Dim) -> bool:
    """Whether a free size has no name of its own, so that it stands for no other size of the model."""
    return dim is None or (isinstance(dim, str) and dim.strip().lower() in ANONYMOUS)


def shortened(feed: Mapping[str, np.ndarray], inputs: Iterable[Spec], most: int) -> Mapping[str, np.ndarray]:
    """A feed of at most `most` samples: the first ones along the first axes that the model leaves open.

    Itself where there are no more, or where it is not plain which axis the samples are on: open ones of different
    lengths, or a fixed one that is as long as the open ones, and may go with them.
    """
    lengths = {s.name: len(feed[s.name]) for s in inputs if s.batch is None and feed[s.name].ndim}
    fixed = {len(array) for name, array in feed.items() if array.ndim and name not in lengths}
    samples = set(lengths.values())
    if len(samples) != 1 or samples <= fixed or max(samples) <= most:
        return feed
    return {name: array[:most] if name in lengths else array for name, array in feed.items()}


def nbytes(shape: Iterable[int], dtype: np.dtype) -> int:
    """Bytes of an array of this shape and type."""
    return math.prod(shape) * dtype.itemsize
