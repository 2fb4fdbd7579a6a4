"""The largest pruning whose measured drop stays within what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.errors import CheckFailed, spelled
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.repair import repaired_figure
from onnxprune.pipeline.trials import Trials
from onnxprune.report.summary import Probe, Search
from onnxprune.runtime.accuracy import Metric

KIND = "macs"  # the cost whose share is searched
RESOLUTION = 0.01  # of the share, at which the search ends: seven evaluations


def largest_cut(evaluate: Callable[[float], float], least: float, limit: float, resolution: float) -> list[Probe]:
    """Bisect the share of a cost that is left, down to the smallest at which the figure is still at least `limit`.

    Args:
        evaluate: from a share to the figure of merit of the network pruned to it.
        least: the smallest share that can be reached.
        limit: what the figure must be at least.
        resolution: width of the interval at which the search ends.

    Gives all evaluations in their order; the smallest share that holds is the outcome, and none that holds means that
    even the smallest cut loses too much.  The figure is taken to fall as the share does.
    """
    probes: list[Probe] = []

    def holds(share: float) -> bool:
        figure = evaluate(share)
        probes.append(Probe(share, (figure,), figure >= limit))
        return probes[-1].holds

    bisected(holds, least, 1.0, resolution)
    if not probes:
        holds(least)  # too near to the whole for a search
    return probes


def bisected(holds: Callable[[float], bool], fails: float, edge: float, resolution: float) -> float:
    """The last number that holds on the way from `edge`, which is taken to, towards one that is taken to fail."""
    while abs(edge - fails) > resolution:
        middle = (fails + edge) / 2
        fails, edge = (fails, middle) if holds(middle) else (middle, edge)
    return edge


def largest_choice(chooser: Chooser) -> Choice:
    """The choice of least MACs whose figure of merit falls by at most `max_drop`, on the samples of the search.

    The figure is that of the network as it is repaired; by masking, where nothing is.

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
    found: dict[float, Choice] = {}

    def evaluate(share: float) -> float:
        run.log.progress(f"largest cut: {share:.1%} of the {KIND}", len(found), 0)
        found[share] = chooser.choose((KIND, share))
        return figure(found[share].kept, metric)

    probes = largest_cut(evaluate, least_share(chooser), before - drop, RESOLUTION)
    holding = [p.share for p in probes if p.holds]
    if not holding:
        smallest = max(probes, key=lambda p: p.share)
        raise CheckFailed(
            f"even {1 - smallest.share:.1%} fewer {KIND} cost more than {spelled('max_drop')} allows: {metric.name} "
            f"falls from {_text(metric, before)} to {_text(metric, *smallest.figures)}; nothing was written"
        )
    choice = found[min(holding)]
    limits = (f"{metric.name} >= {before - drop:.6g}",)
    search = Search(KIND, (metric.name,), limits, tuple(probes), (before - drop,), min(holding))
    return replace(choice, remarks=(*choice.remarks, described(probes, metric, before, drop)), search=search)


def least_share(chooser: Chooser) -> float:
    """What is left of the cost when every group keeps as little as it may."""
    budget, costs = chooser.budget((KIND, 1.0)), chooser.costs
    return costs.share(KIND, np.array([budget.counts(g, n)[-1] for g, n in costs.groups.items()]))


def described(probes: Sequence[Probe], metric: Metric, before: float, drop: float) -> str:
    """The search in one line."""
    steps = ", ".join(f"{p.share:.1%} → {_text(metric, *p.figures)} {'✓' if p.holds else '✗'}" for p in probes)
    limit = _text(metric, before - drop)
    return f"search for the largest cut with {metric.name} ≥ {limit} (before: {_text(metric, before)}): {steps}"


def _text(metric: Metric, value: float) -> str:
    return f"{value:.2%}" if metric.unit == "share" else f"{value:.4g} {metric.unit}".strip()
