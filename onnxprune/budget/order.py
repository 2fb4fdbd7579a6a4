"""In which order groups give up channels on the way to a budget: the allocations by name."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.budget.cost import Costs

Step = tuple[int, int]  # a group, and how many channels it keeps from then on
Choices = Sequence[tuple[int, ...]]  # for each group, what it may keep, from all channels down
Losses = Mapping[str, np.ndarray]  # by group: loss when its first 0, 1, 2 ... channels are gone, (channels + 1,)


@dataclass(frozen=True)
class Allocator:
    """A way to share a budget out.

    order: the steps down to the smallest network, those that should be taken first at the front.
    losses: which losses it goes by: those that the method's ranking implies ("ranking"), or those of the network's
        output, measured or modelled ("sensitivity"); empty where it goes by none.
    """

    name: str
    order: Callable[[Costs, str, Choices, Losses], Iterator[Step]]
    losses: Literal["", "ranking", "sensitivity"]
    summary: str


def in_step(costs: Costs, kind: str, choices: Choices, losses: Losses) -> Iterator[Step]:
    """All groups lose the same share: steps by the ratio at which they fall due."""
    steps = [(1 - keep / counts[0], g, keep) for g, counts in enumerate(choices) for keep in counts[1:]]
    return ((g, keep) for _, g, keep in sorted(steps))


def by_loss(costs: Costs, kind: str, choices: Choices, losses: Losses) -> Iterator[Step]:
    """Always the step that loses least for what it saves: the greedy solution of a knapsack of convex losses.

    The loss of each group is replaced by the largest convex function below it, so that a bad step that leads to a
    good one is not taken for the end. What a step saves depends on what the others have lost, and only falls as they
    shrink, so that a step is valued anew when its turn comes.
    """
    kept = np.array([c[0] for c in choices], np.int64)
    curves = [
        convex(counts, losses[name]) if len(counts) > 1 else np.zeros(1)
        for counts, name in zip(choices, costs.groups, strict=True)
    ]
    place = [0] * len(choices)

    def price(g: int) -> float:
        k = place[g]
        saved = -costs.change(kind, kept, g, choices[g][k + 1])
        lost = max(0.0, float(curves[g][k + 1] - curves[g][k]))
        return lost / saved if saved > 0 else np.inf

    def entry(g: int) -> tuple[float, float, int]:
        return price(g), 1 - choices[g][place[g] + 1] / choices[g][0], g

    heap = [entry(g) for g, counts in enumerate(choices) if len(counts) > 1]
    heapq.heapify(heap)
    while heap:
        _, _, g = heapq.heappop(heap)
        now = entry(g)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        place[g] += 1
        kept[g] = choices[g][place[g]]
        yield g, int(kept[g])
        if place[g] + 1 < len(choices[g]):
            heapq.heappush(heap, entry(g))


def convex(counts: Sequence[int], losses: np.ndarray) -> np.ndarray:
    """The largest convex function at most the loss, at each count: (counts,).

    Args:
        counts: kept channels, from all of them down.
        losses: (channels + 1,), by how many channels are gone.
    """
    gone = counts[0] - np.asarray(counts)
    lost = np.asarray(losses, np.float64)[gone]
    hull: list[int] = []
    for k in range(len(gone)):
        while len(hull) > 1 and _bends_down(gone, lost, hull[-2], hull[-1], k):
            hull.pop()
        hull.append(k)
    return np.interp(gone, gone[hull], lost[hull])


def _bends_down(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> bool:
    return (y[b] - y[a]) * (x[c] - x[b]) >= (y[c] - y[b]) * (x[b] - x[a])


ALLOCATORS: dict[str, Allocator] = {
    row.name: row
    for row in (
        Allocator("uniform", in_step, "", "the same share of every group"),
        Allocator("global", by_loss, "ranking", "one ranking over all groups, by normalised loss for the cost saved"),
        Allocator(
            "sensitivity", by_loss, "sensitivity", "what the network's output loses, measured on data or modelled"
        ),
    )
}
