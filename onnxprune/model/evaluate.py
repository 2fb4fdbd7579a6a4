"""Numpy values of the small nodes that compute shapes, so that the analysis knows what a Reshape is told.

Every result is capped in size before it is made: `ConstantOfShape` can ask for 2^34 elements in 72 bytes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from onnxprune.operators.registry import (
    LARGEST_VALUE,
    MALFORMED,
    Arrays,
    Operator,
    Trait,
    by_reference,
    operator_of,
    traits_of,
)


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
        if (row := operator_of(node)).value is None or not _is_small(row, traits_of(node), inputs):
            return None
        if row.value is by_reference:
            return _by_reference(node, inputs, opset)
        with np.errstate(all="ignore"):
            out = row.value(inputs, attributes)
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
    return np.size(value) > LARGEST_VALUE or max(np.shape(value), default=0) > LARGEST_VALUE


def _is_small(row: Operator, traits: Trait, inputs: Arrays) -> bool:
    """Whether the result of an operator that can blow up its inputs stays below the cap."""
    if row.small is not None:
        return row.small(inputs)
    shapes = [x.shape for x in inputs if x is not None]
    return not traits & Trait.ELEMENTWISE or math.prod(np.broadcast_shapes(*shapes)) <= LARGEST_VALUE
