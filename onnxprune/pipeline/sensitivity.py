"""What each group's channels are worth to the network: its loss as a function of how many of them are gone.

Measured by masking one group at a time where there is data, modelled from the weights where there is none.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxprune.channels.dependencies import Group, Slot
from onnxprune.criteria.filters import Indices
from onnxprune.criteria.ranking import Ranking
from onnxprune.pipeline.filters import Weights
from onnxprune.pipeline.losses import likeness
from onnxprune.pipeline.progress import Progress
from onnxprune.pipeline.trials import Lab, Trials

RATIOS = (0.125, 0.25, 0.5, 0.75, 0.9)  # shares of a group at which its loss is taken
SAMPLES = 256


@dataclass(frozen=True)
class Curve:
    """The loss of one group, above that of the whole network, when so many of its channels are gone."""

    group: str
    channels: int
    removed: tuple[int, ...]
    losses: tuple[float, ...]

    def at_every_count(self) -> np.ndarray:
        """(channels + 1,) losses by how many channels are gone: never falling, straight between the points."""
        x, y = np.array([0, *self.removed]), np.maximum.accumulate([0.0, *self.losses])
        if x[-1] < self.channels:  # on from the last point as before it
            slope = (y[-1] - y[-2]) / (x[-1] - x[-2]) if len(x) > 1 else 0.0
            x, y = np.append(x, self.channels), np.append(y, y[-1] + slope * (self.channels - x[-1]))
        return np.interp(np.arange(self.channels + 1), x, y)


@dataclass(frozen=True)
class Sensitivity:
    """Curves of all groups, what their losses are, and how many samples they were measured on (0: modelled)."""

    curves: tuple[Curve, ...]
    what: str
    samples: int = 0
    base: float = 0.0  # loss of the whole network, which the curves do not contain

    def losses(self) -> dict[str, np.ndarray]:
        """By group, (channels + 1,) losses."""
        return {c.group: c.at_every_count() for c in self.curves}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def counts_of(channels: int) -> list[int]:
    """Kept counts at which a group is tried, from many to few; all below its channels and at least one."""
    kept = {max(1, round(channels * (1 - ratio))) for ratio in RATIOS}
    return sorted((k for k in kept if k < channels), reverse=True)


def measured_curves(
    lab: Lab, groups: Sequence[Group], select: Callable[[Group, int], Indices], progress: Progress
) -> Sensitivity:
    """Mask a share of one group after the other and compare with the whole network's own outputs.

    Args:
        lab: the network and its data; at most `SAMPLES` samples are used.
        groups: those to try.
        select: which channels of a group stay at a count.
    """
    trials = Trials(lab, lab.samples(SAMPLES))
    loss, what = likeness(trials.runner({})(next(iter(trials.batches)).feeds))
    base = trials.mean({}, loss)
    curves = []
    for k, group in enumerate(groups):
        progress(f"sensitivity of {group.name}", k, len(groups))
        counts = counts_of(len(group))
        losses = [trials.mean({group.name: select(group, count)}, loss) - base for count in counts]
        curves.append(Curve(group.name, len(group), tuple(len(group) - c for c in counts), tuple(losses)))
    return Sensitivity(tuple(curves), what, sum(b.size for b in trials.batches), base)


def modelled_curves(
    weights: Weights, groups: Sequence[Group], rank: Callable[[Group], Ranking], progress: Progress
) -> Sensitivity:
    """What a removal takes from the outputs of the layers that read the group, as a share of them, from weights alone.

    A channel that goes loses the energy that the one which stands for it cannot express (its distance in the cluster;
    all of its energy where a method knows no likeness), times the energy of the weights that read it; summed over the
    readers, each relative to all that it reads from the group.
    """
    curves = []
    for k, group in enumerate(groups):
        progress(f"sensitivity of {group.name}", k, len(groups))
        ranking = rank(group)
        worth = sum((_shares(weights, s) for s in group.readers), np.zeros(len(group))) * len(group)
        lost = np.concatenate([[0.0], np.cumsum(ranking.losses * worth[ranking.order])])
        counts = counts_of(len(group))
        removed = [len(group) - c for c in counts]
        curves.append(Curve(group.name, len(group), tuple(removed), tuple(float(lost[r]) for r in removed)))
    return Sensitivity(tuple(curves), "modelled share of the readers' outputs")


def _shares(weights: Weights, slot: Slot) -> np.ndarray:
    """The share of each channel in the energy of the weights that read it at one place: (channels,)."""
    array = np.moveaxis(weights.read(slot.source), slot.axis, 0).astype(np.float64)
    energy = np.square(array).reshape(len(array), -1).sum(axis=1)[slot.positions].sum(axis=1)
    return energy / energy.sum() if energy.sum() > 0 else np.zeros(len(energy))
