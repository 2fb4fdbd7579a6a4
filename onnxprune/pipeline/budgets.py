"""A row for each budget and for each cost, and one search for what cannot be planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.criteria.msvfp import Msvfp
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.costs import alive_beyond, peak_activations
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.measure import timed
from onnxprune.pipeline.outcome import written_bytes
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.search import KIND, Bisection, largest_choice, least_share, recorded
from onnxprune.pipeline.targets import Limit
from onnxprune.report import words
from onnxprune.report.summary import Probe, Search

Pair = tuple[float, float]  # what a cost is, before and after
ROUNDS = 8  # one or two are enough: names and metadata, which the costs do not know, hardly depend on the choice
FINEST = 1 / 128  # share of the channels at a peak, at which a search ends


@dataclass(frozen=True)
class Cost:
    """One cost.

    measure: what it is before and after a choice.
    choose: the largest choice within a limit on it alone.
    shown: an amount in words.
    figure: the field of `report.summary.Figures` that holds it.
    resolution: of the share of the MACs, at which a search ends.
    """

    measure: Callable[[Chooser, Limit, Choice], Pair]
    choose: Callable[[Chooser, Limit], Choice]
    shown: Callable[[float], str]
    figure: str
    resolution: float = 0.01


def cost_of(chooser: Chooser, limit: Limit, choice: Choice) -> Pair:
    """The cost of a limit, before and after."""
    return COSTS[limit.cost].measure(chooser, limit, choice)


def holds(chooser: Chooser, limit: Limit, choice: Choice) -> bool:
    """Whether a choice is within a limit."""
    before, after = cost_of(chooser, limit, choice)
    return after <= limit.most(before) * (1 + 1e-12)


def within_limits(chooser: Chooser, limits: Sequence[Limit]) -> Choice:
    """The choice that leaves most within all limits; where even the smallest network exceeds one, that network.

    What is the largest choice for one limit and meets the others, too, is the outcome; else what is so once the layers
    at the peak of the activations are thin enough; else the MACs are searched.
    """
    thin = {limit: found for limit in limits if limit.cost == "activations" and (found := thinned(chooser, limit))}
    alone = [thin[x].choice if x in thin else COSTS[x.cost].choose(chooser, x) for x in limits]
    fit = [c for c in alone if not c.stopped_by and all(holds(chooser, limit, c) for limit in limits)]
    if fit or len(limits) == 1:
        deps = chooser.run.original.deps
        return max(fit or alone, key=lambda choice: deps.macs(deps.dead(choice.kept)))
    for limit, found in thin.items():
        choice = within_limits(found.chooser, [other for other in limits if other is not limit])
        if not choice.stopped_by and holds(chooser, limit, choice):
            remarks = tuple(dict.fromkeys((*choice.remarks, *found.choice.remarks)))
            return replace(choice, remarks=remarks, search=choice.search or found.choice.search)
    return searched(chooser, *limits)


@dataclass(frozen=True)
class Thin:
    """A chooser that has the layers at a peak thin enough, and what it chooses without another limit."""

    chooser: Chooser
    choice: Choice


def thinned(chooser: Chooser, limit: Limit) -> Thin | None:
    """Thin the layers that are alive where the activations exceed their limit, all by the least share that does.

    None where that is not enough.
    """
    if isinstance(chooser.evidence.method.rule, Msvfp):  # which shares a budget out in its own way
        return None
    deps = chooser.run.original.deps
    before, _ = cost_of(chooser, limit, Choice({}, {}, {}))
    names = alive_beyond(deps, limit.most(before))
    if not names:
        return Thin(chooser, chooser.choose((KIND, 1.0)))

    def attempt(gone: float) -> tuple[Thin, Probe]:
        thin = chooser.with_ratio(names, gone)
        choice = thin.choose((KIND, 1.0))
        share = deps.macs(deps.dead(choice.kept)) / max(1, deps.macs())
        return Thin(thin, choice), Probe(share, cost_of(chooser, limit, choice)[1:], holds(chooser, limit, choice))

    cuts, most = Bisection(attempt), 1.0 - FINEST
    if not cuts.holds(most):
        return None
    thin, taken = cuts.tried[cuts.last(0.0, most, FINEST)]
    return replace(thin, choice=_recorded(thin.choice, [limit], [before], cuts, taken.share))


def searched(chooser: Chooser, *limits: Limit) -> Choice:
    """The choice of most MACs within the limits, found by bisecting their share."""
    befores: list[float] = []

    def attempt(share: float) -> tuple[Choice, Probe]:
        chooser.run.log.progress(f"trying {share:.1%} of the {KIND}", len(cuts.tried), 0)
        choice = chooser.choose((KIND, share))
        pairs = [cost_of(chooser, limit, choice) for limit in limits]
        befores[:] = [before for before, _ in pairs]
        kept = all(after <= limit.most(before) for limit, (before, after) in zip(limits, pairs, strict=True))
        return choice, Probe(share, tuple(after for _, after in pairs), kept)

    cuts = Bisection(attempt)
    least, resolution = least_share(chooser), max(COSTS[limit.cost].resolution for limit in limits)
    chosen, stopped = 1.0 if cuts.holds(1.0) else cuts.last(1.0, least, resolution), ""
    if chosen == least and not cuts.holds(least):
        stopped = _short(limits, cuts.tried[least][1], befores)
    choice = replace(cuts.tried[chosen][0], stopped_by=stopped)
    return _recorded(choice, limits, befores, cuts, chosen)


def _recorded(
    choice: Choice, limits: Sequence[Limit], befores: Sequence[float], cuts: Bisection[Any], chosen: float
) -> Choice:
    costs, bounds = zip(*((x.cost, x.most(before)) for x, before in zip(limits, befores, strict=True)), strict=True)
    texts = tuple(map(str, limits))
    search = Search(KIND, costs, texts, cuts.probes, bounds, chosen)
    return recorded(choice, f"the most {KIND} with {' and '.join(texts)}", search, *(COSTS[c].shown for c in costs))


def _short(limits: Sequence[Limit], smallest: Probe, befores: Sequence[float]) -> str:
    """Which limit even the smallest network exceeds."""
    for limit, before, after in zip(limits, befores, smallest.figures, strict=True):
        if after > limit.most(before):
            what = COSTS[limit.cost].shown(after) if limit.share is None else f"{after / before:.1%} of the original"
            return f"{limit.cost} ends at {what}: nothing more can be cut"
    raise AssertionError("a network that meets all limits is no failure")


def _planned(chooser: Chooser, limit: Limit) -> Choice:
    total, (before, _) = chooser.costs.total(limit.cost), cost_of(chooser, limit, Choice({}, {}, {}))
    share = limit.most(before) / total if total else 1.0  # a network without layers has nothing to spend
    return chooser.choose((limit.cost, min(1.0, share)))


def _sized(chooser: Chooser, limit: Limit) -> Choice:
    """Choose for a share of the file's size, and for less by what was too much, until the bytes of the file hold it."""
    whole = chooser.run.file.size
    asked = min(1.0, limit.most(whole) / whole)
    most = asked * whole
    for _ in range(ROUNDS):
        choice = chooser.choose(("size", asked))
        size = written_bytes(chooser.run, choice)
        if size <= most or choice.stopped_by:
            return choice
        counts = [len(choice.kept.get(name, range(channels))) for name, channels in chooser.costs.groups.items()]
        asked = min(asked, chooser.costs.share("size", counts)) - (size - most) / whole
        if asked <= 0:
            break
    return replace(choice, stopped_by=f"size can only go down to {size / whole:.1%}: the rest is no weights")


def _analysed(cost: Callable[[Dependencies, np.ndarray], float]) -> Callable[[Chooser, Limit, Choice], Pair]:
    """A cost that the analysis tells, from what is dead."""

    def measure(chooser: Chooser, limit: Limit, choice: Choice) -> Pair:
        whole, deps = chooser.run.before, chooser.run.original.deps
        return cost(whole, whole.nothing), cost(deps, deps.dead(choice.kept))

    return measure


def _bytes(chooser: Chooser, limit: Limit, choice: Choice) -> Pair:
    return chooser.run.file.size, written_bytes(chooser.run, choice)


def _latency(chooser: Chooser, limit: Limit, choice: Choice) -> Pair:
    before, after = timed(chooser.run, choice)
    return (before.median, after.median) if limit.share is None else (before.low, after.low)


COSTS: Mapping[str, Cost] = {
    "macs": Cost(_analysed(Dependencies.macs), _planned, words.count, "macs"),
    "params": Cost(_analysed(Dependencies.params), _planned, words.count, "params"),
    "size": Cost(_bytes, _sized, words.size, "bytes"),
    "activations": Cost(_analysed(peak_activations), searched, words.size, "activations"),
    "latency": Cost(_latency, searched, words.duration, "latency", resolution=0.02),
}


@dataclass(frozen=True)
class Budget:
    """One way to say how much goes: the choice that it allows, and what was asked in words."""

    choose: Callable[[Chooser], Choice]
    asked: Callable[[Run], str]


def _ratio_asked(run: Run) -> str:
    request = run.request
    if request.ratio is None:
        return "remove nothing"
    asked = f"{100 * request.ratio:g}% of the channels of each group"
    return f"keep as many MACs as without {asked}" if request.variable_rate else f"remove {asked}"


# Those under which the output may change; `lossless` chooses by what the network computes (`pipeline.lossless`).
BUDGETS: Mapping[str, Budget] = {
    "ratio": Budget(lambda chooser: chooser.choose(None), _ratio_asked),
    "target": Budget(
        lambda chooser: within_limits(chooser, chooser.run.request.target or ()),
        lambda run: f"keep {' and '.join(map(str, run.request.target or ()))}",
    ),
    "threshold": Budget(
        lambda chooser: chooser.by_threshold(chooser.run.request.threshold or 0.0),
        lambda run: f"remove what is at least {run.request.threshold:g} similar to what stays",
    ),
    "max_drop": Budget(
        largest_choice,
        lambda run: f"remove as much as lowers {run.metrics[0].name} by at most {run.request.max_drop:g}",
    ),
}
