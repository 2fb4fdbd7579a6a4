"""Whether there are samples enough for what least squares have to find."""

import math
from collections.abc import Collection, Mapping

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Layer, Use
from onnxprune.operators.roles import Role


def too_few(deps: Dependencies, kept: Mapping[str, np.ndarray], samples: int, solved: Collection[str]) -> list[str]:
    """That the layer which needs most samples has fewer rows to be solved on than unknowns, where that is so.

    Args:
        deps, kept: the analysis, and the channels that stay.
        samples: their number.
        solved: tensors that were solved for, by key.

    A row is one position of a layer's output for one sample; an unknown is a weight that an output reads.
    """
    dead, weights = deps.dead(kept), {u.node: u for u in deps.uses if u.input == 1 and u.source in solved}
    found = [n for x in deps.layers if x.node in weights and (n := _needed(deps, x, weights[x.node], dead))]
    if not found or max(found)[0] <= samples:
        return []
    needed, unknowns, label = max(found)
    return [
        f"{samples} samples to repair on, and '{label}' needs {needed:,} for its {unknowns:,} unknowns: the repair may "
        "know them by heart; give more"
    ]


def _needed(deps: Dependencies, layer: Layer, use: Use, dead: np.ndarray) -> tuple[int, int, str] | None:
    """How many samples have as many rows as a layer that lost inputs has unknowns, the unknowns, and its label."""
    live = [deps.live(x, dead) for x in use.axes]
    reads = [a for x, a in zip(use.axes, live, strict=True) if not (deps.roles[x] & Role.WRITE).all()]
    size, unknowns = (math.prod(int(a.sum()) for a in axes) for axes in (live, reads))
    shape = deps.statics.shapes.get(deps.nodes[layer.node].outputs[0], ())
    macs = deps.layer_macs(layer, dead)
    if not size or not macs or not shape or not shape[0] or all(a.all() for a in reads):
        return None
    return math.ceil(unknowns * size * shape[0] / macs), unknowns, deps.nodes[layer.node].label
