"""Other factors and whole groups, where what an operator prefers to cut leaves a weight whole.

An axis that is split into heads and their width can lose either; a grouped convolution can lose a share of every group
or whole groups.  Heads and shares come first.  Where they leave channels that all live and die together, or weights
that the other factor alone could shorten (the single key and value of multi-query attention, arXiv:1911.02150), the
other ways are tried too, and the one with the fewest parameters once half of every group is gone is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.channels.dependencies import Dependencies
from onnxprune.operators.labels import Choices, Kind, Labels
from onnxprune.operators.registry import Trait, has

if TYPE_CHECKING:
    from onnxprune.channels.walk import Walk

LARGEST_SEARCH = 16  # analyses; what is alike is chosen alike, so that a network of many blocks takes no more
Found = tuple["Walk", Dependencies]


def finest(analysed: Callable[[Choices], Found]) -> Dependencies:
    """The analysis whose choices leave the fewest parameters at half of every group.

    Args:
        analysed: the walk over the network with these choices, and its conclusions.
    """
    walk, best = first = analysed(Choices())
    tried = {str(Choices())}
    while len(tried) < LARGEST_SEARCH:
        new = next((c for c in _others(walk, best) if str(c) not in tried), None)
        if new is None:
            break
        tried.add(str(new))
        other, deps = analysed(new)
        weights = {use.source for use in first[1].weights}  # the same ones, whatever is chosen
        if _half(deps, weights) < _half(best, weights):
            walk, best = other, deps
    return best


def _half(deps: Dependencies, weights: Collection[str]) -> float:
    """Elements of these tensors that are left when half of every group is gone.

    Odd groups count as rounded up and as rounded down, tensors that several nodes use once.
    """
    halves = ({g.name: np.arange(max(1, (len(g) + k) // 2)) for g in deps.groups} for k in (0, 1))
    uses = {use.source: use for use in reversed(deps.uses) if use.source in weights}.values()
    return float(np.mean([deps.elements(uses, deps.dead(kept)) for kept in halves]))


def _others(walk: Walk, deps: Dependencies) -> Iterator[Choices]:
    """Choices that differ for the splits and convolutions of one kind around weights that cannot be cut."""
    chosen, kinds = walk.coupling.chosen, dict[str, list[int]]()
    splits = walk.coupling.splits
    coarse = {root for root, (_, labels) in splits.items() if _coarse(deps, labels, min(labels.shape))}
    fed = _fed(walk) if coarse else ()
    wanted = {root for root in coarse if _matters(walk, deps, root, fed)}
    for root in sorted(wanted | _behind(walk, deps)):
        factors, labels = splits[root]
        kinds.setdefault(str((factors, labels.shape)), []).append(root)
    if len(kinds) > 1 and wanted:
        # What one splits, such as groups of a norm over both sides of a Concat, the others split too.  The last factor,
        # a share of every group, carries in all: whole groups of one side need not begin where those of the other do.
        shared = np.unique(np.concatenate([deps.component[splits[root][1]].ravel() for root in wanted]))
        joint = [root for root, (_, labels) in splits.items() if np.isin(deps.component[labels], shared).any()]
        yield replace(chosen, factors={**chosen.factors, **{root: splits[root][0][-1] for root in joint}})
    for roots in kinds.values():
        for factor in splits[roots[0]][0]:
            if any(walk.coupling.factors[root] != factor for root in roots):
                yield replace(chosen, factors={**chosen.factors, **dict.fromkeys(roots, factor)})
    grouped: dict[tuple[int, ...], set[int]] = {}
    for balance in walk.coupling.balances:
        if _coarse(deps, balance.grid, balance.grid.shape[1]):
            grouped.setdefault(balance.grid.shape, set()).add(balance.node)
    for nodes in grouped.values():
        yield replace(chosen, whole=chosen.whole | nodes)


def _coarse(deps: Dependencies, labels: Labels, size: int) -> bool:
    """Whether these labels make no more than half as many units as they could along an axis of this size."""
    return 2 * np.unique(deps.component[labels]).size <= size


def _fed(walk: Walk) -> set[str]:
    """Values that hang on what the network is fed, and not on its size alone."""
    made = {key for node in walk.nodes for key in node.outputs}
    found = {key for key in walk.values if key not in made and key not in walk.weights}
    for node in walk.nodes:
        if not found.isdisjoint(node.inputs) and not has(node.proto, Trait.SIZES):
            found.update(filter(None, node.outputs))
    return found


def _matters(walk: Walk, deps: Dependencies, root: int, fed: Collection[str]) -> bool:
    """Whether a node splits what the network computes, or a weight of a layer: not a mask that all inputs share."""
    made = set(filter(None, walk.nodes[root].inputs))
    if not made.isdisjoint(fed):
        return True
    layers = {layer.node for layer in deps.layers}
    made = set(walk.nodes[root].outputs)
    for k, node in enumerate(walk.nodes[root + 1 :], root + 1):
        if not made.isdisjoint(node.inputs):
            if k in layers:
                return True
            made.update(key for key in node.outputs if key not in fed)
    return False


def _behind(walk: Walk, deps: Dependencies) -> set[int]:
    """Nodes that split an axis of which a factor that does not carry keeps weights whole."""
    if not walk.coupling.splits:
        return set()
    position = {key: k for k, node in enumerate(walk.nodes) for key in node.outputs if key}
    layers = {use.node for use in walk.uses if use.weighs(deps.roles)}
    causes = [deps.ties.freezer(int(use.axes[axis][0])) for use, axis, _ in deps.whole_writers()]
    todo = [cause.node for cause in causes if cause is not None and (not cause.why or cause.kind is not Kind.PLAIN)]
    found, seen = set[int](), set[int]()
    while todo:
        if (index := todo.pop()) in seen or index < 0:
            continue
        seen.add(index)
        if index in walk.coupling.splits:
            found.add(index)
        todo += [position[key] for key in walk.nodes[index].inputs if key in position and position[key] not in layers]
    return found
