"""Numbers that sizes are compared with: on the other side of one, a network computes other lengths."""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.registry import Shape, Trait, has

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
        if has(node, Trait.SLICES):
            yield from (name for name in node.input[1:3] if name not in sampled)
        elif has(node, Trait.COMPARES) and any(name in sampled for name in node.input):
            yield from (name for name in node.input if name and name not in sampled)


def beyond(limits: set[int], size: int) -> int:
    """A size on the other side of all limits than 1 is, also where an eighth of it is compared; none of its factors."""
    return 8 * max(limits, default=0) + 4 * size + 1


def shortened(
    graph: onnx.GraphProto,
    constants: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    is_open: Callable[[str, int], bool],
) -> list[Fraction]:
    """Shares of the sizes of the inputs at which slices come out shorter than their bounds: the largest, the smallest.

    Args:
        graph: its top is looked at.
        constants, shapes: known values and shapes by name.
        is_open: whether the length of an axis of a value hangs on sizes that the model leaves open.
    """
    found = set()
    for node in graph.node:
        shape = shapes.get(node.input[0]) if has(node, Trait.SLICES) and node.input else None
        if shape is None:
            continue
        for axis, start, end in _slices(node, constants):
            bound = max(v for v in (start, end) if v < HIGHEST)
            inside = -len(shape) <= axis < len(shape) and 1 < bound <= shape[axis]
            if inside and is_open(node.input[0], axis % len(shape)):
                found.add(Fraction(bound - 1, shape[axis]))
    return sorted({max(found), min(found)}, reverse=True) if found else []


def _slices(node: onnx.NodeProto, constants: Mapping[str, Any]) -> Iterator[tuple[int, int, int]]:
    """Axes of a Slice with its bounds, as far as they are known."""
    told = {a.name: list(a.ints) for a in node.attribute} | {
        name: [int(v) for v in np.ravel(constants[given])]
        for name, given in zip(("starts", "ends", "axes"), node.input[1:4], strict=False)
        if given in constants
    }
    if "starts" in told and "ends" in told:
        axes = told.get("axes", range(len(told["starts"])))
        yield from zip(axes, told["starts"], told["ends"], strict=False)
