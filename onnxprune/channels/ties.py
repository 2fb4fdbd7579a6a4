"""All equations between labels, as a graph: what tied two labels, and what froze one."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from onnxprune.operators.labels import FIXED, Cause, Labels


@dataclass(frozen=True)
class Ties:
    """All equations between labels, each with its cause."""

    left: Labels
    right: Labels
    cause: np.ndarray  # index into causes
    causes: tuple[Cause, ...]
    size: int  # number of labels

    @cached_property
    def _graph(self) -> csr_array:
        a = np.concatenate([self.left, self.right])
        b = np.concatenate([self.right, self.left])
        c = np.concatenate([self.cause, self.cause])
        _, first = np.unique(a * self.size + b, return_index=True)
        return csr_array((c[first] + 1, (a[first], b[first])), (self.size, self.size))

    @cached_property
    def _roots(self) -> Labels:
        """For each label the first one behind `FIXED` on the way to it; -1 where there is none."""
        _, before = breadth_first_order(self._graph, FIXED, directed=False)
        root = np.where(before > FIXED, before, np.arange(self.size))
        while not np.array_equal(root, further := root[root]):
            root = further
        return np.where(before < FIXED, -1, root)

    def _edge(self, a: int, b: int) -> Cause:
        return self.causes[int(self._graph[a, b]) - 1]

    def freezer(self, label: int) -> Cause | None:
        """What froze a label: the cause of the first tie on the shortest way from `FIXED`; None where it is free."""
        root = int(self._roots[label])
        return self._edge(FIXED, root) if root >= 0 else None

    def chain(self, label: int, targets: Labels) -> list[Cause] | None:
        """Causes on a shortest way from a label to any of the targets; None where they are not coupled."""
        _, before = breadth_first_order(self._graph, label, directed=False)
        reached = [int(t) for t in np.unique(targets) if t == label or before[t] >= 0]
        ways = [self._way(before, label, t) for t in reached]
        return min(ways, key=len) if ways else None

    def _way(self, before: np.ndarray, start: int, end: int) -> list[Cause]:
        causes: list[Cause] = []
        while end != start:
            cause = self._edge(end, int(before[end]))
            if not causes or causes[-1] != cause:
                causes.append(cause)
            end = int(before[end])
        return causes[::-1]
