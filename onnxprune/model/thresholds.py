"""Numbers that sizes are compared with: on the other side of one, a network computes other lengths."""

from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from onnxprune.operators.registry import Trait, has

FEW = 8  # elements of a tensor of bounds
HIGHEST = 1 << 16  # what is larger stands for "to the end"


def thresholds(graph: onnx.GraphProto, constants: Mapping[str, Any], sampled: frozenset[str]) -> set[int]:
    """Whole numbers over 1 that shape arithmetic compares sizes with, or shifts them by, and bounds of slices.

    Args:
        graph: its top is looked at.
        constants: known values by name.
        sampled: those among them that follow from the shape of a value.
    """
    found = (value for name in _bounds(graph, sampled) if (value := constants.get(name)) is not None)
    small = (abs(float(v)) for value in found if value.size <= FEW and value.dtype.kind in "iuf" for v in value.flat)
    return {int(v) for v in small if 1 < v < HIGHEST}


def _bounds(graph: onnx.GraphProto, sampled: frozenset[str]) -> Iterator[str]:
    for node in graph.node:
        if node.op_type == "Slice":
            yield from (name for name in node.input[1:3] if name not in sampled)
        elif has(node, Trait.COMPARES) and any(name in sampled for name in node.input):
            yield from (name for name in node.input if name and name not in sampled)


def beyond(limits: set[int], size: int) -> int:
    """A size on the other side of all limits than 1 is, also where an eighth of it is compared; none of its factors."""
    return 8 * max(limits, default=0) + 4 * size + 1
