"""Weights that the graph computes by statistics over weights, or looks up in a table, become tensors of the file.

A norm over the fan-in of a filter (weight standardisation) would change with every input channel that goes, though what
it gives is constant; and no entry of a codebook stands for a channel.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.graphs import refill
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.session import make_session
from onnxprune.surgery.tidy import drop_unused


def folded(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy of the model with such weights as initializers.

    None where there are none that onnxruntime can compute, or where they would take more bytes than what they come of.
    """
    names = list(dict.fromkeys(_computed(model))) if model.ir_version >= 4 else []
    if not names:
        return None
    try:
        arrays = make_session(_only(model, names), providers="cpu").run({})
    except ModelError:  # the analysis will find what can be done without
        return None
    out = onnx.ModelProto()
    out.CopyFrom(model)
    refill(out.graph.node, [node for node in out.graph.node if not set(node.output) & set(names)])
    out.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(arrays[name]), name) for name in names)
    drop_unused(out, model)
    return out if _weight(out) <= _weight(model) else None


def _weight(model: onnx.ModelProto) -> int:
    """Bytes of the tensors of a model, those of Constant nodes among them."""
    constants = (a.t for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
    return sum(tensor.ByteSize() for tensor in (*model.graph.initializer, *constants))


def _computed(model: onnx.ModelProto) -> Iterator[str]:
    """Weights of layers that statistics over tensors of the file alone, or codes, have gone into."""
    constant = {t.name for t in model.graph.initializer} - {v.name for v in model.graph.input}
    codes = {t.name for t in model.graph.initializer if len(t.dims) > 1}
    taken: set[str] = set()  # of these, what statistics have gone into
    single: set[str] = set()
    for node in model.graph.node:
        plain = not any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute) and not has(node, Trait.RANDOM)
        if node.op_type == "Constant" or (plain and node.input and all(not k or k in constant for k in node.input)):
            constant |= set(node.output)
            looks_up = has(node, Trait.LOOKS_UP) and node.input[1] in codes
            taken |= set(node.output) if has(node, Trait.STATISTICS) or looks_up or taken & set(node.input) else set()
            single |= set(node.output) if len(node.output) == 1 else set()
        elif has(node, Trait.LINEAR) and len(node.input) > 1 and node.input[1] in taken & single:
            yield node.input[1]


def _only(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The part of a model that computes these values from tensors of the file."""
    wanted, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(filter(None, node.input))
    graph = onnx.GraphProto(name="weights", node=nodes[::-1])
    graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
