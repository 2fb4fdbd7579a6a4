"""Arithmetic, comparisons, logic and bits of several values: channels of broadcast operands are the same channels."""

from functools import partial, reduce
from typing import Any

import numpy as np

from onnxprune.operators.boxes import Value
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


def pointwise(op: Op, **_: object) -> list[Axes] | list[Value]:
    """Of one value, whose channels stay as split as they are, or several."""
    if len(op.values) == 1:
        return [op.unmoved()] * len(op.shapes)
    return [op.broadcast(*(op.axes(k) for k in range(len(op.values))))] * len(op.shapes)


def _aligned(x: Axes, y: Axes, axis: int | None) -> Axes:
    """The second operand of the broadcast before opset 7, padded to the end as numpy does it."""
    start = len(x) - len(y) if axis is None else axis
    return (*y, *(fixed(1) for _ in range(len(x) - start - len(y))))


def _with_numbers(site: Site, commutes: bool) -> tuple[Facts, Facts, np.ndarray | None]:
    """Two operands, and the numbers of the second where it is made of weights; of what commutes, of either."""
    if site.opset < 7 and site.attributes.get("broadcast"):
        raise NothingKnown
    (x, y), (left, right) = site.operands(0, 1), (site.array(k) is not None for k in (0, 1))
    x, y, right = (y, x, True) if commutes and left and not right else (x, y, right and not left)
    if right and not np.isfinite(y.low).all():
        raise NothingKnown
    return x, y, y.low if right else None


def bound_addition(site: Site, sign: int) -> Facts:
    x, y, number = _with_numbers(site, sign > 0)
    if number is not None:
        return affine(x, np.ones(1), sign * number, 0.0 if site.whole else NEAR_SUM)
    return added(site, x, y, sign)


def added(site: Site, x: Facts, y: Facts, sign: int = 1) -> Facts:
    """Of two values that both depend on data: their sum, or their difference."""
    low, high = (x.low + y.low, x.high + y.high) if sign > 0 else (x.low - y.high, x.high - y.low)
    return facts(low, high, mix(x.identity, y.identity, bits(y.scale / x.scale), site.kind), x.scale)


def bound_multiplication(site: Site) -> Facts:
    x, y, number = _with_numbers(site, True)
    if number is not None:
        return affine(x, number, np.zeros(1), EXACT)
    corners = [times(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    names = mix(x.identity, y.identity, site.kind)
    return facts(np.minimum.reduce(corners), np.maximum.reduce(corners), names, x.scale * y.scale)


def bound_division(site: Site) -> Facts:
    x, y, number = _with_numbers(site, False)
    if number is not None:
        return _by_number(site, x, number)
    none = x.zero & all(b == 1 for a, b in zip(x.shape, y.shape, strict=True) if a > 1)
    fixed = (x.constant & y.constant & (y.low != 0)) | none  # else zero by zero would be zero no more
    ratio = np.divide(x.low, y.low, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=fixed & ~none)
    low, high = np.where(fixed, ratio, -np.inf), np.where(fixed, ratio, np.inf)
    return facts(low, high, mix(x.identity, y.identity, site.kind), x.scale / y.scale)


def _by_number(site: Site, x: Facts, number: np.ndarray) -> Facts:
    if not number.all():
        raise NothingKnown
    if not site.whole:
        return affine(x, 1 / number, np.zeros(1), EXACT)
    ends = [np.trunc(end / number) for end in (x.low, x.high)]  # of integers towards zero
    return facts(np.minimum(*ends), np.maximum(*ends), mix(*x.exact, bits(number), site.kind))


def bound_several(site: Site, fold: np.ufunc, mean: bool = False) -> Facts:
    found = site.operands()
    share = 1 / len(found) if mean else 1.0
    low, high = reduce(fold, [f.low for f in found]), reduce(fold, [f.high for f in found])
    names = found[0].identity
    for other in found[1:]:
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


_EACH: dict[str, Any] = {"couple": combine, "channelwise": True}

define(
    "Add", **_EACH, zero=every, bound=partial(bound_addition, sign=1), value=in_numpy(np.add), labels_int32=True,
    signs=(1, 1), forward=pairwise("add"),
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.POWERS | Trait.ADDS | Trait.COMPARES,
)  # fmt: skip
define(
    "Sub", **_EACH, zero=every, bound=partial(bound_addition, sign=-1), value=in_numpy(np.subtract), labels_int32=True,
    signs=(1, -1), traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.ADDS | Trait.COMPARES, forward=pairwise("sub"),
)  # fmt: skip
define(
    "Mul", **_EACH, zero=some, bound=bound_multiplication, value=in_numpy(np.multiply), labels_int32=True,
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.MULTIPLIES, forward=pairwise("mul"),
)  # fmt: skip
define(
    "Sum", **_EACH, zero=every, bound=partial(bound_several, fold=np.add), traits=Trait.ELEMENTWISE | Trait.ADDS,
    forward=Forward(lambda node, *x: reduce(torch.add, x)),
)  # fmt: skip
define(
    "Mean", **_EACH, zero=every, bound=partial(bound_several, fold=np.add, mean=True), traits=Trait.ELEMENTWISE,
    forward=Forward(lambda node, *x: reduce(torch.add, x) / len(x)),
)  # fmt: skip
for name, fold in (("Max", np.maximum), ("Min", np.minimum)):
    define(
        name, **_EACH, zero=every, bound=partial(bound_several, fold=fold),
        value=in_numpy(lambda *x, fold=fold: fold.reduce(np.broadcast_arrays(*x))),
        traits=Trait.ELEMENTWISE | Trait.CLAMPS | Trait.COMPARES | Trait.SELECTS,
        forward=Forward(lambda node, *x, name=fold.__name__: reduce(getattr(torch, name), x)),
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
    "Div", **_EACH, zero=quotient, bound=bound_division, value=value_of_division, divisor=1,
    traits=Trait.ELEMENTWISE | Trait.SHIFTS | Trait.UNEVEN | Trait.MULTIPLIES, forward=Forward(forward_division),
)  # fmt: skip


def _positive_exponent(op: Op) -> ZeroWhereDead:
    exponent = op.constant(1)
    return first(op) if exponent is not None and np.all(exponent > 0) else NOT_ZERO


def bound_others(site: Site, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf) -> Facts:
    """Operands as they are give an outcome as it is."""
    return facts(low, high, mix(site.kind, *(part for f in site.operands() for part in f.exact)))


def bound_where(site: Site) -> Facts:
    _, a, b = site.operands()
    return bound_others(site, np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def bound_power(site: Site) -> Facts:
    """Of constants."""
    base, exponent = site.operands()
    fixed = base.constant & exponent.constant
    with np.errstate(all="ignore"):
        value = np.power(np.where(fixed, base.low, 1), np.where(fixed, exponent.low, 1))
    return bound_others(site, np.where(fixed, value, -np.inf), np.where(fixed, value, np.inf))


def bound_prelu(site: Site) -> Facts:
    if site.array(1) is None or site.opset < 7:
        return bound_others(site)
    x, slope = site.operands()
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
    "Pow", **_EACH, zero=_positive_exponent, bound=bound_power, value=by_reference, divisor=0,
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
    "PRelu", couple=prelu, zero=first, bound=bound_prelu, channelwise=True,
    traits=Trait.ELEMENTWISE | Trait.UNARY | Trait.SCALES, forward=Forward(forward_prelu),
)  # fmt: skip
define(
    "Where", **_EACH, zero=only(1, 2), bound=bound_where, value=in_numpy(np.where),
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


define("ImageScaler", couple=image_scaler, channelwise=True, shape=Alike(), forward=Forward(forward_image_scaler))


_COMPARED: dict[str, Any] = {"couple": pointwise, "takes_split": True, "bound": bound_others, "channelwise": True}
_DECISION = Trait.ELEMENTWISE | Trait.DECIDES | Trait.COMPARES

define("Equal", **_COMPARED, value=in_numpy(np.equal), traits=_DECISION, forward=pairwise("eq", into=()))
define("Greater", **_COMPARED, value=in_numpy(np.greater), traits=_DECISION, forward=pairwise("gt", into=()))
define("Less", **_COMPARED, value=in_numpy(np.less), traits=_DECISION, forward=pairwise("lt", into=()))
define("GreaterOrEqual", **_COMPARED, value=by_reference, traits=_DECISION, forward=pairwise("ge", into=()))
define("LessOrEqual", **_COMPARED, value=by_reference, traits=_DECISION, forward=pairwise("le", into=()))
define(
    "Mod", **_COMPARED, value=lambda x, a: (np.fmod if a.get("fmod") else np.mod)(*x), traits=_DECISION | Trait.UNEVEN,
    forward=Forward(lambda node, a, b: torch.fmod(a, b) if node.get("fmod") else torch.remainder(a, b)),
)  # fmt: skip
define("And", **_COMPARED, value=by_reference, traits=Trait.ELEMENTWISE, forward=pairwise("logical_and", into=()))
define("Or", **_COMPARED, value=by_reference, traits=Trait.ELEMENTWISE, forward=pairwise("logical_or", into=()))
define("Xor", **_COMPARED, value=by_reference, traits=Trait.ELEMENTWISE, forward=pairwise("logical_xor", into=()))
_BITS: dict[str, Any] = {"couple": pointwise, "takes_split": True, "bound": bound_others, "traits": Trait.ELEMENTWISE}

define("BitwiseAnd", **_BITS, forward=pairwise("bitwise_and", into=()))
define("BitwiseOr", **_BITS, forward=pairwise("bitwise_or", into=()))
define("BitwiseXor", **_BITS, forward=pairwise("bitwise_xor", into=()))


def forward_bit_shift(node: TorchCall, a: Tensor, b: Tensor) -> Tensor:
    left = node.get("direction") == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


define(
    "BitShift", couple=pointwise, takes_split=True, bound=bound_others, traits=Trait.ELEMENTWISE | Trait.DECIDES,
    forward=Forward(forward_bit_shift, into=()),
)  # fmt: skip
