"""Structures whose axes change their part: spatial axes made of channels, groups and heads, banks of weights."""

import numpy as np

from patterns.builder import NONE, Net, pattern


@pattern("pointwise convolution along an axis made of channels", 2, 8, 20)
def over_a_state(net: Net, k: int) -> str:
    """Mixing in a state of few positions (Vision Mamba's hidden state mixer): the positions are channels."""
    read = net.conv("x", 8, 16 * k, 1, rank=1)
    write = net.op("Softmax", net.conv("x", 8, 16 * k, 1, rank=1), axis=-1)
    state = net.op("MatMul", net.conv("x", 8, 6 * k, 1, rank=1), net.transpose(net.op("Mul", write, read), 0, 2, 1))
    mixed = net.relu(net.conv(state, 6 * k, 10 * k, 1, rank=1))
    return net.conv(net.op("MatMul", mixed, read), 10 * k, 4, 1, rank=1, dead=NONE)


def every_second(count: int, width: int) -> np.ndarray:
    """Positions of every second of `count` parts, of `width` positions each."""
    return np.flatnonzero(np.arange(count * width) // width % 2)


@pattern("split attention of several radices and cardinalities", 1, 3, 6, 6)
def split_attention(net: Net, k: int) -> str:
    """ResNeSt (arXiv:2004.08955): a grouped convolution gives the parts between which grouped layers choose."""
    radix, groups, c = 2, 2, 8 * k
    y = net.cbr(net.cbr("x", 3, 16 * k), 16 * k, radix * groups * c, group=radix * groups)
    parts = net.op("Split", y, net.ints(*[groups * c] * radix), outputs=radix, axis=1)
    gate = net.cbr(net.op("GlobalAveragePool", net.op("Add", *parts)), groups * c, groups * 6 * k, 1, group=groups)
    gate = net.conv(gate, groups * 6 * k, radix * groups * c, 1, group=groups)
    gate = net.transpose(net.reshape(gate, 1, groups, radix, c), 0, 2, 1, 3)
    gate = net.reshape(net.op("Softmax", gate, axis=1), 1, radix * groups * c, 1, 1)
    gates = net.op("Split", gate, net.ints(*[groups * c] * radix), outputs=radix, axis=1)
    y = net.op("Add", *(net.op("Mul", a, b) for a, b in zip(parts, gates, strict=True)))
    return net.head(net.cbr(y, groups * c, 6 * k, 1), 6 * k)


@pattern("linear attention whose heads a grouped convolution gathers", 1, 3, 6, 6)
def multi_scale_linear_attention(net: Net, k: int) -> str:
    """EfficientViT (arXiv:2205.14756): queries, keys and values of each head, and the same of wider surroundings."""
    heads, d = 2, 4 * k
    y = net.cbr("x", 3, 8 * k)
    qkv = net.conv(y, 8 * k, 3 * heads * d, 1, bias=False)
    wide = net.conv(qkv, 3 * heads * d, 3 * heads * d, group=3 * heads * d, bias=False)
    wide = net.conv(wide, 3 * heads * d, 3 * heads * d, 1, group=3 * heads, bias=False)
    both = net.reshape(net.op("Concat", qkv, wide, axis=1), 1, 2 * heads, 3 * d, 36)
    q, key, v = net.op("Split", net.transpose(both, 0, 1, 3, 2), net.ints(d, d, d), outputs=3, axis=3)
    states = net.op("MatMul", net.transpose(net.relu(key), 0, 1, 3, 2), v)
    z = net.reshape(net.transpose(net.op("MatMul", net.relu(q), states), 0, 1, 3, 2), 1, 2 * heads * d, 6, 6)
    return net.head(net.op("Add", y, net.conv(z, 2 * heads * d, 8 * k, 1)), 8 * k)


@pattern("one key and one value for all heads", 1, 3, 6, 6)
def multi_query(net: Net, k: int) -> str:
    """Multi-query attention (arXiv:1911.02150): the same share of every head goes."""
    heads, d = 4, 4 * k
    y = net.cbr("x", 3, 8 * k)
    q = net.transpose(net.reshape(net.conv(y, 8 * k, heads * d, 1), 1, heads, d, 36), 0, 1, 3, 2)
    key = net.reshape(net.conv(y, 8 * k, d, 1), 1, 1, d, 36)
    v = net.transpose(net.reshape(net.conv(y, 8 * k, d, 1), 1, 1, d, 36), 0, 1, 3, 2)
    z = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, key), axis=-1), v)
    z = net.conv(net.reshape(net.transpose(z, 0, 1, 3, 2), 1, heads * d, 6, 6), heads * d, 8 * k, 1)
    return net.head(net.op("Add", y, z), 8 * k)


def normalised_heads(net: Net, y: str, heads: int, d: int) -> str:
    """Attention over maps (1, heads * d, 6, 6) of themselves, whose heads are normalised: whole heads go."""
    tokens = net.transpose(net.reshape(y, 1, heads, d, 36), 0, 1, 3, 2)
    q = net.op("LayerNormalization", tokens, net.weight(d, low=0.5), net.weight(d), axis=-1)
    scores = net.op("Softmax", net.op("MatMul", q, net.transpose(tokens, 0, 1, 3, 2)), axis=-1)
    z = net.transpose(net.op("MatMul", scores, tokens), 0, 1, 3, 2)
    return net.head(net.reshape(z, 1, heads * d, 6, 6), heads * d)


@pattern("grouped convolution before heads that are normalised", 1, 3, 6, 6)
def whole_groups(net: Net, k: int) -> str:
    """A group is a head, and they go together."""
    heads, d = 4 * k, 6
    y = net.cbr("x", 3, heads * d, dead=every_second(heads, d))
    y = net.conv(y, heads * d, heads * d, 3, group=heads, dead=every_second(heads, d))
    return normalised_heads(net, y, heads, d)


@pattern("heads folded into the batch", 1, 3, 6, 6)
def heads_in_batch(net: Net, k: int) -> str:
    """MViTv2 (arXiv:2112.01526): one convolution pools the queries of every head, and a norm goes over their width."""
    heads, d = 4 * k, 6
    y = net.conv("x", 3, heads * d, dead=every_second(heads, d))
    pooled = net.conv(net.reshape(y, heads, d, 6, 6), d, d, group=d, dead=NONE, bias=False)
    return normalised_heads(net, net.reshape(pooled, 1, heads * d, 6, 6), heads, d)


@pattern("involution", 1, 3, 6, 6)
def involution(net: Net, k: int) -> str:
    """A kernel for each place and group of channels (arXiv:2103.06255): whole groups go."""
    groups, d = 4 * k, 4
    y = net.cbr("x", 3, groups * d, dead=every_second(groups, d))
    kernels = net.conv(net.cbr(y, groups * d, 6 * k, 1), 6 * k, groups * 9, 1, dead=every_second(groups, 9))
    kernels = net.reshape(kernels, 1, groups, 1, 9, 6, 6)
    wide = net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    places = [net.slice(net.slice(wide, i, i + 6, 2), j, j + 6, 3) for i in range(3) for j in range(3)]
    columns = net.op("Concat", *(net.reshape(p, 1, groups * d, 1, 6, 6) for p in places), axis=2)
    z = net.op("Mul", net.reshape(columns, 1, groups, d, 9, 6, 6), kernels)
    z = net.reshape(net.op("ReduceSum", z, net.ints(3), keepdims=0), 1, groups * d, 6, 6)
    return net.head(z, groups * d)


@pattern("masks along the channels", 1, 3, 6, 6)
def ranges(net: Net, k: int) -> str:
    """Computed from the number of channels: what they say of each channel stays what it was."""
    y = net.conv("x", 3, 8 * k)
    count = net.op("Squeeze", net.op("Slice", net.op("Shape", y), net.ints(1), net.ints(2)))
    places = net.op("Range", net.tensor(np.array(0)), count, net.tensor(np.array(1)))
    early = net.op("Unsqueeze", net.op("Less", places, net.tensor(np.array(5))), net.ints(1, 2))
    late = net.op("Unsqueeze", net.op("Less", net.tensor(np.array(3)), places), net.ints(1, 2))
    return net.head(net.op("Where", net.op("And", early, late), y, net.relu(y)), 8 * k)


@pattern("cost volume filled by ScatterND", "n", 3, 8, 6, run=(2, 3, 8, 6))
def cost_volume(net: Net, k: int) -> str:
    """Two views side by side, the second one shifted (GC-Net, arXiv:1703.04309), by computed indices."""
    c, zero, one = 8 * k, net.tensor(np.array(0)), net.tensor(np.array(1))
    y = net.cbr("x", 3, c)
    batch = net.op("Slice", net.op("Shape", y), net.ints(0), net.ints(1))
    samples = net.op("Unsqueeze", net.op("Range", zero, net.op("Squeeze", batch), one), net.ints(1, 2))
    volume = net.op("ConstantOfShape", net.op("Concat", batch, net.ints(2 * c, 8, 6), axis=0))
    for view, shift in ((0, 0), (1, 2)):
        channels = net.tensor(np.arange(view * c, view * c + c).reshape(1, c, 1), "ints")
        rows = net.tensor(np.arange(shift, 8).reshape(1, 1, 8 - shift), "ints")
        size = net.op("Concat", batch, net.ints(c, 8 - shift), axis=0)
        columns = (net.op("Unsqueeze", net.op("Expand", x, size), net.ints(-1)) for x in (samples, channels, rows))
        volume = net.op("ScatterND", volume, net.op("Concat", *columns, axis=-1), net.slice(y, 0, 8 - shift, 2))
    return net.head(net.cbr(volume, 2 * c, 6 * k), 6 * k)


def mixture(net: Net, y: str, c: int, experts: int) -> str:
    """Weights of some experts for the one sample there is: (1, experts)."""
    pooled = net.op("ReduceMean", y, axes=[2, 3], keepdims=0)
    return net.op("Softmax", net.linear(pooled, c, experts, dead=NONE), axis=1)


def bank(net: Net, experts: int, cout: int, cin: int, taps: int) -> np.ndarray:
    """Filters of each expert, every second of which is zero, in one axis: (experts, out * in * taps)."""
    array = (net.rng.standard_normal((experts, cout, cin, taps)) / np.sqrt(cin * taps)).astype(np.float32)
    array[:, 1::2] = 0
    return array.reshape(experts, -1)


@pattern("filters mixed from a bank for each input", 1, 3, 6, 6)
def mixed_filters(net: Net, k: int) -> str:
    """CondConv (arXiv:1904.04971) and dynamic convolution (arXiv:1912.03458), biases and all."""
    c, d, experts = 8 * k, 6 * k, 3
    y = net.cbr("x", 3, c)
    mixed = mixture(net, y, c, experts)
    filters = net.op("MatMul", mixed, net.tensor(bank(net, experts, d, c, 9), "w"))
    biases = net.op("MatMul", mixed, net.tensor(bank(net, experts, d, 1, 1), "w"))
    z = net.op("Conv", y, net.reshape(filters, d, c, 3, 3), net.reshape(biases, d), pads=[1] * 4)
    return net.head(net.relu(z), d)


@pattern("filters that a layer generates", 1, 3, 6, 6)
def generated_filters(net: Net, k: int) -> str:
    """A hypernetwork (arXiv:1609.09106) with a bias, whose filters come transposed, for a grouped convolution."""
    c, d, groups = 8 * k, 12 * k, 2
    y = net.cbr("x", 3, c)
    code = net.linear(net.op("ReduceMean", y, axes=[2, 3], keepdims=0), c, 4 * k)
    rows = net.rng.standard_normal((c // groups, d, 4 * k)).astype(np.float32)
    rows[:, 1::2] = 0
    bias = net.rng.uniform(-1, 0, (c // groups, d)).astype(np.float32)
    bias[:, 1::2] = 0
    filters = net.op("Gemm", code, net.tensor(rows.reshape(-1, 4 * k), "w"), net.tensor(bias.ravel(), "w"), transB=1)
    filters = net.transpose(net.reshape(filters, c // groups, d, 1, 1), 1, 0, 2, 3)
    return net.head(net.relu(net.op("Conv", y, filters, group=groups)), d)


@pattern("features scattered to places that the data says", "n", 9, run=(10, 9))
def pillars(net: Net, k: int) -> str:
    """PointPillars (arXiv:1812.05784): columns of a canvas are replaced, for all channels, as exporters write it."""
    c = 8 * k
    features = net.relu(net.linear("x", 9, c))
    count = net.op("Slice", net.op("Shape", "x"), net.ints(0), net.ints(1))
    first = net.op("Squeeze", net.op("Slice", "x", net.ints(0), net.ints(1), net.ints(1)), net.ints(1))
    places = net.op("TopK", first, count, outputs=2, axis=0)[1]
    size = net.op("Concat", net.ints(c), count, axis=0)
    rows = net.op("Expand", net.tensor(np.arange(c).reshape(c, 1), "ints"), size)
    columns = (net.op("Unsqueeze", x, net.ints(-1)) for x in (rows, net.op("Expand", places, size)))
    canvas = net.tensor(np.zeros((c, 16), np.float32))
    canvas = net.op("ScatterND", canvas, net.op("Concat", *columns, axis=-1), net.transpose(features, 1, 0))
    return net.head(net.cbr(net.reshape(canvas, 1, c, 4, 4), c, 6 * k), 6 * k)
