"""How much of a feature map's energy lies in its large eigenvalues, gathered batch by batch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.criteria.filters import Floats
from onnxprune.errors import ModelError, UsageError

MAPS = 1 << 21  # elements of feature maps that are in float64 at once: 16 MiB


@dataclass
class EigenEnergy:
    """Mean over images of the sum of the `q` largest eigenvalues of AᵀA, A a channel's feature map (h × w).

    They are the squared singular values of A, so maps need not be square. `q` is a number of eigenvalues, or a share
    between 0 and 1: then the fewest that hold that share of the map's energy (the sum of all of them), map by map.
    """

    q: float = 0.9
    images: int = 0
    _sum: Floats = field(default_factory=lambda: np.zeros(0), repr=False)

    def __post_init__(self) -> None:
        if not (0 < self.q < 1 or (self.q >= 1 and float(self.q).is_integer())):
            raise UsageError(f"q is a share between 0 and 1 or a whole number of eigenvalues, not {self.q}")

    def update(self, maps: NDArray) -> None:
        """Take in a batch of maps `(images, channels, *space)`.

        A map without space counts as 1×1, one of a single axis as 1×w; of three axes or more the first are joined.
        Raises `UsageError` for another number of channels than before and `ModelError` for NaN or infinite values.
        """
        if maps.ndim < 2:
            raise UsageError(f"feature maps want shape (images, channels, *space), not {maps.shape}")
        if self.images and len(self._sum) != maps.shape[1]:
            raise UsageError(f"feature maps of {maps.shape[1]} channels follow maps of {len(self._sum)}")
        maps = maps.reshape(*maps.shape[:2], -1, maps.shape[-1] if maps.ndim > 2 else 1)
        total = np.zeros(maps.shape[1]) if not self.images else self._sum
        step = max(1, MAPS // max(1, maps[0].size))
        for start in range(0, len(maps), step):
            total = total + self._largest(maps[start : start + step].astype(np.float64)).sum(axis=0)
        if not np.isfinite(total).all():
            raise ModelError("feature maps hold NaN or infinite values, which cannot be ranked: check the images")
        self._sum = total
        self.images += len(maps)

    def _largest(self, maps: Floats) -> Floats:
        """Sum of the largest eigenvalues of each map: `(images, channels)`."""
        if not np.isfinite(maps).all():
            return np.full(maps.shape[:2], np.nan)
        turned = np.swapaxes(maps, -1, -2)
        products = maps @ turned if maps.shape[-2] <= maps.shape[-1] else turned @ maps  # the smaller side
        values = np.maximum(np.linalg.eigvalsh(products)[..., ::-1], 0)
        cumulative = np.cumsum(values, axis=-1)
        if self.q >= 1:
            return cumulative[..., min(int(self.q), values.shape[-1]) - 1]
        enough = cumulative >= self.q * cumulative[..., -1:] * (1 - 1e-12)
        return np.take_along_axis(cumulative, np.argmax(enough, axis=-1)[..., None], axis=-1)[..., 0]

    @property
    def importance(self) -> Floats:
        """The mean over the images so far: `(channels,)`. Raises `UsageError` before the first."""
        if not self.images:
            raise UsageError("no feature maps have been seen: 'cshe' needs calibration images")
        return self._sum / self.images
