"""How many channels each group keeps when what they did is repaired: the cheapest mix of measured losses."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxprune.budget.allocate import Allocation, Budget, allocate
from onnxprune.budget.cost import Costs


def allocate_by_loss(costs: Costs, budget: Budget, losses: Mapping[str, np.ndarray]) -> Allocation:
    """Meet a target by removing channels where the repaired network loses least per unit of cost.

    Args:
        costs: cost functions over the groups.
        budget: what is asked for; groups with a `ratio_for` are not changed to meet the target.
        losses: for each group that may be cut, (channels,) loss when 0, 1, ... of its channels are gone; a group
            without losses stays whole.
    """
    whole = {g: 0.0 for g in costs.groups if g not in losses}
    return allocate(costs, replace(budget, ratio_for={**whole, **budget.ratio_for}), "sensitivity", losses)
