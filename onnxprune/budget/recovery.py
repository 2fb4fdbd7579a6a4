"""How many channels each group keeps when what they did is repaired: the cheapest mix of measured losses."""

from collections.abc import Mapping

import numpy as np

from onnxprune.budget.allocate import Allocation, Budget, _named, _steps, keep_of
from onnxprune.budget.cost import Costs


def allocate_by_loss(costs: Costs, budget: Budget, losses: Mapping[str, np.ndarray]) -> Allocation:
    """Meet a target by removing channels where the repaired network loses least per unit of cost.

    Args:
        costs: cost functions over the groups.
        budget: what is asked for; groups with a `ratio_for` are not changed to meet the target.
        losses: for each group that may be cut, (channels,) loss when 0, 1, ... of its channels are gone; a group
            without losses stays whole.

    The steps of a group are those of its lower convex hull, so that the mix is optimal for a sum of losses at each
    cost that the steps reach.
    """
    assert budget.target is not None
    kind, share = budget.target
    names = list(costs.groups)
    start = [keep_of(n, budget.ratio_for[g], budget) if g in budget.ratio_for else n for g, n in costs.groups.items()]
    steps: list[tuple[float, int, int]] = []
    for k, g in enumerate(names):
        if g in losses and g not in budget.ratio_for:
            unit = _unit(costs, kind, start, k)
            keeps = [start[k], *(keep for _, keep in _steps(costs.groups[g], budget))]
            steps += [(slope / unit, k, keep) for slope, keep in _hull(keeps, losses[g])] if unit > 0 else []
    steps.sort(key=lambda s: s[0])
    kept = np.array(start, np.int64)
    for _, k, keep in steps:
        if costs.share(kind, kept) <= share:
            break
        kept[k] = min(kept[k], keep)
    left = costs.share(kind, kept)
    stopped = f"{kind} can only go down to {left:.1%}: the rest is frozen, excluded or at its largest ratio"
    return Allocation(_named(names, kept), stopped if left > share else "")


def _unit(costs: Costs, kind: str, kept: list[int], group: int) -> float:
    """What one channel of a group costs while the others are as they are."""
    one = np.array(kept, np.int64)
    one[group] -= 1
    return costs.total(kind, kept) - costs.total(kind, one)


def _hull(keeps: list[int], loss: np.ndarray) -> list[tuple[float, int]]:
    """Steps (loss per channel, channels kept after it) along the lower convex hull of a loss curve."""
    gone = [keeps[0] - k for k in keeps]
    points = [(g, float(loss[min(g, len(loss) - 1)])) for g in gone]
    hull: list[tuple[int, float]] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-1][0]) >= (y - hull[-1][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return [
        ((b[1] - a[1]) / (b[0] - a[0]), keeps[0] - b[0]) for a, b in zip(hull, hull[1:], strict=False) if b[0] > a[0]
    ]
