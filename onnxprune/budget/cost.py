"""What a network costs as a function of how many channels each group keeps.

Channels of a group occupy the same slots, so a cost depends on their number alone and never on which they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Term:
    """A product over axes: `times · Π (fixed_k + Σ_g repeats_kg · kept_g)`."""

    times: float
    axes: tuple[tuple[float, tuple[tuple[int, float], ...]], ...]  # (fixed positions, ((group, repeats), ...)) of each axis


@dataclass(frozen=True)
class Costs:
    """Cost functions of a network over the kept channels of its groups.

    groups: channels of each group before pruning, by name.
    terms: for each kind of cost ("macs", "params", "size"), the products that add up to it.
    """

    groups: Mapping[str, int]
    terms: Mapping[str, tuple[Term, ...]]

    def total(self, kind: str, kept: Sequence[int] | np.ndarray | None = None) -> float:
        """The cost when the groups keep so many channels: (groups,) counts in the order of `groups`; None for all."""
        counts = list(self.groups.values()) if kept is None else kept
        return sum(
            term.times * _product([fixed + sum(r * int(counts[g]) for g, r in parts) for fixed, parts in term.axes])
            for term in self.terms[kind]
        )

    def share(self, kind: str, kept: Sequence[int] | np.ndarray) -> float:
        """What is left of the cost, from 0 to 1."""
        whole = self.total(kind)
        return self.total(kind, kept) / whole if whole else 1.0


def _product(factors: Sequence[float]) -> float:
    product = 1.0
    for factor in factors:
        product *= factor
    return product
