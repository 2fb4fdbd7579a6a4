"""Channels on the move: flattened, shuffled, folded into space, sliced, normalised in groups."""

import numpy as np

from patterns.builder import NONE, ODD, Net, pattern


@pattern("inner tensor is an output", 1, 3, 8, 8, full=False)
def inner_output(net: Net, k: int) -> list[str]:
    """What is handed out stays whole (width 1 for both); all else is cut."""
    y = net.cbr("x", 3, 8, dead=NONE)
    z = net.cbr(net.cbr(y, 8, 8 * k), 8 * k, 6 * k)
    return [y, net.head(z, 6 * k)]


def flatten_dead(c: int, spatial: int) -> np.ndarray:
    return np.flatnonzero(np.arange(c * spatial) // spatial % 2)


@pattern("Flatten to Gemm, spatial size > 1", 1, 3, 8, 8)
def flatten(net: Net, k: int) -> str:
    y = net.op("Flatten", net.op("MaxPool", net.cbr("x", 3, 6 * k), kernel_shape=[2, 2], strides=[2, 2]))
    return net.linear(net.relu(net.linear(y, 96 * k, 10 * k)), 10 * k, 3, dead=NONE)


@pattern("Reshape to Gemm, spatial size > 1", 1, 3, 4, 4)
def flatten_reshape(net: Net, k: int) -> str:
    y = net.reshape(net.cbr("x", 3, 6 * k), 1, 96 * k)
    return net.linear(net.relu(net.linear(y, 96 * k, 10 * k)), 10 * k, 3, dead=NONE)


@pattern("Reshape of a dynamic batch to Gemm", "N", 3, 4, 4, run=(2, 3, 4, 4))
def flatten_dynamic(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 6 * k)
    batch = net.op("Unsqueeze", net.op("Gather", net.op("Shape", y), net.tensor(np.array(0)), axis=0), net.ints(0))
    y = net.op("Reshape", y, net.op("Concat", batch, net.ints(96 * k), axis=0))
    return net.linear(y, 96 * k, 3, dead=NONE)


@pattern("channels-last flatten to MatMul", 2, 3, 4, 4)
def flatten_last(net: Net, k: int) -> str:
    y = net.reshape(net.transpose(net.cbr("x", 3, 6 * k), 0, 2, 3, 1), -1, 96 * k)
    return net.project(net.relu(net.project(y, 96 * k, 10 * k)), 10 * k, 3, dead=NONE)


@pattern("channels-last chain (tf2onnx)", 2, 8, 8, 3)
def channels_last(net: Net, k: int) -> str:
    y = net.transpose(net.cbr(net.transpose("x", 0, 3, 1, 2), 3, 8 * k), 0, 2, 3, 1)
    y = net.op("Add", y, net.weight(8 * k, dead=[(0, ODD)]))
    y = net.cbr(net.transpose(y, 0, 3, 1, 2), 8 * k, 6 * k)
    y = net.op("ReduceMean", net.transpose(y, 0, 2, 3, 1), axes=[1, 2], keepdims=0)
    return net.project(y, 6 * k, 3, dead=NONE)


def shuffle(net: Net, y: str, groups: int, c: int, size: int = 8) -> str:
    y = net.transpose(net.reshape(y, -1, groups, c // groups, size, size), 0, 2, 1, 3, 4)
    return net.reshape(y, -1, c, size, size)


def shuffled(c: int, groups: int, dead: np.ndarray) -> np.ndarray:
    """Where dead channels are after a shuffle."""
    order = np.arange(c).reshape(groups, -1).T.ravel()
    return np.flatnonzero(np.isin(order, dead))


@pattern("channel shuffle", 1, 3, 8, 8)
def channel_shuffle(net: Net, k: int) -> str:
    c = 16 * k
    y = shuffle(net, net.cbr("x", 3, c), 2, c)
    dead = shuffled(c, 2, np.arange(1, c, 2))
    return net.head(net.cbr(net.cbr(y, c, c, group=c, dead=dead), c, 8 * k, 1), 8 * k)


@pattern("ShuffleNetV1 units", 1, 3, 8, 8)
def shufflenet_v1(net: Net, k: int) -> str:
    c = 16 * k
    y = net.cbr("x", 3, c)
    for _ in range(2):
        z = shuffle(net, net.cbr(y, c, c, 1, group=2), 2, c)
        dead = shuffled(c, 2, np.arange(1, c, 2))
        z = net.conv(net.conv(z, c, c, group=c, dead=dead), c, c, 1, group=2)
        y = net.relu(net.op("Add", z, y))
    return net.head(y, c)


@pattern("ShuffleNetV2 units", 1, 3, 8, 8)
def shufflenet_v2(net: Net, k: int) -> str:
    """Three units: which channels of the first layer are dead decides it for all that is passed on."""
    c = 24 * k
    dead = np.arange(1, c, 2)
    y = net.cbr("x", 3, c, dead=dead)
    for _ in range(3):
        a, b = net.op("Split", y, net.ints(c // 2, c // 2), outputs=2, axis=1)
        kept, half = dead[dead < c // 2], dead[dead >= c // 2] - c // 2
        b = net.conv(net.cbr(b, c // 2, c // 2, 1), c // 2, c // 2, group=c // 2)
        new = np.arange(c // 2)[len(half) % 1 + 1 :: 2][: c // 4]
        b = net.cbr(b, c // 2, c // 2, 1, dead=new)
        dead = shuffled(c, 2, np.concatenate([kept, new + c // 2]))
        y = shuffle(net, net.op("Concat", a, b, axis=1), 2, c)
    return net.head(net.cbr(y, c, 8 * k, 1), 8 * k)


@pattern("ShuffleNetV2 by Slice", 1, 3, 8, 8, opset=12)
def shufflenet_slice(net: Net, k: int) -> str:
    c = 16 * k
    y = shuffle(net, net.cbr("x", 3, c), 2, c)
    a, b = net.slice(y, 0, c // 2, 1), net.slice(y, c // 2, c, 1)
    return net.head(net.op("Concat", a, net.cbr(b, c // 2, c // 2, 1), axis=1), c)


def even_and_odd(net: Net, y: str, c: int, by: str) -> list[str]:
    """The halves of a shuffle without the shuffle: channels (c/2, 2) are turned and picked."""
    y = net.transpose(net.reshape(y, c // 2, 2, 64), 1, 0, 2)
    y = net.reshape(y, 2, -1, c // 2, 8, 8)
    if by == "Gather":
        return [net.op("Gather", y, net.tensor(np.array(i)), axis=0) for i in range(2)]
    return [net.op("Squeeze", net.slice(y, i, i + 1, 0), net.ints(0)) for i in range(2)]


def picked_shuffle(net: Net, k: int, by: str) -> str:
    c = 16 * k
    dead = np.flatnonzero(np.arange(c) // 2 % 2)
    a, b = even_and_odd(net, net.cbr("x", 3, c, dead=dead), c, by)
    y = net.op("Concat", a, net.cbr(net.cbr(b, c // 2, c // 2, 1), c // 2, c // 2, 1), axis=1)
    a, b = even_and_odd(net, net.cbr(y, c, c, 1, dead=dead), c, by)
    return net.head(net.op("Add", a, b), c // 2)


@pattern("shuffle that picks halves by Gather (Megvii)", 1, 3, 8, 8)
def halves_gather(net: Net, k: int) -> str:
    return picked_shuffle(net, k, "Gather")


@pattern("shuffle that picks halves by Slice and Squeeze", 1, 3, 8, 8)
def halves_slice(net: Net, k: int) -> str:
    return picked_shuffle(net, k, "Slice")


def blocks_dead(c: int, square: int, inner: bool) -> np.ndarray:
    """Channels of a pixel shuffle whose odd outputs are dead."""
    channel = np.arange(c) // square if inner else np.arange(c) % (c // square)
    return np.flatnonzero(channel % 2)


@pattern("DepthToSpace CRD (PixelShuffle)", 1, 3, 6, 6)
def pixel_shuffle(net: Net, k: int) -> str:
    y = net.conv(net.cbr("x", 3, 8 * k), 8 * k, 16 * k, dead=blocks_dead(16 * k, 4, True))
    return net.conv(net.relu(net.op("DepthToSpace", y, blocksize=2, mode="CRD")), 4 * k, 3, dead=NONE)


@pattern("DepthToSpace DCR", 1, 3, 6, 6)
def depth_to_space(net: Net, k: int) -> str:
    y = net.conv(net.cbr("x", 3, 8 * k), 8 * k, 16 * k, dead=blocks_dead(16 * k, 4, False))
    return net.conv(net.relu(net.op("DepthToSpace", y, blocksize=2, mode="DCR")), 4 * k, 3, dead=NONE)


@pattern("PixelShuffle by Reshape and Transpose", 1, 3, 6, 6)
def pixel_shuffle_reshape(net: Net, k: int) -> str:
    y = net.conv(net.cbr("x", 3, 8 * k), 8 * k, 16 * k, dead=blocks_dead(16 * k, 4, True))
    y = net.transpose(net.reshape(y, -1, 4 * k, 2, 2, 6, 6), 0, 1, 4, 2, 5, 3)
    return net.conv(net.relu(net.reshape(y, -1, 4 * k, 12, 12)), 4 * k, 3, dead=NONE)


@pattern("PixelShuffle at the end", 1, 3, 6, 6)
def pixel_shuffle_last(net: Net, k: int) -> str:
    y = net.conv(net.cbr("x", 3, 8 * k), 8 * k, 12, dead=NONE)
    y = net.transpose(net.reshape(y, -1, 3, 2, 2, 6, 6), 0, 1, 4, 2, 5, 3)
    return net.reshape(y, -1, 3, 12, 12)


@pattern("SpaceToDepth", 1, 3, 8, 8)
def space_to_depth(net: Net, k: int) -> str:
    y = net.op("SpaceToDepth", net.cbr("x", 3, 4 * k), blocksize=2)
    return net.head(net.cbr(y, 16 * k, 6 * k), 6 * k)


@pattern("SpaceToDepth by Reshape and Transpose", 1, 3, 8, 8)
def space_to_depth_reshape(net: Net, k: int) -> str:
    """Reorganisation of YOLOv2 and pixel unshuffle."""
    y = net.reshape(net.cbr("x", 3, 4 * k), -1, 4 * k, 4, 2, 4, 2)
    y = net.reshape(net.transpose(y, 0, 1, 3, 5, 2, 4), -1, 16 * k, 4, 4)
    return net.head(net.cbr(y, 16 * k, 6 * k), 6 * k)


def focus(net: Net, y: str) -> str:
    corners = [net.slice(net.slice(y, i, 1 << 40, 2, 2), j, 1 << 40, 3, 2) for j in (0, 1) for i in (0, 1)]
    return net.op("Concat", *corners, axis=1)


@pattern("focus slices (YOLOv5)", 1, 3, 8, 8, opset=13)
def focus_slices(net: Net, k: int) -> str:
    y = net.cbr(focus(net, "x"), 12, 4 * k)
    return net.head(net.cbr(focus(net, y), 16 * k, 6 * k), 6 * k)


@pattern("Slice on channels", 1, 3, 8, 8, opset=13)
def slice_channels(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 16 * k)
    y = net.slice(y, 4 * k, 12 * k, 1)
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k, 3)


@pattern("Slice of some channels, others read too", 1, 3, 8, 8, opset=13)
def slice_some(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 12 * k)
    a = net.cbr(net.slice(y, 0, 4 * k, 1), 4 * k, 6 * k)
    b = net.cbr(y, 12 * k, 6 * k)
    return net.head(net.op("Add", a, b), 6 * k)


@pattern("Gather on channels", 1, 3, 8, 8)
def gather_channels(net: Net, k: int) -> str:
    y = net.op("Gather", net.cbr("x", 3, 8 * k), net.ints(*range(8 * k - 1, -1, -1)), axis=1)
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("dynamic batch and size, Resize to another tensor's size", "N", 3, "H", "W", run=(2, 3, 8, 12))
def dynamic_resize(net: Net, k: int) -> str:
    a = net.cbr("x", 3, 6 * k)
    b = net.cbr(a, 6 * k, 8 * k, strides=[2, 2])
    size = net.op("Slice", net.op("Shape", a), net.ints(2), net.ints(4), net.ints(0))
    head = net.op("Slice", net.op("Shape", b), net.ints(0), net.ints(2), net.ints(0))
    up = net.op("Resize", b, "", "", net.op("Concat", head, size, axis=0), mode="nearest")
    return net.conv(net.cbr(net.op("Concat", up, a, axis=1), 14 * k, 6 * k), 6 * k, 2, dead=NONE)


def shape_of(net: Net, y: str, axis: int) -> str:
    size = net.op("Gather", net.op("Shape", y), net.tensor(np.array(axis)), axis=0)
    return net.op("Unsqueeze", size, net.ints(0))


@pattern("dynamic shuffle with computed sizes", "N", 3, "H", "W", run=(2, 3, 8, 12))
def dynamic_shuffle(net: Net, k: int) -> str:
    """Channels per group by Div, as PyTorch traces `x.size(1) // groups`."""
    c = 16 * k
    y = net.cbr("x", 3, c)
    n, ch, h, w = (shape_of(net, y, axis) for axis in range(4))
    per = net.op("Div", ch, net.ints(2))
    z = net.op("Reshape", y, net.op("Concat", n, net.ints(2), per, h, w, axis=0))
    y = net.op("Reshape", net.transpose(z, 0, 2, 1, 3, 4), net.op("Concat", n, net.ints(-1), h, w, axis=0))
    return net.head(net.cbr(y, c, 8 * k, 1), 8 * k)


@pattern("baked Reshape that changes nothing", "N", 3, 8, 8, run=(2, 3, 8, 8))
def baked_reshape(net: Net, k: int) -> str:
    y = net.reshape(net.cbr("x", 3, 8 * k), -1, 8 * k, 64)
    y = net.reshape(y, -1, 8 * k, 8, 8)
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("GroupNormalization", 1, 3, 8, 8, opset=21)
def group_norm(net: Net, k: int) -> str:
    """Two channels a group: every second group is dead."""
    c = 8 * k
    dead = np.flatnonzero(np.arange(c) // 2 % 2)
    y = net.conv("x", 3, c, dead=dead)
    scale, shift = net.weight(c, low=0.5), net.weight(c, dead=[(0, dead)], low=-0.5)
    y = net.relu(net.op("GroupNormalization", y, scale, shift, num_groups=c // 2))
    return net.head(net.cbr(y, c, 6 * k), 6 * k)


@pattern("GroupNorm as PyTorch exports it", 1, 3, 8, 8)
def group_norm_reshape(net: Net, k: int) -> str:
    c = 8 * k
    dead = np.flatnonzero(np.arange(c) // 2 % 2)
    y = net.reshape(net.conv("x", 3, c, dead=dead), 0, c // 2, -1)
    ones, zeros = np.ones(c // 2, np.float32), np.zeros(c // 2, np.float32)
    y = net.op("InstanceNormalization", y, net.tensor(ones), net.tensor(zeros))
    y = net.reshape(y, 1, c, 8, 8)
    y = net.op("Mul", y, net.weight(c, 1, 1, low=0.5))
    y = net.relu(net.op("Add", y, net.weight(c, 1, 1, dead=[(0, dead)], low=-0.5)))
    return net.head(net.cbr(y, c, 6 * k), 6 * k)


@pattern("Tile and Expand of a pooled branch", 1, 3, 8, 8)
def tile(net: Net, k: int) -> str:
    y = net.cbr("x", 3, 6 * k)
    p = net.cbr(net.op("GlobalAveragePool", y), 6 * k, 4 * k, 1)
    q = net.op("Expand", p, net.ints(1, 4 * k, 8, 8))
    r = net.op("Tile", p, net.ints(1, 2, 8, 8))
    return net.head(net.cbr(net.op("Concat", y, q, r, axis=1), 18 * k, 6 * k, 1), 6 * k)


@pattern("Where and masks", 1, 3, 8, 8)
def where(net: Net, k: int) -> str:
    y = net.conv("x", 3, 8 * k)
    y = net.op(
        "Where", net.op("Greater", y, net.tensor(np.float32(0))), y, net.op("Mul", y, net.tensor(np.float32(0.1)))
    )
    return net.head(net.cbr(y, 8 * k, 6 * k), 6 * k)


@pattern("spatial attention", 1, 3, 8, 8, full=False)
def spatial_attention(net: Net, k: int) -> str:
    """CBAM: mean and maximum over channels count their channels, so these stay; the rest is cut."""
    y = net.cbr("x", 3, 8, dead=NONE)
    both = [net.op("ReduceMean", y, axes=[1]), net.op("ReduceMax", y, axes=[1])]
    y = net.op("Mul", y, net.op("Sigmoid", net.conv(net.op("Concat", *both, axis=1), 2, 1, dead=NONE)))
    return net.head(net.cbr(y, 8, 6 * k), 6 * k)
