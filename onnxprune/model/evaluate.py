"""Numpy values of the small nodes that compute shapes, so that the analysis knows what a Reshape is told.

Every result is capped in size before it is made: `ConstantOfShape` can ask for 2^34 elements in 72 bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

# What a malformed node leads to: inputs or attributes that are missing, or of the wrong type, rank or size.
MALFORMED = (ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError, MemoryError)
LARGEST = 4096  # elements; shapes, indices and sizes are shorter, and weights are not computed here

Arrays = Sequence[Any]  # the value of each input, None where it is left out


def evaluate(
    node: onnx.NodeProto, inputs: Arrays, attributes: Mapping[str, Any], opset: int
) -> list[np.ndarray] | None:
    """Outputs of a node whose inputs are known.

    None where the operator is no shape arithmetic, the node makes no sense, or the result is large.

    Args:
        node: a node of the default domain.
        inputs: the value of each input, None where it is left out.
        attributes: the attributes of the node as Python values.
        opset: version of the default domain.
    """
    try:
        if not _small(node.op_type, inputs):
            return None
        if (fn := DIRECT.get(node.op_type)) is None:
            return _by_reference(node, inputs, opset) if node.op_type in BY_REFERENCE else None
        with np.errstate(all="ignore"):
            out = fn(inputs, attributes)
    except MALFORMED:
        return None  # malformed: the runtime will say so, the analysis only has to be careful
    return None if out is None or _is_large(out) else [np.asarray(out)]


def _by_reference(node: onnx.NodeProto, inputs: Arrays, opset: int) -> list[np.ndarray] | None:
    feeds = {name: x for name, x in zip(node.input, inputs, strict=True) if name and x is not None}
    infos = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in feeds.items()
    ]
    outs = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
    graph = onnx.helper.make_graph([node], "node", infos, outs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        out = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # the evaluator has no common error; an unknown value only makes the analysis more careful
        return None
    return None if any(_is_large(x) for x in out) else [np.asarray(x) for x in out]


def _is_large(value: Any) -> bool:
    """Whether there are many elements, or room for many: an array without elements may have an axis of any length."""
    return np.size(value) > LARGEST or max(np.shape(value), default=0) > LARGEST


def _small(op_type: str, inputs: Arrays) -> bool:
    """Whether the result of an operator that can blow up its inputs stays below the cap."""
    if op_type in ("Expand", "Tile"):
        return inputs[0].size * math.prod(max(1, abs(int(v))) for v in inputs[1].ravel()) <= LARGEST
    if op_type == "Pad":
        return inputs[0].size + sum(abs(int(v)) for v in inputs[1].ravel()) <= LARGEST and inputs[0].ndim == 1
    if op_type == "Range":
        start, limit, delta = (float(np.asarray(x).ravel()[0]) for x in inputs[:3])
        return delta != 0 and abs(limit - start) <= LARGEST * abs(delta)
    if op_type == "Gather":
        return inputs[0].size * inputs[1].size <= LARGEST * max(1, inputs[0].shape[0] if inputs[0].ndim else 1)
    return math.prod(np.broadcast_shapes(*(x.shape for x in inputs))) <= LARGEST if op_type in BROADCAST else True


def _axes(x: Arrays, a: Mapping[str, Any]) -> tuple[int, ...] | None:
    given = a.get("axes", x[1] if len(x) > 1 else None)
    return None if given is None else tuple(int(v) for v in np.atleast_1d(given))


def _unsqueeze(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    axes = _axes(x, a)
    return None if axes is None else np.expand_dims(x[0], axes)


def _slice(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    data = x[0]
    if "starts" in a:
        starts, ends, axes, steps = a["starts"], a["ends"], a.get("axes"), None
    else:
        starts, ends, axes, steps = (*x[1:], None, None)[:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index: list[slice] = [slice(None)] * data.ndim
    for s, e, k, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if int(step) < 0 and int(e) < -data.shape[int(k)] else int(e)
        index[int(k)] = slice(int(s), stop, int(step))
    return data[tuple(index)]


def _constant_of_shape(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    shape = [int(v) for v in x[0]]
    if math.prod(shape) > LARGEST or any(not 0 <= v <= LARGEST for v in shape):
        return None
    value = onnx.numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    return np.full(shape, value.ravel()[0], value.dtype)


def _reshape(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    target = a.get("shape", x[1] if len(x) > 1 else None)
    if target is None:
        return None
    return x[0].reshape([x[0].shape[k] if v == 0 else int(v) for k, v in enumerate(target)])


def _divide(x: Arrays, _: Mapping[str, Any]) -> np.ndarray | None:
    a, b = x[0], x[1]
    if not np.issubdtype(a.dtype, np.integer):
        return a / b
    if not np.all(b):
        return None
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _cast(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    to = a.get("to")
    return None if isinstance(to, bytes) or to is None else x[0].astype(onnx.helper.tensor_dtype_to_np_dtype(int(to)))


def _concat(x: Arrays, a: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate(x, axis=a.get("axis", 1))


def _reduce(fn: Callable) -> Callable[[Arrays, Mapping[str, Any]], np.ndarray]:
    def reduced(x: Arrays, a: Mapping[str, Any]) -> np.ndarray:
        return np.asarray(fn(x[0], axis=_axes(x, a), keepdims=bool(a.get("keepdims", 1))), x[0].dtype)

    return reduced


def _pointwise(fn: Callable) -> Callable[[Arrays, Mapping[str, Any]], np.ndarray]:
    return lambda x, _: np.asarray(fn(*x))


# What exporters compute shapes with.
DIRECT: dict[str, Callable[[Arrays, Mapping[str, Any]], np.ndarray | None]] = {
    "Add": _pointwise(np.add),
    "Cast": _cast,
    "Ceil": _pointwise(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _pointwise(np.equal),
    "Floor": _pointwise(np.floor),
    "Gather": lambda x, a: np.take(x[0], x[1].astype(np.int64), axis=a.get("axis", 0)),
    "Greater": _pointwise(np.greater),
    "Identity": lambda x, _: x[0],
    "Less": _pointwise(np.less),
    "Max": lambda x, _: np.asarray(np.max(np.broadcast_arrays(*x), axis=0)),
    "Min": lambda x, _: np.asarray(np.min(np.broadcast_arrays(*x), axis=0)),
    "Mul": _pointwise(np.multiply),
    "Neg": _pointwise(np.negative),
    "Not": _pointwise(np.logical_not),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Sqrt": _pointwise(np.sqrt),
    "Squeeze": lambda x, a: np.squeeze(x[0], _axes(x, a)),
    "Sub": _pointwise(np.subtract),
    "Transpose": lambda x, a: np.transpose(x[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _pointwise(np.where),
}

BROADCAST = frozenset(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Where Xor".split()
)

BY_REFERENCE = frozenset(
    "Abs And Clip CumSum Expand Flatten GatherND GreaterOrEqual LessOrEqual Mod NonZero Or Pad Pow Range Round "
    "ScatterElements ScatterND Sign Split Tile Xor".split()
)
