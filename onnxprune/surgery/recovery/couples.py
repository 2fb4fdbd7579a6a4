"""Layers that are solved together with the one that reads them: which they are, and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.operators.registry import Trait, has
from onnxprune.surgery.recovery.joint import Between, Half, Pair, together, work
from onnxprune.surgery.recovery.solvable import Finder, Solvable
from onnxprune.surgery.recovery.solve import rows_for
from onnxprune.surgery.recovery.under_way import UnderWay
from onnxprune.surgery.recovery.wanted import Path, Walker

STEPS, FEWEST = 40, 8  # at most, and below which it is not begun
MULTIPLICATIONS = 1.5e12  # of all couples of a network together
ROWS = 3 << 14  # of the second layer, or `rows_for` where that is more
PER_FEATURE = 8  # rows at least: with fewer, both layers together fit those that are seen and no others
SPREAD = 16  # batches at least that samples come from, where one of each would be too many rows
VAIN = 3  # couples in a row that gain nothing, after which no other is tried
WIDTH = 4  # arrays of the size of what the second layer reads that are held beside it


def couples(finder: Finder, layers: Sequence[Solvable], *, biased: bool = True) -> dict[int, Solvable]:
    """By the node of a layer, the other one that alone reads it, behind nothing but an activation that clips.

    Args:
        biased: whether both need a bias, as they do when they are solved; before that they are given one.
    """
    by_node, found = {layer.node: layer for layer in layers}, {}
    for layer in layers:
        second = by_node.get(_reader(finder, layer))
        if second is None or not (_fits(layer, biased) and _fits(second, biased)):
            continue
        if layer.linear.axis == second.linear.axis:
            found[layer.node] = second
    return found


def _fits(layer: Solvable, biased: bool) -> bool:
    return (layer.bias is not None or not biased) and layer.linear.groups == 1 and not layer.recurrent


def _reader(finder: Finder, layer: Solvable) -> int:
    """The node behind the activation that clips what a layer gives; -1 where there is none."""
    network = finder.network
    path = Walker(network, network.is_constant, layer.linear.axis, finder.deps.statics.shapes).path(layer.y)
    clips = network.follow(path.end) if np.isfinite(path.low) or np.isfinite(path.high) else None
    if clips is None or has(network.nodes[clips], Trait.QUANTIZES):
        return -1
    if any(name and network.tensor(name) is None for name in network.nodes[clips].input[1:]):
        return -1  # it clips at what is computed, too
    reader = network.follow(network.nodes[clips].output[0])
    return -1 if reader is None else reader


@dataclass
class Couples:
    """Solves layers together with their readers, as long as there is time for it.

    seconds: `couples` of the layers under way.
    done: how many have been looked at; left: multiplications that are left for the others.
    vain: how many of the last ones have gained nothing.
    """

    under_way: UnderWay
    seconds: Mapping[int, Solvable]
    done: int = 0
    left: float = MULTIPLICATIONS
    vain: int = 0

    def refined(
        self, layer: Solvable, path: Path, filters: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Filters (1, outputs, features) and biases of a layer that serve its reader better, or the same ones.

        What the reader should start from is noted among the priors.
        """
        second = self.seconds.get(layer.node)
        if second is None or self.vain == VAIN:
            return filters, bias
        share = self.left / (len(self.seconds) - self.done)
        self.done += 1
        way = self.under_way
        after = way.walker(second).path(second.y)
        way.hold(second, after)
        return self._solved(_Views(way, layer, path, second, after), filters, bias, share)

    def _solved(
        self, views: "_Views", filters: np.ndarray, bias: np.ndarray, share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        pairs = views.pairs()
        if pairs is None:
            return filters, bias
        way, (outs, feats), (outs2, feats2) = self.under_way, views.first_places, views.second_places
        first = Half(filters[0][np.ix_(outs, feats)], bias[outs])
        prior = way.filters(views.second)
        start = Half(prior[0][np.ix_(outs2, feats2)], way.bias(views.second, prior.shape[1])[outs2])
        each = work(pairs[0], first, len(pairs[0].goal.least))
        steps = min(STEPS, int(share / each))
        if steps < FEWEST:
            return filters, bias
        self.left -= steps * each
        options = way.options
        found = together(*pairs, first, start, ridge=options.ridge, rounds=options.rounds, steps=steps)
        self.vain = 0 if found else self.vain + 1
        if found is None:
            return filters, bias
        filters, bias = filters.copy(), bias.copy()
        filters[0][np.ix_(outs, feats)], bias[outs] = found[0].weights, found[0].bias
        prior[0][np.ix_(outs2, feats2)] = found[1].weights
        way.priors[views.second.weight] = prior
        return filters, bias


@dataclass(frozen=True)
class _Views:
    """What a layer and its reader take and should give, on some of the samples."""

    way: UnderWay
    first: Solvable
    path: Path  # of the first
    second: Solvable
    after: Path  # of the second

    @cached_property
    def first_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Outputs, as a mask, and features of the first layer that stay."""
        live = self.first.stays[0]
        return live.any(axis=1), np.flatnonzero(live.any(axis=0))

    @cached_property
    def second_places(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the second one."""
        live = self.second.stays[0]
        outs = live.any(axis=1) & (np.abs(self.way.gauge(self.second, self.after)) > 1e-9)
        return outs, np.flatnonzero(live.any(axis=0))

    def pairs(self) -> tuple[Pair, Pair] | None:
        """To solve on, and to judge by; None where they cannot be had."""
        (outs, feats), (outs2, feats2) = self.first_places, self.second_places
        channels = int(outs.sum())
        between = self._between(outs)
        middle, end = self.way.original.value(self.path.end), self.way.original.value(self.after.end)
        batches = range(len(end))
        held = self.way.held or [b for b in batches if b % 2]
        whole = feats2.size and feats2.size % max(channels, 1) == 0
        total = sum(self.first.linear.positions(m.shape) for b, m in enumerate(middle) if b not in held)
        few = total < PER_FEATURE * max(feats.size, feats2.size)
        if between is None or not held or not outs2.any() or not whole or few:
            return None
        most = min(max(ROWS, rows_for(feats.size)), self.way.options.budget // (4 * (feats.size + WIDTH * feats2.size)))
        seen = [b for b in batches if b not in held]
        return tuple(self._pair(some, most / total, between, feats, outs2) for some in (seen, held))  # type: ignore[return-value]

    def _between(self, outs: np.ndarray) -> Between | None:
        """None where what is added before the activation differs from place to place."""
        shape = self.way.original.value(self.path.end)[0].shape
        rows = np.arange(self.first.linear.positions(shape))
        added = self.way.offset(self.first, self.path, 0, shape, rows, outs)
        if added is not None and np.ptp(added, axis=1).any():
            return None
        summand = np.zeros(int(outs.sum()), np.float32) if added is None else added[:, 0]
        factor = self.way.gauge(self.first, self.path)[outs].astype(np.float32)
        return Between(factor, summand, self.path.low, self.path.high)

    def _pair(
        self, batches: Sequence[int], share: float, between: Between, feats: np.ndarray, outs: np.ndarray
    ) -> Pair:
        """Some samples of each batch, a share of it: others of each, since batches may be copies of others, altered."""
        columns, places, wanted, offsets, count = [], [], [], [], 0
        middle, end = self.way.original.value(self.path.end), self.way.original.value(self.after.end)
        one, two, given = self.first.linear, self.second.linear, self.way.pruned.value(self.first.x)
        generator = np.random.default_rng(self.way.options.seed)
        for b in _some(batches, share * len(end[0]), generator):
            samples = max(1, min(len(end[b]), round(share * len(end[b]))))
            inner, outer = ((samples, *value[b].shape[1:]) for value in (middle, end))
            some = np.sort(generator.permutation(len(end[b]))[:samples])
            inside, rows = (_rows_of(some, each.positions(shape)) for each, shape in ((one, inner), (two, outer)))
            columns.append(one.columns(given[b], middle[b].shape, inside)[0][feats])
            spots = [1 if axis == one.axis % len(inner) else size for axis, size in enumerate(inner)]
            index = np.arange(1, one.positions(inner) + 1, dtype=np.float32).reshape(spots)
            found = np.rint(two.columns(index, outer, np.arange(rows.size))[0]).astype(np.int64)
            places.append(np.where(found > 0, found + count, 0))
            wanted.append(two.outputs(end[b], rows)[outs])
            offsets.append(self.way.offset(self.second, self.after, b, end[b].shape, rows, outs))
            count += one.positions(inner)
        goal = self.way.goal(self.second, self.after, outs, wanted, offsets)
        return Pair(np.concatenate(columns, axis=1), np.concatenate(places, axis=1), between, goal)


def _some(batches: Sequence[int], samples: float, generator: np.random.Generator) -> Sequence[int]:
    """Batches to take so many samples of on average: where that is hardly one in two, as many as have it together."""
    if samples >= 0.5:
        return batches
    count = max(SPREAD, round(samples * len(batches)))
    return sorted(generator.permutation(batches)[:count].tolist())


def _rows_of(samples: np.ndarray, positions: int) -> np.ndarray:
    """The rows of some samples of a batch, where as many samples as that have so many positions together."""
    each = positions // samples.size
    return (samples[:, None] * each + np.arange(each)).ravel()
