"""Residuals, concatenations and splits of convolutional networks."""

import numpy as np
import onnx

from patterns.builder import NONE, ODD, Net, pattern


def block(net: Net, x: str, cin: int, cout: int, project: bool) -> str:
    y = net.conv(net.cbr(x, cin, cout), cout, cout)
    return net.relu(net.op("Add", y, net.conv(x, cin, cout, 1) if project else x))


@pattern("residual identity", 1, 3, 8, 8)
def residual(net: Net, k: int) -> str:
    return net.head(block(net, net.cbr("x", 3, 8 * k), 8 * k, 8 * k, False), 8 * k)


@pattern("residual stage of two blocks", 1, 3, 8, 8)
def residual_stage(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    for _ in range(2):
        y = block(net, y, 8 * k, 8 * k, False)
    return net.head(y, 8 * k)


@pattern("residual with projection", 1, 3, 8, 8)
def residual_projection(net: Net, k: int) -> str:
    y = block(net, net.cbr("x", 3, 8 * k), 8 * k, 8 * k, False)
    return net.head(block(net, y, 8 * k, 12 * k, True), 12 * k)


@pattern("residual with padded shortcut", 1, 3, 8, 8, opset=13)
def residual_pad(net: Net, k: int) -> str:
    """Shortcut type A: every second position, zeros for the new channels."""
    y = net.cbr("x", 3, 8 * k)
    z = net.conv(net.cbr(y, 8 * k, 16 * k, strides=[2, 2]), 16 * k, 16 * k)
    short = net.slice(net.slice(y, 0, 1 << 40, 2, 2), 0, 1 << 40, 3, 2)
    short = net.op("Pad", short, net.ints(0, 4 * k, 0, 0, 0, 4 * k, 0, 0))
    return net.head(net.relu(net.op("Add", z, short)), 16 * k)


@pattern("Concat of branches (Inception)", 1, 3, 8, 8)
def inception(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    for cin in (8, 22):
        branches = [
            net.cbr(y, cin * k, 6 * k, 1),
            net.cbr(net.cbr(y, cin * k, 4 * k, 1), 4 * k, 8 * k),
            net.cbr(net.op("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), cin * k, 8 * k, 1),
        ]
        y = net.op("Concat", *branches, axis=1)
    return net.head(y, 22 * k)


@pattern("dense block (DenseNet)", 1, 3, 8, 8)
def dense(net: Net, k: int) -> str:
    y, c = net.conv("x", 3, 8 * k), 8 * k
    for _ in range(3):
        z = net.conv(net.relu(net.norm(y, c)), c, 8 * k, 1)
        z = net.conv(net.relu(net.norm(z, 8 * k)), 8 * k, 4 * k)
        y, c = net.op("Concat", y, z, axis=1), c + 4 * k
    y = net.op("AveragePool", net.conv(net.relu(net.norm(y, c)), c, 6 * k, 1), kernel_shape=[2, 2], strides=[2, 2])
    return net.head(net.relu(net.norm(y, 6 * k)), 6 * k)


@pattern("U-Net with ConvTranspose", 1, 3, 8, 8)
def unet(net: Net, k: int) -> str:
    a = net.cbr("x", 3, 6 * k)
    b = net.cbr(net.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 6 * k, 10 * k)
    w, bias = net.weight(10 * k, 4 * k, 2, 2, dead=[(1, ODD)]), net.weight(4 * k, dead=[(0, ODD)], low=-0.5)
    up = net.op("ConvTranspose", b, w, bias, strides=[2, 2])
    return net.conv(net.cbr(net.op("Concat", up, a, axis=1), 10 * k, 6 * k), 6 * k, 2, 1, dead=NONE)


@pattern("U-Net with Resize", 1, 3, 8, 8)
def unet_resize(net: Net, k: int) -> str:
    a = net.cbr("x", 3, 6 * k)
    b = net.cbr(a, 6 * k, 10 * k, strides=[2, 2])
    up = net.op("Resize", b, "", net.tensor(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    return net.conv(net.cbr(net.op("Concat", a, up, axis=1), 16 * k, 6 * k), 6 * k, 2, 1, dead=NONE)


@pattern("Split and Concat (C2f)", 1, 3, 8, 8)
def c2f(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 16 * k, 1)
    parts = net.op("Split", y, net.ints(8 * k, 8 * k), outputs=2, axis=1)
    for _ in range(2):
        z = net.cbr(net.cbr(parts[-1], 8 * k, 8 * k), 8 * k, 8 * k)
        parts.append(net.op("Add", parts[-1], z))
    y = net.op("Concat", *parts, axis=1)
    return net.head(net.cbr(y, 32 * k, 12 * k, 1), 12 * k)


@pattern("Slice and Concat (C2f)", 1, 3, 8, 8, opset=13)
def c2f_slice(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 16 * k, 1)
    parts = [net.slice(y, 0, 8 * k, 1), net.slice(y, 8 * k, 1 << 60, 1)]
    z = net.cbr(net.cbr(parts[-1], 8 * k, 8 * k), 8 * k, 8 * k)
    y = net.op("Concat", *parts, z, axis=1)
    return net.head(net.cbr(y, 24 * k, 12 * k, 1), 12 * k)


@pattern("CSP block", 1, 3, 8, 8)
def csp(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    a, b = net.cbr(y, 8 * k, 6 * k, 1), net.cbr(y, 8 * k, 6 * k, 1)
    a = net.op("Add", a, net.cbr(net.cbr(a, 6 * k, 6 * k, 1), 6 * k, 6 * k))
    return net.head(net.cbr(net.op("Concat", a, b, axis=1), 12 * k, 8 * k, 1), 8 * k)


def heads_in_batch(net: Net, rounded: bool = False) -> onnx.ModelProto:
    """Attention as PyTorch's own module writes it, its heads in one axis with a batch that is open."""
    heads, width, tokens = 4, 4, 5
    y = net.transpose(net.op("MatMul", "x", net.weight(6, heads * width)), 1, 0, 2)
    y = net.transpose(net.reshape(y, tokens, -1, width), 1, 0, 2)
    if rounded:  # behind a norm, so that whole heads go
        y = net.op("LayerNormalization", y, net.weight(width, low=0.5), net.weight(width), axis=-1)
        scale, zero = net.tensor(np.array(0.05, np.float32)), net.tensor(np.array(0, np.int8))
        y = net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero)
    scores = net.op("Softmax", net.op("MatMul", y, net.transpose(y, 0, 2, 1)), axis=-1)
    y = net.transpose(net.op("MatMul", scores, y), 1, 0, 2)
    y = net.transpose(net.reshape(y, tokens, -1, heads * width), 1, 0, 2)
    y = net.op("MatMul", y, net.weight(heads * width, 3, dead=[]))
    return net.model(("n", tokens, 6), [y], 1, (2, tokens, 6))
