"""Weights that do not stand in the file as a layer takes them: reshaped, turned or quantised on the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.model.static import attributes_of
from onnxprune.operators.patches import Linear
from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.recovery.layer_graph import LayerGraph, Scaled

Array = np.ndarray


@dataclass(frozen=True)
class View:
    """How a layer sees a tensor of the file, and back.

    shape: as the layer sees it.
    """

    shape: tuple[int, ...]
    seen: Callable[[Array], Array]
    stored: Callable[[Array], Array]

    def of(self, linear: Linear) -> Linear:
        """The matrix product of a layer, for weights as the file holds them."""
        return replace(
            linear,
            to_matrix=lambda w: linear.to_matrix(self.seen(w)),
            from_matrix=lambda m, _: self.stored(linear.from_matrix(m, self.shape)),
        )


def plain(shape: Sequence[int]) -> View:
    """A tensor that is seen as it is stored."""
    return View(tuple(shape), lambda w: w, lambda w: w)


def behind(view: View, node: onnx.NodeProto, shape: tuple[int, ...]) -> View:
    """What one more node that changes shape or order alone, whose output has this shape, makes of a view."""
    before = view.shape
    if not has(node, Trait.PERMUTES):
        return View(shape, lambda w: view.seen(w).reshape(shape), lambda w: view.stored(w.reshape(before)))
    perm = attributes_of(node).get("perm", range(len(before))[::-1])
    back = np.argsort(perm)
    return View(shape, lambda w: view.seen(w).transpose(perm), lambda w: view.stored(w.transpose(back)))


def encoded(network: LayerGraph, values: Mapping[str, Array]) -> dict[str, Array]:
    """New elements of tensors of the file, by key, for real values: quantised ones with scales of their own.

    A scale that other nodes take too stays what it is; the scale of an integer bias follows that of its weights.
    """
    out, wanted = dict[str, Array](), dict(values)
    for key in [k for k in values if k in network.scaled and network.number(k).dtype != np.int32]:
        weight, bias = network.scaled[key], _bias_of(network, key)
        fresh = _fitting(network, weight, values[key]) if _own_scale(network, weight, bias) else None
        if fresh is not None:
            out[weight.scale] = fresh
            if bias is not None:
                scale = network.number(bias.scale)
                out[bias.scale] = (scale * (fresh / network.number(weight.scale)).reshape(scale.shape)).astype(
                    scale.dtype
                )
                wanted.setdefault(bias.key, network.real(bias.key))
    for key, value in wanted.items():
        found = network.scaled.get(key)
        out[key] = value if found is None else _integers(network, found, value, out)
    return out


def _own_scale(network: LayerGraph, weight: Scaled, bias: Scaled | None) -> bool:
    """Whether the scale of a weight, and of the bias that hangs on it, may change."""
    scales = [weight.scale] + ([bias.scale] if bias is not None else [])
    if any(name not in network.tensors or len(network.consumers.get(name, ())) != 1 for name in scales):
        return False
    return bias is None or network.number(bias.scale).size == network.number(weight.scale).size


def _fitting(network: LayerGraph, weight: Scaled, value: Array) -> Array:
    """Scales with which the largest weights take the integers that the largest took so far."""
    scale, steps = network.number(weight.scale), network.number(weight.key).astype(np.float64)
    most = max(float(np.abs(steps - weight.along(network.zero(weight), steps.ndim)).max(initial=0)), 1.0)
    axes = tuple(k for k in range(value.ndim) if scale.size == 1 or k != weight.axis % value.ndim)
    largest = np.abs(value).max(axis=axes).reshape(scale.shape)
    return np.where(largest > 0, largest / most, scale).astype(scale.dtype)


def _integers(network: LayerGraph, found: Scaled, value: Array, fresh: Mapping[str, Array]) -> Array:
    """The integers that stand for real values."""
    scale = found.along(fresh.get(found.scale, network.number(found.scale)), value.ndim)
    kind = network.number(found.key).dtype
    steps = np.rint(value / scale.astype(np.float64)) + found.along(network.zero(found), value.ndim)
    return np.clip(steps, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def _bias_of(network: LayerGraph, key: str) -> Scaled | None:
    """The quantised bias of the layer that takes a quantised weight."""
    name = network.nodes[network.scaled[key].node].output[0]
    while (k := network.follow(name)) is not None and has(network.nodes[k], Trait.VIEW):
        name = network.nodes[k].output[0]
    if k is None or len(network.nodes[k].input) < 3:
        return None
    maker = network.maker.get(network.nodes[k].input[2])
    return next((s for s in network.scaled.values() if s.node == maker), None)
