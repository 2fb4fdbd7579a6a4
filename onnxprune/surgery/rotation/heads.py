"""Attention, written out or in one node: widths of each head that queries and keys, or values and the output, share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.model.static import attributes_of
from onnxprune.operators.own_heads import OwnHeads, own_heads
from onnxprune.operators.registry import Trait, has, operator_of
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
)
from onnxprune.surgery.rotation.grouped import grouped
from onnxprune.surgery.rotation.packed import packed_scores, packed_values
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
    while len(found := graph.takers.get(key, [])) == 1:
        node = graph.deps.nodes[found[0][0]]
        if node.proto.op_type == "Softmax":
            shape = graph.shape(key)
            return shape is not None and attributes_of(node.proto).get("axis", -1) in (-1, len(shape) - 1)
        if not (has(node.proto, Trait.MULTIPLIES) or operator_of(node.proto).signs == (1, 1)):
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
