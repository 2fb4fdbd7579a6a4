"""Attention and its neighbours as single operators, of the standard and of onnxruntime."""

import numpy as np
from onnx import TensorProto

from patterns.builder import NONE, ODD, Net, pattern
from patterns.sequences import HEAD, dead_heads


def projected(net: Net, heads: int, dead: np.ndarray | slice, bias: bool = True) -> str:
    return net.project("x", 12, heads * HEAD, dead=dead, bias=bias)


def dead_of(k: int, heads: int) -> np.ndarray | slice:
    return dead_heads(heads) if k > 1 else NONE


@pattern("fused Attention", 2, 5, 12)
def attention(net: Net, k: int) -> str:
    heads = 2 * k
    dead = dead_heads(heads) if k > 1 else np.zeros(0, int)
    all_dead = np.concatenate([dead + i * heads * HEAD for i in range(3)])
    w = net.weight(12, 3 * heads * HEAD, dead=[(1, all_dead)])
    b = net.weight(3 * heads * HEAD, dead=[(0, all_dead)])
    y = net.op("com.microsoft:Attention", "x", w, b, num_heads=heads)
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("fused Attention with wide values and a score bias", 2, 5, 12)
def attention_wide(net: Net, k: int) -> str:
    heads = 2 * k
    dead = dead_heads(heads) if k > 1 else np.zeros(0, int)
    wide = np.flatnonzero(np.arange(heads * 6) // 6 % 2) if k > 1 else np.zeros(0, int)
    all_dead = np.concatenate([dead, dead + heads * HEAD, wide + 2 * heads * HEAD])
    w = net.weight(12, heads * (2 * HEAD + 6), dead=[(1, all_dead)])
    b = net.weight(heads * (2 * HEAD + 6), dead=[(0, all_dead)])
    sizes = [heads * HEAD, heads * HEAD, heads * 6]
    bias = net.weight(1, heads, 5, 5)
    y = net.op("com.microsoft:Attention", "x", w, b, "", "", bias, num_heads=heads, qkv_hidden_sizes=sizes)
    return net.op("Add", "x", net.project(y, heads * 6, 12, dead=NONE))


@pattern("MultiHeadAttention", 2, 5, 12)
def multi_head(net: Net, k: int) -> str:
    heads = 2 * k
    dead = dead_of(k, heads)
    parts = [projected(net, heads, dead, bias=False) for _ in range(3)]
    both = np.concatenate([dead_heads(heads) + i * heads * HEAD for i in range(3)]) if k > 1 else NONE
    y = net.op(
        "com.microsoft:MultiHeadAttention", *parts, net.weight(3 * heads * HEAD, dead=[(0, both)]), num_heads=heads
    )
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("GroupQueryAttention with rotary positions", 2, 5, 12)
def group_query(net: Net, k: int) -> str:
    shared, width = 2 * k, 8
    heads = 2 * shared
    wide = np.flatnonzero(np.arange(heads * width) // (2 * width) % 2) if k > 1 else NONE
    dead = np.flatnonzero(np.arange(shared * width) // width % 2) if k > 1 else NONE
    q = net.project("x", 12, heads * width, dead=wide)
    parts = [net.project("x", 12, shared * width, dead=dead) for _ in range(2)]
    tables = [net.weight(8, width // 2, low=0.0) for _ in range(2)]
    places = net.tensor(np.tile(np.arange(5), (2, 1)), "ints")
    q = net.op("com.microsoft:RotaryEmbedding", q, places, *tables)
    parts[0] = net.op("com.microsoft:RotaryEmbedding", parts[0], places, *tables)
    lengths = net.tensor(np.full(2, 4, np.int32), "ints")
    total = net.tensor(np.array(5, np.int32), "ints")
    y, *_ = net.op(
        "com.microsoft:GroupQueryAttention",
        q,
        *parts,
        "",
        "",
        lengths,
        total,
        outputs=3,
        num_heads=heads,
        kv_num_heads=shared,
    )
    return net.op("Add", "x", net.project(y, heads * width, 12, dead=NONE))


@pattern("Attention of the standard, three axes", 2, 5, 12, opset=23)
def standard(net: Net, k: int) -> str:
    heads = 2 * k
    parts = [projected(net, heads, dead_of(k, heads)) for _ in range(3)]
    tables = [net.weight(8, HEAD // 2, low=0.0) for _ in range(2)]
    places = net.tensor(np.tile(np.arange(5), (2, 1)), "ints")
    parts[:2] = [net.op("RotaryEmbedding", p, *tables, places, num_heads=heads) for p in parts[:2]]
    y = net.op("Attention", *parts, q_num_heads=heads, kv_num_heads=heads, is_causal=1)
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("Attention of the standard, four axes and shared keys", 2, 5, 12, opset=23)
def standard_apart(net: Net, k: int) -> str:
    shared = 2 * k
    heads = 2 * shared
    wide = np.flatnonzero(np.arange(heads * HEAD) // (2 * HEAD) % 2) if k > 1 else NONE
    parts = [projected(net, heads, wide), *(projected(net, shared, dead_of(k, shared)) for _ in range(2))]
    sizes = (heads, shared, shared)
    parts = [net.transpose(net.reshape(p, 2, 5, n, HEAD), 0, 2, 1, 3) for p, n in zip(parts, sizes, strict=True)]
    y = net.op("Attention", *parts, net.weight(heads, 5, 5))
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 2, 5, heads * HEAD)
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("FusedMatMul", 1, 5, 12)
def fused_matmul(net: Net, k: int) -> str:
    heads = 2 * k
    parts = [projected(net, heads, dead_of(k, heads)) for _ in range(3)]
    q, key, v = (net.transpose(net.reshape(p, 1, 5, heads, HEAD), 0, 2, 1, 3) for p in parts)
    scores = net.op("com.microsoft:FusedMatMul", q, key, transB=1, alpha=0.5)
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 1, 5, heads * HEAD)
    return net.op("Add", "x", net.project(y, heads * HEAD, 12, dead=NONE))


@pattern("fused embeddings, normalisation and MLP", 2, 5, kind=TensorProto.INT32)
def fused_bert(net: Net, k: int) -> str:
    """The stream is normalised over its features and stays; the hidden layer goes."""
    tables = [net.weight(10, 8), net.weight(9, 8), net.weight(2, 8)]
    segments = net.tensor(np.zeros((2, 5), np.int32), "ints")
    embedding = "com.microsoft:EmbedLayerNormalization"
    y, _ = net.op(embedding, "x", segments, *tables, net.weight(8, low=0.5), net.weight(8), outputs=2)
    w, b = net.weight(8, 12 * k, dead=[(1, ODD)]), net.weight(12 * k, dead=[(0, ODD)])
    hidden = net.op("com.microsoft:BiasGelu", net.op("MatMul", y, w), b)
    hidden = net.op("MatMul", hidden, net.weight(12 * k, 8))
    return net.op(
        "com.microsoft:SkipLayerNormalization", y, hidden, net.weight(8, low=0.5), net.weight(8), net.weight(8)
    )


@pattern("FusedConv with a residual", 1, 3, 8, 8)
def fused_conv(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    w, b = net.weight(8 * k, 8 * k, 3, 3, dead=[(0, ODD)]), net.weight(8 * k, dead=[(0, ODD)])
    y = net.op("com.microsoft:FusedConv", y, w, b, y, activation="Relu", pads=[1] * 4)
    return net.head(y, 8 * k)
