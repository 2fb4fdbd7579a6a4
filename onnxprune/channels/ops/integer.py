"""Products of quantised matrices: zero points and scales that stand for one channel each follow it."""

from typing import Any

import numpy as np

from onnxprune.channels.labels import Axes, Labels
from onnxprune.channels.op import Op
from onnxprune.channels.ops.linear import convolve, matrix_product
from onnxprune.channels.promises import first, made
from onnxprune.channels.roles import Scaling
from onnxprune.channels.tables import rule


def _columns(b: Axes, *parameters: Axes | None) -> list[Labels]:
    """Parameters that have one element for each column of a matrix."""
    return [p[-1] for p in parameters if p and p[-1].size > 1 and p[-1].size == b[-1].size]


def _product(op: Op, a: Axes, b: Axes, factors: tuple[int, int], scale: int, zero: int, *follow: Axes | None) -> Axes:
    """a · b with real weights (b − zero) · scale; what has an element for each column of b follows it."""
    op.factors = factors
    y = matrix_product(op, a, b)
    columns = _columns(b, *follow)
    op.tie(b[-1], *columns)
    point = op.values[zero] if zero < len(op.values) else None  # which weights that are nothing are equal to
    op.adds(*(x for x in columns if point is None or not any(x is y for y in point.axes)))
    names = (*op.names, *[""] * 9)
    if op.weights[factors[1]]:
        op.scalings.append(Scaling(b, names[scale] if scale else "", names[zero], len(b) - 1 if columns else None))
    return y


def _rows(op: Op, a: Axes, zero: Axes | None) -> None:
    """A zero point for each row of the left matrix."""
    if zero and zero[-1].size > 1:
        op.freeze(a[-2], *zero, why="has a zero point for each row")


@rule("MatMulInteger", quiet=made())
def matmul_integer(op: Op, a: Axes, b: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None) -> Axes:
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 1), 0, 3, b_zero)


@rule("QLinearMatMul")
def qlinear_matmul(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, *_: Axes | None
) -> Axes:
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 3), 4, 5, b_scale, b_zero)


@rule("com.microsoft:MatMulIntegerToFloat", quiet=made(6))
def matmul_integer_to_float(
    op: Op, a: Axes, b: Axes, a_scale: Axes, b_scale: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None,
    bias: Axes | None = None,
) -> Axes:  # fmt: skip
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 1), 3, 5, b_scale, b_zero, bias)


@rule("com.microsoft:DynamicQuantizeMatMul")
def dynamic_quantize_matmul(
    op: Op, a: Axes, b: Axes, b_scale: Axes, b_zero: Axes | None = None, bias: Axes | None = None
) -> Axes:
    one_scale(op, a)
    return _product(op, a, b, (0, 1), 2, 3, b_scale, b_zero, bias)


@rule("com.microsoft:QGemm")
def qgemm(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, c: Axes | None = None,
    *_: Axes | None, transA: int = 0, transB: int = 0, **__: Any,
) -> Axes:  # fmt: skip
    left, right = (a[::-1] if transA else a), (b[::-1] if transB else b)
    y = _product(op, left, right, (0, 3), 4, 5, b_scale, b_zero, c)
    if transB:  # the weight is stored by columns
        op.scalings[-1:] = [Scaling(b, s.scale, s.zero_point, None if s.axis is None else 0) for s in op.scalings[-1:]]
    return y


@rule("ConvInteger", quiet=made())
def conv_integer(
    op: Op, x: Axes, w: Axes, x_zero: Axes | None = None, w_zero: Axes | None = None, *, group: int = 1, **_: Any
) -> Axes:
    per_channel = w_zero is not None and len(w_zero) > 0 and w_zero[0].size > 1
    op.scalings.append(Scaling(w, "", (*op.names, "", "")[3], 0 if per_channel else None))
    return convolve(op, x, w, (w_zero,) if per_channel else (), group)


@rule("DynamicQuantizeLinear", quiet=first)
def dynamic_quantize(op: Op, x: Axes) -> list[Axes]:
    one_scale(op, x)
    return [x, (), ()]


def one_scale(op: Op, x: Axes) -> None:
    """One scale is taken over all elements, and over zero: silent channels do not change it."""
    if op.silent(0):
        op.demands.extend(x)
    else:
        op.freeze(*x, why="takes one scale over all of it")


@rule("com.microsoft:QLinearConcat")
def qlinear_concat(op: Op, scale: Axes, zero: Axes, *parts: Axes, axis: int = 0) -> Axes:
    values = parts[::3]
    axis %= len(values[0])
    columns = zip(*values, strict=True)
    return tuple(np.concatenate(x) if k == axis else op.coupling.join(x) for k, x in enumerate(columns))


@rule("com.microsoft:QLinearSoftmax")
def qlinear_softmax(op: Op, x: Axes, *_: Axes | None, axis: int = -1, opset: int = 13, **__: Any) -> Axes:
    op.freeze(*(x[axis:] if opset < 13 else (x[axis],)), why="normalises over it")
    return x


@rule("com.microsoft:QLinearWhere")
def qlinear_where(op: Op, condition: Axes, x: Axes, x_scale: Axes, x_zero: Axes, y: Axes, *_: Axes | None) -> Axes:
    return op.broadcast(condition, x, y)
