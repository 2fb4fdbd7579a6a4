"""Pools and reductions: spatial axes vanish, channels pass; sums over channels need dead ones to be zero."""

from collections.abc import Callable
from typing import Any

from onnxprune.channels.labels import Axes, Labels, fixed, is_fixed
from onnxprune.channels.op import Op
from onnxprune.channels.promises import first
from onnxprune.channels.tables import repair, rule

SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
COUNTS = "reduces over its channels, and removed ones would count"


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", channel=1, quiet=first)
@rule("com.microsoft:NhwcMaxPool")
def pool(op: Op, x: Axes, *_: Axes | None, **__: Any) -> list[Axes]:
    op.freeze(*x[2:], why="pools over it")
    if len(op.shapes) > 1:
        op.freeze(*x[:2], why="gives positions among all its elements")
    return [(x[0], x[1], ...)] * len(op.shapes)  # type: ignore[list-item]


@rule("MaxRoiPool", channel=1, quiet=first)
def roi_pool(op: Op, x: Axes, rois: Axes, **_: Any) -> Axes:
    op.freeze(x[0], *x[2:], *rois, why="takes regions of it")
    return (fixed(rois[0].size), x[1], ...)  # type: ignore[return-value]


@rule("RoiAlign", channel=1, quiet=first)
def roi_align(op: Op, x: Axes, rois: Axes, batch: Axes, **_: Any) -> Axes:
    op.freeze(x[0], *x[2:], *rois, *batch, why="takes regions of it")
    return (fixed(rois[0].size), x[1], ...)  # type: ignore[return-value]


def _reduced(op: Op) -> list[int]:
    given = op.attributes.get("axes", op.constant(1))
    rank = len(op.values[0].axes) if op.values[0] is not None else 0
    return list(range(rank)) if given is None else [int(k) for k in given]


@rule(*SUMS, quiet=first, takes=_reduced)
@rule("ReduceLogSum", takes=_reduced)
def reduce_sum(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """A sum over channels is exact as long as removed ones are zero."""
    return _reduce(op, x, op.total, **attributes)


@rule("ReduceMean", quiet=first, takes=_reduced)
def reduce_mean(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """Removed channels that are zero count in a mean by their number alone."""
    return _reduce(op, x, lambda labels: op.mean(labels, why=COUNTS), **attributes)


@repair("ReduceMean")
def repair_mean(edit: Any, axes: Any = None, noop_with_empty_axes: int = 0, **_: Any) -> None:
    """A mean over fewer channels is divided by the number that they were."""
    given = edit.now(1, axes) or ([] if noop_with_empty_axes else range(edit.rank_in(0)))
    if (share := edit.share_in(0, given)) != 1:
        edit.then_scale(share)


@rule("ReduceMax", "ReduceMin", "ReduceProd", quiet=first, takes=_reduced)
@rule("ReduceLogSumExp", takes=_reduced)
def reduce(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    return _reduce(op, x, lambda labels: op.statistics(labels, why=COUNTS), **attributes)


def _reduce(
    op: Op,
    x: Axes,
    over: Callable[[Labels], None],
    *,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
    axes: Any = None,
) -> Axes:
    given = op.ints(1, axes)
    if given is None:
        given = [] if noop_with_empty_axes else list(range(len(x)))
    gone = {k % len(x) for k in given}
    for k in gone:
        over(x[k])
    return tuple(fixed(1) if k in gone else labels for k, labels in enumerate(x) if keepdims or k not in gone)


@rule("ArgMax", "ArgMin", takes=lambda op: [op.attributes.get("axis", 0)])
def arg_reduce(op: Op, x: Axes, *, axis: int = 0, keepdims: int = 1, **_: Any) -> Axes:
    axis %= len(x)
    op.freeze(x[axis], why="gives a position on it")
    return tuple(fixed(1) if k == axis else labels for k, labels in enumerate(x) if keepdims or k != axis)


def _sums_along_fixed(op: Op) -> bool:
    """A running sum goes on over dead positions."""
    axis, x = op.constant(1), op.values[0]
    return axis is not None and x is not None and is_fixed(x.axes[int(axis.ravel()[0])]) and first(op)


@rule("CumSum", quiet=_sums_along_fixed)
def cumulative_sum(op: Op, x: Axes, axis_input: Axes, **_: Any) -> Axes:
    op.total(x[op.told(1)[0]])
    return x


@rule("TopK", takes=lambda op: [op.attributes.get("axis", -1)])
def top_k(op: Op, x: Axes, *_: Axes | None, axis: int = -1, **__: Any) -> list[Axes]:
    op.freeze(x[axis], why="sorts along it")
    axis %= len(x)
    shape = op.shapes[0]
    if shape is None:
        return []
    y = tuple(fixed(shape[k]) if k == axis else labels for k, labels in enumerate(x))
    return [y, y]
