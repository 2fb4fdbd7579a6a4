"""From a request to the channels that stay: which groups may be cut, how many channels each keeps, and which."""

import math
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.budget import Budget, Costs, allocate, allocator_of
from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.channels.experts import UNASKED, experts
from onnxprune.criteria.methods import Method
from onnxprune.criteria.methods import method as find_method
from onnxprune.criteria.msvfp import Msvfp
from onnxprune.criteria.ranking import Ranking
from onnxprune.criteria.rules import Obs
from onnxprune.errors import ModelError, UsageError, spelled
from onnxprune.pipeline import evidence
from onnxprune.pipeline.costs import costs_of
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.group_losses import curves, with_readers_solved
from onnxprune.pipeline.limits import require_comparable
from onnxprune.pipeline.progress import Progress, silent
from onnxprune.pipeline.repair import curves_of, importance
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.search import thin_layer_by_layer
from onnxprune.pipeline.trials import Lab
from onnxprune.report.sensitivities import Sensitivity
from onnxprune.surgery.recovery.loss_curves import LossCurve

__all__ = ["Choice", "Chooser", "Progress", "choose", "names_of", "silent"]

REMEMBERED = 512  # channels up to which a group's ranking is kept for the next budget

COARSE = 0.01  # share of a cost that may go beyond a target without a word


def choose(
    deps: Dependencies, weights: Weights, request: Request, size: int, progress: Progress = silent,
    lab: Lab | None = None,
) -> Choice:  # fmt: skip
    """Score, allocate and select.

    Args:
        deps: the analysis.
        weights: of the same model.
        request: what the user asks for.
        size: bytes of the model file, for a target on its size.
        progress: told of every group.
        lab: the network with data to try things out on, for what needs them.

    Raises:
        UsageError: a pattern matches nothing, the method cannot do what is asked, or lacks the data that it needs.
    """
    target = next(((t.cost, t.share) for t in request.target or () if t.share is not None), None)
    return Chooser(deps, weights, request, size, progress, lab).choose(target)


@dataclass
class Chooser:
    """Everything that one request needs to choose channels, for one budget after the other."""

    deps: Dependencies
    weights: Weights
    request: Request
    size: int
    progress: Progress = silent
    lab: Lab | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ratios = _ratios(self.deps, self.request)
        self.notes |= whole_groups(self.deps, self.request)
        self.method = method_of(self.request)
        self._rankings: dict[str, Ranking] = {}
        self._losses: Mapping[str, np.ndarray] | None = None
        self.sensitivity: Sensitivity | None = None  # that the budget was shared out by
        self._curves: Mapping[str, LossCurve] = {}
        for group in self.deps.groups:
            if group.name not in self.notes and (why := _unfit(self.weights, group)):
                self.notes[group.name] = why
        self.costs: Costs = costs_of(self.deps, self.size)
        self.evidence = self._evidence()
        self._note_what_lacks()

    @property
    def free(self) -> list[Group]:
        """Groups that may lose channels."""
        return [g for g in self.deps.groups if g.name not in self.notes]

    def budget(self, target: tuple[str, float] | None) -> Budget:
        """The budget that leaves what must stay whole."""
        fixed = {**self.ratios, **dict.fromkeys(self.notes, 0.0)}
        ratio = self.request.ratio if target is None else None
        return Budget(ratio, target, fixed, self.request.max_ratio, self.request.round_to)

    def choose(self, target: tuple[str, float] | None) -> Choice:
        """The channels that stay under a target, or without one under the ratio or threshold of the request."""
        if self.request.threshold is not None:
            return self._by_threshold()
        if isinstance(self.method.rule, Msvfp):
            return self._by_search(target)
        allocator = allocator_of(self.request.allocation)
        losses = self._losses_for(allocator.losses) if allocator.losses else None
        allocation = allocate(self.costs, self.budget(target), self.request.allocation, losses)
        kept: dict[str, np.ndarray] = {}
        for k, group in enumerate(self.deps.groups):
            self.progress(f"comparing the filters of {group.name}", k, len(self.deps.groups))
            count = allocation.kept[group.name]
            if count < len(group):
                kept[group.name] = self.select(group, count)
        same = self.request.ratio if not allocator.losses and target is None else None
        asked = {g.name: None if g.name in self.notes else self.ratios.get(g.name, same) for g in self.deps.groups}
        remarks = self._remarks() + (() if allocation.stopped_by else self._coarse(target, allocation.kept, losses))
        return Choice(kept, asked, self.notes, allocation.stopped_by, remarks=remarks, sensitivity=self.sensitivity)

    def _coarse(
        self, target: tuple[str, float] | None, kept: Mapping[str, int], losses: Mapping[str, np.ndarray] | None
    ) -> tuple[str, ...]:
        """Why more has gone than was asked, where the steps of the groups make it more than a point."""
        kind, share = target or ("", 1.0)
        if share >= 1 or (left := self.costs.share(kind, list(kept.values()))) > share - COARSE:
            return ()
        single = replace(self.budget(target), round_to=1)
        finer = allocate(self.costs, single, self.request.allocation, losses).kept
        helps = self.costs.share(kind, list(finer.values())) > left + COARSE / 10
        advice = f"; {spelled('round_to', 1)} allows finer ones" if helps else ""
        return (f"{kind} end at {left:.1%}: a step of any group back exceeds {share:.1%}{advice}",)

    def thinned(self, names: Iterable[str], ratio: float) -> "Chooser":
        """The same, but that these groups lose this share, unless the user has a word on them."""
        other = copy(self)
        other.ratios = dict.fromkeys(names, ratio) | self.ratios
        other._losses = None
        return other

    def select(self, group: Group, count: int) -> np.ndarray:
        """The channels of a group that stay when so many do."""
        return self.ranking(group).keep(count)

    def ranking(self, group: Group) -> Ranking:
        """What the method makes of a group."""
        if group.name in self._rankings:
            return self._rankings[group.name]
        require_comparable(self.method, group)
        found = self.method.rank(self.weights.filters(group), self.evidence.get(group.name))
        if len(group) <= REMEMBERED:
            self._rankings[group.name] = found
        return found

    def _remarks(self) -> tuple[str, ...]:
        return tuple(self.lab.remarks) if self.lab else ()

    def _evidence(self) -> Mapping[str, np.ndarray]:
        """What the method wants to know of the channels besides their weights."""
        if "images" not in self.method.needs:
            return {}
        if isinstance(self.method.rule, Obs):
            return self._repair_order(self.method.rule)
        if self.lab is None or self.lab.data is None:
            raise UsageError(
                f"'{self.method.name}' needs calibration images (--data); 'ncc' and 'l2' need weights only"
            )
        rule = self.method.rule
        found = evidence.gather(self.lab, self.free, rule.q, rule.images, self.progress)  # type: ignore[attr-defined]
        self.notes |= evidence.missing(self.free, found)
        return found

    def _repair_order(self, rule: Obs) -> Mapping[str, np.ndarray]:
        """The order in which channels leave best, found on the user's samples or on drawn ones."""
        if self.lab is None:
            raise UsageError("'obs' runs the network to find its order; 'ncc' and 'l2' need weights only")
        if not self.free or (self.request.ratio == 0 and not self.ratios):
            return {}
        losses = allocator_of(self.request.allocation).losses == "sensitivity"
        try:
            self._curves = curves_of(self.lab, self.free, rule.ridge, self.progress, losses=losses)
        except ModelError as error:
            if self.lab.data is not None:
                raise
            self.lab.remarks.append(f"channels are ranked by their weights (ncc) instead of 'obs': {error}")
            self.method = find_method("ncc")
        return importance(self._curves)

    def _note_what_lacks(self) -> None:
        """Groups that the method cannot rank stay whole; where it can rank none, that is a mistake of the user's.

        Raises UsageError.
        """
        if "scales" not in self.method.needs:
            return
        filters = {g.name: self.weights.filters(g) for g in self.free}
        lacking = {name: why for name, f in filters.items() if (why := self.method.lacks(f))}
        if lacking and len(lacking) == len(filters):
            raise UsageError(next(iter(lacking.values())))
        self.notes |= dict.fromkeys(lacking, "no unfused BatchNormalization stands behind it")

    def _losses_for(self, kind: str) -> Mapping[str, np.ndarray]:
        """The losses that an allocation goes by, found once."""
        if self._losses is None:
            free = [g for g in self.free if g.name not in self.ratios]
            if kind == "sensitivity" and self._curves:
                self._losses = {g.name: self._curves[g.name].loss for g in free}
                self.sensitivity = with_readers_solved(self._losses)
            elif kind == "ranking":
                self._losses = {g.name: self.ranking(g).curve for g in free}
            else:
                self.sensitivity = curves(self.lab, self.weights, free, self.select, self.ranking, self.progress)
                self._losses = self.sensitivity.losses()
        return {g.name: np.zeros(len(g) + 1) for g in self.deps.groups} | {**self._losses}

    def _by_search(self, target: tuple[str, float] | None) -> Choice:
        if self.request.allocation != "uniform":
            raise UsageError("'msvfp' shares the budget out by itself; leave the allocation as it is")
        if self.lab is None or self.lab.data is None:
            raise UsageError("'msvfp' needs data to measure its losses on (--data); 'ncc' and 'l2' need weights only")
        found = thin_layer_by_layer(
            self.lab, self.method, self.costs, self.budget(target), self.free, self.select, self.progress
        )
        asked = {g.name: self.ratios.get(g.name) for g in self.deps.groups}
        remarks = (*self._remarks(), found.remark)
        return Choice(found.kept, asked, self.notes, found.stopped_by, trained=found.trained, remarks=remarks)

    def _by_threshold(self) -> Choice:
        assert self.request.threshold is not None
        kept: dict[str, np.ndarray] = {}
        for k, group in enumerate(self.deps.groups):
            self.progress(f"comparing the filters of {group.name}", k, len(self.deps.groups))
            if group.name in self.notes:
                continue
            require_comparable(self.method, group)
            stay = self.method.select_by_threshold(self.weights.filters(group), self.request.threshold)
            if stay.size < len(group):
                kept[group.name] = stay
        return Choice(kept, dict.fromkeys((g.name for g in self.deps.groups), None), self.notes)


def method_of(request: Request) -> Method:
    """The method with its options, seeded.  Raises UsageError."""
    found = find_method(request.method)
    seeded = {"seed": request.seed} if any(o.name == "seed" for o in found.options) else {}
    return found.with_options({**seeded, **request.method_options})


def names_of(deps: Dependencies, group: Group) -> set[str]:
    """What a pattern may call a group: its name, the weights that write it, and their nodes."""
    return {group.name} | {s.source for s in group.writers} | {deps.nodes[s.node].label for s in group.writers}


def _matching(deps: Dependencies, pattern: str, option: str) -> list[str]:
    found = [g.name for g in deps.groups if any(fnmatchcase(name, pattern) for name in names_of(deps, g))]
    if not found:
        wanted = f"{spelled(option)} {pattern!r}"
        raise UsageError(f"{wanted} matches no layer that can be cut; `onnxprune inspect` lists them")
    return found


def _ratios(deps: Dependencies, request: Request) -> dict[str, float]:
    return {
        name: ratio for pattern, ratio in request.ratio_for.items() for name in _matching(deps, pattern, "ratio_for")
    }


def whole_groups(deps: Dependencies, request: Request) -> dict[str, str]:
    """Groups that the user wants whole."""
    notes = {name: f"excluded by {p!r}" for p in request.exclude for name in _matching(deps, p, "exclude")}
    if request.include:
        included = {name for p in request.include for name in _matching(deps, p, "include")}
        notes |= {g.name: "not included" for g in deps.groups if g.name not in included}
    return {name: UNASKED for name in experts(deps) if name not in _ratios(deps, request)} | notes


def _unfit(weights: Weights, group: Group) -> str | None:
    """Why the filters of a group cannot be compared at all; None where they can."""
    if any(not math.prod(weights.deps.sources[slot.source].shape) for slot in group.writers):
        return "its filters have no weights"
    try:
        finite = bool(np.isfinite(weights.filters(group).energies).all())
    except ModelError:
        finite = False
    return None if finite else "its weights are not finite"
