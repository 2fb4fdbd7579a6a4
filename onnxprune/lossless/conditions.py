"""Which channels every reader can do without.

A reader can do without a channel that it weighs with zeros or that is always zero.  A layer whose bias can take it up
can do without any constant; one whose weights are its own, without a multiple of another channel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Node, Use
from onnxprune.lossless.propagate import Knowledge
from onnxprune.lossless.readings import ReaderWeights, readings_of, slides
from onnxprune.model.bodies import follows_bodies
from onnxprune.model.graphs import subgraphs
from onnxprune.model.static import Statics
from onnxprune.operators.facts import Facts, reduced
from onnxprune.operators.labels import Labels, is_fixed, line
from onnxprune.operators.registry import MALFORMED, Taken, Trait, attributes_of, has, operator_of
from onnxprune.operators.roles import Role
from onnxprune.operators.value_numbers import Ids, mix, name_of
from onnxprune.surgery.recovery.solvable import Finder


@dataclass
class Conditions:
    """What the readers of a network say about its components, (components,) bool each.

    needed: some reader needs it as it is now.
    needed_apart: some reader needs it even if another one is a multiple of it.
    lively: some reader gets it as something else than a constant, whatever its weight.
    likeness: a name for all that the layers read of it; components with the same one are multiples of each other.
    size: the largest of these multiples as a power of two, (components,).
    """

    knowledge: Knowledge
    deps: Dependencies
    readings: list[ReaderWeights]
    needed: np.ndarray
    needed_apart: np.ndarray
    lively: np.ndarray
    likeness: Ids
    size: np.ndarray

    @classmethod
    def of(cls, knowledge: Knowledge) -> "Conditions":
        deps, size = knowledge.deps, knowledge.deps.nothing.size
        likeness, largest = np.zeros(size, np.uint64), np.full(size, -np.inf)
        self = cls(knowledge, deps, [], deps.nothing, deps.nothing, deps.nothing, likeness, largest)
        self._look()
        return self

    def _look(self) -> None:
        finder = Finder(self.knowledge.network, self.deps, self.deps.nothing)
        place = {index: k for k, index in enumerate(finder.index)}
        feeds = _feeds(self.knowledge)
        for index, node in enumerate(self.deps.nodes):
            try:
                mixes = slides(self.deps, node)
                if is_channelwise(self.deps, node) and not mixes:
                    continue
                found = readings_of(self.knowledge, finder, place[index]) if index in place else []
                self.readings += found
                for reading in found:
                    self._note(reading)
                if (not found or mixes) and not _weights_only(self.knowledge, node):
                    self._note_other(index, node, feeds)
            except MALFORMED:
                self._note_malformed(index, node)

    def _note_malformed(self, index: int, node: Node) -> None:
        """A node whose inputs or attributes do not suit its operator needs all that it takes."""
        values = [value for key in node.inputs if (value := self.deps.values.get(key)) is not None]
        taken = [labels for one in (*self.deps.uses_at.get(index, ()), *values) for labels in one.axes]
        taken += [value.split_axis.labels.ravel() for value in values if value.split_axis is not None]
        for labels in (labels for labels in taken if not is_fixed(labels)):
            for found in (self.needed, self.needed_apart, self.lively):
                found[self.deps.component[labels]] = True

    def _note(self, reading: ReaderWeights) -> None:
        parts = self.deps.component[reading.labels]
        spare = reading.unweighed | reading.constants
        self.needed[parts[~spare]] = True
        if not reading.merges:
            self.needed_apart[parts[~spare]] = True
        self.lively[parts[~reading.facts.constant]] = True
        used = np.flatnonzero(np.broadcast_to(reading.labels != 0, reading.labels.shape))
        reader = name_of(f"reader {reading.node} {reading.place}")
        place = mix(_occurrence(parts[used]), used // reading.weights.shape[2], reader)
        np.bitwise_xor.at(self.likeness, parts[used], mix(reading.facts.identity[used], place))
        np.maximum.at(self.size, parts[used], np.log2(reading.facts.scale[used]))

    def _note_other(self, index: int, node: Node, feeds: dict[str, list[tuple[Labels, np.ndarray]]]) -> None:
        """An operator that may mix channels, by weights that cannot be changed here or by none."""
        on, alive = self._taken(node)
        read, weighed = self.deps.nothing, self.deps.nothing
        for key in (*node.inputs, f"use of {index}"):
            for labels, zero in feeds.get(key, ()):
                read[self.deps.component[labels]] = True
                weighed[self.deps.component[labels[~zero]]] = True
        needed = np.where(on, alive & ~(read & ~weighed), read & weighed)
        if has(node.proto, Trait.ATTENDS):
            needed |= self._kept_inside(index)
        alone = self._alone(index, node)
        needed &= ~alone
        self.needed |= needed
        self.needed_apart |= needed
        self.lively |= on & alive & ~alone

    def _taken(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Components on what a node takes, and those that it gets as something else than zero."""
        on, alive, multiplied, product = (np.zeros(self.deps.nothing.size, bool) for _ in range(4))
        factors = operator_of(node.proto).factors
        again = node.outputs if has(node.proto, Trait.RECURRENT) else ()
        for k, key in enumerate((*node.inputs, *again)):
            if not key or self.knowledge.network.is_constant(key):
                continue  # what weights read is known by their labels
            here, nonzero = self._channels(node, key, k)
            on |= here
            if k in factors:
                product = np.where(multiplied & here, product & nonzero, product | nonzero)
                multiplied |= here
            else:
                alive |= nonzero
        return on, alive | product

    def _alone(self, index: int, node: Node) -> np.ndarray:
        """Components with a part in nothing else that a node gives, such as whole heads, (components,) bool."""
        reach, given = operator_of(node.proto).reach, self.deps.values.get(node.outputs[0])
        inside, outside = self.deps.nothing, self.deps.nothing
        if reach is None or given is None:
            return inside
        try:
            rows = reach(taken_by(self.deps.statics, node))
        except MALFORMED:
            return inside
        uses = {use.input: use.axes for use in self.deps.uses_at.get(index, ())}
        for k, key in enumerate(node.inputs):
            value = self.deps.values.get(key)
            for axis, labels in enumerate(uses.get(k, () if value is None else value.axes)):
                if is_fixed(labels):
                    continue
                parts = self.deps.component[labels]
                own = np.zeros(labels.size, bool)
                for row in rows:
                    if (row.place, row.axis) == (k, axis):
                        own |= _only(parts, row.own, self.deps.component[given.axes[row.onto]], row.reached)
                inside[parts[own]] = True
                outside[parts[~own]] = True
            if value is not None and value.split_axis is not None:
                outside[self.deps.component[value.split_axis.labels.ravel()]] = True
        return inside & ~outside

    def _kept_inside(self, index: int) -> np.ndarray:
        """Components that a fused attention makes by weights other than zero, (components,) bool: they also meet."""
        found = self.deps.nothing
        for use in self.deps.uses_at.get(index, ()):
            array = self.knowledge.array(use.source)
            for axis, labels in enumerate(use.axes):
                if is_fixed(labels) or not (self.deps.roles[labels] & int(Role.WRITE | Role.ADD)).any():
                    continue
                rest = tuple(k for k in range(len(use.axes)) if k != axis)
                busy = np.ones(labels.size, bool) if array is None else (array != 0).any(axis=rest)
                found[self.deps.component[labels[busy]]] = True
        return found

    def _channels(self, node: Node, key: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Components that meet in input k, and those that are not always zero there, (components,) bool each."""
        here, nonzero = self.deps.nothing, self.deps.nothing
        value = self.deps.values.get(key)
        if value is None:
            return here, nonzero
        axes = contraction_axes(self.deps, node, k, len(value.axes))
        found = self.knowledge.get(key) if key in self.knowledge.facts else None
        for axis in axes:
            labels = value.axes[axis]
            if not is_fixed(labels):
                zero = np.zeros(labels.size, bool) if found is None else self._zeros(node, found, axis, labels.size)
                here[self.deps.component[labels]] = True
                nonzero[self.deps.component[labels[~zero]]] = True
        if value.split_axis is not None:
            parts = self.deps.component[value.split_axis.labels.ravel()]
            here[parts], nonzero[parts] = True, True
        return here, nonzero

    def _zeros(self, node: Node, found: Facts, axis: int, size: int) -> np.ndarray:
        """Positions of an axis at which a value is always zero, as a number or as what its zero point says."""
        place, zero = operator_of(node.proto).zero_points.inputs.get(0), 0.0
        given = place is not None and place < len(node.inputs) and bool(node.inputs[place])
        maker = self.deps.maker(node.inputs[0])
        own = None if maker is None else operator_of(maker.proto).zero_points.computed
        if place is not None and given and maker is not None and own is not None:
            real = self.knowledge.get(maker.inputs[0]) if node.inputs[place] == maker.outputs[own] else None
            found = found if real is None else real  # what the zero point stands for is zero
        elif place is not None and given:
            array = self.knowledge.array(node.inputs[place])
            zero = float(array.ravel()[0]) if array is not None and array.size == 1 else np.nan
        flat = reduced(found, [k for k in range(len(found.shape)) if k != axis])
        still = flat.constant & (flat.low == zero)
        return np.broadcast_to(still.ravel(), (size,))


def _only(parts: np.ndarray, own: np.ndarray, others: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Which positions are of the one component that all others with their number are of, (positions,) bool."""
    if own.size != parts.size or reached.size != others.size:
        return np.zeros(parts.size, bool)
    count = int(max(own.max(), reached.max())) + 1
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(low, reached, others)
    np.maximum.at(high, reached, others)
    return (own >= 0) & (low[own] == parts) & (high[own] == parts)


def _occurrence(parts: np.ndarray) -> np.ndarray:
    """How often each entry has come before, (n,)."""
    order, out = np.argsort(parts, kind="stable"), np.empty(parts.size, np.int64)
    starts = np.flatnonzero(np.diff(parts[order], prepend=-1))
    out[order] = np.arange(parts.size) - np.repeat(starts, np.diff(np.append(starts, parts.size)))
    return out


def is_channelwise(deps: Dependencies, node: Node) -> bool:
    """Whether no channel of the node's inputs has a part in another channel of its outputs."""
    channelwise = operator_of(node.proto).channelwise
    if any(True for _ in subgraphs(node.proto)):
        return follows_bodies(node.proto, deps.arithmetic.opset)  # what is inside is asked for itself
    return channelwise if isinstance(channelwise, bool) else channelwise(taken_by(deps.statics, node))


def contraction_axes(deps: Dependencies, node: Node, k: int, rank: int) -> list[int]:
    """Axes of input k, which has this rank, along which its elements are summed, or else come together."""
    contracts = operator_of(node.proto).contracts
    return list(range(rank)) if contracts is None else contracts(taken_by(deps.statics, node), k, rank)


def taken_by(statics: Statics, node: Node) -> Taken:
    """What is known of the inputs of a node."""

    def constant(k: int) -> np.ndarray | None:
        key = node.inputs[k] if k < len(node.inputs) else ""
        return statics.fixed_constant(key) if key else None

    return Taken(attributes_of(node.proto), [statics.shapes.get(key) for key in node.inputs], constant)


def _weights_only(knowledge: Knowledge, node: Node) -> bool:
    return all(knowledge.network.is_constant(n) for n in node.inputs if n) and bool(node.inputs)


def _feeds(knowledge: Knowledge) -> dict[str, list[tuple[Labels, np.ndarray]]]:
    """Weights that read, with the positions at which they are zero: by the value that they become, or by the node.

    A use of its own stands under "use of" its node, one that is computed with first under what is computed.
    """
    deps, network = knowledge.deps, knowledge.network
    found: dict[str, list[tuple[Labels, np.ndarray]]] = {}
    computed: dict[int, str] = {
        index: node.outputs[0] for index, node in enumerate(deps.nodes)
        if node.outputs and node.outputs[0] and _weights_only(knowledge, node)
    }  # fmt: skip
    for axis, labels, use in _read_axes(deps):
        array = knowledge.array(use.source)
        zero = np.zeros(labels.size, bool)
        if array is not None:
            point = zero_point(knowledge, use)
            zero = ~(array != point).any(axis=tuple(k for k in range(array.ndim) if k != axis))
        found.setdefault(computed.get(use.node, f"use of {use.node}"), []).append((labels, zero))
    for k in sorted(network.constant):  # in the order of the graph
        node = network.nodes[k]
        if given := [row for n in node.input for row in found.get(n, ()) if n in network.maker]:
            found.setdefault(node.output[0], []).extend(given)
    return found


def _read_axes(deps: Dependencies) -> Iterator[tuple[int, Labels, Use]]:
    for use in deps.uses:
        for axis, labels in enumerate(use.axes):
            if use.node >= 0 and not is_fixed(labels) and (deps.roles[labels] & int(Role.READ)).any():
                yield axis, labels, use


def zero_point(knowledge: Knowledge, use: Use) -> np.ndarray | int:
    """What stands for zero in a quantised weight, shaped to broadcast over it."""
    found = knowledge.deps.scaling(use)
    array = knowledge.array(found.zero_point) if found is not None and found.zero_point else None
    if found is None or array is None:
        return 0
    if found.axis is None or array.size == 1:
        return array.ravel()[0]
    return array.reshape(line(len(use.axes), found.axis))
