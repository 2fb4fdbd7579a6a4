"""APSSF: filters compared by what they add up to over space and over channels, and thinned cluster by cluster.

L. Geng, B. Niu, "APSSF: adaptive CNN pruning based on structural similarity of filters", International Journal of
Computational Intelligence Systems 17, 2024, doi 10.1007/s44196-024-00518-4.
"""

import numpy as np
from numpy.typing import NDArray

from onnxprune.criteria.filters import Filters, Floats, Indices, rounded
from onnxprune.criteria.linkage import Tree
from onnxprune.criteria.similarity import squared_distances


def structural_distances(filters: Filters, alpha: float, beta: float) -> Floats:
    """Euclidean distance of `[α S, β R]` of each pair of filters: `(pairs,)`.

    S is the spatial superposition, the filter summed over its inputs (one value per kernel position), R the channel
    profile, summed over the kernel (one value per input); of a coupled group, those of all its writers. S and R are
    scaled so that their squared norms average 1 over the group.
    """
    result = np.zeros(filters.channels * (filters.channels - 1) // 2)
    for weight, part in ((alpha, _superposition), (beta, _profile)):
        reduced = Filters(tuple(part(w) for w in filters.weights))
        energy = float(reduced.energies.mean())
        if energy > 0 and weight != 0:
            squares = squared_distances(reduced)
            squares *= weight**2 / energy
            result += squares
    return np.sqrt(result, out=result)


def _superposition(weight: NDArray) -> Floats:
    return weight.sum(axis=1, dtype=np.float64).reshape(len(weight), -1)


def _profile(weight: NDArray) -> NDArray:
    flat = weight.reshape(*weight.shape[:2], -1)
    return flat[:, :, 0] if flat.shape[2] == 1 else flat.sum(axis=2, dtype=np.float64)


def deletions(size: int, rate: float) -> int:
    """How many of a cluster of this size are deleted: its share, rounded half up, never all."""
    return min(int(np.floor(rate * size + 0.5 + 1e-9)), size - 1)


def quotas(tree: Tree, rate: float, count: int) -> tuple[Indices, Indices]:
    """Labels at the smallest distance threshold whose clusters leave `count` filters, and how many each gives up.

    The threshold rises merge by merge. A merge adds one deletion at most, so that the number is met exactly, and at
    the latest when all are one cluster: the rate must be at least that of the whole.
    """
    given, merges = 0, 0
    sizes = [1] * tree.leaves
    while given < tree.leaves - count:
        parts = [sizes[part] for part in tree.pairs[merges]]
        sizes.append(sum(parts))
        given += deletions(sizes[-1], rate) - sum(deletions(part, rate) for part in parts)
        merges += 1
    labels = tree.cut(tree.leaves - merges)
    return labels, np.array([deletions(int(size), rate) for size in np.bincount(labels)])


def thin(members: Indices, distance: Floats, energies: Floats, quota: int) -> Indices:
    """The members of a cluster that stay after `quota` deletions.

    One by one the filter with the smallest mean distance to the mates that are left goes; of equals the one of smaller
    norm, then the later one.
    """
    mates = distance[np.ix_(members, members)]
    sums, stays = mates.sum(axis=1), np.ones(len(members), bool)
    for _ in range(quota):
        left = np.flatnonzero(stays)
        order = np.lexsort((-left, energies[members[left]], rounded(sums[left], 9)))
        gone = left[order[0]]
        stays[gone] = False
        sums -= mates[gone]
    return members[stays]
