"""Layers that mix channels: bounds of sums of products, and filters that are multiples of each other.

Normalisations with fixed or own statistics of each channel stand here as well.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.channels.ops.norm import RMS
from onnxprune.channels.ops.recurrent import QUIET
from onnxprune.lossless.facts import Facts, expanded, facts, padded, reduced
from onnxprune.lossless.likeness import BLOCK, EXACT, bits, mix, multiples, tolerance
from onnxprune.lossless.pointwise import NEAR_SUM, affine
from onnxprune.lossless.products import matrix_product, turned_product, zeros
from onnxprune.lossless.site import Site, rule

ROUNDING = 2.0**-18  # a sum of positive terms in float32 may be off by this share of it


def touches_padding(attributes: Mapping[str, Any], kernel: tuple[int, ...], transposed: bool) -> bool:
    """Whether some outputs of a convolution see fewer elements of their input than others."""
    if transposed:
        return any(k != 1 for k in kernel) or any(s != 1 for s in attributes.get("strides", ())) or _pads(attributes)
    auto = attributes.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        return any(k != 1 for k in kernel)
    return auto != b"VALID" and _pads(attributes)


def _pads(attributes: Mapping[str, Any]) -> bool:
    return any(p > 0 for name in ("pads", "output_padding") for p in attributes.get(name, ()))


def sums(weights: np.ndarray, low: np.ndarray, high: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of weighted sums, (parts, outputs) each.

    Args:
        weights: (parts, outputs, inputs, taps).
        low, high: (parts, inputs), of every tap of an input.
        bias: (parts, outputs).
    """
    step = max(1, BLOCK // max(1, 8 * weights[:, :1].size))
    found = [
        _sums(weights[:, k : k + step], low, high, bias[:, k : k + step]) for k in range(0, weights.shape[1], step)
    ]
    bottom, top = (np.concatenate(part, 1) for part in zip(*found, strict=True))
    return bottom, top


def _sums(weights: np.ndarray, low: np.ndarray, high: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    up, down = np.maximum(weights, 0).sum(-1, np.float64), np.maximum(-weights, 0).sum(-1, np.float64)
    top, bottom = _bound(up, high) + _bound(down, -low) + bias, _bound(up, low) + _bound(down, -high) + bias
    over = _bound(up, np.maximum(high, 0)) + _bound(down, np.maximum(-low, 0)) + np.maximum(bias, 0)
    under = _bound(up, np.maximum(-low, 0)) + _bound(down, np.maximum(high, 0)) + np.maximum(-bias, 0)
    fixed = top == bottom
    return np.where(fixed, bottom, bottom - ROUNDING * under), np.where(fixed, top, top + ROUNDING * over)


def _bound(factors: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of non-negative factors (parts, outputs, inputs) times bounds (parts, inputs), infinite where one is."""
    finite = np.isfinite(ends)
    total = (factors @ np.where(finite, ends, 0.0)[:, :, None])[:, :, 0]
    for end in (-np.inf, np.inf):
        there = ends == end
        if there.any():
            total = np.where((factors @ there[:, :, None].astype(np.float64))[:, :, 0] > 0, end, total)
    return total


def _layer(site: Site, x: Facts, weights: np.ndarray, bias: np.ndarray, near: float, hull: bool) -> Facts:
    """Facts (outputs,) of a layer from facts (inputs,) and weights (parts, outputs, inputs, taps)."""
    parts, outputs, inputs, taps = weights.shape
    low, high = (a.reshape(parts, inputs) for a in (x.low, x.high))
    if hull:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    bias = bias.reshape(parts, outputs)
    bottom, top = (a.ravel() for a in sums(weights, low, high, bias))
    keys = np.broadcast_to(mix(site.token, np.arange(parts, dtype=np.uint64))[:, None], (parts, outputs))
    scale = np.ones((parts, 1))
    if inputs == 1:  # one channel in: it may be a multiple of another one
        keys, scale = np.broadcast_to(mix(site.token, x.identity)[:, None], (parts, outputs)), x.scale[:, None]
    rows = weights.reshape(parts * outputs, inputs * taps)
    if inputs == 1 and (scale != 1).any():
        rows = rows * np.repeat(scale.ravel(), outputs)[:, None]
    first, factor = multiples(rows, bias.ravel(), keys.ravel(), near)
    return facts(bottom, top, mix(keys.ravel(), first), factor)


def _bias(site: Site, k: int, outputs: int, scale: float = 1.0) -> np.ndarray | None:
    """A bias for each output; None where it depends on data or on more than the channel."""
    if not site.has(k):
        return np.zeros(outputs)
    found = site.array(k)
    if found is None or found.size not in (1, outputs) or (found.ndim and found.shape[-1] != found.size):
        return None
    return np.broadcast_to(scale * found.astype(np.float64).ravel(), (outputs,))


@rule("Conv", "ConvTranspose", passes=False)
def convolution(site: Site) -> Facts | None:
    x, shape, w = site.inputs[0], site.shapes[0], site.array(1)
    if x is None or shape is None or w is None or w.ndim != len(shape):
        return None
    group, transposed = int(site.attributes.get("group", 1)), site.node.op_type == "ConvTranspose"
    whole = expanded(reduced(x, [0, *range(2, len(shape))]), shape, [1])
    if transposed:
        grid = w.reshape(group, w.shape[0] // group, w.shape[1], -1).swapaxes(1, 2)
    else:
        grid = w.reshape(group, w.shape[0] // group, w.shape[1], -1)
    bias = _bias(site, 2, grid.shape[0] * grid.shape[1])
    if whole is None or bias is None or whole.shape[1] != group * grid.shape[2]:
        return None
    flat = whole.map(np.ravel)
    out = _layer(site, flat, grid, bias, tolerance(w.dtype), touches_padding(site.attributes, w.shape[2:], transposed))
    return out.map(lambda a: a.reshape(1, -1, *[1] * (len(shape) - 2)))


@rule("DeformConv", passes=False)
def deformed_convolution(site: Site) -> Facts | None:
    """Filters of zeros give the bias, wherever they look."""
    shape, w = site.shapes[0], site.array(1)
    bias = None if w is None else _bias(site, 3, len(w))
    if shape is None or w is None or bias is None:
        return None
    at = (1, -1, *[1] * (len(shape) - 2))
    return zeros(site, np.asarray(~w.reshape(len(w), -1).any(1)).reshape(at), bias.reshape(at))


@rule("Gemm", "MatMul", passes=False)
def product(site: Site) -> Facts | None:
    """With weights on the right; of other products zeros are followed."""
    x, shape, w = site.inputs[0], site.shapes[0], site.array(1)
    a = site.attributes
    if x is None or shape is None or w is None or w.ndim != 2 or a.get("transA", 0):
        return matrix_product(site) if site.node.op_type == "MatMul" else turned_product(site)
    w = w if a.get("transB", 0) else w.T
    bias = _bias(site, 2, len(w), a.get("beta", 1.0)) if site.node.op_type == "Gemm" else np.zeros(len(w))
    last = len(shape) - 1
    whole = expanded(reduced(x, range(last)), shape, [last])
    if whole is None or bias is None or whole.shape[-1] != w.shape[1]:
        return None
    near, scale = tolerance(w.dtype), a.get("alpha", 1.0)
    w = w if scale == 1 else scale * w
    out = _layer(site, whole.map(np.ravel), w[None, :, :, None], bias, near, False)
    return out.map(lambda v: v.reshape(*[1] * last, -1))


@rule("BatchNormalization")
def batch_norm(site: Site) -> list[Facts | None] | None:
    x, shape = site.inputs[0], site.shapes[0]
    arrays = [site.array(k) for k in range(1, 5)]
    if x is None or shape is None or site.attributes.get("training_mode", 0) or not site.attributes.get("spatial", 1):
        return None
    if any(a is None for a in arrays) or len(shape) < 2 or (site.opset < 7 and not site.attributes.get("is_test", 0)):
        return None
    gamma, beta, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
    factor = gamma / np.sqrt(variance + site.attributes.get("epsilon", 1e-5))
    whole = expanded(x, shape, [1])
    if whole is None or not np.isfinite(factor).all():
        return None
    at = (1, -1, *[1] * (len(shape) - 2))
    out = affine(whole, factor.reshape(at), (beta - mean * factor).reshape(at), NEAR_SUM)
    return [out, *[site.nothing(k) for k in range(1, len(site.outputs))]]


@rule(*RMS, passes=False)
def rms_norm(site: Site) -> list[Facts | None] | None:
    """Zeros stay zeros."""
    x = site.inputs[0]
    if x is None or site.attributes.get("epsilon", 1e-5) <= 0:
        return None
    names = mix(x.identity, bits(x.scale), site.token)
    return [zeros(site, x.constant & (x.low == 0), names=names), *map(site.nothing, range(1, len(site.outputs)))]


@rule("GroupNormalization")
def group_norm(site: Site) -> Facts | None:
    """A group of channels that are one constant comes out as their shifts."""
    x, shape, bias = site.inputs[0], site.shapes[0], site.array(2)
    groups = int(site.attributes["num_groups"])
    whole = None if x is None or shape is None else expanded(reduced(x, [0, *range(2, len(shape))]), shape, [1])
    if whole is None or shape is None or bias is None:
        return None
    low, high = (a.reshape(groups, -1) for a in (whole.low, whole.high))
    still = np.repeat(np.isfinite(low[:, 0]) & (low.min(1) == high.max(1)), low.shape[1])
    shift = bias.astype(np.float64) if bias.size == still.size else np.repeat(bias.astype(np.float64), low.shape[1])
    at = (1, -1, *[1] * (len(shape) - 2))
    return zeros(site, still.reshape(at), shift.reshape(at))


@rule("InstanceNormalization")
def instance_norm(site: Site) -> Facts | None:
    """A channel that is constant comes out as its shift."""
    x, shape, gamma, beta = site.inputs[0], site.shapes[0], site.array(1), site.array(2)
    if x is None or shape is None or gamma is None or beta is None:
        return None
    whole = expanded(reduced(x, [0, *range(2, len(shape))]), shape, [1])
    if whole is None:
        return None
    at = (1, -1, *[1] * (len(shape) - 2))
    g, b = (v.astype(np.float64).reshape(at) for v in (gamma, beta))
    fixed = whole.constant | (g == 0)
    name = mix(whole.identity, bits(whole.scale), bits(g), bits(b), site.kind)
    return facts(np.where(fixed, b, -np.inf), np.where(fixed, b, np.inf), name)


@rule("QLinearConv", passes=False)
def quantised_convolution(site: Site) -> Facts | None:
    """Filters of zeros give the bias in units of the output."""
    shape = site.shapes[0]
    w, bias = site.array(3), site.array(8)
    numbers = [site.array(k) for k in (1, 4, 5, 6, 7)]
    if shape is None or w is None or any(n is None for n in numbers):
        return None
    xs, ws, wz, ys, yz = (n.astype(np.float64).ravel() for n in numbers if n is not None)
    grid = np.abs(w.astype(np.float64).reshape(len(w), -1) - wz[:, None]).max(1)
    unit = xs * np.broadcast_to(ws, (len(w),)) / ys
    summand = np.zeros(len(w)) if bias is None else bias.astype(np.float64)
    numbers_of = np.iinfo(site.array(7).dtype)  # type: ignore[union-attr]
    value = np.clip(np.round(summand * unit) + yz, numbers_of.min, numbers_of.max)
    low, high = (np.where(grid == 0, value, end) for end in (-np.inf, np.inf))
    names = mix(site.token, np.arange(len(w), dtype=np.uint64))
    return facts(low, high, names).map(lambda a: a.reshape(1, -1, *[1] * (len(shape) - 2)))


@rule("LSTM", "GRU", "RNN", passes=False)
def recurrent(site: Site) -> list[Facts | None] | None:
    """Hidden units with the same weights stay the same from states of zero on, and without weights at zero."""
    w, r, b = (site.array(k) for k in (1, 2, 3))
    states = [site.fact(k) for k in (5, 6) if site.has(k)]
    told = [n.decode() if isinstance(n, bytes) else n for n in site.attributes.get("activations", ())]
    calm = QUIET[site.node.op_type]
    if w is None or r is None or any(site.has(k) and site.array(k) is None for k in (3, 7)):
        return None
    if any(s is None or s[0].low.any() or s[0].high.any() for s in states):
        return None
    if not all(name in calm[k % len(calm)] for k, name in enumerate(told)):
        return None
    units = r.shape[2]
    rows = [a.reshape(len(a), -1, units, a.shape[2]).transpose(2, 0, 1, 3).reshape(units, -1) for a in (w, r)]
    rows += [a.reshape(-1, units).T for a in (b, site.array(7)) if a is not None]
    own = np.concatenate(rows, 1)
    first, factor = multiples(own, np.zeros(units), np.zeros(units, np.uint64), EXACT)
    first = np.where(factor == 1, first, np.arange(units))
    low = np.where(own.any(1), -np.inf, 0.0)
    one = facts(low, -low, mix(site.token, first))
    return [None if s is None else padded(one, len(s)).named(k) for k, s in enumerate(site.outputs)]
