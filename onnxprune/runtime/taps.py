"""Where to look besides the outputs: before operators that saturate or decide, a difference still shows.

A Softmax that is sure of itself gives the same numbers for very different logits, an ArgMax even more so.
The values that such operators take, between the last weighted layer and the outputs, are compared as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

# Flat at one end or both, with values of at most about 1: their error is a share of that range, not of the value.
BOUNDED = {"Sigmoid", "HardSigmoid", "Tanh", "Softmax", "LogSoftmax", "Softsign", "Erf"}

# Their gates are such operators, too, and their states add up what these give.
RECURRENT = {"LSTM", "GRU", "RNN"}

# A rounding error next to a threshold becomes a whole step, another index, another number of boxes.
DECIDING = {
    *("ArgMax", "ArgMin", "TopK", "Hardmax", "NonMaxSuppression", "NonZero", "Unique", "Bernoulli", "Multinomial"),
    *("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual", "Round", "Floor", "Ceil", "Sign", "Mod"),
    *("QuantizeLinear", "DynamicQuantizeLinear", "BitShift"),
}

# Zero or constant over a wide range: may answer all zeros to random input.
CUTTING = {"Relu", "Clip", "ThresholdedRelu", "HardSwish", "Min", "Max"}

# The values only change place on the way through these, or are averaged, which leaves their range as it is.
MOVING = {
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Split", "Slice", "Gather"),
    *("Expand", "Pad", "Tile", "DepthToSpace", "SpaceToDepth", "Cast", "Dropout", "DequantizeLinear", "Resize"),
    *("ReduceMean", "ReduceMax", "ReduceMin", "AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool"),
}

# Layers with weights end the way back: what lies before them is not judged through the outputs' nodes.
WEIGHTED = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention", "DeformConv"),
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "If", "Loop", "Scan"),
}

QUANTIZING = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger"}
QUANTIZING |= {"MatMulInteger", "QLinearAdd", "DequantizeLinear"}

VALUES_FIRST = {"TopK"}  # gives the values before the decision that picked them

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Taps:
    """Inner values to compare, and what is to be expected of the outputs.

    `bounded`: outputs (and taps) that a saturating operator has squeezed into about ±1; `decided`: those that
    an operator has rounded or chosen; `quantized`: the graph rounds inner values to integers. `decisions` are all
    values at the top of the graph that an operator has rounded or chosen, with the values that it took for that;
    `layers` are those that weighted layers give; `fixed` outputs depend on no input. `before` names the taps of each
    output.
    """

    names: tuple[str, ...] = ()
    bounded: frozenset[str] = frozenset()
    decided: frozenset[str] = frozenset()
    quantized: bool = False
    decisions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scope:
    """What a name means in a graph: the node that gives it (of an outer graph, too), and what depends on no input."""

    producer: dict[str, onnx.NodeProto]
    fixed: set[str]

    def inside(self, graph: onnx.GraphProto) -> "_Scope":
        """The scope of a branch, which sees the values around it."""
        return _Scope(self.producer | _producers(graph.node), self.fixed | depends_on_shapes_alone(graph, self.fixed))


def find_taps(model: onnx.ModelProto) -> Taps:
    """Walk back from each output of `model` to its last weighted layers, and note what lies between."""
    graph = model.graph
    scope = _Scope(_producers(graph.node), depends_on_shapes_alone(graph))
    bodies = {(f.domain, f.name): f for f in model.functions}
    outputs = {o.name for o in graph.output}
    before: dict[str, dict[str, None]] = {name: {} for name in outputs}
    for name in outputs:
        for node, direct in _trail(name, scope, bodies):
            if _decides(node) or node.op_type in BOUNDED or (direct and node.op_type in CUTTING):
                before[name] |= {i: None for i in node.input if i in scope.producer and i not in scope.fixed | outputs}
    names = {tap for taps in before.values() for tap in taps}
    trails = {name: list(_trail(name, scope, bodies)) for name in [*outputs, *names]}
    return Taps(
        tuple(n for node in graph.node for n in node.output if n in names),
        frozenset(
            n for n, trail in trails.items() if any(d and node.op_type in BOUNDED | RECURRENT for node, d in trail)
        ),
        frozenset(n for n, trail in trails.items() if any(_decides(node) for node, _ in trail)),
        any(node.op_type in QUANTIZING for node in graph.node),
        _decisions(graph, scope),
        tuple(n for node in graph.node if node.op_type in WEIGHTED for n in node.output if n and n not in scope.fixed),
        frozenset(outputs & scope.fixed),
        {name: tuple(taps) for name, taps in before.items()},
    )


def _decisions(graph: onnx.GraphProto, scope: _Scope) -> dict[str, tuple[str, ...]]:
    """What operators at the top of a graph have rounded or chosen, and what they took that depends on its inputs."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if _decides(node) or node.op_type.startswith("QLinear") or node.op_type == "QGemm":
            took = tuple(i for i in node.input if i in scope.producer and i not in scope.fixed)
            chosen = node.output[1:] if node.op_type in VALUES_FIRST else node.output
            found |= {name: took for name in chosen if name and name not in scope.fixed}
    return found


def _producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    return {name: node for node in nodes for name in node.output if name}


def _trail(
    name: str, scope: _Scope, bodies: Mapping[tuple[str, str], onnx.FunctionProto]
) -> Iterator[tuple[onnx.NodeProto, bool]]:
    """The nodes on the ways back from `name` to weighted layers; with each, whether only `MOVING` ones follow it.

    The branches of an If and the bodies of local functions are walked as well, from the output in question.
    """
    todo, seen = [(name, True, scope)], set()
    while todo:
        value, direct, at = todo.pop()
        node = at.producer.get(value)
        if node is None or value in at.fixed or (value, direct, id(at)) in seen:
            continue
        seen.add((value, direct, id(at)))
        position = list(node.output).index(value)
        body = bodies.get((node.domain, node.op_type))
        if node.op_type == "If":
            branches = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            whole = [g for g in branches if position < len(g.output)]
            todo += [(g.output[position].name, direct, at.inside(g)) for g in whole]
        elif body is not None and position < len(body.output):
            todo.append((body.output[position], direct, _Scope(_producers(body.node), set())))
        elif node.op_type in RECURRENT:
            yield node, direct
        elif node.op_type not in WEIGHTED:
            yield node, direct
            todo += [(i, direct and node.op_type in MOVING and not _decides(node), at) for i in node.input if i]


def depends_on_shapes_alone(graph: onnx.GraphProto, known: Iterable[str] = ()) -> set[str]:
    """Values that depend on weights and shapes alone, such as the target of a Reshape: nothing to compare there."""
    fixed = {t.name for t in graph.initializer} | set(known)
    for node in graph.node:
        if node.op_type in ("Shape", "Size") or (node.op_type != "If" and all(i in fixed for i in node.input if i)):
            fixed.update(node.output)
    return fixed


def _decides(node: onnx.NodeProto) -> bool:
    """Whether a node rounds or chooses; a Cast does when it goes to something that is no float."""
    cast = node.op_type == "Cast" and any(a.name == "to" and a.i not in _FLOATS for a in node.attribute)
    return cast or node.op_type in DECIDING
