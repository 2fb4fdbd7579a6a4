"""Products of matrices: a weight among the two reads one axis and writes the other."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.activations import bound_fused, fused
from onnxprune.operators.einsum import summed
from onnxprune.operators.facts import Facts, NothingKnown, along
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_product
from onnxprune.operators.registry import Alike, Arrays, Attributes, Shape, Taken, Trait, define, operator_of
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


def bound_product(site: Site) -> Facts:
    """With weights on the right; of other products zeros are followed."""
    w, a = site.array(1), site.attributes
    if site.inputs[0] is None or w is None or w.ndim != 2 or a.get("transA", 0):
        return bound_matrices(site) if site.node.op_type == "MatMul" else bound_turned(site)
    w, shape = w if a.get("transB", 0) else w.T, site.shape()
    bias = bias_of(site, 2, len(w), a.get("beta", 1.0)) if operator_of(site.node).bias == 2 else np.zeros(len(w))
    whole = along(site.data(), shape, -1)
    if whole.shape[-1] != w.shape[1]:
        raise NothingKnown
    near, scale = tolerance(w.dtype), a.get("alpha", 1.0)
    w = w if scale == 1 else scale * w
    out = layer(site, whole.map(np.ravel), w[None, :, :, None], bias, near, False)
    return out.map(lambda v: v.reshape(line(len(shape), -1)))


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _matrix_terms(a: int, b: int) -> tuple[list[str], str]:
    """MatMul of values of these ranks as an Einsum."""
    if min(a, b) < 2:
        raise NothingKnown
    batch = LETTERS[: max(a, b) - 2]
    return [batch[len(batch) - (a - 2) :] + "xy", batch[len(batch) - (b - 2) :] + "yz"], batch + "xz"


def bound_matrices(site: Site) -> Facts:
    """MatMul of two values that depend on data, or with more than one matrix of weights."""
    return summed(site, *_matrix_terms(len(site.shape(0)), len(site.shape(1))))


def bound_turned(site: Site) -> Facts:
    """A Gemm that takes its first operand in columns, or its weights first."""
    terms = ["yx" if site.attributes.get("transA", 0) else "xy", "zy" if site.attributes.get("transB", 0) else "yz"]
    found = summed(site, terms, "xz")
    summand = site.attributes.get("beta", 1.0) * site.weight(2, np.zeros(1)).astype(np.float64)
    vanishing, summand = np.broadcast_arrays(found.constant, summand.reshape((1,) * (2 - summand.ndim) + summand.shape))
    return zero_where(site, vanishing, summand)


def matmul(op: Op, a: Axes, b: Axes, **_: Any) -> Axes:
    left, right = (a if len(a) > 1 else (fixed(1), *a)), (b if len(b) > 1 else (*b, fixed(1)))
    y = matrix_product(op, left, right)
    if len(b) == 1:
        y = y[:-1]
    return y if len(a) > 1 else (*y[: len(y) - 1 - (len(b) > 1)], *y[len(y) - (len(b) > 1) :])


def _rows_and_columns(taken: Taken, k: int, rank: int) -> list[int]:
    return [rank - 1 if k == 0 or rank == 1 else rank - 2]


define(
    "MatMul", couple=matmul, zero=made(), bound=bound_product, contracts=_rows_and_columns, factors=(0, 1),
    filters=columns_of, linear=lambda shape, a: linear_product(False), work=lambda y, x, w: math.prod(y) * x[-1],
    traits=Trait.LINEAR | Trait.LAYER, forward=Forward(lambda node, a, b: torch.matmul(a, b)),
)  # fmt: skip


def gemm(op: Op, a: Axes, b: Axes, c: Axes | None = None, *, transA: int = 0, transB: int = 0, **_: Any) -> Axes:
    a, b = a[::-1] if transA else a, b[::-1] if transB else b
    matrix_product(op, a, b)
    return op.broadcast((a[0], b[1]), c)


def _gemm_contracts(taken: Taken, k: int, rank: int) -> list[int]:
    a = taken.attributes
    return [] if k > 1 else [1 - a.get("transA", 0)] if k == 0 else [a.get("transB", 0)]


def forward_gemm(node: TorchCall, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha · A B + beta · C."""
    a, b = a.T if node.get("transA") else a, b.T if node.get("transB") else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = a @ b if alpha == 1 else alpha * (a @ b)
    return y if c is None else y + (c if beta == 1 else beta * c)


define(
    "Gemm", couple=gemm, zero=made(2), bound=bound_product, contracts=_gemm_contracts, filters=columns_of, bias=2,
    linear=lambda shape, a: linear_product(bool(a.get("transB", 0)), a.get("alpha", 1.0)),
    work=lambda y, x, w: math.prod(y) * x[-1], traits=Trait.LINEAR | Trait.LAYER, forward=Forward(forward_gemm),
)  # fmt: skip


def bound_fused_gemm(site: Site) -> Facts:
    return bound_fused(site, bound_product(site))


def forward_fused_gemm(node: TorchCall, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    return fused(node, forward_gemm(node, a, b, c))


define(
    "com.microsoft:FusedGemm", couple=gemm, bound=bound_fused_gemm, contracts=_gemm_contracts, bias=2,
    shape=Alike("Gemm", (0, 1)), traits=Trait.LAYER,
    forward=Forward(forward_fused_gemm), written=with_activation("Gemm"),
)  # fmt: skip


def matrix_axes(rank: int, transposed: int, batch_inside: int) -> list[int]:
    """Axes of an operand of FusedMatMul in the order (batch..., rows, columns); the rows may stand before the batch."""
    axes = list(range(rank))
    if batch_inside:
        axes = [*axes[1:-1], 0, axes[-1]]
    return [*axes[:-2], axes[-1], axes[-2]] if transposed else axes


def _fused_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    left, right = (
        [shape[k] for k in matrix_axes(len(shape), a.get(f"trans{side}", 0), a.get(f"transBatch{side}", 0))]
        for shape, side in ((x[0], "A"), (x[1], "B"))
    )
    rank = max(len(left), len(right)) - 2
    columns = zip(*((*(1,) * (rank + 2 - len(s)), *s[:-2]) for s in (left, right)), strict=True)
    return [(*(max(pair) if min(pair) else 0 for pair in columns), left[-2], right[-1])]


def fused_matmul(
    op: Op, a: Axes, b: Axes, *, transA: int = 0, transB: int = 0, transBatchA: int = 0, transBatchB: int = 0, **_: Any
) -> Axes:
    left = tuple(a[k] for k in matrix_axes(len(a), transA, transBatchA))
    return matrix_product(op, left, tuple(b[k] for k in matrix_axes(len(b), transB, transBatchB)))


def bound_fused_matmul(site: Site) -> Facts:
    ranks, told = [len(site.shape(k)) for k in (0, 1)], site.attributes
    terms = _matrix_terms(*ranks)
    orders = [
        matrix_axes(rank, told.get(f"trans{n}", 0), told.get(f"transBatch{n}", 0))
        for rank, n in zip(ranks, "AB", strict=True)
    ]
    written = []
    for term, order in zip(terms[0], orders, strict=True):
        letters = [""] * len(term)
        for letter, k in zip(term, order, strict=True):
            letters[k] = letter
        written.append("".join(letters))
    return summed(site, written, terms[1])


def _fused_contracts(taken: Taken, k: int, rank: int) -> list[int]:
    name = "AB"[k]
    order = matrix_axes(rank, taken.attributes.get(f"trans{name}", 0), taken.attributes.get(f"transBatch{name}", 0))
    return [order[-1 if k == 0 else -2]]


def forward_fused_matmul(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    sides = [
        x.permute(matrix_axes(x.dim(), node.get(f"trans{side}", 0), node.get(f"transBatch{side}", 0)))
        if x.dim() > 1
        else x
        for x, side in ((a, "A"), (b, "B"))
    ]
    return node.get("alpha", 1.0) * torch.matmul(*sides)


define(
    "com.microsoft:FusedMatMul com.microsoft:TransposeMatMul", couple=fused_matmul, zero=made(),
    bound=bound_fused_matmul, contracts=_fused_contracts, factors=(0, 1), shape=_fused_shape,
    traits=Trait.LAYER, forward=Forward(forward_fused_matmul),
)  # fmt: skip


def _packed_columns(x: Arrays, a: Attributes) -> list[Shape | None]:
    return [(*x[0][:-1], a["N"])]


define("com.microsoft:MatMulBnb4 com.microsoft:MatMulNBits", shape=_packed_columns)


def forward_cdist(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    """Distances between the rows of two matrices."""
    squared = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    return squared if node.get("metric", "sqeuclidean") == "sqeuclidean" else squared.sqrt()


define("Det", forward=Forward(lambda node, x: torch.linalg.det(x)))
define("com.microsoft:CDist", forward=Forward(forward_cdist))
