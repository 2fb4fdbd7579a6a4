"""Bounds of weighted sums, and filters that are multiples of each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, NothingKnown, facts
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import BLOCK, mix, multiples

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


def layer(site: Site, x: Facts, weights: np.ndarray, bias: np.ndarray, near: float, hull: bool) -> Facts:
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


def bias_of(site: Site, k: int, outputs: int, scale: float = 1.0) -> np.ndarray:
    """A bias for each output.  Raises NothingKnown where it depends on data or on more than the channel."""
    found = site.weight(k, np.zeros(outputs))
    if found.size not in (1, outputs) or (found.ndim and found.shape[-1] != found.size):
        raise NothingKnown
    return np.broadcast_to(scale * found.astype(np.float64).ravel(), (outputs,))
