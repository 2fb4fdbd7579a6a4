"""Shapes in and behind the bodies of If, Loop and Scan: what is carried keeps its shape if one round keeps it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.model.graphs import subgraphs
from onnxprune.model.statics import Statics
from onnxprune.operators.registry import Shape, Trait, attributes_of, has


@dataclass(frozen=True)
class Carried:
    """A value that a loop hands from round to round."""

    given: int  # among the inputs of the node
    name: str  # in the body
    after: str  # what the body makes of it
    output: str  # of the node, after the last round


def draws(node: onnx.NodeProto) -> bool:
    """Whether a node, or one in its bodies, draws numbers: what it gives is another value in each run."""
    return has(node, Trait.RANDOM) or any(draws(inner) for body, _ in subgraphs(node) for inner in body.node)


def follows_bodies(node: onnx.NodeProto, opset: int) -> bool:
    """Whether it is known how a node runs its bodies: a Scan of opset 8 has a batch."""
    return has(node, Trait.BRANCHES | Trait.LOOPS) or (has(node, Trait.SCANS) and opset >= 9)


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
            _note(statics, path + value.name, keys[value.given], statics.shapes.get(keys[value.given]))
        _give_slices(node, keys, body, path, statics)
        walk()
        lasting = [v for v in values if statics.shapes.get(path + v.name) == statics.shapes.get(path + v.after)]
        if len(lasting) == len(values):
            break
        values = lasting
        _forget(statics, path, shapes, types)
    for value in values:
        if value.output:
            _note(statics, outer + value.output, path + value.name, statics.shapes.get(path + value.name))
    _give_stacks(node, keys, body, paths, statics)


def _note(statics: Statics, key: str, like: str, shape: Shape | None) -> None:
    """Take over the type of another value where both this and a shape are known."""
    if shape is not None and like in statics.types:
        statics.shapes.setdefault(key, shape)
        statics.types.setdefault(key, statics.types[like])


def _give_slices(node: onnx.NodeProto, keys: Sequence[str], body: onnx.GraphProto, path: str, statics: Statics) -> None:
    """Shapes of the slices that the body of a Scan takes."""
    for key, name, axis in _sliced(node, keys, body):
        if (whole := statics.shapes.get(key)) is not None:
            axis %= len(whole)
            _note(statics, path + name, key, (*whole[:axis], *whole[axis + 1 :]))


def _give_stacks(
    node: onnx.NodeProto, keys: Sequence[str], body: onnx.GraphProto, paths: tuple[str, str], statics: Statics
) -> None:
    """Shapes of what a Scan gives of all its rounds."""
    (outer, path), shapes = paths, statics.shapes
    rounds = next((shapes[key][axis] for key, _, axis in _sliced(node, keys, body) if key in shapes), None)
    for name, made, axis in _stacked(node, body):
        part = shapes.get(path + made)
        if rounds is not None and part is not None:
            axis %= len(part) + 1
            _note(statics, outer + name, path + made, (*part[:axis], rounds, *part[axis:]))


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


@dataclass(frozen=True)
class Scan:
    """How a Scan of opset 9 or later goes through what it takes.

        Scan(state, x, y) → (state, z), num_scan_inputs=2           # carried: 1
        body(state, slice of x, slice of y) → (state, slice of z)

    carried: how many values each round hands to the next one: the first of the inputs and outputs, of the body too.
    sliced: of each input behind them, the axis that it is gone through along, and 1 if that is from the end, else 0.
    stacked: of each output behind them, the axis that rounds are stacked along, and the same.
    """

    carried: int
    sliced: tuple[tuple[int, int], ...]
    stacked: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any], inputs: int, outputs: int) -> "Scan":
        """From the attributes of the node, and how many inputs and outputs its body has."""

        def along(kind: str, count: int) -> tuple[tuple[int, int], ...]:
            axes, directions = (attributes.get(f"scan_{kind}_{what}") or [0] * count for what in ("axes", "directions"))
            return tuple(zip(axes, directions, strict=True))

        through = attributes["num_scan_inputs"]
        return cls(inputs - through, along("input", through), along("output", outputs - inputs + through))


def _scan_of(node: onnx.NodeProto, body: onnx.GraphProto) -> Scan | None:
    """None for another node, and for a Scan before opset 9, which took the lengths of sequences besides."""
    scans = has(node, Trait.SCANS) and len(node.input) == len(body.input)
    return Scan.of(attributes_of(node), len(body.input), len(body.output)) if scans else None


def _sliced(node: onnx.NodeProto, keys: Sequence[str], body: onnx.GraphProto) -> Iterator[tuple[str, str, int]]:
    """What a Scan goes through: its key, the name of a slice in the body, and the axis."""
    if (scan := _scan_of(node, body)) is not None:
        rows = zip(keys[scan.carried :], body.input[scan.carried :], scan.sliced, strict=True)
        yield from ((key, value.name, axis) for key, value, (axis, _) in rows)


def _stacked(node: onnx.NodeProto, body: onnx.GraphProto) -> Iterator[tuple[str, str, int]]:
    """What a Scan gives of all its rounds: its name, that in the body of what each gives, and the axis."""
    if (scan := _scan_of(node, body)) is not None:
        rows = zip(node.output[scan.carried :], body.output[scan.carried :], scan.stacked, strict=True)
        yield from ((name, value.name, axis) for name, value, (axis, _) in rows if name)


def _forget(statics: Statics, path: str, shapes: set[str], types: set[str]) -> None:
    """Drop what was concluded inside a body."""
    for known, kept in ((statics.shapes, shapes), (statics.types, types), (statics.constants, set[str]())):
        for key in [key for key in known if key.startswith(path) and key not in kept]:
            del known[key]
    statics.sampled.difference_update([key for key in statics.sampled if key.startswith(path)])
