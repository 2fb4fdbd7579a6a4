"""How much two runs differ: figures for every output, with NaN and infinity in their places."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.runtime.specs import describe


@dataclass(frozen=True)
class Difference:
    """How far the second array is from the first, over all runs.

    `max_abs` is the largest absolute difference, `magnitude` the largest absolute value of the first;
    `cosine` and `snr_db` compare them as vectors. `flips` counts elements that differ at all, of `size`.
    `problem` says what makes them incomparable: another shape or type, NaN or infinity elsewhere.
    """

    name: str
    max_abs: float = 0.0
    magnitude: float = 0.0
    flips: int = 0
    size: int = 0
    problem: str | None = None
    _dot: float = 0.0
    _first: float = 0.0
    _second: float = 0.0
    _error: float = 0.0

    @property
    def relative(self) -> float:
        """Largest difference as a share of the largest magnitude; infinite where all of the first is zero."""
        if self.problem:
            return math.inf
        if not self.max_abs:
            return 0.0
        return self.max_abs / self.magnitude if self.magnitude else math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two as vectors; 1 where both are zero."""
        if self._first and self._second:
            return self._dot / math.sqrt(self._first * self._second)
        return float(self._first == self._second)

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in dB, 10·log10(Σ first² / Σ (first − second)²); infinite where they are equal.

        NaN where neither has a number to compare.
        """
        if not self._error:
            return math.inf if self.size else math.nan
        return 10 * math.log10(self._first / self._error) if self._first else -math.inf


def difference(name: str, first: np.ndarray, second: np.ndarray) -> Difference:
    """Compare two arrays. NaN equals NaN and infinity the infinity of the same sign at the same position."""
    if first.shape != second.shape:
        return Difference(name, problem=f"shape {describe(first.shape)} became {describe(second.shape)}")
    if first.dtype != second.dtype:
        return Difference(name, problem=f"type {first.dtype} became {second.dtype}")
    if first.dtype.kind in "OUSM":
        flips, size = int(np.sum(first != second)), first.size
        return Difference(name, float(flips > 0), 1.0, flips, size, None, size - flips, size, size, flips)
    a, b = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(a)
    if not finite.all() or not np.isfinite(b).all():
        same = np.array_equal(a[~finite], b[~finite], equal_nan=True) and np.isfinite(b[finite]).all()
        if not same:
            return Difference(name, problem="NaN or infinity at other positions")
        a, b = a[finite], b[finite]
    gap = np.abs(a - b)
    return Difference(
        name,
        float(gap.max(initial=0)),
        float(np.abs(a).max(initial=0)),
        int(np.count_nonzero(gap)),
        a.size,
        None,
        float(np.vdot(a, b)),
        float(np.vdot(a, a)),
        float(np.vdot(b, b)),
        float(np.vdot(gap, gap)),
    )


def merged(one: Difference, two: Difference) -> Difference:
    """The difference over the runs of both."""
    most = {name: max(getattr(one, name), getattr(two, name)) for name in ("max_abs", "magnitude")}
    sums = ("flips", "size", "_dot", "_first", "_second", "_error")
    total = {name: getattr(one, name) + getattr(two, name) for name in sums}
    return replace(one, problem=one.problem or two.problem, **most, **total)


def differences(pairs: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]) -> list[Difference]:
    """Compare pairs of outputs by name, as they come, all runs of an output together; only the figures are kept."""
    found: dict[str, Difference] = {}
    for first, second in pairs:
        for name, array in first.items():
            if name in second:
                new = difference(name, array, second[name])
            else:
                new = Difference(name, problem="missing from the second")
            found[name] = merged(found[name], new) if name in found else new
    return list(found.values())
