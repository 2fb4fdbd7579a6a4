"""Operators that mix channels by weights: they write one set of channels and read another."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.channels.labels import BALANCES, Axes, Labels, fixed, repeated
from onnxprune.channels.op import Op
from onnxprune.channels.promises import made
from onnxprune.channels.tables import repair, rule
from onnxprune.model.contrib import matrix_axes


def _spatial(shape: tuple[int, ...] | None) -> int:
    return math.prod(shape[2:]) if shape is not None else 1


def _batch(x: Axes) -> int:
    return x[0].size


@rule("Conv", channel=1, quiet=made(2))
def conv(op: Op, x: Axes, w: Axes, b: Axes | None = None, *, group: int = 1, **_: Any) -> Axes:
    return convolve(op, x, w, (b,), group)


@rule("com.microsoft:FusedConv", channel=1)
def fused_conv(
    op: Op, x: Axes, w: Axes, b: Axes | None = None, z: Axes | None = None, *, group: int = 1, **_: Any
) -> Axes:
    """A convolution, an addition and an activation in one."""
    y = convolve(op, x, w, (b,), group)
    if z is not None:
        op.tie(y[1], z[1])
        op.freeze(*z[2:], why="adds it to a map of fixed size")
    return y


def convolve(op: Op, x: Axes, w: Axes, follow: tuple[Axes | None, ...], group: int) -> Axes:
    """Couplings of a convolution with weights (out, in / group, ...): by index inside every group."""
    op.freeze(*x[2:], *w[2:], why="slides its kernel over it")
    reads, writes = x[1].reshape(group, -1), w[0].reshape(group, -1)
    op.writes(w[0])
    if reads.shape[1] == 1 < group:  # depthwise: a group is one channel
        op.tie(reads, writes)
        op.follows(w[0])
    else:
        weight, data = op.factors[1], op.factors[0]
        shared = BALANCES if group > 1 else ""
        op.contract(np.broadcast_to(w[1], reads.shape), reads, op.weights[weight] or op.quiet[data], shared)
        if group > 1:
            op.balance(reads, weight, 1)
            op.balance(writes, weight)
        op.reads(w[1])
    for b in follow:
        if b is not None:
            op.tie(w[0], *b)
            op.adds(*b)
    taps = math.prod(k.size for k in w[2:])
    op.macs(_batch(x) * _spatial(op.shapes[0]) * taps, w[0], w[1])
    return (x[0], w[0], ...)  # type: ignore[return-value]


@rule("DeformConv", channel=1, quiet=made(3))
def deform_conv(
    op: Op, x: Axes, w: Axes, offset: Axes, b: Axes | None = None, mask: Axes | None = None, *,
    group: int = 1, offset_group: int = 1, **_: Any,
) -> Axes:  # fmt: skip
    """A convolution whose taps are moved, for each offset group of channels in its own way."""
    for moves in filter(None, (offset, mask)):
        op.freeze(*moves[1:], why="moves its kernel by it")
        op.tie(x[0], moves[0])
    grid = x[1].reshape(offset_group, -1)
    op.coupling.tie(np.broadcast_to(grid[:1], grid.shape), grid, why=BALANCES)
    return convolve(op, x, w, (b,), group)


@repair("Conv", "com.microsoft:FusedConv", "ConvInteger", "DeformConv", "QLinearConv")
def repair_conv(edit: Any, group: int = 1, **_: Any) -> None:
    if group > 1:
        weight = 3 if edit.node.op_type == "QLinearConv" else 1
        edit.set_attribute("group", edit.count_in(0, 1) // edit.count_in(weight, 1))


@rule("ConvTranspose", channel=1, quiet=made(2))
def conv_transpose(op: Op, x: Axes, w: Axes, b: Axes | None = None, *, group: int = 1, **_: Any) -> Axes:
    """Weights are (in, out / group, ...): the first axis reads."""
    op.freeze(*x[2:], *w[2:], why="slides its kernel over it")
    per_group = w[0].size // group
    op.writes(w[1])
    op.reads(w[0])
    if group > 1 and per_group == 1:  # depthwise, with w[1] outputs for each channel
        out = repeated(x[1], w[1].size, each=True)
        op.freeze(*(w[1:2] if w[1].size > 1 else ()), why="gives every channel the same number of outputs")
        op.tie(x[1], w[0])
        op.writes(w[0])
        op.follows(w[0])
    else:
        grid = x[1].reshape(group, -1)
        op.contract(w[0], x[1], op.weights[1] or op.quiet[0])
        op.tie(grid[:1], grid)
        out = repeated(w[1], group)
    if b is not None:
        op.tie(out, *b)
        op.adds(*b)
    kernel = math.prod(k.size for k in w[2:])
    op.macs(_batch(x) * math.prod(a.size for a in x[2:]) * kernel, w[0], w[1])
    return (x[0], out, ...)  # type: ignore[return-value]


@repair("ConvTranspose")
def repair_conv_transpose(edit: Any, group: int = 1, **_: Any) -> None:
    if group > 1:
        edit.set_attribute("group", edit.count_out(0, 1) // edit.count_in(1, 1))


@rule("Gemm", quiet=made(2))
@rule("com.microsoft:FusedGemm")
def gemm(op: Op, a: Axes, b: Axes, c: Axes | None = None, *, transA: int = 0, transB: int = 0, **_: Any) -> Axes:
    a, b = a[::-1] if transA else a, b[::-1] if transB else b
    matrix_product(op, a, b)
    return op.broadcast((a[0], b[1]), c)


@rule("MatMul", quiet=made())
def matmul(op: Op, a: Axes, b: Axes, **_: Any) -> Axes:
    left, right = (a if len(a) > 1 else (fixed(1), *a)), (b if len(b) > 1 else (*b, fixed(1)))
    y = matrix_product(op, left, right)
    if len(b) == 1:
        y = y[:-1]
    return y if len(a) > 1 else (*y[: len(y) - 1 - (len(b) > 1)], *y[len(y) - (len(b) > 1) :])


def matrix_product(op: Op, a: Axes, b: Axes) -> Axes:
    """(..., m, k) times (..., k, n): the weight among the two reads k and writes its other axis."""
    left, right = op.factors
    op.contract(a[-1], b[-2], any(op.weights[k] or op.quiet[k] for k in op.factors))
    batches = (a[:-2], b[:-2])
    batch = op.broadcast(*(batches[::-1] if op.quiet[right] and not op.quiet[left] else batches))  # as the promise asks
    if op.weights[right]:
        op.writes(b[-1])
        op.reads(b[-2])
    elif op.weights[left]:
        op.writes(a[-2])
        op.reads(a[-1])
    op.macs(1, *batch, a[-2], a[-1], b[-1])
    return (*batch, a[-2], b[-1])


@rule("com.microsoft:FusedMatMul", "com.microsoft:TransposeMatMul", quiet=made())
def fused_matmul(
    op: Op, a: Axes, b: Axes, *, transA: int = 0, transB: int = 0, transBatchA: int = 0, transBatchB: int = 0, **_: Any
) -> Axes:
    left = tuple(a[k] for k in matrix_axes(len(a), transA, transBatchA))
    return matrix_product(op, left, tuple(b[k] for k in matrix_axes(len(b), transB, transBatchB)))


def einsum_terms(equation: bytes | str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with capitals for axes that an ellipsis stands for.

    Raises ValueError where the equation is none.
    """
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    inputs, arrow, result = text.partition("->")
    terms = inputs.split(",")
    hidden = [rank - len(t.replace("...", "")) if "..." in t else 0 for t, rank in zip(terms, ranks, strict=True)]
    free = [c for c in reversed("ABCDEFGHIJKLMNOPQRSTUVWXYZ") if c not in text]
    stands = "".join(free[: max(hidden)])
    terms = [t.replace("...", stands[len(stands) - n :]) for t, n in zip(terms, hidden, strict=True)]
    if not arrow:
        letters = "".join(t for t in inputs.replace("...", "") if t != ",")
        result = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, result.replace("...", stands)


@rule("Einsum", quiet=made())
def einsum(op: Op, *xs: Axes, equation: bytes | str) -> Axes:
    terms, result = einsum_terms(equation, [len(x) for x in xs])
    where: dict[str, list[tuple[int, Labels]]] = {}
    for k, (letters, x) in enumerate(zip(terms, xs, strict=True)):
        for letter, labels in zip(letters, x, strict=True):
            where.setdefault(letter, []).append((k, labels))
    for letter, places in where.items():
        wide = [(k, labels) for k, labels in places if labels.size > 1] or places[:1]
        where[letter] = places = [(wide[0][0], op.coupling.join([labels for _, labels in wide])), *wide[1:]]
        kept = letter in result
        if not kept:
            op.contract(places[0][1], places[0][1], any(op.weights[k] or op.quiet[k] for k, _ in places))
        for k, labels in wide:
            if op.weights[k]:
                (op.writes if kept and len(places) == 1 else op.reads)(labels)
    op.macs(1, *(places[0][1] for places in where.values()))
    return tuple(where[letter][0][1] for letter in result)
