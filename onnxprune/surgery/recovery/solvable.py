"""The layers that can be solved for: where their weights and biases stand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.model.static import attributes_of
from onnxprune.operators.labels import line
from onnxprune.operators.patches import Linear
from onnxprune.operators.registry import Trait, has, operator_of
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.stored import View, behind, plain

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


def is_solvable(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer of a kind whose weights can be solved for."""
    return operator_of(node).linear is not None


def multiplies_matrices(node: onnx.NodeProto) -> bool:
    """Whether a node is a product of matrices, of which the second one may hold weights."""
    return has(node, Trait.LINEAR) and not has(node, Trait.CONVOLVES)


def multiplies_values(node: onnx.NodeProto) -> bool:
    """Whether a node is a product of matrices and nothing else, of which either may be data."""
    return multiplies_matrices(node) and operator_of(node).bias is None


def has_weights(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer, solvable or not; attention is what its products make of it."""
    return is_solvable(node) or (has(node, Trait.LAYER) and not has(node, Trait.ATTENDS))


def label_of(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, else its first output."""
    return node.name or next(filter(None, node.output))


def value_of(network: LayerGraph, values: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """A tensor of the file, with the elements that are new by now."""
    found = values[key] if key in values else network.tensor(key)
    assert found is not None
    return found


@dataclass(frozen=True)
class Bias:
    """A tensor of the file that is added to a layer's output, once per channel."""

    key: str
    node: int  # that takes it
    place: int  # among the inputs of that node
    gain: np.ndarray  # (outputs,): the unit of the bias in units of the layer's output
    inside: bool  # whether it is part of the layer's output, or added to it later
    at: np.ndarray  # (outputs,): where in the flat tensor the bias of each output stands


@dataclass(frozen=True)
class Solvable:
    """A layer whose weights can be solved for."""

    node: int  # among the nodes of the main graph
    label: str
    weight: str  # key of the tensor
    x: str
    y: str
    bias: Bias | None
    linear: Linear
    live: np.ndarray  # bool, of the weight's shape: what stays
    recurrent: bool = False  # then y is x, and what is solved for are the gates that the weights make of it

    @cached_property
    def stays(self) -> np.ndarray:
        """Which elements of the filters stay, (groups, outputs, features) bool."""
        return self.linear.to_matrix(self.live.astype(np.float32)) != 0

    def filters(self, weight: np.ndarray) -> np.ndarray:
        """The filters in a tensor of weights, (groups, outputs, features), a copy in double precision."""
        return np.array(self.linear.to_matrix(weight.astype(np.float64)))

    def stored(self, filters: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Filters as the tensor of weights that stood there before holds them."""
        return np.ascontiguousarray(self.linear.from_matrix(filters, before.shape)).astype(before.dtype)


@dataclass(frozen=True)
class Finder:
    """Looks at the nodes of a network, each with the uses of its tensors."""

    network: LayerGraph
    deps: Dependencies
    dead: np.ndarray

    @cached_property
    def index(self) -> list[int]:
        """The number that the analysis gives each node of the network."""
        nested = self.network.nested
        found = {node.outputs: k for k, node in enumerate(self.deps.nodes) if nested or not node.path}
        return [found.get(tuple(node.output), -2) for node in self.network.nodes]

    @cached_property
    def uses(self) -> dict[tuple[int, int], Use]:
        return {(u.node, u.input): u for u in self.deps.uses}

    def use(self, k: int, place: int) -> Use | None:
        """The tensor of the file that node k takes there."""
        return self.uses.get((self.index[k], place))

    def alone(self, use: Use | None) -> bool:
        """Whether a tensor of the file holds floats, or integers that stand for some, and serves one place."""
        if use is None or len(self.deps.uses_of[use.source]) != 1:
            return False
        source = self.deps.sources[use.source]
        real = source.dtype in FLOATS or use.source in self.network.scaled
        there = self.network.nested or not source.path
        return real and source.kind != "fill" and there and not self.is_bank(use)

    def is_bank(self, use: Use) -> bool:
        """Whether the elements of a tensor are those of filters that are mixed or generated from it, not a view."""
        return use.node not in self.network.constant and any(len(self.deps.factors(labels)) > 1 for labels in use.axes)

    def stored(self, k: int, place: int) -> tuple[Use, View] | None:
        """The tensor of the file behind an input, and how node k sees it; None where it is computed otherwise."""
        if (use := self.use(k, place)) is not None:
            return use, plain([x.size for x in use.axes])
        name = self.network.nodes[k].input[place]
        maker = self.network.maker.get(name)
        whole = maker is not None and maker in self.network.constant and self.network.follow(name) is not None
        if maker is None or not whole or not self.network.unpacked:
            return None
        node, shape = self.network.nodes[maker], self.deps.statics.shapes.get(name)
        if node.input and node.input[0] in self.network.scaled:
            return self.stored(maker, 0)
        found = self.stored(maker, 0) if has(node, Trait.VIEW) and shape is not None else None
        return None if found is None or shape is None else (found[0], behind(found[1], node, shape))

    def obstacle(self, k: int) -> str | None:
        """Why the weights of a node cannot be solved for; None where they can."""
        node = self.network.nodes[k]
        if not is_solvable(node):
            return f"its operator {node.op_type} is not solved for"
        attributes, found = attributes_of(node), self.stored(k, 1)
        if found is None:
            maker = self.network.maker.get(node.input[1])
            if maker is None or maker not in self.network.constant:
                return "it has no weights of its own"
            return f"its weights are computed by {self.network.nodes[maker].op_type}"
        use, view = found
        if self.is_bank(use):
            return "filters are made of its weights"
        if not self.alone(use):
            return "its weights serve other layers too, or are no floats"
        if attributes.get("transA", 0):
            return "it takes its input transposed"
        if has(node, Trait.RECURRENT) and (len(view.shape) != 3 or self.use(k, 1) is None):
            return "its weights are not of the usual three axes"
        if multiplies_matrices(node) and len(view.shape) != 2:
            return "its weights are a stack of matrices"
        return None

    def solvable(self) -> list[int]:
        """Nodes whose weights can be solved for."""
        return [k for k, node in enumerate(self.network.nodes) if is_solvable(node) and self.obstacle(k) is None]

    def layer(self, k: int) -> Solvable:
        node = self.network.nodes[k]
        found = self.stored(k, 1)
        assert found is not None
        use, view = found
        live = np.ones(tuple(x.size for x in use.axes), bool)
        for axis, labels in enumerate(use.axes):
            kept = self.deps.live(labels, self.dead)
            live &= kept.reshape(line(live.ndim, axis))
        linear = view.of(linear_of(node, view.shape))
        outputs = math.prod(linear.to_matrix(live).shape[:2])
        label, x = label_of(node), node.input[0]
        if has(node, Trait.RECURRENT):
            return Solvable(k, label, use.source, x, x, self.gate_bias(k, live.shape[0], outputs), linear, live, True)
        return Solvable(k, label, use.source, x, node.output[0], self.bias(k, linear, outputs), linear, live)

    def gate_bias(self, k: int, directions: int, outputs: int) -> Bias | None:
        """The input's half of the bias of a recurrent node, (directions, 2 · gates · hidden)."""
        node, use = self.network.nodes[k], self.use(k, 3)
        if len(node.input) < 4 or not self.alone(use) or use is None or len(use.axes) != 2:
            return None
        at = np.arange(2 * outputs).reshape(directions, 2, -1)[:, 0].ravel()
        return Bias(use.source, k, 3, np.ones(outputs), False, at)

    def bias(self, k: int, linear: Linear, outputs: int) -> Bias | None:
        """What is added to the output of a node: its own bias, that of a BatchNormalization behind it, or an Add's."""
        node, network, at = self.network.nodes[k], self.network, np.arange(outputs)
        if operator_of(node).bias is not None and len(node.input) > 2 and node.input[2]:
            use = found[0] if (found := self.stored(k, 2)) is not None else None
            scale = attributes_of(node).get("beta", 1.0)
            if self.alone(use) and use is not None and _per_channel(use, outputs, 1) and scale:
                return Bias(use.source, k, 2, np.full(outputs, float(scale)), True, at)
        after = network.follow(node.output[0])
        if after is None:
            return None
        then = network.nodes[after]
        if has(then, Trait.AFFINE) and linear.axis == 1 and self.alone(use := self.use(after, 2)):
            folded = folded_norm(network, after)
            assert use is not None
            if folded is None:
                return None
            gain = np.divide(1.0, folded[0], out=np.zeros(outputs), where=folded[0] != 0)
            return Bias(use.source, after, 2, gain, False, at)
        if operator_of(then).signs == (1, 1):
            place = 1 - list(then.input).index(node.output[0])
            use = self.use(after, place)
            trailing = 1 if linear.axis == -1 else len(self.deps.statics.shapes.get(node.output[0], ())) - 1
            if self.alone(use) and use is not None and _per_channel(use, outputs, trailing):
                return Bias(use.source, after, place, np.ones(outputs), False, at)
        return None


def _per_channel(use: Use, outputs: int, trailing: int) -> bool:
    """Whether a tensor has one element per channel, `trailing` axes from the end on."""
    shape = tuple(x.size for x in use.axes)
    return (
        len(shape) >= trailing
        and shape[-trailing] == outputs
        and all(s == 1 for k, s in enumerate(shape) if k != len(shape) - trailing)
    )


def linear_of(node: onnx.NodeProto, shape: tuple[int, ...]) -> Linear:
    """The matrix product that a node is, for weights of this shape."""
    linear = operator_of(node).linear
    assert linear is not None
    return linear(shape, attributes_of(node))


def folded_norm(network: LayerGraph, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A BatchNormalization at inference as (factor, summand) per channel; None where its numbers are computed."""
    node = network.nodes[k]
    attributes = attributes_of(node)
    if attributes.get("training_mode", 0) or attributes.get("spatial", 1) == 0:
        return None
    found = [network.tensor(n) for n in node.input[1:5]]
    if any(f is None for f in found):
        return None
    gamma, beta, mean, variance = (np.asarray(f, np.float64) for f in found)
    factor = gamma / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    return factor, beta - mean * factor
