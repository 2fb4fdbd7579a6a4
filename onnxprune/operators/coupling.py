"""What the rules of all nodes state: which labels are equal, and what the positions of weights are to channels."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.operators.labels import (
    LARGEST_AXIS,
    Axes,
    Cause,
    Choices,
    Factor,
    Kind,
    LabelError,
    Labels,
    Product,
    fixed,
    is_fixed,
)
from onnxprune.operators.roles import Balance, Role


class Coupling:
    """A growing set of equations between labels, and what else rules have stated of them."""

    def __init__(self, chosen: Choices | None = None) -> None:
        self.size = 1
        self.chosen = chosen or Choices()
        self.node = -1
        self.left: list[Labels] = []
        self.right: list[Labels] = []
        self.causes: list[Cause] = []
        self.roles: list[tuple[Role, Labels]] = []
        self.parts: list[Labels] = []  # positions picked from an axis, of which one has to stay
        self.must_be_zero: list[Labels] = []  # labels whose dead positions have to be
        self.balances: list[Balance] = []
        self.factors: dict[int, Factor] = dict(self.chosen.factors)  # node that splits an axis -> the one with labels
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
        return any(np.isin(labels, x).any() for role, x in self.roles if role & Role.WRITE)

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
