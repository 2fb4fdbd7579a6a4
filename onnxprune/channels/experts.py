"""Experts: weights of several layers in one tensor, among which a softmax chooses."""

from collections.abc import Iterator

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Slot
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.roles import Role

UNASKED = "experts, which go only where ratio_for names them"
WEIGHS = Role.READ | Role.WRITE


def experts(deps: Dependencies) -> Iterator[str]:
    """Names of groups of experts that could go since statistics over them are thawed.

    A norm whose statistics are taken over fewer channels is nearly the same; without some of its experts a network
    lacks what these alone have learned.
    """
    chosen = np.unique(np.concatenate([deps.component[x] for x in deps.thawed.values()] or [np.zeros(0, int)]))
    for group in deps.groups:
        if np.isin(group.components, chosen).any() and any(_picks_layers(deps, slot) for slot in group.slots):
            yield group.name


def _picks_layers(deps: Dependencies, slot: Slot) -> bool:
    """Whether the positions of an axis are layers: others of the tensor read and write, or are filters of a bank."""
    for use in deps.uses_at.get(slot.node, ()):
        if use.source == slot.source:
            others = [x for axis, x in enumerate(use.axes) if axis != slot.axis and not is_fixed(x)]
            banks = any(len(deps.factors(x)) > 1 for x in others)
            return banks or (not slot.role & WEIGHS and any((deps.roles[x] & WEIGHS).any() for x in others))
    return False
