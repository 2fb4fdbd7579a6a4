"""Which groups the patterns of a request name, and which stay whole."""

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Group, Slot
from onnxprune.criteria.methods import Method
from onnxprune.errors import ModelError, UsageError, spelled
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.roles import WEIGHS
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.request import Request

UNASKED = "experts, which go only where ratio_for names them"


def experts(deps: Dependencies) -> Iterator[str]:
    """Names of groups of experts that could go since statistics over them are thawed.

    Experts are weights of several layers in one tensor, among which a softmax chooses.  A norm whose statistics are
    taken over fewer channels is nearly the same; without some of its experts a network lacks what these alone have
    learned.
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


def _matching(deps: Dependencies, pattern: str) -> Iterator[str]:
    """Groups that have the name, or of which a weight that writes them or its node has it."""
    for group in deps.groups:
        names = {group.name} | {s.source for s in group.writers} | {deps.nodes[s.node].label for s in group.writers}
        if any(fnmatchcase(name, pattern) for name in names):
            yield group.name


def check_patterns(deps: Dependencies, request: Request) -> None:
    """Raise UsageError for a pattern that matches no group."""
    for option in ("ratio_for", "exclude", "include"):
        for pattern in getattr(request, option):
            if not any(_matching(deps, pattern)):
                wanted = f"{spelled(option)} {pattern!r}"
                raise UsageError(f"{wanted} matches no layer that can be cut; `onnxprune inspect` lists them")


def ratios_of(deps: Dependencies, request: Request) -> dict[str, float]:
    """Shares that some groups lose whatever the others do."""
    return {name: ratio for pattern, ratio in request.ratio_for.items() for name in _matching(deps, pattern)}


def excluded(deps: Dependencies, request: Request) -> dict[str, str]:
    """Groups that the user wants whole, with the reason."""
    notes = {name: f"excluded by {p!r}" for p in request.exclude for name in _matching(deps, p)}
    if request.include:
        included = {name for p in request.include for name in _matching(deps, p)}
        notes |= {g.name: "not included" for g in deps.groups if g.name not in included}
    return {name: UNASKED for name in experts(deps) if name not in ratios_of(deps, request)} | notes


def whole_groups(weights: Weights, method: Method, request: Request, *, later: bool = False) -> dict[str, str]:
    """Groups that lose nothing, with the reason: the user's word, or weights that leave the method nothing to rank by.

    Args:
        later: whether there were cuts before, which may have left no group what the method looks at.

    Raises UsageError where that is so without one.
    """
    groups = weights.deps.groups
    found = excluded(weights.deps, request)
    found |= {g.name: why for g in groups if g.name not in found and (why := _unfit(weights, g))}
    if "scales" not in method.needs:
        return found
    free = [g for g in groups if g.name not in found]
    lacking = {g.name: why for g in free if (why := method.lacks(weights.filters(g)))}
    if lacking and len(lacking) == len(free) and not later:
        raise UsageError(next(iter(lacking.values())))
    return found | dict.fromkeys(lacking, "no unfused BatchNormalization stands behind it")


def _unfit(weights: Weights, group: Group) -> str | None:
    """Why the filters of a group cannot be compared at all; None where they can."""
    if any(not math.prod(weights.deps.sources[slot.source].shape) for slot in group.writers):
        return "its filters have no weights"
    try:
        finite = bool(np.isfinite(weights.filters(group).energies).all())
    except ModelError:
        finite = False
    return None if finite else "its weights are not finite"
