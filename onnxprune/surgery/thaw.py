"""What the masked network needs besides zeros: no division by nothing, and norms over the channels that stay alone.

A removed filter of zeros has the norm zero, and demodulation divides by it. The channel is then NaN in the masked
network, and so is all that sums over it, although a channel that is not there adds nothing: what such a division makes
of a removed channel is kept from those who read it.

Norms over channels are computed on those that stay, as the pruned network does it. What is compared then is still the
surgery: every other node of the masked network keeps its size.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Dependencies, Node
from onnxprune.model.network import Network
from onnxprune.operators.labels import line
from onnxprune.operators.registry import operator_of
from onnxprune.surgery.draft import Draft
from onnxprune.surgery.tidy import place

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


def may_divide_by_zero(deps: Dependencies, dead: np.ndarray) -> bool:
    """Whether any node may divide by a channel that is zero in the masked network."""
    return any(
        k < len(node.inputs) and deps.loses(node.inputs[k], dead)
        for node in deps.nodes
        if (k := operator_of(node.proto).divisor) is not None
    )


def guard(out: onnx.ModelProto, deps: Dependencies, dead: np.ndarray) -> None:
    """Put zeros for NaN and infinity at dead positions, in front of every node that does not pass these on.

    All other values of removed channels stay what they are.

    Args:
        out: the masked network in the layout of the original; changed.
        deps: the analysis of the original.
        dead: (components,) bool.
    """
    draft = Draft(out, deps, dead)
    for index, node in enumerate(deps.nodes):
        passed = _dead_in(deps, dead, node.outputs)
        for k, key in enumerate(node.inputs):
            element = deps.statics.types.get(key)
            if element in FLOATS and _dead_in(deps, dead, (key,)) - passed:
                proto = draft.proto(index)
                proto.input[k] = _guarded(draft, index, node, proto.input[k], key, element)
    place(draft)


def _dead_in(deps: Dependencies, dead: np.ndarray, keys: tuple[str, ...]) -> set[int]:
    """Dead components that these values carry."""
    found = (deps.values.get(key) for key in keys)
    parts = {int(c) for value in found if value is not None for axis in value.axes for c in deps.component[axis]}
    return {c for c in parts if dead[c]}


def _guarded(draft: Draft, index: int, node: Node, name: str, key: str, element: int) -> str:
    """The name of a value with zeros where it is dead and no number."""
    box = draft.box(key) or ()
    shape = [mask.size if not mask.all() else 1 for mask in box]
    live = np.ones(shape, bool)
    for axis, mask in enumerate(box):
        if not mask.all():
            live &= mask.reshape(line(len(box), axis))
    zero = np.zeros((), helper.tensor_dtype_to_np_dtype(element))

    def made(op: str, *inputs: str) -> str:
        result = draft.fresh_name(f"{node.label}.{op}")
        draft.before[index].append(helper.make_node(op, list(inputs), [result]))
        return result

    alive = draft.add_initializer(node.path, f"{node.label}.alive", live)
    odd = made("Or", made("IsNaN", name), made("IsInf", name))
    kept = made("Or", alive, made("Not", odd))
    return made("Where", kept, name, draft.add_initializer(node.path, f"{node.label}.zero", zero))


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
    approximated, guarded = deps.approximated(dead), may_divide_by_zero(deps, dead)
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
    uses = {u.input: u.axes for u in deps.uses_at.get(index, ())} | dict(deps.known_arrays.get(index, {}))
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
