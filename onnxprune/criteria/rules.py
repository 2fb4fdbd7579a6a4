"""The methods themselves, each a frozen dataclass of its hyper-parameters that maps filters to a `Ranking`.

An option marked `published` has the paper's value; the others are readings of our own where the paper is silent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnxprune.criteria import cluster, linkage, score, structure
from onnxprune.criteria.eigen import EigenEnergy
from onnxprune.criteria.filters import Filters, Floats, Indices
from onnxprune.criteria.hyperparameters import option
from onnxprune.criteria.ranking import Ranking, ranking, tree_order
from onnxprune.criteria.similarity import Lag, Measure, pair_similarity, similarities, square, squared_distances
from onnxprune.errors import UsageError

LINKAGES = ("complete", "average", "single")
SLACK = 1e-6  # Gram matrices are that far off between scaled copies; what is removed is measured again


@dataclass(frozen=True)
class Ncc:
    """Agglomerative clusters of filters by normalised cross-correlation, one filter of each stays.

    N. A. Khan, A. M. S. Rafat, Journal of Information and Telecommunication 9(2), 2025,
    doi 10.1080/24751839.2024.2415008. Published: like filters form a cluster, likeness is the three-dimensional
    normalised cross-correlation, and nothing but the filters is used. Ours: how clusters form, which filter stays, and
    that filters which training has let fade leave first (`floor=0` keeps them: a faded filter resembles nothing).
    """

    measure: Measure = option(  # noqa: RUF009 - a field, made elsewhere
        "ncc", "likeness of two filters", choices=("ncc", "cosine"), published=True
    )
    lag: Lag = option(  # noqa: RUF009 - a field, made elsewhere
        "zero", "kernels as they lie, or best over all spatial shifts", choices=("zero", "spatial")
    )
    linkage: str = option("complete", "how likeness of clusters follows from that of filters", choices=LINKAGES)
    representative: str = option("norm", "which filter of a cluster stays", choices=("norm", "medoid", "first"))
    absolute: bool = option(False, "take opposite filters for alike, which no ReLU does")
    floor: float = option(
        0.1, "share of the median norm below which filters go first: they resemble nothing", low=0.0, high=1.0
    )

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        clusters = linkage.Clusters(similarities(filters, self.measure, self.lag, self.absolute), self.linkage)
        matrix = square(clusters.distances, 0.0) if self.representative == "medoid" else np.empty(0)
        choose = score.representative(self.representative, filters.energies, matrix)

        def removals() -> tuple[Indices, Floats]:
            return tree_order(clusters.tree, filters.energies, lambda height, _: 1 - np.maximum(0.0, 1 - height) ** 2)

        def duplicates(least: float) -> Indices:
            return self._confirmed(filters, clusters.tree.cut_at(1 - least + SLACK), choose, least)

        return Ranking(filters.channels, removals, lambda count: choose(clusters.labels(count)), duplicates)

    def _confirmed(
        self, filters: Filters, labels: Indices, choose: Callable[[Indices], Indices], least: float
    ) -> Indices:
        """One filter of each cluster, and every member that is less like it than it must be."""
        kept = choose(labels)
        owner = np.empty(len(kept), np.int64)
        owner[labels[kept]] = kept
        others = np.setdiff1d(np.arange(filters.channels), kept)
        like = pair_similarity(filters, others, owner[labels[others]], self.measure, self.lag, self.absolute)
        return np.sort(np.concatenate([kept, others[like < least - 1e-9]]))


@dataclass(frozen=True)
class Cshe:
    """k-means clusters of filters; in each those whose feature maps hold the largest eigenvalues stay.

    M. Shao et al., International Journal of Machine Learning and Cybernetics 13, 2022,
    doi 10.1007/s13042-021-01411-8. Published: clusters of filters class the feature maps, whose large eigenvalues rank
    the filters. Ours: the clusters' number, which eigenvalues count (`criteria.eigen.EigenEnergy` gathers them), and
    that each cluster keeps in proportion to its size, at least one.
    """

    clusters: int = option(0, "number of clusters; 0 for a quarter of the channels that stay", low=0)
    q: float = option(0.9, "eigenvalues that count: a number, or as few as hold this share of the energy", low=0.0)
    images: int = option(640, "calibration images", low=1)
    restarts: int = option(4, "starts of k-means, of which the best counts", low=1)
    seed: int = option(0, "of the starts", low=0)

    def gather(self) -> EigenEnergy:
        """What takes in feature maps, as they leave the activation, and gives the evidence as its `importance`."""
        return EigenEnergy(self.q)

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        if evidence is None:
            raise UsageError("'cshe' needs the importance of each channel's feature maps: give calibration images")
        importance = np.asarray(evidence, np.float64)
        norms = np.sqrt(filters.energies)
        gram = square(similarities(filters, "cosine").pairs(), 1.0) * (norms[:, None] * norms)
        shuffled = np.ascontiguousarray(gram[np.ix_(filters.canonical, filters.canonical)])
        by_importance = ranking(importance, loss=np.maximum(importance, 0))

        def pick(count: int) -> Indices:
            wanted = min(self.clusters or max(1, count // 4), count)
            labels = np.empty(filters.channels, np.int64)
            labels[filters.canonical] = cluster.kmeans(shuffled, wanted, seed=self.seed, restarts=self.restarts)
            return most_of_each(labels, by_importance.order, count)

        return replace(by_importance, pick=pick)


def most_of_each(labels: Indices, order: Indices, count: int) -> Indices:
    """Of each cluster its share of `count` by size, at least one: those that come last in `order`."""
    seats = cluster.apportion(np.bincount(labels), count)
    kept = []
    for channel in order[::-1]:
        if seats[labels[channel]] > 0:
            seats[labels[channel]] -= 1
            kept.append(channel)
    return np.array(kept, np.int64)


@dataclass(frozen=True)
class Apssf:
    """Clusters by what filters add up to over space and channels, each thinned by its share.

    L. Geng, B. Niu, International Journal of Computational Intelligence Systems 17, 2024,
    doi 10.1007/s44196-024-00518-4. Published: distances of reduced filters that keep the superposition of weights at
    each position, clusters under a distance threshold that adapts to the rate, a number deleted from each. Ours: the
    two reductions and their weights, the linkage, the share and which filters of a cluster go.
    """

    alpha: float = option(1.0, "weight of the spatial superposition", low=0.0)
    beta: float = option(1.0, "weight of the channel profile", low=0.0)
    linkage: str = option("average", "how distance of clusters follows from that of filters", choices=LINKAGES)
    share: float = option(
        0.0, "of a cluster that goes, at least the rate; 0 for halfway between the rate and all", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        if self.alpha == self.beta == 0:
            raise UsageError("with alpha and beta both 0 'apssf' compares nothing: give one of them a weight")

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        distance = structure.structural_distances(filters, self.alpha, self.beta)
        tree, distance = linkage.agglomerate(distance, self.linkage), square(distance, 0.0)
        energies = filters.energies
        unrelated = 2 * (self.alpha**2 + self.beta**2)  # squared distance of filters that have nothing in common
        removals = partial(tree_order, tree, energies, lambda height, _: np.minimum(1.0, height**2 / unrelated))

        def pick(count: int) -> Indices:
            rate = 1 - count / filters.channels
            labels, quota = structure.quotas(tree, max(self.share or (1 + rate) / 2, rate), count)
            members = (np.flatnonzero(labels == label) for label in range(len(quota)))
            left = [structure.thin(m, distance, energies, int(q)) for m, q in zip(members, quota, strict=True)]
            return np.concatenate(left)

        return Ranking(filters.channels, removals, pick)


@dataclass(frozen=True)
class Spectral:
    """Spectral clusters of a fully connected similarity graph, one filter of each stays.

    L. Li, J. Zhu, M.-T. Sun, IEICE Transactions on Information and Systems E102-D(12), 2019,
    doi 10.1587/transinf.2019EDL8118. Published: the graph over all filters, its spectral clusters, one filter of each.
    Ours: the Gaussian affinity and its width, the normalised Laplacian of Ng, Jordan and Weiss, and which filter stays.
    Equal filters are one vertex of the graph.
    """

    sigma: float = option(0.0, "width of the Gaussian in weights; 0 for the median distance of two filters", low=0.0)
    clusters: str = option(
        "count", "as many as stay, or at the eigengap and then a share of each", choices=("count", "eigengap")
    )
    representative: str = option("nearest", "which filter of a cluster stays", choices=("nearest", "norm", "medoid"))
    restarts: int = option(4, "starts of k-means, of which the best counts", low=1)
    seed: int = option(0, "of the starts", low=0)

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        distances = squared_distances(filters)
        tree, squares = linkage.agglomerate(np.sqrt(distances), "complete"), square(distances, 0.0)
        order, losses = tree_order(tree, filters.energies, lambda height, energy: np.minimum(1.0, height**2 / energy))
        first = np.unique(np.argmax(squares == 0, axis=1))  # of equal filters
        canonical = filters.canonical[np.isin(filters.canonical, first)]
        return Ranking(
            filters.channels,
            lambda: (order, losses),
            lambda count: self._pick(filters, squares, canonical, order, count),
        )

    def _pick(self, filters: Filters, squares: Floats, vertices: Indices, order: Indices, count: int) -> Indices:
        if count >= len(vertices):
            copies = np.setdiff1d(np.arange(filters.channels), vertices)
            return np.concatenate([vertices, copies[: count - len(vertices)]])
        between = squares[np.ix_(vertices, vertices)]
        affinity = gaussian(between, self.sigma)
        wanted = cluster.eigengap(affinity, count) if self.clusters == "eigengap" else count
        labels = cluster.spectral(affinity, wanted, seed=self.seed, restarts=self.restarts)
        if wanted < count:
            places = np.argsort(vertices)
            rank = np.searchsorted(vertices[places], order[np.isin(order, vertices)])
            return vertices[most_of_each(labels, places[rank], count)]
        choose = score.representative(self.representative, filters.energies[vertices], np.sqrt(between))
        return vertices[choose(labels)]


def gaussian(squares: Floats, sigma: float) -> Floats:
    """`exp(−d²/2σ²)` of squared distances; σ = 0 stands for the median distance between two filters."""
    if sigma == 0:
        size = len(squares)
        middle = size + (size * size - size) // 2  # behind the zeros of the diagonal
        sigma = float(np.sqrt(np.partition(squares.ravel(), middle)[middle]))
    return np.exp(squares / (-2 * sigma**2))


@dataclass(frozen=True)
class Scored:
    """The filters of the highest score stay."""

    score: Callable[[Filters], Floats]

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        return ranking(self.score(filters))


@dataclass(frozen=True)
class Obs:
    """Channels leave in the order in which the layers that read them can best be solved again without them.

    B. Hassibi and D. Stork, Second order derivatives for network pruning: Optimal brain surgeon, NeurIPS 1992, in
    blocks of the weights that read a channel. The order is found on samples, real or drawn
    (`surgery.recovery.loss_curves`); it comes as evidence: `(channels,)`, the first to leave has the least.
    """

    ridge: float = option(1e-3, "pull of re-solved weights toward the old ones", low=0.0)

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        if evidence is None:
            raise UsageError("'obs' needs the order in which channels leave best, which is found on samples")
        return ranking(np.asarray(evidence, np.float64), loss=np.maximum(evidence, 0))


@dataclass(frozen=True)
class Random:
    """Filters drawn by seed stay."""

    seed: int = option(0, "of the draws", low=0)

    def __call__(self, filters: Filters, evidence: Floats | None = None) -> Ranking:
        return ranking(score.random(filters, self.seed))
