"""Norms over channels in the masked network: computed on the channels that stay, as the pruned network does it.

What is compared then is still the surgery: every other node of the masked network keeps its size.
"""

import numpy as np
import onnx
from onnx import helper

from onnxprune.surgery.draft import Draft


def compute_on_live(draft: Draft, index: int, proto: onnx.NodeProto) -> None:
    """Gather the live positions before a node, and spread its outputs over all positions again.

    Args:
        draft: takes the new nodes and tensors.
        index: position of the node in the analysis.
        proto: the node in the masked network; its inputs and outputs are renamed.
    """
    deps, node = draft.deps, draft.deps.nodes[index]
    uses = {u.input: u.axes for u in deps.uses if u.node == index}
    before, after = draft.before.setdefault(index, []), draft.after.setdefault(index, [])
    for k, key in enumerate(node.inputs):
        box = tuple(deps.live(x, draft.dead) for x in uses[k]) if k in uses else draft.box(key) if key else None
        for axis, live in enumerate(box or ()):
            if not live.all():
                name = draft.fresh_name(f"{node.label}.{k}.live")
                before.append(_gather(draft, node.path, proto.input[k], name, axis, np.flatnonzero(live)))
                proto.input[k] = name
    for k, key in enumerate(node.outputs):
        for axis, live in enumerate((draft.box(key) if key else None) or ()):
            if not live.all():
                name = draft.fresh_name(f"{node.label}.{k}.live")
                spread = np.maximum(np.cumsum(live) - 1, 0)  # dead positions are read by nobody
                after.insert(0, _gather(draft, node.path, name, proto.output[k], axis, spread))
                proto.output[k] = name


def _gather(draft: Draft, path: str, source: str, name: str, axis: int, positions: np.ndarray) -> onnx.NodeProto:
    picks = draft.add_initializer(path, f"{name}.positions", positions.astype(np.int64))
    return helper.make_node("Gather", [source, picks], [name], axis=axis)
