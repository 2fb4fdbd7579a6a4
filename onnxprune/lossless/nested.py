"""A network with what stands inside its bodies: their nodes beside those of the main graph, values by their keys."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import onnx

from onnxprune.model.graphs import body_attributes, graphs_of, subgraphs
from onnxprune.model.sort import captured
from onnxprune.model.static import find, names_of
from onnxprune.surgery.recovery.layer_graph import LayerGraph


@dataclass(frozen=True)
class Body:
    """A body of a node: keys of what it takes by place and of what it gives, and its own nodes, in their order."""

    name: str
    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class _Placed:
    """A node whose inputs and outputs are keys, with its bodies and the keys of all that it takes."""

    proto: onnx.NodeProto
    taken: list[str]
    bodies: list[Body]
    path: str


@dataclass(frozen=True)
class NestedGraph(LayerGraph):
    """The nodes of all graphs of a model: each node, then those inside it, then the next one.

    A node with bodies takes what these capture.  Its outputs are constant where all of that is and it stands in the
    main graph.
    """

    nested: ClassVar[bool] = True

    @cached_property
    def _placed(self) -> list[_Placed]:
        found: list[_Placed] = []
        _place(self.model.graph, "", [], found)
        return found

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return [placed.proto for placed in self._placed]

    @cached_property
    def inputs(self) -> list[list[str]]:
        return [placed.taken for placed in self._placed]

    @cached_property
    def main(self) -> list[int]:
        """Nodes of the main graph."""
        return [k for k, placed in enumerate(self._placed) if not placed.path]

    @cached_property
    def bodies(self) -> dict[int, list[Body]]:
        """Bodies of the nodes that have some."""
        return {k: placed.bodies for k, placed in enumerate(self._placed) if placed.bodies}

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        return {path + t.name: t for graph, path in graphs_of(self.model.graph) for t in graph.initializer}

    @cached_property
    def sparse(self) -> dict[str, onnx.SparseTensorProto]:
        graphs = graphs_of(self.model.graph)
        return {path + t.values.name: t for graph, path in graphs for t in graph.sparse_initializer}

    @cached_property
    def outputs(self) -> frozenset[str]:
        given = (key for bodies in self.bodies.values() for body in bodies for key in body.outputs)
        return frozenset(v.name for v in self.model.graph.output).union(given)

    @cached_property
    def given_later(self) -> frozenset[str]:
        """Tensors of bodies that are inputs of these too, so that a node may put others in their place."""
        given = (key for bodies in self.bodies.values() for body in bodies for key in body.inputs)
        return frozenset(given) & self.tensors.keys()

    @cached_property
    def unasked(self) -> frozenset[int]:
        return frozenset(k for k, placed in enumerate(self._placed) if placed.path and placed.bodies)


def _place(graph: onnx.GraphProto, path: str, outer: list[dict[str, str]], found: list[_Placed]) -> tuple[int, ...]:
    """Add the nodes of a graph and of the bodies in it; gives the places of its own."""
    scope, places = [*outer, names_of(graph, path)], []
    for node in graph.node:
        proto, bodies = _keyed(node, path, scope), list[Body]()
        taken = dict.fromkeys(key for key in proto.input if key)
        places.append(len(found))
        found.append(_Placed(proto, [], bodies, path))
        for (body, below), held in zip(subgraphs(node, path), body_attributes(node), strict=True):
            taken |= dict.fromkeys(find(scope, key) for key in sorted(captured(body)))
            inside = _place(body, below, scope, found)
            outputs = tuple(find([*scope, names_of(body, below)], v.name) for v in body.output)
            bodies.append(Body(held.name, below, tuple(below + v.name for v in body.input), outputs, inside))
        found[places[-1]].taken.extend(taken)
    return tuple(places)


def _keyed(node: onnx.NodeProto, path: str, scope: list[dict[str, str]]) -> onnx.NodeProto:
    """A node that takes and gives keys: in the main graph these are its names."""
    if not path:
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    del out.input[:], out.output[:]
    out.input.extend(find(scope, name) if name else "" for name in node.input)
    out.output.extend(path + name if name else "" for name in node.output)
    return out
