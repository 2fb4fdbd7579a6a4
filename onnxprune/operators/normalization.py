"""Normalisation: per-channel parameters follow; statistics over channels freeze them."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, expanded, facts, reduced
from onnxprune.operators.intervals import NEAR_SUM, affine, zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, Arrays, Attributes, Shape, Taken, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import every, provided, scaled


def batch_norm(op: Op, x: Axes, *params: Axes, training_mode: int = 0, **_: Any) -> list[Axes]:
    channels = x[1] if len(x) > 1 else x[0]
    op.tie(channels, *(p[0] for p in params))
    if training_mode:
        op.freeze(x[0], *x[2:], why="takes statistics over it")
    return [x] + [params[2]] * (len(op.shapes) - 1)


def bound_batch_norm(site: Site) -> list[Facts | None] | None:
    x, shape = site.inputs[0], site.shapes[0]
    arrays = [site.array(k) for k in range(1, 5)]
    if x is None or shape is None or site.attributes.get("training_mode", 0) or not site.attributes.get("spatial", 1):
        return None
    if any(a is None for a in arrays) or len(shape) < 2 or (site.opset < 7 and not site.attributes.get("is_test", 0)):
        return None
    gamma, beta, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
    factor = gamma / np.sqrt(variance + site.attributes.get("epsilon", 1e-5))
    whole = expanded(x, shape, [1])
    if whole is None or not np.isfinite(factor).all():
        return None
    at = line(len(shape), 1)
    out = affine(whole, factor.reshape(at), (beta - mean * factor).reshape(at), NEAR_SUM)
    return [out, *[site.nothing(k) for k in range(1, len(site.outputs))]]


define(
    "BatchNormalization", couple=batch_norm, channel=1, zero=scaled(1, 2), bound=bound_batch_norm, apart=True,
    traits=Trait.SCALES | Trait.STATISTICS,
)  # fmt: skip


def instance_norm(op: Op, x: Axes, *params: Axes, **_: Any) -> Axes:
    op.statistics(*x[2:], why="takes statistics over it")
    op.tie(x[1], *(p[0] for p in params))
    return x


ROUNDING = 2.0**-30  # onnxruntime's mean of n equal numbers is off by n times this share of them
LARGE = 1 << 20  # positions of a map whose sizes are open
LEFT = 1e-4  # what a norm may make of that


def centred(site: Site, constant: np.ndarray, scale: np.ndarray | float, positions: int) -> np.ndarray:
    """Which constants a norm over so many positions takes for their mean, bool; it divides what is left by √ε."""
    shape = site.shapes[0] or ()
    count = LARGE if any(map(site.open_in, range(2, len(shape)))) else positions
    return np.abs(constant * scale) * count * ROUNDING <= LEFT * np.sqrt(site.attributes.get("epsilon", 1e-5))


def bound_instance_norm(site: Site) -> Facts | None:
    """A channel that is constant comes out as its shift, as far as rounding lets it."""
    x, shape, gamma, beta = site.inputs[0], site.shapes[0], site.array(1), site.array(2)
    if x is None or shape is None or gamma is None or beta is None:
        return None
    whole = expanded(reduced(x, [0, *range(2, len(shape))]), shape, [1])
    if whole is None:
        return None
    at = line(len(shape), 1)
    g, b = (v.astype(np.float64).reshape(at) for v in (gamma, beta))
    fixed = (whole.constant & centred(site, whole.low, g, math.prod(shape[2:]))) | (g == 0)
    name = mix(whole.identity, bits(whole.scale), bits(g), bits(b), site.kind)
    return facts(np.where(fixed, b, -np.inf), np.where(fixed, b, np.inf), name)


define(
    "InstanceNormalization", couple=instance_norm, channel=1, zero=scaled(1, 2), bound=bound_instance_norm, apart=True,
    traits=Trait.SCALES | Trait.STATISTICS,
)  # fmt: skip


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


def repair_group_norm(edit: Any, num_groups: int, **_: Any) -> None:
    if num_groups > 1:
        edit.set_attribute("num_groups", edit.count_in(0, 1) * num_groups // edit.size_in(0, 1))


def bound_group_norm(site: Site) -> Facts | None:
    """A group of channels that are one constant comes out as their shifts, as far as rounding lets it."""
    x, shape, gamma, bias = site.inputs[0], site.shapes[0], site.array(1), site.array(2)
    groups = int(site.attributes["num_groups"])
    whole = None if x is None or shape is None else expanded(reduced(x, [0, *range(2, len(shape))]), shape, [1])
    if whole is None or shape is None or gamma is None or bias is None:
        return None
    low, high = (a.reshape(groups, -1) for a in (whole.low, whole.high))
    near = centred(site, low[:, 0], np.abs(gamma).max(), math.prod(shape[1:]) // groups)
    still = np.repeat(np.isfinite(low[:, 0]) & (low.min(1) == high.max(1)) & near, low.shape[1])
    shift = bias.astype(np.float64) if bias.size == still.size else np.repeat(bias.astype(np.float64), low.shape[1])
    at = line(len(shape), 1)
    return zero_where(site, still.reshape(at), shift.reshape(at))


define(
    "GroupNormalization", couple=group_norm, channel=1, zero=scaled(1, 2), repair=repair_group_norm,
    bound=bound_group_norm, apart=True, shape=Alike(), traits=Trait.SCALES,
)  # fmt: skip
define("com.microsoft:GroupNorm", shape=Alike(), traits=Trait.SCALES)


_no_division_by_zero = provided(lambda a: a.get("epsilon", 1e-5) > 0, every)
NORMALISES = "normalises over its channels"


def rms_norm(op: Op, x: Axes, *params: Axes | None, axis: int = -1, **_: Any) -> list[Axes]:
    """Removed channels that are zero add nothing to the mean of squares but their number."""
    over = op.mean if sum(op.given) == 1 else op.statistics
    over(*x[axis:], why=NORMALISES)
    statistics = (*x[:axis], *(fixed(1) for _ in x[axis:]))
    return [op.broadcast(x, *params), *[statistics] * (len(op.shapes) - 1)]


def repair_rms_norm(edit: Any, axis: int = -1, epsilon: float | None = None, **_: Any) -> None:
    """x / √(s · share + ε) is x / √(s + ε / share) / √share, for s a mean over the share of channels that stay."""
    skips = edit.node.op_type.startswith("Skip")
    share = edit.share_in(0, range(edit.rank_in(0))[axis:])
    if share != 1:
        given = (1e-12 if skips else 1e-5) if epsilon is None else epsilon
        edit.set_attribute("epsilon", given / share)
        edit.scale_input(2 if skips else 1, share**-0.5)


def bound_rms_norm(site: Site) -> list[Facts | None] | None:
    """Zeros stay zeros."""
    x = site.inputs[0]
    if x is None or site.attributes.get("epsilon", 1e-5) <= 0:
        return None
    names = mix(x.identity, bits(x.scale), site.token)
    return [zero_where(site, x.constant & (x.low == 0), names=names), *map(site.nothing, range(1, len(site.outputs)))]


def _normalised_axes(taken: Taken, k: int, rank: int) -> list[int]:
    return [] if k else list(range(rank))[taken.attributes.get("axis", -1) :]


define(
    "RMSNormalization SimplifiedLayerNormalization com.microsoft:SimplifiedLayerNormalization", couple=rms_norm,
    zero=_no_division_by_zero, repair=repair_rms_norm, bound=bound_rms_norm, contracts=_normalised_axes,
    shape=lambda x, _: [x[0]], traits=Trait.SCALES,
)  # fmt: skip


def skip_rms_norm(op: Op, x: Axes, skip: Axes, *params: Axes | None, **_: Any) -> list[Axes]:
    y = op.broadcast(x, skip, *params)
    if any(op.given[1:3]):  # the statistics themselves
        op.statistics(y[-1], why=NORMALISES)
    else:
        op.mean(y[-1], inputs=(0, 1, 3), why=NORMALISES)
    return [y if shape is not None and len(shape) == len(y) else (...,) for shape in op.shapes]  # type: ignore[misc]


def _skip_norm(x: Arrays, _: Attributes) -> list[Shape | None]:
    statistics = (*x[0][:-1], 1)
    return [x[0], statistics, statistics, x[0]]


define(
    "com.microsoft:SkipSimplifiedLayerNormalization", couple=skip_rms_norm, repair=repair_rms_norm, shape=_skip_norm,
    traits=Trait.SCALES,
)  # fmt: skip


def layer_norm(op: Op, x: Axes, *params: Axes | None, axis: int = -1, **_: Any) -> list[Axes]:
    op.statistics(*x[axis:], why=NORMALISES)
    statistics = (*x[:axis], *(fixed(1) for _ in x[axis:]))
    return [op.broadcast(x, *params), *[statistics] * (len(op.shapes) - 1)]


def skip_layer_norm(op: Op, x: Axes, skip: Axes, *params: Axes | None, **_: Any) -> list[Axes]:
    y = op.broadcast(x, skip, *params)
    op.statistics(y[-1], why=NORMALISES)
    return [y if shape is not None and len(shape) == len(y) else (...,) for shape in op.shapes]  # type: ignore[misc]


define(
    "LayerNormalization", couple=layer_norm, zero=_no_division_by_zero, apart=True,
    traits=Trait.SCALES | Trait.STATISTICS,
)  # fmt: skip
define("com.microsoft:SkipLayerNormalization", couple=skip_layer_norm, shape=_skip_norm, traits=Trait.SCALES)


def mean_variance(op: Op, x: Axes, *, axes: Any = (0, 2, 3), **_: Any) -> Axes:
    op.statistics(*(x[k] for k in axes), why="takes statistics over it")
    return x


def lrn(op: Op, x: Axes, **_: Any) -> Axes:
    op.statistics(x[1], why="sums over neighbouring channels")
    return x


define("MeanVarianceNormalization", couple=mean_variance, apart=True)
define("LRN", couple=lrn, channel=1, zero=provided(lambda a: a.get("bias", 1.0) > 0), apart=True)  # it divides by that


def lp_normalization(op: Op, x: Axes, *, axis: int = -1, **_: Any) -> Axes:
    """A length does not change with what is zero."""
    if op.relies(op.silent(0)):
        op.total(x[axis])
    else:
        op.statistics(x[axis], why="normalises over it")
    return x


def _unit_length(taken: Taken, _: int, rank: int) -> list[int]:
    return [taken.attributes.get("axis", -1) % rank]


define(
    "LpNormalization", couple=lp_normalization, statistics=lambda op: [op.attributes.get("axis", -1)],
    contracts=_unit_length, traits=Trait.STATISTICS,
)  # fmt: skip


def _normalised(op: Op) -> list[int]:
    """Axes over which a softmax goes: before opset 13 all from the named one on."""
    rank = len(op.values[0].axes) if op.values[0] is not None else 0
    axis = op.attributes.get("axis", 1 if op.opset < 13 else -1) % max(1, rank)
    return list(range(axis, rank)) if op.opset < 13 else [axis]


def softmax(op: Op, x: Axes, **_: Any) -> Axes:
    op.statistics(*(x[k] for k in _normalised(op)), why="normalises over it")
    return x


def bound_softmax(site: Site) -> Facts | None:
    """Equal elements of equal rows come out equal."""
    found, shape = site.inputs[0], site.shapes[0]
    if found is None or not shape or (site.opset < 13 and site.attributes.get("axis", 1) not in (-1, len(shape) - 1)):
        return None
    rows = reduced(found, [site.attributes.get("axis", -1) % len(shape)])
    names = mix(rows.identity, bits(rows.scale), found.identity, bits(found.scale), site.kind)
    low, high = (-np.inf, 0.0) if site.node.op_type == "LogSoftmax" else (0.0, 1.0)
    return facts(np.full(names.shape, low), np.full(names.shape, high), names)


define(
    "Softmax LogSoftmax", couple=softmax, statistics=_normalised, bound=bound_softmax, apart=True,
    traits=Trait.SATURATES,
)  # fmt: skip
define("Hardmax", couple=softmax, statistics=_normalised, apart=True, traits=Trait.DECIDES)
define("com.microsoft:BiasSoftmax", shape=Alike())
