"""Channel labels: one integer per position of every axis; equal labels live and die together.

Label 0 (`FIXED`) never dies.  Operators state equations between labels (`Coupling.tie`); the connected
components of all equations are the smallest sets of positions that can be removed without breaking a shape.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = np.ndarray  # int64, one per position of an axis
Axes = tuple[Labels, ...]  # one per axis of a value
Factor = tuple[int, ...]  # place among the factors of an axis, and among the factors of that factor, ...

FIXED = 0
LARGEST_FIXED = 1 << 28  # positions of an axis that never shrinks
LARGEST_AXIS = 1 << 22  # a longer axis is no channel axis, and its labels would take more than half a gigabyte


class LabelError(ValueError):
    """Labels do not fit: a rule and the shapes of a node disagree, or an axis is too long to label."""


@lru_cache(maxsize=4096)
def fixed(size: int) -> Labels:
    """Labels of an axis that never shrinks, without spending memory on its positions.

    Raises LabelError for more positions than can be looked at in passing.
    """
    if size > LARGEST_FIXED:
        raise LabelError(f"an axis of {size} positions is too long to follow")
    return np.broadcast_to(np.int64(FIXED), (size,))


def repeated(labels: Labels, times: int, *, each: bool = False) -> Labels:
    """An axis that stands there several times, one after the other or each position on its own.

    Raises LabelError for more positions than can be followed, and ValueError for fewer than none.
    """
    if is_fixed(labels):
        return fixed(labels.size * times)
    if labels.size * times > LARGEST_AXIS:
        raise LabelError(f"an axis of {labels.size * times} positions is too long to label")
    return np.repeat(labels, times) if each else np.tile(labels, times)


def line(rank: int, axis: int) -> tuple[int, ...]:
    """The shape, for numpy's reshape, of an array that lies along one axis of several."""
    return tuple(-1 if k == axis % rank else 1 for k in range(rank))


def is_fixed(labels: Labels) -> bool:
    """Whether no position of the axis can die, by what the labels say themselves."""
    return not any(labels.strides) or not labels.any()


class Kind(Enum):
    """What a tie is for, and the words that follow the node that made it."""

    PLAIN = ""
    BALANCES = "shrinks all its groups alike"  # groups that keep equally many channels, perhaps different ones
    COMBINES = "combines it with"  # a value that cannot shrink
    MERGES = "merges it with another axis that can shrink"


@dataclass(frozen=True)
class Cause:
    """Why labels were tied: the node whose rule did it, the kind of the tie, and a reason in words."""

    node: int  # position in the order of the analysis; -1 stands for the graph's own inputs and outputs
    why: str = ""
    kind: Kind = Kind.PLAIN


@dataclass(frozen=True)
class Choices:
    """What is cut where a structure leaves a choice; empty, each operator's own preference."""

    factors: Mapping[int, Factor] = field(default_factory=dict)  # node that splits an axis -> the factor that carries
    whole: frozenset[int] = frozenset()  # grouped convolutions that lose whole groups


@dataclass(frozen=True)
class Product:
    """Positions of one axis that are all combinations of channels: filters of a bank, (out · in · taps) in one axis.

    A position goes with any of the channels that it combines.
    """

    factors: tuple[Factor, ...]
    labels: Labels  # of the positions, one axis for each factor
    parts: tuple[Labels, ...]  # of the channels, for each factor

    def combined(self) -> list[Labels]:
        """For each factor the labels of the channels at every position, (positions,)."""
        columns = (part.reshape(line(len(self.parts), k)) for k, part in enumerate(self.parts))
        return [np.broadcast_to(column, self.labels.shape).ravel() for column in columns]


class Coupling:
    """A growing set of equations between labels."""

    def __init__(self, chosen: Choices = Choices()) -> None:
        self.size = 1
        self.chosen = chosen
        self.node = -1
        self.left: list[Labels] = []
        self.right: list[Labels] = []
        self.causes: list[Cause] = []
        self.written: list[Labels] = []  # of the filters of layers
        self.factors: dict[int, Factor] = dict(chosen.factors)  # node that splits an axis -> factor with its labels
        self.products: dict[int, Product] = {}  # node that splits an axis -> what its factors are
        self.splits: dict[int, tuple[tuple[Factor, ...], Labels]] = {}  # such a node -> factors, and labels along them

    def label(self, size: int) -> Labels:
        """New labels for an axis.  An axis of one position cannot shrink."""
        return fixed(size) if size <= 1 else self.fresh(size)

    def fresh(self, size: int) -> Labels:
        """New labels for some positions of an axis that has others too."""
        if size > LARGEST_AXIS:
            raise LabelError(f"an axis of {size} positions is too long to label")
        self.size += size
        return np.arange(self.size - size, self.size)

    def tie(self, first: Labels, *others: Labels, why: str = "", kind: Kind = Kind.PLAIN) -> Labels:
        """State that labels are equal, position by position (arrays broadcast), and return the first."""
        for other in others:
            if first is other or (is_fixed(first) and is_fixed(other)):
                continue
            if first.ndim == other.ndim == 1 and first.size != other.size:
                raise LabelError(f"cannot tie {first.size} labels to {other.size}")
            a, b = np.broadcast_arrays(first, other)
            self.left.append(a.ravel())
            self.right.append(b.ravel())
            self.causes.append(Cause(self.node, why or kind.value, kind))
        return first

    def freeze(self, *labels: Labels, why: str = "", kind: Kind = Kind.PLAIN) -> None:
        """State that no position of these axes can die, and why (in words that follow "because it")."""
        for x in labels:
            if not is_fixed(x):
                self.tie(x, fixed(1) if x.ndim == 1 and x.size == 1 else np.zeros_like(x), why=why, kind=kind)

    def broadcast(self, *values: Axes | None) -> Axes:
        """Axes of a numpy-style broadcast of values; axes of equal length are tied."""
        given = [reversed(v) for v in values if v is not None]
        columns = itertools.zip_longest(*given, fillvalue=fixed(1))
        return tuple(self.join([x for x in column if x.size != 1] or column[:1]) for column in columns)[::-1]

    def join(self, column: Sequence[Labels]) -> Labels:
        """Tie axes of equal length; the outcome carries no labels where any of them cannot shrink."""
        first = next((x for x in column if is_fixed(x)), column[0])
        return self.tie(first, *(x for x in column if x is not first), kind=Kind.COMBINES)

    def is_written(self, labels: Labels) -> bool:
        """Whether a layer is known to make one of these channels."""
        return any(np.isin(labels, x).any() for x in self.written)

    def edges(self) -> tuple[Labels, Labels, np.ndarray]:
        """All equations as (left, right, index of the cause)."""
        if not self.left:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        sizes = [x.size for x in self.left]
        return np.concatenate(self.left), np.concatenate(self.right), np.repeat(np.arange(len(sizes)), sizes)

    def solve(self) -> Labels:
        """Component of every label: (labels,) int; the component of `FIXED` cannot be removed."""
        left, right, _ = self.edges()
        graph = coo_array((np.ones(left.size, bool), (left, right)), (self.size, self.size))
        return connected_components(graph, directed=False)[1]
