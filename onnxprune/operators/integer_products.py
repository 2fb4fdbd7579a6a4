"""Products and convolutions of integers: zero points and scales that stand for one channel each follow it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.convolution import convolve, depthwise, forward_conv, repair_groups
from onnxprune.operators.facts import Facts, NothingKnown, facts
from onnxprune.operators.forward import Forward, TorchCall, Units
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.normalization import per_channel
from onnxprune.operators.op import Op
from onnxprune.operators.products import matrix_product
from onnxprune.operators.quantization import Inputs, along, real, requantised, rounded, rounded_bounds, steps_at
from onnxprune.operators.registry import Trait, ZeroPoints, define
from onnxprune.operators.roles import Scaling
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.written import Nodes, Tensors, Written, attributes_of, between_quantisers, in_steps_of_one
from onnxprune.operators.zeros import made


def _columns(b: Axes, *parameters: Axes | None) -> list[Labels]:
    """Parameters that have one element for each column of a matrix."""
    return [p[-1] for p in parameters if p and p[-1].size > 1 and p[-1].size == b[-1].size]


def product_of_integers(
    op: Op, a: Axes, b: Axes, factors: tuple[int, int], scale: int, zero: int, *follow: Axes | None
) -> Axes:
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


def zeros_of_rows(op: Op, a: Axes, zero: Axes | None) -> None:
    """A zero point for each row of the left matrix."""
    if zero and zero[-1].size > 1:
        op.freeze(a[-2], *zero, why="has a zero point for each row")


def matmul_integer(op: Op, a: Axes, b: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None) -> Axes:
    zeros_of_rows(op, a, a_zero)
    return product_of_integers(op, a, b, (0, 1), 0, 3, b_zero)


def bound_integer_layer(site: Site, axis: int) -> Facts:
    """Filters, which lie along an axis of the weights, that hold their zero point alone."""
    w, point, shape = site.weight(1), site.weight(3, np.zeros((), np.int8)), site.shape_out()
    if w.ndim < 2:
        raise NothingKnown
    at = line(w.ndim, axis)
    differs = w != (point.reshape(at) if point.size > 1 else point.reshape(()))
    vanishing = ~differs.any(axis=tuple(k for k, n in enumerate(at) if n == 1))
    return zero_where(site, vanishing.reshape(line(len(shape), 1 if axis == 0 else -1)))


_INTEGERS = Trait.LAYER | Trait.QUANTIZES | Trait.INTEGER


def per_column(v: Tensor) -> Tensor:
    """One number, or one per column of a matrix."""
    return v.reshape(()) if v.numel() == 1 else v if v.dim() > 1 else v.reshape(1, -1)


def per_row(v: Tensor) -> Tensor:
    return v.reshape(()) if v.numel() == 1 else v if v.dim() > 1 else v.reshape(-1, 1)


UNIT = 1 / 127  # of weights whose scale the node is not told


def whole_units(node: TorchCall, position: int, inputs: Inputs) -> Units | None:
    w, zero = inputs[1], inputs[3] if len(inputs) > 3 else None
    if position != 1 or w is None:
        return None
    if zero is None:
        return torch.tensor(UNIT), torch.zeros(())
    return torch.tensor(UNIT), along(zero, w, 0) if node.op == "ConvInteger" else per_column(zero)


def forward_matmul_integer(
    node: TorchCall, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    one = torch.ones((), device=a.device)
    left = real(a, one, None if a_zero is None else per_row(a_zero))
    return left @ real(b, one, None if b_zero is None else per_column(b_zero))


define(
    "MatMulInteger", couple=matmul_integer, zero=made(), bound=partial(bound_integer_layer, axis=-1), labels_int32=True,
    zero_points=ZeroPoints({0: 2, 1: 3}), traits=_INTEGERS, written=in_steps_of_one("MatMul"),
    forward=Forward(forward_matmul_integer, into=(0, 1), units=whole_units),
)  # fmt: skip


def conv_integer(
    op: Op, x: Axes, w: Axes, x_zero: Axes | None = None, w_zero: Axes | None = None, *, group: int = 1, **_: Any
) -> Axes:
    per_channel = w_zero is not None and len(w_zero) > 0 and w_zero[0].size > 1
    op.scalings[1] = Scaling("", (*op.names, "", "")[3], 0 if per_channel else None)
    return convolve(op, x, w, (w_zero,) if per_channel else (), group)


def forward_conv_integer(
    node: TorchCall, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    one = torch.ones((), device=x.device)
    return forward_conv(node, real(x, one, x_zero), real(w, one, None if w_zero is None else along(w_zero, w, 0)))


define(
    "ConvInteger", couple=conv_integer, zero=made(), repair=repair_groups, channelwise=depthwise, labels_int32=True,
    bound=partial(bound_integer_layer, axis=0), zero_points=ZeroPoints({0: 2, 1: 3}),
    traits=_INTEGERS | Trait.CONVOLVES, written=in_steps_of_one("Conv"),
    forward=Forward(forward_conv_integer, into=(0, 1), units=whole_units),
)  # fmt: skip


def qlinear_conv(
    op: Op, x: Axes, xs: Axes, xz: Axes, w: Axes, ws: Axes, wz: Axes, ys: Axes, yz: Axes, b: Axes | None = None, *,
    group: int = 1, **_: Any,
) -> Axes:  # fmt: skip
    op.factors = (0, 3)
    op.scalings[3] = Scaling(op.names[4], op.names[5], 0)
    return convolve(op, x, w, tuple(p for p in (ws, wz, b) if p and p[0].size > 1), group)


def bound_qlinear_conv(site: Site) -> Facts:
    """Filters of zeros give the bias in units of the output."""
    w, bias, rank = site.weight(3), site.optional(8), len(site.shape())
    xs, ws, wz, ys, yz = (site.weight(k).astype(np.float64).ravel() for k in (1, 4, 5, 6, 7))
    grid = np.abs(w.astype(np.float64).reshape(len(w), -1) - wz[:, None]).max(1)
    unit = xs * np.broadcast_to(ws, (len(w),)) / ys
    summand = np.zeros(len(w)) if bias is None else bias.astype(np.float64)
    low, high = rounded((summand * unit, summand * unit), yz, site.weight(7).dtype)
    low, high = np.where(grid == 0, low, -np.inf), np.where(grid == 0, high, np.inf)
    names = mix(site.token, np.arange(len(w), dtype=np.uint64))
    return facts(low, high, names).map(lambda a: a.reshape(line(rank, 1)))


def conv_units(node: TorchCall, position: int, inputs: Inputs) -> Units | None:
    """Filters have scales of their own; a bias is in units of input times filter."""
    x_scale, w, w_scale, w_zero = inputs[1], inputs[3], inputs[4], inputs[5]
    if w_scale is None:
        return None
    if position == 8 and x_scale is not None:
        return x_scale * w_scale.reshape(-1), torch.zeros(())
    if position != 3 or w is None or w_zero is None:
        return None
    return along(w_scale, w, 0), along(w_zero, w, 0)


def forward_qlinear_conv(
    node: TorchCall, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor,
    scale: Tensor, zero: Tensor, b: Tensor | None = None,
) -> Tensor:  # fmt: skip
    ones = torch.ones((), dtype=x_scale.dtype, device=x_scale.device)
    sums = forward_conv(node, real(x, ones, x_zero), real(w, ones, along(w_zero, w, 0)))
    sums = sums if b is None else sums + per_channel(b.to(sums.dtype), sums)
    return requantised(
        node, sums * (per_channel(w_scale, sums) if w_scale.numel() > 1 else w_scale) * x_scale, scale, zero
    )


def written_conv(node: onnx.NodeProto, tensors: Tensors) -> Nodes:
    factors = node.input[:3], node.input[3:6], 0
    return between_quantisers(
        node, tensors, "Conv", factors, node.input[6:8], [*node.input[8:9], ""][0], attributes_of(node)
    )


define(
    "QLinearConv", couple=qlinear_conv, zero=made(8), repair=partial(repair_groups, weight=3),
    bound=bound_qlinear_conv, channelwise=partial(depthwise, weight=3), labels_int32=True,
    zero_points=ZeroPoints({0: 2, 3: 5}, held=7),
    traits=_INTEGERS | Trait.CONVOLVES | Trait.STEPS, written=Written(written_conv),
    forward=Forward(forward_qlinear_conv, into=(0, 3, 8), units=conv_units),
)  # fmt: skip


def qlinear_matmul(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, *_: Axes | None
) -> Axes:
    zeros_of_rows(op, a, a_zero)
    return product_of_integers(op, a, b, (0, 3), 4, 5, b_scale, b_zero)


def bound_qlinear_matmul(site: Site) -> Facts:
    """Columns of weights that hold their zero point alone give nothing."""
    w, zero, after, shape = site.weight(3), site.weight(5), steps_at(site, 6), site.shape_out()
    if w.ndim != 2 or zero.size not in (1, w.shape[1]):
        raise NothingKnown
    vanishing = ~(w != zero.reshape(-1)).any(axis=0).reshape((1,) * (len(shape) - 1) + (-1,))
    low, high = rounded_bounds((np.zeros(vanishing.shape), np.zeros(vanishing.shape)), after)
    return zero_where(site, vanishing & (low == high), low)


def matrix_units(places: tuple[int, int, int]) -> Callable[[TorchCall, int, Inputs], Units | None]:
    weight, scale, zero = places

    def scaling(node: TorchCall, position: int, inputs: Inputs) -> Units | None:
        w, s = inputs[weight], inputs[scale]
        z = inputs[zero] if zero < len(inputs) else None
        if position != weight or w is None or s is None:
            return None
        return per_column(s), torch.zeros(()) if z is None else per_column(z)

    return scaling


def forward_qlinear_matmul(
    node: TorchCall, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    scale: Tensor, zero: Tensor,
) -> Tensor:  # fmt: skip
    y = real(a, per_row(a_scale), per_row(a_zero)) @ real(b, per_column(b_scale), per_column(b_zero))
    return requantised(node, y, scale, zero)


define(
    "QLinearMatMul", couple=qlinear_matmul, bound=bound_qlinear_matmul, zero_points=ZeroPoints({0: 2, 3: 5}),
    traits=_INTEGERS | Trait.STEPS, forward=Forward(forward_qlinear_matmul, (0, 3), units=matrix_units((3, 4, 5))),
    written=Written(lambda node, tensors: between_quantisers(
        node, tensors, "MatMul", (node.input[:3], node.input[3:6], 1), node.input[6:8], "", {}
    )),
)  # fmt: skip
