"""Quantised networks: scales and zero points of channels follow them; integers are cut without a cast."""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from onnxprune.operators.arrays import RANGES
from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import INTEGERS, Facts, NothingKnown, facts
from onnxprune.operators.forward import Forward, TorchCall, Units
from onnxprune.operators.intervals import applied
from onnxprune.operators.labels import Axes, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import FLOAT, UINT8, Alike, Attributes, Numbers, Trait, ZeroPoints, define
from onnxprune.operators.roles import Scaling
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import Ids, bits, mix
from onnxprune.operators.zeros import first

Pair = tuple[np.ndarray, np.ndarray]


def quantize(op: Op, **attributes: Any) -> Axes | Value:
    """With one scale for all of them, channels stay as split as they are."""
    value, scale = op.values[:2]
    if value is not None and value.split_axis is not None and scale is not None and all(n == 1 for n in scale.shape):
        return op.unmoved()
    x, steps, *rest = (op.axes(k) for k in range(len(op.values)))
    if x is None or steps is None:
        return op.unknown("has no input or scale")
    return _quantized(op, x, steps, *rest, **attributes)


def _quantized(
    op: Op, x: Axes, scale: Axes, zero_point: Axes | None = None, *, axis: int = 1, block_size: int = 0, **_: Any
) -> Axes:
    if block_size:
        op.freeze(*x, *scale, *(zero_point or ()), why="quantises it in blocks")
        return x
    per_channel = len(scale) == 1 and scale[0].size > 1
    if per_channel:
        op.tie(x[axis], scale[0], *(zero_point or ()))
    if op.weights[0]:
        names = (*op.names, "")
        op.scalings[0] = Scaling(names[1], names[2], axis if per_channel else None)
    return x


def bound_quantize(site: Site, *, to_real: bool) -> Facts:
    found, rank, scale = site.data(), len(site.shape()), site.weight(1)
    given = site.attributes.get("output_dtype", 0) or TensorProto.UINT8  # the type that a zero point has, if any
    zero = site.weight(2, np.zeros((), INTEGERS.get(given, np.float32)))
    if site.attributes.get("block_size", 0) or (scale.size > 1 and scale.ndim != 1):
        raise NothingKnown
    at = line(rank, site.attributes.get("axis", 1))
    s, z = (a.astype(np.float64).reshape(at if a.size > 1 else [1] * rank) for a in (scale, zero))
    if to_real:
        bounds = applied(found, lambda x: (x - z) * s, True)
    elif zero.dtype.kind not in "iu":
        raise NothingKnown
    else:
        bounds = rounded((found.low / s, found.high / s), z, zero.dtype)
    return facts(*bounds, mix(*found.exact, bits(s), bits(z), site.kind))


_STEPS = Trait.SHIFTS | Trait.NUMBERS | Trait.MAPS | Trait.QUANTIZES
_QUANTIZE: dict[str, Any] = {
    "couple": quantize, "takes_split": True, "zero": first, "channelwise": True, "shape": Alike(),
}  # fmt: skip


@cache
def straight_through() -> Any:
    """Rounding whose gradient is taken for 1 within the range and for 0 beyond it.

    Bengio, Léonard, Courville 2013, arXiv 1308.3432.
    """

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor, shift: Tensor, low: float, high: float) -> Tensor:  # type: ignore[no-untyped-def]
            moved = x.round() + shift
            ctx.save_for_backward((moved >= low) & (moved <= high))
            return moved.clamp(low, high)

        @staticmethod
        def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
            return gradient * ctx.saved_tensors[0], None, None, None

    return Rounded


def quantised(x: Tensor, scale: Tensor, zero: Tensor | None, bounds: tuple[float, float]) -> Tensor:
    """round(x / scale) + zero within bounds: halves go to the even number before the shift, as in onnxruntime."""
    shift = torch.zeros((), device=x.device) if zero is None else zero
    return straight_through().apply(x / scale, shift.to(x.dtype), *bounds)


def along(v: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """Scales or zero points of x: one, one per position of an axis, or one per block of an axis."""
    if v.numel() == 1 and v.dim() < 2:
        return v.reshape(())
    if block:
        return v.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return v.reshape(line(x.dim(), axis))


def limits(node: TorchCall, zero: Tensor | None) -> tuple[float, float]:
    """The range of the type that a zero point has, or the attribute tells; uint8 without either."""
    if node.get("output_dtype"):
        return RANGES[node.get("output_dtype")]
    if zero is None:
        return 0.0, 255.0
    bounds = torch.iinfo(zero.dtype)
    return float(bounds.min), float(bounds.max)


def forward_quantize_linear(node: TorchCall, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    wide = None if zero is None else along(zero, x, axis, block)
    return quantised(x, along(scale, x, axis, block), wide, limits(node, zero))


def _ends_of_integers(_: Attributes, number: Numbers) -> tuple[float, float]:
    """What integers with one scale can stand for."""
    scale, zero = number(1), number(2)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
        return -np.inf, np.inf
    kind, step, at = np.iinfo(zero.dtype), float(scale.reshape(())), int(zero.reshape(()))
    return (kind.min - at) * step, (kind.max - at) * step


define(
    "QuantizeLinear com.microsoft:QuantizeLinear", **_QUANTIZE, zero_points=ZeroPoints(held=2), flat=_ends_of_integers,
    typed_by=lambda node: 2 if len(node.input) > 2 and node.input[2] else UINT8,
    bound=partial(bound_quantize, to_real=False), traits=_STEPS | Trait.DECIDES | Trait.ROUNDS,
    forward=Forward(forward_quantize_linear, into=(0,)),
)  # fmt: skip


def real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """What whole numbers stand for."""
    dtype = scale.dtype
    return (x.to(dtype) if zero is None else x.to(dtype) - zero.to(dtype)) * scale


def units_of(node: TorchCall, position: int, inputs: Sequence[Tensor | None]) -> Units | None:
    x, scale, *rest = inputs
    if position or x is None or scale is None:
        return None
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    zero = rest[0] if rest and rest[0] is not None else torch.zeros(())
    return along(scale, x, axis, block), along(zero, x, axis, block)


def forward_dequantize_linear(node: TorchCall, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    return real(x, along(scale, x, axis, block), None if zero is None else along(zero, x, axis, block))


define(
    "DequantizeLinear com.microsoft:DequantizeLinear", **_QUANTIZE, labels_int32=True, zero_points=ZeroPoints({0: 2}),
    bound=partial(bound_quantize, to_real=True), typed_by=FLOAT, traits=_STEPS | Trait.RANGE | Trait.DEQUANTIZES,
    forward=Forward(forward_dequantize_linear, into=(0,), units=units_of),
)  # fmt: skip


def dynamic_quantize(op: Op, x: Axes) -> list[Axes]:
    one_scale(op, x)
    return [x, (), ()]


def one_scale(op: Op, x: Axes) -> None:
    """One scale is taken over all elements, and over zero: zeros do not change it."""
    op.sums(op.relies(op.zero_where_dead(0)), *x, why="takes one scale over all of it")


def dynamic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point (uint8) of a range."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().clamp(0, 255).to(torch.uint8)


def forward_dynamic_quantize_linear(node: TorchCall, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8 by the range of x, which holds 0; scale and zero point are taken for constants."""
    scale, zero = dynamic(x)
    return quantised(x, scale, zero, (0.0, 255.0)), scale, zero


define(
    "DynamicQuantizeLinear", couple=dynamic_quantize, zero=first, zero_points=ZeroPoints(computed=2),
    traits=Trait.DECIDES | Trait.QUANTIZES | Trait.ROUNDS, forward=Forward(forward_dynamic_quantize_linear),
)  # fmt: skip


class Steps(NamedTuple):
    """One scale and zero point, and the type of the latter."""

    scale: float
    zero: float
    dtype: np.dtype

    @property
    def exact(self) -> tuple[Ids, Ids]:
        return bits(self.scale), bits(self.zero)


def steps_at(site: Site, k: int) -> Steps:
    """Those that stand in inputs k and k + 1."""
    scale, zero = site.weight(k), site.weight(k + 1)
    return Steps(float(scale.item()), float(zero.item()), zero.dtype)


def real_bounds(found: Facts, steps: Steps) -> Pair:
    return (found.low - steps.zero) * steps.scale, (found.high - steps.zero) * steps.scale


def rounded_bounds(bounds: Pair, steps: Steps) -> Pair:
    """Bounds of what is quantised."""
    low, high = (end / steps.scale for end in bounds)
    return rounded((low, high), np.asarray(steps.zero), steps.dtype)


def rounded(bounds: Pair, zero: np.ndarray, dtype: np.dtype) -> Pair:
    """Bounds of numbers (in steps) as integers of a type; one that may round either way is between both."""
    ends = np.iinfo(dtype)
    low, high = np.minimum(*bounds), np.maximum(*bounds)
    slack = [1e-4 + 1e-6 * np.abs(np.where(np.isfinite(end), end, 0)) for end in (low, high)]
    low, high = np.round(low - slack[0]) + zero, np.round(high + slack[1]) + zero
    return np.clip(low, ends.min, ends.max), np.clip(high, ends.min, ends.max)


Inputs = Sequence[Tensor | None]


def requantised(node: TorchCall, y: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    return quantised(y, scale, zero, limits(node, zero))
