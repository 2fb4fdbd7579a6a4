"""Normalisation: per-channel parameters follow; statistics over channels freeze them."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, along, expanded, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import NEAR_SUM, affine, rows, zero_where
from onnxprune.operators.labels import Axes, line
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import in_place, provided, scaled


def batch_norm(op: Op, x: Axes, *params: Axes, training_mode: int = 0, **_: Any) -> list[Axes]:
    channels = x[1] if len(x) > 1 else x[0]
    op.tie(channels, *(p[0] for p in params))
    if training_mode:
        op.freeze(x[0], *x[2:], why="takes statistics over it")
    return [x] + [params[2]] * (len(op.shapes) - 1)


def bound_batch_norm(site: Site) -> Facts:
    shape, a = site.shape(), site.attributes
    gamma, beta, mean, variance = (site.weight(k).astype(np.float64) for k in range(1, 5))
    factor = gamma / np.sqrt(variance + a.get("epsilon", 1e-5))
    trains = a.get("training_mode", 0) or (site.opset < 7 and not a.get("is_test", 0))
    if trains or not a.get("spatial", 1) or len(shape) < 2 or not np.isfinite(factor).all():
        raise NothingKnown
    at = line(len(shape), 1)
    whole = expanded(site.data(), shape, [1])
    return affine(whole, factor.reshape(at), (beta - mean * factor).reshape(at), NEAR_SUM)


def forward_batch_normalization(
    node: TorchCall, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Any:
    """By its own statistics; with `training_mode` by those of the batch, which then are given as well.

    Ioffe, Szegedy 2015, arXiv 1502.03167.  The statistics move by `momentum`, the share of the old ones.
    """
    epsilon = node.get("epsilon", 1e-5)
    if not (node.get("training_mode") and node.opset >= 14):
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    axes = (0, *range(2, x.dim()))
    found = x.var(axes, unbiased=False), x.mean(axes)
    y = functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    keep = node.get("momentum", 0.9)
    moved = tuple(old * keep + new.detach() * (1 - keep) for old, new in ((mean, found[1]), (variance, found[0])))
    return (y, *moved)[: max(1, node.outputs)] if node.outputs > 1 else y


define(
    "BatchNormalization", couple=batch_norm, channel=1, zero=scaled(1, 2), bound=bound_batch_norm, channelwise=True,
    traits=Trait.SCALES | Trait.STATISTICS | Trait.AFFINE, forward=Forward(forward_batch_normalization, into=(0, 1, 2)),
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
    shape = site.taken[0] or ()
    count = LARGE if any(site.open_in(0, k) for k in range(2, len(shape))) else positions
    return np.abs(constant * scale) * count * ROUNDING <= LEFT * np.sqrt(site.attributes.get("epsilon", 1e-5))


def bound_instance_norm(site: Site) -> Facts:
    """A channel that is constant comes out as its shift, as far as rounding lets it."""
    shape = site.shape()
    whole, at = along(site.data(), shape, 1), line(len(shape), 1)
    g, b = (site.weight(k).astype(np.float64).reshape(at) for k in (1, 2))
    fixed = (whole.constant & centred(site, whole.low, g, math.prod(shape[2:]))) | (g == 0)
    name = mix(*whole.exact, bits(g), bits(b), site.kind)
    return facts(np.where(fixed, b, -np.inf), np.where(fixed, b, np.inf), name)


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    """A vector along the second axis."""
    return v.reshape(-1, *[1] * (x.dim() - 2))


def forward_instance_normalization(node: TorchCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = tuple(range(2, x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + node.get("epsilon", 1e-5))
    return y * per_channel(scale, x) + per_channel(bias, x)


define(
    "InstanceNormalization", couple=instance_norm, channel=1, zero=scaled(1, 2), bound=bound_instance_norm,
    channelwise=True, traits=Trait.SCALES | Trait.STATISTICS, forward=Forward(forward_instance_normalization),
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


def bound_group_norm(site: Site) -> Facts:
    """A group of channels that are one constant comes out as their shifts, as far as rounding lets it."""
    shape, gamma, bias = site.shape(), site.weight(1), site.weight(2)
    whole, groups = along(site.data(), shape, 1), int(site.attributes["num_groups"])
    low, high = (a.reshape(groups, -1) for a in (whole.low, whole.high))
    near = centred(site, low[:, 0], np.abs(gamma).max(), math.prod(shape[1:]) // groups)
    still = np.repeat(np.isfinite(low[:, 0]) & (low.min(1) == high.max(1)) & near, low.shape[1])
    shift = bias.astype(np.float64) if bias.size == still.size else np.repeat(bias.astype(np.float64), low.shape[1])
    at = line(len(shape), 1)
    return zero_where(site, still.reshape(at), shift.reshape(at))


def forward_group_normalization(node: TorchCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias of each channel, before opset 21 of each group."""
    groups = node.get("num_groups")
    y = functional.group_norm(x, groups, None, None, node.get("epsilon", 1e-5))
    times = x.shape[1] // scale.shape[0]
    scale, bias = (v.repeat_interleave(times) if times > 1 else v for v in (scale, bias))
    return y * per_channel(scale, x) + per_channel(bias, x)


define(
    "GroupNormalization", couple=group_norm, channel=1, zero=scaled(1, 2), repair=repair_group_norm,
    bound=bound_group_norm, channelwise=True, shape=Alike(), traits=Trait.SCALES,
    forward=Forward(forward_group_normalization),
)  # fmt: skip
define("com.microsoft:GroupNorm", shape=Alike(), traits=Trait.SCALES)


def mean_variance(op: Op, x: Axes, *, axes: Any = (0, 2, 3), **_: Any) -> Axes:
    op.statistics(*(x[k] for k in axes), why="takes statistics over it")
    return x


def lrn(op: Op, x: Axes, **_: Any) -> Axes:
    in_place(op, x[1], why="sums over neighbouring channels")
    return x


def bound_lrn(site: Site) -> Facts:
    """Zeros stay zeros."""
    if site.attributes.get("bias", 1.0) <= 0:
        raise NothingKnown
    return zero_where(site, site.data().zero)


def forward_mean_variance_normalization(node: TorchCall, x: Tensor) -> Tensor:
    axes = node.get("axes", [0, 2, 3])
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


define(
    "MeanVarianceNormalization", couple=mean_variance, channelwise=True,
    bound=lambda site: rows(site, site.attributes.get("axes", (0, 2, 3))),
    forward=Forward(forward_mean_variance_normalization),
)  # fmt: skip


def forward_lrn(node: TorchCall, x: Tensor) -> Tensor:
    """Krizhevsky, Sutskever, Hinton 2012: divided by a power of a sum of squares over neighbouring channels."""
    size = node.get("size")
    squares = functional.pad(x.square().flatten(2).movedim(1, -1), ((size - 1) // 2, size // 2))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1).reshape(x.shape)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * total) ** node.get("beta", 0.75)


define(
    "LRN", couple=lrn, channel=1, zero=provided(lambda a: a.get("bias", 1.0) > 0),  # it divides by that
    repair=lambda edit, **_: edit.in_place(1), contracts=lambda *_: [1], bound=bound_lrn, forward=Forward(forward_lrn),
)  # fmt: skip


def lp_normalization(op: Op, x: Axes, *, axis: int = -1, **_: Any) -> Axes:
    """A length does not change with what is zero."""
    if op.relies(op.zero_where_dead(0)):
        op.total(x[axis])
    else:
        op.statistics(x[axis], why="normalises over it")
    return x


def bound_lp_normalization(site: Site) -> Facts:
    """Zeros stay zeros, and the others are no longer than one; what is alike in one row stays so."""
    found = site.data()
    row = reduced(found, [site.attributes.get("axis", -1) % len(found.shape)])
    low, high = np.where(found.low >= 0, 0.0, -1.0), np.where(found.high <= 0, 0.0, 1.0)
    return facts(low, high, mix(found.identity, *row.exact, site.kind), found.scale)


def forward_lp_normalization(node: TorchCall, x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


define(
    "LpNormalization", couple=lp_normalization, statistics=lambda op: [op.attributes.get("axis", -1)],
    contracts=lambda taken, _, rank: [taken.attributes.get("axis", -1) % rank], bound=bound_lp_normalization,
    traits=Trait.STATISTICS, forward=Forward(forward_lp_normalization),
)  # fmt: skip
