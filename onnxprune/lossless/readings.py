"""Layers as readers: the channels that they take in, the weights for them, and where a bias would stand."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies, Node
from onnxprune.lossless.propagate import Knowledge
from onnxprune.operators.facts import Facts, NothingKnown, Shape, along, reduced
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.registry import Trait, attributes_of, has, operator_of
from onnxprune.operators.sums import touches_padding
from onnxprune.surgery.recovery.solvable import FLOATS, Bias, Finder, linear_of


@dataclass(frozen=True)
class ReaderWeights:
    """How a layer with weights of its own, or computed from some, reads the channels of its input.

    node: among those of the network, in bodies too.
    labels: (inputs,), of the channels that it reads.
    weights: (parts, outputs, inputs / parts, taps).
    facts: (inputs,), of the input.
    takes_constants: whether every output sees every tap of the kernel, so that a constant is a bias.
    merges: whether its weights can be changed, in the tensor of the file that they stand in or are moved from.
    place: of the weights among the inputs of the node.
    """

    node: int
    labels: Labels
    weights: np.ndarray
    facts: Facts
    takes_constants: bool
    merges: bool
    place: int = 1

    @cached_property
    def unweighed(self) -> np.ndarray:
        """Channels with weights of zero, (inputs,) bool."""
        return ~self.weights.any(axis=(1, 3)).ravel()

    @cached_property
    def constants(self) -> np.ndarray:
        """Channels that it can do without, perhaps with another bias, (inputs,) bool."""
        fixed = self.facts.constant
        return fixed if self.takes_constants else fixed & (self.facts.low == 0)


def readings_of(knowledge: Knowledge, finder: Finder, k: int) -> list[ReaderWeights]:
    """How node k reads, where it is a layer whose weights and input are known well enough; else none."""
    if has(knowledge.network.nodes[k], Trait.RECURRENT):
        return gates_of(knowledge, finder, k)
    found = reading_of(knowledge, finder, k) if has(knowledge.network.nodes[k], Trait.LINEAR) else None
    return [] if found is None else [found]


def reading_of(knowledge: Knowledge, finder: Finder, k: int) -> ReaderWeights | None:
    """How a linear layer reads; None where that is not known."""
    node, network = knowledge.network.nodes[k], knowledge.network
    if len(node.input) < 2:
        return None
    value, attributes = finder.deps.values.get(node.input[0]), attributes_of(node)
    weights = knowledge.array(node.input[1])
    found = None if network.is_constant(node.input[0]) else knowledge.get(node.input[0])
    if found is None or value is None or value.split_axis is not None or weights is None or attributes.get("transA", 0):
        return None
    grid = grid_of(node, weights)
    if grid is None:
        return None
    maps = has(node, Trait.CONVOLVES)
    axis = 1 if maps else len(value.axes) - 1
    whole = _along(found, value.shape, axis)
    if whole is None or whole.low.size != grid.shape[0] * grid.shape[2]:
        return None
    spreads = has(node, Trait.SPREADS)
    padding = maps and touches_padding(attributes, weights.shape[2:], spreads)
    takes = not padding and holds_bias(knowledge, finder, k, weights)
    scale = attributes.get("alpha", 1.0)
    scaled = grid if scale == 1 else scale * grid
    return ReaderWeights(k, value.axes[axis], scaled, whole, takes, changeable(knowledge, finder, k) is not None)


def _along(found: Facts, shape: Shape, axis: int) -> Facts | None:
    """Facts of every position of an axis, (positions,); None where they would be too many."""
    try:
        return along(found, shape, axis).map(np.ravel)
    except NothingKnown:
        return None


def gates_of(knowledge: Knowledge, finder: Finder, k: int) -> list[ReaderWeights]:
    """How the gates of a recurrent node read its input and its own hidden units; none where that is not known."""
    node, network = knowledge.network.nodes[k], knowledge.network
    if network.is_constant(node.input[0]):
        return []
    w, r = (knowledge.array(node.input[place]) for place in (1, 2))
    value, units = finder.deps.values.get(node.input[0]), finder.use(k, 2)
    own = next((knowledge.get(name) for name in node.output if name), None)
    found = knowledge.get(node.input[0])
    if w is None or r is None or w.ndim != 3 or r.ndim != 3 or value is None or found is None or own is None:
        return []
    whole = None if value.split_axis is not None else _along(found, value.shape, 2)
    hidden = None if units is None else reduced(own, range(len(own.shape) - 1)).map(np.ravel)
    if whole is None or units is None or hidden is None or hidden.low.size != r.shape[2]:
        return []
    read = ((1, w, value.axes[2], whole), (2, r, units.axes[2], hidden))
    return [
        ReaderWeights(k, labels, grid, facts, False, changeable(knowledge, finder, k, place) is not None, place)
        for place, array, labels, facts in read
        if (grid := grid_of(node, array)) is not None
    ]


def changeable(knowledge: Knowledge, finder: Finder, k: int, place: int = 1) -> str | None:
    """The tensor of the file that the weights of a layer alone stand in, perhaps in another order."""
    if has(knowledge.network.nodes[k], Trait.RECURRENT):
        use = finder.use(k, place)
        return use.source if use is not None and finder.alone(use) else None
    if finder.obstacle(k) is None:
        use = finder.use(k, 1)
        return None if use is None else use.source
    source = finder.deps.sources.get(knowledge.origin(knowledge.network.nodes[k].input[1]) or "")
    if source is None or len(finder.deps.uses_of.get(source.key, ())) != 1 or source.dtype not in FLOATS:
        return None
    return source.key


def slides(deps: Dependencies, node: Node) -> bool:
    """Whether a kernel slides over channels: each then has a part in its neighbours, beside what the filters read."""
    if not has(node.proto, Trait.CONVOLVES):
        return False
    value, kernel = deps.values.get(node.inputs[0]), deps.statics.shapes.get(node.inputs[1])
    if value is None or kernel is None:
        return False
    return any(n > 1 and not is_fixed(x) for n, x in zip(kernel[2:], value.axes[2:], strict=False))


def grid_of(node: onnx.NodeProto, weights: np.ndarray) -> np.ndarray | None:
    """Weights as (parts, outputs, inputs / parts, taps), a view of them; None where they are no stack of filters."""
    filters = operator_of(node).filters
    return None if filters is None else filters(weights, attributes_of(node))


def bias_of(finder: Finder, k: int, weights: np.ndarray) -> Bias | None:
    """Where the bias of a layer stands, if it has one of its own."""
    linear = linear_of(finder.network.nodes[k], weights.shape)
    return finder.bias(k, linear, int(np.prod(grid_of(finder.network.nodes[k], weights).shape[:2])))  # type: ignore[union-attr]


def holds_bias(knowledge: Knowledge, finder: Finder, k: int, weights: np.ndarray) -> bool:
    """Whether a layer has a bias in floats, or can be given one."""
    node = knowledge.network.nodes[k]
    dtype = finder.deps.statics.types.get(node.output[0], onnx.TensorProto.FLOAT)
    if dtype not in FLOATS or _quantised(knowledge, node):
        return False
    if bias_of(finder, k, weights) is not None:
        return True
    if operator_of(node).bias is None or len(node.input) < 3 or not node.input[2]:
        return True
    old = knowledge.network.tensor(node.input[2])
    return old is not None and fitting(node, old, weights)


def fitting(node: onnx.NodeProto, bias: np.ndarray, weights: np.ndarray) -> bool:
    """Whether a tensor is a bias with one element for each output of a layer, of the layer's type."""
    grid = grid_of(node, weights)
    outputs = 0 if grid is None else grid.shape[0] * grid.shape[1]
    scaled = attributes_of(node).get("beta", 1.0) == 0
    return bias.dtype == weights.dtype and bias.ndim == 1 and bias.size == outputs and not scaled


def _quantised(knowledge: Knowledge, node: onnx.NodeProto) -> bool:
    """Whether weights or bias stand in the file as integers: their sums cannot be changed exactly."""
    for name in node.input[1:3]:
        k = knowledge.network.maker.get(name)
        while k is not None:
            if has(knowledge.network.nodes[k], Trait.DEQUANTIZES):
                return True
            k = next((knowledge.network.maker.get(n) for n in knowledge.network.nodes[k].input[:1]), None)
    return False
