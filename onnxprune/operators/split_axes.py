"""Axes of channels that were split into factors along which the labels vary: what is kept of them, and new factors.

`onnxprune.operators.boxes` says what split axes are for.  `dims` are the axes of the value that are factors, `factors`
the paths to them: 12 channels that are split into (3, 4), and the 4 into (2, 2) later on, have the factors (0,), (1, 0)
and (1, 1).  So every factor knows whether it is a part of the one that carries the labels elsewhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Axes, Factor, Labels, Product, fixed, is_fixed, line

LARGEST_SPLIT = 1 << 22  # labels; beyond that the channels are frozen instead


@dataclass(frozen=True)
class Origin:
    """The plain axis that a split axis was split from, while the elements have kept their order elsewhere.

    value: its key.
    shape: of all of its axes.
    """

    value: str
    axis: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SplitAxis:
    """Factors of one channel axis whose labels vary along more than one of them."""

    dims: tuple[int, ...]  # axes of the value, one for each axis of `labels`
    labels: np.ndarray  # sizes of those axes
    order: np.ndarray  # same shape: position of each element on the axis it came from
    origin: Origin | None
    root: int  # the node that split the axis
    factors: tuple[Factor, ...]  # which factor of the axis each of `dims` is

    def axis(self, dim: int) -> int:
        return self.dims.index(dim)


@dataclass(frozen=True)
class FoldedShuffle:
    """A moved and merged split axis in one step: the output is `Gather(origin.value, order, origin.axis)`.

    order: (positions,), of each position of the output the one on the axis of the origin.
    """

    origin: Origin
    order: Labels


@dataclass(frozen=True)
class Value:
    """A tensor under analysis: the labels of each axis; those of split axes are in the split axis."""

    axes: Axes
    split_axis: SplitAxis | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(x.size for x in self.axes)

    @cached_property
    def has_labels(self) -> bool:
        """Whether any position may die."""
        return self.split_axis is not None or not all(map(is_fixed, self.axes))

    @property
    def labels(self) -> list[Labels]:
        """Those of all axes that have some, the split ones in one array."""
        split = [self.split_axis.labels.ravel()] if self.split_axis else []
        return [x for x in self.axes if not is_fixed(x)] + split

    def along(self, axis: int) -> Labels:
        """The labels of an axis; all those of its split axis where it is split."""
        split = self.split_axis is not None and axis in self.split_axis.dims
        return self.split_axis.labels.ravel() if self.split_axis is not None and split else self.axes[axis]


def factored(coupling: Coupling, value: Value, product: Product) -> Axes:
    """The factors of a product, in the order in which the axes of a value have them.

    Such is an axis that holds whole filters of a bank, (out · in · taps).
    """
    split = value.split_axis
    assert split is not None
    if sorted(split.factors) == sorted(product.factors):
        order = [product.factors.index(f) for f in split.factors]
        if np.array_equal(split.labels, product.labels.transpose(order)):
            parts = dict(zip(split.dims, (product.parts[k] for k in order), strict=True))
            return tuple(parts.get(d, x) for d, x in enumerate(value.axes))
    coupling.freeze(split.labels, why="splits it into other factors than its filters have")
    return tuple(fixed(x.size) if d in split.dims else x for d, x in enumerate(value.axes))


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Pair the shortest runs of two shapes that hold equally many elements, as slices of their axes, in order.

    Raises ValueError where the shapes do not.
    """
    if math.prod(old) != math.prod(new) or 0 in (*old, *new):
        raise ValueError(f"{tuple(old)} cannot be {tuple(new)}")
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (p := math.prod(old[a:i])) != (q := math.prod(new[b:j])):
            i, j = (min(i + 1, len(old)), j) if p < q else (i, min(j + 1, len(new)))
        yield slice(a, i), slice(b, j)


def keeps(value: Value, old: slice, new: tuple[int, ...]) -> bool:
    """Whether a block keeps its axes, but for axes of length 1 that come and go.

    Args:
        old: the axes of the value that are in it.
        new: the sizes of those that a reshape makes of them.
    """
    return [s for s in value.shape[old] if s != 1] == [s for s in new if s != 1]


def regrouped(value: Value, shape: tuple[int, ...]) -> Value | None:
    """The value with new factors of each split axis that is alone in its block, or among axes that cannot shrink.

    None where there is no such axis, or the labels would be too many.

    Args:
        value: with a split axis.
        shape: what it is reshaped to.

    Raises:
        ValueError: the shapes do not hold equally many elements, or none.
    """
    split = value.split_axis
    assert split is not None
    axes: list[Labels] = []
    start: dict[int, int] = {}
    anew: dict[int, tuple[slice, tuple[int, ...]]] = {}
    for old, new in blocks(value.shape, shape):
        inside = [d for d in split.dims if old.start <= d < old.stop]
        still = all(is_fixed(value.axes[d]) for d in range(old.start, old.stop))
        if len(inside) == 1 and still and not keeps(value, old, shape[new]):
            start[inside[0]], anew[inside[0]] = len(axes), (old, shape[new])
            axes += map(fixed, shape[new])
        else:
            start.update({d: len(axes) + d - old.start for d in inside})
            axes += value.axes[old]
    sizes = [math.prod(anew[d][1]) if d in anew else value.axes[d].size for d in split.dims]
    if not anew or math.prod(sizes) > LARGEST_SPLIT:
        return None
    return _simplified(Value(tuple(axes), _refactored(value, split, start, anew)))


def _refactored(
    value: Value, split: SplitAxis, start: Mapping[int, int], anew: Mapping[int, tuple[slice, tuple[int, ...]]]
) -> SplitAxis:
    """A split axis of which some axes have new factors: for each its block and the new sizes."""
    labels, order, origin = split.labels, split.order, split.origin
    dims: list[int] = []
    factors: list[Factor] = []
    for d, factor in zip(split.dims, split.factors, strict=True):
        k = len(dims)
        if d not in anew:
            dims.append(start[d])
            factors.append(factor)
            continue
        old, new = anew[d]
        wide = [j for j, size in enumerate(new) if size > 1]
        column = np.arange(value.axes[d].size).reshape([-1 if j == d else 1 for j in range(old.start, old.stop)])
        line = np.broadcast_to(column, value.shape[old]).ravel()
        if line.size > column.size:
            origin = None
        sizes = (*labels.shape[:k], *(new[j] for j in wide), *labels.shape[k + 1 :])
        labels, order = labels.take(line, k).reshape(sizes), order.take(line, k).reshape(sizes)
        dims += [start[d] + j for j in wide]
        factors += [(*factor, j) for j in range(len(wide))]
    return SplitAxis(tuple(dims), labels, order, origin, split.root, tuple(factors))


def _simplified(value: Value) -> Value:
    """The value without those split axes along which its labels only repeat."""
    split = value.split_axis
    assert split is not None
    count = range(len(split.dims))
    gone = [k for k in count if (split.labels == _across(split.labels, k)).all()]
    stay = [k for k in count if k not in gone] or gone[-1:]
    first = tuple(slice(None) if k in stay else 0 for k in count)
    labels, dims = split.labels[first], tuple(split.dims[k] for k in stay)
    origin = split.origin if all(_tells_samples_apart(value, split, k) for k in count if k not in stay) else None
    if len(stay) <= 1 and origin is None:
        return Value(tuple(labels if (d,) == dims else x for d, x in enumerate(value.axes)))
    factors = tuple(split.factors[k] for k in stay)
    return Value(value.axes, SplitAxis(dims, labels, split.order[first], origin, split.root, factors))


def _tells_samples_apart(value: Value, split: SplitAxis, k: int) -> bool:
    """Whether factor k is the axis before the one that was split, in its old place."""
    if (origin := split.origin) is None:
        return False
    steps = np.arange(split.order.shape[k]) * origin.shape[origin.axis]
    steps = steps.reshape(line(split.order.ndim, k))
    behind = all(d > split.dims[k] for d, x in enumerate(value.axes) if d not in split.dims and x.size > 1)
    return behind and bool((split.order == _across(split.order, k) + steps).all())


def _across(grid: np.ndarray, k: int) -> np.ndarray:
    """The first slice of a grid across axis k, with all axes kept."""
    return grid[tuple(slice(1) if j == k else slice(None) for j in range(grid.ndim))]
