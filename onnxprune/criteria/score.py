"""How much each channel of a group matters by itself: one number per filter, high is worth keeping."""

import zlib
from collections.abc import Callable

import numpy as np

from onnxprune.criteria.cluster import best_of, within
from onnxprune.criteria.filters import Filters, Floats, Indices, rounded
from onnxprune.criteria.similarity import square, squared_distances
from onnxprune.errors import UsageError


def l1(filters: Filters) -> Floats:
    """Sum of absolute weights over all writers: `(channels,)`."""
    return filters.reduce(lambda tile: np.abs(tile).sum(axis=1))[0].sum(axis=1)


def l2(filters: Filters) -> Floats:
    """Euclidean norm of the concatenated filter, the root of the squares summed over all writers: `(channels,)`."""
    return np.sqrt(filters.energies)


def fpgm(filters: Filters) -> Floats:
    """Sum of Euclidean distances to all other filters of the group: `(channels,)`."""
    return square(np.sqrt(squared_distances(filters)), 0.0).sum(axis=1)


def bn(filters: Filters) -> Floats:
    """Sum of |γ| over the BatchNormalizations behind the writers: `(channels,)`.

    Raises `UsageError` where none stands unfused: another score in its place would not be comparable.
    """
    if not filters.scales:
        raise UsageError("'bn' needs an unfused BatchNormalization behind the layer: use 'l2' or 'ncc' (weights only)")
    return np.abs(np.stack(filters.scales).astype(np.float64)).sum(axis=0)


def random(filters: Filters, seed: int) -> Floats:
    """Uniform numbers drawn for the filters in an order given by their weights: `(channels,)`.

    They are bound to the weights, so that they move with a permutation and differ from group to group.
    """
    content = zlib.crc32(np.sort(filters.energies).tobytes())
    score = np.empty(filters.channels)
    score[filters.canonical] = np.random.default_rng([seed, content]).random(filters.channels)
    return score


def representative(rule: str, energies: Floats, distance: Floats) -> Callable[[Indices], Indices]:
    """From labels to the one filter that stays of each cluster, sorted.

    "norm": the largest L2 norm. "medoid": the smallest mean distance to its mates. "nearest": the smallest distance to
    its cluster's mean, which is the smallest mean squared distance to its mates, as the two differ by a constant of the
    cluster. "first": the first. Of equals always the first.
    """
    rules: dict[str, Callable[[Indices], Indices]] = {
        "norm": lambda labels: best_of(labels, energies),
        "medoid": lambda labels: best_of(labels, -rounded(within(labels, distance))),
        "nearest": lambda labels: best_of(labels, -rounded(within(labels, distance, 2))),
        "first": lambda labels: best_of(labels, np.zeros(len(labels))),
    }
    return rules[rule]
