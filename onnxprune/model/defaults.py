"""Tensors of a file that a caller may replace at run time: defaults of inputs."""

import math
from collections.abc import Iterable

import onnx

from onnxprune.model.graphs import constants_of
from onnxprune.model.tensors import CUTTABLE


def overridable(model: onnx.ModelProto) -> frozenset[str]:
    """Initializers that a caller may replace: those listed as inputs since IR version 4.

    A file that lists all its weights so has it from its exporter's habit and means nothing by it; so with numbers that
    are no weights (flags, indices, sizes) where it lists all of its tensors.  No such habit is seen in what is listed
    where most of the weights stand in Constant nodes.
    """
    tensors = {t.name: t.data_type in CUTTABLE for t in model.graph.initializer}
    listed = tensors.keys() & {v.name for v in model.graph.input}
    if model.ir_version < 4 or not listed:
        return frozenset()
    weights = {name for name, is_weight in tensors.items() if is_weight}
    held = _elements(tensor for _, tensor in constants_of(model.graph))
    if not weights <= listed or held > _elements(model.graph.initializer):
        return frozenset(listed)
    return frozenset() if listed == tensors.keys() else frozenset(listed - weights)


def _elements(tensors: Iterable[onnx.TensorProto]) -> int:
    """Of all weights together."""
    return sum(math.prod(t.dims) for t in tensors if t.data_type in CUTTABLE)
