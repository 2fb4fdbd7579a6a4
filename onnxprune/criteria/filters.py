"""The filters of a group of coupled channels, read a few columns at a time and never copied whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import ModelError, UsageError

COLUMNS = 1024  # of a filter matrix at a time, or more where that makes too many blocks
BLOCKS = 12  # at most, for one writer
TILE = 1 << 17  # elements that are worked on at once: 1 MiB in float64, which stays in cache

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Filters:
    """All weights that write the channels of one group; channel i's filter is the i-th row of each.

    A filter of a group is the concatenation of all weights that write the channel, so a coupled group (a residual
    stream, say) has several writers, each with its own number of inputs and its own kernel.

    weights: one array `(channels, inputs, *kernel)` per writer; the kernel is `()` for a fully connected layer.
    scales: one array `(channels,)` per BatchNormalization (its γ) that stands unfused behind a writer.

    Raises `UsageError` where the shapes do not fit together.
    """

    weights: tuple[NDArray, ...]
    scales: tuple[NDArray, ...] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            raise UsageError("a group of channels without any weight that writes it cannot be compared")
        shapes = [w.shape for w in self.weights]
        if any(w.ndim < 2 or w.size == 0 or w.shape[0] != self.channels for w in self.weights):
            raise UsageError(f"filters want weights of shape (channels, inputs, *kernel) that agree, not {shapes}")
        if any(s.shape != (self.channels,) for s in self.scales):
            raise UsageError(f"scales want shape ({self.channels},), not {[s.shape for s in self.scales]}")

    @property
    def channels(self) -> int:
        """How many filters there are."""
        return self.weights[0].shape[0]

    @property
    def width(self) -> int:
        """How many weights one filter has, over all writers."""
        return sum(w[0].size for w in self.weights)

    def take(self, channels: Indices) -> "Filters":
        """The filters of these channels, in this order (a copy of their weights)."""
        return Filters(tuple(w[channels] for w in self.weights), tuple(s[channels] for s in self.scales))

    def blocks(self) -> Iterator[NDArray]:
        """Views `(channels, some inputs, *kernel)`, some hundreds of weights wide, one writer after the other."""
        columns = max(COLUMNS, 64 * -(-self.width // (64 * BLOCKS)))
        for weight in self.weights:
            inputs = max(1, columns // weight[0, 0].size)
            for start in range(0, weight.shape[1], inputs):
                yield weight[:, start : start + inputs]

    def reduce(self, *functions: Callable[[Floats], Floats]) -> Floats:
        """Each function of each row of each block: `(functions, channels, blocks)`.

        A function is given tiles `(rows, columns)` in float64 and gives `(rows,)`. Rows are reduced one by one and
        without BLAS: the result does not depend on threads or on other channels.
        """
        return np.stack([_reduce_block(block, functions) for block in self.blocks()], axis=2)

    @cached_property
    def moments(self) -> Floats:
        """Sum and sum of squares of the weights of each row of each block: `(2, channels, blocks)`."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.reduce(lambda tile: tile.sum(axis=1), lambda tile: np.einsum("ij,ij->i", tile, tile))

    @property
    def totals(self) -> Floats:
        """The sum of each filter's weights: `(channels,)`."""
        return self.moments[0].sum(axis=1)

    @cached_property
    def energies(self) -> Floats:
        """The squared L2 norm of each filter: `(channels,)`. Raises `ModelError` for NaN or infinite weights."""
        energies = self.moments[1].sum(axis=1)
        if not np.isfinite(energies).all():
            bad = int(np.flatnonzero(~np.isfinite(energies))[0])
            raise ModelError(f"filter {bad} holds NaN or infinite weights and cannot be compared: leave its group out")
        return energies

    @property
    def strengths(self) -> Floats:
        """`energies`, and 0 for a filter that is erased by a zero γ behind each of its writers: `(channels,)`."""
        if len(self.scales) < len(self.weights):
            return self.energies
        return np.where(np.any(self.scales, axis=0), self.energies, 0.0)

    @cached_property
    def canonical(self) -> Indices:
        """An order of the channels that depends on their weights alone, so that seeded draws follow a permutation."""
        return np.lexsort((self.totals, self.energies))


def _reduce_block(block: NDArray, functions: tuple[Callable[[Floats], Floats], ...]) -> Floats:
    result = np.empty((len(functions), block.shape[0]))
    for rows in tiles(block):
        tile = block[rows].astype(np.float64, order="C")
        for k, function in enumerate(functions):
            result[k, rows] = function(tile.reshape(len(tile), -1))
    return result


def tiles(block: NDArray) -> Iterator[slice]:
    """Slices of rows of a block that hold about `TILE` elements each."""
    rows = max(1, TILE // max(1, block[0].size))
    edges = [*range(0, block.shape[0], rows), block.shape[0]]
    return (slice(start, stop) for start, stop in pairwise(edges))


def rounded(values: Floats, digits: int = 10) -> Floats:
    """Values without the last digits, relative to the largest, so that ties are ties whatever the order of sums."""
    top = float(np.abs(values).max(initial=0.0))
    if top == 0.0 or not np.isfinite(top):
        return values
    return np.round(values / top, digits)
