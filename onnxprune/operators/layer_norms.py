"""Norms over features, by their variance or by the mean of their squares."""

from functools import partial
from typing import Any

from onnxprune.operators.facts import Facts, NothingKnown, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import every, provided

_no_division_by_zero = provided(lambda a: a.get("epsilon", 1e-5) > 0, every)
NORMALISES = "normalises over its channels"


def norm(op: Op, x: Axes, *params: Axes | None, rms: bool, axis: int = -1, **_: Any) -> list[Axes]:
    """Removed channels that are zero add nothing to the mean of squares but their number."""
    over = op.mean if rms and sum(op.given) == 1 else op.statistics
    over(*x[axis:], why=NORMALISES)
    statistics = (*x[:axis], *(fixed(1) for _ in x[axis:]))
    return [op.broadcast(x, *params), *[statistics] * (len(op.shapes) - 1)]


def repair_rms_norm(
    edit: Any, axis: int = -1, epsilon: float | None = None, *, scale: int = 1, default: float = 1e-5, **_: Any
) -> None:
    """x / √(s · share + ε) is x / √(s + ε / share) / √share, for s a mean over the share of channels that stay."""
    share = edit.share_in(0, range(edit.rank_in(0))[axis:])
    if share != 1:
        edit.set_attribute("epsilon", (default if epsilon is None else epsilon) / share)
        edit.scale_input(scale, share**-0.5)


def bound_rms_norm(site: Site) -> Facts:
    """Zeros stay zeros; what is alike in one row and scaled alike stays so."""
    (x, scale), found = site.operands(0, 1), site.data()
    if site.attributes.get("epsilon", 1e-5) <= 0:
        raise NothingKnown
    row = reduced(found, range(len(found.shape))[site.attributes.get("axis", -1) :])
    return zero_where(site, x.zero, names=mix(*x.exact, *row.exact, *scale.exact, site.token))


def forward_rms_normalization(node: TorchCall, x: Tensor, scale: Tensor) -> Any:
    """Zhang, Sennrich 2019, arXiv 1910.07467."""
    axis = node.get("axis", -1) % x.dim()
    mean = x.square().mean(tuple(range(axis, x.dim())), keepdim=True)
    deviation = torch.rsqrt(mean + node.get("epsilon", 1e-5))
    y = x * deviation * scale
    return (y, deviation) if node.outputs > 1 else y


_RMS: dict[str, Any] = {
    "couple": partial(norm, rms=True), "zero": _no_division_by_zero, "repair": repair_rms_norm,
    "bound": bound_rms_norm, "shape": lambda x, _: [x[0]],
    "contracts": lambda taken, k, rank: [] if k else list(range(rank))[taken.attributes.get("axis", -1) :],
}  # fmt: skip
define(
    "RMSNormalization SimplifiedLayerNormalization", **_RMS, traits=Trait.SCALES | Trait.NORMALISES,
    forward=Forward(forward_rms_normalization),
)  # fmt: skip
define("com.microsoft:SimplifiedLayerNormalization", **_RMS, traits=Trait.SCALES)


def skip_norm(op: Op, x: Axes, skip: Axes, *params: Axes | None, rms: bool, **_: Any) -> list[Axes]:
    y = op.broadcast(x, skip, *params)
    if rms and not any(op.given[1:3]):  # not the statistics themselves
        op.mean(y[-1], inputs=(0, 1, 3), why=NORMALISES)
    else:
        op.statistics(y[-1], why=NORMALISES)
    return [y if shape is not None and len(shape) == len(y) else (...,) for shape in op.shapes]  # type: ignore[misc]


def _skip_norm(x: Arrays, _: Attributes) -> list[Shape | None]:
    statistics = (*x[0][:-1], 1)
    return [x[0], statistics, statistics, x[0]]


def forward_skip_rms_normalization(
    node: TorchCall, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Any:
    total = x + skip if bias is None else x + skip + bias
    deviation = torch.rsqrt(total.square().mean(-1, keepdim=True) + node.get("epsilon", 1e-12))
    y = total * deviation * scale
    return (y, None, None, total) if node.outputs > 3 else y


define(
    "com.microsoft:SkipSimplifiedLayerNormalization", couple=partial(skip_norm, rms=True), shape=_skip_norm,
    repair=partial(repair_rms_norm, scale=2, default=1e-12), traits=Trait.SCALES,
    forward=Forward(forward_skip_rms_normalization),
)  # fmt: skip


def forward_layer_normalization(node: TorchCall, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Over the given axis and all behind it.  Ba, Kiros, Hinton 2016, arXiv 1607.06450."""
    axis = node.get("axis", -1) % x.dim()
    epsilon = node.get("epsilon", 1e-5)
    if node.outputs == 1 and scale.shape == x.shape[axis:] and (bias is None or bias.shape == scale.shape):
        return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)
    variance, mean = torch.var_mean(x, tuple(range(axis, x.dim())), correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + epsilon)
    y = (x - mean) * deviation * scale
    y = y if bias is None else y + bias
    return (y, mean, deviation) if node.outputs > 1 else y


define(
    "LayerNormalization", couple=partial(norm, rms=False), zero=_no_division_by_zero, channelwise=True,
    traits=Trait.SCALES | Trait.STATISTICS | Trait.NORMALISES | Trait.CENTRES,
    forward=Forward(forward_layer_normalization),
)  # fmt: skip


def forward_skip_layer_normalization(
    node: TorchCall, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> Any:
    """The norm of a sum, and the sum itself as the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    y = functional.layer_norm(total, total.shape[-1:], scale, shift, node.get("epsilon", 1e-12))
    return (y, None, None, total) if node.outputs > 3 else y


define(
    "com.microsoft:SkipLayerNormalization", couple=partial(skip_norm, rms=False), shape=_skip_norm,
    traits=Trait.SCALES, forward=Forward(forward_skip_layer_normalization),
)  # fmt: skip
