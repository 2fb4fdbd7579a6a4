"""Shapes of operators that onnx's own inference does not know: of onnxruntime, and of early Windows exports."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from onnxprune.operators.registry import FLOAT, Alike, Shape, Trait, operator_of, traits_of


def stand_in(node: onnx.NodeProto, opset: int) -> onnx.NodeProto | None:
    """A node of a standard operator whose output has the same shape; None where there is none."""
    known = operator_of(node).shape
    if not isinstance(known, Alike) or any(k >= len(node.input) or not node.input[k] for k in known.inputs):
        return None
    copy = onnx.helper.make_node(known.standard, [node.input[k] for k in known.inputs], [node.output[0]])
    allowed = onnx.defs.get_schema(known.standard, opset, "").attributes
    copy.attribute.extend(a for a in node.attribute if a.name in allowed)
    return copy


def channels_last(node: onnx.NodeProto) -> bool:
    """Whether the first input of a pool has its channels at the end."""
    told = any(a.name == "channels_last" and a.i for a in node.attribute)
    return told or bool(traits_of(node) & Trait.CHANNELS_LAST)


def type_of(node: onnx.NodeProto, types: Sequence[int | None]) -> int | None:
    """Element type of the outputs, from those of the inputs."""
    typed_by = operator_of(node).typed_by
    k = typed_by if isinstance(typed_by, int) else typed_by(node)
    if k == FLOAT:
        return int(onnx.TensorProto.FLOAT)
    return types[k] if k < len(types) else None


def shapes_of(
    node: onnx.NodeProto, shapes: Sequence[Shape | None], attributes: Mapping[str, Any]
) -> list[Shape | None]:
    """Shapes of the outputs, as far as they are known, of operators that are like no standard one.

    Args:
        node: any node.
        shapes: of its inputs, None where left out or unknown.
        attributes: of the node, as Python values.
    """
    known = operator_of(node).shape
    if known is None or isinstance(known, Alike) or not shapes or shapes[0] is None:
        return []
    try:
        return known(shapes, attributes)
    except (IndexError, KeyError, TypeError):  # an input that the shape needs is left out or unknown
        return []
