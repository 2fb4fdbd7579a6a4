"""Where to look besides the outputs: before operators that saturate or decide, a difference still shows.

A Softmax that is sure of itself gives the same numbers for very different logits, an ArgMax even more so.
The values that such operators take, between the last weighted layer and the outputs, are compared as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

# Flat at one end or both, with values of at most about 1: their error is a share of that range, not of the value.
BOUNDED = {"Sigmoid", "HardSigmoid", "Tanh", "Softmax", "LogSoftmax", "Softsign", "Erf"}

# A rounding error next to a threshold becomes a whole step, another index, another number of boxes.
DECIDING = {
    *("ArgMax", "ArgMin", "TopK", "Hardmax", "NonMaxSuppression", "NonZero", "Unique", "Bernoulli", "Multinomial"),
    *("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual", "Round", "Floor", "Ceil", "Sign", "Mod"),
    *("QuantizeLinear", "DynamicQuantizeLinear", "BitShift"),
}

# Zero or constant over a wide range: may answer all zeros to random input.
CUTTING = {"Relu", "Clip", "ThresholdedRelu", "HardSwish", "Min", "Max"}

# The values only change place on the way through these.
MOVING = {
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Gather"),
    *("Expand", "Pad", "Tile", "DepthToSpace", "SpaceToDepth", "Cast", "Dropout", "DequantizeLinear"),
}

# Layers with weights end the way back: what lies before them is not judged through the outputs' nodes.
WEIGHTED = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention", "DeformConv"),
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "If", "Loop", "Scan"),
}

QUANTIZING = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger"}
QUANTIZING |= {"MatMulInteger", "QLinearAdd", "DequantizeLinear"}

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Taps:
    """Inner values to compare, and what is to be expected of the outputs.

    `bounded`: outputs (and taps) that a saturating operator has squeezed into about ±1; `decided`: those that
    an operator has rounded or chosen; `quantized`: the graph rounds inner values to integers; `rounds`: it does
    so by QuantizeLinear followed by DequantizeLinear, which can be left out.
    """

    names: tuple[str, ...] = ()
    bounded: frozenset[str] = frozenset()
    decided: frozenset[str] = frozenset()
    quantized: bool = False
    rounds: bool = False


def find_taps(model: onnx.ModelProto) -> Taps:
    """Walk back from each output of `model` to its last weighted layers, and note what lies between."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output if name}
    fixed = _fixed(graph)
    outputs = {o.name for o in graph.output}
    names: dict[str, None] = {}
    bounded, decided = set(), set()
    for output in graph.output:
        for node, direct in _trail(output.name, producer, fixed):
            deciding = node.op_type in DECIDING or _truncates(node)
            if deciding:
                decided.add(output.name)
            if direct and node.op_type in BOUNDED:
                bounded.add(output.name)
            if deciding or node.op_type in BOUNDED or (direct and node.op_type in CUTTING):
                names |= dict.fromkeys(i for i in node.input if i in producer and i not in fixed and i not in outputs)
    for name in names:
        for node, direct in _trail(name, producer, fixed):
            if direct and node.op_type in BOUNDED:
                bounded.add(name)
            if node.op_type in DECIDING or _truncates(node):
                decided.add(name)
    quantized = any(node.op_type in QUANTIZING for node in graph.node)
    codes = {node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    rounds = any(node.op_type == "DequantizeLinear" and node.input[0] in codes for node in graph.node)
    return Taps(tuple(names), frozenset(bounded), frozenset(decided), quantized, rounds)


def _trail(name: str, producer: dict[str, onnx.NodeProto], fixed: set[str]) -> Iterable[tuple[onnx.NodeProto, bool]]:
    """The nodes on the ways back from `name` to weighted layers; with each, whether only `MOVING` ones follow it."""
    todo, seen = [(name, True)], set()
    while todo:
        value, direct = todo.pop()
        node = producer.get(value)
        if node is None or value in fixed or (value, direct) in seen or node.op_type in WEIGHTED:
            continue
        seen.add((value, direct))
        yield node, direct
        follows = direct and node.op_type in MOVING and not _truncates(node)
        todo += [(i, follows) for i in node.input if i]


def _fixed(graph: onnx.GraphProto) -> set[str]:
    """Values that depend on weights and shapes alone, such as the target of a Reshape: nothing to compare there."""
    fixed = {t.name for t in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or all(i in fixed for i in node.input if i):
            fixed.update(node.output)
    return fixed


def _truncates(node: onnx.NodeProto) -> bool:
    """Whether a node is a Cast to something that is no float."""
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") not in _FLOATS
