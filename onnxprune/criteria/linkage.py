"""Agglomerative clustering: trees of merges that can be cut anywhere, and the first merges without the others.

A clustering is one label per channel, `(channels,)`, with every label from 0 up in use.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import linkage

from onnxprune.criteria.filters import Floats, Indices
from onnxprune.criteria.similarity import Similarities

FEW = 500  # filters up to which a whole tree is the cheapest way to any part of it
HALF = 0.55  # share of filters that merge, up to which the nearest pairs tell
NEAREST = 24  # times as many pairs as there are filters


@dataclass(frozen=True)
class Tree:
    """Merges of clusters, nearest first: `pairs[m]` names the two that become cluster `leaves + m`."""

    leaves: int
    pairs: Indices  # (leaves - 1, 2)
    heights: Floats  # (leaves - 1,) distance of the two, never falling

    def cut(self, clusters: int) -> Indices:
        """Labels of exactly this many clusters; ties in height are cut in the order of the tree."""
        merges = self.leaves - clusters
        label = np.arange(self.leaves + merges)
        for merge in reversed(range(merges)):
            label[self.pairs[merge]] = label[self.leaves + merge]
        return np.unique(label[: self.leaves], return_inverse=True)[1]

    def cut_at(self, height: float) -> Indices:
        """Labels of the clusters whose members were merged at this distance or less."""
        return self.cut(self.leaves - int(np.searchsorted(self.heights, height, side="right")))


def agglomerate(distance: Floats, link: str) -> Tree:
    """Agglomerative clustering by distances `(pairs,)`; link is "complete", "average" or "single".

    Pairs are ordered (0, 1), (0, 2) ... (1, 2) ... Under complete linkage, the height of a merge is the largest
    distance between any two of its members.
    """
    if not len(distance):
        return Tree(1, np.empty((0, 2), np.int64), np.empty(0))
    merges = linkage(distance, link)
    return Tree(len(merges) + 1, merges[:, :2].astype(np.int64), merges[:, 2])


class Clusters:
    """Clusters of filters by their similarities, at any number.

    link: how the distance of clusters follows from that of filters, which is 1 less their similarity.
    """

    def __init__(self, alike: Similarities, link: str) -> None:
        self._alike: Similarities | None = alike
        self._link = link
        if link != "complete" or len(alike.products) <= FEW:
            _ = self.tree

    @cached_property
    def distances(self) -> Floats:
        """1 − similarity of all pairs, at least 0: `(pairs,)`."""
        assert self._alike is not None
        pairs = self._alike.pairs()
        np.subtract(1.0, pairs, out=pairs)
        return np.maximum(pairs, 0.0, out=pairs)

    @cached_property
    def tree(self) -> Tree:
        """All merges; the similarities are let go of then."""
        distances, self._alike = self.distances, None
        return agglomerate(distances, self._link)

    def labels(self, clusters: int) -> Indices:
        """Labels of exactly this many clusters."""
        labels = None if self._alike is None else first_merges(self._alike, clusters)
        return self.tree.cut(clusters) if labels is None else labels


def first_merges(alike: Similarities, clusters: int) -> Indices | None:
    """Labels of so many clusters under complete linkage, from the nearest pairs alone; None where these do not do.

    Two clusters merge when the last of the pairs between them has come, in the order of distance. Half of thousands of
    filters merge within some twenty pairs for each, of which the whole tree looks at all. Where two of these are
    equally far, as a filter of zeros is from all others, the whole tree has to say which one comes first.
    """
    leaves = len(alike.products)
    if leaves - clusters > HALF * leaves or alike.zero.any():
        return None
    least = alike.quantile(2 * NEAREST / leaves)
    first, second, similar = alike.above(least)
    distance = np.maximum(1 - similar, 0)
    order = np.argsort(distance)
    order = order[: np.searchsorted(distance[order], 1 - least)]  # nothing that is farther could come between
    merges = _merges(first[order], second[order], leaves)
    if len(merges) < leaves - clusters:
        return None
    merges = merges[np.argsort(merges[:, 2])[: leaves - clusters]]
    if not np.diff(distance[order[: merges[:, 2].max(initial=0) + 2]]).all():
        return None
    label = np.arange(leaves)
    label[merges[:, 1]] = merges[:, 0]
    while not np.array_equal(label, further := label[label]):
        label = further
    return np.unique(label, return_inverse=True)[1]


def _merges(first: Indices, second: Indices, leaves: int) -> Indices:
    """Merges under complete linkage: `(merges, 3)`, a filter of either cluster, and the last of the pairs between them.

    Clusters that are nearest to each other merge, whatever else does: by then no other one can have come nearer to
    either of them (F. Murtagh, The Computer Journal 26(4), 1983, doi 10.1093/comjnl/26.4.354).

    Args:
        first, second: all pairs of filters up to some distance, `(pairs,)`, the nearest first.
    """
    size, place, found = len(first), np.arange(len(first)), [np.empty((0, 3), np.int64)]
    while len(place):
        nearest = np.full(leaves, size)
        np.minimum.at(nearest, first, place)
        np.minimum.at(nearest, second, place)
        mutual = np.flatnonzero((nearest[first] == place) & (nearest[second] == place))
        found.append(np.stack([first[mutual], second[mutual], place[mutual]], axis=1))
        into, parts = np.arange(leaves), np.ones(leaves, np.int64)
        into[second[mutual]], parts[first[mutual]] = first[mutual], 2
        first, second = into[first], into[second]
        pair = np.minimum(first, second) * leaves + np.maximum(first, second)
        pair, place = np.divmod(np.sort(pair * size + place), size)
        last = np.flatnonzero(np.diff(pair, append=-1))
        first, second = np.divmod(pair[last], leaves)
        whole = np.diff(last, prepend=-1) == parts[first] * parts[second]  # never so of two that have merged
        first, second, place = first[whole], second[whole], place[last[whole]]
    return np.concatenate(found)
