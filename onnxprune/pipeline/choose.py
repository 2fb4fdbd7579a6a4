"""From a request to the channels that stay: which groups may be cut, how many channels each keeps, and which."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.budget import Budget, allocate
from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.criteria.methods import Method
from onnxprune.criteria.methods import method as find_method
from onnxprune.errors import ModelError, UsageError
from onnxprune.pipeline.costs import costs_of
from onnxprune.pipeline.filters import Weights
from onnxprune.pipeline.request import Request

Progress = Callable[[str, int, int], None]  # what is done, how far, of how much


def silent(what: str, done: int, of: int) -> None:
    """A progress that shows nothing."""


@dataclass(frozen=True)
class Choice:
    """Channels that stay of each group, what was asked of it, and why some stay whole."""

    kept: Mapping[str, np.ndarray]
    asked: Mapping[str, float | None]
    notes: Mapping[str, str]
    stopped_by: str = ""
    origin: str = ""  # where the channels come from, when not from the request


def choose(deps: Dependencies, weights: Weights, request: Request, size: int, progress: Progress = silent) -> Choice:
    """Score, allocate and select.

    Args:
        deps: the analysis.
        weights: of the same model.
        request: what the user asks for.
        size: bytes of the model file, for a target on its size.
        progress: told of every group.

    Raises:
        UsageError: a pattern matches nothing, or the method cannot do what is asked.
    """
    ratios, notes = _ratios(deps, request), _whole(deps, request)
    method = _method(request)
    for group in deps.groups:
        if group.name not in notes and not _finite(weights, group):
            notes[group.name] = "its weights are not finite"
    fixed = {**ratios, **dict.fromkeys(notes, 0.0)}
    if request.threshold is not None:
        return _by_threshold(deps, weights, request, method, notes, progress)
    budget = Budget(request.ratio, request.target_share(), fixed, request.max_ratio, request.round_to)
    allocation = allocate(costs_of(deps, size), budget)
    kept: dict[str, np.ndarray] = {}
    for k, group in enumerate(deps.groups):
        progress(f"comparing the filters of {group.name}", k, len(deps.groups))
        count = allocation.kept[group.name]
        if count < len(group):
            kept[group.name] = method.select(weights.filters(group), count)
    asked = {g.name: None if g.name in notes else ratios.get(g.name, request.ratio) for g in deps.groups}
    return Choice(kept, asked, notes, allocation.stopped_by)


def _method(request: Request) -> Method:
    found = find_method(request.method)
    seeded = {"seed": request.seed} if any(o.name == "seed" for o in found.options) else {}
    return found.with_options({**seeded, **request.method_options})


def _by_threshold(
    deps: Dependencies, weights: Weights, request: Request, method: Method, notes: Mapping[str, str], progress: Progress
) -> Choice:
    assert request.threshold is not None
    kept: dict[str, np.ndarray] = {}
    for k, group in enumerate(deps.groups):
        progress(f"comparing the filters of {group.name}", k, len(deps.groups))
        if group.name in notes:
            continue
        stay = method.select_by_threshold(weights.filters(group), request.threshold)
        if stay.size < len(group):
            kept[group.name] = stay
    return Choice(kept, dict.fromkeys((g.name for g in deps.groups), None), notes)


def names_of(deps: Dependencies, group: Group) -> set[str]:
    """What a pattern may call a group: its name, the weights that write it, and their nodes."""
    return {group.name} | {s.source for s in group.writers} | {deps.nodes[s.node].label for s in group.writers}


def _matching(deps: Dependencies, pattern: str, option: str) -> list[str]:
    found = [g.name for g in deps.groups if any(fnmatchcase(name, pattern) for name in names_of(deps, g))]
    if not found:
        raise UsageError(f"{option} {pattern!r} matches no layer that can be cut; `onnxprune inspect` lists them")
    return found


def _ratios(deps: Dependencies, request: Request) -> dict[str, float]:
    return {
        name: ratio for pattern, ratio in request.ratio_for.items() for name in _matching(deps, pattern, "ratio_for")
    }


def _whole(deps: Dependencies, request: Request) -> dict[str, str]:
    """Groups that the user wants whole."""
    notes = {name: f"excluded by {p!r}" for p in request.exclude for name in _matching(deps, p, "exclude")}
    if request.include:
        included = {name for p in request.include for name in _matching(deps, p, "include")}
        notes |= {g.name: "not included" for g in deps.groups if g.name not in included}
    return notes


def _finite(weights: Weights, group: Group) -> bool:
    try:
        return bool(np.isfinite(weights.filters(group).energies).all())
    except ModelError:
        return False
