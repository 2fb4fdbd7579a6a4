"""Quantisation with straight-through gradients: whole numbers are carried in float32 from the first one on.

Bengio, Léonard, Courville 2013, arXiv 1308.3432: the gradient of rounding is taken for 1 within the range, 0 beyond.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.training.arrays import RANGES
from onnxprune.training.operators.table import Node, Scaling, differentiable


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, shift: Tensor, low: float, high: float) -> Tensor:  # type: ignore[no-untyped-def]
        moved = x.round() + shift
        ctx.save_for_backward((moved >= low) & (moved <= high))
        return moved.clamp(low, high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        return gradient * ctx.saved_tensors[0], None, None, None


def quantised(x: Tensor, scale: Tensor, zero: Tensor | None, bounds: tuple[float, float]) -> Tensor:
    """round(x / scale) + zero within bounds: halves go to the even number before the shift, as in onnxruntime."""
    shift = torch.zeros((), device=x.device) if zero is None else zero
    return _Rounded.apply(x / scale, shift.to(x.dtype), *bounds)


def along(v: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """Scales or zero points of x: one, one per position of an axis, or one per block of an axis."""
    if v.numel() == 1 and v.dim() < 2:
        return v.reshape(())
    if block:
        return v.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return v.reshape([-1 if k == axis % x.dim() else 1 for k in range(x.dim())])


def limits(node: Node, zero: Tensor | None) -> tuple[float, float]:
    """The range of the type that a zero point has, or the attribute tells; uint8 without either."""
    if node.get("output_dtype"):
        return RANGES[node.get("output_dtype")]
    if zero is None:
        return 0.0, 255.0
    bounds = torch.iinfo(zero.dtype)
    return float(bounds.min), float(bounds.max)


def real(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """What whole numbers stand for."""
    dtype = scale.dtype
    return (x.to(dtype) if zero is None else x.to(dtype) - zero.to(dtype)) * scale


@differentiable("QuantizeLinear", "com.microsoft:QuantizeLinear", into=(0,))
def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    wide = None if zero is None else along(zero, x, axis, block)
    return quantised(x, along(scale, x, axis, block), wide, limits(node, zero))


def _scaling(node: Node, position: int, inputs: Sequence[Tensor | None]) -> Scaling | None:
    x, scale, *rest = inputs
    if position or x is None or scale is None:
        return None
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    zero = rest[0] if rest and rest[0] is not None else torch.zeros(())
    return along(scale, x, axis, block), along(zero, x, axis, block)


@differentiable("DequantizeLinear", "com.microsoft:DequantizeLinear", into=(0,), scaling=_scaling)
def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    return real(x, along(scale, x, axis, block), None if zero is None else along(zero, x, axis, block))


@differentiable("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8 by the range of x, which holds 0; scale and zero point are taken for constants."""
    scale, zero = dynamic(x)
    return quantised(x, scale, zero, (0.0, 255.0)), scale, zero


def dynamic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point (uint8) of a range."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().clamp(0, 255).to(torch.uint8)
