"""Groups of like filters: seeded k-means and spectral clustering on Gram matrices, and shares of clusters.

A clustering is one label per channel, `(channels,)`, with every label from 0 up in use.
"""

import numpy as np
from scipy.linalg import eigh, eigh_tridiagonal, lapack
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from onnxprune.criteria.filters import Floats, Indices, rounded


def best_of(labels: Indices, score: Floats) -> Indices:
    """Of each cluster the member of the highest score, the first of equals; sorted: `(clusters,)`."""
    order = np.lexsort((-score, labels))
    return np.sort(order[np.flatnonzero(np.diff(labels[order], prepend=-1))])


def within(labels: Indices, distance: Floats, power: int = 1) -> Floats:
    """Mean distance, to a power, of each member to all of its own cluster: `(channels,)`."""
    order, starts, sizes = _runs(labels)
    result = np.empty(len(labels))
    for start, size in zip(starts, sizes, strict=True):
        members = order[start : start + size]
        result[members] = (distance[np.ix_(members, members)] ** power).sum(axis=1) / size
    return result


def apportion(sizes: Indices, seats: int) -> Indices:
    """Seats for each cluster in proportion to its size by largest remainder: at least one, at most its size.

    There must be at least as many seats as clusters, and at most as many as members.
    """
    share = sizes * (seats / sizes.sum())
    given = np.maximum(np.floor(share + 1e-9).astype(np.int64), 1)
    while missing := seats - int(given.sum()):
        may = given < sizes if missing > 0 else given > 1
        want = np.where(may, np.sign(missing) * rounded(share - given), -np.inf)
        chosen = np.argsort(-want, kind="stable")[: min(abs(missing), int(may.sum()))]
        given[chosen] += np.sign(missing)
    return given


def _runs(labels: Indices) -> tuple[Indices, Indices, Indices]:
    """Members ordered by cluster, where each cluster starts in that order, and its size."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return order, starts, np.diff(starts, append=len(labels))


def kmeans(gram: Floats, clusters: int, *, seed: int, restarts: int, iterations: int = 100) -> Indices:
    """Lloyd's k-means of points known by their `(points, points)` Gram matrix; the best of `restarts` seeded starts.

    Distances to a mean follow from sums of the Gram matrix, so that an iteration costs points² additions, however
    many dimensions and clusters there are. Starts are drawn by k-means++ (Arthur and Vassilvitskii, SODA 2007); a
    cluster that runs empty takes the point that is farthest from its mean, so that exactly `clusters` come out.
    """
    generator = np.random.default_rng(seed)
    gram = rounded(gram)
    best, least = np.zeros(len(gram), np.int64), np.inf
    for _ in range(restarts):
        labels, inertia = _lloyd(gram, _plus_plus(gram, clusters, generator), clusters, iterations)
        if inertia < least * (1 - 1e-9) or not np.isfinite(least):
            best, least = labels, inertia
    return best


def _plus_plus(gram: Floats, clusters: int, generator: np.random.Generator) -> Indices:
    """Labels by the nearest of `clusters` points, each drawn with a chance that grows with its squared distance."""
    energy = gram.diagonal()
    distance, labels = np.full(len(gram), np.inf), np.zeros(len(gram), np.int64)
    free = np.ones(len(gram))
    tiny = 1e-9 * float(energy.max())
    for cluster in range(clusters):
        apart = cluster > 0 and bool((distance > 0).any())
        edges = np.cumsum(distance if apart else free)  # when all points lie on centres, any free one will do
        centre = int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))
        to_centre = energy + energy[centre] - 2 * gram[centre]
        to_centre[to_centre <= tiny] = 0.0
        nearer = to_centre < distance
        nearer[centre] = True
        distance[nearer], labels[nearer] = to_centre[nearer], cluster
        free[centre] = 0.0
    return labels


def _lloyd(gram: Floats, labels: Indices, clusters: int, iterations: int) -> tuple[Indices, float]:
    """Labels and the sum of squared distances to the means, when that sum falls no more."""
    energy, points = gram.diagonal(), np.arange(len(gram))
    least = np.inf
    for _ in range(iterations):
        sizes = np.bincount(labels, minlength=clusters)
        members = csr_array((1 / sizes[labels], (labels, points)), shape=(clusters, len(gram)))
        products = members @ gram  # (clusters, points): each mean with each point
        mean_energy = members @ products[labels, points]
        distance = mean_energy[:, None] - 2 * products
        moved = np.argmin(distance, axis=0)
        own = distance[moved, points] + energy
        if own.sum() >= least * (1 - 1e-9):
            break
        least = own.sum()
        labels = repair(moved, own, clusters)
    return labels, float(least)


def repair(labels: Indices, distance: Floats, clusters: int) -> Indices:
    """Give every empty cluster the point that lies farthest from its mean and does not stand alone."""
    sizes = np.bincount(labels, minlength=clusters)
    labels = labels.copy()
    farthest = iter(np.argsort(-rounded(distance), kind="stable"))
    for empty in np.flatnonzero(sizes == 0):
        point = next(p for p in farthest if sizes[labels[p]] > 1)
        sizes[labels[point]] -= 1
        sizes[empty] = 1
        labels[point] = empty
    return labels


def spectral(affinity: Floats, clusters: int, *, seed: int, restarts: int) -> Indices:
    """Normalised spectral clustering (Ng, Jordan and Weiss, NIPS 2001) of a `(points, points)` affinity.

    The points are the rows of the eigenvectors of the `clusters` smallest eigenvalues of the symmetric normalised
    Laplacian, scaled to unit length, and k-means parts them. It needs their products only, which are the entries of
    the projection onto that space: where more than half of the eigenvectors are wanted, the others are computed.
    """
    return kmeans(_embedding(affinity, clusters), clusters, seed=seed, restarts=restarts)


def _normalised(affinity: Floats) -> Floats:
    """D^-½ W D^-½, which is the identity minus the symmetric normalised Laplacian."""
    root = np.sqrt(affinity.sum(axis=1))
    result = affinity / root
    result /= root[:, None]
    return result


def _embedding(affinity: Floats, dimensions: int) -> Floats:
    """Gram matrix of the scaled rows of the eigenvectors of the smallest eigenvalues: `(points, points)`.

    One thread: the reduction to tridiagonal form gains little from more and its last digits depend on their number.
    """
    points = len(affinity)
    few = min(dimensions, points - dimensions)
    if few == 0:
        return np.eye(points)
    leading = few == dimensions
    with threadpool_limits(limits=1, user_api="blas"):
        vectors = _eigenvectors(_normalised(affinity), points - few if leading else 0, few)
        projection = vectors @ vectors.T
    if not leading:
        projection = np.eye(points) - projection
    length = np.sqrt(np.maximum(projection.diagonal(), 0))
    length[length < 1e-9] = 1.0  # a point without any part in this space stays where it is, at the origin
    projection /= length
    projection /= length[:, None]
    return projection


def _eigenvectors(matrix: Floats, first: int, few: int) -> Floats:
    """The eigenvectors of the `few` eigenvalues from the `first` smallest on, of a symmetric matrix that is used up.

    `scipy.linalg.eigh` step by step, but only the wanted vectors of the tridiagonal matrix are turned back: for half
    of 2,048 vectors 0.8 seconds where it takes 1.0 for all (driver "evd") and 1.5 for the half (`subset_by_index`).
    """
    work = int(lapack.dsytrd_lwork(len(matrix), lower=1)[0])
    reflectors, diagonal, beside, tau, _ = lapack.dsytrd(matrix.T, lower=1, lwork=work, overwrite_a=1)
    vectors = np.asfortranarray(eigh_tridiagonal(diagonal, beside)[1][:, first : first + few])
    vectors[1:] = lapack.dormqr("L", "N", reflectors[1:, :-1], tau, vectors[1:], lwork=64 * few)[0]
    return vectors


def eigengap(affinity: Floats, most: int) -> int:
    """The number of clusters, from 1 to `most`, after which the Laplacian's eigenvalues rise furthest."""
    points = len(affinity)
    with threadpool_limits(limits=1, user_api="blas"):
        values = eigh(_normalised(affinity), eigvals_only=True, subset_by_index=(max(0, points - most - 1), points - 1))
    return int(np.argmax(rounded(np.diff(-values[::-1]), 8))) + 1 if points > 1 else 1
