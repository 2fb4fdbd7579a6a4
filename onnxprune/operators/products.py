"""Products of matrices: a weight among the two reads one axis and writes the other."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.operators.activations import bound_fused, fused, zero_behind
from onnxprune.operators.einsum import SumOfProducts
from onnxprune.operators.facts import Facts, NothingKnown, along
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_product
from onnxprune.operators.registry import Alike, Attributes, Trait, define, operator_of
from onnxprune.operators.site import Site
from onnxprune.operators.sums import bias_of, layer
from onnxprune.operators.value_numbers import tolerance
from onnxprune.operators.written import with_activation
from onnxprune.operators.zeros import made


def matrix_product(op: Op, a: Axes, b: Axes) -> Axes:
    """(..., m, k) times (..., k, n): the weight among the two reads k and writes its other axis."""
    left, right = op.factors
    op.contract(a[-1], b[-2], any(op.weights[k] or op.zero_inputs[k] for k in op.factors))
    batches = (a[:-2], b[:-2])
    zero = op.zero_inputs[right] and not op.zero_inputs[left]
    batch = op.broadcast(*(batches[::-1] if zero else batches))  # as the zeros ask
    if op.weights[right]:
        op.writes(b[-1])
        op.reads(b[-2])
    elif op.weights[left]:
        op.writes(a[-2])
        op.reads(a[-1])
    op.macs(1, *batch, a[-2], a[-1], b[-1])
    return (*batch, a[-2], b[-1])


def columns_of(w: np.ndarray, attributes: Attributes) -> np.ndarray | None:
    """The columns of a matrix of weights, or its rows where it is transposed, as filters of one tap."""
    return (w if attributes.get("transB", 0) else w.T)[None, :, :, None] if w.ndim == 2 else None


def _line(ranks: Sequence[int], a: Attributes) -> str:
    """As a rule ...xk,...ky->...xy.

    A vector has no rows or columns; a matrix may be transposed, and its rows may stand before the batch.
    """
    letters = "kx" if a.get("transA", 0) else "xk", "yk" if a.get("transB", 0) else "ky"
    left, right = (
        "k" if rank == 1 else "...".join(own) if a.get(f"transBatch{side}", 0) else f"...{own}"
        for rank, own, side in zip(ranks, letters, "AB", strict=False)
    )
    return f"{left},{right}->...{'x' if 'x' in left else ''}{'y' if 'y' in right else ''}"


MATRICES = SumOfProducts(_line)


def matrices(op: Op, a: Axes, b: Axes, **_: Any) -> Axes:
    """The product of x k and k y, wherever their axes are."""
    (left, right), result = MATRICES.terms((a, b), op.attributes)
    rows, columns = dict(zip(left, a, strict=True)), dict(zip(right, b, strict=True))
    batches = [[own[letter] for letter in own if letter not in "xky"] for own in (rows, columns)]
    y = matrix_product(
        op, (*batches[0], rows.get("x", fixed(1)), rows["k"]), (*batches[1], columns["k"], columns.get("y", fixed(1)))
    )
    named = dict(zip((*result.strip("xy"), "x", "y"), y, strict=True))
    return tuple(named[letter] for letter in result)


def bound_product(site: Site) -> Facts:
    """With weights on the right; of other products, and of integers, zeros are followed."""
    w, a = site.array(1), site.attributes
    if site.inputs[0] is None or w is None or w.ndim != 2 or a.get("transA", 0) or site.whole:
        return MATRICES.bound(site) if operator_of(site.node).bias is None else bound_turned(site)
    w, shape = w if a.get("transB", 0) else w.T, site.shape()
    bias = bias_of(site, 2, len(w), a.get("beta", 1.0)) if operator_of(site.node).bias else np.zeros(len(w))
    whole = along(site.data(), shape, -1)
    if whole.shape[-1] != w.shape[1]:
        raise NothingKnown
    near, scale = tolerance(w.dtype), a.get("alpha", 1.0)
    w = w if scale == 1 else scale * w
    out = layer(site, whole.map(np.ravel), w[None, :, :, None], bias, near, False)
    return out.map(lambda v: v.reshape(line(len(shape), -1)))


def bound_turned(site: Site) -> Facts:
    """A Gemm that takes its first operand in columns, or its weights first."""
    found = MATRICES.bound(site)
    summand = site.attributes.get("beta", 1.0) * site.weight(2, np.zeros(1)).astype(np.float64)
    vanishing, summand = np.broadcast_arrays(found.constant, summand.reshape((1,) * (2 - summand.ndim) + summand.shape))
    return zero_where(site, vanishing, summand)


define(
    "MatMul", couple=matrices, zero=made(), bound=bound_product, contracts=MATRICES.contracts, factors=(0, 1),
    filters=columns_of, linear=lambda shape, a: linear_product(False), work=lambda y, x, w: math.prod(y) * x[-1],
    traits=Trait.LINEAR | Trait.LAYER, forward=Forward(lambda node, a, b: torch.matmul(a, b)),
)  # fmt: skip


def gemm(op: Op, a: Axes, b: Axes, c: Axes | None = None, **_: Any) -> Axes:
    return op.broadcast(matrices(op, a, b), c)


def forward_gemm(node: TorchCall, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · A B + beta · C."""
    a, b = a.T if node.get("transA") else a, b.T if node.get("transB") else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = a @ b if alpha == 1 else alpha * (a @ b)
    return y if c is None else y + (c if beta == 1 else beta * c)


define(
    "Gemm", couple=gemm, zero=made(2), bound=bound_product, contracts=MATRICES.contracts, filters=columns_of, bias=2,
    linear=lambda shape, a: linear_product(bool(a.get("transB", 0)), a.get("alpha", 1.0)),
    work=lambda y, x, w: math.prod(y) * x[-1], traits=Trait.LINEAR | Trait.LAYER, forward=Forward(forward_gemm),
)  # fmt: skip
define(
    "com.microsoft:FusedGemm", couple=gemm, zero=zero_behind(made(2)),
    bound=lambda site: bound_fused(site, bound_product(site)),
    contracts=MATRICES.contracts, bias=2, shape=Alike("Gemm", (0, 1)), traits=Trait.LAYER,
    forward=Forward(lambda node, *x: fused(node, forward_gemm(node, *x))), written=with_activation("Gemm"),
)  # fmt: skip
define(
    "com.microsoft:FusedMatMul com.microsoft:TransposeMatMul", couple=matrices, zero=made(),
    bound=MATRICES.bound, contracts=MATRICES.contracts, factors=(0, 1), shape=MATRICES.shape,
    traits=Trait.LAYER, forward=Forward(
        lambda node, *x: node.get("alpha", 1.0) * torch.einsum(_line([t.dim() for t in x], node.attributes), *x)
    ),
)  # fmt: skip
define("com.microsoft:MatMulBnb4 com.microsoft:MatMulNBits", shape=lambda x, a: [(*x[0][:-1], a["N"])])


def forward_cdist(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    """Distances between the rows of two matrices."""
    squared = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    return squared if node.get("metric", "sqeuclidean") == "sqeuclidean" else squared.sqrt()


define("Det", forward=Forward(lambda node, x: torch.linalg.det(x)))
define("com.microsoft:CDist", forward=Forward(forward_cdist))
