"""From a budget to the number of channels that each group keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxprune.budget.cost import Costs
from onnxprune.errors import UsageError

KINDS = ("macs", "params", "size")


@dataclass(frozen=True)
class Budget:
    """What is asked for: a share of channels to remove, or a share of a cost to keep.

    ratio: share of each group's channels to remove, 0 ≤ ratio < 1.
    target: (kind, share to keep), a kind of cost of `Costs`.
    ratio_for: share to remove for single groups; those are not changed to meet a target.
    max_ratio: no group loses more than this share.
    round_to: kept counts are multiples of this, where the group is wide enough; None chooses by width (`step_of`).
    """

    ratio: float | None = None
    target: tuple[str, float] | None = None
    ratio_for: Mapping[str, float] = field(default_factory=dict)
    max_ratio: float = 1.0
    round_to: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("ratio", self.ratio), *(("ratio for " + g, r) for g, r in self.ratio_for.items())):
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name} is the share of channels to remove, at least 0 and below 1, not {value}")
        if self.target is not None and self.target[0] not in KINDS:
            raise UsageError(f"a target is one of {', '.join(k + '=' for k in KINDS)}, not {self.target[0]!r}")
        if self.target is not None and not 0 < self.target[1] <= 1:
            raise UsageError(f"a target is the share to keep, above 0 and at most 1, not {self.target[1]}")
        if not 0 <= self.max_ratio <= 1:
            raise UsageError(f"the largest ratio lies between 0 and 1, not {self.max_ratio}")
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"channel counts are rounded to 1 or more, not {self.round_to}")


@dataclass(frozen=True)
class Allocation:
    """Kept channels of each group, and what kept the budget from being met, if anything did."""

    kept: Mapping[str, int]
    stopped_by: str = ""


def allocate(costs: Costs, budget: Budget, pressure: Mapping[str, float] | None = None) -> Allocation:
    """Meet a budget by removing channels from all groups in step.

    Args:
        costs: cost functions over the groups that may be pruned and the others.
        budget: what is asked for; groups that must stay whole have a `ratio_for` of 0.
        pressure: relative share that each group loses (1 for all: the same ratio everywhere).

    A target is met from the safe side: the first step that would still exceed it is not the last one taken.
    """
    names = list(costs.groups)
    if budget.target is None:
        ratios = {g: budget.ratio_for.get(g, budget.ratio or 0.0) for g in names}
        return Allocation({g: keep_of(n, ratios[g], budget) for g, n in costs.groups.items()})
    return _meet(costs, budget, pressure or dict.fromkeys(names, 1.0))


def step_of(channels: int, round_to: int | None) -> int:
    """Multiple that a kept count is rounded to.

    Tensor cores like multiples of 8, and lose more by an odd width than they win by a few channels less; narrow
    groups are rounded less, so that a small ratio does not become nothing.
    """
    if round_to is not None:
        return round_to if channels >= round_to else 1
    return 8 if channels >= 64 else 4 if channels >= 32 else 1


def keep_of(channels: int, ratio: float, budget: Budget) -> int:
    """Channels that stay of so many when a share goes, rounded to the nearest step, at least one."""
    step = step_of(channels, budget.round_to)
    wanted = channels * (1 - min(ratio, budget.max_ratio))
    if wanted == channels:
        return channels
    least = channels * (1 - budget.max_ratio)
    keep = int(np.floor(wanted / step + 0.5)) * step
    while keep < least:
        keep += step
    return max(1, min(step, channels), min(keep, channels))


def _meet(costs: Costs, budget: Budget, pressure: Mapping[str, float]) -> Allocation:
    """Take steps in the order of the ratio at which they fall due, until the target is met."""
    assert budget.target is not None
    kind, share = budget.target
    names = list(costs.groups)
    start = {g: keep_of(n, budget.ratio_for[g], budget) if g in budget.ratio_for else n for g, n in costs.groups.items()}
    steps: list[tuple[float, int, int]] = []
    for k, g in enumerate(names):
        if g not in budget.ratio_for:
            steps += [(r / max(pressure[g], 1e-9), k, keep) for r, keep in _steps(costs.groups[g], budget)]
    steps.sort()

    def counts(taken: int) -> np.ndarray:
        kept = np.array([start[g] for g in names], np.int64)
        for _, k, keep in steps[:taken]:
            kept[k] = keep
        return kept

    low, high = 0, len(steps)
    if costs.share(kind, counts(high)) > share:
        left = costs.share(kind, counts(high))
        stopped = f"{kind} can only go down to {left:.1%}: the rest is frozen, excluded or at its largest ratio"
        return Allocation(_named(names, counts(high)), stopped)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if costs.share(kind, counts(middle)) <= share else (middle + 1, high)
    return Allocation(_named(names, counts(low)))


def _steps(channels: int, budget: Budget) -> list[tuple[float, int]]:
    """Ratios at which a group loses its next channels, and what it keeps then."""
    step = step_of(channels, budget.round_to)
    floor = max(1, min(step, channels), int(np.ceil(channels * (1 - budget.max_ratio) - 1e-9)))
    first = (channels - 1) // step * step
    return [(1 - keep / channels, keep) for keep in range(first, floor - 1, -step) if keep > 0]


def _named(names: list[str], counts: np.ndarray) -> dict[str, int]:
    return {g: int(n) for g, n in zip(names, counts, strict=True)}
