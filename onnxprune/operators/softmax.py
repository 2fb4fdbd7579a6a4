"""Softmax and what else makes shares of scores."""

from functools import partial
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.labels import Axes
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Alike, Attributes, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix


def _axes(attributes: Attributes, rank: int, opset: int) -> list[int]:
    """Axes over which a softmax goes: before opset 13 all from the named one on."""
    axis = attributes.get("axis", 1 if opset < 13 else -1) % max(1, rank)
    return list(range(axis, rank)) if opset < 13 else [axis]


def _normalised(op: Op) -> list[int]:
    return _axes(op.attributes, len(op.values[0].axes) if op.values[0] is not None else 0, op.opset)


def softmax(op: Op, x: Axes, **_: Any) -> Axes:
    op.statistics(*(x[k] for k in _normalised(op)), why="normalises over it")
    return x


def bound_softmax(site: Site, low: float, high: float) -> Facts:
    """Equal elements of equal rows come out equal."""
    found, axes = site.data(), _axes(site.attributes, len(site.shape()), site.opset)
    if len(axes) > 1:
        raise NothingKnown
    rows = reduced(found, axes)
    names = mix(*rows.exact, *found.exact, site.kind)
    return facts(np.full(names.shape, low), np.full(names.shape, high), names)


def _coerced(node: TorchCall, x: Tensor) -> tuple[Tensor, int]:
    """Before opset 13 all axes from the given one on are one axis together."""
    if node.opset >= 13:
        return x, node.get("axis", -1)
    axis = node.get("axis", 1) % max(1, x.dim())
    return x.flatten(axis) if x.dim() else x.reshape(1), axis


def forward_softmax(node: TorchCall, x: Tensor) -> Tensor:
    return (torch.softmax if node.op == "Softmax" else torch.log_softmax)(*_coerced(node, x)).reshape(x.shape)


for name, low, high in (("Softmax", 0.0, 1.0), ("LogSoftmax", -np.inf, 0.0)):
    define(
        name, couple=softmax, statistics=_normalised, bound=partial(bound_softmax, low=low, high=high),
        channelwise=True, shift_invariant=_axes, traits=Trait.SATURATES, forward=Forward(forward_softmax),
    )  # fmt: skip


def forward_hardmax(node: TorchCall, x: Tensor) -> Tensor:
    flat, axis = _coerced(node, x)
    best = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter(axis, best, 1.0).reshape(x.shape)


define(
    "Hardmax", couple=softmax, statistics=_normalised, channelwise=True, traits=Trait.DECIDES,
    forward=Forward(forward_hardmax, into=()),
)  # fmt: skip
define("com.microsoft:BiasSoftmax", shape=Alike())
