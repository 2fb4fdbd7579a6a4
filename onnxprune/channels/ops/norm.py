"""Normalisation: per-channel parameters follow; statistics over channels freeze them."""

from typing import Any

from onnxprune.channels.labels import Axes, fixed
from onnxprune.channels.op import Op
from onnxprune.channels.promises import every, provided, scaled
from onnxprune.channels.tables import repair, rule


@rule("BatchNormalization", channel=1, quiet=scaled(1, 2))
def batch_norm(op: Op, x: Axes, *params: Axes, training_mode: int = 0, **_: Any) -> list[Axes]:
    channels = x[1] if len(x) > 1 else x[0]
    op.tie(channels, *(p[0] for p in params))
    if training_mode:
        op.freeze(x[0], *x[2:], why="takes statistics over it")
    return [x] + [params[2]] * (len(op.shapes) - 1)


@rule("InstanceNormalization", channel=1, quiet=scaled(1, 2))
def instance_norm(op: Op, x: Axes, *params: Axes, **_: Any) -> Axes:
    op.statistics(*x[2:], why="takes statistics over it")
    op.tie(x[1], *(p[0] for p in params))
    return x


@rule("GroupNormalization", channel=1, quiet=scaled(1, 2))
def group_norm(op: Op, x: Axes, *params: Axes, num_groups: int, **_: Any) -> Axes:
    """Whole groups go: the statistics of the others stay what they were.  A single one is a norm over channels."""
    op.freeze(*x[2:], why="takes statistics over it")
    grid = x[1].reshape(num_groups, -1)
    if num_groups == 1:
        op.statistics(x[1], why="normalises over its channels")
    else:
        op.tie(grid[:, :1], grid)
    for p in params:
        op.tie(x[1] if p[0].size == x[1].size else grid[:, 0], p[0])
    return x


@repair("GroupNormalization")
def repair_group_norm(edit: Any, num_groups: int, **_: Any) -> None:
    if num_groups > 1:
        edit.set_attribute("num_groups", edit.count_in(0, 1) * num_groups // edit.size_in(0, 1))


_no_division_by_zero = provided(lambda a: a.get("epsilon", 1e-5) > 0, every)


RMS = ("RMSNormalization", "SimplifiedLayerNormalization", "com.microsoft:SimplifiedLayerNormalization")
SKIP_RMS = "com.microsoft:SkipSimplifiedLayerNormalization"
NORMALISES = "normalises over its channels"


@rule(*RMS, quiet=_no_division_by_zero)
def rms_norm(op: Op, x: Axes, *params: Axes | None, axis: int = -1, **_: Any) -> list[Axes]:
    """Removed channels that are zero add nothing to the mean of squares but their number."""
    over = op.mean if sum(op.given) == 1 else op.statistics
    over(*x[axis:], why=NORMALISES)
    statistics = (*x[:axis], *(fixed(1) for _ in x[axis:]))
    return [op.broadcast(x, *params), *[statistics] * (len(op.shapes) - 1)]


@rule(SKIP_RMS)
def skip_rms_norm(op: Op, x: Axes, skip: Axes, *params: Axes | None, **_: Any) -> list[Axes]:
    y = op.broadcast(x, skip, *params)
    if any(op.given[1:3]):  # the statistics themselves
        op.statistics(y[-1], why=NORMALISES)
    else:
        op.mean(y[-1], inputs=(0, 1, 3), why=NORMALISES)
    return [y if shape is not None and len(shape) == len(y) else (...,) for shape in op.shapes]  # type: ignore[misc]


@repair(*RMS, SKIP_RMS)
def repair_rms_norm(edit: Any, axis: int = -1, epsilon: float | None = None, **_: Any) -> None:
    """x / √(s · share + ε) is x / √(s + ε / share) / √share, for s a mean over the share of channels that stay."""
    skips = edit.node.op_type.startswith("Skip")
    share = edit.share_in(0, range(edit.rank_in(0))[axis:])
    if share != 1:
        given = (1e-12 if skips else 1e-5) if epsilon is None else epsilon
        edit.set_attribute("epsilon", given / share)
        edit.scale_input(2 if skips else 1, share**-0.5)


@rule("LayerNormalization", quiet=_no_division_by_zero)
def layer_norm(op: Op, x: Axes, *params: Axes | None, axis: int = -1, **_: Any) -> list[Axes]:
    op.statistics(*x[axis:], why=NORMALISES)
    statistics = (*x[:axis], *(fixed(1) for _ in x[axis:]))
    return [op.broadcast(x, *params), *[statistics] * (len(op.shapes) - 1)]


@rule("com.microsoft:SkipLayerNormalization")
def skip_layer_norm(op: Op, x: Axes, skip: Axes, *params: Axes | None, **_: Any) -> list[Axes]:
    y = op.broadcast(x, skip, *params)
    op.statistics(y[-1], why=NORMALISES)
    return [y if shape is not None and len(shape) == len(y) else (...,) for shape in op.shapes]  # type: ignore[misc]


@rule("MeanVarianceNormalization")
def mean_variance(op: Op, x: Axes, *, axes: Any = (0, 2, 3), **_: Any) -> Axes:
    op.statistics(*(x[k] for k in axes), why="takes statistics over it")
    return x


@rule("LRN", channel=1, quiet=provided(lambda a: a.get("bias", 1.0) > 0))  # it divides by that
def lrn(op: Op, x: Axes, **_: Any) -> Axes:
    op.statistics(x[1], why="sums over neighbouring channels")
    return x


@rule("LpNormalization", takes=lambda op: [op.attributes.get("axis", -1)])
def lp_normalization(op: Op, x: Axes, *, axis: int = -1, **_: Any) -> Axes:
    """A length does not change with what is zero."""
    if op.silent(0):
        op.total(x[axis])
    else:
        op.statistics(x[axis], why="normalises over it")
    return x


def _normalised(op: Op) -> list[int]:
    """Axes over which a softmax goes: before opset 13 all from the named one on."""
    rank = len(op.values[0].axes) if op.values[0] is not None else 0
    axis = op.attributes.get("axis", 1 if op.opset < 13 else -1) % max(1, rank)
    return list(range(axis, rank)) if op.opset < 13 else [axis]


@rule("Softmax", "LogSoftmax", "Hardmax", takes=_normalised)
def softmax(op: Op, x: Axes, **_: Any) -> Axes:
    op.statistics(*(x[k] for k in _normalised(op)), why="normalises over it")
    return x
