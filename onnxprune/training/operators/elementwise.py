"""Arithmetic, comparison and logic, element by element."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.training.arrays import FLOATS, carrier
from onnxprune.training.operators.table import Node, differentiable, without_gradient

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}
STEPS: dict[str, Callable[[Tensor], Tensor]] = {  # constant wherever they have a slope
    "Ceil": torch.ceil,
    "Floor": torch.floor,
    "Round": torch.round,
    "Sign": torch.sign,
    "IsNaN": torch.isnan,
    "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
}
for _name, _function in UNARY.items():
    differentiable(_name)(lambda node, x, function=_function: function(x))
for _name, _function in STEPS.items():
    without_gradient(_name)(lambda node, x, function=_function: function(x))


def aligned(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The second operand, before opset 7 placed at an axis of the first one."""
    axis = node.get("axis")
    if node.opset >= 7 or axis is None or not node.get("broadcast"):
        return b
    return b.reshape([*b.shape, *[1] * (a.dim() - axis % a.dim() - b.dim())])


def _divide(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Div": _divide,
    "Mul": torch.mul,
    "Sub": torch.sub,
}
COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
for _name, _pair in BINARY.items():
    differentiable(_name)(lambda node, a, b, function=_pair: function(a, aligned(node, a, b)))
for _name, _pair in COMPARISONS.items():
    without_gradient(_name)(lambda node, a, b, function=_pair: function(a, aligned(node, a, b)))


@differentiable("Pow", into=(0,))
def power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The exponent is a number: of negative bases no slope along it exists."""
    b = aligned(node, a, b)
    exponent = float(b) if b.numel() == 1 and b.dim() <= a.dim() else b.detach()
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    return torch.pow(a, exponent).to(a.dtype)


@differentiable("Mod")
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod") else torch.remainder(a, b)


@without_gradient("BitShift")
def bit_shift(node: Node, a: Tensor, b: Tensor) -> Tensor:
    left = node.get("direction") == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


@without_gradient("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    high, low = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return torch.isinf(x) & ((x > 0) & bool(high) | (x < 0) & bool(low))


@differentiable("Sum")
def total(node: Node, *x: Tensor) -> Tensor:
    out = x[0]
    for other in x[1:]:
        out = out + other
    return out


@differentiable("Mean")
def mean(node: Node, *x: Tensor) -> Tensor:
    return total(node, *x) / len(x)


@differentiable("Max")
def largest(node: Node, *x: Tensor) -> Tensor:
    out = x[0]
    for other in x[1:]:
        out = torch.maximum(out, other)
    return out


@differentiable("Min")
def smallest(node: Node, *x: Tensor) -> Tensor:
    out = x[0]
    for other in x[1:]:
        out = torch.minimum(out, other)
    return out


@differentiable("Where", into=(1, 2))
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@differentiable("Clip", into=(0,))
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds are attributes before opset 11; where they cross, the upper one counts."""
    if node.opset < 11:
        return x.clamp(node.get("min", -3.4028235e38), node.get("max", 3.4028235e38))
    low, high = (None if bound is None else bound.to(x.dtype) for bound in (low, high))
    return x if low is None and high is None else x.clamp(low, high)


@differentiable("Cast", into=lambda node: (0,) if node.get("to") in FLOATS or isinstance(node.get("to"), str) else ())
def cast(node: Node, x: Tensor) -> Tensor:
    """Half precision is carried in float32.  Numbers become True where they are not 0."""
    return convert(x, carrier(node.get("to")))


@differentiable("CastLike", into=(0,))
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    return convert(x, like.dtype)


def convert(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Another type; whole numbers that are carried in float stay there where a gradient comes with them."""
    return x != 0 if dtype == torch.bool and x.dtype != torch.bool else x.to(dtype)


@differentiable("Affine")
def affine(node: Node, x: Tensor) -> Tensor:
    return node.get("alpha", 1.0) * x + node.get("beta", 0.0)


@differentiable("ImageScaler")
def image_scaler(node: Node, x: Tensor) -> Tensor:
    """Images (batch, channels, height, width): a bias per channel behind one scale."""
    return x * node.get("scale", 1.0) + x.new_tensor(node.get("bias")).reshape(1, -1, 1, 1)
