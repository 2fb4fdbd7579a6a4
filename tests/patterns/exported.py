"""Shapes that exporters give to couplings: heads among the samples, weights in pieces, operators inside a shuffle."""

import numpy as np

from patterns.builder import NONE, ODD, Net, pattern
from patterns.sequences import HEAD, dead_heads


def units_of(net: Net, y: str, c: int, inside: str) -> str:
    """Channel shuffles of two groups with something between their moves, and a unit on the second half."""
    n = c // 2
    for _ in range(2):
        z = net.reshape(y, 1, 2, n, 8, 8)
        z = net.op("Relu", z) if inside == "Relu" else quantised(net, z)
        z = net.transpose(z, 0, 2, 1, 3, 4)
        z = net.reshape(z if inside == "Relu" else quantised(net, z), 1, c, 8, 8)
        left, right = net.op("Split", z, net.ints(n, n), outputs=2, axis=1)
        right = net.cbr(right, n, n, 1)
        y = net.op("Concat", left, right, axis=1)
    return y


def quantised(net: Net, y: str) -> str:
    scale, zero = net.tensor(np.float32(0.02)), net.tensor(np.array(128, np.uint8))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero)


@pattern("shuffle with an activation inside", 1, 3, 8, 8)
def shuffle_relu(net: Net, k: int) -> str:
    return net.head(units_of(net, net.conv("x", 3, 8 * k), 8 * k, "Relu"), 8 * k)


@pattern("shuffle with quantisation inside", 1, 3, 8, 8)
def shuffle_quantised(net: Net, k: int) -> str:
    return net.head(units_of(net, net.conv("x", 3, 8 * k), 8 * k, "QDQ"), 8 * k)


@pattern("two branches weighed by a softmax (SK)", 1, 3, 8, 8)
def selective(net: Net, k: int) -> str:
    """(batch, branches · channels) to (batch, branches, channels), normalised over the branches."""
    c = 8 * k
    branches = [net.cbr("x", 3, c), net.cbr("x", 3, c)]
    stacked = net.op("Concat", *[net.reshape(b, 1, 1, c, 8, 8) for b in branches], axis=1)
    pooled = net.op("GlobalAveragePool", net.op("Add", *branches))
    scores = net.conv(net.cbr(pooled, c, 4 * k, 1), 4 * k, 2 * c, 1)
    weights = net.op("Softmax", net.reshape(scores, 1, 2, c, 1, 1), axis=1)
    y = net.op("ReduceSum", net.op("Mul", stacked, weights), net.ints(1), keepdims=0)
    return net.head(y, c)


def merged_heads(net: Net, k: int, x: str, c: int) -> tuple[list[str], int]:
    """Queries, keys and values (batch · heads, tokens, width), as BART and BLOOM have them; and the heads."""
    heads = 2 * k
    dead = dead_heads(heads) if k > 1 else NONE
    parts = []
    for _ in range(3):
        y = net.reshape(net.project(x, c, heads * HEAD, dead=dead), 0, 0, heads, HEAD)
        parts.append(net.reshape(net.transpose(y, 0, 2, 1, 3), -1, 5, HEAD))
    return parts, heads


def attended(net: Net, q: str, key: str, v: str) -> str:
    scores = net.op("MatMul", q, net.transpose(key, 0, 2, 1))
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v)


@pattern("heads among the samples", 3, 5, 12)
def heads_among_samples(net: Net, k: int) -> str:
    (q, key, v), heads = merged_heads(net, k, "x", 12)
    y = net.transpose(net.reshape(attended(net, q, key, v), 3, heads, 5, HEAD), 0, 2, 1, 3)
    return net.op("Add", "x", net.project(net.reshape(y, 3, 5, heads * HEAD), heads * HEAD, 12, dead=NONE))


@pattern("samples counted from samples and heads (BLOOM)", "N", 5, 12, run=(3, 5, 12))
def counted_samples(net: Net, k: int) -> str:
    (q, key, v), heads = merged_heads(net, k, "x", 12)
    y = attended(net, q, key, v)
    both = net.op("Gather", net.op("Shape", y), net.ints(0), axis=0)
    samples = net.op("Div", both, net.ints(heads))
    y = net.op("Reshape", y, net.op("Concat", samples, net.ints(heads), net.ints(5), net.ints(HEAD), axis=0))
    y = net.transpose(y, 0, 2, 1, 3)
    y = net.op("Reshape", y, net.op("Concat", samples, net.ints(5), net.ints(heads * HEAD), axis=0))
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("cross-attention by slices of one weight", 2, 5, 12)
def sliced_projection(net: Net, k: int) -> str:
    """PyTorch's MultiheadAttention slices its one projection where keys come from elsewhere."""
    heads = 2 * k
    width = heads * HEAD
    dead = dead_heads(heads) if k > 1 else np.zeros(0, int)
    three = np.concatenate([dead + i * width for i in range(3)])
    w, b = net.weight(3 * width, 12, dead=[(0, three)]), net.weight(3 * width, dead=[(0, three)], low=-0.5)
    memory = net.project("x", 12, 12, dead=NONE)
    q = net.op("Add", net.op("MatMul", "x", net.transpose(net.slice(w, 0, width, 0), 1, 0)), net.slice(b, 0, width, 0))
    both = net.op("MatMul", memory, net.transpose(net.slice(w, width, 1 << 40, 0), 1, 0))
    both = net.op("Add", both, net.slice(b, width, 1 << 40, 0))
    key, v = net.op("Split", both, net.ints(width, width), outputs=2, axis=2)
    q, key, v = (net.transpose(net.reshape(y, 2, 5, heads, HEAD), 0, 2, 1, 3) for y in (q, key, v))
    y = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, net.transpose(key, 0, 1, 3, 2)), axis=-1), v)
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 2, 5, width)
    return net.op("Add", "x", net.project(y, width, 12, dead=NONE))


@pattern("LSTM with gates joined from slices", 5, 1, 6)
def joined_gates(net: Net, k: int) -> str:
    """Gates in PyTorch's order are brought into that of ONNX in the graph."""
    c = 6 * k
    dead = np.concatenate([np.arange(1, c, 2) + g * c for g in range(4)])

    def joined(*shape: int, low: float | None = None) -> str:
        w = net.weight(4 * c, *shape, dead=[(0, dead)], low=low)
        i, f, g, o = (net.slice(w, n * c, (n + 1) * c, 0) for n in range(4))
        return net.op("Concat", i, o, f, g, axis=0)

    w, r = (net.op("Unsqueeze", joined(n), net.ints(0)) for n in (6, c))
    b = net.op("Unsqueeze", net.op("Concat", joined(low=-0.5), joined(low=-0.5), axis=0), net.ints(0))
    y = net.op("LSTM", "x", w, r, b, outputs=3, hidden_size=c)[0]
    return net.project(net.op("Squeeze", y, net.ints(1)), c, 3, dead=NONE)


@pattern("scores gathered by relative positions (DeBERTa)", 1, 5, 12)
def relative_positions(net: Net, k: int) -> str:
    (q, key, v), heads = merged_heads(net, k, "x", 12)
    table = net.weight(heads, HEAD, 9, dead=[(0, ODD)])
    places = np.arange(5)[None, :, None] - np.arange(5)[None, None, :] + 4
    nothing = net.op("Cast", net.op("Mul", net.slice("x", 0, 1, 2), net.tensor(np.float32(0))), to=7)
    places = net.op("Add", net.tensor(places.astype(np.int64)), nothing)  # known only when it runs
    places = net.op("Expand", places, net.ints(heads, 5, 5))
    near = net.op("GatherElements", net.op("MatMul", q, table), places, axis=2)
    scores = net.op("Add", net.op("MatMul", q, net.transpose(key, 0, 2, 1)), near)
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.transpose(net.reshape(y, 1, heads, 5, HEAD), 0, 2, 1, 3), 1, 5, heads * HEAD)
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("deformable attention: maps sampled for each head", 1, 3, 6, 6)
def sampled_heads(net: Net, k: int) -> str:
    heads = 2 * k
    dead = dead_heads(heads) if k > 1 else NONE
    y = net.reshape(net.conv("x", 3, heads * HEAD, 1, dead=dead), heads, HEAD, 6, 6)
    grid = net.op("Expand", net.tensor(np.zeros((1, 6, 6, 2), np.float32)), net.ints(heads, 6, 6, 2))
    y = net.op("GridSample", y, grid, align_corners=1)
    return net.head(net.reshape(y, 1, heads * HEAD, 6, 6), heads * HEAD)


@pattern("Einsum with an ellipsis", 1, 5, 12)
def ellipsis(net: Net, k: int) -> str:
    y = net.op("Einsum", "x", net.weight(12, 8 * k, dead=[(1, ODD)]), equation="...i,ij->...j")
    y = net.op("Einsum", net.relu(y), net.weight(6 * k, 8 * k, dead=[(0, ODD)]), equation="...j,kj->...k")
    return net.project(net.relu(y), 6 * k, 3, dead=NONE)


@pattern("repeated for each window, as often as a OneHot says", "n", 3, 8, 8, run=(2, 3, 8, 8))
def repeated_for_windows(net: Net, k: int) -> str:
    """Queries of a whole image for all its windows (GCViT, arXiv:2206.09959), as `repeat_interleave` is exported."""
    c = 8 * k
    y = net.cbr("x", 3, c)
    whole = net.op("Unsqueeze", net.op("GlobalAveragePool", y), net.ints(1))
    windows = net.transpose(net.reshape(y, 0, c, 2, 4, 2, 4), 0, 2, 4, 1, 3, 5)
    windows = net.reshape(windows, -1, c, 4, 4)
    counts = [net.op("Slice", net.op("Shape", z), net.ints(0), net.ints(1)) for z in (windows, y)]
    both = net.op("Concat", net.ints(1), net.op("Div", *counts), axis=0)
    repeats = net.reshape(net.op("OneHot", net.ints(1), net.tensor(np.array(5)), both), -1)
    each = net.reshape(net.op("Tile", whole, repeats), -1, c, 1, 1)
    return net.head(net.cbr(net.op("Mul", windows, each), c, 6 * k), 6 * k)
