"""Quantised networks: pairs of QuantizeLinear and DequantizeLinear, integer operators, dynamic scales."""

import numpy as np

from patterns.builder import NONE, ODD, Dead, Net, pattern


def scalar(net: Net, value: float) -> str:
    return net.tensor(np.float32(value))


def zero(net: Net, kind: type = np.int8) -> str:
    return net.tensor(np.array(3 if kind is np.uint8 else 0, kind))


def requantize(net: Net, y: str) -> str:
    scale, point = scalar(net, 0.05), zero(net, np.uint8)
    return net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, point), scale, point)


def integers(net: Net, *shape: int, axis: int, dead: Dead = ODD) -> tuple[str, str, str]:
    """int8 weights, scales and zero points of each channel of an axis."""
    array = net.rng.integers(-90, 90, shape).astype(np.int8)
    array[(slice(None),) * axis + (dead,)] = 0
    n = shape[axis]
    scales = net.tensor(net.rng.uniform(0.002, 0.01, n).astype(np.float32), "scales")
    return net.tensor(array, "w"), scales, net.tensor(np.zeros(n, np.int8))


def biases(net: Net, n: int, dead: Dead = ODD) -> str:
    array = net.rng.integers(-500, 500, n).astype(np.int32)
    array[dead] = 0
    return net.tensor(array, "bias")


def dequantized_conv(net: Net, y: str, cin: int, cout: int, dead: Dead = ODD, group: int = 1) -> str:
    w, scales, points = integers(net, cout, cin // group, 3, 3, axis=0, dead=dead)
    real = net.op("DequantizeLinear", w, scales, points, axis=0)
    bias = net.op("DequantizeLinear", biases(net, cout, dead), net.tensor(np.full(cout, 1e-3, np.float32)), axis=0)
    return net.op("Conv", y, real, bias, pads=[1] * 4, group=group)


@pattern("QDQ, scales of each channel", 1, 3, 8, 8)
def qdq(net: Net, k: int) -> str:
    c = 8 * k
    y = requantize(net, net.relu(dequantized_conv(net, requantize(net, "x"), 3, c)))
    z = requantize(net, net.relu(dequantized_conv(net, y, c, c, group=c)))
    y = requantize(net, net.op("Add", requantize(net, dequantized_conv(net, z, c, c)), y))
    return net.head(requantize(net, net.op("GlobalAveragePool", y)), c)


def integer_conv(net: Net, y: str, cin: int, cout: int, dead: Dead = ODD) -> str:
    w, scales, points = integers(net, cout, cin, 3, 3, axis=0, dead=dead)
    scale, point = scalar(net, 0.05), zero(net, np.uint8)
    return net.op(
        "QLinearConv", y, scale, point, w, scales, points, scale, point, biases(net, cout, dead), pads=[1] * 4
    )


@pattern("integer convolutions and additions", 1, 3, 8, 8)
def qlinear(net: Net, k: int) -> str:
    scale, point = scalar(net, 0.05), zero(net, np.uint8)
    y = integer_conv(net, net.op("QuantizeLinear", "x", scale, point), 3, 8 * k)
    z = integer_conv(net, y, 8 * k, 8 * k)
    y = net.op("com.microsoft:QLinearAdd", y, scale, point, z, scale, point, scale, point)
    y = net.op("com.microsoft:QLinearConcat", scale, point, y, scale, point, z, scale, point, axis=1)
    y = net.op("com.microsoft:QLinearGlobalAveragePool", y, scale, point, scale, point)
    y = net.op("Flatten", y)
    w, scales, points = integers(net, 6 * k, 16 * k, axis=0)
    y = net.op("com.microsoft:QGemm", y, scale, point, w, scales, points, biases(net, 6 * k), scale, point, transB=1)
    w, scales, points = integers(net, 6 * k, 3, axis=1, dead=NONE)
    y = net.op("QLinearMatMul", y, scale, point, w, scales, points, scale, point)
    return net.op("DequantizeLinear", y, scale, point)


def dynamic(net: Net, y: str, cin: int, cout: int, dead: Dead = ODD) -> str:
    """MatMul as `quantize_dynamic` writes it."""
    y, y_scale, y_zero = net.op("DynamicQuantizeLinear", y, outputs=3)
    w, scales, points = integers(net, cin, cout, axis=1, dead=dead)
    y = net.op("Cast", net.op("MatMulInteger", y, w, y_zero, points), to=1)
    y = net.op("Mul", y, net.op("Mul", y_scale, scales))
    return net.op("Add", y, net.weight(cout, dead=[(0, dead)], low=-0.5))


@pattern("dynamic quantisation", 4, 6)
def dynamic_chain(net: Net, k: int) -> str:
    """Scales over all channels: dead ones do not move them, since zero is always in range."""
    y = net.relu(dynamic(net, "x", 6, 8 * k))
    return dynamic(net, net.relu(dynamic(net, y, 8 * k, 6 * k)), 6 * k, 3, dead=NONE)
