"""MSVFP on a network: layer by layer, the one whose trial loses least."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.budget import Budget, Costs, hand_back
from onnxprune.channels.dependencies import Group
from onnxprune.criteria.filters import Filters, Indices
from onnxprune.criteria.methods import Method
from onnxprune.criteria.msvfp import Msvfp, Step
from onnxprune.criteria.msvfp import search as search_filters
from onnxprune.pipeline.losses import task_loss
from onnxprune.pipeline.progress import Progress
from onnxprune.pipeline.training import trained_model
from onnxprune.pipeline.trials import Kept, Lab, Trials


@dataclass(frozen=True)
class Thinned:
    """What a layer by layer search has kept, what stopped it, and the trained network where it was trained."""

    kept: Mapping[str, np.ndarray]
    stopped_by: str = ""
    trained: onnx.ModelProto | None = None
    remark: str = ""


def thin_layer_by_layer(
    lab: Lab,
    method: Method,
    costs: Costs,
    budget: Budget,
    free: Sequence[Group],
    select: Callable[[Group, int], Indices],
    progress: Progress,
) -> Thinned:
    """MSVFP over the whole network (`onnxprune.criteria.msvfp`), its trials by masking in one session.

    Args:
        lab: the network, its data, and the `retrain` of the request; its model and weights are replaced by training.
        method: the row of MSVFP with its options.
        costs, budget: what is asked for; a ratio is taken over the channels of all free groups together.
        free: groups that may lose channels; those with a ratio of their own lose it at once, before the search.
        select: which channels of such a group stay.

    Raises UsageError for data or labels that do not fit, or a `retrain` that changes the network.
    """
    options = method.rule
    assert isinstance(options, Msvfp)
    budget = budget.as_target(costs)
    assert budget.target is not None
    kind, share = budget.target
    names = list(costs.groups)
    choices = dict(zip(names, (budget.counts(g, n) for g, n in costs.groups.items()), strict=True))
    fixed = {g.name: select(g, choices[g.name][0]) for g in free if choices[g.name][0] < len(g)}
    groups = [g for g in free if len(choices[g.name]) > 1]
    samples = lab.samples(options.images)
    state = _State(lab, Trials(lab, samples), fixed, lab.model)

    def counts(kept: Kept) -> np.ndarray:
        return np.array([len(kept[g]) if g in kept else choices[g][0] for g in names], np.int64)

    def tell(step: Step) -> None:
        progress(f"msvfp: {step.group}", round(costs.total(kind) - step.cost), round((1 - share) * costs.total(kind)))

    loss, what = task_loss(state.trials)
    found = search_filters(
        {g.name: lab.weights.filters(g) for g in groups},
        share * costs.total(kind) * (1 + 1e-12),
        lambda kept: costs.total(kind, counts(kept)),
        lambda kept: state.trials.mean({**fixed, **kept}, loss),
        options,
        retrain=None if lab.request.retrain is None else lambda kept: state.retrain(kept, groups),
        least={g.name: choices[g.name][-1] for g in groups},
        multiple={g.name: _multiple(choices[g.name]) for g in groups},
        fine=True,
        progress=tell,
    )
    kept = found.kept
    if found.reached:
        wanted = hand_back(costs, kind, share, counts(kept), list(choices.values()))
        kept = _restored(kept, found.steps, dict(zip(names, wanted, strict=True)))
    number = sum(b.size for b in state.trials.batches)
    trials = sum(s.trials for s in found.steps)
    remark = f"msvfp: {len(found.steps)} prunings chosen by {trials} trials on {number} samples; loss: {what}"
    left = costs.share(kind, counts(kept))
    stopped = (
        "" if found.reached else f"{kind} can only go down to {left:.1%} with a cap of {options.cap:g} on each group"
    )
    complete = {**fixed, **{g: k for g, k in kept.items() if len(k) < costs.groups[g]}}
    return Thinned(complete, stopped, lab.model if lab.model is not state.original else None, remark)


@dataclass
class _State:
    """The network as training leaves it, and the session that tries things out on it."""

    lab: Lab
    trials: Trials
    fixed: Kept
    original: onnx.ModelProto

    def retrain(self, kept: Kept, groups: Sequence[Group]) -> dict[str, Filters]:
        """Train the network without what is gone, and take over its weights."""
        assert self.lab.request.retrain is not None
        self.lab.model = trained_model(self.lab.model, self.lab.deps, {**self.fixed, **kept}, self.lab.request.retrain)
        self.lab.weights = type(self.lab.weights)(self.lab.model, self.lab.deps)
        self.trials.reload()
        return {g.name: self.lab.weights.filters(g) for g in groups}


def _multiple(counts: Sequence[int]) -> int:
    """The step between the counts that a group may keep."""
    return counts[1] - counts[2] if len(counts) > 2 else 1


def _restored(kept: Kept, steps: Sequence[Step], wanted: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Give the channels back that went last, until each group has as many as are wanted."""
    found = {g: np.asarray(k) for g, k in kept.items()}
    for step in reversed(steps):
        missing = wanted[step.group] - len(found[step.group])
        if missing > 0:
            back = step.removed[::-1][:missing]
            found[step.group] = np.sort(np.concatenate([found[step.group], back]))
    return found
