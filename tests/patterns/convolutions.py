"""Chains, kinds of convolution, gates and shared weights of convolutional networks."""

import numpy as np

from patterns.builder import NONE, ODD, Net, pattern


@pattern("plain chain", 1, 3, 8, 8)
def chain(net: Net, k: int) -> str:
    y = net.cbr(net.cbr("x", 3, 8 * k), 8 * k, 12 * k)
    return net.conv(y, 12 * k, 4, dead=NONE)


@pattern("Conv-BatchNormalization-Relu", 1, 3, 8, 8)
def conv_norm(net: Net, k: int) -> str:
    y = net.relu(net.norm(net.conv("x", 3, 8 * k, bias=False), 8 * k))
    y = net.relu(net.norm(net.conv(y, 8 * k, 6 * k, bias=False), 6 * k))
    return net.head(y, 6 * k)


@pattern("pre-activation", 1, 3, 8, 8)
def preactivation(net: Net, k: int) -> str:
    c = 8 * k
    y = net.conv("x", 3, c)
    for _ in range(2):
        z = net.conv(net.relu(net.norm(y, c)), c, 4 * k, 1)
        y = net.op("Add", net.conv(net.relu(net.norm(z, 4 * k)), 4 * k, c), y)
    return net.head(net.relu(net.norm(y, c)), c)


@pattern("depthwise separable", 1, 3, 8, 8)
def separable(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    y = net.op("Clip", net.conv(y, 8 * k, 8 * k, group=8 * k), net.tensor(np.float32(0)), net.tensor(np.float32(6)))
    return net.head(net.cbr(y, 8 * k, 12 * k, 1), 12 * k)


@pattern("inverted residual", 1, 3, 8, 8)
def inverted(net: Net, k: int) -> str:
    y = net.conv("x", 3, 6 * k)
    for _ in range(2):
        z = net.cbr(net.cbr(y, 6 * k, 16 * k, 1), 16 * k, 16 * k, group=16 * k)
        y = net.op("Add", net.conv(z, 16 * k, 6 * k, 1), y)
    return net.head(net.relu(y), 6 * k)


@pattern("depthwise with multiplier", 1, 3, 8, 8)
def multiplier(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 6 * k)
    pairs = np.flatnonzero(np.arange(12 * k) // 2 % 2)
    return net.head(net.cbr(y, 6 * k, 12 * k, group=6 * k, dead=pairs), 12 * k)


@pattern("grouped convolution", 1, 3, 8, 8)
def grouped(net: Net, k: int) -> str:
    y = net.cbr(net.cbr("x", 3, 16 * k), 16 * k, 8 * k, group=4)
    return net.head(y, 8 * k)


@pattern("grouped bottleneck (ResNeXt)", 1, 3, 8, 8)
def resnext(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k, 1)
    z = net.cbr(net.cbr(y, 8 * k, 16 * k, 1), 16 * k, 16 * k, group=4)
    return net.head(net.relu(net.op("Add", net.conv(z, 16 * k, 8 * k, 1), y)), 8 * k)


def gate(net: Net, y: str, c: int, hidden: int, final: str) -> str:
    s = net.cbr(net.op("GlobalAveragePool", y), c, hidden, 1)
    return net.op("Mul", y, net.op(final, net.conv(s, hidden, c, 1)))


@pattern("squeeze and excitation", 1, 3, 8, 8)
def excitation(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 16 * k)
    y = gate(net, y, 16 * k, 4 * k, "Sigmoid")
    return net.head(gate(net, net.cbr(y, 16 * k, 8 * k), 8 * k, 2 * k, "HardSigmoid"), 8 * k)


@pattern("squeeze and excitation by Gemm", 1, 3, 8, 8)
def excitation_gemm(net: Net, k: int) -> str:
    c = 16 * k
    y = net.cbr("x", 3, c)
    s = net.reshape(net.op("GlobalAveragePool", y), -1, c)
    s = net.op("Sigmoid", net.linear(net.relu(net.linear(s, c, 4 * k)), 4 * k, c))
    return net.head(net.op("Mul", y, net.reshape(s, -1, c, 1, 1)), c)


@pattern("squeeze and excitation by ReduceMean", 1, 3, 8, 8, opset=13)
def excitation_mean(net: Net, k: int) -> str:
    c = 16 * k
    y = net.cbr("x", 3, c)
    s = net.op("ReduceMean", y, axes=[2, 3], keepdims=0)
    s = net.op("Sigmoid", net.linear(net.relu(net.linear(s, c, 4 * k)), 4 * k, c))
    s = net.op("Unsqueeze", net.op("Unsqueeze", s, net.ints(2)), net.ints(3))
    return net.head(net.op("Mul", net.op("Expand", s, net.ints(1, c, 8, 8)), y), c)


@pattern("ConvTranspose", 1, 3, 8, 8)
def transposed(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    for cin, cout in ((8 * k, 6 * k), (6 * k, 4 * k)):
        w, b = net.weight(cin, cout, 4, 4, dead=[(1, ODD)]), net.weight(cout, dead=[(0, ODD)], low=-0.5)
        y = net.relu(net.op("ConvTranspose", y, w, b, strides=[2, 2], pads=[1] * 4))
    return net.conv(y, 4 * k, 3, dead=NONE)


@pattern("grouped and depthwise ConvTranspose", 1, 3, 8, 8)
def transposed_grouped(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    w, b = net.weight(8 * k, 1, 2, 2, dead=[(0, ODD)]), net.weight(8 * k, dead=[(0, ODD)], low=-0.5)
    y = net.relu(net.op("ConvTranspose", y, w, b, strides=[2, 2], group=8 * k))
    w, b = net.weight(8 * k, 4 * k, 2, 2, dead=[(1, ODD)]), net.weight(8 * k, dead=[(0, ODD)], low=-0.5)
    y = net.relu(net.op("ConvTranspose", y, w, b, group=2))
    return net.conv(y, 8 * k, 3, dead=NONE)


@pattern("MaxPool, Resize and Pad between", 1, 3, 8, 8)
def between(net: Net, k: int) -> str:
    y = net.op("MaxPool", net.cbr("x", 3, 8 * k), kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Resize", y, "", net.tensor(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    y = net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    y = net.op("AveragePool", net.cbr(y, 8 * k, 6 * k, pads=[0] * 4), kernel_shape=[2, 2])
    return net.head(y, 6 * k)


@pattern("Resize to sizes that hold the channels", 1, 3, 8, 8)
def resize_sizes(net: Net, k: int) -> str:
    y = net.op("Resize", net.cbr("x", 3, 8 * k), "", "", net.ints(1, 8 * k, 12, 12), mode="nearest")
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("PRelu per channel", 1, 3, 8, 8)
def prelu(net: Net, k: int) -> str:
    y = net.op("PRelu", net.conv("x", 3, 8 * k), net.weight(8 * k, 1, 1, low=0.0))
    return net.head(net.op("LeakyRelu", net.conv(y, 8 * k, 6 * k)), 6 * k)


@pattern("one weight used by two Convs", 1, 3, 8, 8)
def shared_weight(net: Net, k: int) -> str:
    c = 8 * k
    w, b = net.weight(c, c, 3, 3, dead=[(0, ODD)]), net.weight(c, dead=[(0, ODD)], low=-0.5)
    y = net.cbr("x", 3, c)
    for _ in range(2):
        y = net.relu(net.op("Conv", y, w, b, pads=[1] * 4))
    return net.head(y, c)


@pattern("siamese weights", 1, 3, 8, 8)
def siamese(net: Net, k: int) -> str:
    w = net.weight(8 * k, 3, 3, 3, dead=[(0, ODD)])
    a = net.relu(net.op("Conv", "x", w, pads=[1] * 4))
    b = net.relu(net.op("Conv", net.op("Neg", "x"), w, pads=[1] * 4))
    return net.head(net.cbr(net.op("Concat", a, b, axis=1), 16 * k, 6 * k), 6 * k)


@pattern("equal biases shared by several layers", 1, 3, 8, 8)
def shared_bias(net: Net, k: int) -> str:
    b = net.weight(8 * k, dead=[(0, ODD)], low=-0.5)
    twin = net.op("Identity", b)
    y = net.relu(net.op("Conv", "x", net.weight(8 * k, 3, 3, 3, dead=[(0, ODD)]), b, pads=[1] * 4))
    y = net.relu(net.op("Conv", y, net.weight(8 * k, 8 * k, 3, 3, dead=[(0, ODD)]), twin, pads=[1] * 4))
    return net.head(y, 8 * k)


@pattern("two heads", 1, 3, 8, 8)
def two_heads(net: Net, k: int) -> list[str]:
    y = net.cbr("x", 3, 8 * k)
    return [net.head(net.cbr(y, 8 * k, 6 * k), 6 * k), net.conv(y, 8 * k, 2, 1, dead=NONE)]


@pattern("LayerScale", 1, 3, 8, 8)
def layer_scale(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 8 * k)
    y = net.op("Mul", net.conv(y, 8 * k, 8 * k), net.weight(8 * k, 1, 1, low=0.1))
    y = net.op("Add", y, net.weight(1, 8 * k, 1, 1, dead=[(1, ODD)]))
    return net.head(net.op("Div", y, net.weight(1, 8 * k, 1, 1, low=0.5)), 8 * k)


@pattern("Conv1d chain", 1, 3, 16)
def conv1d(net: Net, k: int) -> str:
    y = net.cbr(net.cbr("x", 3, 8 * k, rank=1), 8 * k, 6 * k, rank=1, dilations=[2], pads=[2, 2])
    return net.conv(y, 6 * k, 2, rank=1, dead=NONE)


@pattern("Conv3d chain", 1, 3, 4, 6, 6)
def conv3d(net: Net, k: int) -> str:
    y = net.cbr(net.cbr("x", 3, 8 * k, rank=3), 8 * k, 6 * k, rank=3)
    y = net.op("MaxPool", y, kernel_shape=[2, 2, 2])
    return net.head(y, 6 * k)


@pattern("InstanceNormalization with scale", 1, 3, 8, 8)
def instance_norm(net: Net, k: int) -> str:
    y = net.conv("x", 3, 8 * k)
    y = net.op("InstanceNormalization", y, net.weight(8 * k, low=0.5), net.weight(8 * k, dead=[(0, ODD)], low=-0.5))
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("GlobalAveragePool to Gemm", 1, 3, 8, 8)
def pooled(net: Net, k: int) -> str:
    y = net.op("Flatten", net.op("GlobalAveragePool", net.cbr("x", 3, 8 * k)))
    return net.linear(net.linear(y, 8 * k, 6 * k), 6 * k, 3, dead=NONE, transposed=False)


@pattern("deformable convolution", 1, 3, 8, 8, opset=19)
def deformable(net: Net, k: int) -> str:
    """Offsets and weights of the taps, for each half of the channels, come from convolutions that stay."""
    c = 8 * k
    y = net.cbr("x", 3, c)
    offset, mask = net.conv(y, c, 36, dead=NONE), net.op("Sigmoid", net.conv(y, c, 18, dead=NONE))
    w, b = net.weight(6 * k, c, 3, 3, dead=[(0, ODD)]), net.weight(6 * k, dead=[(0, ODD)], low=-0.5)
    return net.head(net.relu(net.op("DeformConv", y, w, offset, b, mask, offset_group=2, pads=[1] * 4)), 6 * k)
