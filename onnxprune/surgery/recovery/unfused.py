"""Integer layers written out as a layer of real numbers between DequantizeLinear and QuantizeLinear, to be solved.

The tensors of the file keep their names: what is solved for the written out network holds for the original.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.static import attributes_of, opset_of

LEAST_OPSET = 13  # of DequantizeLinear with a scale for each channel


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the integer layers of the main graph are written out; the model itself where it has none."""
    if opset_of(model) < LEAST_OPSET or not any(node.op_type in LAYERS for node in model.graph.node):
        return model
    out = onnx.ModelProto()
    out.CopyFrom(model)
    tensors = {t.name: t for t in model.graph.initializer}
    del out.graph.node[:]
    for node in model.graph.node:
        layer = LAYERS.get(node.op_type)
        nodes, scale = layer(node, tensors) if layer is not None else ([node], None)
        out.graph.node.extend(nodes)
        if scale is not None:
            out.graph.initializer.append(scale)
    return out


def written_out(
    model: onnx.ModelProto, deps: Dependencies, analyse: Callable[[onnx.ModelProto], Dependencies]
) -> tuple[onnx.ModelProto, Dependencies]:
    """The network with its integer layers written out, and its analysis; both as they are where the groups differ."""
    written = unfused(model)
    if written is not model and alike(deps, analysed := analyse(written)):
        return written, analysed
    return model, deps


def alike(deps: Dependencies, other: Dependencies) -> bool:
    """Whether two analyses have the same groups, channel by channel."""
    pairs = zip(deps.groups, other.groups, strict=False)
    return len(deps.groups) == len(other.groups) and all(
        (a.name, len(a)) == (b.name, len(b)) and np.array_equal(a.writers[0].positions, b.writers[0].positions)
        for a, b in pairs
    )


Written = tuple[list[onnx.NodeProto], onnx.TensorProto | None]  # nodes, and the scale of their bias


def _conv(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> Written:
    x, w, y = node.input[:3], node.input[3:6], node.input[6:8]
    return _written(node, tensors, "Conv", (x, w, 0), y, [*node.input[8:9], ""][0], attributes_of(node))


def _product(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> Written:
    return _written(node, tensors, "MatMul", (node.input[:3], node.input[3:6], 1), node.input[6:8], "", {})


def _gemm(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> Written:
    a, b, (bias, *y) = node.input[:3], node.input[3:6], [*node.input[6:], "", "", ""][:3]
    attributes = attributes_of(node)
    axis = 0 if attributes.get("transB", 0) else 1
    return _written(node, tensors, "Gemm", (a, b, axis), [n for n in y if n], bias, attributes)


def _written(
    node: onnx.NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    kind: str,
    factors: tuple[Sequence[str], Sequence[str], int],
    result: Sequence[str],
    bias: str,
    attributes: Mapping[str, Any],
) -> Written:
    """The nodes of a layer of real numbers between its quantisers; the node itself where a scale is computed.

    Args:
        factors: (value, scale, zero point) of the data and of the weights, and the axis of the latter's scales.
        result: scale and zero point of the output; empty where it is real.
    """
    (x, w, axis), name = factors, node.output[0]
    if x[1] not in tensors or w[1] not in tensors or w[0] not in tensors:
        return [node], None
    real = [f"{name}.x", f"{name}.w", *([f"{name}.b"] if bias else [])]
    nodes = [
        helper.make_node("DequantizeLinear", list(x), real[:1]),
        helper.make_node("DequantizeLinear", list(w), real[1:2], axis=axis),
    ]
    scale = None
    if bias:
        steps = numpy_helper.to_array(tensors[x[1]]) * numpy_helper.to_array(tensors[w[1]])
        scale = numpy_helper.from_array(np.asarray(steps), f"{name}.b.scale")
        nodes.append(helper.make_node("DequantizeLinear", [bias, scale.name], real[2:], axis=0))
    end = f"{name}.y" if result else name
    nodes.append(helper.make_node(kind, real, [end], name=node.name, **attributes))
    if result:
        nodes.append(helper.make_node("QuantizeLinear", [end, *result], [name]))
    return nodes, scale


LAYERS: dict[str, Callable[[onnx.NodeProto, Mapping[str, onnx.TensorProto]], Written]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _product,
    "QGemm": _gemm,
}
