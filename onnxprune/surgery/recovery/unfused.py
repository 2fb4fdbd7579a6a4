"""Integer and fused layers written out as a layer of real numbers with what goes before and behind it, to be solved.

The tensors of the file keep their names: what is solved for the written out network holds for the original.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.static import attributes_of, opset_of
from onnxprune.surgery.recovery.network import taken

LEAST_OPSET = 13  # of DequantizeLinear with a scale for each channel
FLOAT = onnx.TensorProto.FLOAT


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the integer and fused layers of the main graph are written out; the model where it has none."""
    known = {kind: fn for kind, fn in LAYERS.items() if kind in FUSED or opset_of(model) >= LEAST_OPSET}
    if not any(node.op_type in known for node in model.graph.node):
        return model
    out = onnx.ModelProto()
    out.CopyFrom(model)
    tensors = {t.name: t for t in model.graph.initializer}
    sums = _sums(model.graph)
    del out.graph.node[:]
    for node in model.graph.node:
        layer = known.get(node.op_type)
        whole = layer is None or (node.op_type in INTEGER and not _is_plain(node, tensors, sums))
        nodes, scale = ([node], None) if layer is None or whole else layer(node, tensors)
        out.graph.node.extend(nodes)
        if scale is not None:
            out.graph.initializer.append(scale)
    for value in [v for v in out.graph.value_info if v.name in sums]:
        out.graph.value_info.remove(value)  # they are no integers any more
    return out


def _sums(graph: onnx.GraphProto) -> frozenset[str]:
    """Sums of products of integers that are made real numbers at once, by all that take them."""
    outputs, readers = {v.name for v in graph.output}, dict[str, list[bool]]()
    for node in graph.node:
        for name in taken(node):
            readers.setdefault(name, []).append(node.op_type == "Cast" and attributes_of(node).get("to") == FLOAT)
    made = (name for node in graph.node if node.op_type in INTEGER for name in node.output)
    return frozenset(name for name in made if name not in outputs and all(readers.get(name, [False])))


def _is_plain(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], sums: Collection[str]) -> bool:
    """Whether an integer layer is one of real numbers as well, with one zero point for all weights and all data."""
    points = [name for name in node.input[2:4] if name]
    single = all(name not in tensors or not tensors[name].dims or list(tensors[name].dims) == [1] for name in points)
    held = all(name in tensors for name in node.input[3:4] if name)
    return node.output[0] in sums and node.input[1] in tensors and single and held


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


def _integer(kind: str) -> Callable[..., Written]:
    """A layer of integers in steps of one: what its sums are multiplied by stays what it is."""

    def layer(node: onnx.NodeProto, _: Mapping[str, onnx.TensorProto]) -> Written:
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

    return layer


def _fused(kind: str) -> Callable[..., Written]:
    """A layer, what is added to it, and its activation."""

    def layer(node: onnx.NodeProto, _: Mapping[str, onnx.TensorProto]) -> Written:
        attributes = attributes_of(node)
        own = {k: v for k, v in attributes.items() if not k.startswith("activation")}
        then, numbers = attributes.get("activation", b"").decode(), attributes.get("activation_params", ())
        names = ACTIVATIONS.get(then)
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

    return layer


ACTIVATIONS = {  # of fused layers, with the names of their numbers
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
}
INTEGER = frozenset({"ConvInteger", "MatMulInteger"})
FUSED = frozenset({"FusedConv", "FusedGemm"})
LAYERS: dict[str, Callable[[onnx.NodeProto, Mapping[str, onnx.TensorProto]], Written]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _product,
    "QGemm": _gemm,
    "ConvInteger": _integer("Conv"),
    "MatMulInteger": _integer("MatMul"),
    "FusedConv": _fused("Conv"),
    "FusedGemm": _fused("Gemm"),
}
