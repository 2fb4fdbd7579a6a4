"""How far two runs may differ: up to what rounding explains, slice by slice, and no further.

Both models compute the same sums, but the pruned one leaves out terms that are zero in the masked one, so that the
order of the additions changes and with it the last bits. How far that goes at the outputs depends on the network; it
is measured rather than assumed (`NOISE_FACTOR`).
"""

import math
from dataclasses import dataclass

import numpy as np

from onnxprune.runtime.slices import Noise, Noises, Slices, worst
from onnxprune.runtime.taps import Taps

# Largest difference as a share of the largest magnitude of a slice, by element type. Over 33 trained networks
# with 30 % and 60 % of their inner channels cut, float32 stayed below 2e-6 (median 2e-7), while two channels
# exchanged in one weight gave 2e-5 to 1 (median 1e-1). Half precision rounds each layer to 2^-11 (bfloat16:
# 2^-8), and a sum that lands on the other side of a rounding boundary is off by a whole step.
TOLERANCE = {"float64": 1e-9, "float32": 3e-5, "float16": 1e-2, "bfloat16": 6e-2}

# Inner values of a quantized graph have about 255 steps, and one that falls on the other side of a boundary moves
# a sum by up to 1/255 of its range: a MobileNetV2 in int8 gave 1e-2, no less than two exchanged channels do. With this
# share of the largest element of an output, such a graph proves little where it runs freely; what proves it is that
# every part between two roundings gives the same when both models are handed the same rounded values.
QUANTIZED = 3e-2

# Outputs behind a threshold or a rounding may differ outright in this share of their elements (or in one).
FLIPPED = 0.01

# A change of the input, or of the weights, by a few units in the last place goes through as many layers as the rounding
# of the first one does. Slices that amplify it (instance norms on noise, recurrence) get that much more room, up to a
# share of their magnitude beyond which the comparison would prove nothing, or of the whole output's where a slice is
# little more than what rounding leaves of it.
NOISE_FACTOR = 8
NOISE_LIMIT = 5e-2
RESIDUE = 1e-5

# Noise is one draw for each slice, and some come out lucky: the sum of 25,088 products that all but cancel in a unit of
# a VGG's first dense layer. Such a slice has the room of the median one, up to this share of its magnitude.
LUCKY = 1e-3


@dataclass(frozen=True)
class Check:
    """One output, or one value before an output, of both models in one run.

    `error` and `tolerance` are shares of the magnitude of the slice that came closest to failing. `where` tells the
    run. `noisy`: rounding alone moves it as much as anything, so that the check proves little.
    """

    name: str
    error: float
    tolerance: float
    passed: bool
    tap: bool
    note: str = ""
    where: str = ""
    noisy: bool = False


@dataclass(frozen=True)
class Judge:
    """The room that each value has: by what it is, and the `noise` on that kind of input."""

    taps: Taps
    noise: Noises
    steps: bool = False  # allow for values on the other side of a rounding, anywhere in a quantized graph

    def check(self, found: Slices, *, tap: bool, where: str, kind: str) -> Check | None:
        """The check of one value; None for an inner one that lost channels, which says nothing."""
        noise = self.noise.get((found.name, kind), Noise())
        decided = found.name in self.taps.decided
        if tap and found.reshaped:
            return None
        if found.problem:
            if decided and noise.unstable:
                note = "its shape depends on which side of a threshold values fall"
                return Check(found.name, 0.0, math.inf, True, tap, note, where)
            return Check(found.name, math.inf, 0.0, False, tap, f"'{found.name}': {found.problem}", where)
        share, error, tolerance, noisy = self._worst(found, noise)
        note = ""
        if share > 1 and decided and found.flips <= max(1, FLIPPED * found.size):
            note, error, share = f"{found.flips} of {found.size} on the other side of a threshold", 0.0, 0.0
        return Check(found.name, error, tolerance, share <= 1, tap, note, where, noisy)

    def _worst(self, found: Slices, noise: Noise) -> tuple[float, float, float, bool]:
        """The slice that comes closest to failing: its gap as a share of its room, error, tolerance; is it noise?"""
        least, floor = TOLERANCE.get(found.dtype, 0.0), 1.0 if found.name in self.taps.bounded else 0.0
        closest = (0.0, 0.0, least, False)
        for axis, gaps in found.gaps.items():
            scale = np.maximum(found.magnitudes[axis], floor)
            own = NOISE_FACTOR * noise.shares.get(axis, np.zeros(1)) * found.top
            usual = float(np.median(own[own > 0])) if own.any() else 0.0
            room, drowned = self._room(scale, np.maximum(own, np.minimum(usual, LUCKY * scale)), found)
            share, error, tolerance = worst(gaps, room, scale)
            if share > closest[0]:
                closest = (share, error, tolerance, bool(drowned.any()))
        return closest

    def _room(self, scale: np.ndarray, noise: np.ndarray, found: Slices) -> tuple[np.ndarray, np.ndarray]:
        """The largest gap that each slice may have, and where noise drowns what there is to compare."""
        room = TOLERANCE.get(found.dtype, 0.0) * scale
        if self.steps and self.taps.quantized:
            room = np.maximum(room, QUANTIZED * found.top)
        drowned = noise > np.maximum(NOISE_LIMIT * scale, RESIDUE * found.top)
        return np.maximum(room, np.where(drowned, NOISE_LIMIT * scale, noise)), drowned
