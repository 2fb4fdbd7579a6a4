"""Outputs that hold numbers of two scales, such as boxes in pixels and probabilities beside each other, in parts.

What compares networks by squares would see the larger numbers alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.runtime.compare import Difference, differences
from onnxprune.runtime.specs import Feed

APART = 50.0  # ratio of the typical deviations beyond which numbers are of two kinds: pixels and probabilities, say
LONGEST = 512  # positions on an axis that may tell kinds apart; longer ones are places
STILL = 1e-6  # of the largest deviation: what less moves is taken to move so much
CONSTANT = 1e-6  # of its largest magnitude: what varies by no more is one number, up to the rounding of float32


@dataclass(frozen=True)
class Scales:
    """Where outputs are cut in two: {name: (axis, first position of the second part)}."""

    cuts: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, runs: Sequence[Feed]) -> "Scales":
        """What the outputs of a network, of several runs, show."""
        names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
        found = {name: _cut([run[name] for run in runs]) for name in names}
        return cls({name: cut for name, cut in found.items() if cut is not None})

    def parts(self, outputs: Feed) -> dict[str, np.ndarray]:
        """The outputs of a run, those in two parts as two, `y[:, :4]` and `y[:, 4:]`; as they are in another rank."""
        out: dict[str, np.ndarray] = {}
        for name, array in outputs.items():
            axis, at = self.cuts.get(name, (0, 0))
            if not at or array.ndim <= axis:
                out[name] = array
                continue
            for part, piece in zip((f":{at}", f"{at}:"), np.split(array, [at], axis), strict=True):
                out[f"{name}[{':, ' * axis}{part}]"] = piece
        return out


def compared_by_scale(given: Sequence[Feed], others: Iterable[Feed]) -> list[Difference]:
    """Compare runs with others, run by run, numbers of each scale in an output by themselves."""
    scales = Scales.of(given)
    return differences((scales.parts(g), scales.parts(o)) for g, o in zip(given, others, strict=True))


@np.errstate(over="ignore", invalid="ignore")  # numbers that are not finite have no scale
def _cut(arrays: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """The axis and the position where the scales of an output differ most; None where they differ by little.

    Positions at which an output is one number, as in a border of zeros, have no scale and are passed over.
    """
    shapes = {a.shape[1:] for a in arrays}
    if len(shapes) != 1 or any(a.dtype.kind != "f" or a.ndim < 2 for a in arrays):
        return None
    whole = np.concatenate(arrays).astype(np.float64)
    best, found = 0.0, None
    for axis in range(1, whole.ndim):
        if not 2 <= whole.shape[axis] <= LONGEST:
            continue
        slices = np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)
        deviations = slices.std(axis=1)
        if not np.isfinite(deviations).all():
            continue
        moving = np.flatnonzero(np.ptp(slices, axis=1) > CONSTANT * np.abs(slices).max(axis=1))
        if len(moving) < 2:
            continue
        sizes = np.log(np.maximum(deviations[moving], STILL * deviations.max()))
        k, apart, weight = _step(sizes)
        if apart >= np.log(APART) and weight > best:
            falls = sizes[:k].mean() > sizes[k:].mean()  # constant positions at the step go with the smaller numbers
            best, found = weight, (axis, int(moving[k - 1] + 1 if falls else moving[k]))
    return found


def _step(sizes: np.ndarray) -> tuple[int, float, float]:
    """Where a line is best told as two levels, how far these are apart, and how much of its variance they tell."""
    count = np.arange(1, len(sizes))
    sums = np.cumsum(sizes)[:-1]
    levels = np.abs(sums / count - (sizes.sum() - sums) / (len(sizes) - count))
    weights = levels * np.sqrt(count * (len(sizes) - count)) / len(sizes)
    k = int(weights.argmax())
    return k + 1, float(levels[k]), float(weights[k])
