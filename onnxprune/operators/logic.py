"""Comparisons, logic and bits of two values."""

from typing import Any

import numpy as np

from onnxprune.operators.broadcast import bound_others, pairwise
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.registry import Trait, by_reference, define, in_numpy
from onnxprune.operators.unary import pointwise

_COMPARED: dict[str, Any] = {"couple": pointwise, "takes_split": True, "bound": bound_others, "apart": True}
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
