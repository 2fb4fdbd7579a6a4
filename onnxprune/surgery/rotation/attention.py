"""Attention that is written out: widths of each head that queries and keys, or values and the output, share.

Positions of the width are followed through all that only moves elements, as an array of integers that stands for the
value, from the layer that makes them to the product that takes them in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.model.evaluate import DIRECT, MALFORMED
from onnxprune.model.static import attributes_of
from onnxprune.surgery.rotation.sites import Array, Graph, Place, Sensor, Site

LARGEST = 1 << 24  # elements of an array of positions
SIZES = frozenset({"Shape", "Size"})  # tell nothing of the elements
MAKERS = frozenset({"MatMul", "Gemm"})


def _split(x: Sequence[Array], a: Mapping[str, Any]) -> list[Array]:
    axis = a.get("axis", 0)
    sizes = a.get("split", x[1] if len(x) > 1 else None)
    parts = a.get("num_outputs", a[OUTPUTS])
    return np.array_split(x[0], parts if sizes is None else np.cumsum(sizes)[:-1].tolist(), axis)


def _flatten(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    axis = a.get("axis", 1)
    return x[0].reshape(int(np.prod(x[0].shape[:axis])), -1)


OUTPUTS = "outputs of the node"  # beside its attributes
MOVES: dict[str, Callable[[Sequence[Array], Mapping[str, Any]], Any]] = {
    **{n: DIRECT[n] for n in "Reshape Transpose Slice Gather Squeeze Unsqueeze Identity".split()},
    "Dropout": lambda x, _: x[0],
    "Split": _split,
    "Flatten": _flatten,
}


@dataclass(frozen=True)
class End:
    """Where positions arrive.

    ids: the position that each element of the value is, in the shape of the value.
    heads: (blocks, width) as they were mixed over the tokens on the way.
    mixed: where the outcome of that is seen.
    """

    node: int
    place: int
    value: str
    ids: Array
    heads: Array | None = None
    mixed: Sensor | None = None


@dataclass(frozen=True)
class Maker:
    """A layer that makes widths: where its weights and biases have them."""

    node: int
    value: str
    places: tuple[tuple[str, int], ...]  # (key, axis)
    ends: tuple[End, ...]


def attention_sites(graph: Graph) -> list[Site]:
    """All pairs of queries and keys, and of values and the output, whose every position goes nowhere else."""
    makers = [m for k in range(len(graph.deps.nodes)) if (m := _maker(graph, k)) is not None]
    found = [*_scores(graph, makers), *_contexts(graph, makers)]
    taken: set[tuple[str, int]] = set()
    out = []
    for site in found:
        own = {(p.key, int(i)) for p in site.places for i in p.positions.ravel()}
        if not taken & own:
            taken |= own
            out.append(site)
    return out


# --- from a layer on -------------------------------------------------------


def _maker(graph: Graph, k: int) -> Maker | None:
    """A product with weights of its own whose output goes to products, or None."""
    node = graph.deps.nodes[k]
    if node.path or node.proto.op_type not in MAKERS or (weight := graph.use(k, 1)) is None or len(weight.axes) != 2:
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
    ids = np.broadcast_to(np.arange(width), shape)
    walk = _Walk(graph, [], places)
    walk.on(End(k, 0, node.outputs[0], ids))
    return Maker(k, node.outputs[0], tuple(walk.places), tuple(walk.ends))


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
            for k, place in self.graph.takers.get(at.value, ()):
                todo += self._through(replace(at, node=k, place=place))

    def _through(self, at: End) -> list[End]:
        """What a node makes of the positions; nothing where they have arrived."""
        node = self.graph.deps.nodes[at.node]
        kind = node.proto.op_type
        if kind in SIZES and not node.path:
            return []
        outs = None if node.path or node.proto.domain not in ("", "ai.onnx") else self._step(at, kind)
        if outs is None:
            self.ends.append(at)
            return []
        named = zip(node.outputs, outs, strict=False)
        return [replace(at, value=key, ids=ids) if isinstance(ids, np.ndarray) else replace(ids, value=key) for key, ids in named if key]

    def _step(self, at: End, kind: str) -> list[Any] | None:
        node = self.graph.deps.nodes[at.node]
        if kind in MOVES and at.place == 0:
            inputs = [at.ids, *(self.graph.known(key) for key in node.inputs[1:] if key)]
            if kind != "Dropout" and any(x is None for x in inputs):
                return None
            attributes = {**attributes_of(node.proto), OUTPUTS: len(node.outputs)}
            try:
                found = MOVES[kind](inputs, attributes)  # type: ignore[arg-type]
            except MALFORMED:
                return None
            return None if found is None else found if isinstance(found, list) else [found]
        if kind in ("Mul", "Div") and self._scalar(node.inputs[1 - at.place]) and (kind == "Mul" or at.place == 0):
            return [at.ids]
        if kind in ("Add", "Sub") and at.heads is None and self._biased(at, kind):
            return [at.ids]
        return self._mixed(at) if kind == "MatMul" else None

    def _scalar(self, key: str) -> bool:
        shape = self.graph.shape(key)
        return shape is not None and np.prod(shape, dtype=int) == 1

    def _biased(self, at: End, kind: str) -> bool:
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
        if at.heads is not None or node.inputs[1 - at.place] in self.graph.tensors or shape is None or at.ids.ndim < 2:
            return None
        axis = -1 if at.place == 1 else -2  # the one that the product keeps
        heads = _heads(at.ids, axis)
        other = -3 - axis
        if heads is None or heads.shape[0] == 0 or (np.take(at.ids, [0], other) != at.ids).any():
            return None
        ids = np.broadcast_to(np.take(at.ids, [0], other), shape)
        return [replace(at, ids=ids, heads=heads, mixed=_sensor(node.outputs[0], ids, axis))]


def _heads(ids: Array, axis: int) -> Array | None:
    """(blocks, width) of positions along an axis that are the same along all others but one, that of the blocks."""
    moved = np.moveaxis(ids, axis, -1)
    for k in range(moved.ndim - 1):
        first = moved.take([0], k)
        moved = first if (first == moved).all() else moved
    if sum(n > 1 for n in moved.shape[:-1]) > 1 or moved.shape[-1] < 2:
        return None
    found = moved.reshape(-1, moved.shape[-1])
    return found if np.unique(found).size == found.size else None


def _block_axis(ids: Array, axis: int) -> int | None:
    """The axis of the blocks of a value; None where there is one block."""
    axes = [k for k in range(ids.ndim) if k != axis % ids.ndim]
    return next((k for k in axes if (ids.take([0], k) != ids).any()), None)


# --- pairs -----------------------------------------------------------------


def _alone(maker: Maker, end: End, heads: Array) -> bool:
    """Whether the positions arrive here and nowhere else."""
    others = [e for e in maker.ends if e is not end]
    return not any(np.isin(heads, e.ids).any() for e in others)


def _arrivals(graph: Graph, makers: Sequence[Maker]) -> Iterator[tuple[Maker, End, Array]]:
    """Positions that a product of two values sums over."""
    for maker in makers:
        for end in maker.ends:
            node = graph.deps.nodes[end.node] if end.node >= 0 else None
            if node is None or node.path or node.proto.op_type != "MatMul" or end.heads is not None or end.ids.ndim < 2:
                continue
            heads = _heads(end.ids, _summed(end))
            if heads is not None and _alone(maker, end, heads):
                yield maker, end, heads


def _summed(end: End) -> int:
    """The axis that a product sums over, from the end."""
    return -1 if end.place == 0 else -2


def _scores(graph: Graph, makers: Sequence[Maker]) -> Iterator[Site]:
    """Queries and keys: logits are sums over the width, in any basis."""
    sides: dict[int, dict[int, tuple[Maker, End, Array]]] = {}
    for maker, end, heads in _arrivals(graph, makers):
        sides.setdefault(end.node, {})[end.place] = maker, end, heads
    for k, pair in sides.items():
        if len(pair) != 2 or pair[0][2].shape != pair[1][2].shape:
            continue
        (one, q, _), (two, key, __) = pair[0], pair[1]
        places = [*_placed(pair[0][0], pair[0][2], True), *_placed(pair[1][0], pair[1][2], False)]
        sensors = [_sensor(end.value, end.ids, _summed(end)) for end in (q, key)]
        tokens = key.ids.ndim - 1 if _softmaxed(graph, k) else None
        site = _grouped(graph, places, (sensors[0],), sensors[1], tokens, False)
        if site is not None and (one is not two or not np.isin(pair[0][2], pair[1][2]).any()):
            yield site


def _softmaxed(graph: Graph, k: int) -> bool:
    """Whether a softmax over the keys follows, for which a constant added to all keys makes no difference."""
    key = graph.deps.nodes[k].outputs[0]
    while len(found := graph.takers.get(key, ())) == 1:
        node = graph.deps.nodes[found[0][0]]
        if node.proto.op_type == "Softmax":
            shape = graph.shape(key)
            return shape is not None and attributes_of(node.proto).get("axis", -1) in (-1, len(shape) - 1)
        if node.proto.op_type not in ("Mul", "Div", "Add"):
            return False
        key = node.outputs[0]
    return False


def _contexts(graph: Graph, makers: Sequence[Maker]) -> Iterator[Site]:
    """Values and the output: tokens are mixed in between, and the width is not."""
    for maker in makers:
        for end in maker.ends:
            if end.heads is None or end.node < 0 or not _alone(maker, end, end.heads):
                continue
            assert end.mixed is not None
            node = graph.deps.nodes[end.node]
            use = graph.use(end.node, 1) if end.place == 0 and node.proto.op_type in MAKERS else None
            attributes = attributes_of(node.proto)
            line = end.ids.reshape(-1, end.ids.shape[-1])
            if use is None or len(use.axes) != 2 or attributes.get("transA", 0) or (line != line[0]).any():
                continue
            where = {int(i): k for k, i in enumerate(line[0])}
            if len(where) != line.shape[1] or not all(int(i) in where for i in end.heads.ravel()):
                continue
            rows = np.vectorize(where.__getitem__, otypes=[np.int64])(end.heads)
            axis = 1 if attributes.get("transB", 0) else 0
            places = [*_placed(maker, end.heads, True), Place(use.source, axis, rows, False)]
            site = _grouped(graph, places, (end.mixed,), None, None, _has_bias(graph, end.node))
            if site is not None:
                yield site


def _has_bias(graph: Graph, k: int) -> bool:
    """Whether what is lost in the mean can go into a bias."""
    node = graph.deps.nodes[k]
    after = graph.takers.get(node.outputs[0], ())
    added = len(after) == 1 and graph.deps.nodes[after[0][0]].proto.op_type == "Add"
    return node.proto.op_type == "Gemm" or (added and graph.use(after[0][0], 1 - after[0][1]) is not None)


def _placed(maker: Maker, heads: Array, along: bool) -> list[Place]:
    return [Place(key, axis, heads, along) for key, axis in maker.places]


def _sensor(value: str, ids: Array, axis: int) -> Sensor:
    block = _block_axis(ids, axis)
    return Sensor(value, axis % ids.ndim, block, 1 if block is None else ids.shape[block])


def _grouped(
    graph: Graph, places: Sequence[Place], made: tuple[Sensor, ...], read: Sensor | None, still: int | None, centred: bool
) -> Site | None:
    """A site, where each position of the width is one channel of a group in all blocks and places; else None."""
    for group in graph.deps.groups:
        channel = {(s.source, s.axis): s.positions for s in group.slots}
        if (places[0].key, places[0].axis) not in channel:
            continue
        names = [_channels(channel.get((p.key, p.axis)), p.positions) for p in places]
        if all(n is not None and np.array_equal(n, names[0]) for n in names):
            assert names[0] is not None
            return Site(group.name, names[0], tuple(places), made, read, still, centred)
    return None


def _channels(slot: Array | None, positions: Array) -> Array | None:
    """(width,): the channel of each position, the same one in all blocks; None where it is not."""
    if slot is None:
        return None
    owner = np.full(max(int(slot.max()), int(positions.max())) + 1, -1)
    owner[slot] = np.arange(len(slot))[:, None]
    found = owner[positions]
    one_each = (found == found[0]).all() and (found >= 0).all() and np.unique(found[0]).size == len(slot)
    return found[0] if one_each else None
