"""Inner maps that the original and the pruned network have in common, so that one can learn those of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies

PLACES = 6


@dataclass(frozen=True)
class FeaturePlace:
    """A value that both networks compute, and its positions that stay, axis by axis."""

    name: str
    live: tuple[np.ndarray, ...]  # (positions,) bool each; the first axis holds the samples

    def kept(self, array: np.ndarray) -> np.ndarray:
        """The original's map without what the pruned network lacks; samples are however many there are."""
        for axis, mask in enumerate(self.live):
            if axis and not mask.all():
                array = np.compress(mask, array, axis)
        return array


def places(deps: Dependencies, dead: np.ndarray, pruned: onnx.ModelProto) -> list[FeaturePlace]:
    """Values that all later ones hang on; outputs of layers where there are few of those."""
    made = {name for node in pruned.graph.node for name in node.output} - {o.name for o in pruned.graph.output}
    found = _usable(deps, dead, bottlenecks(deps), made)
    if len(found) < PLACES // 2:
        layers = [deps.nodes[layer.node].outputs[0] for layer in deps.layers]
        found = _usable(deps, dead, layers, made)
    return found


def spread(found: Sequence[FeaturePlace]) -> list[FeaturePlace]:
    """So many of them, evenly from the first to the last."""
    picks = np.linspace(0, max(len(found) - 1, 0), PLACES).round().astype(int)
    return [found[k] for k in dict.fromkeys(picks.tolist())] if found else []


def bottlenecks(deps: Dependencies) -> list[str]:
    """Values of the main graph through which everything goes that is computed after them."""
    last: dict[str, int] = {}
    for k, node in enumerate(deps.nodes):
        last |= dict.fromkeys(filter(None, node.inputs), k)
    alive, found = set[str](), []
    for k, node in enumerate(deps.nodes):
        if any(key in alive or deps.maker(key) is None for key in node.inputs if key and key not in deps.sources):
            alive |= {key for key in node.outputs if key in last}
        alive = {key for key in alive if last[key] > k}
        if len(alive) == 1 and not node.path and (only := next(iter(alive))) in node.outputs:
            found.append(only)
    return found


def _usable(deps: Dependencies, dead: np.ndarray, names: Sequence[str], made: set[str]) -> list[FeaturePlace]:
    """Those of real numbers with the samples first, of which the pruned network computes a part."""
    usable = []
    for name in names:
        box = deps.box(name, dead) if name in made else None
        if box is None or len(box) < 2 or not all(mask.any() for mask in box):
            continue
        if any(mask.size > 1 for mask in box[1:]):
            usable.append(FeaturePlace(name, box))
    return usable
