"""Sequences of tensors, written out: what stands at a known place of one is the tensor that was put there."""

from collections.abc import Collection

import onnx

from onnxprune.model.graphs import graphs_of, opset_of, refill, subgraphs
from onnxprune.model.network import Network
from onnxprune.model.sort import captured, defined
from onnxprune.model.static import infer
from onnxprune.model.statics import Statics
from onnxprune.operators.registry import operator_of
from onnxprune.operators.sequences import Sequenced

Sequences = dict[str, list[str]]  # names of the tensors in each sequence


def without_sequences(network: Network) -> Network:
    """The network with tensors in place of sequences whose elements are known; itself where none are.

    A SplitToSequence becomes a Split, a ConcatFromSequence a Concat.  A sequence that a body, another operator or an
    output of the graph takes, or at a place that is computed from data, stays, and so does what it is made of.
    """
    model = network.graph
    if not any(operator_of(node).elements for node in model.graph.node):
        return network
    statics, opset = infer(model), opset_of(model)
    known = _known(model.graph, statics, opset)
    if not known:
        return network
    out = network.own().graph
    del out.graph.node[:]
    for node in model.graph.node:
        if _made(node) not in known and _source(node) not in known:
            out.graph.node.append(node)
        elif (write := operator_of(node).unsequenced) is not None:
            out.graph.node.extend(write(_site(node, known, statics, opset)) or ())
    refill(out.graph.value_info, [value for value in out.graph.value_info if value.name not in known])
    return network.with_graph(out)


def _known(graph: onnx.GraphProto, statics: Statics, opset: int) -> Sequences:
    """Sequences that can be written out: with known elements, and taken at known places alone."""
    found: Sequences = {}
    names = _names(graph)
    for node in graph.node:
        make = operator_of(node).elements
        if make is not None and _has_room(node, names):
            elements = make(_site(node, found, statics, opset))
            found |= {} if elements is None else {node.output[0]: elements}
    ends = {value.name for value in graph.output}
    ends.update(name for node in graph.node for body, _ in subgraphs(node) for name in captured(body))
    while True:
        lost = set(found) & ends
        for node in graph.node:
            given, row = set(node.input) & found.keys(), operator_of(node)
            write = row.unsequenced if row.elements is None and _has_room(node, names) else None
            if given and _made(node) not in found and not (write and write(_site(node, found, statics, opset))):
                lost |= given
            remade = row.elements and row.elements(_site(node, found, statics, opset))
            if _made(node) in found and remade is None:
                lost.add(_made(node))  # it is made of one that has to stay
        if not lost:
            return found
        found = {name: elements for name, elements in found.items() if name not in lost}


def _names(graph: onnx.GraphProto) -> set[str]:
    """All names of a graph and of the bodies in it."""
    return set[str]().union(*(defined(part) for part, _ in graphs_of(graph)))


def _has_room(node: onnx.NodeProto, names: Collection[str]) -> bool:
    """Whether no name begins as those of the tensors do that take the place of a node's output."""
    return bool(node.output) and not any(name.startswith(f"{node.output[0]}/") for name in names)


def _site(node: onnx.NodeProto, known: Sequences, statics: Statics, opset: int) -> Sequenced:
    def length(key: str, axis: int) -> int | None:
        shape = statics.shapes.get(key)
        return None if not shape or statics.is_open(key, axis % len(shape)) else shape[axis % len(shape)]

    return Sequenced(node, known, statics.fixed_constant, length, opset)


def _made(node: onnx.NodeProto) -> str:
    return node.output[0] if node.output else ""


def _source(node: onnx.NodeProto) -> str:
    return node.input[0] if node.input else ""
