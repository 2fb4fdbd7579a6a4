"""How alike the filters of a group are: normalised cross-correlation, cosine and distance, from Gram matrices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import squareform

from onnxprune.criteria.filters import Filters, Floats, Indices, tiles
from onnxprune.criteria.gram import FLAT, Shift, gram, integers, overlap, shifted_gram, shifts

Measure = Literal["ncc", "cosine"]
Lag = Literal["zero", "spatial"]

SAMPLED = 64  # filters whose similarities with the others tell how those of all are spread


@dataclass(frozen=True, eq=False)
class Similarities:
    """The similarity of each pair of filters, divided out of their products when it is asked for.

    products: of all filters with all, of which the upper triangle is read: `(channels, channels)`.
    energies: of each filter with itself: `(channels,)`; `√(e·e)` is exactly e, which makes equal filters exactly 1.
    zero: filters that are all zero, and get 1 with every other: `(channels,)`.
    flat: signs of constant filters, 0 for the others: `(channels,)`; their products are 0.
    """

    products: Floats
    energies: Floats
    zero: NDArray[np.bool_]
    flat: Floats

    def of(self, products: Floats, rows: Indices | slice, columns: Indices | slice) -> Floats:
        """Similarities of these products, which are those of rows with columns, broadcast against each other."""
        outer = self.energies[rows] * self.energies[columns]
        np.sqrt(np.maximum(outer, 1, out=outer), out=outer)  # energies are integers, and where one is 0, products are
        result = np.divide(products, outer, out=outer)
        if self.flat.any():
            result += self.flat[rows] * self.flat[columns]
        if self.zero.any():
            result[self.zero[rows] | self.zero[columns]] = 1.0
        return result

    def pairs(self) -> Floats:
        """Of all pairs: `(pairs,)`, in the order of `square`."""
        return condense(self.products, self.of)

    def above(self, least: float) -> tuple[Indices, Indices, Floats]:
        """Pairs that are at least so similar, in the order of `square`: one filter, the other, and their similarity.

        Only those that come near are divided by their norms.
        """
        norms, near, short = np.sqrt(self.energies), [], least - 1e-12
        for rows in tiles(self.products):
            norm = norms[rows].min() if short > 0 else norms[rows].max()
            lowest = np.floor(norms[rows.start :] * (short * norm)).astype(self.products.dtype)
            found = np.flatnonzero(self.products[rows, rows.start :] >= lowest)
            near.append(np.stack(np.divmod(found, len(lowest))) + rows.start)
        first, second = np.concatenate(near, axis=1)
        similar = self.of(self.products[first, second], first, second)
        chosen = np.flatnonzero((similar >= least) & (first < second))
        return first[chosen], second[chosen], similar[chosen]

    def quantile(self, share: float) -> float:
        """The similarity that about this share of all pairs exceeds, by those of `SAMPLED` filters with later ones."""
        channels = len(self.products)
        rows = np.arange(0, channels - 1, max(1, channels // SAMPLED))
        sampled = self.of(self.products[rows], rows[:, None], slice(None))
        later = sampled[rows[:, None] < np.arange(channels)]
        place = int((1 - share) * (len(later) - 1))
        return float(np.partition(later, place)[place])


def cosines(filters: Filters, absolute: bool = False, fold: bool = True) -> Similarities:
    """Cosine of each pair of filters; `absolute` takes the magnitude, `fold` is that of `gram`.

    An all-zero filter is 0 times any other, a scaled copy: its cosine with all is 1.
    """
    products = gram(integers(filters, centred=False), fold)
    products = np.abs(products, out=products) if absolute else products
    energies = products.diagonal().astype(np.float64)
    return Similarities(products, energies, filters.energies == 0, np.zeros(filters.channels))


def correlations(filters: Filters, lag: Lag = "zero", absolute: bool = False) -> Similarities:
    """Normalised cross-correlation of each pair of filters over inputs and kernel.

    `NCC(i, j) = Σ (Fᵢ−mᵢ)(Fⱼ−mⱼ) / (‖Fᵢ−mᵢ‖ ‖Fⱼ−mⱼ‖)`, m a filter's mean over all its weights. With lag "spatial",
    the largest over all shifts of one filter's kernel against the other's, zeros beyond the edge; all writers of a
    coupled group shift together, and one whose kernel is too small for a shift adds nothing to it. Each shift is one
    matrix product: 13 for a 3×3 kernel. `absolute` takes the magnitude.

    Where the formula divides by zero: constant filters of the same sign are scaled copies and get 1, of opposite
    signs −1; with a filter that varies they have 0. An all-zero filter is 0 times any other and gets 1 with all.
    """
    rows = integers(filters, centred=True)
    best = gram(rows, fold=lag == "zero")
    energies = best.diagonal().astype(np.float64)
    best = np.abs(best, out=best) if absolute else best
    for shift in shifts(filters) if lag == "spatial" else []:
        moved = shifted_gram(rows, shift)
        moved = np.abs(moved, out=moved) if absolute else moved
        best = np.maximum(best, moved)
        np.maximum(best, moved.T, out=best)
    signs = np.where(rows.scale == 0, np.sign(filters.totals), 0.0)
    return Similarities(best, energies, filters.energies == 0, np.abs(signs) if absolute else signs)


def condense(matrix: Floats, function: Callable[[Floats, Indices, slice], Floats]) -> Floats:
    """`function` of the upper triangle of `(channels, channels)`: `(pairs,)`, row by row without the diagonal.

    It is given tiles of the matrix with the rows, as a column, and the columns that they are.
    """
    channels = len(matrix)
    result = np.empty(channels * (channels - 1) // 2)
    filled = 0
    for rows in tiles(matrix):
        columns = slice(rows.start, channels)
        tile = function(matrix[rows, columns], np.arange(channels)[rows, None], columns)
        for k, row in enumerate(tile, 1):
            result[filled : filled + len(row) - k] = row[k:]
            filled += len(row) - k
    return result


def square(pairs: Floats, diagonal: float) -> Floats:
    """The symmetric `(channels, channels)` matrix of pairs (0, 1), (0, 2) ... (1, 2) ... and a diagonal."""
    if not len(pairs):
        return np.full((1, 1), diagonal)
    matrix = squareform(pairs, checks=False)
    np.fill_diagonal(matrix, diagonal)
    return matrix


def similarities(filters: Filters, measure: Measure = "ncc", lag: Lag = "zero", absolute: bool = False) -> Similarities:
    """Cosine or normalised cross-correlation of each pair of filters."""
    return correlations(filters, lag, absolute) if measure == "ncc" else cosines(filters, absolute)


def squared_distances(filters: Filters) -> Floats:
    """Squared Euclidean distance of each pair of filters: `(pairs,)`, 0 between equal filters."""
    alike, energies = cosines(filters, fold=False), filters.energies

    def distance(tile: Floats, rows: Indices, columns: slice) -> Floats:
        result = alike.of(tile, rows, columns)
        result *= -2 * np.sqrt(energies[rows] * energies[columns])
        result += energies[rows] + energies[columns]
        return np.maximum(result, 0, out=result)

    return condense(alike.products, distance)


def pair_similarity(
    filters: Filters, left: Indices, right: Indices, measure: Measure, lag: Lag = "zero", absolute: bool = False
) -> Floats:
    """The same measures pair by pair in float64, without the rounding of the Gram matrices: `(pairs,)`."""
    step = max(1, (1 << 21) // filters.width)
    lags = [s for shift in shifts(filters) for s in (shift, tuple(-x for x in shift))] if lag == "spatial" else []
    parts = [np.ones(0)]
    for start in range(0, len(left), step):
        pair = slice(start, start + step)
        a, b = (filters.take(side[pair]) for side in (left, right))
        parts.append(_pairs(a, b, measure == "ncc", lags if measure == "ncc" else [], absolute))
    return np.concatenate(parts)


def _pairs(a: Filters, b: Filters, centred: bool, lags: list[Shift], absolute: bool) -> Floats:
    """Row by row similarity of two equally many filters: `(channels,)`."""
    x, y = ([_minus_mean(w, f, centred) for w in f.weights] for f in (a, b))
    energy_x, energy_y = (sum((w**2).reshape(len(w), -1).sum(axis=1) for w in side) for side in (x, y))
    flat_x, flat_y = energy_x <= FLAT * a.energies, energy_y <= FLAT * b.energies
    best = np.full(a.channels, -np.inf)
    for shift in [(0,) * (max(w.ndim for w in x) - 2), *lags]:
        products = np.zeros(a.channels)
        for v, w in zip(x, y, strict=True):
            here, there = overlap(v, shift)[0], overlap(w, shift)[1]
            products += (here * there).reshape(a.channels, -1).sum(axis=1)
        best = np.maximum(best, np.abs(products) if absolute else products)
    norm = np.sqrt(energy_x * energy_y)
    result = np.divide(best, norm, out=np.zeros(a.channels), where=~(flat_x | flat_y))
    signs = np.sign(a.totals * b.totals)
    result = np.where(flat_x & flat_y, np.abs(signs) if absolute else signs, result)
    return np.where((a.energies == 0) | (b.energies == 0), 1.0, result)


def _minus_mean(weight: NDArray, filters: Filters, centred: bool) -> Floats:
    mean = filters.totals / filters.width if centred else np.zeros(filters.channels)
    return weight.astype(np.float64) - mean.reshape(-1, *[1] * (weight.ndim - 1))
