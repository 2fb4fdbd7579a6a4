"""The largest network that meets the user's targets: a row for each cost, and one search for what cannot be planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.criteria.msvfp import Msvfp
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.costs import alive_beyond, peak_activations
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.drop import KIND, largest_choice, least_share
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.speed import timed
from onnxprune.pipeline.targets import Limit
from onnxprune.report import words
from onnxprune.report.summary import Probe, Search

Pair = tuple[float, float]  # what a cost is, before and after
ROUNDS = 8  # one or two are enough: names and metadata, which the costs do not know, hardly depend on the choice
FINEST = 1 / 128  # share of the channels at a peak, at which a search ends


@dataclass(frozen=True)
class Meter:
    """What it takes to tell what a choice leaves of any cost; `weigh` gives the bytes of its file."""

    chooser: Chooser
    weigh: Callable[[Choice], int]

    @property
    def run(self) -> Run:
        return self.chooser.run

    def left(self, limit: Limit, choice: Choice) -> Pair:
        """The cost of a limit, before and after."""
        return COSTS[limit.cost].measure(self, limit, choice)

    def holds(self, limit: Limit, choice: Choice) -> bool:
        before, after = self.left(limit, choice)
        return after <= limit.most(before) * (1 + 1e-12)


@dataclass(frozen=True)
class Cost:
    """One cost.

    measure: what it is before and after a choice.
    choose: the largest choice within a limit on it alone.
    shown: an amount in words.
    figure: the field of `report.summary.Figures` that holds it.
    resolution: of the share of the MACs, at which a search ends.
    """

    measure: Callable[[Meter, Limit, Choice], Pair]
    choose: Callable[[Meter, Limit], Choice]
    shown: Callable[[float], str]
    figure: str
    resolution: float = 0.01


def within_budget(chooser: Chooser, weigh: Callable[[Choice], int]) -> Choice:
    """The choice that the budget of a run allows.

    Args:
        weigh: from a choice to the bytes of its file.
    """
    request = chooser.run.request
    if request.max_drop is not None:
        return largest_choice(chooser)
    if request.target is not None:
        return within(Meter(chooser, weigh), request.target)
    return chooser.choose(None) if request.threshold is None else chooser.alike(request.threshold)


def within(meter: Meter, limits: Sequence[Limit]) -> Choice:
    """The choice that leaves most within all limits; where even the smallest network exceeds one, that network.

    What is the largest choice for one limit and meets the others, too, is the outcome; else what is so once the layers
    at the peak of the activations are thin enough; else the MACs are searched.
    """
    thin = {limit: found for limit in limits if limit.cost == "activations" and (found := thinned(meter, limit))}
    alone = [thin[x].choice if x in thin else COSTS[x.cost].choose(meter, x) for x in limits]
    fit = [c for c in alone if not c.stopped_by and all(meter.holds(limit, c) for limit in limits)]
    if fit or len(limits) == 1:
        deps = meter.run.original.deps
        return max(fit or alone, key=lambda choice: deps.macs(deps.dead(choice.kept)))
    for limit, found in thin.items():
        choice = within(found.meter, [other for other in limits if other is not limit])
        if not choice.stopped_by and meter.holds(limit, choice):
            own = found.choice
            return replace(choice, remarks=(*choice.remarks, *own.remarks), search=choice.search or own.search)
    return searched(meter, *limits)


@dataclass(frozen=True)
class Thin:
    """A meter whose chooser has the layers at a peak thin enough, and what it chooses without another limit."""

    meter: Meter
    choice: Choice


def thinned(meter: Meter, limit: Limit) -> Thin | None:
    """Thin the layers that are alive where the activations exceed their limit, all by the least share that does.

    None where that is not enough.
    """
    if isinstance(meter.chooser.evidence.method.rule, Msvfp):  # which shares a budget out in its own way
        return None
    deps, found = meter.run.original.deps, dict[float, tuple[Thin, Probe]]()
    before, _ = meter.left(limit, Choice({}, {}, {}))
    names = alive_beyond(deps, limit.most(before))
    if not names:
        return Thin(meter, meter.chooser.choose((KIND, 1.0)))

    def holds(gone: float) -> bool:
        chooser = meter.chooser.thinned(names, gone)
        choice = chooser.choose((KIND, 1.0))
        share = deps.macs(deps.dead(choice.kept)) / max(1, deps.macs())
        probe = Probe(share, meter.left(limit, choice)[1:], meter.holds(limit, choice))
        found[gone] = Thin(replace(meter, chooser=chooser), choice), probe
        return probe.holds

    low, high = 0.0, 1.0 - FINEST
    if not holds(high):
        return None
    while high - low > FINEST:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    thin, taken = found[high]
    probes = tuple(dict.fromkeys(probe for _, probe in found.values()))  # steps of channels make some equal
    search = Search(KIND, (limit.cost,), (str(limit),), probes, (limit.most(before),), taken.share)
    choice = replace(thin.choice, remarks=(*thin.choice.remarks, described(search)), search=search)
    return replace(thin, choice=choice)


def searched(meter: Meter, *limits: Limit) -> Choice:
    """The choice of most MACs within the limits, found by bisecting their share."""
    found: dict[float, Choice] = {}
    probes: list[Probe] = []
    befores: list[float] = []

    def holds(share: float) -> bool:
        meter.run.log.progress(f"trying {share:.1%} of the {KIND}", len(found), 0)
        found[share] = meter.chooser.choose((KIND, share))
        pairs = [meter.left(limit, found[share]) for limit in limits]
        befores[:] = [before for before, _ in pairs]
        kept = all(after <= limit.most(before) for limit, (before, after) in zip(limits, pairs, strict=True))
        probes.append(Probe(share, tuple(after for _, after in pairs), kept))
        return kept

    least = low = least_share(meter.chooser)
    high, resolution = 1.0, max(COSTS[limit.cost].resolution for limit in limits)
    stopped = ""
    if holds(1.0):
        low = 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    if low == least and not holds(least):
        stopped = _short(limits, probes[-1], befores)
    choice = found[chosen := least if stopped else low]
    costs, bounds = zip(*((limit.cost, limit.most(b)) for limit, b in zip(limits, befores, strict=True)), strict=True)
    search = Search(KIND, costs, tuple(map(str, limits)), tuple(probes), bounds, chosen)
    return replace(choice, stopped_by=stopped, remarks=(*choice.remarks, described(search)), search=search)


def _short(limits: Sequence[Limit], smallest: Probe, befores: Sequence[float]) -> str:
    """Which limit even the smallest network exceeds."""
    for limit, before, after in zip(limits, befores, smallest.figures, strict=True):
        if after > limit.most(before):
            what = COSTS[limit.cost].shown(after) if limit.share is None else f"{after / before:.1%} of the original"
            return f"{limit.cost} ends at {what}: nothing more can be cut"
    raise AssertionError("a network that meets all limits is no failure")


def described(search: Search) -> str:
    """A search in one line."""
    steps = ", ".join(f"{p.share:.1%} → {_shown(search, p)} {'✓' if p.holds else '✗'}" for p in search.probes)
    return f"search for the most {search.cost} with {' and '.join(search.limits)}: {steps}"


def _shown(search: Search, probe: Probe) -> str:
    return " and ".join(COSTS[cost].shown(f) for cost, f in zip(search.figures, probe.figures, strict=True))


def _planned(meter: Meter, limit: Limit) -> Choice:
    total, (before, _) = meter.chooser.costs.total(limit.cost), meter.left(limit, Choice({}, {}, {}))
    share = limit.most(before) / total if total else 1.0  # a network without layers has nothing to spend
    return meter.chooser.choose((limit.cost, min(1.0, share)))


def _sized(meter: Meter, limit: Limit) -> Choice:
    """Choose for a share of the file's size, and for less by what was too much, until the bytes of the file hold it."""
    chooser, whole = meter.chooser, meter.run.file.size
    asked = min(1.0, limit.most(whole) / whole)
    most = asked * whole
    for _ in range(ROUNDS):
        choice = chooser.choose(("size", asked))
        size = meter.weigh(choice)
        if size <= most or choice.stopped_by:
            return choice
        left = [len(choice.kept.get(name, range(channels))) for name, channels in chooser.costs.groups.items()]
        asked = min(asked, chooser.costs.share("size", left)) - (size - most) / whole
        if asked <= 0:
            break
    return replace(choice, stopped_by=f"size can only go down to {size / whole:.1%}: the rest is no weights")


def _macs(meter: Meter, limit: Limit, choice: Choice) -> Pair:
    deps = meter.run.original.deps
    return meter.run.before.macs(), deps.macs(deps.dead(choice.kept))


def _params(meter: Meter, limit: Limit, choice: Choice) -> Pair:
    deps = meter.run.original.deps
    return meter.run.before.params(), deps.params(deps.dead(choice.kept))


def _activations(meter: Meter, limit: Limit, choice: Choice) -> Pair:
    deps, whole = meter.run.original.deps, meter.run.before
    return peak_activations(whole, whole.nothing), peak_activations(deps, deps.dead(choice.kept))


def _bytes(meter: Meter, limit: Limit, choice: Choice) -> Pair:
    return meter.run.file.size, meter.weigh(choice)


def _latency(meter: Meter, limit: Limit, choice: Choice) -> Pair:
    before, after = timed(meter.run, choice)
    return (before.median, after.median) if limit.share is None else (before.low, after.low)


def _whole(number: float) -> str:
    return words.count(round(number))


def _size(number: float) -> str:
    return words.size(round(number))


COSTS: Mapping[str, Cost] = {
    "macs": Cost(_macs, _planned, _whole, "macs"),
    "params": Cost(_params, _planned, _whole, "params"),
    "size": Cost(_bytes, _sized, _size, "bytes"),
    "activations": Cost(_activations, searched, _size, "activations"),
    "latency": Cost(_latency, searched, words.duration, "latency", resolution=0.02),
}
