"""MSVFP: a search over all layers of a network that thins, step by step, the one whose trial loses least.

D. Ghimire, S.-H. Kim, "Magnitude and similarity based variable rate filter pruning for efficient convolution neural
networks", Applied Sciences 13(1):316, 2023, doi 10.3390/app13010316.

Published: the loop below with its numbers. While the reduction of the cost is below half the target, a layer gives up
its filters of the smallest L2 norm, after that those with the smallest sum of distances to the layer's others; a trial
removes 10 % of a layer's current filters, layers that have lost 70 % are left alone, and whenever the cost has fallen
by more than 3 % since the last time the network is trained for a short while. Ours: a step removes at least one filter
and leaves what `least` and `multiple` ask for; the last step hands back what it took beyond the target, and where even
one channel of a wide layer leads further below it than one of another layer, the others may go on; with "cosine" and
"ncc" the filters of the largest similarity to the others go; layers whose trial saves nothing are not tried;
`trials="lazy"`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import numpy as np

from onnxprune.criteria.filters import Filters, Floats, Indices, rounded
from onnxprune.criteria.hyperparameters import option
from onnxprune.criteria.ranking import Ranking, ranking
from onnxprune.criteria.similarity import similarities, square, squared_distances

Kept = dict[str, Indices]
Criterion = Literal["magnitude", "similarity"]
Train = Callable[[Kept], Mapping[str, Filters] | None]  # kept channels to the filters that training has changed
Redundant = Literal["euclidean", "cosine", "ncc"]


@dataclass(frozen=True)
class Msvfp:
    """Hyper-parameters of the search; called on a single group, it does what the search would do to it alone.

    A single group that has to reach a count needs no trials: half of what goes goes by L2 norm, the rest by
    similarity, a share of the current filters at a time.
    """

    step: float = option(
        0.1, "share of a layer's current filters that one step removes", low=1e-3, high=1.0, published=True
    )
    cap: float = option(0.7, "removed share from which on a layer is left alone", low=0.0, high=1.0, published=True)
    switch: float = option(0.5, "share of the target at which similarity takes over", low=0.0, high=1.0, published=True)
    similarity: Redundant = option(  # noqa: RUF009 - a field, made elsewhere
        "euclidean", "how near filters are to the others", choices=("euclidean", "cosine", "ncc"), published=True
    )
    retrain_every: float = option(0.03, "fall of the cost after which to retrain", low=0.0, high=1.0, published=True)
    images: int = option(512, "samples that the loss is measured on; the paper's are 10000", low=1)
    trials: Literal["all", "lazy"] = option(
        "lazy",
        "every layer at every step, as published, or only while an older trial promises less loss",
        choices=("all", "lazy"),
    )

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        layer = ThinnedLayer.of(filters, self.similarity)
        by_norm = ranking(np.sqrt(filters.energies))

        def pick(count: int) -> Indices:
            kept, goal = np.arange(filters.channels), filters.channels - count
            while len(kept) > count:
                redundant = len(kept) <= filters.channels - self.switch * goal
                number = min(self.share(len(kept)), len(kept) - count)
                kept = np.setdiff1d(kept, layer.first_to_go(kept, number, redundant))
            return kept

        return replace(by_norm, pick=pick)

    def share(self, current: int) -> int:
        """How many of so many filters a step removes: their share rounded half up, at least one."""
        return max(1, int(current * self.step + 0.5))


@dataclass(frozen=True, eq=False)
class ThinnedLayer:
    """What the criteria need to know of a group: norms `(channels,)` and distances `(channels, channels)`."""

    norms: Floats
    distance: Callable[[], Floats]

    @staticmethod
    def of(filters: Filters, measure: Redundant) -> "ThinnedLayer":
        """Norms at once, distances when they are first asked for."""

        @cache
        def distance() -> Floats:
            if measure == "euclidean":
                return square(np.sqrt(squared_distances(filters)), 0.0)
            return square(1 - similarities(filters, measure).pairs(), 0.0)

        return ThinnedLayer(np.sqrt(filters.energies), distance)

    def first_to_go(self, kept: Indices, number: int, redundant: bool) -> Indices:
        """The most redundant, or else the weakest, of the kept channels in the order they go; of equals the later."""
        worth = self.distance()[np.ix_(kept, kept)].sum(axis=1) if redundant else self.norms[kept]
        return kept[np.lexsort((-kept, rounded(worth, 9)))[:number]]


@dataclass(frozen=True)
class Step:
    """One real pruning: what left which group by which criterion, and the loss and cost that remain."""

    group: str
    criterion: Criterion
    removed: Indices
    loss: float
    cost: float
    trials: int  # losses that were measured to choose the group
    retrained: bool


@dataclass(frozen=True)
class Thinning:
    """Kept channels of each group, how they came about, and whether the target was reached."""

    kept: Kept
    steps: tuple[Step, ...]
    reached: bool


@dataclass
class _Network:
    """The groups between two steps."""

    layers: dict[str, ThinnedLayer]
    kept: Kept
    options: Msvfp
    cost: Callable[[Kept], float]
    loss: Callable[[Kept], float]
    least: Mapping[str, int]
    multiple: Mapping[str, int]
    passed: set[str] = field(default_factory=set)  # groups too coarse for what is left to save

    def number(self, name: str) -> int:
        """How many filters of a group the next step removes; 0 where it has to keep what it has."""
        current, multiple = len(self.kept[name]), self.multiple.get(name, 1)
        least = max(1, self.least.get(name, 1))
        left = max(least, (current - self.options.share(current)) // multiple * multiple)
        return max(0, current - left)

    def without(self, name: str, removed: Indices) -> Kept:
        """The kept channels of all groups if these of one were gone."""
        return {**self.kept, name: np.setdiff1d(self.kept[name], removed)}

    def removable(self, redundant: bool) -> dict[str, Indices]:
        """What a trial would remove from each group that may lose some and thereby saves something."""
        found, now = {}, self.cost(self.kept)
        for name, layer in self.layers.items():
            gone, number = 1 - len(self.kept[name]) / len(layer.norms), self.number(name)
            if number < 1 or gone >= self.options.cap or name in self.passed:
                continue
            removed = layer.first_to_go(self.kept[name], number, redundant)
            if self.cost(self.without(name, removed)) < now:
                found[name] = removed
        return found

    def trial(self, name: str, removed: Indices) -> float:
        """The loss without these channels; a loss that is not a number counts as infinite."""
        value = float(self.loss(self.without(name, removed)))
        return value if value == value else np.inf

    def enough(self, name: str, removed: Indices, target: float) -> Indices:
        """As few of these channels, first ones first, as reach the target; all of them where they do not."""
        reach = (n for n in self._units(name, len(removed)) if self.cost(self.without(name, removed[:n])) <= target)
        return removed[: next(reach, len(removed))]

    def _units(self, name: str, most: int) -> list[int]:
        """The numbers of filters that may go in one step so that a whole multiple stays."""
        current, multiple = len(self.kept[name]), self.multiple.get(name, 1)
        return [n for n in range(1, most) if (current - n) % multiple == 0]

    def finest(self, removable: Mapping[str, Indices]) -> float:
        """The least that the cost can fall by one unit of one of these groups."""
        now = self.cost(self.kept)
        units = ((name, next(iter(self._units(name, len(r))), len(r)), r) for name, r in removable.items())
        return min(now - self.cost(self.without(name, removed[:n])) for name, n, removed in units)


def _choose(
    network: _Network, removable: Mapping[str, Indices], base: float, rises: dict[str, float]
) -> tuple[str, float, int]:
    """The group whose trial loses least, its loss, and how many trials that took.

    `rises` holds by how much each group's last trial raised the loss. A lazy search takes them for a lower bound, as
    the loss of one more removal rarely falls while the network shrinks, and tries groups only while an older rise is
    below the best new one.
    """
    lazy = network.options.trials == "lazy"
    waiting = sorted(removable, key=lambda name: rises.get(name, -np.inf)) if lazy else list(removable)
    best, least, trials = waiting[0], np.inf, 0
    for name in waiting:
        if lazy and base + rises.get(name, -np.inf) >= least:
            break
        loss = network.trial(name, removable[name])
        rises[name] = loss - base
        trials += 1
        if loss < least:
            best, least = name, loss
    return best, least, trials


@dataclass
class _Search:
    """A search under way: the network, what it costs now, and its loss."""

    network: _Network
    target: float
    fine: bool
    steps: list[Step] = field(default_factory=list)
    rises: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.full = self.trained = self.now = float(self.network.cost(self.network.kept))
        self.base = float(self.network.loss(self.network.kept))

    def step(self, trains: bool) -> bool:
        """Thin the group that loses least, if that does not overshoot; False where no group may be thinned any more."""
        network, options = self.network, self.network.options
        redundant = self.full - self.now >= options.switch * (self.full - self.target)
        removable = network.removable(redundant)
        if not removable:
            again = bool(network.passed)
            network.passed, self.fine = set(), False
            return again
        name, self.base, trials = _choose(network, removable, self.base, self.rises)
        removed = network.enough(name, removable[name], self.target)
        if self.fine and network.cost(network.without(name, removed)) < self.target - network.finest(removable):
            network.passed.add(name)
            return True
        if len(removed) < len(removable[name]):
            self.base = network.trial(name, removed)
        network.kept = network.without(name, removed)
        self.now = float(network.cost(network.kept))
        retrained = trains and self.trained - self.now > options.retrain_every * self.full
        criterion: Criterion = "similarity" if redundant else "magnitude"
        self.steps.append(Step(name, criterion, removed, self.base, self.now, trials, retrained))
        return True

    def train(self, retrain: Train) -> None:
        """Take over the filters that training gives, and forget what older ones have lost."""
        for which, filters in (retrain(dict(self.network.kept)) or {}).items():
            self.network.layers[which] = ThinnedLayer.of(filters, self.network.options.similarity)
        self.trained, self.base = self.now, float(self.network.loss(self.network.kept))
        self.rises.clear()


def search(
    groups: Mapping[str, Filters],
    target: float,
    cost: Callable[[Kept], float],
    loss: Callable[[Kept], float],
    options: Msvfp | None = None,
    *,
    retrain: Train | None = None,
    least: Mapping[str, int] | None = None,
    multiple: Mapping[str, int] | None = None,
    fine: bool = False,
    progress: Callable[[Step], None] = lambda _: None,
) -> Thinning:
    """Remove channels until the cost is at most `target`, in the unit of `cost` (MACs, say).

    groups: the filters of each group, by name.
    cost, loss: of the network that keeps these channels; the cost need not be a sum over groups, the loss is on a
        fixed set of data (mean cross-entropy, say).
    retrain: called with the kept channels whenever the cost has fallen enough; it may give the changed filters, with
        all channels in their old places, those that are gone included.
    least, multiple: how many channels a group has to keep, and a multiple of which number; 1 where it is not named.
    fine: end within one step of the finest group; else the last step may lead as far as one of its own group does.

    Where no group may be thinned any further the search ends early, and `reached` is false.
    """
    options = options or Msvfp()
    layers = {name: ThinnedLayer.of(filters, options.similarity) for name, filters in groups.items()}
    everything = {name: np.arange(f.channels) for name, f in groups.items()}
    state = _Search(_Network(layers, everything, options, cost, loss, least or {}, multiple or {}), target, fine)
    while state.now > target:
        done = len(state.steps)
        if not state.step(retrain is not None):
            break
        for step in state.steps[done:]:
            progress(step)
            if retrain and step.retrained:
                state.train(retrain)
    return Thinning(state.network.kept, tuple(state.steps), state.now <= target)
