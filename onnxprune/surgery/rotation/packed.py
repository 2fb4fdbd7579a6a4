"""Attention in one node that holds the weights of queries, keys and values: their widths are seen in its input."""

from dataclasses import dataclass

import numpy as np

from onnxprune.model.static import attributes_of
from onnxprune.operators.own_heads import own_heads
from onnxprune.operators.reach import packed_sizes
from onnxprune.surgery.rotation.follow import End, Maker, walked
from onnxprune.surgery.rotation.grouped import grouped
from onnxprune.surgery.rotation.sites import Array, Graph, RotationSite, Sensor, WidthPlace


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
