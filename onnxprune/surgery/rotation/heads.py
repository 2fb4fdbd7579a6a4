"""Attention that is written out: widths of each head that queries and keys, or values and the output, share."""

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.model.static import attributes_of
from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.rotation.follow import End, Maker, heads_along, maker_of, makes_widths, sensor_of
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor, WidthPlace


def attention_sites(graph: Graph) -> list[RotationSite]:
    """All pairs of queries and keys, and of values and the output, whose every position goes nowhere else."""
    makers = [m for k in range(len(graph.deps.nodes)) if (m := maker_of(graph, k)) is not None]
    found = [*_scores(graph, makers), *_contexts(graph, makers)]
    taken: set[tuple[str, int, int]] = set()
    out = []
    for site in found:
        own = {(p.key, p.axis, int(i)) for p in site.places for i in p.positions.ravel()}
        if not taken & own:
            taken |= own
            out.append(site)
    return out


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
            heads = heads_along(end.ids, _summed(end))
            if heads is not None and _alone(maker, end, heads):
                yield maker, end, heads


def _summed(end: End) -> int:
    """The axis that a product sums over, from the end."""
    return -1 if end.place == 0 else -2


def _scores(graph: Graph, makers: Sequence[Maker]) -> Iterator[RotationSite]:
    """Queries and keys: logits are sums over the width, in any basis."""
    sides: dict[int, dict[int, tuple[Maker, End, Array]]] = {}
    for maker, end, heads in _arrivals(graph, makers):
        sides.setdefault(end.node, {})[end.place] = maker, end, heads
    for k, pair in sides.items():
        if len(pair) != 2 or pair[0][2].shape != pair[1][2].shape:
            continue
        places = [*_placed(pair[0][0], pair[0][2], True), *_placed(pair[1][0], pair[1][2], False)]
        queries, keys = (sensor_of(end.value, end.ids, _summed(end)) for _, end, _ in (pair[0], pair[1]))
        tokens = pair[1][1].ids.ndim - 1 if _softmaxed(graph, k) else None
        site = _grouped(graph, places, (queries,), keys, tokens, False)
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
        if not (has(node.proto, Trait.MULTIPLIES) or node.proto.op_type == "Add"):
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
            use = graph.use(end.node, 1) if end.place == 0 and makes_widths(node.proto) else None
            attributes = attributes_of(node.proto)
            line = end.ids.reshape(-1, end.ids.shape[-1])
            if use is None or len(use.axes) != 2 or attributes.get("transA", 0) or (line != line[0]).any():
                continue
            where = {int(i): k for k, i in enumerate(line[0])}
            if len(where) != line.shape[1] or not all(int(i) in where for i in end.heads.ravel()):
                continue
            rows = np.vectorize(where.__getitem__, otypes=[np.int64])(end.heads)
            axis = 1 if attributes.get("transB", 0) else 0
            places = [*_placed(maker, end.heads, True), WidthPlace(use.source, axis, rows, False)]
            site = _grouped(graph, places, (end.mixed,), None, None, graph.holds_bias(end.node))
            if site is not None:
                yield site


def _placed(maker: Maker, heads: Array, along: bool) -> list[WidthPlace]:
    return [WidthPlace(key, axis, heads, along) for key, axis in maker.places]


def _grouped(
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
