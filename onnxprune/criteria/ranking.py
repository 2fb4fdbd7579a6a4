"""What a method makes of a group: which channels to keep at any count, and what each one's removal costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.criteria.filters import Filters, Floats, Indices, rounded
from onnxprune.criteria.linkage import Tree
from onnxprune.errors import UsageError


@dataclass(frozen=True, eq=False)
class Ranking:
    """A group's channels as one method sees them.

    channels: how many there are.
    removals: gives `order` and `losses`, when they are asked for.
    pick: from a count to the channels that stay. Methods that cluster anew for every count need not follow `order`.
    duplicates: from a least similarity to the channels that stay; None where the method has no such measure.
    """

    channels: int
    removals: Callable[[], tuple[Indices, Floats]]
    pick: Callable[[int], Indices]
    duplicates: Callable[[float], Indices] | None = None

    @cached_property
    def _removals(self) -> tuple[Indices, Floats]:
        return self.removals()

    @property
    def order(self) -> Indices:
        """All channels, the first to leave first: `(channels,)`."""
        return self._removals[0]

    @property
    def losses(self) -> Floats:
        """The modelled loss of each removal in that order, as a share of the group's total: `(channels,)`.

        Scores lose their squares, similar filters what the filter that stands for them cannot express. They sum to at
        most 1 and compare across groups; what they leave out is how much the readers of a channel make of it.
        """
        return self._removals[1]

    def keep(self, count: int) -> Indices:
        """The `count` channels to keep, sorted. Raises `UsageError` unless 1 ≤ count ≤ channels."""
        if not 1 <= count <= self.channels:
            raise UsageError(f"cannot keep {count} of {self.channels} channels: 1 to {self.channels} can stay")
        return np.arange(count) if count == self.channels else np.sort(self.pick(count))

    @property
    def curve(self) -> Floats:
        """Modelled loss after removing 0, 1, 2 ... all channels in `order`: `(channels + 1,)`, never falling."""
        return np.concatenate([[0.0], np.cumsum(self.losses)])


def ranking(score: Floats, loss: Floats | None = None) -> Ranking:
    """Rank by score, `(channels,)`, the lowest first to leave; of equals the later one leaves.

    A removal loses `loss`, by default its squared score, relative to the sum over the group.
    """
    score = np.asarray(score, np.float64)
    loss = score**2 if loss is None else loss
    order = np.lexsort((-np.arange(len(score)), rounded(score)))
    total = float(loss.sum())
    losses = loss[order] / total if total > 0 else np.zeros(len(score))
    return Ranking(len(order), lambda: (order, losses), pick=lambda count: order[len(order) - count :])


def tree_order(tree: Tree, energies: Floats, residual: Callable[[Floats, Floats], Floats]) -> tuple[Indices, Floats]:
    """Order and losses of removals along a tree: at each merge the weaker of the two clusters' strongest leaves.

    `residual(heights, energies)` is the share of each filter's energy that one at this distance cannot express.
    """
    energy, champion, order = energies.tolist(), list(range(tree.leaves)), []
    for pair in tree.pairs.tolist():
        winner, loser = sorted((champion[pair[0]], champion[pair[1]]))
        if energy[loser] > energy[winner]:
            winner, loser = loser, winner
        champion.append(winner)
        order.append(loser)
    removed = np.array([*order, champion[-1]], np.int64)
    losses, total = energies[removed], float(energies.sum())
    losses[:-1] *= residual(tree.heights, losses[:-1])
    return removed, losses / total if total > 0 else np.zeros(tree.leaves)


def dead_first(filters: Filters, inner: Callable[[Filters, Indices], Ranking], floor: float = 0.0) -> Ranking:
    """A ranking of the filters that do something; those that are all zero or erased leave first, at no loss.

    What is left of such a channel is a constant (its bias, or its β). With a `floor`, filters of a norm below this
    share of the median norm go first as well, weakest first, unless a threshold asks for likeness. Unless every filter
    is zero, `inner` sees the others and their indices.
    """
    energies = filters.strengths
    positive = energies[energies > 0]
    if not len(positive):
        return replace(ranking(np.zeros(filters.channels)), duplicates=lambda _: np.array([0]))
    least = floor**2 * float(np.median(positive))
    idle = (energies == 0) | (energies < least)
    alive, weak = np.flatnonzero(~idle), np.flatnonzero(idle)
    if not len(weak):
        return inner(filters, alive)
    weak = weak[np.lexsort((-weak, energies[weak]))]
    rest = inner(filters.take(alive), alive)

    def pick(count: int) -> Indices:
        if count <= len(alive):
            return alive[rest.keep(count)]
        return np.concatenate([alive, weak[len(weak) - (count - len(alive)) :]])

    def removals() -> tuple[Indices, Floats]:
        losses = np.concatenate([energies[weak], rest.losses * energies[alive].sum()]) / energies.sum()
        return np.concatenate([weak, alive[rest.order]]), losses

    return Ranking(filters.channels, removals, pick, _duplicates(filters, inner, floor, alive, rest))


def _duplicates(
    filters: Filters, inner: Callable[[Filters, Indices], Ranking], floor: float, alive: Indices, rest: Ranking
) -> Callable[[float], Indices] | None:
    """What stays at a least similarity: a weak filter that resembles nothing does, however weak it is."""
    duplicates = rest.duplicates
    if duplicates is None:
        return None
    if floor == 0:
        return lambda least: alive[duplicates(least)]

    def strict(least: float) -> Indices:
        found = dead_first(filters, inner).duplicates
        assert found is not None
        return found(least)

    return strict
