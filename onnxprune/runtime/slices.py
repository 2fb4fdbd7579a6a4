"""How much two runs differ, slice by slice along every axis: a large channel hides nothing in a small one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxprune.model.elements import raw_bytes
from onnxprune.runtime.compare import difference

Axis = tuple[int, int]  # an axis and its length


@dataclass(frozen=True)
class Slices:
    """How far one output of a second run is from the first.

    `gaps` and `magnitudes` hold, for each axis, the largest difference and the largest absolute value of the first in
    every slice, (length,); nothing where all bits are the same. `top` is the largest absolute value of all; `flips` of
    `size` elements differ at all.
    `problem` says what makes the two incomparable: another shape (then they are `reshaped`) or type, NaN or infinity
    elsewhere.
    """

    name: str
    dtype: str
    gaps: Mapping[Axis, np.ndarray] = field(default_factory=dict)
    magnitudes: Mapping[Axis, np.ndarray] = field(default_factory=dict)
    top: float = 0.0
    flips: int = 0
    size: int = 0
    problem: str | None = None
    reshaped: bool = False


@dataclass
class Noise:
    """How far rounding alone moves an output: for each slice, as a share of the largest element of its run."""

    shares: dict[Axis, np.ndarray] = field(default_factory=dict)
    flips: float = 0.0  # the largest share of elements that changed
    unstable: bool = False  # its shape, or where it is finite, changes

    def add(self, found: Slices) -> None:
        """Widen it by one more pair of runs."""
        self.unstable |= found.problem is not None
        self.flips = max(self.flips, found.flips / max(1, found.size))
        for axis, gaps in found.gaps.items():
            share = gaps / found.top if found.top else gaps
            self.shares[axis] = np.maximum(self.shares.get(axis, 0.0), share)


def sliced(name: str, first: np.ndarray, second: np.ndarray | None) -> Slices:
    """Compare two arrays. NaN equals NaN and infinity the infinity of the same sign at the same position."""
    dtype = first.dtype.name
    if second is None:
        return Slices(name, dtype, problem="missing from the second")
    plain = first.dtype.kind not in "OUSM"
    if not plain or first.shape != second.shape or first.dtype != second.dtype:
        found = difference(name, first, second)
        gaps, ones = {(0, 1): np.array([found.max_abs])}, {(0, 1): np.ones(1)}
        return Slices(name, dtype, gaps, ones, 1.0, found.flips, found.size, found.problem, first.shape != second.shape)
    if np.array_equal(raw_bytes(first), raw_bytes(second)):
        return Slices(name, dtype, size=first.size)
    exact = np.promote_types(first.dtype, np.float32) if first.dtype.kind in "fiu" else np.dtype(np.float64)
    a, b = first.astype(exact), second.astype(exact)
    finite = np.isfinite(a)
    if not finite.all() or not np.isfinite(b).all():
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
            return Slices(name, dtype, problem="NaN or infinity at other positions")
        a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    with np.errstate(over="ignore"):  # an infinite gap is wider than any room
        gap, size = np.abs(a - b), np.abs(a)
    top, flips = float(size.max(initial=0)), int(np.count_nonzero(gap))
    return Slices(name, dtype, _largest(gap), _largest(size), top, flips, gap.size)


def _largest(array: np.ndarray) -> dict[Axis, np.ndarray]:
    """The largest element of each slice along each axis; the first axis, which is the batch, only where it is alone."""
    if array.ndim < 2:
        return {(0, array.size): array.reshape(-1)}
    if not array.size:
        return {}
    most = array.max(axis=0)
    others = {k: tuple(j for j in range(most.ndim) if j != k) for k in range(most.ndim) if most.shape[k] > 1}
    found = {(k + 1, most.shape[k]): most.max(axis=rest) for k, rest in others.items()}
    return found or {(0, 1): most.max().reshape(1)}


def compared(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> list[Slices]:
    """Every output of the first run against that of the second, and what only the second gives."""
    more = (Slices(name, "", problem="missing from the first") for name in second if name not in first)
    return [*(sliced(name, array, second.get(name)) for name, array in first.items()), *more]


Noises = dict[tuple[str, str], Noise]  # by output, and by the kind of input that it was measured on


def widen(noise: Noises, kind: str, found: Iterable[Slices]) -> None:
    """Add what these pairs of runs show of each output to its noise."""
    for slices in found:
        noise.setdefault((slices.name, kind), Noise()).add(slices)


def worst(gaps: np.ndarray, room: np.ndarray, magnitudes: np.ndarray) -> tuple[float, float, float]:
    """The slice closest to its room, or furthest beyond it: gap as a share of it, and error and tolerance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(gaps > 0, gaps / room, 0.0)
        k = int(np.argmax(share))
        scale = float(magnitudes[k])
    if not scale:
        return float(share[k]), math.inf if gaps[k] else 0.0, math.inf if room[k] else 0.0
    return float(share[k]), float(gaps[k]) / scale, float(room[k]) / scale
