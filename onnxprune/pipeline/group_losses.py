"""What each group's channels are worth to the network: its loss as a function of how many of them are gone.

Measured by masking one group at a time where there is data, modelled from the weights where there is none.
"""

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from onnxprune.channels.dependencies import Group, Slot
from onnxprune.criteria.filters import Indices
from onnxprune.criteria.ranking import Ranking
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.study import Study
from onnxprune.pipeline.trials import Trials, likeness
from onnxprune.progress import Progress
from onnxprune.report.sensitivities import RATIOS, Curve, Sensitivity, kept_at
from onnxprune.runtime.batches import Dataset

SAMPLES = 256
POINTS = 16  # of a curve that are reported, besides those at `RATIOS`


def removals_of(channels: int) -> list[int]:
    """How many channels of a group are gone where its loss is taken, from few to many; at least one stays."""
    return sorted({channels - k for ratio in RATIOS if (k := kept_at(channels, ratio)) < channels})


def measured_curves(
    study: Study, data: Dataset, groups: Sequence[Group], select: Callable[[Group, int], Indices], progress: Progress
) -> Sensitivity:
    """Mask a share of one group after the other and compare with the whole network's own outputs.

    Args:
        study, data: the network and its samples, of which at most `SAMPLES` are used.
        groups: those to try.
        select: which channels of a group stay at a count.
    """
    trials = Trials(study, data.spread(SAMPLES))
    loss, what = likeness(trials.runner({})(next(iter(trials.batches)).feeds))
    base = trials.mean({}, loss)
    curves = []
    for k, group in enumerate(groups):
        progress(f"sensitivity of {group.name}", k, len(groups))
        gone = removals_of(len(group))
        losses = [trials.mean({group.name: select(group, len(group) - n)}, loss) - base for n in gone]
        curves.append(Curve(group.name, len(group), tuple(gone), tuple(losses)))
    return Sensitivity(tuple(curves), what, sum(b.size for b in trials.batches), base)


def modelled_curves(
    weights: Weights,
    groups: Sequence[Group],
    rank: Callable[[Group], Ranking],
    progress: Progress,
    rotated: Container[str] = (),
) -> Sensitivity:
    """What a removal takes from the outputs of the layers that read the group, as a share of them, from weights alone.

    A channel that goes loses the energy that the one which stands for it cannot express (its distance in the cluster;
    all of its energy where a method knows no likeness), times the energy of the weights that read it; summed over the
    readers, each relative to all that it reads from the group.  The channels of a group that was rotated are ranked by
    just that, as a share of all of them.
    """
    curves = []
    for k, group in enumerate(groups):
        progress(f"sensitivity of {group.name}", k, len(groups))
        ranking = rank(group)
        known = group.name in rotated
        read = max(len(group.readers), 1) if known else (_read_shares(weights, group) * len(group))[ranking.order]
        lost = np.concatenate([[0.0], np.cumsum(ranking.losses * read)])
        gone = removals_of(len(group))
        curves.append(Curve(group.name, len(group), tuple(gone), tuple(float(lost[n]) for n in gone)))
    return Sensitivity(tuple(curves), "modelled share of the readers' outputs")


def with_readers_solved(losses: Mapping[str, np.ndarray]) -> Sensitivity:
    """Curves of a repair, (channels + 1,) losses of each group, at some of the counts."""
    curves = []
    for name, loss in losses.items():
        channels = len(loss) - 1
        spread = np.linspace(1, max(channels - 1, 1), POINTS).astype(int)
        gone = sorted({n for n in map(int, spread) if n < channels}.union(removals_of(channels)))
        curves.append(Curve(name, channels, tuple(gone), tuple(float(loss[n]) for n in gone)))
    return Sensitivity(tuple(curves), "squared drift of the outputs, layers that read the group solved again")


def worth(weights: Weights, group: Group) -> np.ndarray:
    """The energy of each channel's filters, times its share in the weights that read it: (channels,)."""
    return weights.filters(group).strengths * _read_shares(weights, group)


def _read_shares(weights: Weights, group: Group) -> np.ndarray:
    """The shares of each channel in the energies of the weights that read the group, summed: (channels,)."""
    return sum((_shares(weights, s) for s in group.readers), np.zeros(len(group)))


def _shares(weights: Weights, slot: Slot) -> np.ndarray:
    """The share of each channel in the energy of the weights that read it at one place: (channels,)."""
    energy = slot.energies(weights.read(slot.source))
    return energy / energy.sum() if energy.sum() > 0 else np.zeros(len(energy))
