"""Element-wise functions of several values: channels of broadcast operands are the same channels."""

from functools import reduce
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import NEAR_SUM, affine, times
from onnxprune.operators.labels import Axes, fixed
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, Arrays, Attributes, Trait, by_reference, define, in_numpy
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import EXACT, bits, mix
from onnxprune.operators.zeros import every, first, only, quotient, some


def combine(op: Op, *xs: Axes | None, **attributes: int) -> Axes:
    if op.opset < 7 and attributes.get("broadcast") and len(xs) == 2 and xs[0] is not None and xs[1] is not None:
        xs = (xs[0], _aligned(xs[0], xs[1], attributes.get("axis")))
    return op.broadcast(*xs)


def _aligned(x: Axes, y: Axes, axis: int | None) -> Axes:
    """The second operand of the broadcast before opset 7, padded to the end as numpy does it."""
    start = len(x) - len(y) if axis is None else axis
    return (*y, *(fixed(1) for _ in range(len(x) - start - len(y))))


def bound_arithmetic(site: Site) -> Facts:
    if site.opset < 7 and site.attributes.get("broadcast"):
        raise NothingKnown
    op, (x, y) = site.node.op_type, site.operands(0, 1)
    data = [site.array(k) is None for k in (0, 1)]
    if data == [True, False] or (data == [False, True] and op in ("Add", "Mul")):
        value, number = (x, y.low) if data[0] else (y, x.low)
        if not np.isfinite(number).all() or (op == "Div" and not number.all()):
            raise NothingKnown
        if op == "Div" and site.whole:
            return _bound_quotient(site, value, number)
        if op in ("Mul", "Div"):
            return affine(value, number if op == "Mul" else 1 / number, np.zeros(1), EXACT)
        return affine(value, np.ones(1), number if op == "Add" else -number, 0.0 if site.whole else NEAR_SUM)
    return combined(site, op, x, y)


def _bound_quotient(site: Site, x: Facts, number: np.ndarray) -> Facts:
    """Integers by a number: towards zero."""
    ends = [np.trunc(end / number) for end in (x.low, x.high)]
    return facts(np.minimum(*ends), np.maximum(*ends), mix(*x.exact, bits(number), site.kind))


def combined(site: Site, op: str, x: Facts, y: Facts) -> Facts:
    """Add, Sub, Mul or Div of two values that both depend on data."""
    if op == "Add":
        low, high = x.low + y.low, x.high + y.high
    elif op == "Sub":
        low, high = x.low - y.high, x.high - y.low
    elif op == "Mul":
        corners = [times(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    else:
        none = x.zero & all(b == 1 for a, b in zip(x.shape, y.shape, strict=True) if a > 1)
        fixed = (x.constant & y.constant & (y.low != 0)) | none  # else zero by zero would be zero no more
        ratio = np.divide(x.low, y.low, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=fixed & ~none)
        low, high = np.where(fixed, ratio, -np.inf), np.where(fixed, ratio, np.inf)
    if op == "Mul":
        return facts(low, high, mix(x.identity, y.identity, site.kind), x.scale * y.scale)
    if op == "Div":
        return facts(low, high, mix(x.identity, y.identity, site.kind), x.scale / y.scale)
    return facts(low, high, mix(x.identity, y.identity, bits(y.scale / x.scale), site.kind), x.scale)


def bound_several(site: Site) -> Facts:
    found = site.operands()
    fold = {"Sum": np.add, "Mean": np.add, "Max": np.maximum, "Min": np.minimum}[site.node.op_type]
    share = 1 / len(found) if site.node.op_type == "Mean" else 1.0
    low, high, names = found[0].low, found[0].high, found[0].identity
    for other in found[1:]:
        low, high = fold(low, other.low), fold(high, other.high)
        names = mix(names, other.identity, bits(other.scale / found[0].scale))
    return facts(share * low, share * high, mix(names, site.kind), found[0].scale)


def aligned_operand(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    """The second operand, before opset 7 placed at an axis of the first one."""
    axis = node.get("axis")
    if node.opset >= 7 or axis is None or not node.get("broadcast"):
        return b
    return b.reshape([*b.shape, *[1] * (a.dim() - axis % a.dim() - b.dim())])


def pairwise(name: str, **columns: Any) -> Forward:
    """A function of two values that torch has under this name."""
    return Forward(lambda node, a, b: getattr(torch, name)(a, aligned_operand(node, a, b)), **columns)


_EACH: dict[str, Any] = {"couple": combine, "apart": True}

define(
    "Add", **_EACH, zero=every, bound=bound_arithmetic, value=in_numpy(np.add), labels_int32=True, signs=(1, 1),
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.POWERS | Trait.ADDS | Trait.COMPARES, forward=pairwise("add"),
)  # fmt: skip
define(
    "Sub", **_EACH, zero=every, bound=bound_arithmetic, value=in_numpy(np.subtract), labels_int32=True, signs=(1, -1),
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.ADDS | Trait.COMPARES, forward=pairwise("sub"),
)  # fmt: skip
define(
    "Mul", **_EACH, zero=some, bound=bound_arithmetic, value=in_numpy(np.multiply), labels_int32=True,
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.MULTIPLIES, forward=pairwise("mul"),
)  # fmt: skip


_SEVERAL: dict[str, Any] = {**_EACH, "zero": every, "bound": bound_several}

define(
    "Sum", **_SEVERAL, traits=Trait.ELEMENTWISE | Trait.ADDS,
    forward=Forward(lambda node, *x: reduce(torch.add, x)),
)  # fmt: skip
define("Mean", **_SEVERAL, traits=Trait.ELEMENTWISE, forward=Forward(lambda node, *x: reduce(torch.add, x) / len(x)))
define(
    "Max", **_SEVERAL, value=lambda x, _: np.asarray(np.max(np.broadcast_arrays(*x), axis=0)),
    traits=Trait.ELEMENTWISE | Trait.CLAMPS | Trait.COMPARES | Trait.SELECTS,
    forward=Forward(lambda node, *x: reduce(torch.maximum, x)),
)  # fmt: skip
define(
    "Min", **_SEVERAL, value=lambda x, _: np.asarray(np.min(np.broadcast_arrays(*x), axis=0)),
    traits=Trait.ELEMENTWISE | Trait.CLAMPS | Trait.COMPARES | Trait.SELECTS,
    forward=Forward(lambda node, *x: reduce(torch.minimum, x)),
)  # fmt: skip


def forward_division(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    b = aligned_operand(node, a, b)
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def value_of_division(x: Arrays, _: Attributes) -> np.ndarray | None:
    a, b = x[0], x[1]
    if not np.issubdtype(a.dtype, np.integer):
        return a / b
    if not np.all(b):
        return None
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


define(
    "Div", **_EACH, zero=quotient, bound=bound_arithmetic, value=value_of_division, divisor=1,
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.UNEVEN | Trait.MULTIPLIES, forward=Forward(forward_division),
)  # fmt: skip


def _positive_exponent(op: Op) -> ZeroWhereDead:
    exponent = op.constant(1)
    return first(op) if exponent is not None and np.all(exponent > 0) else NOT_ZERO


def bound_others(site: Site) -> Facts:
    """Operands as they are give an outcome as it is; constants are followed through PRelu and Pow."""
    found, op, low, high = site.operands(), site.node.op_type, np.array(-np.inf), np.array(np.inf)
    if op == "PRelu" and site.array(1) is not None and site.opset >= 7:
        return _bound_prelu(site, *found)
    if op == "Where":
        low, high = np.minimum(found[1].low, found[2].low), np.maximum(found[1].high, found[2].high)
    if op == "Pow":
        fixed = found[0].constant & found[1].constant
        with np.errstate(all="ignore"):
            value = np.power(np.where(fixed, found[0].low, 1), np.where(fixed, found[1].low, 1))
        low, high = np.where(fixed, value, -np.inf), np.where(fixed, value, np.inf)
    return facts(low, high, mix(site.kind, *(part for f in found for part in f.exact)))


def _bound_prelu(site: Site, x: Facts, slope: Facts) -> Facts:
    s = slope.low
    with np.errstate(invalid="ignore"):
        a, b = (np.where(end >= 0, end, times(end, s)) for end in (x.low, x.high))
    keeps = (s >= 0) | x.constant
    name = mix(x.identity, *slope.exact, site.kind)
    return facts(np.where(keeps, np.minimum(a, b), -np.inf), np.where(keeps, np.maximum(a, b), np.inf), name, x.scale)


def forward_power(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    """The exponent is a number: of negative bases no slope along it exists."""
    b = aligned_operand(node, a, b)
    exponent = float(b) if b.numel() == 1 and b.dim() <= a.dim() else b.detach()
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    return torch.pow(a, exponent).to(a.dtype)


define(
    "Pow", **_EACH, zero=_positive_exponent, bound=bound_others, value=by_reference, divisor=0,
    shape=lambda x, _: [x[0]], traits=Trait.ELEMENTWISE | Trait.NUMBERS | Trait.POWERS,
    forward=Forward(forward_power, into=(0,)),
)  # fmt: skip


def prelu(op: Op, x: Axes, slope: Axes) -> Axes:
    if op.opset < 7 and len(slope) == 1 and slope[0].size > 1:
        op.tie(x[1], slope[0])
        return x
    return op.broadcast(x, slope)


def forward_prelu(node: TorchCall, x: Tensor, slope: Tensor) -> Tensor:
    """Before opset 7 a slope of one axis belongs to the channels."""
    if node.opset < 7 and slope.dim() == 1 and x.dim() > 2:
        slope = slope.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, slope * x, x)


define(
    "PRelu", couple=prelu, zero=first, bound=bound_others, apart=True,
    traits=Trait.ELEMENTWISE | Trait.UNARY | Trait.SCALES, forward=Forward(forward_prelu),
)  # fmt: skip
define(
    "Where", **_EACH, zero=only(1, 2), bound=bound_others, value=in_numpy(np.where),
    traits=Trait.ELEMENTWISE | Trait.COMPARES | Trait.SELECTS,
    forward=Forward(lambda node, condition, a, b: torch.where(condition, a, b), into=(1, 2)),
)  # fmt: skip


def image_scaler(op: Op, x: Axes, **_: object) -> Axes:
    """An operator of early Windows exports: per-channel bias from an attribute, which is not cut."""
    op.freeze(x[1], why="adds a bias that stands in its attributes")
    return x


def forward_image_scaler(node: TorchCall, x: Tensor) -> Tensor:
    """Images (batch, channels, height, width): a bias per channel behind one scale."""
    return x * node.get("scale", 1.0) + x.new_tensor(node.get("bias")).reshape(1, -1, 1, 1)


define("ImageScaler", couple=image_scaler, apart=True, shape=Alike(), forward=Forward(forward_image_scaler))
