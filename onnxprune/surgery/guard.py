"""Division by nothing in the masked network: what it makes of a removed channel is kept from those who read it.

A removed filter of zeros has the norm zero, and demodulation divides by it. The channel is then NaN in the masked
network, and so is all that sums over it, although a channel that is not there adds nothing.
"""

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Dependencies, Node
from onnxprune.operators.labels import line
from onnxprune.operators.registry import operator_of
from onnxprune.surgery.draft import Draft
from onnxprune.surgery.tidy import place

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


def divides(deps: Dependencies, dead: np.ndarray) -> bool:
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
