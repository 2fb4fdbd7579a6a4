"""Losses of groups as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.report.shown import Block

if TYPE_CHECKING:
    import numpy as np

RATIOS = (0.125, 0.25, 0.5, 0.75, 0.9)  # shares of a group at which its loss is taken


def kept_at(channels: int, ratio: float) -> int:
    """How many of so many channels stay when about this share goes."""
    return max(1, round(channels * (1 - ratio)))


@dataclass(frozen=True)
class Curve:
    """The loss of one group, above that of the whole network, when so many of its channels are gone."""

    group: str
    channels: int
    removed: tuple[int, ...]
    losses: tuple[float, ...]

    def at_ratio(self, ratio: float) -> float | None:
        """The loss at about this share; None where it was not taken."""
        gone = self.channels - kept_at(self.channels, ratio)
        return self.losses[self.removed.index(gone)] if gone in self.removed else None

    def at_every_count(self) -> np.ndarray:
        """(channels + 1,) losses by how many channels are gone: never falling, straight between the points."""
        import numpy as np  # here, since what is told at once loads this file

        x, y = np.array([0, *self.removed]), np.maximum.accumulate([0.0, *self.losses])
        if x[-1] < self.channels:  # on from the last point as before it
            slope = (y[-1] - y[-2]) / (x[-1] - x[-2]) if len(x) > 1 else 0.0
            x, y = np.append(x, self.channels), np.append(y, y[-1] + slope * (self.channels - x[-1]))
        return np.interp(np.arange(self.channels + 1), x, y)


@dataclass(frozen=True, repr=False)
class Sensitivity(Block):
    """Curves of all groups, what their losses are, and how many samples they were measured on (0: modelled)."""

    TABLE = "terminal:sensitivity_table"

    curves: tuple[Curve, ...]
    what: str
    samples: int = 0
    base: float = 0.0  # loss of the whole network, which the curves do not contain

    def losses(self) -> dict[str, np.ndarray]:
        """By group, (channels + 1,) losses."""
        return {c.group: c.at_every_count() for c in self.curves}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        return f"<Sensitivity of {len(self.curves)} groups: {self.what}, {self.samples} samples>"
