"""Values inside bodies of If, Loop and Scan, at the top of a graph: to be looked at there, and to be handed over.

A value of a body goes by its key, the path of its graph and then its name.  What a branch gives comes out of the If as
it is, and empty where the branch is not taken; what the rounds of a Loop or a Scan give comes out stacked along a first
axis, one for each loop around it.  Handed back in, each branch and each round finds its own.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx
from onnx import helper

from onnxprune.model.graphs import graphs_of, subgraphs
from onnxprune.model.inference import Inference
from onnxprune.model.skeleton import weightless
from onnxprune.model.sound import without_unsound
from onnxprune.model.tensors import nodes
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.edited import own

LOOPS = Trait.LOOPS | Trait.SCANS


@dataclass(frozen=True)
class Inside:
    """What is known of a value inside a body: its element type, and its number of axes, None where that is unknown."""

    element: int
    rank: int | None = None

    def stacked(self, loops: int) -> "Inside":
        """The same from all rounds of so many loops around it."""
        return replace(self, rank=None if self.rank is None else self.rank + loops)

    def called(self, name: str) -> onnx.ValueInfoProto:
        """The declaration of such a value."""
        return helper.make_tensor_value_info(name, self.element, None if self.rank is None else [None] * self.rank)


def types_inside(model: onnx.ModelProto) -> dict[str, Inside]:
    """What inference tells of the values inside bodies, by key."""
    inferred = Inference().of_model(without_unsound(weightless(model)))
    found: dict[str, Inside] = {}
    for graph, path in graphs_of(inferred.graph) if inferred is not None else ():
        values = ((v.name, v.type.tensor_type.elem_type) for v in (*graph.value_info, *graph.output) if path)
        found |= {path + name: Inside(element) for name, element in values if element}
    return found


def rounds_of(graph: onnx.GraphProto, path: str = "", loops: int = 0) -> Iterator[tuple[str, int]]:
    """Every value that a node inside a body gives, by key, and how many loops lie around it."""
    for node in graph.node:
        if path:
            yield from ((path + name, loops) for name in node.output if name)
        for body, below in subgraphs(node, path):
            yield from rounds_of(body, below, loops + has(node, LOOPS))


def lift(graph: onnx.GraphProto, values: Mapping[str, Inside], given: Container[str]) -> None:
    """Let a graph give values inside its bodies, by key, or take those that are `given`.

    What is taken becomes an input by its key; what the body itself makes of it is then an output of its own.
    """
    taken, rounds = {key: key for key in values if key in given}, dict(rounds_of(graph))
    for key in taken:
        graph.input.append(values[key].stacked(rounds[key]).called(key))
    for key, name in _lifted(graph, "", values, taken):
        graph.node.append(helper.make_node("Identity", [name], [own(key) if key in taken else key]))
        graph.output.add().name = graph.node[-1].output[0]


def _lifted(
    graph: onnx.GraphProto, path: str, values: Mapping[str, Inside], given: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Keys of values in a graph and its bodies, with the names that they have come to in the graph.

    `given`: names in the graph of what is to be taken instead, by key.
    """
    found: list[tuple[str, str]] = []
    for node in list(graph.node):
        for k, name in enumerate(node.output if path else ()):
            key = path + name
            if name and key in values:
                if key in given:
                    node.output[k] = own(name)
                    graph.node.insert(0, helper.make_node("Identity", [given[key]], [name]))
                found.append((key, node.output[k]))
        inside = []
        for body, below in subgraphs(node, path):
            names = {key: name for key, name in given.items() if key.startswith(below)}
            parts = {key: f"{key} in {below}" for key in names} if has(node, LOOPS) else names
            inside.append((body, _lifted(body, below, values, parts)))
            for key in names if has(node, LOOPS) else ():
                _enter(node, body, names[key], parts[key], values[key])
        for key, _ in (pair for _, pairs in inside for pair in pairs):
            _leave(node, key, values[key], [(body, dict(pairs)) for body, pairs in inside])
            found.append((key, node.output[-1]))
    return found


def _enter(node: onnx.NodeProto, body: onnx.GraphProto, whole: str, part: str, value: Inside) -> None:
    """Give each round of a loop its part of what is stacked."""
    if has(node, Trait.LOOPS):
        body.node.insert(0, helper.make_node("Gather", [whole, body.input[0].name], [part], axis=0))
        return
    node.input.append(whole)
    body.input.append(value.called(part))
    for a in node.attribute:
        if a.name == "num_scan_inputs":
            a.i += 1
        elif a.name in ("scan_input_axes", "scan_input_directions"):
            a.ints.append(0)


def _leave(
    node: onnx.NodeProto, key: str, value: Inside, inside: list[tuple[onnx.GraphProto, Mapping[str, str]]]
) -> None:
    """Give a node one more output, for a value of one of its bodies."""
    for body, names in inside:
        name = names.get(key, f"{key} not taken")
        if key not in names:
            empty = helper.make_tensor("", value.element, [0], [])
            body.node.append(helper.make_node("Constant", [], [name], value=empty))
        elif any(o.name == name for o in body.output):  # onnxruntime mixes up what a body names twice
            body.node.append(helper.make_node("Identity", [name], [f"{key} again"]))
            name = f"{key} again"
        body.output.append((value if has(node, Trait.SCANS) else Inside(value.element)).called(name))
    node.output.append(f"{key} of {node.output[0]}")
    for a in node.attribute:
        if a.name in ("scan_output_axes", "scan_output_directions"):
            a.ints.append(0)


def complete(graph: onnx.GraphProto) -> bool:
    """Whether every loop names all that it gives, so that more can be added behind it."""
    bodies = ((node, body) for node in nodes(graph.node) for body, _ in subgraphs(node))
    return all(len(node.output) == len(body.output) - has(node, Trait.LOOPS) for node, body in bodies)
