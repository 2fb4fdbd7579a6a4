"""Sequences of tensors, written out: what stands at a known place of one is the tensor that was put there."""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model.static import infer, opset_of, subgraphs
from onnxprune.model.statics import Statics

MAKERS = {"SequenceEmpty", "SequenceConstruct", "SplitToSequence", "SequenceInsert", "SequenceErase"}
MOST = 4096  # elements of a sequence
TAKERS = {"SequenceAt", "SequenceLength", "ConcatFromSequence", "SequenceInsert", "SequenceErase"}

Sequences = Mapping[str, list[str]]  # names of the tensors in each sequence


def without_sequences(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which tensors take the place of sequences whose elements are known; the model itself where none are.

    A SplitToSequence becomes a Split, a ConcatFromSequence a Concat.  A sequence that a body, another operator or an
    output of the graph takes, or at a place that is computed from data, stays, and so does what it is made of.

    Args:
        model: never changed.
    """
    if not any(_is(node, MAKERS) for node in model.graph.node):
        return model
    statics = infer(model)
    known = _known(model.graph, statics)
    if not known:
        return model
    out, opset = onnx.ModelProto(), opset_of(model)
    out.CopyFrom(model)
    del out.graph.node[:]
    for node in model.graph.node:
        if _made(node) in known:
            out.graph.node.extend(_split(node, known, statics, opset) if node.op_type == "SplitToSequence" else ())
        elif _is(node, TAKERS) and _source(node) in known:
            out.graph.node.extend(_taken(node, known, statics, opset))
        else:
            out.graph.node.append(node)
    kept = [value for value in out.graph.value_info if value.name not in known]
    del out.graph.value_info[:]
    out.graph.value_info.extend(kept)
    return out


def _is(node: onnx.NodeProto, types: set[str]) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in types


def _made(node: onnx.NodeProto) -> str:
    return node.output[0] if node.output else ""


def _source(node: onnx.NodeProto) -> str:
    return node.input[0] if node.input else ""


def _known(graph: onnx.GraphProto, statics: Statics) -> Sequences:
    """Sequences that can be written out: with known elements, and taken at known places alone."""
    found: dict[str, list[str]] = {}
    names = {name for node in graph.node for name in node.output}
    for node in graph.node:
        if not (_is(node, MAKERS) and _made(node)):
            continue
        if (elements := _elements(node, found, statics)) is not None:
            own = f"{node.output[0]}/"  # what the names of new tensors begin with
            if not any(name.startswith(own) for name in names):
                found[node.output[0]] = elements
    ends = {value.name for value in graph.output} | {name for node in graph.node for name in _captured(node)}
    while True:
        lost = set(found) & ends
        for node in graph.node:
            given = set(node.input) & found.keys()
            if given and not (_is(node, TAKERS) and (_made(node) in found or _can_be_taken(node, found, statics))):
                lost |= given
            if _made(node) in found and node.op_type in TAKERS and _source(node) not in found:
                lost.add(_made(node))
        if not lost:
            return found
        found = {name: elements for name, elements in found.items() if name not in lost}


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """All names in the bodies of a node."""
    for body, _ in subgraphs(node):
        yield from (value.name for value in body.output)
        for inner in body.node:
            yield from inner.input
            yield from _captured(inner)


def _elements(node: onnx.NodeProto, found: Sequences, statics: Statics) -> list[str] | None:
    """Names of the tensors in the sequence that a node makes; None where they are not known."""
    if node.op_type in ("SequenceEmpty", "SequenceConstruct"):
        return list(node.input) if len(node.input) <= MOST else None
    if node.op_type == "SplitToSequence":
        sizes = _sizes(node, statics)
        return None if sizes is None else [f"{node.output[0]}/{k}" for k in range(len(sizes))]
    if _source(node) not in found or len(found[_source(node)]) == MOST:
        return None
    elements, inserts = list(found[_source(node)]), node.op_type == "SequenceInsert"
    place = _place(node, 2 if inserts else 1, len(elements) if inserts else -1, statics)
    if place is None or not -len(elements) <= place < len(elements) + inserts:
        return None
    place += len(elements) if place < 0 else 0
    return [*elements[:place], *(node.input[1:2] if inserts else []), *elements[place + (not inserts) :]]


def _place(node: onnx.NodeProto, k: int, default: int, statics: Statics) -> int | None:
    """A place in a sequence; None where it is computed from data or sizes."""
    if k >= len(node.input) or not node.input[k]:
        return default
    known = statics.fixed_constant(node.input[k])
    return None if known is None or known.size != 1 else int(known.reshape(()))


def _sizes(node: onnx.NodeProto, statics: Statics) -> list[int] | None:
    """Sizes of the parts of a SplitToSequence; None where they hang on sizes that are open."""
    shape, axis = statics.shapes.get(_source(node)), _attribute(node, "axis", 0)
    if not shape or statics.is_open(_source(node), axis % len(shape)):
        return None
    length = shape[axis % len(shape)]
    single = len(node.input) < 2 or not node.input[1]
    told = np.array(1) if single else statics.fixed_constant(node.input[1])
    if told is None or not 0 < length <= MOST or told.size == 0 or told.min() <= 0:
        return None
    sizes = told.tolist() if told.ndim else [min(int(told), length - k) for k in range(0, length, int(told))]
    return sizes if sum(sizes) == length else None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _can_be_taken(node: onnx.NodeProto, found: Sequences, statics: Statics) -> bool:
    """Whether what a node takes from a sequence is known."""
    count = len(found.get(_source(node), ()))
    if node.op_type == "SequenceAt":
        place = _place(node, 1, 0, statics)
        return place is not None and -count <= place < count
    return node.op_type == "SequenceLength" or (node.op_type == "ConcatFromSequence" and count > 0)


def _split(node: onnx.NodeProto, known: Sequences, statics: Statics, opset: int) -> Iterator[onnx.NodeProto]:
    """A SplitToSequence as nodes that give its parts."""
    parts, axis, sizes = known[node.output[0]], _attribute(node, "axis", 0), _sizes(node, statics)
    if len(node.input) < 2 and not _attribute(node, "keepdims", 1):
        for k, part in enumerate(parts):
            yield _constant(f"{part}/place", np.array(k))
            yield helper.make_node("Gather", [_source(node), f"{part}/place"], [part], axis=axis)
    elif opset < 13:
        yield helper.make_node("Split", node.input[:1], parts, name=node.name, axis=axis, split=sizes)
    else:
        told = f"{node.output[0]}/sizes"
        yield _constant(told, np.array(sizes))
        yield helper.make_node("Split", [_source(node), told], parts, name=node.name, axis=axis)


def _taken(node: onnx.NodeProto, known: Sequences, statics: Statics, opset: int) -> Iterator[onnx.NodeProto]:
    """What a node takes from a sequence, as nodes that take it from the elements."""
    elements = known[_source(node)]
    if node.op_type == "SequenceAt":
        place = _place(node, 1, 0, statics)
        yield helper.make_node("Identity", [elements[place or 0]], node.output, name=node.name)
    elif node.op_type == "SequenceLength":
        yield _constant(node.output[0], np.array(len(elements)))
    elif node.op_type == "ConcatFromSequence":
        axis = _attribute(node, "axis", 0)
        if _attribute(node, "new_axis", 0):
            told = f"{node.output[0]}/axis"
            wide = [f"{node.output[0]}/{k}" for k in range(len(elements))]
            if opset >= 13:
                yield _constant(told, np.array([axis]))
            for element, name in zip(elements, wide, strict=True):
                given = {"inputs": [element, told]} if opset >= 13 else {"inputs": [element], "axes": [axis]}
                yield helper.make_node("Unsqueeze", outputs=[name], **given)
            elements = wide
        yield helper.make_node("Concat", elements, node.output, name=node.name, axis=axis)


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array.astype(np.int64)))
