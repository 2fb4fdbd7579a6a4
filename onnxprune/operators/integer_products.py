"""Products and convolutions of integers: zero points and scales that stand for one channel each follow it."""

from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.operators.convolution import convolve, depthwise, repair_conv, repair_groups
from onnxprune.operators.facts import Facts, facts
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, line
from onnxprune.operators.op import Op
from onnxprune.operators.products import matrix_product
from onnxprune.operators.quantized import one_scale, rounded_bounds, steps_at
from onnxprune.operators.registry import FLOAT, Alike, Trait, ZeroPoints, define
from onnxprune.operators.roles import Scaling
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import made


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
        axis = len(b) - 1 if columns else None
        op.scalings[factors[1]] = Scaling(names[scale] if scale else "", names[zero], axis)
    return y


def _rows(op: Op, a: Axes, zero: Axes | None) -> None:
    """A zero point for each row of the left matrix."""
    if zero and zero[-1].size > 1:
        op.freeze(a[-2], *zero, why="has a zero point for each row")


def matmul_integer(op: Op, a: Axes, b: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None) -> Axes:
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 1), 0, 3, b_zero)


def bound_integer_layer(site: Site) -> Facts | None:
    """Filters that hold their zero point alone."""
    w, shape = site.array(1), site.outputs[0]
    point = site.array(3) if site.has(3) else np.zeros((), np.int8)
    if w is None or point is None or shape is None or w.ndim < 2:
        return None
    axis = 0 if site.node.op_type == "ConvInteger" else w.ndim - 1
    at = line(w.ndim, axis)
    differs = w != (point.reshape(at) if point.size > 1 else point.reshape(()))
    silent = ~differs.any(axis=tuple(k for k in range(w.ndim) if k != axis))
    channel = 1 if axis == 0 else len(shape) - 1
    return zero_where(site, silent.reshape(line(len(shape), channel)))


_INTEGERS = Trait.LAYER | Trait.QUANTIZES | Trait.INTEGER

define(
    "MatMulInteger", couple=matmul_integer, zero=made(), bound=bound_integer_layer, labels_int32=True,
    zero_points=ZeroPoints({0: 2, 1: 3}), traits=_INTEGERS,
)  # fmt: skip


def conv_integer(
    op: Op, x: Axes, w: Axes, x_zero: Axes | None = None, w_zero: Axes | None = None, *, group: int = 1, **_: Any
) -> Axes:
    per_channel = w_zero is not None and len(w_zero) > 0 and w_zero[0].size > 1
    op.scalings[1] = Scaling("", (*op.names, "", "")[3], 0 if per_channel else None)
    return convolve(op, x, w, (w_zero,) if per_channel else (), group)


define(
    "ConvInteger", couple=conv_integer, zero=made(), repair=repair_conv, bound=bound_integer_layer, apart=depthwise,
    labels_int32=True, zero_points=ZeroPoints({0: 2, 1: 3}), traits=_INTEGERS | Trait.CONVOLVES,
)  # fmt: skip


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
    op.scalings[3] = Scaling(op.names[4], op.names[5], 0)
    return convolve(op, x, w, tuple(p for p in (ws, wz, b) if p and p[0].size > 1), group)


def bound_qlinear_conv(site: Site) -> Facts | None:
    """Filters of zeros give the bias in units of the output."""
    shape = site.shapes[0]
    w, bias = site.array(3), site.array(8)
    numbers = [site.array(k) for k in (1, 4, 5, 6, 7)]
    if shape is None or w is None or any(n is None for n in numbers):
        return None
    xs, ws, wz, ys, yz = (n.astype(np.float64).ravel() for n in numbers if n is not None)
    grid = np.abs(w.astype(np.float64).reshape(len(w), -1) - wz[:, None]).max(1)
    unit = xs * np.broadcast_to(ws, (len(w),)) / ys
    summand = np.zeros(len(w)) if bias is None else bias.astype(np.float64)
    numbers_of = np.iinfo(site.array(7).dtype)  # type: ignore[union-attr]
    value = np.clip(np.round(summand * unit) + yz, numbers_of.min, numbers_of.max)
    low, high = (np.where(grid == 0, value, end) for end in (-np.inf, np.inf))
    names = mix(site.token, np.arange(len(w), dtype=np.uint64))
    return facts(low, high, names).map(lambda a: a.reshape(line(len(shape), 1)))


def repair_qlinear_conv(edit: Any, group: int = 1, **_: Any) -> None:
    repair_groups(edit, group, 3)


define(
    "QLinearConv", couple=qlinear_conv, zero=made(8), repair=repair_qlinear_conv, bound=bound_qlinear_conv,
    apart=lambda taken: depthwise(taken, 3), labels_int32=True, zero_points=ZeroPoints({0: 2, 3: 5}, held=7),
    traits=_INTEGERS | Trait.CONVOLVES | Trait.STEPS,
)  # fmt: skip


def qlinear_matmul(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, *_: Axes | None
) -> Axes:
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 3), 4, 5, b_scale, b_zero)


define(
    "QLinearMatMul", couple=qlinear_matmul, zero_points=ZeroPoints({0: 2, 3: 5}), traits=_INTEGERS | Trait.STEPS
)  # fmt: skip


def bound_real_product(site: Site) -> Facts | None:
    """Columns of weights that hold their zero point alone give the bias."""
    point, last = (3, 4) if site.node.op_type == "DynamicQuantizeMatMul" else (5, 6)
    w, zero, bias, shape = site.array(1), site.array(point), site.array(last), site.outputs[0]
    if w is None or w.ndim != 2 or shape is None or any(site.has(k) and site.array(k) is None for k in (point, last)):
        return None
    silent = ~(w != (0 if zero is None else zero)).any(axis=0)
    summand = np.zeros(w.shape[1]) if bias is None else bias.astype(np.float64)
    at = line(len(shape), -1)
    return zero_where(site, silent.reshape(at), np.broadcast_to(summand, silent.shape).reshape(at))


def matmul_integer_to_float(
    op: Op, a: Axes, b: Axes, a_scale: Axes, b_scale: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None,
    bias: Axes | None = None,
) -> Axes:  # fmt: skip
    _rows(op, a, a_zero)
    return _product(op, a, b, (0, 1), 3, 5, b_scale, b_zero, bias)


define(
    "com.microsoft:MatMulIntegerToFloat", couple=matmul_integer_to_float, zero=made(6), bound=bound_real_product,
    zero_points=ZeroPoints({0: 4, 1: 5}), shape=Alike("MatMul", (0, 1)), typed_by=FLOAT,
)  # fmt: skip


def dynamic_quantize_matmul(
    op: Op, a: Axes, b: Axes, b_scale: Axes, b_zero: Axes | None = None, bias: Axes | None = None
) -> Axes:
    one_scale(op, a)
    return _product(op, a, b, (0, 1), 2, 3, b_scale, b_zero, bias)


define(
    "com.microsoft:DynamicQuantizeMatMul", couple=dynamic_quantize_matmul, bound=bound_real_product,
    shape=Alike("MatMul", (0, 1)),
)  # fmt: skip


def qgemm(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, c: Axes | None = None,
    *_: Axes | None, transA: int = 0, transB: int = 0, **__: Any,
) -> Axes:  # fmt: skip
    left, right = (a[::-1] if transA else a), (b[::-1] if transB else b)
    y = _product(op, left, right, (0, 3), 4, 5, b_scale, b_zero, c)
    if transB:  # the weight is stored by columns
        op.scalings = {k: replace(s, axis=None if s.axis is None else 0) for k, s in op.scalings.items()}
    return y


def bound_qgemm(site: Site) -> Facts | None:
    """Columns of weights that hold their zero point alone give the bias, in steps of the output or as it is."""
    xs, w, ws, wz, bias = (site.array(k) for k in (1, 3, 4, 5, 6))
    if w is None or ws is None or wz is None or xs is None or (site.has(6) and bias is None):
        return None
    columns = w if site.attributes.get("transB", 0) else w.T
    silent = ~(columns != wz.reshape(-1, 1)).any(axis=1)
    unit = xs.astype(np.float64).ravel() * site.attributes.get("alpha", 1.0) * ws.astype(np.float64).ravel()
    real = unit * (np.zeros(len(columns)) if bias is None else bias.astype(np.float64).ravel())
    if site.has(7):
        after = steps_at(site, 7)
        if after is None:
            return None
        low, high = rounded_bounds((real, real), after)
        silent, real = silent & (low == high), low
    return zero_where(site, silent.reshape(1, -1), real.reshape(1, -1))


define(
    "com.microsoft:QGemm", couple=qgemm, bound=bound_qgemm, labels_int32=True, zero_points=ZeroPoints({0: 2, 3: 5}),
    shape=Alike("Gemm", (0, 3)), typed_by=lambda node: FLOAT if len(node.input) < 8 else 0,
    traits=Trait.LAYER | Trait.QUANTIZES | Trait.STEPS | Trait.INTEGER,
)  # fmt: skip
