"""Linear bottlenecks and residual streams: groups of channels that no activation ever sees, but norms may.

Every value that carries such channels is the stream times a factor per channel: a BatchNormalization or a scale, on the
way in or out, becomes part of the weights on its far side, and what is left of it adds a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxprune.channels.dependencies import Group, Use
from onnxprune.channels.nodes import Node
from onnxprune.model.graphs import DEFAULT
from onnxprune.operators.registry import Trait, attributes_of, has, operator_of
from onnxprune.operators.roles import Role
from onnxprune.surgery.recovery.solvable import multiplies_matrices, multiplies_values
from onnxprune.surgery.rotation.carried import Bent, StreamPart
from onnxprune.surgery.rotation.norms import Normalised
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor, WidthPlace

WIDEST = 1024  # channels of a stream beyond which its moments take too long
LEAST = 4  # channels below which there is nothing to be gained


def stream_sites(graph: Graph) -> list[RotationSite]:
    """All groups of channels that only linear maps touch."""
    found = (_site(graph, group) for group in graph.deps.groups if _plain(graph, group))
    return [site for site in found if site is not None]


def _plain(graph: Graph, group: Group) -> bool:
    """Whether each channel has one position everywhere, and operators touch it that may be linear."""
    single = all(s.positions.shape[1] == 1 and not s.role & Role.DEPTHWISE for s in group.slots)
    nodes = (graph.deps.nodes[k] for k in graph.touched[group.name])
    return single and LEAST <= len(group) <= WIDEST and all(_visit(n) and not n.path for n in nodes)


def _site(graph: Graph, group: Group) -> RotationSite | None:
    try:
        return _Stream(graph, group).site()
    except Bent:
        return None


@dataclass
class _Stream(Normalised):
    """A group under examination: all nodes that touch it, and what they say."""

    biased: bool = True  # all layers that take the channels in
    turned: dict[str, tuple[str, int]] = field(default_factory=dict)  # transposed matrix -> tensor, axis of channels

    # --- what the nodes do ---------------------------------------------------

    def site(self) -> RotationSite | None:
        """The stream as a width that may take any basis; None where nothing takes it in.  Raises Bent."""
        for k in self.graph.touched[self.group.name]:
            node = self.graph.deps.nodes[k]
            if self.transposing(k):
                continue
            keys = [x for x in (*node.inputs, *node.outputs) if x and x not in self.turned]
            values = dict.fromkeys(key for key in keys if key not in self.graph.network)
            carrying = [key for key in values if self.axis(key) is not None]
            if any(key in self.graph.outputs for key in carrying) or node.proto.domain not in DEFAULT:
                raise Bent
            if (visit := _visit(node)) is None or (
                self.merged.intersection(carrying) and not has(node.proto, Trait.VIEW)
            ):
                raise Bent
            if not any(key in self.squares for key in node.inputs):  # which has been seen to
                visit(self, k)
        return self._made() if self.making and self.taking else None

    def transposing(self, k: int) -> bool:
        """Whether a node transposes a matrix of weights for products with it, such as the table of tokens."""
        node = self.graph.deps.nodes[k]
        out, perm = node.outputs[0], attributes_of(node.proto).get("perm", [1, 0])
        if not has(node.proto, Trait.PERMUTES) or list(perm) != [1, 0]:
            return False
        takers = [(self.graph.deps.nodes[j].proto, place) for j, place in self.graph.deps.takers.get(out, ())]
        products = all(multiplies_values(proto) and place == 1 for proto, place in takers)
        if not takers or not products or out in self.graph.outputs:
            return False
        use = self.graph.use(k, 0)
        if use is None or len(use.axes) != 2 or (found := self.own(k, 0)) is None:
            return False
        self.turned[out] = found
        return True

    def passing(self, k: int) -> None:
        """A node that does the same to all channels."""
        if not any(key in self.axes for key in self.graph.deps.nodes[k].outputs):
            self.reducing(k)
            return
        taken, _ = self.data(k)
        for key in self.graph.deps.nodes[k].outputs:
            self.links += [StreamPart(key, x) for x in taken if key]
        for place in range(len(self.graph.deps.nodes[k].inputs)):
            if (found := self.own(k, place)) is not None:
                self.making.append((*found, self.graph.deps.nodes[k].outputs[0]))

    def padding(self, k: int) -> None:
        """A node that sets something around the stream: zeros, or values of the stream."""
        node = self.graph.deps.nodes[k]
        fill = node.inputs[2] if len(node.inputs) > 2 else ""
        told = attributes_of(node.proto)
        if told.get("mode", b"constant") == b"constant" and (told.get("value") or (fill and not self.nothing(fill))):
            raise Bent
        self.passing(k)

    def adding(self, k: int) -> None:
        """A sum of values of the stream and of constants along it, or the stream without its mean."""
        if self.levelled(k):
            return
        for place, key in enumerate(self.graph.deps.nodes[k].inputs):
            if key not in self.axes and self.own(k, place) is None and not self.nothing(key):
                raise Bent
        self.passing(k)

    def filling(self, k: int) -> None:
        """A constant of the same number everywhere: only zero is the same in any basis."""
        if not self.nothing(self.graph.deps.nodes[k].outputs[0]):
            raise Bent

    def scaling(self, k: int) -> None:
        """A product with one number for all channels, or with a constant one for each."""
        node = self.graph.deps.nodes[k]
        taken, out = self.data(k)
        if len(taken) == 2 and taken[0] == taken[1]:
            self.squaring(k)
            return
        divides = operator_of(node.proto).divisor is not None
        factors = [f for place in range(2) if (f := self.own(k, place)) is not None]
        if len(taken) != 1 or (divides and node.inputs[0] != taken[0]):
            raise Bent
        if not factors:
            if not all(key == taken[0] or self.alike(key, out) for key in node.inputs):
                raise Bent
            self.links.append(StreamPart(out, taken[0]))
            return
        key, axis = factors[0]
        array = self.graph.read(key).astype(np.float64)
        if array.size != len(self.group):
            raise Bent
        factor = array.ravel()[self.positions(key, axis)[0]]
        self.values[key] = np.ones_like(array)
        whole = np.where(factor == 0, np.nan, factor)
        self.linked(out, taken[0], 1 / whole if divides else whole)

    def alike(self, key: str, out: str) -> bool:
        """Whether a value has one number for all channels of the product that it goes into."""
        shape, whole = self.graph.shape(key), self.graph.shape(out)
        if shape is None or whole is None:
            return False
        place = self.axes[out][0] - len(whole) + len(shape)
        return place < 0 or shape[place] == 1

    def normalising(self, k: int) -> None:
        """A BatchNormalization: a factor, which goes into the weights around it, and a constant, which it keeps."""
        node, attributes = self.graph.deps.nodes[k], attributes_of(self.graph.deps.nodes[k].proto)
        taken, out = self.data(k)
        keys = [found[0] if (found := self.own(k, place)) else "" for place in range(1, 5)]
        several = sum(bool(key) for key in node.outputs) > 1 or attributes.get("spatial", 1) == 0
        if not all(keys) or taken != [node.inputs[0]] or several or attributes.get("training_mode", 0):
            raise Bent
        at = self.positions(keys[0], 0)[0]
        gamma, beta, mean, variance = (self.graph.read(key).astype(np.float64)[at] for key in keys)
        epsilon = attributes.get("epsilon", 1e-5)
        factor = gamma / np.sqrt(variance + epsilon)
        ones = np.ones(len(at))
        self.values |= {keys[0]: ones, keys[2]: 0 * ones, keys[3]: ones - epsilon}
        self.linked(out, taken[0], factor)
        self.shifts.append((keys[1], beta - factor * mean, out))

    def multiplying(self, k: int) -> None:
        """A layer that makes the channels, takes them in, or both; or a product of values that leaves them alone."""
        node, attributes = self.graph.deps.nodes[k], attributes_of(self.graph.deps.nodes[k].proto)
        x, y = node.inputs[0], node.outputs[0]
        if attributes.get("group", 1) != 1 or attributes.get("transA", 0):
            raise Bent
        weight = next((u for u in self.graph.deps.uses_at.get(k, ()) if u.input == 1), None)
        if weight is not None:
            parts, output = self._weights(k, weight)
        elif node.inputs[1] in self.turned:
            parts, output = [self.turned[node.inputs[1]]], 0
        elif multiplies_values(node.proto) and len(self.data(k)[0]) == 1:
            self.passing(k)
            return
        else:
            raise Bent
        for key, axis in parts:
            (self.making if axis == output else self.taking).append((key, axis, y if axis == output else x))
            self.biased &= axis == output or self.graph.holds_bias(k)
        if (y in self.axes) != any(axis == output for _, axis in parts):
            raise Bent
        if len(node.inputs) > 2 and node.inputs[2] and (bias := self.own(k, 2)) is not None:
            self.making.append((*bias, y))

    def _weights(self, k: int, weight: Use) -> tuple[list[tuple[str, int]], int]:
        """The axes of a layer's weights that have the channels, as (key, axis), and the axis of its output."""
        node = self.graph.deps.nodes[k].proto
        if self.graph.use(k, 1) is None or (multiplies_matrices(node) and len(weight.axes) != 2):
            raise Bent
        filters = has(node, Trait.CONVOLVES) and not has(node, Trait.SPREADS)
        output = 0 if filters or attributes_of(node).get("transB", 0) else 1
        return [(weight.source, axis) for axis in self.carrying(weight.axes)], output

    # --- the whole -----------------------------------------------------------

    def _made(self) -> RotationSite:
        factors, level = self.factors(self.even), self.without_mean()
        if level.intersection([*self.whole, *(value for _, _, value in self.taking)]):
            raise Bent  # a layer or a norm that takes the mean in
        places = [self._place(key, axis, factors[value], True, value in level) for key, axis, value in self.making]
        tables = {key for key, _ in self.turned.values()}
        flat = self.level.keys() - {value for _, constant, value in self.shifts if constant.any()}
        places += [  # what has no mean needs none of a table either, which then is the same where it makes the stream
            self._place(key, axis, factors[value], False, key in tables and value in flat)
            for key, axis, value in self.taking
        ]
        for key, constant, value in self.shifts:
            beta = np.zeros(len(self.group))
            beta[self.positions(key, 0)[0]] = constant
            self.values[key] = beta
            places.append(self._place(key, 0, factors[value], True, value in level))
        seen = dict.fromkeys(value for _, _, value in self.taking)
        sensors = tuple(Sensor(v, self.axes[v][0], None, 1, np.argsort(self.axes[v][1]), factors[v]) for v in seen)
        return RotationSite(
            self.group.name, np.arange(len(self.group)), tuple(places), sensors,
            centred=self.biased and not self.even, values=self.values, orthogonal=True, norms=len(set(self.even)),
            level=tuple(self.level),
        )  # fmt: skip

    def _place(self, key: str, axis: int, factor: Array, along: bool, level: bool = False) -> WidthPlace:
        return WidthPlace(key, axis, self.positions(key, axis), along, 1 / factor if along else factor, level)


VISITS: dict[Trait, Callable[[_Stream, int], None]] = {
    Trait.PASSES: _Stream.passing,
    Trait.PADS: _Stream.padding,
    Trait.ADDS: _Stream.adding,
    Trait.MULTIPLIES: _Stream.scaling,
    Trait.FILLS: _Stream.filling,
    Trait.AFFINE: _Stream.normalising,
    Trait.NORMALISES: _Stream.norm,
    Trait.POWERS: _Stream.squaring,
    Trait.LINEAR: _Stream.multiplying,
    Trait.SIZES: lambda *_: None,
}


def _visit(node: Node) -> Callable[[_Stream, int], None] | None:
    """What there is to be said of a node; None where it may be no linear map."""
    return next((visit for trait, visit in VISITS.items() if has(node.proto, trait)), None)
