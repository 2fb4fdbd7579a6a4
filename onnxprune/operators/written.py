"""Integer and fused layers as nodes of a layer of real numbers, with what goes before and behind it.

The tensors of the file keep their names: what is solved for the nodes holds for the layer that they stand for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.operators.registry import OPERATORS, attributes_of

Tensors = Mapping[str, onnx.TensorProto]  # of the file, by name
Nodes = tuple[list[onnx.NodeProto], onnx.TensorProto | None]  # and the scale of their bias


@dataclass(frozen=True)
class Written:
    """How a layer is written out.

    nodes: `(node, tensors)` → the nodes; the node itself where that cannot be done.
    opset: the oldest that has what they need.
    sums: whether the layer gives sums of integers, which nodes behind it multiply by a scale.
    """

    nodes: Callable[[onnx.NodeProto, Tensors], Nodes]
    opset: int = 13  # of DequantizeLinear with a scale for each channel
    sums: bool = False


def between_quantisers(
    node: onnx.NodeProto,
    tensors: Tensors,
    kind: str,
    factors: tuple[Sequence[str], Sequence[str], int],
    result: Sequence[str],
    bias: str,
    attributes: Mapping[str, Any],
) -> Nodes:
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


def in_steps_of_one(kind: str) -> Written:
    """A layer of integers in steps of one: what its sums are multiplied by stays what it is."""

    def layer(node: onnx.NodeProto, _: Tensors) -> Nodes:
        name, (x, w, *points) = node.output[0], node.input
        # One step for both inputs: a tensor that two take is solved for by neither.
        one = numpy_helper.from_array(np.array(1, np.float32), f"{name}.step")
        zeros = [[p] if p else [] for p in (*points, "", "")][:2]
        real = [f"{name}.x", f"{name}.w"]
        nodes = [
            helper.make_node("DequantizeLinear", [key, one.name, *zero], [out])
            for key, zero, out in zip((x, w), zeros, real, strict=True)
        ]
        return [*nodes, helper.make_node(kind, real, [name], name=node.name, **attributes_of(node))], one

    return Written(layer, sums=True)


def with_activation(kind: str) -> Written:
    """A layer, what is added to it, and its activation."""

    def layer(node: onnx.NodeProto, _: Tensors) -> Nodes:
        attributes = attributes_of(node)
        own = {k: v for k, v in attributes.items() if not k.startswith("activation")}
        then, numbers = attributes.get("activation", b"").decode(), attributes.get("activation_params", ())
        names = OPERATORS[then].fused_numbers if then in OPERATORS else None
        if (then and names is None) or len(names or ()) < len(numbers):
            return [node], None
        ends = [node.output[0]]
        inputs, plus = list(node.input[:3]), [n for n in node.input[3:4] if n]
        steps: Iterable[tuple[str, list[str], dict[str, Any]]] = [
            (kind, inputs, own),
            *[("Add", plus, {}) for _ in plus],
            *[(then, [], dict(zip(names or (), numbers, strict=False)))] * bool(then),
        ]
        nodes = list[onnx.NodeProto]()
        for k, (op, given, more) in enumerate(steps):
            before = [nodes[-1].output[0]] if nodes else []
            nodes.append(helper.make_node(op, [*before, *given], [f"{ends[0]}.{k}"], name=node.name * (k == 0), **more))
        nodes[-1].output[0] = ends[0]
        return nodes, None

    return Written(layer, opset=1)
