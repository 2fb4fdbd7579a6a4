"""What gives its input as it is, or in another type."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.operators.arrays import FLOATS, carrier
from onnxprune.operators.facts import Facts, NothingKnown, facts, own_names
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.registry import Arrays, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.unary import EACH, PLAIN, unchanged
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import first

CASTING = EACH | Trait.CASTS | Trait.RANGE | Trait.MAPS | Trait.SHIFTS
ROUNDING = CASTING | Trait.DECIDES
PLAIN_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def bound_same(site: Site) -> Facts:
    """Of what hands its input on: but not where it may be in training mode."""
    if site.has(2):
        raise NothingKnown
    return facts(*site.data().columns)


define(
    "Identity", **PLAIN, zero=first, bound=bound_same, value=lambda x, _: x[0],
    traits=EACH | Trait.SAME | Trait.VIEW | Trait.MOVES | Trait.RANGE | Trait.MAPS | Trait.SHIFTS | Trait.PASSES,
    forward=Forward(lambda node, x: x),
)  # fmt: skip


def forward_dropout(node: TorchCall, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> object:
    """As in inference: everything stays."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if node.outputs > 1 else x


define(
    "Dropout", **PLAIN, zero=first, bound=bound_same,
    traits=EACH | Trait.RANGE | Trait.MAPS | Trait.NUMBERS | Trait.PASSES, forward=Forward(forward_dropout, into=(0,)),
)  # fmt: skip


def bound_cast(site: Site) -> Facts:
    """Between types of floats a cast only rounds; of other types constants are followed."""
    found, to = site.data(), site.attributes.get("to", (*site.types, 0, 0)[1])
    name = mix(found.identity, site.kind, to)
    if to in PLAIN_FLOATS:
        return facts(found.low, found.high, name, found.scale)
    # of numbers beyond the ends another one comes from floats than from integers
    name = np.where(found.constant, own_names(site.token, found.shape), mix(name, bits(found.scale)))
    return facts(-np.inf, np.inf, name)


def _cast_traits(node: onnx.NodeProto) -> Trait:
    """Going to something that is no float it rounds."""
    rounds = any(a.name == "to" and a.i not in PLAIN_FLOATS for a in node.attribute)
    return ROUNDING if rounds else CASTING


def value_of_cast(x: Arrays, a: Mapping[str, Any]) -> np.ndarray | None:
    to = a.get("to")
    return None if isinstance(to, bytes) or to is None else x[0].astype(onnx.helper.tensor_dtype_to_np_dtype(int(to)))


def convert(x: Tensor, dtype: "torch.dtype") -> Tensor:
    """Another type; half precision is carried in float32, and numbers become True where they are not 0."""
    return x != 0 if dtype == torch.bool and x.dtype != torch.bool else x.to(dtype)


def _into_floats(node: TorchCall) -> tuple[int, ...]:
    return (0,) if node.get("to") in FLOATS or isinstance(node.get("to"), str) else ()


define(
    "Cast", **PLAIN, zero=first, bound=bound_cast, value=value_of_cast, labels_int32=True, traits=_cast_traits,
    forward=Forward(lambda node, x: convert(x, carrier(node.get("to"))), into=_into_floats),
)  # fmt: skip
define(
    "CastLike", couple=unchanged, zero=first, bound=bound_cast, channelwise=True, traits=EACH,
    forward=Forward(lambda node, x, like: convert(x, like.dtype), into=(0,)),
)  # fmt: skip
