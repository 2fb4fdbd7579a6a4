"""Quantised networks: scales and zero points of channels follow them; integers are cut without a cast."""

from typing import Any

from onnxprune.channels.boxes import Value
from onnxprune.channels.labels import Axes
from onnxprune.channels.op import Op
from onnxprune.channels.ops.linear import convolve
from onnxprune.channels.promises import first, made
from onnxprune.channels.roles import Scaling
from onnxprune.channels.tables import rule


@rule("QuantizeLinear", "DequantizeLinear", quiet=first, tangled=True)
@rule("com.microsoft:QuantizeLinear", "com.microsoft:DequantizeLinear", quiet=first, tangled=True)
def quantize(op: Op, **attributes: Any) -> Axes | Value:
    """With one scale for all of them, channels stay as split as they are."""
    value, scale = op.values[:2]
    if value is not None and value.tangle is not None and scale is not None and all(n == 1 for n in scale.shape):
        return op.unmoved()
    x, steps, *rest = (op.axes(k) for k in range(len(op.values)))
    if x is None or steps is None:
        return op.unknown("has no input or scale")
    return _quantized(op, x, steps, *rest, **attributes)


def _quantized(
    op: Op, x: Axes, scale: Axes, zero_point: Axes | None = None, *, axis: int = 1, block_size: int = 0, **_: Any
) -> Axes:
    if block_size:
        op.freeze(*x, *scale, *(zero_point or ()), why="quantises it in blocks")
        return x
    per_channel = len(scale) == 1 and scale[0].size > 1
    if per_channel:
        op.tie(x[axis], scale[0], *(zero_point or ()))
    if op.weights[0]:
        names = (*op.names, "")
        op.scalings.append(Scaling(x, names[1], names[2], axis if per_channel else None))
    return x


@rule("QLinearConv", quiet=made(8))
def qlinear_conv(
    op: Op,
    x: Axes,
    xs: Axes,
    xz: Axes,
    w: Axes,
    ws: Axes,
    wz: Axes,
    ys: Axes,
    yz: Axes,
    b: Axes | None = None,
    *,
    group: int = 1,
    **_: Any,
) -> Axes:
    op.factors = (0, 3)
    op.scalings.append(Scaling(w, op.names[4], op.names[5], 0))
    return convolve(op, x, w, tuple(p for p in (ws, wz, b) if p and p[0].size > 1), group)


@rule("com.microsoft:QLinearAdd", "com.microsoft:QLinearMul")
def qlinear_pointwise(op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, *rest: Axes | None, **_: Any) -> Axes:
    return op.broadcast(a, b)


@rule("com.microsoft:QLinearLeakyRelu", "com.microsoft:QLinearSigmoid")
def qlinear_unary(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    return x


@rule("com.microsoft:QLinearGlobalAveragePool", "com.microsoft:QLinearAveragePool")
def qlinear_pool(op: Op, x: Axes, *_: Axes | None, channels_last: int = 0, **__: Any) -> Axes:
    op.freeze(*(x[1:-1] if channels_last else x[2:]), why="pools over it")
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("pools to a size that is not known")
    from onnxprune.channels.labels import fixed

    channel = len(x) - 1 if channels_last else 1
    return tuple(labels if k in (0, channel) else fixed(shape[k]) for k, labels in enumerate(x))
