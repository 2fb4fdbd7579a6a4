"""From a budget to the number of channels that each group keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.budget.cost import Costs
from onnxprune.budget.order import ALLOCATORS, Allocator, Choices, Losses, Step
from onnxprune.errors import UsageError

KINDS = ("macs", "params", "size")


@dataclass(frozen=True)
class Budget:
    """What is asked for: a share of channels to remove, or a share of a cost to keep.

    ratio: share of each group's channels to remove, 0 ≤ ratio < 1; under an allocation other than "uniform" groups lose
        other shares, which come to the same multiply-accumulates.
    target: (kind, share to keep), a kind of cost of `Costs`.
    ratio_for: share to remove for single groups; those are not changed to meet a target.
    max_ratio: no group loses more than this share.
    round_to: kept counts are multiples of this, where the group is wide enough; None chooses by width (`step_of`).
    widths: channels of groups before earlier cuts, where there were some: all shares are of these.
    """

    ratio: float | None = None
    target: tuple[str, float] | None = None
    ratio_for: Mapping[str, float] = field(default_factory=dict)
    max_ratio: float = 1.0
    round_to: int | None = None
    widths: Mapping[str, int] = field(default_factory=dict)

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

    def as_target(self, costs: Costs) -> "Budget":
        """The same budget as a share of a cost to keep: of a ratio, the MACs that are left when every group loses it.

        Groups without a part in the MACs lose the ratio itself.
        """
        if self.target is not None:
            return self
        left = costs.share("macs", [self.keep(g, n) for g, n in costs.groups.items()])
        idle = {g: self.ratio_of(g) for k, g in enumerate(costs.groups) if not costs.takes_part("macs", k)}
        return replace(self, ratio=None, target=("macs", left), ratio_for={**idle, **self.ratio_for})

    def counts(self, group: str, channels: int) -> tuple[int, ...]:
        """What a group may keep, from all of its channels down; one entry where it is not free to change."""
        if group in self.ratio_for:
            return (self.keep(group, channels),)
        width = self.widths.get(group, channels)
        step = step_of(width, self.round_to)
        floor = max(1, min(step, channels), int(np.ceil(width * (1 - self.max_ratio) - 1e-9)))
        first = (channels - 1) // step * step
        return channels, *(keep for keep in range(first, floor - 1, -step) if keep > 0)

    def ratio_of(self, group: str) -> float:
        """The share that a group loses."""
        return self.ratio_for.get(group, self.ratio or 0.0)

    def keep(self, group: str, channels: int) -> int:
        """Channels that stay of so many when a group loses its share, rounded to the nearest step, at least one."""
        width = self.widths.get(group, channels)
        step = step_of(width, self.round_to)
        wanted = width * (1 - min(self.ratio_of(group), self.max_ratio))
        if wanted == width:
            return channels
        least = width * (1 - self.max_ratio)
        keep = int(np.floor(wanted / step + 0.5)) * step
        while keep < least:
            keep += step
        return max(1, min(step, channels), min(keep, channels))


@dataclass(frozen=True)
class Allocation:
    """Kept channels of each group, and what kept the budget from being met, if anything did."""

    kept: Mapping[str, int]
    stopped_by: str = ""


def allocate(costs: Costs, budget: Budget, allocation: str = "uniform", losses: Losses | None = None) -> Allocation:
    """Share a budget out among the groups.

    Args:
        costs: cost functions over the groups that may be pruned and the others.
        budget: what is asked for; groups that must stay whole have a `ratio_for` of 0.
        allocation: a name of `ALLOCATORS`.
        losses: for each group, what it loses when its first 0, 1, 2 ... channels go: (channels + 1,).

    A target is met from the safe side: as soon as it is met, groups get channels back for as long as it stays met, so
    that what is left lies within one step of the finest group below it.

    Raises UsageError for an allocation that does not exist, or one that wants losses and has none.
    """
    allocator = allocator_of(allocation)
    if allocator.losses and losses is None:
        raise UsageError(f"allocation {allocation!r} needs the losses of each group")
    if budget.target is None and not allocator.losses:
        return Allocation({g: budget.keep(g, n) for g, n in costs.groups.items()})
    budget = budget.as_target(costs)
    choices = [budget.counts(g, n) for g, n in costs.groups.items()]
    assert budget.target is not None
    kind, share = budget.target
    start = np.array([c[0] for c in choices], np.int64)
    steps = list(allocator.order(costs, kind, choices, losses or {}))
    kept, met = _descend(costs, kind, share, start, steps)
    if not met:
        left = costs.told(kind, costs.share(kind, kept))
        stopped = f"{kind} can only go down to {left}: the rest is frozen, excluded or at its largest ratio"
        return Allocation(_named(costs, kept), stopped)
    kept = hand_back(costs, kind, share, kept, choices)
    if costs.total(kind, kept) < _limit(costs, kind, share) - _finest(costs, kind, kept, choices):
        finer, met = _descend(costs, kind, share, start, steps, choices)
        kept = hand_back(costs, kind, share, finer, choices) if met else kept
    return Allocation(_named(costs, kept))


def allocator_of(name: str) -> Allocator:
    """The allocator of that name.  Raises UsageError."""
    if name not in ALLOCATORS:
        raise UsageError(f"there is no allocation {name!r}; there are {', '.join(ALLOCATORS)}")
    return ALLOCATORS[name]


def step_of(channels: int, round_to: int | None) -> int:
    """Multiple that a kept count is rounded to.

    Tensor cores like multiples of 8, and lose more by an odd width than they win by a few channels less; narrow
    groups are rounded less, so that a small ratio does not become nothing.
    """
    if round_to is not None:
        return round_to if channels >= round_to else 1
    return 8 if channels >= 64 else 4 if channels >= 32 else 1


def hand_back(costs: Costs, kind: str, share: float, kept: np.ndarray, choices: Choices) -> np.ndarray:
    """Give channels back as long as the cost stays at most `share`: to the group that has lost the largest share first.

    Args:
        kept: (groups,) counts that meet the share; left as they are.
        choices: for each group, the counts that it may keep, from all channels down.
    """
    kept, limit, now = kept.copy(), _limit(costs, kind, share), costs.total(kind, kept)
    more = {g: sorted(c) for g, c in enumerate(choices)}  # ascending
    while True:
        fits = []
        for g, counts in more.items():
            above = next((c for c in counts if c > kept[g]), None)
            if above is not None and now + (change := costs.change(kind, kept, g, above)) <= limit:
                fits.append((kept[g] / counts[-1], g, above, change))
        if not fits:
            return kept
        _, g, above, change = min(fits)
        kept[g], now = above, now + change


def _descend(
    costs: Costs, kind: str, share: float, start: np.ndarray, steps: Sequence[Step], choices: Choices = ()
) -> tuple[np.ndarray, bool]:
    """Take steps until the target is met; whether it was.

    With `choices`, a group whose step would lead further below the target than the finest step of any group keeps what
    it has by then, and the others go on.
    """
    limit, kept, now = _limit(costs, kind, share), start.copy(), costs.total(kind, start)
    passed: set[int] = set()
    for group, count in steps:
        if now <= limit:
            break
        after = now + costs.change(kind, kept, group, count)
        if choices and after < limit and after < limit - _finest(costs, kind, kept, choices):
            passed.add(group)
        if group not in passed:
            kept[group], now = count, after
    return kept, now <= limit


def _finest(costs: Costs, kind: str, kept: np.ndarray, choices: Choices) -> float:
    """The least that the cost can fall by one step of a group."""
    below = ((g, next((c for c in counts if c < kept[g]), None)) for g, counts in enumerate(choices))
    falls = (-costs.change(kind, kept, g, count) for g, count in below if count is not None)
    return min((fall for fall in falls if fall > 0), default=0.0)


def _limit(costs: Costs, kind: str, share: float) -> float:
    return share * costs.total(kind) * (1 + 1e-12)


def _named(costs: Costs, counts: np.ndarray) -> dict[str, int]:
    return {g: int(n) for g, n in zip(costs.groups, counts, strict=True)}
