"""MSVFP on a network: layer by layer, the one whose trial loses least."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.budget import Budget, Costs, hand_back
from onnxprune.channels.dependencies import Group
from onnxprune.criteria.filters import Filters, Indices
from onnxprune.criteria.methods import Method
from onnxprune.criteria.msvfp import Msvfp, Step, Thinning, search
from onnxprune.errors import UsageError
from onnxprune.model.network import Network
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.retraining import trained_model
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Kept
from onnxprune.pipeline.trials import Loss, Trials, task_loss


@dataclass(frozen=True)
class Thinned:
    """What a layer by layer search has kept, what stopped it, and the trained network where it was trained."""

    kept: Mapping[str, np.ndarray]
    stopped_by: str = ""
    trained: Network | None = None
    remark: str = ""


def thin_layer_by_layer(
    run: Run,
    weights: Weights,
    method: Method,
    costs: Costs,
    budget: Budget,
    free: Sequence[Group],
    select: Callable[[Group, int], Indices],
) -> Thinned:
    """MSVFP over the whole network (`onnxprune.criteria.msvfp`), its trials by masking in one session.

    Args:
        run, weights: the network, its data, and the `retrain` of the request.
        method: the row of MSVFP with its options.
        costs, budget: what is asked for; of a ratio, the MACs that are left when each group loses it.
        free: groups that may lose channels; those with a ratio of their own lose it at once, before the search.
        select: which channels of such a group stay.

    Raises UsageError for missing data, for data or labels that do not fit, or a `retrain` that changes the network.
    """
    options = method.rule
    assert isinstance(options, Msvfp)
    if run.split.fit is None:
        raise UsageError("'msvfp' needs data to measure its losses on (--data); 'ncc' and 'l2' need weights only")
    task = _Task.of(costs, budget.as_target(costs), free, select)
    trials = Trials(run.original, run.split.fit.spread(options.images))
    loss, what = task_loss(trials)
    found, trials = task.search(run, trials, weights, loss, options)
    number, tried = sum(b.size for b in trials.batches), sum(s.trials for s in found.steps)
    remark = f"msvfp: {len(found.steps)} prunings chosen by {tried} trials on {number} samples; loss: {what}"
    kept = task.handed_back(found)
    trained = None if trials.study is run.original else trials.study.network
    return Thinned(task.complete(kept), "" if found.reached else task.stopped(kept, options.cap), trained, remark)


@dataclass(frozen=True)
class _Task:
    """What is asked for: which share of which cost is to be left, and what each group may keep."""

    costs: Costs
    kind: str
    share: float
    choices: Mapping[str, tuple[int, ...]]  # numbers of channels that a group may keep, from all of its own down
    fixed: Kept  # of groups that lose a share of their own at once
    groups: Sequence[Group]  # that are searched

    @classmethod
    def of(
        cls, costs: Costs, budget: Budget, free: Sequence[Group], select: Callable[[Group, int], Indices]
    ) -> "_Task":
        assert budget.target is not None
        choices = {g: budget.counts(g, n) for g, n in costs.groups.items()}
        fixed = {g.name: select(g, choices[g.name][0]) for g in free if choices[g.name][0] < len(g)}
        return cls(costs, *budget.target, choices, fixed, [g for g in free if len(choices[g.name]) > 1])

    @property
    def total(self) -> float:
        return self.costs.total(self.kind)

    def counts(self, kept: Kept) -> np.ndarray:
        found = [len(kept[g]) if g in kept else choice[0] for g, choice in self.choices.items()]
        return np.array(found, np.int64)

    def cost(self, kept: Kept) -> float:
        return self.costs.total(self.kind, self.counts(kept))

    def search(self, run: Run, trials: Trials, weights: Weights, loss: Loss, options: Msvfp) -> tuple[Thinning, Trials]:
        """Thin the network until the share is met; what it has come to, and trials of the network as it was trained."""
        train = run.request.retrain

        def by_user(pruned: Network) -> Network:
            return Network.of(train(pruned.proto())) if train else pruned

        def retrain(kept: Kept) -> dict[str, Filters]:
            """Train the network without what is gone, and take over its weights."""
            nonlocal trials
            study = trials.study
            trials = trials.with_network(trained_model(study.network, study.deps, {**self.fixed, **kept}, by_user))
            new = Weights(trials.study.network, study.deps)
            return {g.name: new.filters(g) for g in self.groups}

        def tell(step: Step) -> None:
            saved = round(self.total - step.cost)
            run.log.progress(f"msvfp: {step.group}", saved, round((1 - self.share) * self.total))

        found = search(
            {g.name: weights.filters(g) for g in self.groups},
            self.share * self.total * (1 + 1e-12),
            self.cost,
            lambda kept: trials.mean({**self.fixed, **kept}, loss),
            options,
            retrain=retrain if train else None,
            least={g.name: self.choices[g.name][-1] for g in self.groups},
            multiple={g.name: _multiple(self.choices[g.name]) for g in self.groups},
            fine=True,
            progress=tell,
        )
        return found, trials

    def handed_back(self, found: Thinning) -> Kept:
        """What is kept, with those channels back for which there is room below the target."""
        if not found.reached:
            return found.kept
        wanted = hand_back(self.costs, self.kind, self.share, self.counts(found.kept), list(self.choices.values()))
        return _restored(found.kept, found.steps, dict(zip(self.choices, wanted, strict=True)))

    def complete(self, kept: Kept) -> Kept:
        return {**self.fixed, **{g: k for g, k in kept.items() if len(k) < self.costs.groups[g]}}

    def stopped(self, kept: Kept, cap: float) -> str:
        """Why the target was not reached."""
        left = self.costs.told(self.kind, self.costs.share(self.kind, self.counts(kept)))
        return f"{self.kind} can only go down to {left} with a cap of {cap:g} on each group"


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
