"""Recurrent layers, attention and what stands around them."""

import numpy as np
from onnx import TensorProto

from patterns.builder import NONE, ODD, Net, pattern

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    net: Net, y: str, kind: str, cin: int, hidden: int, directions: int = 1, states: bool = True
) -> list[str]:
    """A layer over (steps, batch, features) whose odd units are dead: their weights and biases are zero."""
    gates = GATES[kind]
    dead = np.concatenate([np.arange(1, hidden, 2) + g * hidden for g in range(gates)])
    both = np.concatenate([dead, dead + gates * hidden])
    w = net.weight(directions, gates * hidden, cin, dead=[(1, dead)])
    r = net.weight(directions, gates * hidden, hidden, dead=[(1, dead)])
    b = net.weight(directions, 2 * gates * hidden, dead=[(1, both)], low=-0.5)
    zeros = [net.tensor(np.zeros((directions, 1, hidden), np.float32))] if states else []
    inputs = [y, w, r, b, "", *zeros * (2 if kind == "LSTM" else 1)]
    way = {1: "forward", 2: "bidirectional"}[directions]
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    outputs = 3 if kind == "LSTM" else 2
    return net.op(kind, *inputs, outputs=outputs, hidden_size=hidden, direction=way, **extra)


def steps(net: Net, y: str, directions: int, hidden: int) -> str:
    """(steps, directions, batch, hidden) to (steps, batch, directions · hidden), as PyTorch writes it."""
    if directions == 1:
        return net.op("Squeeze", y, net.ints(1))
    return net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)


def between_linears(kind: str, directions: int, states: bool = True) -> None:
    name = f"Linear-{kind}-Linear, {directions} direction{'s' * (directions > 1)}{'' if states else ', no states'}"

    @pattern(name, 5, 1, 6)
    def build(net: Net, k: int) -> str:
        y = net.op("Relu", net.project("x", 6, 8 * k))
        y = steps(net, recurrent(net, y, kind, 8 * k, 6 * k, directions, states)[0], directions, 6 * k)
        return net.project(net.op("Relu", net.project(y, 6 * k * directions, 4 * k)), 4 * k, 3, dead=NONE)


for _kind in GATES:
    between_linears(_kind, 1)
    between_linears(_kind, 2)
between_linears("LSTM", 1, states=False)


@pattern("stacked bidirectional LSTM, last state", 5, 1, 6)
def stacked(net: Net, k: int) -> str:
    c = 6 * k
    y = steps(net, recurrent(net, "x", "LSTM", 6, c, 2)[0], 2, c)
    _, h, _ = recurrent(net, y, "LSTM", 2 * c, c, 2)
    y = net.reshape(net.transpose(h, 1, 0, 2), -1, 2 * c)
    return net.linear(y, 2 * c, 3, dead=NONE)


@pattern("GRU, last step", 5, 1, 6)
def last_step(net: Net, k: int) -> str:
    y = steps(net, recurrent(net, "x", "GRU", 6, 8 * k)[0], 1, 8 * k)
    y = net.op("Gather", y, net.tensor(np.array(-1)), axis=0)
    return net.linear(y, 8 * k, 3, dead=NONE)


@pattern("LSTM with states by ConstantOfShape and Expand", "T", "N", 6, run=(5, 2, 6))
def made_states(net: Net, k: int) -> str:
    c = 8 * k
    batch = net.op("Unsqueeze", net.op("Gather", net.op("Shape", "x"), net.tensor(np.array(1)), axis=0), net.ints(0))
    zeros = net.op("ConstantOfShape", net.op("Concat", net.ints(1), batch, net.ints(c), axis=0))
    other = net.op(
        "Expand", net.tensor(np.zeros((1, 1, 1), np.float32)), net.op("Concat", net.ints(1), batch, net.ints(c), axis=0)
    )
    gates = np.concatenate([np.arange(1, c, 2) + g * c for g in range(4)])
    w = net.weight(1, 4 * c, 6, dead=[(1, gates)])
    r = net.weight(1, 4 * c, c, dead=[(1, gates)])
    b = net.weight(1, 8 * c, dead=[(1, np.concatenate([gates, gates + 4 * c]))], low=-0.5)
    y, h, _ = net.op("LSTM", "x", w, r, b, "", zeros, other, outputs=3, hidden_size=c)
    y = net.op("Add", net.op("Squeeze", y, net.ints(1)), h)
    return net.project(y, c, 3, dead=NONE)


@pattern("convolutional recurrent network", 1, 3, 8, 16)
def crnn(net: Net, k: int) -> str:
    """Columns of a feature map as steps: (N, C, H, W) to (W, N, C · H)."""
    y = net.op("MaxPool", net.cbr("x", 3, 4 * k), kernel_shape=[4, 1], strides=[4, 1])
    y = net.transpose(net.reshape(y, 1, 8 * k, 16), 2, 0, 1)
    y = steps(net, recurrent(net, y, "LSTM", 8 * k, 6 * k, 2)[0], 2, 6 * k)
    return net.project(y, 12 * k, 5, dead=NONE)


# --- attention ---------------------------------------------------------------

HEAD = 4  # width of a head


def dead_heads(heads: int) -> np.ndarray:
    """Positions of every second head."""
    return np.flatnonzero(np.arange(heads * HEAD) // HEAD % 2)


def attend(net: Net, q: str, k: str, v: str, width: int, c: int) -> str:
    """softmax(q kᵀ / √d) v over (batch, heads, tokens, width), and the projection back to `c` features."""
    scores = net.op("Div", net.op("MatMul", q, k), net.tensor(np.float32(np.sqrt(HEAD))))
    y = net.transpose(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    return net.project(net.reshape(y, 1, -1, width), width, c, dead=NONE)


@pattern("self-attention, separate projections", 1, 5, 12)
def attention(net: Net, k: int) -> str:
    heads, c = 2 * k, 12
    dead = dead_heads(heads) if k > 1 else NONE
    q, key, v = (net.reshape(net.project("x", c, heads * HEAD, dead=dead), 1, 5, heads, HEAD) for _ in range(3))
    q, key, v = net.transpose(q, 0, 2, 1, 3), net.transpose(key, 0, 2, 3, 1), net.transpose(v, 0, 2, 1, 3)
    return net.op("Add", "x", attend(net, q, key, v, heads * HEAD, c))


def fused(net: Net, k: int, take: str) -> str:
    heads, c = 2 * k, 12
    dead = dead_heads(heads) if k > 1 else np.zeros(0, int)
    dead = np.concatenate([dead + i * heads * HEAD for i in range(3)])
    y = net.project("x", c, 3 * heads * HEAD, dead=dead)
    if take == "Split":
        parts = net.op("Split", y, net.ints(*[heads * HEAD] * 3), outputs=3, axis=2)
        parts = [net.transpose(net.reshape(p, 1, 5, heads, HEAD), 0, 2, 1, 3) for p in parts]
    else:
        y = net.transpose(net.reshape(y, 1, 5, 3, heads, HEAD), 2, 0, 3, 1, 4)
        if take == "Gather":
            parts = [net.op("Gather", y, net.tensor(np.array(i)), axis=0) for i in range(3)]
        else:
            parts = [net.op("Squeeze", net.slice(y, i, i + 1, 0), net.ints(0)) for i in range(3)]
    q, key, v = parts
    return net.op("Add", "x", attend(net, q, net.transpose(key, 0, 1, 3, 2), v, heads * HEAD, c))


@pattern("self-attention, fused by Split", 1, 5, 12)
def fused_split(net: Net, k: int) -> str:
    return fused(net, k, "Split")


@pattern("self-attention, fused by Gather (ViT)", 1, 5, 12)
def fused_gather(net: Net, k: int) -> str:
    return fused(net, k, "Gather")


@pattern("self-attention, fused by Slice and Squeeze", 1, 5, 12)
def fused_slice(net: Net, k: int) -> str:
    return fused(net, k, "Slice")


@pattern("self-attention with scaled queries and a mask", 1, 5, 12)
def attention_mask(net: Net, k: int) -> str:
    """(batch · heads, tokens, width), as torch.nn.MultiheadAttention is traced."""
    heads, c = 2 * k, 12
    dead = dead_heads(heads) if k > 1 else NONE
    parts = [net.project("x", c, heads * HEAD, dead=dead) for _ in range(3)]
    parts[0] = net.op("Mul", parts[0], net.tensor(np.float32(0.5)))
    q, key, v = (net.transpose(net.reshape(p, 5, heads, HEAD), 1, 0, 2) for p in parts)
    scores = net.op("Add", net.op("MatMul", q, net.transpose(key, 0, 2, 1)), net.weight(1, 5, 5))
    y = net.transpose(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), 1, 0, 2)
    y = net.reshape(y, 5, heads * HEAD)
    y = net.linear(y, heads * HEAD, c, dead=NONE)
    return net.op("Add", "x", net.reshape(y, 1, 5, c))


@pattern("relative position bias for each head (Swin)", 1, 5, 12)
def attention_bias(net: Net, k: int) -> str:
    heads, c = 2 * k, 12
    dead = dead_heads(heads) if k > 1 else NONE
    q, key, v = (
        net.transpose(net.reshape(net.project("x", c, heads * HEAD, dead=dead), 1, 5, heads, HEAD), 0, 2, 1, 3)
        for _ in range(3)
    )
    scores = net.op("Add", net.op("MatMul", q, net.transpose(key, 0, 1, 3, 2)), net.weight(1, heads, 5, 5))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 1, 5, heads * HEAD)
    return net.op("Add", "x", net.project(y, heads * HEAD, c, dead=NONE))


@pattern("grouped-query attention by Expand", 1, 5, 12)
def grouped_query(net: Net, k: int) -> str:
    """Two query heads share each head of keys and values: (N, G, 1, T, D) expands to (N, G, 2, T, D)."""
    shared, c = 2 * k, 12
    heads = 2 * shared
    dead = dead_heads(shared) if k > 1 else NONE
    wide = np.flatnonzero(np.arange(heads * HEAD) // (2 * HEAD) % 2) if k > 1 else NONE
    q = net.transpose(net.reshape(net.project("x", c, heads * HEAD, dead=wide), 1, 5, heads, HEAD), 0, 2, 1, 3)
    parts = []
    for _ in range(2):
        y = net.transpose(net.reshape(net.project("x", c, shared * HEAD, dead=dead), 1, 5, shared, HEAD), 0, 2, 1, 3)
        y = net.op("Expand", net.op("Unsqueeze", y, net.ints(2)), net.ints(1, shared, 2, 5, HEAD))
        parts.append(net.reshape(y, 1, heads, 5, HEAD))
    return net.op("Add", "x", attend(net, q, net.transpose(parts[0], 0, 1, 3, 2), parts[1], heads * HEAD, c))


@pattern("cross-attention of tokens and a feature map", 1, 3, 4, 4)
def cross(net: Net, k: int) -> str:
    heads = 2 * k
    dead = dead_heads(heads) if k > 1 else NONE
    y = net.transpose(net.reshape(net.cbr("x", 3, 8 * k), 1, 8 * k, 16), 0, 2, 1)
    tokens = net.weight(1, 3, 6)
    q, key, v = (
        net.transpose(net.reshape(net.project(z, cin, heads * HEAD, dead=dead), 1, -1, heads, HEAD), 0, 2, 1, 3)
        for z, cin in ((tokens, 6), (y, 8 * k), (y, 8 * k))
    )
    return attend(net, q, net.transpose(key, 0, 1, 3, 2), v, heads * HEAD, 5)


@pattern("transformer MLP and LayerNormalization", 1, 5, 12)
def mlp(net: Net, k: int) -> str:
    y = net.op("LayerNormalization", "x", net.weight(12, low=0.5), net.weight(12), axis=-1)
    y = net.op("Erf", net.project(y, 12, 16 * k))
    return net.op("Add", "x", net.project(y, 16 * k, 12, dead=NONE))


@pattern("gated MLP", 1, 5, 12)
def gated(net: Net, k: int) -> str:
    a = net.project("x", 12, 16 * k, bias=False)
    a = net.op("Mul", a, net.op("Sigmoid", a))
    y = net.op("Mul", a, net.project("x", 12, 16 * k, bias=False))
    return net.op("Add", "x", net.project(y, 16 * k, 12, dead=NONE))


@pattern("embeddings feed a stream", 2, 5, kind=TensorProto.INT64)
def embeddings(net: Net, k: int) -> str:
    """Words, positions and a class token, without normalisation: the stream itself is cut."""
    c = 8 * k
    y = net.op("Gather", net.weight(20, c, dead=[(1, ODD)]), "x", axis=0)
    y = net.op("Add", y, net.op("Gather", net.weight(9, c, dead=[(1, ODD)]), net.ints(0, 1, 2, 3, 4), axis=0))
    token = net.op("Expand", net.weight(1, 1, c, dead=[(2, ODD)]), net.ints(2, 1, c))
    y = net.op("Concat", token, y, axis=1)
    y = net.op("Add", y, net.project(net.op("Relu", net.project(y, c, 6 * k)), 6 * k, c))
    y = net.op("Gather", y, net.tensor(np.array(0)), axis=1)
    return net.linear(y, c, 3, dead=NONE)


@pattern("embedding into a convolution", 1, 7, kind=TensorProto.INT64)
def text_cnn(net: Net, k: int) -> str:
    c = 8 * k
    y = net.transpose(net.op("Gather", net.weight(20, c, dead=[(1, ODD)]), "x", axis=0), 0, 2, 1)
    parts = [net.op("GlobalMaxPool", net.cbr(y, c, 6 * k, size, rank=1, pads=[0, 0])) for size in (2, 3)]
    return net.linear(net.op("Flatten", net.op("Concat", *parts, axis=1)), 12 * k, 3, dead=NONE)


@pattern("Einsum", 1, 5, 12)
def einsum(net: Net, k: int) -> str:
    """Heads and their width are axes of their own, and both are cut."""
    heads, width = 2 * k, 4 * k
    dead = ODD if k > 1 else NONE
    w = [net.weight(12, heads, width, dead=[(1, dead), (2, dead)]) for _ in range(3)]
    q, key, v = (net.op("Einsum", "x", name, equation="bte,ehd->bhtd") for name in w)
    scores = net.op("Softmax", net.op("Einsum", q, key, equation="bhqd,bhkd->bhqk"), axis=-1)
    y = net.op("Einsum", scores, v, equation="bhqk,bhkd->bqhd")
    return net.op("Einsum", y, net.weight(heads, width, 12), equation="bqhd,hde->bqe")
