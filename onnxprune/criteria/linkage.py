"""Agglomerative clustering: trees of merges that can be cut anywhere, and the first merges without the others.

A clustering is one label per channel, `(channels,)`, with every label from 0 up in use.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import linkage

from onnxprune.criteria.filters import Floats, Indices
from onnxprune.criteria.similarity import Similarities

FEW = 256  # filters up to which a whole tree is the cheapest way to any part of it
HALF = 0.55  # share of filters that merge, up to which the nearest pairs tell
NEAREST = 4  # pairs for each filter that are looked at, beside half the root of their number


@dataclass(frozen=True)
class Tree:
    """Merges of clusters, nearest first: `pairs[m]` names the two that become cluster `leaves + m`."""

    leaves: int
    pairs: Indices  # (leaves - 1, 2)
    heights: Floats  # (leaves - 1,) distance of the two, never falling

    def cut(self, clusters: int) -> Indices:
        """Labels of exactly this many clusters; ties in height are cut in the order of the tree."""
        merges = self.leaves - clusters
        into = np.arange(self.leaves + merges)
        into[self.pairs[:merges]] = into[self.leaves :, None]
        return _labels(into, self.leaves)

    def cut_at(self, height: float) -> Indices:
        """Labels of the clusters whose members were merged at this distance or less."""
        return self.cut(self.leaves - int(np.searchsorted(self.heights, height, side="right")))


def _labels(into: Indices, leaves: int) -> Indices:
    """Labels of the leaves, the first of all that each one may have become in turn: what stays becomes itself."""
    while not np.array_equal(into, further := into[into]):
        into = further
    return np.unique(into[:leaves], return_inverse=True)[1]


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

    Two clusters merge when the last of the pairs between them has come, in the order of distance. Half of 512 filters
    merge within 14 pairs for each, half of 2,048 within 22, of which the whole tree looks at all. Where two of these
    are equally far, as a filter of zeros is from all others, the whole tree has to say which one comes first.
    """
    leaves = len(alike.products)
    if leaves - clusters > HALF * leaves or alike.zero.any():
        return None
    least = alike.quantile(2 * (NEAREST + leaves**0.5 / 2) / leaves)
    first, second, similar = alike.above(least)
    distance = np.maximum(1 - similar, 0)
    into, gone, height = _merges(first, second, distance, leaves)
    order = np.argsort(height)[: leaves - clusters]
    last = height[order].max(initial=0)
    if len(order) < leaves - clusters or last >= 1 - least:  # what is farther could come between
        return None
    if not np.diff(np.sort(distance[distance <= last])).all():
        return None
    label = np.arange(leaves)
    label[gone[order]] = into[order]
    return _labels(label, leaves)


def _merges(first: Indices, second: Indices, distance: Floats, leaves: int) -> tuple[Indices, Indices, Floats]:
    """Merges under complete linkage: a filter of either cluster, and the distance of the two, `(merges,)` each.

    Clusters that are nearest to each other merge, whatever else does: by then no other one can have come nearer to
    either of them (F. Murtagh, The Computer Journal 26(4), 1983, doi 10.1093/comjnl/26.4.354).

    Args:
        first, second, distance: all pairs of filters up to some distance, `(pairs,)`.
    """
    found, short = [(first[:0], second[:0], distance[:0])], np.min_scalar_type(leaves)  # of 16 bits, sorted by radix
    while len(distance):
        nearest = np.full(leaves, np.inf)
        np.minimum.at(nearest, first, distance)
        np.minimum.at(nearest, second, distance)
        mutual = np.flatnonzero((nearest[first] == distance) & (nearest[second] == distance))
        found.append((first[mutual], second[mutual], distance[mutual]))
        into, parts = np.arange(leaves), np.ones(leaves, np.int64)
        into[second[mutual]], parts[first[mutual]] = first[mutual], 2
        first, second = into[first], into[second]
        first, second = np.minimum(first, second), np.maximum(first, second)
        order = np.lexsort((second.astype(short), first.astype(short)))
        pair = (first * leaves + second)[order]
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        first, second = np.divmod(pair[start], leaves)
        whole = np.diff(start, append=len(pair)) == parts[first] * parts[second]  # never so of two that have merged
        first, second, distance = first[whole], second[whole], np.maximum.reduceat(distance[order], start)[whole]
    into, gone, height = (np.concatenate(part) for part in zip(*found, strict=True))
    return into, gone, height
