"""Operators on quantised maps: what the integers stand for is computed in float and quantised again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from onnxprune.operators.broadcast import bound_others
from onnxprune.operators.facts import Facts, NothingKnown, facts, stacked
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.labels import Axes
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.pooling import forward_average_pool, pooled
from onnxprune.operators.quantization import Pair, Steps, real, real_bounds, requantised, rounded_bounds, steps_at
from onnxprune.operators.registry import Alike, Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.reshaping import concat
from onnxprune.operators.site import Site
from onnxprune.operators.unary import unchanged
from onnxprune.operators.value_numbers import mix


def qlinear_pointwise(op: Op, a: Axes, a_scale: Axes, a_zero: Axes, b: Axes, *rest: Axes | None, **_: Any) -> Axes:
    return op.broadcast(a, b)


def bound_qlinear_pointwise(site: Site, corners: Callable[[Pair, Pair], list[np.ndarray]]) -> Facts:
    """Between the least and the largest of what `corners` makes of bounds of what both stand for."""
    both, steps = site.operands(0, 3), [steps_at(site, k) for k in (1, 4, 6)]
    found = corners(*map(real_bounds, both, steps))
    bounds = rounded_bounds((np.minimum.reduce(found), np.maximum.reduce(found)), steps[2])
    known: list[Facts | Steps] = [*both, *steps]
    return facts(*bounds, mix(*(part for x in known for part in x.exact), site.kind))


def _typed(zero: Tensor | None, like: Tensor | None) -> Tensor | None:
    """A zero point that is left out is 0, of the type of another one."""
    return torch.zeros_like(like) if zero is None and like is not None else zero


def between_two_steps(function: Callable[[Tensor, Tensor], Tensor]) -> Forward:
    """A function of what the integers of two values stand for."""

    def forward(
        node: TorchCall, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
        scale: Tensor, zero: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        y = function(real(a, a_scale, a_zero), real(b, b_scale, b_zero))
        return requantised(node, y, scale, _typed(zero, a_zero))

    return Forward(forward, into=(0, 3))


_POINTWISE: dict[str, Any] = {"couple": qlinear_pointwise, "channelwise": True}
define(
    "com.microsoft:QLinearAdd", **_POINTWISE, shape=Alike("Add", (0, 3)), traits=Trait.STEPS | Trait.QUANTIZES,
    bound=partial(bound_qlinear_pointwise, corners=lambda a, b: [a[0] + b[0], a[1] + b[1]]),
    forward=between_two_steps(lambda a, b: a + b),
)  # fmt: skip
define(
    "com.microsoft:QLinearMul", **_POINTWISE, shape=Alike("Mul", (0, 3)), traits=Trait.STEPS,
    bound=partial(bound_qlinear_pointwise, corners=lambda a, b: [x * y for x in a for y in b]),
    forward=between_two_steps(lambda a, b: a * b),
)  # fmt: skip


def between_steps(function: Callable[[TorchCall, Tensor], Tensor]) -> Forward:
    """A function of what the integers stand for."""

    def forward(
        node: TorchCall, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, scale: Tensor, zero: Tensor | None = None
    ) -> Tensor:
        return requantised(node, function(node, real(x, x_scale, x_zero)), scale, _typed(zero, x_zero))

    return Forward(forward, into=(0,))


define(
    "com.microsoft:QLinearLeakyRelu", couple=unchanged, bound=bound_others, channelwise=True, shape=Alike(),
    traits=Trait.STEPS, forward=between_steps(lambda node, x: functional.leaky_relu(x, node.get("alpha", 0.01))),
)  # fmt: skip
define(
    "com.microsoft:QLinearSigmoid", couple=unchanged, bound=bound_others, channelwise=True, shape=Alike(),
    traits=Trait.STEPS, forward=between_steps(lambda node, x: torch.sigmoid(x)),
)  # fmt: skip


def qlinear_softmax(op: Op, x: Axes, *_: Axes | None, axis: int = -1, opset: int = 13, **__: Any) -> Axes:
    op.freeze(*(x[axis:] if opset < 13 else (x[axis],)), why="normalises over it")
    return x


def _softmax(node: TorchCall, x: Tensor) -> Tensor:
    axis = node.get("axis", -1)
    if node.get("opset", 13) >= 13:
        return torch.softmax(x, axis)
    return torch.softmax(x.flatten(axis % x.dim()), -1).reshape(x.shape)


define(
    "com.microsoft:QLinearSoftmax", couple=qlinear_softmax, shape=Alike(), traits=Trait.STEPS,
    forward=between_steps(_softmax),
)  # fmt: skip


def forward_qlinear_where(
    node: TorchCall, condition: Tensor, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor,
    b_zero: Tensor, scale: Tensor, zero: Tensor,
) -> Tensor:  # fmt: skip
    return requantised(node, torch.where(condition, real(a, a_scale, a_zero), real(b, b_scale, b_zero)), scale, zero)


define(
    "com.microsoft:QLinearWhere", couple=lambda op, *x: op.broadcast(*x[:2], x[4]), bound=bound_others,
    channelwise=True, shape=Alike("Where", (0, 1, 4)), typed_by=1, traits=Trait.STEPS,
    forward=Forward(forward_qlinear_where, into=(1, 4)),
)  # fmt: skip


def qlinear_pool(op: Op, x: Axes, *_: Axes | None, channels_last: int = 0, **__: Any) -> Axes:
    op.freeze(*(x[1:-1] if channels_last else x[2:]), why="pools over it")
    channel = len(x) - 1 if channels_last else 1
    return tuple(labels if k in (0, channel) else op.fixed_out(k) for k, labels in enumerate(x))


def bound_qlinear_pool(site: Site) -> Facts:
    if site.attributes.get("channels_last", 0) or any(site.attributes.get("pads", ())):
        raise NothingKnown
    flat, before, after = pooled(site), steps_at(site, 1), steps_at(site, 3)
    bounds = rounded_bounds(real_bounds(flat, before), after)
    return facts(*bounds, mix(*flat.exact, *before.exact, *after.exact, site.kind))


def _mean_of_space(node: TorchCall, x: Tensor) -> Tensor:
    return x.mean(tuple(range(1, x.dim() - 1) if node.get("channels_last") else range(2, x.dim())), keepdim=True)


def _mean_of_windows(node: TorchCall, x: Tensor) -> Tensor:
    if node.get("channels_last"):
        return forward_average_pool(node, x.movedim(-1, 1)).movedim(1, -1)
    return forward_average_pool(node, x)


define(
    "com.microsoft:QLinearGlobalAveragePool", couple=qlinear_pool, bound=bound_qlinear_pool, channelwise=True,
    shape=Alike("GlobalAveragePool"), traits=Trait.STEPS, forward=between_steps(_mean_of_space),
)  # fmt: skip
define(
    "com.microsoft:QLinearAveragePool", couple=qlinear_pool, bound=bound_qlinear_pool, channelwise=True,
    shape=Alike("AveragePool"), traits=Trait.STEPS, forward=between_steps(_mean_of_windows),
)  # fmt: skip
define("com.microsoft:QLinearReduceMean", shape=Alike("ReduceMean"), traits=Trait.STEPS)


def qlinear_concat(op: Op, scale: Axes, zero: Axes, *parts: Axes, axis: int = 0) -> Axes:
    return concat(op, *parts[::3], axis=axis)


def bound_qlinear_concat(site: Site) -> Facts:
    after, parts = steps_at(site, 0), []
    for k in range(2, len(site.node.input), 3):
        (found, shape), before = site.fact(k), steps_at(site, k + 1)
        bounds = rounded_bounds(real_bounds(found, before), after)
        parts.append((facts(*bounds, mix(*found.exact, *before.exact, *after.exact)), shape))
    return stacked(parts, site.attributes.get("axis", 0) % len(parts[0][1]))


def _qlinear_concat_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Inputs: scale and zero point of the output, then (values, scale, zero point) of each part."""
    parts, axis = x[2::3], a["axis"] % len(x[2])
    return [tuple(sum(p[axis] for p in parts) if k == axis else n for k, n in enumerate(parts[0]))]


def forward_qlinear_concat(node: TorchCall, scale: Tensor, zero: Tensor, *parts: Tensor) -> Tensor:
    """Parts: (values, scale, zero point) of each."""
    found = [real(parts[k], parts[k + 1], parts[k + 2]) for k in range(0, len(parts), 3)]
    return requantised(node, torch.cat(found, node.get("axis")), scale, zero)


define(
    "com.microsoft:QLinearConcat", couple=qlinear_concat, bound=bound_qlinear_concat, channelwise=True,
    shape=_qlinear_concat_shape, typed_by=2, traits=Trait.STEPS,
    forward=Forward(forward_qlinear_concat, into=range(2, 1 << 16, 3)),
)  # fmt: skip
