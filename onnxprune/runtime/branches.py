"""Both branches of every If: which ones a run takes must not decide what is proven."""

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.taps import depends_on_shapes_alone

DEEPEST = 2  # levels of Ifs inside one another whose branches are all run
FREE, WAY = "onnxprune/free {}", "onnxprune/way {}"  # switches, by how deep an If lies: is it free, which way if not


def ways(graph: onnx.GraphProto) -> list[tuple[bool, ...]]:
    """Branches to take at each level, so that every branch of Ifs that data decide is taken in one of these ways."""
    depth = min(DEEPEST, max((level + 1 for _, level, _ in _ifs(graph)), default=0))
    return list(itertools.product((True, False), repeat=depth)) if depth else []


def deeper(graph: onnx.GraphProto) -> list[str]:
    """Ifs that lie too deep to have their branches taken in turn."""
    return [node.name or node.output[0] for node, level, _ in _ifs(graph) if level >= DEEPEST]


def steer(graph: onnx.GraphProto) -> None:
    """Let the caller send every If that data decide into a branch, by how deep it lies: see `switches`."""
    for number, (node, level, around) in enumerate(list(_ifs(graph))):
        if level >= DEEPEST:
            continue
        own, condition = f"onnxprune/own {number}", f"onnxprune/condition {number}"
        made = [("And", [node.input[0], FREE.format(level)], own), ("Or", [own, WAY.format(level)], condition)]
        node.input[0] = condition
        at = next(k for k, other in enumerate(around.node) if other is node or other == node)
        for step, (op, inputs, output) in enumerate(made):
            around.node.insert(at + step, helper.make_node(op, inputs, [output]))
    for name in switches(()):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))


def switches(taken: tuple[bool, ...]) -> dict[str, np.ndarray]:
    """What a steered graph is fed besides its own inputs: each level of Ifs goes its way, those not named are free."""
    free = {FREE.format(level): np.array(level >= len(taken)) for level in range(DEEPEST)}
    return free | {WAY.format(level): np.array(level < len(taken) and taken[level]) for level in range(DEEPEST)}


def called(taken: tuple[bool, ...]) -> str:
    """A way in words."""
    return ", ".join(f"{'then' if way else 'else'}{' inside' * level}" for level, way in enumerate(taken))


def _ifs(
    graph: onnx.GraphProto, level: int = 0, known: frozenset[str] = frozenset()
) -> Iterator[tuple[onnx.NodeProto, int, onnx.GraphProto]]:
    """Every If whose condition is computed from data, in bodies too, the number of such Ifs around it, its graph."""
    fixed = frozenset(depends_on_shapes_alone(graph, known))
    for node in graph.node:
        decided = has(node, Trait.BRANCHES) and node.input[0] not in fixed
        if decided:
            yield node, level, graph
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _ifs(attribute.g, level + decided, fixed)
