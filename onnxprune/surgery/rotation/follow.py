"""Where the positions of a width go.

Positions of the width are followed through all that only moves elements, as an array of integers that stands for the
value, from the layer that makes them to the product that takes them in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnxprune.model.graphs import DEFAULT
from onnxprune.operators.own_heads import OwnHeads, own_heads
from onnxprune.operators.registry import MALFORMED, Trait, attributes_of, has, operator_of, traits_of
from onnxprune.surgery.recovery.solvable import multiplies_matrices, multiplies_values
from onnxprune.surgery.rotation.sites import Array, Graph, Sensor

LARGEST = 1 << 24  # elements of an array of positions


def _moved(node: onnx.NodeProto) -> Callable[[Sequence[Array], Mapping[str, Any]], Any] | None:
    """Where the elements of input 0 go, each to one place; None where a node does something else."""
    traits = traits_of(node)
    if Trait.PASSES | Trait.UNARY in traits:
        return lambda x, _: x[0]
    if Trait.PASSES | Trait.MOVES not in traits or traits & (Trait.JOINS | Trait.REPEATS):
        return None
    return operator_of(node).value


@dataclass(frozen=True)
class End:
    """Where positions arrive.

    ids: the position that each element of the value is, in the shape of the value.
    heads: (blocks, width) as they were mixed over the tokens on the way.
    mixed: where the outcome of that is seen.
    added: tensors with numbers for these positions that the node adds to them: (key, (blocks, width) there).
    """

    node: int
    place: int
    value: str
    ids: Array
    heads: Array | None = None
    mixed: Sensor | None = None
    added: tuple[tuple[str, Array], ...] = ()


@dataclass(frozen=True)
class Maker:
    """A layer that makes widths: where its weights and biases have them."""

    node: int
    value: str
    places: tuple[tuple[str, int], ...]  # (key, axis)
    ends: tuple[End, ...]


def maker_of(graph: Graph, k: int) -> Maker | None:
    """A product with weights of its own whose output goes to products, or None."""
    node = graph.deps.nodes[k]
    if node.path or not multiplies_matrices(node.proto) or (weight := graph.use(k, 1)) is None or len(weight.axes) != 2:
        return None
    attributes = attributes_of(node.proto)
    axis = 0 if attributes.get("transB", 0) else 1
    places = [(weight.source, axis)]
    shape = graph.shape(node.outputs[0])
    width = weight.axes[axis].size
    if shape is None or np.prod(shape, dtype=float) > LARGEST or shape[-1] != width:
        return None
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = graph.use(k, 2)
        if bias is None or bias.axes[-1].size != width:
            return None
        places.append((bias.source, len(bias.axes) - 1))
    return walked(graph, End(k, 0, node.outputs[0], np.broadcast_to(np.arange(width), shape)), places)


def walked(graph: Graph, start: End, places: Sequence[tuple[str, int]]) -> Maker:
    """Where the positions go that a node makes with these tensors."""
    walk = _Walk(graph, [], list(places))
    walk.on(start)
    return Maker(start.node, start.value, tuple(walk.places), tuple(walk.ends))


@dataclass
class _Walk:
    """Positions on their way, and where they have arrived."""

    graph: Graph
    ends: list[End]
    places: list[tuple[str, int]]

    def on(self, start: End) -> None:
        """Follow a value to all that takes it."""
        todo = [start]
        while todo:
            at = todo.pop()
            if at.value in self.graph.outputs:
                self.ends.append(replace(at, node=-1))
            for k, place in self.graph.deps.takers.get(at.value, ()):
                todo += self._through(replace(at, node=k, place=place))

    def _through(self, at: End) -> list[End]:
        """What a node makes of the positions; nothing where they have arrived."""
        node = self.graph.deps.nodes[at.node]
        if has(node.proto, Trait.SIZES) and not node.path:
            return []
        known = node.proto.domain in DEFAULT or has(node.proto, Trait.ATTENDS)
        outs = self._step(at) if known and not node.path else None
        if outs is None:
            self.ends.append(at)
            return []
        named = zip(node.outputs, outs, strict=False)
        return [
            replace(at, value=key, ids=ids) if isinstance(ids, np.ndarray) else replace(ids, value=key)
            for key, ids in named
            if key
        ]

    def _step(self, at: End) -> list[Any] | None:
        node = self.graph.deps.nodes[at.node]
        if at.place == 0 and has(node.proto, Trait.SPLITS):
            return self._parts(at)
        if at.place == 0 and (moved := _moved(node.proto)) is not None:
            inputs = [at.ids, *(self.graph.known(key) if key else None for key in node.inputs[1:])]
            unknown = any(x is None for x, key in zip(inputs, node.inputs, strict=True) if key)
            if unknown and not has(node.proto, Trait.UNARY):
                return None
            try:
                found = moved(inputs, attributes_of(node.proto))  # type: ignore[arg-type]
            except MALFORMED:
                return None
            return None if found is None else [found]
        if has(node.proto, Trait.MULTIPLIES):
            scaled = at.place != operator_of(node.proto).divisor and self._scalar(node.inputs[1 - at.place])
            return [at.ids] if scaled else None
        if has(node.proto, Trait.ADDS):
            return [at.ids] if len(node.inputs) == 2 and at.heads is None and self._biased(at) else None
        if has(node.proto, Trait.ATTENDS):
            return self._attended(at)
        return self._mixed(at) if multiplies_values(node.proto) else None

    def _parts(self, at: End) -> list[Any] | None:
        node = self.graph.deps.nodes[at.node]
        axis, shapes = attributes_of(node.proto).get("axis", 0), [self.graph.shape(key) for key in node.outputs]
        ends = np.cumsum([shape[axis] for shape in shapes if shape is not None])
        return None if None in shapes else np.split(at.ids, ends[:-1], axis)

    def _scalar(self, key: str) -> bool:
        shape = self.graph.shape(key)
        return shape is not None and np.prod(shape, dtype=int) == 1

    def _biased(self, at: End) -> bool:
        """Whether a bias of the layer is added, one number for each position in their own order."""
        use = self.graph.use(at.node, 1 - at.place)
        own = at.ids.reshape(-1, at.ids.shape[-1])
        if use is None or not (own == np.arange(own.shape[1])).all() or own.shape[1] != int(own.max()) + 1:
            return False
        sizes = [x.size for x in use.axes]
        if not sizes or sizes[-1] != own.shape[1]:
            return False
        self.places.append((use.source, len(sizes) - 1))
        return True

    def _mixed(self, at: End) -> list[Any] | None:
        """The context, where a product mixes the tokens and leaves the width alone; None for all other products."""
        node = self.graph.deps.nodes[at.node]
        shape = self.graph.shape(node.outputs[0])
        if at.heads is not None or node.inputs[1 - at.place] in self.graph.network or shape is None or at.ids.ndim < 2:
            return None
        axis = -1 if at.place == 1 else -2  # the one that the product keeps
        heads = heads_along(at.ids, axis)
        other = -3 - axis
        if heads is None or heads.shape[0] == 0 or (np.take(at.ids, [0], other) != at.ids).any():
            return None
        ids = np.broadcast_to(np.take(at.ids, [0], other), shape)
        return [replace(at, ids=ids, heads=heads, mixed=sensor_of(node.outputs[0], ids, axis))]

    def _attended(self, at: End) -> list[Any] | None:
        """The context of values that one node mixes; None for queries, keys and all else that arrives there."""
        node = self.graph.deps.nodes[at.node]
        own, shape = own_heads(node.proto), self.graph.shape(node.outputs[0])
        if own is None or own.packed or at.place != 2 or at.heads is not None or shape is None:
            return None
        heads, added = heads_of(at.ids, own), added_by(self.graph, at, own)
        shared = at.ids.ndim == 4 and shape[1] != at.ids.shape[1]
        if heads is None or added is None or shared or ((first := np.take(at.ids, [0], -2)) != at.ids).any():
            return None
        ids = np.broadcast_to(first, shape)
        return [replace(at, ids=ids, heads=heads, mixed=seen_at(node.outputs[0], ids, own), added=added)]


def heads_of(ids: Array, own: OwnHeads) -> Array | None:
    """(blocks, width) of positions in an input of an attention, whose heads may stand behind each other."""
    apart = ids.ndim == 3 and own.count > 0 and ids.shape[-1] % own.count == 0
    grid = ids.reshape(*ids.shape[:-1], own.count, -1) if apart else ids
    return heads_along(grid, -1) if grid.ndim == 4 else None


def seen_at(value: str, ids: Array, own: OwnHeads, shift: Array | None = None) -> Sensor:
    """Where the positions of all heads are seen in an input or the output of an attention."""
    if ids.ndim == 3:
        return Sensor(value, 2, None, own.count, shift=shift)
    return replace(sensor_of(value, ids, -1), shift=shift)


def added_by(graph: Graph, at: End, own: OwnHeads) -> tuple[tuple[str, Array], ...] | None:
    """The bias that an attention adds to what arrives there, (key, positions); None where it cannot change."""
    if own.bias is None:
        return ()
    node, use = graph.deps.nodes[at.node], graph.use(at.node, own.bias)
    shapes = [graph.shape(key) for key in node.inputs[:3]]
    if use is None or len(use.axes) != 1 or any(s is None or len(s) != 3 for s in shapes):
        return None
    ends = np.cumsum([s[-1] for s in shapes if s is not None])
    whole = np.split(np.arange(use.axes[0].size), ends[:-1])
    return ((use.source, whole[at.place].reshape(own.count, -1)),) if ends[-1] == use.axes[0].size else None


def heads_along(ids: Array, axis: int) -> Array | None:
    """(blocks, width) of positions along an axis that are the same along all others but one, that of the blocks."""
    moved = np.moveaxis(ids, axis, -1)
    for k in range(moved.ndim - 1):
        first = moved.take([0], k)
        moved = first if (first == moved).all() else moved
    if sum(n > 1 for n in moved.shape[:-1]) > 1 or moved.shape[-1] < 2:
        return None
    found = moved.reshape(-1, moved.shape[-1])
    return found if np.unique(found).size == found.size else None


def block_axis(ids: Array, axis: int) -> int | None:
    """The axis of the blocks of a value; None where there is one block."""
    axes = [k for k in range(ids.ndim) if k != axis % ids.ndim]
    return next((k for k in axes if (ids.take([0], k) != ids).any()), None)


def sensor_of(value: str, ids: Array, axis: int) -> Sensor:
    """Where positions are seen in a value that has them along an axis."""
    block = block_axis(ids, axis)
    return Sensor(value, axis % ids.ndim, block, 1 if block is None else ids.shape[block])
