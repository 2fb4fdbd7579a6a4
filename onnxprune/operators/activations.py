"""Activations, and those that onnxruntime fuses."""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts, known
from onnxprune.operators.forward import Forward, TorchCall, in_torch
from onnxprune.operators.intervals import applied
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import OPERATORS, UNKNOWN, Alike, Attributes, Numbers, Trait, by_reference, define
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead
from onnxprune.operators.site import Site
from onnxprune.operators.unary import EACH, HOMOGENEOUS, PLAIN, erf, unary, unchanged
from onnxprune.operators.value_numbers import bits, mix, name_of
from onnxprune.operators.zeros import Condition, every, first, provided

_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


def _elu(x: np.ndarray, alpha: float, gamma: float = 1.0, unit: float = 1.0) -> np.ndarray:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / unit))


def _celu(x: Tensor, alpha: float) -> Tensor:
    """With 0 for alpha, which torch refuses, what ONNX's formula divides by it is no number at and above 0."""
    return functional.celu(x, alpha) if alpha else torch.where(x < 0, x * 0, torch.nan)


def _gelu(x: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    if a.get("approximate") in (b"tanh", "tanh"):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


unary(
    "Relu", lambda x, a: np.maximum(x, 0), HOMOGENEOUS | Trait.CLAMPS | Trait.SELECTS, first,
    flat=lambda *_: (0.0, np.inf), fused_numbers=(),
)  # fmt: skip
unary(
    "LeakyRelu", lambda x, a: np.where(x >= 0, x, a.get("alpha", 0.01) * x), HOMOGENEOUS, first,
    forward=Forward(lambda node, x: functional.leaky_relu(x, node.get("alpha", 0.01))), fused_numbers=("alpha",),
)  # fmt: skip
unary(
    "Celu", lambda x, a: _elu(x, a.get("alpha", 1.0), unit=a.get("alpha", 1.0)), Trait.MONOTONE,
    provided(lambda a: a.get("alpha", 1.0) != 0),  # 0 / 0
    forward=Forward(lambda node, x: _celu(x, node.get("alpha", 1.0))),
)  # fmt: skip
unary(
    "Elu", lambda x, a: _elu(x, a.get("alpha", 1.0)), Trait.MONOTONE, first,
    forward=Forward(lambda node, x: functional.elu(x, node.get("alpha", 1.0))),
)  # fmt: skip
unary(
    "HardSigmoid", lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    Trait.MONOTONE | Trait.SATURATES, fused_numbers=("alpha", "beta"),
    forward=Forward(lambda node, x: (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0, 1)),
)  # fmt: skip
unary(
    "Selu", lambda x, a: _elu(x, a.get("alpha", _SELU[0]), a.get("gamma", _SELU[1])), Trait.MONOTONE, first,
    forward=Forward(lambda node, x: node.get("gamma", _SELU[1]) * functional.elu(x, node.get("alpha", _SELU[0]))),
)  # fmt: skip
unary("Sigmoid", lambda x, a: _sigmoid(x), Trait.MONOTONE | Trait.SATURATES, fused_numbers=())
unary("Softplus", lambda x, a: np.logaddexp(0, x), Trait.MONOTONE, forward=in_torch("nn.functional.softplus"))
unary("Tanh", lambda x, a: np.tanh(x), Trait.MONOTONE | Trait.SATURATES, first, fused_numbers=())
unary(
    "ThresholdedRelu", lambda x, a: np.where(x > a.get("alpha", 1.0), x, 0), Trait.MONOTONE | Trait.CLAMPS, first,
    forward=Forward(lambda node, x: torch.where(x > node.get("alpha", 1.0), x, 0.0)),
)  # fmt: skip

_GELU = Forward(lambda node, x: functional.gelu(x, approximate=node.get("approximate", "none")))
unary("Gelu", _gelu, zero=first, forward=_GELU)
unary("com.microsoft:Gelu", _gelu, zero=first, shape=Alike(), forward=_GELU)
unary(
    "com.microsoft:QuickGelu", lambda x, a: x * _sigmoid(a.get("alpha", 1.702) * x), zero=first, shape=Alike(),
    forward=Forward(lambda node, x: x * torch.sigmoid(node.get("alpha", 1.702) * x)),
)  # fmt: skip
unary(
    "HardSwish", lambda x, a: x * np.clip(x / 6 + 0.5, 0, 1), Trait.CLAMPS, first,
    forward=in_torch("nn.functional.hardswish"),
)  # fmt: skip
unary("Mish", lambda x, a: x * np.tanh(np.logaddexp(0, x)), zero=first, forward=in_torch("nn.functional.mish"))
unary("Softsign", lambda x, a: x / (1 + np.abs(x)), Trait.SATURATES, first, forward=in_torch("nn.functional.softsign"))
unary(
    "Swish", lambda x, a: x * _sigmoid(a.get("alpha", 1.0) * x), zero=first,
    forward=Forward(lambda node, x: x * torch.sigmoid(node.get("alpha", 1.0) * x)),
)  # fmt: skip


def _shrink(x: np.ndarray, a: Attributes) -> np.ndarray:
    edge, bias = a.get("lambd", 0.5), a.get("bias", 0.0)
    return np.where(x < -edge, x + bias, np.where(x > edge, x - bias, 0))


def forward_shrink(node: TorchCall, x: Tensor) -> Tensor:
    edge, bias, zero = node.get("lambd", 0.5), node.get("bias", 0.0), torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zero))


unary(
    "Shrink", _shrink, zero=provided(lambda a: a.get("lambd", 0.5) >= 0 or not a.get("bias", 0.0)),
    forward=Forward(forward_shrink),
)  # fmt: skip
unary(
    "Affine", lambda x, a: a.get("alpha", 1.0) * x + a.get("beta", 0.0), Trait.MONOTONE, shape=Alike(),
    forward=Forward(lambda node, x: node.get("alpha", 1.0) * x + node.get("beta", 0.0)),
)  # fmt: skip
unary(
    "ParametricSoftplus", lambda x, a: a.get("alpha", 1.0) * np.logaddexp(0, a.get("beta", 1.0) * x), shape=Alike(),
    forward=Forward(lambda node, x: node.get("alpha", 1.0) * functional.softplus(x * node.get("beta", 1.0))),
)  # fmt: skip
unary(
    "ScaledTanh", lambda x, a: a.get("alpha", 1.0) * np.tanh(a.get("beta", 1.0) * x), shape=Alike(),
    forward=Forward(lambda node, x: node.get("alpha", 1.0) * torch.tanh(x * node.get("beta", 1.0))),
)  # fmt: skip


def bound_sum(site: Site) -> Facts:
    """What is made of the same summands is the same."""
    found = site.operands(*(k for k, name in enumerate(site.node.input) if name))
    low, high = (reduce(np.add, [getattr(f, end) for f in found]) for end in ("low", "high"))
    return facts(low, high, mix(site.kind, *(part for f in found for part in f.exact)))


def bound_gelu_of_sum(site: Site, approximate: str) -> Facts:
    """It neither rises nor falls: of sums, constants alone are followed."""
    total = bound_sum(site)
    low, high = applied(total, lambda x: _gelu(x, {"approximate": approximate}), False)
    return facts(low, high, mix(*total.exact, site.kind))


_OF_SUM: dict[str, Any] = {**PLAIN, "zero": every, "shape": Alike(), "traits": Trait.ELEMENTWISE}

define(
    "com.microsoft:FastGelu", **_OF_SUM, bound=partial(bound_gelu_of_sum, approximate="tanh"),
    forward=Forward(lambda node, x, b=None: functional.gelu(x if b is None else x + b, approximate="tanh")),
)  # fmt: skip
define(
    "com.microsoft:BiasGelu", **_OF_SUM, bound=partial(bound_gelu_of_sum, approximate="none"),
    forward=Forward(lambda node, x, bias: functional.gelu(x + bias)),
)  # fmt: skip
define("com.microsoft:BiasAdd", **_OF_SUM, bound=bound_sum)


def _zero_inside(op: Op) -> ZeroWhereDead:
    low, high = op.attributes.get("min", op.constant(1)), op.attributes.get("max", op.constant(2))
    known = all(k >= len(op.names) or not op.names[k] or op.constant(k) is not None for k in (1, 2))
    inside = (low is None or bool(np.all(low <= 0))) and (high is None or bool(np.all(high >= 0)))
    return first(op) if known and inside else NOT_ZERO


def bound_clip(site: Site) -> Facts:
    found = site.data()
    given = [site.attributes.get(name, site.optional(k)) for k, name in ((1, "min"), (2, "max"))]
    sides = (np.float64(side) if e is None else e for e, side in zip(given, (-np.inf, np.inf), strict=True))
    low, high = (known(np.ravel(side)[:1].reshape(())) for side in sides)
    least, most = (np.minimum(np.maximum(end, low.low), high.low) for end in (found.low, found.high))
    name = mix(found.identity, name_of("Clip"), *low.exact, *high.exact)
    if given[1] is None and low.zero:
        return facts(least, most, name, found.scale)
    return facts(least, most, mix(name, bits(found.scale)))


def _ends_of_clip(a: Attributes, number: Numbers) -> tuple[float, float]:
    low, high = number(1), number(2)
    return float(a.get("min", -np.inf) if low is None else low), float(a.get("max", np.inf) if high is None else high)


def forward_clip(node: TorchCall, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds are attributes before opset 11; where they cross, the upper one counts."""
    if node.opset < 11:
        return x.clamp(node.get("min", -3.4028235e38), node.get("max", 3.4028235e38))
    low, high = (None if bound is None else bound.to(x.dtype) for bound in (low, high))
    return x if low is None and high is None else x.clamp(low, high)


define(
    "Clip", couple=unchanged, zero=_zero_inside, bound=bound_clip, channelwise=True, value=by_reference,
    flat=_ends_of_clip, traits=EACH | Trait.CLAMPS | Trait.NUMBERS | Trait.COMPARES | Trait.SELECTS,
    forward=Forward(forward_clip, into=(0,)),
)  # fmt: skip


def activation(name: str, told: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """An activation that another operator names, with its parameters, which were attributes in the first opset."""
    if (forward := OPERATORS[name].forward) is None:
        raise KeyError(name)
    return partial(forward.function, TorchCall(name, 1, told))


def zero_behind(condition: Condition) -> Condition:
    """Another condition, and whatever activation is fused into the node is zero at zero."""
    return provided(_is_zero_at_zero, condition)


def _is_zero_at_zero(a: Attributes) -> bool:
    name = _fused_name(a)
    if name == "Clip":
        low, high = a.get("activation_params") or (np.nan, np.nan)
        return bool(low <= 0 <= high)
    return not name or OPERATORS.get(name, UNKNOWN).zero is first


def _fused_name(a: Attributes) -> str:
    name = a.get("activation", b"")
    return name.decode() if isinstance(name, bytes) else name


def bound_fused(site: Site, found: Facts) -> Facts:
    """What the activation that is fused into a node makes of facts, if any is."""
    name = _fused_name(site.attributes)
    row = OPERATORS.get(name, UNKNOWN)
    fn = row.function if isinstance(row.traits, Trait) and row.traits & Trait.MONOTONE else None
    if not name:
        return found
    if fn is None or any(key.startswith("activation_") for key in site.attributes):
        raise NothingKnown
    low, high = fn(found.low, {}), fn(found.high, {})
    return facts(np.minimum(low, high), np.maximum(low, high), mix(*found.exact, site.kind))


def fused(node: TorchCall, x: Tensor) -> Tensor:
    """The activation that onnxruntime has fused into a node, with its parameters."""
    name = node.get("activation", "")
    if not name:
        return x
    names = ("min", "max") if name == "Clip" else ("alpha", "beta")
    told = dict(zip(names, node.get("activation_params", []), strict=False))
    told |= {key: node.get(f"activation_{key}") for key in ("alpha", "beta") if f"activation_{key}" in node.attributes}
    if name == "Selu" and "beta" in told:
        told["gamma"] = told.pop("beta")
    return activation(name, told)(x)
