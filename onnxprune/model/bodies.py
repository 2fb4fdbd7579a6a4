"""Shapes in and behind the bodies of If, Loop and Scan: what is carried keeps its shape if one round keeps it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.model.statics import Statics
from onnxprune.operators.registry import Trait, has


@dataclass(frozen=True)
class Carried:
    """A value that a loop hands from round to round."""

    given: int  # among the inputs of the node
    name: str  # in the body
    after: str  # what the body makes of it
    output: str  # of the node, after the last round


def walk_body(
    node: onnx.NodeProto,
    keys: Sequence[str],
    body: onnx.GraphProto,
    paths: tuple[str, str],
    statics: Statics,
    walk: Callable[[], None],
) -> None:
    """Infer a body from the shapes that its node takes, and again without those that do not last a round.

    Args:
        node: the node that holds the body.
        keys: of its inputs.
        body: one of its bodies.
        paths: of the graph of the node, and of the body.
        statics: what is known; grows.
        walk: infers the body.
    """
    outer, path = paths
    values = carried(node, body)
    while True:
        shapes, types = set(statics.shapes), set(statics.types)
        for value in values:
            key = keys[value.given]
            if key in statics.shapes and key in statics.types:
                statics.shapes.setdefault(path + value.name, statics.shapes[key])
                statics.types.setdefault(path + value.name, statics.types[key])
        walk()
        lasting = [v for v in values if statics.shapes.get(path + v.name) == statics.shapes.get(path + v.after)]
        if len(lasting) == len(values):
            break
        values = lasting
        _forget(statics, path, shapes, types)
    for value in values:
        if value.output and path + value.name in statics.shapes:
            statics.shapes.setdefault(outer + value.output, statics.shapes[path + value.name])
            statics.types.setdefault(outer + value.output, statics.types[path + value.name])


def give_branch(
    node: onnx.NodeProto, condition: str, path: str, outputs: Sequence[Sequence[str]], statics: Statics
) -> None:
    """Shapes of what an If gives: of the branch that the sampled sizes lead to, or of both where they agree.

    Args:
        node: an If.
        condition: key of its input.
        path: of its graph.
        outputs: keys of the outputs of each branch, in the order of its attributes.
        statics: what is known; grows.
    """
    taken = branch_taken(node, statics.constants.get(condition))
    for k, name in enumerate(node.output):
        keys = [keys[k] for keys in outputs] if taken is None else [outputs[taken][k]]
        shapes = {statics.shapes.get(key) for key in keys}
        if name and len(shapes) == 1 and (shape := shapes.pop()) is not None:
            statics.shapes[path + name] = shape
            if keys[0] in statics.types:
                statics.types[path + name] = statics.types[keys[0]]


def branch_taken(node: onnx.NodeProto, condition: np.ndarray | None) -> int | None:
    """Which of the bodies of an If a known condition leads to."""
    if condition is None or condition.size != 1:
        return None
    wanted = "then_branch" if condition.all() else "else_branch"
    names = [a.name for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return names.index(wanted) if wanted in names else None


def carried(node: onnx.NodeProto, body: onnx.GraphProto) -> list[Carried]:
    """Values that a Loop or a Scan carries."""
    if has(node, Trait.LOOPS):  # rounds, condition, carried values; the body takes the number of the round besides
        count, skip, ahead = len(node.input) - 2, 2, 1
    elif has(node, Trait.SCANS):
        through = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), len(node.input))
        count, skip, ahead = len(node.input) - through, 0, 0
    else:
        return []
    count = min(count, len(body.input) - skip, len(body.output) - ahead, len(node.output))
    return [
        Carried(skip + j, body.input[skip + j].name, body.output[ahead + j].name, node.output[j]) for j in range(count)
    ]


def _forget(statics: Statics, path: str, shapes: set[str], types: set[str]) -> None:
    """Drop what was concluded inside a body."""
    for known, kept in ((statics.shapes, shapes), (statics.types, types), (statics.constants, set[str]())):
        for key in [key for key in known if key.startswith(path) and key not in kept]:
            del known[key]
    statics.sampled.difference_update([key for key in statics.sampled if key.startswith(path)])
