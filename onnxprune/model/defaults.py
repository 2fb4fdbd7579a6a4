"""Tensors of a file that a caller may replace at run time: defaults of inputs."""

import onnx

from onnxprune.model.tensors import CUTTABLE


def overridable(model: onnx.ModelProto) -> frozenset[str]:
    """Initializers that a caller may replace: those listed as inputs since IR version 4.

    A file that lists all its weights so has it from its exporter's habit and means nothing by it; so with numbers that
    are no weights (flags, indices, sizes) where it lists all of its tensors.
    """
    tensors = {t.name: t.data_type in CUTTABLE for t in model.graph.initializer}
    listed = tensors.keys() & {v.name for v in model.graph.input}
    if model.ir_version < 4 or listed == tensors.keys():
        return frozenset()
    weights = {name for name, is_weight in tensors.items() if is_weight}
    return frozenset(listed - weights if weights <= listed else listed)
