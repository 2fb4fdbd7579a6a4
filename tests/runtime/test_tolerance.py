"""How far two runs may differ, slice by slice."""

import numpy as np
import pytest

from onnxprune.runtime.slices import Noise, Slices
from onnxprune.runtime.taps import Taps
from onnxprune.runtime.tolerance import LUCKY, Judge

UNITS = (1, 5)


@pytest.mark.parametrize(("gap", "passes"), [(4e-7, True), (2 * LUCKY * 1e-3, False)])
def test_a_unit_whose_noise_came_out_small_has_the_room_of_the_median(gap: float, passes: bool) -> None:
    """Its sum all but cancels, so that rounding is much of it; what is more than rounding fails all the same."""
    magnitudes, shares = np.array([1.0, 1.0, 1.0, 1.0, 1e-3]), np.array([1e-7, 2e-7, 1e-7, 1e-7, 1e-10])
    noise = {("y", "normal"): Noise({UNITS: shares})}
    found = Slices("y", "float32", {UNITS: np.array([0, 0, 0, 0, gap])}, {UNITS: magnitudes}, 1.0, 1, 5)
    check = Judge(Taps(), noise).check(found, tap=True, where="", kind="normal")
    assert check is not None
    assert check.passed == passes
