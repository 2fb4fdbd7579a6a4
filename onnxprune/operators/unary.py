"""Functions of mathematics and logic, element by element, of one value."""

from typing import Any

import numpy as np

from onnxprune.operators.broadcast import bound_others, pointwise
from onnxprune.operators.facts import Facts, NothingKnown, facts
from onnxprune.operators.forward import Forward, TorchCall, in_torch
from onnxprune.operators.intervals import applied
from onnxprune.operators.labels import Axes
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import NONE, Trait, by_reference, define, in_numpy, never, operator_of, traits_of
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def bound_unary(site: Site) -> Facts:
    """Monotone functions keep intervals; through others constants alone are followed."""
    found, function, traits = site.data(), operator_of(site.node).function, traits_of(site.node)
    if function is None or site.attributes.get("alpha", 1) < 0 or site.attributes.get("gamma", 1) < 0:
        raise NothingKnown
    low, high = applied(found, lambda x: function(x, site.attributes), bool(traits & Trait.MONOTONE))
    if traits & Trait.HOMOGENEOUS:
        return facts(low, high, mix(found.identity, site.kind), found.scale)
    return facts(low, high, mix(*found.exact, site.kind))


def erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return erf(x)


EACH = Trait.ELEMENTWISE | Trait.UNARY
HOMOGENEOUS = Trait.MONOTONE | Trait.HOMOGENEOUS


def unary(
    name: str, function: Any, traits: Trait = NONE, zero: Any = never, forward: Forward | None = None, **columns: Any
) -> None:
    """The row of a function of one value; torch has it under the same name unless `forward` says what computes it."""
    define(
        name, couple=pointwise, takes_split=True, zero=zero, bound=bound_unary, channelwise=True, function=function,
        traits=EACH | traits, **columns,
        forward=forward or in_torch(name.lower(), into=() if traits & Trait.DECIDES else None),
    )  # fmt: skip


unary("Neg", lambda x, a: -x, HOMOGENEOUS, first, value=in_numpy(np.negative))
unary("Asinh", lambda x, a: np.arcsinh(x), Trait.MONOTONE, first)
unary("Atan", lambda x, a: np.arctan(x), Trait.MONOTONE, first)
unary("Ceil", lambda x, a: np.ceil(x), Trait.MONOTONE | Trait.DECIDES, first, value=in_numpy(np.ceil))
unary("Erf", lambda x, a: erf(x), Trait.MONOTONE | Trait.SATURATES, first)
unary("Exp", lambda x, a: np.exp(x), Trait.MONOTONE)
unary("Floor", lambda x, a: np.floor(x), Trait.MONOTONE | Trait.DECIDES, first, value=in_numpy(np.floor))
unary("Log", lambda x, a: np.log(x), Trait.MONOTONE, divisor=0)
unary("Round", lambda x, a: np.round(x), Trait.MONOTONE | Trait.DECIDES, first, value=by_reference)
unary("Sinh", lambda x, a: np.sinh(x), Trait.MONOTONE, first)
unary("Sqrt", lambda x, a: np.sqrt(x), Trait.MONOTONE, first, value=in_numpy(np.sqrt))
# Neither rising nor falling: of these constants alone are followed.
unary("Abs", lambda x, a: np.abs(x), Trait.POWERS, first, value=by_reference)
unary("Acos", lambda x, a: np.arccos(x))
unary("Acosh", lambda x, a: np.arccosh(x))
unary("Asin", lambda x, a: np.arcsin(x), zero=first)
unary("Atanh", lambda x, a: np.arctanh(x), zero=first)
unary("Cos", lambda x, a: np.cos(x))
unary("Cosh", lambda x, a: np.cosh(x))
unary("Reciprocal", lambda x, a: 1 / x, divisor=0)
unary("Sign", lambda x, a: np.sign(x), Trait.DECIDES, first, value=by_reference)
unary("Sin", lambda x, a: np.sin(x), zero=first)
unary("Tan", lambda x, a: np.tan(x), zero=first)

PLAIN: dict[str, Any] = {"couple": pointwise, "takes_split": True, "channelwise": True}  # without a function here
_DECIDED: dict[str, Any] = {**PLAIN, "bound": bound_others}  # what is alike is decided alike


def forward_is_inf(node: TorchCall, x: Tensor) -> Tensor:
    high, low = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return torch.isinf(x) & ((x > 0) & bool(high) | (x < 0) & bool(low))


define("IsInf", **_DECIDED, traits=EACH, forward=Forward(forward_is_inf, into=()))
define("IsNaN", **_DECIDED, traits=EACH, forward=in_torch("isnan", into=()))
define("Not", **_DECIDED, value=in_numpy(np.logical_not), traits=EACH, forward=in_torch("logical_not", into=()))
define(
    "BitwiseNot", couple=pointwise, takes_split=True, bound=bound_others, traits=EACH,
    forward=in_torch("bitwise_not", into=()),
)  # fmt: skip


def unchanged(op: Op, x: Axes, *_: Axes | None, **__: object) -> Axes:
    """Of what has the channels of its first input."""
    return x
