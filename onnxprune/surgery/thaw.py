"""Norms over channels in the masked network: computed on the channels that stay, as the pruned network does it.

What is compared then is still the surgery: every other node of the masked network keeps its size.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.network import Network
from onnxprune.surgery.draft import Draft
from onnxprune.surgery.guard import divides, guard
from onnxprune.surgery.tidy import place


def around(
    out: onnx.ModelProto, deps: Dependencies, dead: np.ndarray, indices: Iterable[int], *, whole: bool = False
) -> None:
    """Let these nodes of a masked network compute on their live positions alone.

    Args:
        out: the masked network in the layout of the original; changed.
        deps: the analysis of the original.
        dead: (components,) bool.
        indices: positions of the nodes in the analysis.
        whole: put the same nodes there, which let every position pass.
    """
    draft = Draft(out, deps, dead)
    for index in indices:
        compute_on_live(draft, index, whole=whole)
    place(draft)


def beside(original: Network, deps: Dependencies, dead: np.ndarray) -> Network:
    """The original with as many nodes, in the same order, as its masked version has; itself where that adds none."""
    approximated, guarded = deps.approximated(dead), divides(deps, dead)
    if not (approximated or guarded):
        return original
    network = original.own()
    if guarded:
        guard(network.graph, deps, dead)
    if approximated:
        around(network.graph, deps, dead, approximated, whole=True)
    return network


def compute_on_live(draft: Draft, index: int, *, whole: bool = False) -> None:
    """Gather the live positions before a node, and spread its outputs over all positions again.

    Args:
        draft: takes the new nodes and tensors; inputs and outputs of its node are renamed.
        index: position of the node in the analysis.
        whole: gather and spread all positions.
    """
    deps, node, proto = draft.deps, draft.deps.nodes[index], draft.proto(index)
    uses = {u.input: u.axes for u in deps.uses if u.node == index} | dict(deps.numbers.get(index, {}))
    before, after = draft.before[index], draft.after[index]
    for k, key in enumerate(node.inputs):
        box = tuple(deps.live(x, draft.dead) for x in uses[k]) if k in uses else draft.box(key) if key else None
        for axis, live in enumerate(box or ()):
            if not live.all():
                name = draft.fresh_name(f"{node.label}.{k}.live")
                before.append(_gather(draft, node.path, proto.input[k], name, axis, np.flatnonzero(live | whole)))
                proto.input[k] = name
    for k, key in enumerate(node.outputs):
        for axis, live in enumerate((draft.box(key) if key else None) or ()):
            if not live.all():
                name = draft.fresh_name(f"{node.label}.{k}.live")
                spread = np.maximum(np.cumsum(live | whole) - 1, 0)  # dead positions are read by nobody
                after.insert(0, _gather(draft, node.path, name, proto.output[k], axis, spread))
                proto.output[k] = name


def _gather(draft: Draft, path: str, source: str, name: str, axis: int, positions: np.ndarray) -> onnx.NodeProto:
    picks = draft.add_initializer(path, f"{name}.positions", positions.astype(np.int64))
    return helper.make_node("Gather", [source, picks], [name], axis=axis)
