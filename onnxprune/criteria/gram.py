"""Products of all filters of a group with all: exact Gram matrices, as they lie or with their kernels shifted.

The filters are scaled and rounded to integers that are small enough for every sum of products to be exact in the
floating-point type of the matrix product. So the order of summation does not matter, and the result has the same
bytes with any number of threads and any BLAS. Rounding moves a cosine by about 1e-8 where the product runs in float64
and by about 1e-4/√blocks where it runs in float32 (wide layers of thousands of filters); equal filters keep a cosine
of exactly 1. Where a layer asks for more than 2³⁸ products (VGG's 4,096 filters of 25,088 weights), pairs of columns
are added up with fixed random signs first, which halves the time and moves a cosine by about 1/√columns, 1 % there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from onnxprune.criteria.filters import Filters, Floats, tiles

Shift = tuple[int, ...]

DOUBLE_WORK = 1 << 28  # products (channels² · weights) up to which float64 costs too little to save
FOLDED_WORK = 1 << 38  # products from which on columns are added up in pairs

PANEL = 1024  # rows of products that are computed at once, which bounds what that takes beside the sum

FLAT = 1e-12  # a filter with less than this share of its energy around its mean is constant


@dataclass(frozen=True)
class Integers:
    """Filters minus their means, scaled row by row so that products of their rounded values are summed exactly.

    float64 holds integers to 2⁵³ and float32 to 2²⁴. A sum of products of two rows is at most the product of their
    norms (Cauchy-Schwarz), and so is every partial sum: norms up to 2²⁶ and 2¹² are safe. In float32 the bound holds
    for one block of columns, and blocks are added up in float64.
    """

    filters: Filters
    mean: Floats  # (channels,)
    scale: Floats  # (channels,), 0 for a row that has nothing left
    dtype: type  # np.float32 or np.float64

    def blocks(self) -> Iterator[NDArray]:
        """The integers as floats, `(channels, some inputs, *kernel)` at a time, in the same memory every time."""
        memory: NDArray = np.empty(max(block.size for block in self.filters.blocks()), self.dtype)
        for block in self.filters.blocks():
            result = memory[: block.size].reshape(block.shape)
            column = (-1, *[1] * (block.ndim - 1))
            for rows in tiles(block):
                tile = block[rows].astype(np.float64)  # at once, which is faster than operand by operand
                tile -= self.mean[rows].reshape(column)
                tile *= self.scale[rows].reshape(column)
                result[rows] = np.rint(tile, out=tile)
            yield result


def integers(filters: Filters, centred: bool) -> Integers:
    """Scale the filters for exact Gram matrices; `centred` takes each filter's own mean away first."""
    width = filters.width
    sums, energies = filters.moments
    mean = filters.totals / width if centred else np.zeros(filters.channels)
    widths = np.array([block[0].size for block in filters.blocks()])
    energies = energies - (2 * sums - mean[:, None] * widths) * mean[:, None]  # around the mean, of each block
    gone = energies.sum(axis=1) <= FLAT * filters.energies  # of a constant filter only rounding errors are left
    single = filters.channels**2 * width > DOUBLE_WORK
    bound = energies.max(axis=1) if single else energies.sum(axis=1)
    widest = int(widths.max()) if single else width
    norm = 2.0 ** (12 if single else 26) - np.sqrt(widest) / 2 - 1  # rounding adds up to a half in each column
    scale = np.divide(norm, np.sqrt(np.where(gone, 1, bound)), out=np.zeros(filters.channels), where=~gone)
    return Integers(filters, mean, scale, np.float32 if single else np.float64)


def gram(rows: Integers, fold: bool = False) -> Floats:
    """Products of all filters with all: the upper triangle of `(channels, channels)`, zeros below; exact.

    With `fold`, those of the filters after pairs of their columns were added up, where there are very many.
    """
    channels = rows.filters.channels
    work = channels**2 * rows.filters.width
    alone = sum(1 for _ in rows.filters.blocks()) == 1  # whose sums need no more digits than it has
    total: NDArray = np.zeros((channels, channels), rows.dtype if alone else np.float64)
    multiply = blas.ssyrk if rows.dtype is np.float32 else blas.dsyrk
    with _libraries().limit(limits=1, user_api="blas"):
        for block in rows.blocks():
            columns = block.reshape(channels, -1)
            if fold and work > FOLDED_WORK:
                columns = folded(columns)
            if total.dtype == columns.dtype:
                multiply(1.0, columns.T, beta=1.0, c=total.T, trans=1, lower=1, overwrite_c=1)
                continue
            for start in range(0, channels, PANEL):
                stop = start + PANEL
                own = columns[start:stop]
                total[start:stop, start:stop] += multiply(1.0, own.T, trans=1, lower=1).T
                total[start:stop, stop:] += own @ columns[stop:].T
    return total


def folded(columns: NDArray) -> NDArray:
    """The first half of the columns plus or minus the second one: `(channels, columns / 2)`, scaled to stay exact.

    The signs are fixed. Products of rows keep their value on average (Achlioptas, J. Computer and System Sciences
    66(4), 2003, doi 10.1016/S0022-0000(03)00025-4), and equal rows stay equal.
    """
    half = (columns.shape[1] + 1) // 2
    signs = np.random.default_rng(0).choice(np.array([-1, 1], columns.dtype), columns.shape[1] - half)
    result = columns[:, :half].copy()
    for rows in tiles(columns):
        result[rows, : signs.size] += columns[rows, half:] * signs
    result *= columns.dtype.type(0.7)  # norms grow by up to √2, and rounding adds a little
    return np.rint(result, out=result)


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The BLAS libraries of this process; finding them takes longer than a small product."""
    return ThreadpoolController()


def shifted_gram(rows: Integers, shift: Shift) -> Floats:
    """Products of all filters with all filters moved by `shift` positions of the kernel: `(channels, channels)`."""
    channels = rows.filters.channels
    total = np.zeros((channels, channels))
    for block in rows.blocks():
        left, right = overlap(block, shift)
        if left.size:
            total += left.reshape(channels, -1) @ right.reshape(channels, -1).T
    return total


def overlap(block: NDArray, shift: Shift) -> tuple[NDArray, NDArray]:
    """The part of each kernel that lies on the same kernel moved by `shift`, and the part that it lies on.

    Nothing where the kernel is too small. Kernels of fewer axes than the shift are taken as 1 along the first ones.
    """
    kernel = (1,) * (len(shift) - block.ndim + 2) + block.shape[2:]
    block = block.reshape(*block.shape[:2], *kernel)
    here = [slice(max(0, -step), max(0, size - max(0, step))) for step, size in zip(shift, kernel, strict=True)]
    there = [slice(max(0, step), max(0, size - max(0, -step))) for step, size in zip(shift, kernel, strict=True)]
    return block[:, :, *here], block[:, :, *there]


def shifts(filters: Filters) -> list[Shift]:
    """Half of the shifts at which some writer's kernel overlaps itself; the other half are their negatives."""
    rank = max(weight.ndim for weight in filters.weights) - 2
    kernels = [(1,) * (rank - weight.ndim + 2) + weight.shape[2:] for weight in filters.weights]
    reach = [max(kernel[axis] for kernel in kernels) - 1 for axis in range(rank)]
    return [shift for shift in product(*(range(-r, r + 1) for r in reach)) if shift > (0,) * rank]
