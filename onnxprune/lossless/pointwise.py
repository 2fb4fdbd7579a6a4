"""Element-wise operators: bounds through monotone functions, identities through what is the same for each channel."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import erf, expit

from onnxprune.channels.tables import operator
from onnxprune.lossless.facts import Facts, aligned, facts
from onnxprune.lossless.likeness import EXACT, bits, mix, name_of, snapped
from onnxprune.lossless.site import Site, rule

Function = Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _elu(x: np.ndarray, alpha: float, gamma: float = 1.0, unit: float = 1.0) -> np.ndarray:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / unit))


def _gelu(x: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    if a.get("approximate") in (b"tanh", "tanh"):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


# f(s · x) = s · f(x) for positive s.
HOMOGENEOUS: dict[str, Function] = {
    "Relu": lambda x, a: np.maximum(x, 0),
    "LeakyRelu": lambda x, a: np.where(x >= 0, x, a.get("alpha", 0.01) * x),
    "Identity": lambda x, a: x,
    "Dropout": lambda x, a: x,
    "Neg": lambda x, a: -x,
}
MONOTONE: dict[str, Function] = {
    "Asinh": lambda x, a: np.arcsinh(x),
    "Atan": lambda x, a: np.arctan(x),
    "Ceil": lambda x, a: np.ceil(x),
    "Celu": lambda x, a: _elu(x, a.get("alpha", 1.0), unit=a.get("alpha", 1.0)),
    "Elu": lambda x, a: _elu(x, a.get("alpha", 1.0)),
    "Erf": lambda x, a: erf(x),
    "Exp": lambda x, a: np.exp(x),
    "Floor": lambda x, a: np.floor(x),
    "HardSigmoid": lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "Log": lambda x, a: np.log(x),
    "Round": lambda x, a: np.round(x),
    "Selu": lambda x, a: _elu(x, a.get("alpha", _SELU[0]), a.get("gamma", _SELU[1])),
    "Sigmoid": lambda x, a: expit(x),
    "Sinh": lambda x, a: np.sinh(x),
    "Softplus": lambda x, a: np.logaddexp(0, x),
    "Sqrt": lambda x, a: np.sqrt(x),
    "Tanh": lambda x, a: np.tanh(x),
    "ThresholdedRelu": lambda x, a: np.where(x > a.get("alpha", 1.0), x, 0),
}
OTHERS: dict[str, Function] = {  # of these only constants are followed
    "Abs": lambda x, a: np.abs(x),
    "Acos": lambda x, a: np.arccos(x),
    "Acosh": lambda x, a: np.arccosh(x),
    "Asin": lambda x, a: np.arcsin(x),
    "Atanh": lambda x, a: np.arctanh(x),
    "Cos": lambda x, a: np.cos(x),
    "Cosh": lambda x, a: np.cosh(x),
    "Gelu": _gelu,
    "com.microsoft:Gelu": _gelu,
    "com.microsoft:QuickGelu": lambda x, a: x * expit(a.get("alpha", 1.702) * x),
    "HardSwish": lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x, a: x * np.tanh(np.logaddexp(0, x)),
    "Reciprocal": lambda x, a: 1 / x,
    "Sign": lambda x, a: np.sign(x),
    "Sin": lambda x, a: np.sin(x),
    "Softsign": lambda x, a: x / (1 + np.abs(x)),
    "Swish": lambda x, a: x * expit(a.get("alpha", 1.0) * x),
    "Tan": lambda x, a: np.tan(x),
}


def _applied(found: Facts, fn: Callable[[np.ndarray], np.ndarray], monotone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a function of each element."""
    with np.errstate(all="ignore"):
        a, b = fn(found.low), fn(found.high)
    if monotone:
        return np.minimum(a, b), np.maximum(a, b)
    fixed = found.constant
    return np.where(fixed, a, -np.inf), np.where(fixed, a, np.inf)


@rule(*HOMOGENEOUS, *MONOTONE, *OTHERS)
def unary(site: Site) -> list[Facts | None] | None:
    found, name = site.inputs[0], operator(site.node.domain, site.node.op_type)
    if found is None or site.attributes.get("alpha", 1) < 0 or site.attributes.get("gamma", 1) < 0:
        return None
    if name == "Dropout" and site.has(2):  # may be in training mode
        return None
    fn = HOMOGENEOUS.get(name) or MONOTONE.get(name) or OTHERS[name]
    low, high = _applied(found, lambda x: fn(x, site.attributes), name not in OTHERS)
    if name in HOMOGENEOUS:
        own = found.identity if name in ("Identity", "Dropout") else mix(found.identity, site.kind)
        return [facts(low, high, own, found.scale), *[site.nothing(k) for k in range(1, len(site.outputs))]]
    return [facts(low, high, mix(found.identity, bits(found.scale), site.kind))]


@rule("Cast", "CastLike")
def cast(site: Site) -> Facts | None:
    """Between types of floats a cast only rounds; of other types constants are followed."""
    found = site.inputs[0]
    if found is None:
        return None
    name = mix(found.identity, site.kind)
    if site.node.op_type == "Cast" and site.attributes.get("to") in (1, 10, 11, 16):
        return facts(found.low, found.high, name, found.scale)
    return facts(-np.inf, np.inf, mix(name, bits(found.scale)))


@rule("Clip")
def clip(site: Site) -> Facts | None:
    found = site.inputs[0]
    ends = [site.attributes.get(name, site.array(k)) for k, name in ((1, "min"), (2, "max"))]
    if found is None or any(site.has(k) and ends[k - 1] is None for k in (1, 2)):
        return None
    low, high = (side if e is None else float(np.ravel(e)[0]) for e, side in zip(ends, (-np.inf, np.inf), strict=True))
    bounds = _applied(found, lambda x: np.minimum(np.maximum(x, low), high), True)
    name = mix(found.identity, name_of("Clip"), bits(low), bits(high))
    if low == 0 and high == np.inf:
        return facts(*bounds, name, found.scale)
    return facts(*bounds, mix(name, bits(found.scale)))


def affine(found: Facts, factor: np.ndarray, summand: np.ndarray, near: float) -> Facts:
    """factor · x + summand for arrays that broadcast; multiples of the same sum keep one identity."""
    factor, summand = np.asarray(factor, np.float64), np.asarray(summand, np.float64)
    low, high = _times(found.low, factor), _times(found.high, factor)
    low, high, identity, scale, factor, summand = np.broadcast_arrays(
        np.minimum(low, high) + summand, np.maximum(low, high) + summand, found.identity, found.scale, factor, summand
    )
    size = np.abs(factor) * scale
    identity = np.where(factor < 0, mix(identity, name_of("negated")), identity)
    shift = np.divide(summand, size, out=np.zeros(size.shape), where=size > 0)
    shift = snapped(identity.ravel(), shift.ravel(), near).reshape(shift.shape)
    return facts(low, high, np.where(shift == 0, identity, mix(identity, name_of("shifted"), bits(shift))), size)


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products in which zero times infinity is zero: elements are finite."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


NEAR_SUM = 1e-6  # a bias in float32 over a factor that is known to as much


@rule("Add", "Sub", "Mul", "Div")
def arithmetic(site: Site) -> Facts | None:
    if site.opset < 7 and site.attributes.get("broadcast"):
        return None
    op, pair = site.node.op_type, [site.fact(k) for k in (0, 1)]
    both = aligned([p for p in pair if p is not None]) if None not in pair else None
    if both is None:
        return None
    x, y = both
    data = [site.array(k) is None for k in (0, 1)]
    if data == [True, False] or (data == [False, True] and op in ("Add", "Mul")):
        value, number = (x, y.low) if data[0] else (y, x.low)
        if not np.isfinite(number).all() or (op == "Div" and not number.all()):
            return None
        if op in ("Mul", "Div"):
            return affine(value, number if op == "Mul" else 1 / number, np.zeros(1), EXACT)
        return affine(value, np.ones(1), number if op == "Add" else -number, NEAR_SUM)
    return combined(site, op, x, y)


def combined(site: Site, op: str, x: Facts, y: Facts) -> Facts:
    """Add, Sub, Mul or Div of two values that both depend on data."""
    if op == "Add":
        low, high = x.low + y.low, x.high + y.high
    elif op == "Sub":
        low, high = x.low - y.high, x.high - y.low
    elif op == "Mul":
        corners = [_times(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
        low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    else:
        none = (x.low == 0) & (x.high == 0) & all(b == 1 for a, b in zip(x.shape, y.shape, strict=True) if a > 1)
        fixed = (x.constant & y.constant & (y.low != 0)) | none  # else zero by zero would be zero no more
        ratio = np.divide(x.low, y.low, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=fixed & ~none)
        low, high = np.where(fixed, ratio, -np.inf), np.where(fixed, ratio, np.inf)
    if op == "Mul":
        return facts(low, high, mix(x.identity, y.identity, site.kind), x.scale * y.scale)
    if op == "Div":
        return facts(low, high, mix(x.identity, y.identity, site.kind), x.scale / y.scale)
    return facts(low, high, mix(x.identity, y.identity, bits(y.scale / x.scale), site.kind), x.scale)


@rule("Sum", "Max", "Min", "Mean")
def several(site: Site) -> Facts | None:
    pairs = [site.fact(k) for k in range(len(site.node.input))]
    found = aligned([p for p in pairs if p is not None]) if None not in pairs else None
    if found is None:
        return None
    fold = {"Sum": np.add, "Mean": np.add, "Max": np.maximum, "Min": np.minimum}[site.node.op_type]
    share = 1 / len(found) if site.node.op_type == "Mean" else 1.0
    low, high, names = found[0].low, found[0].high, found[0].identity
    for other in found[1:]:
        low, high = fold(low, other.low), fold(high, other.high)
        names = mix(names, other.identity, bits(other.scale / found[0].scale))
    return facts(share * low, share * high, mix(names, site.kind), found[0].scale)


@rule("Pow", "PRelu", "Where", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod")
def others(site: Site) -> Facts | None:
    """Operands as they are give an outcome as it is; constants are followed through PRelu and Pow."""
    pairs = [site.fact(k) for k in range(len(site.node.input))]
    found = aligned([p for p in pairs if p is not None]) if None not in pairs else None
    if found is None:
        return None
    op, low, high = site.node.op_type, np.array(-np.inf), np.array(np.inf)
    if op == "PRelu" and site.array(1) is not None and site.opset >= 7:
        return _prelu(site, *found)
    if op == "Where":
        low, high = np.minimum(found[1].low, found[2].low), np.maximum(found[1].high, found[2].high)
    if op == "Pow":
        fixed = found[0].constant & found[1].constant
        with np.errstate(all="ignore"):
            value = np.power(np.where(fixed, found[0].low, 1), np.where(fixed, found[1].low, 1))
        low, high = np.where(fixed, value, -np.inf), np.where(fixed, value, np.inf)
    names = mix(site.kind, *(part for f in found for part in (f.identity, bits(f.scale))))
    return facts(low, high, names)


def _prelu(site: Site, x: Facts, slope: Facts) -> Facts:
    s = slope.low
    with np.errstate(invalid="ignore"):
        a, b = (np.where(end >= 0, end, _times(end, s)) for end in (x.low, x.high))
    keeps = (s >= 0) | x.constant
    name = mix(x.identity, slope.identity, bits(slope.scale), site.kind)
    return facts(np.where(keeps, np.minimum(a, b), -np.inf), np.where(keeps, np.maximum(a, b), np.inf), name, x.scale)


@rule("QuantizeLinear", "DequantizeLinear", "com.microsoft:QuantizeLinear", "com.microsoft:DequantizeLinear")
def quantize(site: Site) -> Facts | None:
    found, shape = site.inputs[0], site.shapes[0]
    scale, zero = site.array(1), site.array(2)
    if found is None or shape is None or scale is None or (site.has(2) and zero is None):
        return None
    if site.attributes.get("block_size", 0) or (scale.size > 1 and scale.ndim != 1):
        return None
    zero = np.zeros((), np.uint8) if zero is None else zero
    at = [-1 if k == site.attributes.get("axis", 1) % len(shape) else 1 for k in range(len(shape))]
    s, z = (a.astype(np.float64).reshape(at if a.size > 1 else [1] * len(shape)) for a in (scale, zero))
    if site.node.op_type == "DequantizeLinear":
        bounds = _applied(found, lambda x: (x - z) * s, True)
    elif zero.dtype.kind not in "iu":
        return None
    else:
        ends = np.iinfo(zero.dtype)
        bounds = _applied(found, lambda x: np.clip(np.round(x / s) + z, ends.min, ends.max), True)
    return facts(*bounds, mix(found.identity, bits(found.scale), bits(s), bits(z), site.kind))
