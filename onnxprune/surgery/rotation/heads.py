"""Attention, written out or in one node: widths of each head that queries and keys, or values and the output, share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.model.graphs import opset_of
from onnxprune.operators.own_heads import OwnHeads, own_heads
from onnxprune.operators.reach import packed_sizes
from onnxprune.operators.registry import Trait, attributes_of, has, operator_of
from onnxprune.surgery.recovery.solvable import multiplies_matrices, multiplies_values
from onnxprune.surgery.rotation.follow import (
    End,
    Maker,
    added_by,
    heads_along,
    heads_of,
    maker_of,
    seen_at,
    sensor_of,
    walked,
)
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor, WidthPlace


def attention_sites(graph: Graph) -> list[RotationSite]:
    """All pairs of queries and keys, and of values and the output, whose every position goes nowhere else."""
    nodes = range(len(graph.deps.nodes))
    makers = [m for k in nodes for m in (maker_of(graph, k), packed_values(graph, k)) if m is not None]
    packed = (site for k in nodes if (site := packed_scores(graph, k)) is not None)
    found = [*packed, *_scores(graph, makers), *_contexts(graph, makers)]
    taken: set[tuple[str, int, int]] = set()
    out = []
    for site in found:
        own = {(p.key, p.axis, int(i)) for p in site.places for i in p.positions.ravel()}
        if not taken & own:
            taken |= own
            out.append(site)
    return out


@dataclass(frozen=True)
class Arrival:
    """Positions of a layer that a product of queries and keys sums over.

    heads: (blocks, width); tokens: axis of the value along which a constant makes no difference to keys, if there is.
    """

    maker: Maker
    end: End
    heads: Array
    sensor: Sensor
    tokens: int | None

    def places(self, along: bool) -> list[WidthPlace]:
        return _placed(self.maker, self.end, self.heads, along)


def _alone(maker: Maker, end: End, heads: Array) -> bool:
    """Whether the positions arrive here and nowhere else."""
    others = [e for e in maker.ends if e is not end]
    return not any(np.isin(heads, e.ids).any() for e in others)


def _arrivals(graph: Graph, makers: Sequence[Maker]) -> Iterator[Arrival]:
    """Positions that a product of two values sums over."""
    for maker in makers:
        for end in maker.ends:
            node = graph.deps.nodes[end.node] if end.node >= 0 else None
            if node is None or node.path or end.heads is not None or end.ids.ndim < 2:
                continue
            found = None
            if multiplies_values(node.proto):
                found = _at_product(graph, maker, end)
            elif (own := own_heads(node.proto)) is not None and not own.packed and end.place < 2:
                found = _at_attention(graph, maker, end, own)
            if found is not None and _alone(maker, end, found.heads):
                yield found


def _at_product(graph: Graph, maker: Maker, end: End) -> Arrival | None:
    heads = heads_along(end.ids, _summed(end))
    tokens = end.ids.ndim - 1 if _softmaxed(graph, end.node) else None
    return heads if heads is None else Arrival(maker, end, heads, sensor_of(end.value, end.ids, _summed(end)), tokens)


def _at_attention(graph: Graph, maker: Maker, end: End, own: OwnHeads) -> Arrival | None:
    heads, added = heads_of(end.ids, own), added_by(graph, end, own)
    if heads is None or added is None:
        return None
    shift = graph.read(added[0][0]).astype(np.float64)[added[0][1]] if added else None
    sensor = seen_at(end.value, end.ids, own, shift)
    return Arrival(maker, replace(end, added=added), heads, sensor, end.ids.ndim - 2)


def _summed(end: End) -> int:
    """The axis that a product sums over, from the end."""
    return -1 if end.place == 0 else -2


def _scores(graph: Graph, makers: Sequence[Maker]) -> Iterator[RotationSite]:
    """Queries and keys: logits are sums over the width, in any basis."""
    sides: dict[int, dict[int, Arrival]] = {}
    for found in _arrivals(graph, makers):
        sides.setdefault(found.end.node, {})[found.end.place] = found
    for pair in sides.values():
        if len(pair) != 2 or pair[0].heads.shape != pair[1].heads.shape:
            continue
        places = [*pair[0].places(True), *pair[1].places(False)]
        site = grouped(graph, places, (pair[0].sensor,), pair[1].sensor, pair[1].tokens, False)
        if site is not None:
            yield site


def _softmaxed(graph: Graph, k: int) -> bool:
    """Whether a softmax over the keys follows, for which a constant added to all keys makes no difference."""
    key = graph.deps.nodes[k].outputs[0]
    while len(found := graph.deps.takers.get(key, [])) == 1:
        node = graph.deps.nodes[found[0][0]]
        row = operator_of(node.proto)
        if row.shift_invariant is not None:
            rank, opset = len(graph.shape(key) or ()), opset_of(graph.network.graph)
            return row.shift_invariant(attributes_of(node.proto), rank, opset) == [rank - 1]
        if not (has(node.proto, Trait.MULTIPLIES) or row.signs == (1, 1)):
            return False
        key = node.outputs[0]
    return False


def _contexts(graph: Graph, makers: Sequence[Maker]) -> Iterator[RotationSite]:
    """Values and the output: tokens are mixed in between, and the width is not."""
    for maker in makers:
        for end in maker.ends:
            if end.heads is None or end.node < 0 or not _alone(maker, end, end.heads):
                continue
            assert end.mixed is not None
            node = graph.deps.nodes[end.node]
            use = graph.use(end.node, 1) if end.place == 0 and multiplies_matrices(node.proto) else None
            attributes = attributes_of(node.proto)
            line = end.ids.reshape(-1, end.ids.shape[-1])
            if use is None or len(use.axes) != 2 or attributes.get("transA", 0) or (line != line[0]).any():
                continue
            where = {int(i): k for k, i in enumerate(line[0])}
            if len(where) != line.shape[1] or not all(int(i) in where for i in end.heads.ravel()):
                continue
            rows = np.vectorize(where.__getitem__, otypes=[np.int64])(end.heads)
            axis = 1 if attributes.get("transB", 0) else 0
            places = [*_placed(maker, end, end.heads, True), WidthPlace(use.source, axis, rows, False)]
            site = grouped(graph, places, (end.mixed,), None, None, graph.holds_bias(end.node))
            if site is not None:
                yield site


def _placed(maker: Maker, end: End, heads: Array, along: bool) -> list[WidthPlace]:
    own = [WidthPlace(key, axis, heads, along) for key, axis in maker.places]
    return own + [WidthPlace(key, 0, positions, along) for key, positions in end.added]


@dataclass(frozen=True)
class Packed:
    """Tensors with all queries, keys and values, as (key, axis), and the positions of each, (heads, width)."""

    tensors: tuple[tuple[str, int], ...]
    queries: Array
    keys: Array
    values: Array


def packed_of(graph: Graph, k: int) -> Packed | None:
    """The weights in a node of attention; None where it holds none, or some that cannot change."""
    node = graph.deps.nodes[k]
    own = own_heads(node.proto) if not node.path else None
    if own is None or not own.packed or (weight := graph.use(k, 1)) is None or len(weight.axes) != 2:
        return None
    total, tensors = weight.axes[1].size, [(weight.source, 1)]
    if own.bias is not None:
        if (bias := graph.use(k, own.bias)) is None:
            return None
        tensors.append((bias.source, 0))
    parts = np.split(np.arange(total), np.cumsum(packed_sizes(total, attributes_of(node.proto)))[:-1])
    return Packed(tuple(tensors), *(part.reshape(own.count, -1) for part in parts))


def packed_scores(graph: Graph, k: int) -> RotationSite | None:
    """Queries and keys of a node that holds their weights."""
    if (held := packed_of(graph, k)) is None:
        return None
    places = [WidthPlace(key, axis, held.queries, True) for key, axis in held.tensors]
    places += [WidthPlace(key, axis, held.keys, False) for key, axis in held.tensors]
    queries, keys = (_inside(graph, k, held, positions) for positions in (held.queries, held.keys))
    return grouped(graph, places, (queries,), keys, 1, False)


def _inside(graph: Graph, k: int, held: Packed, positions: Array) -> Sensor:
    """What a node makes of its input."""
    weight, *bias = (graph.read(key).astype(np.float64)[..., positions.ravel()] for key, _ in held.tensors)
    shift = bias[0].reshape(positions.shape) if bias else None
    return Sensor(graph.deps.nodes[k].inputs[0], 2, None, len(positions), through=weight, shift=shift)


def packed_values(graph: Graph, k: int) -> Maker | None:
    """Values of a node that holds their weights, and where their means over the tokens go."""
    held, out = packed_of(graph, k), graph.deps.nodes[k].outputs[0]
    if held is None or (shape := graph.shape(out)) is None:
        return None
    ids = np.broadcast_to(held.values.ravel(), shape)
    mixed = Sensor(out, 2, None, len(held.values))
    return walked(graph, End(k, 0, out, ids, held.values, mixed), held.tensors)


def grouped(
    graph: Graph,
    places: Sequence[WidthPlace],
    made: tuple[Sensor, ...],
    read: Sensor | None,
    still: int | None,
    centred: bool,
) -> RotationSite | None:
    """A site, where each position of the width is one channel of a group in all blocks and places; else None."""
    for group in graph.deps.groups:
        channel = {(s.source, s.axis): s.positions for s in group.slots}
        if (places[0].key, places[0].axis) not in channel:
            continue
        named = [_channels(channel.get((p.key, p.axis)), p.positions) for p in places]
        names = [n for n in named if n is not None]
        if len(names) == len(places) and all(np.array_equal(n, names[0]) for n in names):
            return RotationSite(group.name, names[0], tuple(places), made, read, still, centred)
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
