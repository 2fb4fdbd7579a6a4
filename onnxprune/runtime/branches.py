"""Both branches of every If: which ones a run takes must not decide what is proven."""

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.runtime.taps import depends_on_shapes_alone

DEEPEST = 2  # levels of Ifs inside one another whose branches are all run
NAMES = {True: "onnxprune/first", False: "onnxprune/second"}


def ways(graph: onnx.GraphProto) -> list[tuple[bool, ...]]:
    """Branches to take at each level, so that every branch of Ifs that data decide is taken in one of these ways."""
    depth = min(DEEPEST, max((level + 1 for _, level in _ifs(graph)), default=0))
    return list(itertools.product((True, False), repeat=depth)) if depth else []


def deeper(graph: onnx.GraphProto) -> list[str]:
    """Ifs that lie too deep to have their branches taken in turn."""
    return [node.name or node.output[0] for node, level in _ifs(graph) if level >= DEEPEST]


def take(graph: onnx.GraphProto, taken: tuple[bool, ...]) -> None:
    """Send every If that data decide into its first branch (True) or its second, by how deep it lies."""
    for node, level in list(_ifs(graph)):
        if level < len(taken):
            node.input[0] = NAMES[taken[level]]
    graph.initializer.extend(numpy_helper.from_array(np.array(way), NAMES[way]) for way in sorted(set(taken)))


def called(taken: tuple[bool, ...]) -> str:
    """A way in words."""
    return ", ".join(f"{'then' if way else 'else'}{' inside' * level}" for level, way in enumerate(taken))


def _ifs(graph: onnx.GraphProto, level: int = 0, known: frozenset[str] = frozenset()) -> Iterator:
    """Every If whose condition is computed from data, in bodies too, and the number of such Ifs around it."""
    fixed = frozenset(depends_on_shapes_alone(graph, known))
    for node in graph.node:
        decided = node.op_type == "If" and node.input[0] not in fixed
        if decided:
            yield node, level
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _ifs(attribute.g, level + decided, fixed)
