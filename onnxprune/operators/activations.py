"""Element-wise functions of one value: activations and their kin."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import Facts, facts
from onnxprune.operators.intervals import applied
from onnxprune.operators.labels import Axes
from onnxprune.operators.op import Op
from onnxprune.operators.registry import (
    NONE,
    Alike,
    Arrays,
    Trait,
    by_reference,
    define,
    in_numpy,
    never,
    operator_of,
    traits_of,
)
from onnxprune.operators.roles import LOUD, Silence
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix, name_of
from onnxprune.operators.zeros import every, first, provided

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def pointwise(op: Op, **_: object) -> list[Axes] | list[Value]:
    if len(op.values) == 1:
        return [op.unmoved()] * len(op.shapes)
    return [op.broadcast(*(op.axes(k) for k in range(len(op.values))))] * len(op.shapes)


def bound_unary(site: Site) -> list[Facts | None] | None:
    """Monotone functions keep intervals; through others constants alone are followed."""
    found, function, traits = site.inputs[0], operator_of(site.node).function, traits_of(site.node)
    if found is None or function is None or site.attributes.get("alpha", 1) < 0 or site.attributes.get("gamma", 1) < 0:
        return None
    low, high = applied(found, lambda x: function(x, site.attributes), bool(traits & Trait.MONOTONE))
    if traits & Trait.HOMOGENEOUS:
        return [facts(low, high, mix(found.identity, site.kind), found.scale)]
    return [facts(low, high, mix(found.identity, bits(found.scale), site.kind))]


def bound_same(site: Site) -> list[Facts | None] | None:
    """Of what hands its input on: but not where it may be in training mode."""
    found = site.inputs[0]
    if found is None or site.has(2):
        return None
    return [facts(found.low, found.high, found.identity, found.scale), *map(site.nothing, range(1, len(site.outputs)))]


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


def _elu(x: np.ndarray, alpha: float, gamma: float = 1.0, unit: float = 1.0) -> np.ndarray:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / unit))


def _gelu(x: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    if a.get("approximate") in (b"tanh", "tanh"):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


_EACH = Trait.ELEMENTWISE | Trait.UNARY
HOMOGENEOUS = Trait.MONOTONE | Trait.HOMOGENEOUS


def _function(names: str, function: Any, traits: Trait = NONE, zero: Any = never, **columns: Any) -> None:
    """The row of a function of one value."""
    define(
        names, couple=pointwise, tangled=True, zero=zero, bound=bound_unary, apart=True, function=function,
        traits=_EACH | traits, **columns,
    )  # fmt: skip


_function("Relu", lambda x, a: np.maximum(x, 0), HOMOGENEOUS | Trait.CLAMPS, first)
_function("LeakyRelu", lambda x, a: np.where(x >= 0, x, a.get("alpha", 0.01) * x), HOMOGENEOUS, first)
_function("Neg", lambda x, a: -x, HOMOGENEOUS, first, value=in_numpy(np.negative))
_function("Asinh", lambda x, a: np.arcsinh(x), Trait.MONOTONE, first)
_function("Atan", lambda x, a: np.arctan(x), Trait.MONOTONE, first)
_function("Ceil", lambda x, a: np.ceil(x), Trait.MONOTONE | Trait.DECIDES, first, value=in_numpy(np.ceil))
_function(
    "Celu", lambda x, a: _elu(x, a.get("alpha", 1.0), unit=a.get("alpha", 1.0)), Trait.MONOTONE,
    provided(lambda a: a.get("alpha", 1.0) != 0),  # 0 / 0
)  # fmt: skip
_function("Elu", lambda x, a: _elu(x, a.get("alpha", 1.0)), Trait.MONOTONE, first)
_function("Erf", lambda x, a: _erf(x), Trait.MONOTONE | Trait.SATURATES, first)
_function("Exp", lambda x, a: np.exp(x), Trait.MONOTONE)
_function("Floor", lambda x, a: np.floor(x), Trait.MONOTONE | Trait.DECIDES, first, value=in_numpy(np.floor))
_function(
    "HardSigmoid", lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    Trait.MONOTONE | Trait.SATURATES,
)  # fmt: skip
_function("Log", lambda x, a: np.log(x), Trait.MONOTONE, divisor=0)
_function("Round", lambda x, a: np.round(x), Trait.MONOTONE | Trait.DECIDES, first, value=by_reference)
_function(
    "Selu", lambda x, a: _elu(x, a.get("alpha", _SELU[0]), a.get("gamma", _SELU[1])), Trait.MONOTONE, first
)  # fmt: skip
_function("Sigmoid", lambda x, a: _sigmoid(x), Trait.MONOTONE | Trait.SATURATES)
_function("Sinh", lambda x, a: np.sinh(x), Trait.MONOTONE, first)
_function("Softplus", lambda x, a: np.logaddexp(0, x), Trait.MONOTONE)
_function("Sqrt", lambda x, a: np.sqrt(x), Trait.MONOTONE, first, value=in_numpy(np.sqrt))
_function("Tanh", lambda x, a: np.tanh(x), Trait.MONOTONE | Trait.SATURATES, first)
_function("ThresholdedRelu", lambda x, a: np.where(x > a.get("alpha", 1.0), x, 0), Trait.MONOTONE | Trait.CLAMPS, first)

# Neither rising nor falling: of these constants alone are followed.
_function("Abs", lambda x, a: np.abs(x), Trait.POWERS, zero=first, value=by_reference)
_function("Acos", lambda x, a: np.arccos(x))
_function("Acosh", lambda x, a: np.arccosh(x))
_function("Asin", lambda x, a: np.arcsin(x), zero=first)
_function("Atanh", lambda x, a: np.arctanh(x), zero=first)
_function("Cos", lambda x, a: np.cos(x))
_function("Cosh", lambda x, a: np.cosh(x))
_function("Gelu", _gelu, zero=first)
_function("com.microsoft:Gelu", _gelu, zero=first, shape=Alike())
_function("com.microsoft:QuickGelu", lambda x, a: x * _sigmoid(a.get("alpha", 1.702) * x), zero=first, shape=Alike())
_function("HardSwish", lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1), Trait.CLAMPS, first)
_function("Mish", lambda x, a: x * np.tanh(np.logaddexp(0, x)), zero=first)
_function("Reciprocal", lambda x, a: 1 / x, divisor=0)
_function("Sign", lambda x, a: np.sign(x), Trait.DECIDES, first, value=by_reference)
_function("Sin", lambda x, a: np.sin(x), zero=first)
_function("Softsign", lambda x, a: x / (1 + np.abs(x)), Trait.SATURATES, first)
_function("Swish", lambda x, a: x * _sigmoid(a.get("alpha", 1.0) * x), zero=first)
_function("Tan", lambda x, a: np.tan(x), zero=first)

_PLAIN: dict[str, Any] = {"couple": pointwise, "tangled": True, "apart": True}  # without a function here

define(
    "Identity", **_PLAIN, zero=first, bound=bound_same, value=lambda x, _: x[0],
    traits=_EACH | Trait.VIEW | Trait.MOVES | Trait.RANGE | Trait.MAPS | Trait.SHIFTS,
)  # fmt: skip
define(
    "Dropout", **_PLAIN, zero=first, bound=bound_same,
    traits=_EACH | Trait.RANGE | Trait.MAPS | Trait.NUMBERS,
)  # fmt: skip
define("IsInf IsNaN", **_PLAIN, traits=_EACH)
define("Not", **_PLAIN, value=in_numpy(np.logical_not), traits=_EACH)
define("BitwiseNot", couple=pointwise, tangled=True, traits=_EACH)
define(
    "Shrink", **_PLAIN, zero=provided(lambda a: a.get("lambd", 0.5) >= 0 or not a.get("bias", 0.0)),
    traits=_EACH,
)  # fmt: skip
define("Affine ParametricSoftplus ScaledTanh", **_PLAIN, shape=Alike(), traits=_EACH)
define(  # functions of a sum
    "com.microsoft:FastGelu com.microsoft:BiasGelu com.microsoft:BiasAdd", **_PLAIN, zero=every, shape=Alike(),
    traits=Trait.ELEMENTWISE,
)  # fmt: skip


def bound_cast(site: Site) -> Facts | None:
    """Between types of floats a cast only rounds; of other types constants are followed."""
    found = site.inputs[0]
    if found is None:
        return None
    name = mix(found.identity, site.kind)
    if site.attributes.get("to") in FLOATS:
        return facts(found.low, found.high, name, found.scale)
    return facts(-np.inf, np.inf, mix(name, bits(found.scale)))


def _cast_traits(node: onnx.NodeProto) -> Trait:
    """Going to something that is no float it rounds."""
    rounds = any(a.name == "to" and a.i not in FLOATS for a in node.attribute)
    shared = _EACH | Trait.CASTS | Trait.RANGE | Trait.MAPS | Trait.SHIFTS
    return shared | Trait.DECIDES if rounds else shared


def value_of_cast(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    to = a.get("to")
    return None if isinstance(to, bytes) or to is None else x[0].astype(onnx.helper.tensor_dtype_to_np_dtype(int(to)))


define(
    "Cast", **_PLAIN, zero=first, bound=bound_cast, value=value_of_cast, labels_int32=True, traits=_cast_traits
)  # fmt: skip


def unchanged(op: Op, x: Axes, *_: Axes | None, **__: object) -> Axes:
    """Of what has the channels of its first input."""
    return x


define("CastLike", couple=unchanged, zero=first, bound=bound_cast, apart=True, traits=_EACH)


def _zero_inside(op: Op) -> Silence:
    low, high = op.attributes.get("min", op.constant(1)), op.attributes.get("max", op.constant(2))
    known = all(k >= len(op.names) or not op.names[k] or op.constant(k) is not None for k in (1, 2))
    inside = (low is None or bool(np.all(low <= 0))) and (high is None or bool(np.all(high >= 0)))
    return first(op) if known and inside else LOUD


def bound_clip(site: Site) -> Facts | None:
    found = site.inputs[0]
    ends = [site.attributes.get(name, site.array(k)) for k, name in ((1, "min"), (2, "max"))]
    if found is None or any(site.has(k) and ends[k - 1] is None for k in (1, 2)):
        return None
    low, high = (side if e is None else float(np.ravel(e)[0]) for e, side in zip(ends, (-np.inf, np.inf), strict=True))
    bounds = applied(found, lambda x: np.minimum(np.maximum(x, low), high), True)
    name = mix(found.identity, name_of("Clip"), bits(low), bits(high))
    if low == 0 and high == np.inf:
        return facts(*bounds, name, found.scale)
    return facts(*bounds, mix(name, bits(found.scale)))


define(
    "Clip", couple=unchanged, zero=_zero_inside, bound=bound_clip, apart=True, value=by_reference,
    traits=_EACH | Trait.CLAMPS | Trait.NUMBERS,
)  # fmt: skip
