"""Couplings that are met less often: products of maps, maxima over features, tied and computed weights."""

import numpy as np
from onnx import TensorProto

from patterns.builder import NONE, ODD, Net, pattern


@pattern("non-local block", 1, 3, 6, 6)
def non_local(net: Net, k: int) -> str:
    """Queries and keys are contracted without weights: their dead channels have to be zero."""
    c = 8 * k
    y = net.cbr("x", 3, c)
    q, key, v = (net.reshape(net.conv(y, c, n, 1), 1, n, 36) for n in (4 * k, 4 * k, 6 * k))
    scores = net.op("Softmax", net.op("MatMul", net.transpose(q, 0, 2, 1), key), axis=-1)
    z = net.op("MatMul", v, net.transpose(scores, 0, 2, 1))
    z = net.conv(net.reshape(z, 1, 6 * k, 6, 6), 6 * k, c, 1)
    return net.head(net.op("Add", y, z), c)


@pattern("correlation of two maps", 1, 3, 6, 6)
def correlation(net: Net, k: int) -> str:
    a = net.reshape(net.conv(net.cbr("x", 3, 6 * k), 6 * k, 8 * k), 1, 8 * k, 36)
    b = net.reshape(net.conv("x", 3, 8 * k), 1, 8 * k, 36)
    return net.op("Einsum", a, b, equation="bcn,bcm->bnm")


@pattern("maxima of halves by Split", 1, 3, 8, 8)
def max_feature_map(net: Net, k: int) -> str:
    y = net.conv("x", 3, 16 * k)
    y = net.op("Max", *net.op("Split", y, net.ints(8 * k, 8 * k), outputs=2, axis=1))
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("maxima of pairs by Reshape", 1, 3, 8, 8)
def maxout(net: Net, k: int) -> str:
    y = net.conv("x", 3, 16 * k, dead=np.flatnonzero(np.arange(16 * k) // 2 % 2))
    y = net.op("ReduceMax", net.reshape(y, 1, 8 * k, 2, 8, 8), axes=[2], keepdims=0)
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("gated linear unit", 1, 3, 8, 8)
def gated_linear(net: Net, k: int) -> str:
    a, b = net.op("Split", net.conv("x", 3, 16 * k), net.ints(8 * k, 8 * k), outputs=2, axis=1)
    return net.head(net.op("Mul", a, net.op("Sigmoid", b)), 8 * k)


@pattern("embedding tied to the classifier", 2, 5, kind=TensorProto.INT64)
def tied_embedding(net: Net, k: int) -> str:
    c = 8 * k
    table = net.weight(20, c, dead=[(1, ODD)])
    y = net.op("Gather", table, "x", axis=0)
    y = net.op("Add", y, net.project(net.op("Relu", net.project(y, c, 6 * k)), 6 * k, c))
    return net.op("MatMul", y, net.transpose(table, 1, 0))


@pattern("weights computed in the graph", 1, 3, 8, 8)
def computed_weights(net: Net, k: int) -> str:
    """Weight normalisation: a direction of unit length for each filter, and a length."""
    y = net.cbr("x", 3, 8 * k)
    v, g = net.weight(6 * k, 8 * k, 3, 3, dead=[(0, ODD)]), net.weight(6 * k, 1, 1, 1, dead=[(0, ODD)], low=0.5)
    w = net.op("Mul", v, g)
    y = net.relu(net.op("Conv", y, w, net.weight(6 * k, dead=[(0, ODD)]), pads=[1] * 4))
    return net.head(y, 6 * k)


@pattern("bias added apart from the convolution", 1, 3, 8, 8)
def bias_apart(net: Net, k: int) -> str:
    y = net.op("Add", net.conv("x", 3, 8 * k, bias=False), net.weight(8 * k, 1, 1, dead=[(0, ODD)]))
    y = net.op("Mul", net.relu(y), net.weight(1, 8 * k, 1, 1, low=0.5))
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("length of feature vectors", 1, 3, 8, 8)
def unit_length(net: Net, k: int) -> str:
    y = net.op("Flatten", net.op("GlobalAveragePool", net.cbr("x", 3, 8 * k)))
    y = net.linear(y, 8 * k, 6 * k)
    y = net.op("Div", y, net.op("ReduceL2", y, axes=[1], keepdims=1))
    return net.linear(y, 6 * k, 3, dead=NONE)


@pattern("skip with an average pool and a crop", 1, 3, 8, 8)
def pooled_skip(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    z = net.conv(net.cbr(y, 8 * k, 4 * k, strides=[2, 2]), 4 * k, 12 * k)
    short = net.conv(net.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), 8 * k, 12 * k, 1)
    y = net.relu(net.op("Add", z, short))
    cropped = net.slice(net.slice(y, 1, 3, 2), 1, 3, 3)
    return net.head(net.cbr(cropped, 12 * k, 6 * k), 6 * k)


@pattern("Gemm with its operands turned", 4, 6)
def turned(net: Net, k: int) -> str:
    """Activations in columns: transA, alpha and beta, and no bias."""
    y = net.relu(net.linear("x", 6, 8 * k))
    y = net.op("Gemm", net.transpose(y, 1, 0), net.weight(8 * k, 6 * k, dead=[(1, ODD)]), transA=1, alpha=0.5)
    w, b = net.weight(3, 6 * k), net.weight(1, 3)
    return net.op("Gemm", net.relu(y), w, b, transB=1, beta=2.0)


@pattern("dynamic integer convolution", 1, 3, 8, 8)
def dynamic_conv(net: Net, k: int) -> str:
    y = "x"
    for cin, cout in ((3, 8 * k), (8 * k, 6 * k)):
        q, scale, zero = net.op("DynamicQuantizeLinear", y, outputs=3)
        array = net.rng.integers(-90, 90, (cout, cin, 3, 3)).astype(np.int8)
        array[ODD] = 0
        w, point = net.tensor(array, "w"), net.tensor(np.array(0, np.int8))
        y = net.op("Cast", net.op("ConvInteger", q, w, zero, point, pads=[1] * 4), to=1)
        y = net.op("Mul", y, net.op("Mul", scale, net.tensor(np.float32(0.01))))
        y = net.relu(net.op("Add", y, net.weight(1, cout, 1, 1, dead=[(1, ODD)], low=-0.5)))
    return net.head(y, 6 * k)


@pattern("norm by the mean of squares", 1, 3, 8, 8)
def mean_of_squares(net: Net, k: int) -> str:
    """A stream of tokens behind RMS norms: removed channels count in the mean by their number."""
    c = 8 * k
    y = stream = net.project(net.transpose(net.reshape("x", 1, 3, 64), 0, 2, 1), 3, c)
    for _ in range(2):
        square = net.op("ReduceMean", net.op("Mul", y, y), axes=[-1])
        y = net.op("Div", y, net.op("Sqrt", net.op("Add", square, net.tensor(np.float32(0.1)))))
        y = net.project(net.op("Mul", y, net.weight(c, dead=[(0, ODD)], low=0.5)), c, c)
        y = stream = net.op("Add", stream, net.relu(y))
    return net.project(y, c, 3, dead=NONE)


@pattern("global response normalisation", 1, 3, 8, 8)
def global_response(net: Net, k: int) -> str:
    c = 8 * k
    y = net.cbr("x", 3, c)
    length = net.op("ReduceL2", y, axes=[2, 3])
    mean = net.op("Add", net.op("ReduceMean", length, axes=[1]), net.tensor(np.float32(1e-6)))
    z = net.op("Mul", net.op("Mul", y, net.op("Div", length, mean)), net.weight(1, c, 1, 1, dead=[(1, ODD)], low=0.5))
    return net.head(net.op("Add", y, z), c)


@pattern("sums over the neighbours in a graph", 6, 3)
def neighbours(net: Net, k: int) -> str:
    """Which node a message goes to is expanded over its channels, as exporters write `scatter_add`."""
    y = net.linear("x", 3, 8 * k)
    to = net.op("ArgMax", net.op("MatMul", "x", net.weight(3, 6)), axis=-1, keepdims=1)
    for c, wider in ((8 * k, 6 * k), (6 * k, 4 * k)):
        sizes = net.op("Shape", y)
        sums = net.op("ConstantOfShape", sizes)
        y = net.op("ScatterElements", sums, net.op("Expand", to, sizes), y, axis=0, reduction="add")
        y = net.relu(net.linear(y, c, wider))
    return net.linear(y, 4 * k, 3, dead=NONE)


@pattern("experts that the data choose", 5, 12)
def experts(net: Net, k: int) -> str:
    """Each sample picks its matrices out of two banks, by GatherND and by Gather."""
    c, inner = 8 * k, 6 * k
    y = net.relu(net.linear("x", 12, c))
    choice = net.op("ArgMax", net.op("MatMul", y, net.weight(c, 4)), axis=-1, keepdims=0)
    first = net.op("GatherND", net.weight(4, inner, c, dead=[(1, ODD)]), net.op("Unsqueeze", choice, net.ints(-1)))
    second = net.op("Gather", net.weight(4, c, inner, dead=[(1, ODD)]), choice, axis=0)
    z = net.relu(net.op("MatMul", first, net.op("Unsqueeze", y, net.ints(-1))))
    z = net.op("Squeeze", net.op("MatMul", second, z), net.ints(-1))
    return net.linear(net.op("Add", y, z), c, 3, dead=NONE)
