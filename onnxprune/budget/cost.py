"""What a network costs as a function of how many channels each group keeps.

Channels of a group occupy the same slots, so a cost depends on their number alone and never on which they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

Counts = Sequence[int] | np.ndarray
Axis = tuple[float, tuple[tuple[int, float], ...]]  # fixed positions, ((group, repeats), ...)


@dataclass(frozen=True)
class Term:
    """A product over axes: `times · Π (fixed_k + Σ_g repeats_kg · kept_g)`."""

    times: float
    axes: tuple[Axis, ...]

    def value(self, kept: Counts) -> float:
        """The product when the groups keep so many channels."""
        product = self.times
        for fixed, parts in self.axes:
            product *= fixed + sum(repeats * int(kept[g]) for g, repeats in parts)
        return product


@dataclass(frozen=True)
class Costs:
    """Cost functions of a network over the kept channels of its groups.

    groups: channels of each group before pruning, by name.
    terms: for each kind of cost ("macs", "params", "size"), the products that add up to it.
    uncut: of some kinds, what the cost was before earlier cuts, where there were some.
    """

    groups: Mapping[str, int]
    terms: Mapping[str, tuple[Term, ...]]
    uncut: Mapping[str, float] = field(default_factory=dict)

    def total(self, kind: str, kept: Counts | None = None) -> float:
        """The cost when the groups keep so many channels: (groups,) counts in the order of `groups`; None for all."""
        counts = list(self.groups.values()) if kept is None else kept
        return sum(term.value(counts) for term in self.terms[kind])

    def share(self, kind: str, kept: Counts) -> float:
        """What is left of the cost, from 0 to 1."""
        whole = self.total(kind)
        return self.total(kind, kept) / whole if whole else 1.0

    def told(self, kind: str, share: float) -> str:
        """A share of the cost in words, as one of what it was before all cuts."""
        whole = self.total(kind)
        return f"{share * whole / (self.uncut.get(kind) or whole or 1.0):.1%}"

    def change(self, kind: str, kept: np.ndarray, group: int, count: int) -> float:
        """By how much the cost grows when one group keeps `count` channels instead; negative where it falls."""
        before, after = kept, kept.copy()
        after[group] = count
        return sum(term.value(after) - term.value(before) for term in self._touching[kind][group])

    def takes_part(self, kind: str, group: int) -> bool:
        """Whether the cost depends on the channels of a group."""
        return bool(self._touching[kind][group])

    @cached_property
    def _touching(self) -> Mapping[str, list[list[Term]]]:
        """Of each kind, for each group, the terms that depend on it."""
        found: dict[str, list[list[Term]]] = {}
        for kind, terms in self.terms.items():
            found[kind] = [[] for _ in self.groups]
            for term in terms:
                for group in {g for _, parts in term.axes for g, _ in parts}:
                    found[kind][group].append(term)
        return found
