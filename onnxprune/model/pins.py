"""Lengths that the weights of layers fix, whatever the sizes of the inputs."""

from collections.abc import Iterator

import onnx

from onnxprune.model.shapes import attributes_of
from onnxprune.model.statics import Statics
from onnxprune.operators.registry import Taken, Trait, has, operator_of


def pins(statics: Statics) -> frozenset[tuple[str, int]]:
    """Axes that layers of the outermost graph sum over with weights of the file: (value, axis)."""
    return frozenset(pin for node in statics.skeleton.graph.node for pin in _pins(statics, node))


def _pins(statics: Statics, node: onnx.NodeProto) -> Iterator[tuple[str, int]]:
    if len(node.input) < 2 or not has(node, Trait.LINEAR):
        return
    data, weight = node.input[:2]
    ranks = {len(s.shapes[data]) for s in (statics, *statics.others, *statics.edges) if data in s.shapes}
    if weight not in statics.tensors or len(statics.shapes.get(weight, ())) < 2 or len(ranks) != 1:
        return
    row, rank = operator_of(node), ranks.pop()
    if row.channel is not None:
        yield data, row.channel
    elif row.contracts is not None:
        taken = Taken(attributes_of(node), [statics.shapes.get(key) for key in node.input], lambda _: None)
        yield from ((data, axis) for axis in row.contracts(taken, 0, rank))
