"""Bisection, for what cannot be planned: the largest pruning whose drop is allowed, and what a run tells of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from onnxprune.errors import CheckFailed, spelled
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.repair import repaired_figure
from onnxprune.pipeline.trials import Trials
from onnxprune.report.summary import Probe, Search

KIND = "macs"  # the cost whose share is searched
RESOLUTION = 0.01  # of the share, at which the search for a drop ends: seven evaluations
T = TypeVar("T")


@dataclass
class Bisection(Generic[T]):
    """The numbers that a search tries.

    attempt: what a number leads to, and the probe that says whether that holds.
    tried: what the numbers so far have led to, in their order.
    """

    attempt: Callable[[float], tuple[T, Probe]]
    tried: dict[float, tuple[T, Probe]] = field(default_factory=dict)

    def holds(self, number: float) -> bool:
        """Whether a number does; each is tried once."""
        if number not in self.tried:
            self.tried[number] = self.attempt(number)
        return self.tried[number][1].holds

    def last(self, fails: float, edge: float, resolution: float) -> float:
        """The last number that holds on the way from `edge`, which is taken to, towards one that is taken to fail."""
        while abs(edge - fails) > resolution:
            middle = (fails + edge) / 2
            fails, edge = (fails, middle) if self.holds(middle) else (middle, edge)
        return edge

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Those of the numbers so far, where steps of channels make some equal only once."""
        return tuple(dict.fromkeys(probe for _, probe in self.tried.values()))


def recorded(choice: Choice, aim: str, search: Search, *shown: Callable[[float], str]) -> Choice:
    """The choice with the search that led to it, and a line: what it was for, its trials, and figures as these show."""
    steps = (
        f"{p.share:.1%} → {' and '.join(show(f) for show, f in zip(shown, p.figures, strict=True))} {'✗✓'[p.holds]}"
        for p in search.probes
    )
    return replace(choice, remarks=(*choice.remarks, f"search for {aim}: {', '.join(steps)}"), search=search)


def least_share(chooser: Chooser) -> float:
    """What is left of the cost when every group keeps as little as it may."""
    budget, costs = chooser.budget((KIND, 1.0)), chooser.costs
    return costs.share(KIND, np.array([budget.counts(g, n)[-1] for g, n in costs.groups.items()]))


def largest_choice(chooser: Chooser) -> Choice:
    """The choice of least MACs whose figure of merit falls by at most `max_drop`, on the samples of the search.

    The figure is that of the network as it is repaired; by masking, where nothing is.  It is taken to fall as the MACs
    do.

    Raises CheckFailed where even the smallest cut that the search tries loses more.
    """
    run, drop = chooser.run, chooser.run.request.max_drop
    metric, held_out = run.metrics[0], run.split.search
    assert held_out is not None
    assert drop is not None
    trials = Trials(run.original, held_out)
    bare = run.request.compensate == "none"
    figure = trials.figure if bare else repaired_figure(run.original, held_out, chooser.samples)
    before = trials.figure({}, metric)
    least, limit = least_share(chooser), before - drop

    def attempt(share: float) -> tuple[Choice, Probe]:
        run.log.progress(f"largest cut: {share:.1%} of the {KIND}", len(cuts.tried), 0)
        choice = chooser.choose((KIND, share))
        value = figure(choice.kept, metric)
        return choice, Probe(share, (value,), value >= limit)

    def text(value: float) -> str:
        return f"{value:.2%}" if metric.unit == "share" else f"{value:.4g} {metric.unit}".strip()

    cuts = Bisection(attempt)
    chosen = cuts.last(least, 1.0, RESOLUTION)
    if not cuts.tried and cuts.holds(least):  # too near to the whole for a search
        chosen = least
    if chosen not in cuts.tried:
        smallest = max(cuts.probes, key=lambda p: p.share)
        raise CheckFailed(
            f"even {1 - smallest.share:.1%} fewer {KIND} cost more than {spelled('max_drop')} allows: {metric.name} "
            f"falls from {text(before)} to {text(*smallest.figures)}; nothing was written"
        )
    aim = f"the largest cut with {metric.name} ≥ {text(limit)} (before: {text(before)})"
    search = Search(KIND, (metric.name,), (f"{metric.name} >= {limit:.6g}",), cuts.probes, (limit,), chosen)
    return recorded(cuts.tried[chosen][0], aim, search, text)
