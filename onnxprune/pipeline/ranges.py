"""Whether the numbers that a network is fed are in the range that its first layers were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxprune.errors import spelled
from onnxprune.model.network import Network
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.capture import tapped
from onnxprune.runtime.specs import Feed
from onnxprune.surgery.recovery.layer_graph import LayerGraph

STEPPED = Trait.QUANTIZES | Trait.ROUNDS | Trait.NUMBERS  # all: integers of real numbers, in steps that it takes
CLIPPED = 0.25  # share of the values that may lie outside of what an input is quantised to
NARROW = 0.05  # share of that range which the values have to span
FEWEST = 8  # samples that statistics are taken over
FAR = 100.0  # times the variance that a BatchNormalization has seen: pixels of 0 to 1 for 0 to 255 give 65025 times
PIXEL = 16.0  # what values of 0 to 1 never reach, and of 0 to 255 always do
DROWNED = 25.0  # times what a first layer adds that its input may give, or the other way round


def range_doubts(model: Network, feeds: Sequence[Feed], providers: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """What says that the numbers cannot be right, and what only makes it likely, a line each.

    An input that is quantised has a range; the first BatchNormalization has the statistics of what it was trained on;
    and a first layer whose biases drown in what its input gives, or the other way round, was made for another scale.

    Args:
        model: the original.
        feeds: some samples, in batches.
        providers: of onnxruntime.
    """
    network = LayerGraph(model)
    values = {name: np.concatenate([f[name].ravel() for f in feeds]) for name in feeds[0]}
    wrong = [line for name, array in values.items() if (line := _unlike_range(network, name, array))]
    norm = next((n for n in network.nodes if has(n, Trait.AFFINE)), None)
    conv = next((n for n in network.nodes if has(n, Trait.LINEAR) and has(n, Trait.CONVOLVES)), None)
    wanted = norm.input[0] if norm else conv.output[0] if conv else None
    if wrong or not wanted or sum(map(_samples, feeds)) < FEWEST:
        return wrong, []
    session = tapped(model, [wanted], providers=providers)
    found = [feed[wanted] if wanted in feed else session.run(feed, [wanted])[wanted] for feed in feeds]
    rows = np.concatenate([np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) for a in found if a.ndim > 1])
    if norm is not None:
        return _unlike_norm(network, norm, rows), []
    assert conv is not None
    return [], _unlike_bias(network, conv, rows, values)


def _samples(feed: Feed) -> int:
    return max((len(a) for a in feed.values() if a.ndim), default=0)


def _unlike_range(network: LayerGraph, name: str, array: np.ndarray) -> str | None:
    """Values that are clipped by an input's quantisation, or that fill next to nothing of it."""
    limits = _limits(network, name, array.dtype)
    if limits is None or not array.size or not np.isfinite(array).all():
        return None
    low, high = limits
    step = (high - low) / 255
    outside = float(((array < low - step) | (array > high + step)).mean())
    narrow = float(array.max()) - float(array.min()) < NARROW * (high - low)
    if outside <= CLIPPED and not narrow:
        return None
    span = f"from {float(array.min()):.3g} to {float(array.max()):.3g}"
    return f"'{name}' is quantised from {low:.3g} to {high:.3g}, but the data goes {span}: {_advice()}"


def _limits(network: LayerGraph, name: str, dtype: np.dtype) -> tuple[float, float] | None:
    """The range that an input is quantised to, in the numbers that it takes; None where it is not."""
    node = next((network.nodes[k] for k in network.consumers.get(name, ()) if has(network.nodes[k], STEPPED)), None)
    if node is not None:
        scale, zero = network.tensor(node.input[1]), network.tensor(node.input[2]) if len(node.input) > 2 else None
        if scale is None or scale.size != 1 or zero is None or zero.dtype not in (np.int8, np.uint8):
            return None
        limits, offset, factor = np.iinfo(zero.dtype), float(zero.ravel()[0]), float(scale.ravel()[0])
        return (limits.min - offset) * factor, (limits.max - offset) * factor
    while (k := network.follow(name)) is not None and has(network.nodes[k], Trait.VIEW):
        name = network.nodes[k].output[0]
    if dtype not in (np.int8, np.uint8) or k is None or not has(network.nodes[k], Trait.DEQUANTIZES):
        return None
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _unlike_norm(network: LayerGraph, norm: onnx.NodeProto, rows: np.ndarray) -> list[str]:
    """A variance, in the middle of the channels, far from the one that a BatchNormalization was trained on."""
    variance = network.tensor(norm.input[4])
    if variance is None or variance.size != rows.shape[1] or not np.isfinite(rows).all():
        return []
    seen = np.asarray(variance, np.float64)
    alive = seen > 1e-6 * seen.max(initial=0)
    ratio = float(np.median(rows[:, alive].var(axis=0, dtype=np.float64) / seen[alive])) if alive.any() else 1.0
    if 1 / FAR < ratio < FAR:
        return []
    name, seen_as = norm.name or norm.output[0], "the variance that the first BatchNormalization was trained on"
    return [f"the data gives '{name}' {ratio:.2g} times {seen_as}: {_advice()}"]


def _unlike_bias(
    network: LayerGraph, conv: onnx.NodeProto, rows: np.ndarray, values: Mapping[str, np.ndarray]
) -> list[str]:
    """A first layer whose biases drown in pixels of 0 to 255, or that drown in them what goes from 0 to 1."""
    bias = network.tensor(conv.input[2]) if len(conv.input) > 2 else None
    array = next(iter(values.values()))
    if bias is None or not bias.any() or len(values) > 1 or not np.isfinite(rows).all() or array.min() < 0:
        return []
    given = float(np.sqrt(rows.var(axis=0, dtype=np.float64).mean() / np.mean(np.square(bias, dtype=np.float64))))
    large = array.max() > PIXEL and given > DROWNED
    small = array.max() <= 1 and given < 1 / DROWNED
    if not large and not small:
        return []
    name = conv.name or conv.output[0]
    return [f"what the data makes of it is {given:.2g} times the biases of the first layer, '{name}': {_advice()}"]


def _advice() -> str:
    options = ", ".join(map(spelled, ("mean", "std", "layout")))
    return f"it seems to be in another scale than the network was trained on ({options})"
