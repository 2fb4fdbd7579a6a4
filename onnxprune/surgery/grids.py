"""Indices of ScatterND and GatherND, made anew in the pruned model from the positions on each axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Node
from onnxprune.surgery.draft import Draft


def made_grid(
    draft: Draft, source: Node, data: str, lines: Sequence[np.ndarray | None], told: Sequence[str]
) -> list[onnx.NodeProto]:
    """Nodes that sum up a grid of indices (n1, n2, ..., k) of one part for each axis; the last one gives it.

    Args:
        draft: takes the new names and tensors.
        source: the node that the indices are for.
        data: the name of what they pick from.
        lines: positions on each of the k axes; None where a value says them, and for all of an axis of open length.
        told: names of the values that say positions, "" for none.
    """
    nodes: list[onnx.NodeProto] = []

    def constant(array: np.ndarray | list[int] | int) -> str:
        return draft.add_initializer(source.path, f"{source.label}.grid", np.asarray(array, np.int64))

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        out = draft.fresh_name(f"{source.label}.{kind.lower()}.grid")
        nodes.append(helper.make_node(kind, inputs, [out], None, None, None, None, **attributes))
        return out

    count, parts = len(lines), list[str]()
    for axis, line in enumerate(lines):
        shape = [-1 if k == axis else 1 for k in range(count + 1)]
        column = np.asarray(np.arange(count) == axis, np.int64)
        if line is not None:
            parts.append(constant(line.reshape(shape) * column))
            continue
        if not (positions := told[axis]):
            length = add("Gather", add("Shape", data), constant(axis), axis=0)
            positions = add("Range", constant(0), length, constant(1))
        parts.append(add("Mul", add("Reshape", positions, constant(np.array(shape))), constant(column)))
    grid = parts[0]
    for part in parts[1:]:
        grid = add("Add", grid, part)
    return nodes if nodes else [helper.make_node("Identity", [grid], [draft.fresh_name(f"{source.label}.grid.out")])]
