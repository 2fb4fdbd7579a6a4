"""Element-wise operators: channels of broadcast operands are the same channels."""

import numpy as np

from onnxprune.channels.boxes import Value
from onnxprune.channels.labels import Axes, fixed
from onnxprune.channels.op import Op
from onnxprune.channels.promises import every, first, only, provided, some
from onnxprune.channels.tables import rule

ZERO_AT_ZERO = (
    "Abs Asin Asinh Atan Atanh Cast Ceil Celu Dropout Elu Erf Floor Gelu HardSwish Identity LeakyRelu Mish Neg "
    "Relu Round Selu Sign Sin Sinh Softsign Sqrt Swish Tan Tanh ThresholdedRelu "
    "com.microsoft:Gelu com.microsoft:QuickGelu"
).split()
NOT_AT_ZERO = (
    "Acos Acosh Affine And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cos Cosh Equal Exp Greater "
    "GreaterOrEqual HardSigmoid IsInf IsNaN Less LessOrEqual Log Mod Not Or ParametricSoftplus Reciprocal ScaledTanh "
    "Sigmoid Softplus Xor"
).split()


@rule(*ZERO_AT_ZERO, quiet=first, tangled=True)
@rule(
    "com.microsoft:FastGelu", "com.microsoft:BiasGelu", "com.microsoft:BiasAdd", quiet=every, tangled=True
)  # of a sum
@rule("Celu", quiet=provided(lambda a: a.get("alpha", 1.0) != 0), tangled=True)  # 0 / 0
@rule("Shrink", quiet=provided(lambda a: a.get("lambd", 0.5) >= 0 or not a.get("bias", 0.0)), tangled=True)
@rule(*NOT_AT_ZERO, tangled=True)
def pointwise(op: Op, **_: object) -> list[Axes] | list[Value]:
    if len(op.values) == 1:
        return [op.unmoved()] * len(op.shapes)
    return [op.broadcast(*(op.axes(k) for k in range(len(op.values))))] * len(op.shapes)


@rule("CastLike", quiet=first)
def cast_like(op: Op, x: Axes, _: Axes, **__: object) -> Axes:
    return x


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean", quiet=every)
@rule("Mul", quiet=some)
def combine(op: Op, *xs: Axes | None, **attributes: int) -> Axes:
    if op.opset < 7 and attributes.get("broadcast") and len(xs) == 2 and xs[0] is not None and xs[1] is not None:
        xs = (xs[0], _aligned(xs[0], xs[1], attributes.get("axis")))
    return op.broadcast(*xs)


def _aligned(x: Axes, y: Axes, axis: int | None) -> Axes:
    """The second operand of the broadcast before opset 7, padded to the end as numpy does it."""
    start = len(x) - len(y) if axis is None else axis
    return (*y, *(fixed(1) for _ in range(len(x) - start - len(y))))


def _nonzero_divisor(op: Op) -> bool:
    """0 / y = 0, but 0 / 0 is none."""
    return not op.quiet[1] and first(op)


@rule("Div", quiet=_nonzero_divisor)
def divide(op: Op, *xs: Axes | None, **attributes: int) -> Axes:
    if op.opset < 7 and attributes.get("broadcast") and xs[0] is not None and xs[1] is not None:
        xs = (xs[0], _aligned(xs[0], xs[1], attributes.get("axis")))
    return op.broadcast(*xs)


def _positive_exponent(op: Op) -> bool:
    exponent = op.constant(1)
    return exponent is not None and bool(np.all(exponent > 0)) and first(op)


@rule("Pow", quiet=_positive_exponent)
def power(op: Op, *xs: Axes | None, **attributes: int) -> Axes:
    return divide(op, *xs, **attributes)


def _zero_inside(op: Op) -> bool:
    low, high = op.attributes.get("min", op.constant(1)), op.attributes.get("max", op.constant(2))
    known = all(k >= len(op.names) or not op.names[k] or op.constant(k) is not None for k in (1, 2))
    inside = (low is None or bool(np.all(low <= 0))) and (high is None or bool(np.all(high >= 0)))
    return known and inside and first(op)


@rule("Clip", quiet=_zero_inside)
def clip(op: Op, x: Axes, *bounds: Axes | None, **_: object) -> Axes:
    return x


@rule("PRelu", quiet=first)
def prelu(op: Op, x: Axes, slope: Axes) -> Axes:
    if op.opset < 7 and len(slope) == 1 and slope[0].size > 1:
        op.tie(x[1], slope[0])
        return x
    return op.broadcast(x, slope)


@rule("Where", quiet=only(1, 2))
def where(op: Op, condition: Axes, x: Axes, y: Axes) -> Axes:
    return op.broadcast(condition, x, y)


@rule("ImageScaler")
def image_scaler(op: Op, x: Axes, **_: object) -> Axes:
    """An operator of early Windows exports: per-channel bias from an attribute, which is not cut."""
    op.freeze(x[1], why="adds a bias that stands in its attributes")
    return x
