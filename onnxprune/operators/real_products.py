"""Products of integers that give real numbers, or steps of a scale."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.facts import Facts, NothingKnown
from onnxprune.operators.forward import Forward, TorchCall, Units
from onnxprune.operators.integer_products import matrix_units, per_column, product_of_integers, zeros_of_rows
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.quantization import (
    Inputs,
    along,
    dynamic,
    one_scale,
    quantised,
    real,
    requantised,
    rounded_bounds,
    steps_at,
)
from onnxprune.operators.registry import FLOAT, Alike, Trait, ZeroPoints, define
from onnxprune.operators.site import Site
from onnxprune.operators.written import Nodes, Tensors, Written, attributes_of, between_quantisers
from onnxprune.operators.zeros import made


def bound_real_product(site: Site, point: int) -> Facts:
    """Columns of weights that hold their zero point alone give the bias, which is the input behind it."""
    w, zero, bias, shape = site.weight(1), site.optional(point), site.optional(point + 1), site.shape_out()
    if w.ndim != 2:
        raise NothingKnown
    vanishing = ~(w != (0 if zero is None else zero)).any(axis=0)
    summand = np.zeros(w.shape[1]) if bias is None else bias.astype(np.float64)
    at = line(len(shape), -1)
    return zero_where(site, vanishing.reshape(at), np.broadcast_to(summand, vanishing.shape).reshape(at))


def matmul_integer_to_float(
    op: Op, a: Axes, b: Axes, a_scale: Axes, b_scale: Axes, a_zero: Axes | None = None, b_zero: Axes | None = None,
    bias: Axes | None = None,
) -> Axes:  # fmt: skip
    zeros_of_rows(op, a, a_zero)
    return product_of_integers(op, a, b, (0, 1), 3, 5, b_scale, b_zero, bias)


def forward_matmul_integer_to_float(
    node: TorchCall, a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, a_zero: Tensor | None = None,
    b_zero: Tensor | None = None, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    y = real(a, a_scale, a_zero) @ real(b, per_column(b_scale), None if b_zero is None else per_column(b_zero))
    return y if bias is None else y + bias


define(
    "com.microsoft:MatMulIntegerToFloat", couple=matmul_integer_to_float, zero=made(6),
    bound=partial(bound_real_product, point=5), zero_points=ZeroPoints({0: 4, 1: 5}), shape=Alike("MatMul", (0, 1)),
    typed_by=FLOAT, traits=Trait.LAYER,
    forward=Forward(forward_matmul_integer_to_float, into=(0, 1, 6), units=matrix_units((1, 3, 5))),
)  # fmt: skip


def dynamic_quantize_matmul(
    op: Op, a: Axes, b: Axes, b_scale: Axes, b_zero: Axes | None = None, bias: Axes | None = None
) -> Axes:
    one_scale(op, a)
    return product_of_integers(op, a, b, (0, 1), 2, 3, b_scale, b_zero, bias)


def forward_dynamic_quantize_matmul(
    node: TorchCall, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    scale, zero = dynamic(a)
    whole = quantised(a, scale, zero, (0.0, 255.0))
    return forward_matmul_integer_to_float(node, whole, b, scale, b_scale, zero, b_zero, bias)


define(
    "com.microsoft:DynamicQuantizeMatMul", couple=dynamic_quantize_matmul,
    bound=partial(bound_real_product, point=3), shape=Alike("MatMul", (0, 1)), traits=Trait.LAYER | Trait.ROUNDS,
    forward=Forward(forward_dynamic_quantize_matmul, into=(0, 1, 4), units=matrix_units((1, 2, 3))),
)  # fmt: skip


def qgemm(
    op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, b_scale: Axes, b_zero: Axes, c: Axes | None = None,
    *_: Axes | None, transA: int = 0, transB: int = 0, **__: Any,
) -> Axes:  # fmt: skip
    left, right = (a[::-1] if transA else a), (b[::-1] if transB else b)
    y = product_of_integers(op, left, right, (0, 3), 4, 5, b_scale, b_zero, c)
    if transB:  # the weight is stored by columns
        op.scalings = {k: replace(s, axis=None if s.axis is None else 0) for k, s in op.scalings.items()}
    return y


def bound_qgemm(site: Site) -> Facts:
    """Columns of weights that hold their zero point alone give the bias, in steps of the output or as it is."""
    xs, w, ws, wz = (site.weight(k) for k in (1, 3, 4, 5))
    bias = site.optional(6)
    columns = w if site.attributes.get("transB", 0) else w.T
    vanishing = ~(columns != wz.reshape(-1, 1)).any(axis=1)
    unit = xs.astype(np.float64).ravel() * site.attributes.get("alpha", 1.0) * ws.astype(np.float64).ravel()
    real = unit * (np.zeros(len(columns)) if bias is None else bias.astype(np.float64).ravel())
    if site.has(7):
        low, high = rounded_bounds((real, real), steps_at(site, 7))
        vanishing, real = vanishing & (low == high), low
    return zero_where(site, vanishing.reshape(1, -1), real.reshape(1, -1))


def gemm_units(node: TorchCall, position: int, inputs: Inputs) -> Units | None:
    a_scale, b, b_scale, b_zero = inputs[1], inputs[3], inputs[4], inputs[5]
    if a_scale is None or b is None or b_scale is None or b_zero is None:
        return None
    axis = 0 if node.get("transB") else 1
    if position == 6:
        return a_scale * b_scale.reshape(-1) * node.get("alpha", 1.0), torch.zeros(())
    return (along(b_scale, b, axis), along(b_zero, b, axis)) if position == 3 else None


def forward_qgemm(
    node: TorchCall, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    c: Tensor | None = None, scale: Tensor | None = None, zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """In float32 where no scale of the output is given."""
    axis = 0 if node.get("transB") else 1
    left = real(a, a_scale, a_zero)
    right = real(b, along(b_scale, b, axis), along(b_zero, b, axis))
    y = node.get("alpha", 1.0) * ((left.T if node.get("transA") else left) @ (right.T if node.get("transB") else right))
    if c is not None:
        y = y + c.to(y.dtype) * (a_scale * b_scale.reshape(-1) * node.get("alpha", 1.0))
    return y if scale is None else requantised(node, y, scale, zero)


def written_gemm(node: onnx.NodeProto, tensors: Tensors) -> Nodes:
    a, b, (bias, *y) = node.input[:3], node.input[3:6], [*node.input[6:], "", "", ""][:3]
    attributes = attributes_of(node)
    factors = a, b, 0 if attributes.get("transB", 0) else 1
    return between_quantisers(node, tensors, "Gemm", factors, [n for n in y if n], bias, attributes)


define(
    "com.microsoft:QGemm", couple=qgemm, bound=bound_qgemm, labels_int32=True, zero_points=ZeroPoints({0: 2, 3: 5}),
    shape=Alike("Gemm", (0, 3)), typed_by=lambda node: FLOAT if len(node.input) < 8 else 0,
    traits=Trait.LAYER | Trait.QUANTIZES | Trait.STEPS | Trait.INTEGER,
    forward=Forward(forward_qgemm, into=(0, 3, 6), units=gemm_units), written=Written(written_gemm),
)  # fmt: skip
