"""Interval arithmetic on facts: what functions of one value, sums and products make of bounds and value numbers."""

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.operators.facts import Facts, facts, own_names, reduced
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import Ids, bits, mix, name_of, snapped

NEAR_SUM = 1e-6  # a bias in float32 over a factor that is known to as much


def applied(found: Facts, fn: Callable[[np.ndarray], np.ndarray], monotone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of a function of each element."""
    with np.errstate(all="ignore"):
        a, b = fn(found.low), fn(found.high)
    if monotone:
        return np.minimum(a, b), np.maximum(a, b)
    fixed = found.constant
    return np.where(fixed, a, -np.inf), np.where(fixed, a, np.inf)


def affine(found: Facts, factor: np.ndarray, summand: np.ndarray, near: float) -> Facts:
    """factor · x + summand for arrays that broadcast; multiples of the same sum keep one identity."""
    factor, summand = np.asarray(factor, np.float64), np.asarray(summand, np.float64)
    low, high = times(found.low, factor), times(found.high, factor)
    low, high, identity, scale, factor, summand = np.broadcast_arrays(
        np.minimum(low, high) + summand, np.maximum(low, high) + summand, found.identity, found.scale, factor, summand
    )
    size = np.abs(factor) * scale
    identity = np.where(factor < 0, mix(identity, name_of("negated")), identity)
    shift = np.divide(summand, size, out=np.zeros(size.shape), where=size > 0)
    shift = snapped(identity.ravel(), shift.ravel(), near).reshape(shift.shape)
    return facts(low, high, np.where(shift == 0, identity, mix(identity, name_of("shifted"), bits(shift))), size)


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products in which zero times infinity is zero: elements are finite."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


def rows(site: Site, axes: Sequence[int], low: float = -np.inf, high: float = np.inf) -> Facts:
    """Facts of what a node makes of each row of input 0 along some axes, in one way of all of them."""
    found = site.data()
    flat = reduced(found, [k % len(found.shape) for k in axes])
    names = mix(*flat.exact, site.token)
    return facts(np.full(names.shape, low), np.full(names.shape, high), names)


def homogeneous_rows(site: Site, axes: Sequence[int], *, with_zero: bool = False) -> Facts:
    """The same where the outputs are among the elements of a row, or zeros, and grow with them by the same factor."""
    found = site.data()
    flat = reduced(found, [k % len(found.shape) for k in axes])
    low, high = (np.minimum(flat.low, 0), np.maximum(flat.high, 0)) if with_zero else (flat.low, flat.high)
    return facts(low, high, mix(flat.identity, site.token), flat.scale)


def zero_where(site: Site, vanishing: np.ndarray, summand: np.ndarray | float = 0.0, names: Ids | None = None) -> Facts:
    """Facts of an output that is `summand` where a sum of products vanishes; arrays of the output's rank."""
    low = np.where(vanishing, summand, -np.inf)
    names = own_names(site.token, low.shape) if names is None else names
    return facts(low, np.where(vanishing, summand, np.inf), names)
