"""From a run to the channels that stay: which groups may be cut, how many channels each keeps, and which."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.budget import KINDS, Budget, Costs, allocate, allocator_of
from onnxprune.channels.dependencies import Group
from onnxprune.criteria.methods import Method
from onnxprune.criteria.methods import method as find_method
from onnxprune.criteria.msvfp import Msvfp
from onnxprune.criteria.ranking import Ranking, ranking
from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.calibration import SAMPLES, Samples, bounds
from onnxprune.pipeline.costs import costs_of
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.evidence import Evidence, evidence_of
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.group_losses import measured_curves, modelled_curves, with_readers_solved
from onnxprune.pipeline.layer_by_layer import thin_layer_by_layer
from onnxprune.pipeline.limits import require_comparable
from onnxprune.pipeline.repair import needs_samples
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.rotate import Rotated
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.whole_groups import check_patterns, ratios_of, whole_groups
from onnxprune.report.sensitivities import Sensitivity

REMEMBERED = 512  # channels up to which a group's ranking is kept for the next budget

LATE = 4.0  # how much more the losses of the last group count than those of the first, in another allocation
COARSE = 0.01  # share of a cost that may go beyond a target without a word


@dataclass(frozen=True)
class Chooser:
    """Everything that a run needs to choose channels, for one budget after the other.

    ratios: shares that some groups lose whatever the others do.
    notes: groups that stay whole, with the reason.
    energy: of the channels of groups that were rotated, (channels,).
    samples: that a repair solves layers on.
    rankings: of groups, as far as they have been asked for.
    late: how much more the losses of the last group count in the allocation than those of the first.
    """

    run: Run
    weights: Weights
    ratios: Mapping[str, float]
    notes: Mapping[str, str]
    evidence: Evidence
    energy: Mapping[str, np.ndarray]
    costs: Costs
    samples: Samples
    rankings: dict[str, Ranking] = field(default_factory=dict)
    late: float = 1.0

    @classmethod
    def of(cls, run: Run, samples: Samples, rotated: Rotated | None = None) -> "Chooser":
        """Find what the method of a run wants to know, which may take runs of the network.

        Args:
            samples: to solve layers on, for a method that does, and for a repair.
            rotated: how the network was rotated, where it was.

        Raises:
            UsageError: a pattern matches nothing, the method cannot do what is asked, or lacks the data that it needs.
            ModelError: the network cannot be run on the user's samples.
        """
        deps, request = run.original.deps, run.request
        weights, method, rotated = Weights(run.original.network, deps), method_of(request), rotated or Rotated()
        if run.teacher is None:  # an earlier cut may have left a group a single channel, so that it is none any more
            check_patterns(deps, request)
        ratios, notes = ratios_of(deps, request), whole_groups(weights, method, request, later=run.teacher is not None)
        costs = costs_of(deps, run.file.size)
        if run.teacher:
            uncut = costs_of(run.teacher.deps, 0)
            costs = replace(costs, uncut={kind: uncut.total(kind) for kind in ("macs", "params")})
        free = [g for g in deps.groups if g.name not in notes]
        evidence = evidence_of(run, method, weights, free, samples, rotated.ranked)
        return cls(run, weights, ratios, {**notes, **evidence.whole}, evidence, rotated.energy, costs, samples)

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.run.original.deps.groups

    @property
    def free(self) -> list[Group]:
        """Groups that may lose channels."""
        return [g for g in self.groups if g.name not in self.notes]

    def budget(self, target: tuple[str, float] | None) -> Budget:
        """The budget that leaves what must stay whole."""
        fixed = {**self.ratios, **dict.fromkeys(self.notes, 0.0)}
        request, uncut = self.run.request, self.run.teacher
        ratio = request.ratio if target is None else None
        widths = {g.name: len(g) for g in uncut.deps.groups} if uncut else {}
        return Budget(ratio, target, fixed, request.max_ratio, request.round_to, widths)

    def choose(self, target: tuple[str, float] | None) -> Choice:
        """The channels that stay under a target, or without one under the ratio of the request."""
        request = self.run.request
        if isinstance(self.evidence.method.rule, Msvfp):
            return self.by_search(target)
        allocator = allocator_of(request.allocation)
        losses = self._losses if allocator.losses else None
        allocation = allocate(self.costs, self.budget(target), request.allocation, losses)
        kept: dict[str, np.ndarray] = {}
        for k, group in enumerate(self.groups):
            self.run.log.progress(f"comparing the filters of {group.name}", k, len(self.groups))
            count = allocation.kept[group.name]
            if count < len(group):
                kept[group.name] = self.select(group, count)
        same = request.ratio if not allocator.losses and target is None else None
        asked = {g.name: None if g.name in self.notes else self.ratios.get(g.name, same) for g in self.groups}
        shown, remarks = self.sensitivity if losses else None, self.evidence.remarks
        if shown and shown.samples:
            remarks += (f"sensitivity: {shown.what}, {shown.samples} samples",)
        remarks += () if allocation.stopped_by else self._coarse(target, allocation.kept, losses)
        return Choice(kept, asked, self.notes, allocation.stopped_by, remarks=remarks, sensitivity=shown)

    def _coarse(
        self, target: tuple[str, float] | None, kept: Mapping[str, int], losses: Mapping[str, np.ndarray] | None
    ) -> tuple[str, ...]:
        """Why more has gone than was asked, where the steps of the groups make it more than a point."""
        kind, share = target or ("", 1.0)
        if share >= 1 or (left := self.costs.share(kind, list(kept.values()))) > share - COARSE:
            return ()
        single = replace(self.budget(target), round_to=1)
        finer = allocate(self.costs, single, self.run.request.allocation, losses).kept
        helps = self.costs.share(kind, list(finer.values())) > left + COARSE / 10
        advice = f"; {spelled('round_to', 1)} allows finer ones" if helps else ""
        ends, most = (self.costs.told(kind, x) for x in (left, share))
        return (f"{kind} end at {ends}: a step of any group back exceeds {most}{advice}",)

    def other(self) -> "Chooser | None":
        """One that spares the last groups more, as the first choice of some networks and not of others.

        Trial runs solve the layers that read a group again, the repair all layers behind them, too, which make up for
        more of what is lost early: by how much is told by a repair of either.  None where nothing is repaired or
        shared out by trial runs, where the amount is searched, and where a second repair would take long.
        """
        run, request = self.run, self.run.request
        planned = request.budget in ("ratio", "target") and all(x.cost in KINDS for x in request.target or ())
        shared = self.evidence.curves and allocator_of(request.allocation).losses == "sensitivity"
        if not (planned and shared and needs_samples(request.compensate)):
            return None
        return replace(self, late=LATE) if bounds(run.original)[1] >= 2 * SAMPLES else None

    def with_ratio(self, names: Iterable[str], ratio: float) -> "Chooser":
        """The same, but that these groups lose this share, unless the user has a word on them."""
        return replace(self, ratios={**dict.fromkeys(names, ratio), **self.ratios})

    def select(self, group: Group, count: int) -> np.ndarray:
        """The channels of a group that stay when so many do."""
        return self.ranking(group).keep(count)

    def ranking(self, group: Group) -> Ranking:
        """What the method makes of a group; in a basis that was made for the cut, channels go by their energy."""
        name = group.name
        if name in self.rankings:
            return self.rankings[name]
        if name in self.energy and name not in self.evidence.curves:
            return ranking(self.energy[name], self.energy[name])
        require_comparable(self.evidence.method, group)
        found = self.evidence.method.rank(self.weights.filters(group), self.evidence.shown.get(name))
        if len(group) <= REMEMBERED:
            self.rankings[name] = found
        return found

    def curves(self, groups: Sequence[Group]) -> Sensitivity:
        """What channels of each group are worth: measured where there is data, else modelled."""
        run = self.run
        if run.split.fit is not None:
            return measured_curves(run.original, run.split.fit, groups, self.select, run.log.progress)
        return modelled_curves(self.weights, groups, self.ranking, run.log.progress, self.energy)

    @cached_property
    def _known(self) -> tuple[Mapping[str, np.ndarray], Sensitivity | None]:
        """The losses that an allocation goes by, of groups that it may share out, and what is to be shown of them."""
        free = [g for g in self.free if g.name not in self.ratios]
        if allocator_of(self.run.request.allocation).losses == "ranking":
            return {g.name: self.ranking(g).curve for g in free}, None
        if self.evidence.curves:
            losses = {g.name: self.evidence.curves[g.name].loss for g in free}
            return losses, with_readers_solved(losses)
        found = self.curves(free)
        return found.losses(), found

    @property
    def sensitivity(self) -> Sensitivity | None:
        """What the budget is shared out by, where it is by that."""
        return self._known[1]

    @property
    def _losses(self) -> Mapping[str, np.ndarray]:
        """Of all groups; those that stay as they are lose nothing."""
        whole, known = {g.name: np.zeros(len(g) + 1) for g in self.groups}, self._known[0]
        weights = np.geomspace(1, self.late, len(known))
        return whole | {name: w * loss for w, (name, loss) in zip(weights, known.items(), strict=True)}

    def by_search(self, target: tuple[str, float] | None) -> Choice:
        if self.run.request.allocation != "uniform":
            raise UsageError("'msvfp' shares the budget out by itself; leave the allocation as it is")
        found = thin_layer_by_layer(
            self.run, self.weights, self.evidence.method, self.costs, self.budget(target), self.free, self.select
        )
        asked = {g.name: self.ratios.get(g.name) for g in self.groups}
        return Choice(found.kept, asked, self.notes, found.stopped_by, trained=found.trained, remarks=(found.remark,))

    def by_threshold(self, threshold: float) -> Choice:
        """What stays when each channel that goes is at least this similar to one that stays."""
        kept: dict[str, np.ndarray] = {}
        for k, group in enumerate(self.groups):
            self.run.log.progress(f"comparing the filters of {group.name}", k, len(self.groups))
            if group.name in self.notes:
                continue
            require_comparable(self.evidence.method, group)
            stay = self.evidence.method.select_by_threshold(self.weights.filters(group), threshold)
            if stay.size < len(group):
                kept[group.name] = stay
        return Choice(kept, dict.fromkeys((g.name for g in self.groups), None), self.notes)


def method_of(request: Request) -> Method:
    """The method with its options, seeded.  Raises UsageError."""
    found = find_method(request.method)
    seeded = {"seed": request.seed} if any(o.name == "seed" for o in found.options) else {}
    return found.with_options({**seeded, **request.method_options})
