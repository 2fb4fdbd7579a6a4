"""Shapes node by node, where the inference of whole graphs has left them open."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

from onnxprune.model.graphs import DEFAULT
from onnxprune.model.skeleton import LONGEST
from onnxprune.model.statics import Statics
from onnxprune.operators.registry import Alike, Shape, Trait, attributes_of, has, operator_of

EIGHT_BIT = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


def sizes_given(node: onnx.NodeProto, axes: Any, whole: Callable[[Any], Any]) -> Any:
    """What a Shape node gives of something that is known of each axis; a Size node, what `whole` makes of all axes."""
    if has(node, Trait.COUNTS):
        return whole(axes)
    told = attributes_of(node)
    return axes[told.get("start", 0) : told.get("end", len(axes))]


def note_type(key: str, type_: onnx.TypeProto, statics: Statics) -> None:
    """Take over what is known of the type of a value."""
    if not type_.HasField("tensor_type"):
        return
    tensor = type_.tensor_type
    if tensor.elem_type:
        statics.types[key] = tensor.elem_type
    dims = tensor.shape.dim[:]
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims):
        return
    shape = tuple(d.dim_value for d in dims)
    if max(shape, default=0) <= LONGEST:
        statics.shapes[key] = shape
    else:
        statics.huge = max(statics.huge, math.prod(shape))


def infer_node(node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int) -> None:
    """Shapes of the outputs of one node where whole-graph inference left them open."""
    missing = [name for name in node.output[:] if name and path + name not in statics.shapes]
    if not missing:
        return
    if node.domain in DEFAULT:
        _infer_standard(node, dict(zip(node.input, keys, strict=True)), path, statics, opset)
    if any(path + name not in statics.shapes for name in missing):
        _infer_contrib(node, keys, path, statics, opset)


def _infer_contrib(node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int) -> None:
    """Shapes of operators that onnx's inference does not know."""
    dtype = _type_of(node, [statics.types.get(key) for key in keys])
    if (copy := _stand_in(node, opset)) is not None:
        last = has(node, Trait.CHANNELS_LAST) or bool(attributes_of(node).get("channels_last"))
        _infer_standard(copy, dict(zip(node.input, keys, strict=True)), path, statics, opset, EIGHT_BIT, last)
    else:
        found = _shapes_of(node, [statics.shapes.get(key) for key in keys], attributes_of(node))
        for name, shape in zip(node.output, found, strict=False):
            if name and shape is not None and all(0 <= n <= LONGEST for n in shape):
                statics.shapes[path + name] = tuple(map(int, shape))
    if dtype is not None:
        statics.types.update({path + name: dtype for name in node.output if name and path + name in statics.shapes})


def _infer_standard(
    node: onnx.NodeProto,
    keys: Mapping[str, str],
    path: str,
    statics: Statics,
    opset: int,
    floats: frozenset[int] = frozenset(),
    channels_last: bool = False,
) -> None:
    """Shapes by the operator's own inference, from those of its inputs; its channels may be at the end.

    Inputs whose type is among `floats` are taken for float, which the standard operator wants.
    """
    keys = {name: keys[name] for name in node.input[:] if name}
    if not all(key in statics.shapes and key in statics.types for key in keys.values()):
        return
    shapes = {name: statics.shapes[key] for name, key in keys.items()}
    if channels_last:
        x = shapes[node.input[0]]
        shapes[node.input[0]] = (x[0], x[-1], *x[1:-1])
    given = {n: onnx.TensorProto.FLOAT if statics.types[k] in floats else statics.types[k] for n, k in keys.items()}
    known = {name: statics.constants[key] for name, key in keys.items() if key in statics.constants}
    data = {name: value for name, value in known.items() if value.dtype.kind != "O"}
    found = statics.inference.of_node(node, opset, {name: (given[name], shapes[name]) for name in keys}, data)
    for name, type_ in found.items():
        if path + name not in statics.shapes:
            note_type(path + name, type_, statics)
            if channels_last and (y := statics.shapes.get(path + name)) is not None:
                statics.shapes[path + name] = (y[0], *y[2:], y[1])


# --- operators that onnx does not know ---------------------------------------


def _stand_in(node: onnx.NodeProto, opset: int) -> onnx.NodeProto | None:
    """A node of a standard operator whose output has the same shape; None where there is none."""
    known = operator_of(node).shape
    if not isinstance(known, Alike) or any(k >= len(node.input) or not node.input[k] for k in known.inputs):
        return None
    copy = onnx.helper.make_node(known.standard, [node.input[k] for k in known.inputs], [node.output[0]])
    allowed = onnx.defs.get_schema(known.standard, opset, "").attributes
    copy.attribute.extend(a for a in node.attribute if a.name in allowed)
    return copy


def _type_of(node: onnx.NodeProto, types: Sequence[int | None]) -> int | None:
    """Element type of the outputs, from those of the inputs."""
    typed_by = operator_of(node).typed_by
    k = typed_by if isinstance(typed_by, int) else typed_by(node)
    if k < 0:
        return -k
    return types[k] if k < len(types) else None


def _shapes_of(
    node: onnx.NodeProto, shapes: Sequence[Shape | None], attributes: Mapping[str, Any]
) -> list[Shape | None]:
    """Shapes of the outputs, as far as they are known, of operators that are like no standard one."""
    known = operator_of(node).shape
    if known is None or isinstance(known, Alike) or not shapes or shapes[0] is None:
        return []
    try:
        return known(shapes, attributes)
    except (IndexError, KeyError, TypeError):  # an input that the shape needs is left out or unknown
        return []
