"""Reductions: sums over channels need dead ones to be zero."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall, axes_told
from onnxprune.operators.intervals import homogeneous_rows, rows
from onnxprune.operators.labels import Axes, Labels, fixed, is_fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import (
    NONE,
    Arrays,
    Attributes,
    Evaluation,
    Numbers,
    Taken,
    Trait,
    axes_of,
    by_reference,
    define,
)
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import first

COUNTS = "reduces over its channels, and removed ones would count"


def _told(attributes: Attributes, constant: Numbers, rank: int) -> list[int]:
    """Axes that are reduced: all, where none are told."""
    given = attributes.get("axes", constant(1))
    return list(range(rank)) if given is None else sorted({int(k) % rank for k in np.ravel(given)})


def _reduce(
    op: Op, x: Axes, over: Callable[[Labels], None], *, keepdims: int = 1, noop_with_empty_axes: int = 0,
    axes: Any = None,
) -> Axes:  # fmt: skip
    given = op.ints(1, axes)
    if given is None:
        given = [] if noop_with_empty_axes else list(range(len(x)))
    gone = {k % len(x) for k in given}
    for k in gone:
        over(x[k])
    return tuple(fixed(1) if k in gone else labels for k, labels in enumerate(x) if keepdims or k not in gone)


def reduce_sum(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """A sum over channels is exact as long as removed ones are zero."""
    return _reduce(op, x, op.total, **attributes)


def reduce_mean(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """Removed channels that are zero count in a mean by their number alone."""
    return _reduce(op, x, lambda labels: op.mean(labels, why=COUNTS), **attributes)


def repair_mean(edit: Any, axes: Any = None, noop_with_empty_axes: int = 0, **_: Any) -> None:
    """A mean over fewer channels is divided by the number that they were."""
    given = edit.now(1, axes) or ([] if noop_with_empty_axes else range(edit.rank_in(0)))
    if (share := edit.share_in(0, given)) != 1:
        edit.then_scale(share)


def reduce(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    return _reduce(op, x, lambda labels: op.statistics(labels, why=COUNTS), **attributes)


Bounds = tuple[np.ndarray | float, np.ndarray | float]


def summed(flat: Facts) -> Bounds:
    """Of a sum: how many elements it has may depend on the input."""
    return np.where(flat.low >= 0, 0.0, -np.inf), np.where(flat.high <= 0, 0.0, np.inf)


def bound_reduction(site: Site, bounds: Callable[[Facts], Bounds], homogeneous: bool = True) -> Facts:
    """Over other axes than those of channels: what `bounds` says, which grows with the elements where it may."""
    found, told = site.data(), site.has(1) or "axes" in site.attributes
    rank = len(found.shape)
    if not told and site.attributes.get("noop_with_empty_axes", 0):
        raise NothingKnown
    gone = sorted({k % rank for k in (site.ints(1, site.attributes.get("axes")) or () if told else range(rank))})
    flat = reduced(found, gone)
    names = mix(flat.identity, site.kind, *gone)
    out = facts(*bounds(flat), *((names, flat.scale) if homogeneous else (mix(names, bits(flat.scale)),)))
    return out if site.attributes.get("keepdims", 1) else out.map(lambda a: np.squeeze(a, tuple(gone)))


_AMONG = partial(bound_reduction, bounds=lambda flat: (flat.low, flat.high))
_SUMMED = partial(bound_reduction, bounds=summed)
_LENGTH = partial(bound_reduction, bounds=lambda flat: (0.0, np.where(flat.zero, 0.0, np.inf)))
_SQUARES = partial(_LENGTH, homogeneous=False)
_ANYTHING = partial(bound_reduction, bounds=lambda _: (-np.inf, np.inf), homogeneous=False)  # of no elements 1, say


def bound_mean(site: Site) -> Facts:
    """Of integers by their sum."""
    return _SUMMED(site) if site.whole else _AMONG(site)


def _value_of(fn: Callable) -> Evaluation:
    def reduced(x: Arrays, a: Attributes) -> np.ndarray:
        axes = axes_of(x, a) or (() if a.get("noop_with_empty_axes", 0) else None)
        return np.asarray(fn(x[0], axis=axes, keepdims=bool(a.get("keepdims", 1))), x[0].dtype)

    return reduced


def over_axes(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Forward:
    """A reduction (x, axes, whether they stay): over all axes where none are named, or over none."""

    def forward(node: TorchCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = axes_told(node, axes)
        if not found:
            if node.get("noop_with_empty_axes"):
                return x
            found = list(range(x.dim()))
        return reduce(x, tuple(k % x.dim() for k in found), bool(node.get("keepdims", 1))) if x.dim() else x

    return Forward(forward, into=(0,), host=(1,))


def _reduction(
    name: str, couple: Any, computed: Callable[..., Tensor], bound: Any, traits: Trait = NONE, **columns: Any
) -> None:
    """The row of a reduction, which `computed` gives in torch: of (x, axes, whether they stay)."""
    define(
        name, couple=couple, statistics=lambda op: _told(op.attributes, op.constant, len(op.values[0].axes)),
        contracts=lambda taken, _, rank: _told(taken.attributes, taken.constant, rank), bound=bound, traits=traits,
        forward=over_axes(computed), **columns,
    )  # fmt: skip


def mean_of(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keep)
    count = x.numel() // max(1, x.sum(axes).numel())
    return torch.div(x.sum(axes, keep), count, rounding_mode="trunc").to(x.dtype)


def product_of(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


_reduction(
    "ReduceSum", reduce_sum, lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype), _SUMMED,
    Trait.STATISTICS | Trait.PASSES, zero=first, value=_value_of(np.sum),
)  # fmt: skip
_reduction("ReduceL1", reduce_sum, lambda x, axes, keep: x.abs().sum(axes, keep), _LENGTH, zero=first)
_reduction(
    "ReduceL2", reduce_sum, lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep), _LENGTH,
    Trait.STATISTICS, zero=first,
)  # fmt: skip
_reduction(
    "ReduceSumSquare", reduce_sum, lambda x, axes, keep: x.square().sum(axes, keep), _SQUARES, Trait.STATISTICS,
    zero=first,
)  # fmt: skip
_reduction("ReduceLogSum", reduce_sum, lambda x, axes, keep: x.sum(axes, keep).log(), _ANYTHING)
_reduction(
    "ReduceMean", reduce_mean, mean_of, bound_mean,
    Trait.STATISTICS | Trait.RANGE | Trait.MAPS | Trait.PASSES, zero=first, repair=repair_mean,
)  # fmt: skip
_reduction(
    "ReduceMax", reduce, lambda x, axes, keep: x.amax(axes, keep), _AMONG, Trait.RANGE | Trait.MAPS | Trait.SELECTS,
    zero=first, value=_value_of(np.max),
)  # fmt: skip
_reduction(
    "ReduceMin", reduce, lambda x, axes, keep: x.amin(axes, keep), _AMONG, Trait.RANGE | Trait.SELECTS, zero=first,
    value=_value_of(np.min),
)  # fmt: skip
_reduction("ReduceProd", reduce, product_of, _ANYTHING, zero=first, value=_value_of(np.prod))
_reduction("ReduceLogSumExp", reduce, lambda x, axes, keep: x.logsumexp(axes, keep), _ANYTHING)


def arg_reduce(op: Op, x: Axes, *, axis: int = 0, keepdims: int = 1, **_: Any) -> Axes:
    axis %= len(x)
    op.freeze(x[axis], why="gives a position on it")
    return tuple(fixed(1) if k == axis else labels for k, labels in enumerate(x) if keepdims or k != axis)


def bound_arg_reduce(site: Site) -> Facts:
    axis = site.attributes.get("axis", 0)
    found = rows(site, [axis], 0)
    return found if site.attributes.get("keepdims", 1) else found.map(lambda a: np.squeeze(a, axis))


def forward_arg_reduce(node: TorchCall, x: Tensor) -> Tensor:
    axis, keep, find = node.get("axis", 0), bool(node.get("keepdims", 1)), getattr(torch, node.op.lower())
    if node.get("select_last_index"):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


define(
    "ArgMax ArgMin", couple=arg_reduce, bound=bound_arg_reduce, statistics=lambda op: [op.attributes.get("axis", 0)],
    channelwise=True, traits=Trait.DECIDES | Trait.SELECTS, forward=Forward(forward_arg_reduce, into=()),
)  # fmt: skip


def _sums_along_fixed(op: Op) -> ZeroWhereDead:
    """A running sum goes on over dead positions."""
    axis, x = op.constant(1), op.values[0]
    alone = axis is not None and x is not None and is_fixed(x.axes[int(axis.ravel()[0])])
    return first(op) if alone else NOT_ZERO


def cumulative_sum(op: Op, x: Axes, axis_input: Axes, **_: Any) -> Axes:
    op.total(x[op.required_ints(1)[0]])
    return x


def bound_cumulative_sum(site: Site) -> Facts:
    """Sums of any number of elements, none perhaps."""
    whole = homogeneous_rows(site, site.required_ints(1))
    return facts(*summed(whole), whole.identity, whole.scale)


def _summed_axis(taken: Taken, k: int, rank: int) -> list[int]:
    axis = taken.constant(1)
    return list(range(rank)) if axis is None or k else [int(axis.ravel()[0]) % rank]


def forward_cum_sum(node: TorchCall, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    y = x.flip(along) if node.get("reverse") else x
    y = y.cumsum(along, dtype=x.dtype) - (y if node.get("exclusive") else 0)
    return y.flip(along) if node.get("reverse") else y


define(
    "CumSum", couple=cumulative_sum, zero=_sums_along_fixed, value=by_reference, bound=bound_cumulative_sum,
    contracts=_summed_axis, forward=Forward(forward_cum_sum, into=(0,), host=(1,)),
)  # fmt: skip


def top_k(op: Op, x: Axes, *_: Axes | None, axis: int = -1, **__: Any) -> list[Axes]:
    op.freeze(x[axis], why="sorts along it")
    axis %= len(x)
    shape = op.shapes[0]
    if shape is None:
        return []
    y = tuple(fixed(shape[k]) if k == axis else labels for k, labels in enumerate(x))
    return [y, y]


def bound_top_k(site: Site) -> list[Facts]:
    axis = [site.attributes.get("axis", -1)]
    return [homogeneous_rows(site, axis), rows(site, axis, 0)]


def forward_top_k(node: TorchCall, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest elements and their places; of equal ones the first."""
    count = node.get("k") if k is None else int(k)
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    places = x.detach().sort(dim=axis, descending=largest, stable=True).indices.narrow(axis, 0, count)
    return x.gather(axis, places), places


define(
    "TopK", couple=top_k, statistics=lambda op: [op.attributes.get("axis", -1)], channelwise=True,
    bound=bound_top_k, traits=Trait.DECIDES | Trait.NUMBERS | Trait.VALUES_FIRST | Trait.SELECTS,
    forward=Forward(forward_top_k, into=(0,), host=(1,)),
)  # fmt: skip
