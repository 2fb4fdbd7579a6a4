"""Control flow: bodies of If, Loop and Scan are walked with the labels of what they take from around them.

What a branch gives is tied to what the other one gives, and what a loop carries has the same labels in every round.
Other bodies are left alone, and what they capture is frozen.
"""

from collections.abc import Callable, Sequence

import onnx

from onnxprune.channels.nodes import Node
from onnxprune.channels.walk import Walk
from onnxprune.model.bodies import Scan, branch_taken, follows_bodies
from onnxprune.model.graphs import subgraphs
from onnxprune.model.static import find
from onnxprune.operators.boxes import Value, choose_factor
from onnxprune.operators.labels import Axes, fixed, unlabelled
from onnxprune.operators.registry import Trait, attributes_of, has


def enter(walk: Walk, node: Node) -> None:
    """Visit a node that has bodies."""
    if follows_bodies(node.proto, walk.opset):
        next(visit for trait, visit in BODIES.items() if has(node.proto, trait))(walk, node)
    else:
        _leave_alone(walk, node)


def _leave_alone(walk: Walk, node: Node) -> None:
    walk.freeze_around(node, len(walk.nodes) - 1, "hands it to a body", "captures it in a body")
    _give(walk, node, [None] * len(node.outputs))


def _branches(walk: Walk, node: Node) -> None:
    index = len(walk.nodes) - 1
    walk.freeze_taken(index, 0, node.inputs[0], "decides by it")
    given: list[list[str]] = []
    for body, path in subgraphs(node.proto, node.path):
        names = walk.graph(body, path, walk.scope)
        given.append([find([*walk.scope, names], value.name) for value in body.output])
    walk.coupling.node = index
    conditions = [s.constants.get(node.inputs[0]) for s in (walk.statics, *walk.statics.accepted_sizes)]
    branches = {branch_taken(node.proto, condition) for condition in conditions}
    taken = branches.pop() if len(branches) == 1 else None
    _give(walk, node, [_join(walk, keys, taken) for keys in zip(*given, strict=True)])
    for key, keys in zip(node.outputs, zip(*given, strict=True), strict=True):
        if all(k in walk.zeros.known for k in keys):
            walk.zeros.note([key], walk.zeros.common(keys))


def _loop(walk: Walk, node: Node) -> None:
    """Inputs: most rounds, condition, carried values; the body takes the round's number besides."""
    for k, key in enumerate(node.inputs[:2]):
        if key:
            walk.freeze_taken(len(walk.nodes) - 1, k, key, "decides by it")
    ((body, path),) = subgraphs(node.proto, node.path)
    carried = [_taken(walk, node, k) for k in range(2, len(node.inputs))]
    _body(walk, node, body, path, [None, None, *carried], carried, skip=1, stacked=[0] * len(body.output))


def _scan(walk: Walk, node: Node) -> None:
    """Inputs: carried values, then what is gone through along one axis, a slice for each round."""
    ((body, path),) = subgraphs(node.proto, node.path)
    scan = Scan.of(attributes_of(node.proto), len(node.inputs), len(body.output))
    carried = [_taken(walk, node, k) for k in range(scan.carried)]
    slices = [_slice(walk, _taken(walk, node, k), axis) for k, (axis, _) in enumerate(scan.sliced, scan.carried)]
    _body(walk, node, body, path, [*carried, *slices], carried, skip=0, stacked=[axis for axis, _ in scan.stacked])


BODIES: dict[Trait, Callable[[Walk, Node], None]] = {Trait.BRANCHES: _branches, Trait.LOOPS: _loop, Trait.SCANS: _scan}


def _body(
    walk: Walk,
    node: Node,
    body: onnx.GraphProto,
    path: str,
    inputs: Sequence[Axes | None],
    carried: Sequence[Axes | None],
    skip: int,
    stacked: Sequence[int],
) -> None:
    """Walk a body whose carried values keep their labels; its first `skip` outputs are its own affair."""
    index = len(walk.nodes) - 1
    for value, axes in zip(body.input, inputs, strict=True):
        shape = walk.statics.shapes.get(path + value.name)
        if axes is not None and shape == tuple(x.size for x in axes):
            walk.values[path + value.name] = Value(axes)
        elif axes is not None:
            walk.coupling.freeze(*axes, why="hands it to its body, which may take it in another shape")
    names = walk.graph(body, path, walk.scope)
    keys = [find([*walk.scope, names], value.name) for value in body.output]
    walk.coupling.node = index
    for key in keys[:skip]:
        walk.freeze_value(key, "decides by it")
    out = [_carry(walk, before, key) for before, key in zip(carried, keys[skip:], strict=False)]
    for key, axis in zip(keys[skip + len(carried) :], stacked, strict=False):
        out.append(_stack(walk, node, len(out), key, axis))
    _give(walk, node, out)


def _carry(walk: Walk, before: Axes | None, key: str) -> Axes | None:
    """What a round hands to the next one lives and dies with what it was handed itself."""
    after = boxed(walk, key)
    if before is not None and after is not None and [x.size for x in before] == [x.size for x in after]:
        for a, b in zip(before, after, strict=True):
            walk.coupling.tie(a, b, why="carries it from round to round")
        return before
    for axes in (before, after):
        walk.coupling.freeze(*(axes or ()), why="carries values of changing shapes")
    return None


def _stack(walk: Walk, node: Node, k: int, key: str, axis: int) -> Axes | None:
    """The outputs of all rounds along a new axis."""
    axes, shape = boxed(walk, key), walk.statics.shapes.get(node.outputs[k])
    if axes is None or shape is None:
        walk.freeze_value(key, "leaves the body of it")
        return None
    axis %= len(shape)
    return (*axes[:axis], fixed(shape[axis]), *axes[axis:])


def _slice(walk: Walk, axes: Axes | None, axis: int) -> Axes | None:
    if axes is None:
        return None
    axis %= len(axes)
    walk.coupling.freeze(axes[axis], why="goes through it")
    return (*axes[:axis], *axes[axis + 1 :])


def _join(walk: Walk, keys: Sequence[str], taken: int | None) -> Axes | None:
    """What one branch gives has the labels of what the other one gives.

    They may differ by axes of length 1 where it is known which branch is taken.
    """
    values = [boxed(walk, key) for key in keys]
    known = [axes for axes in values if axes is not None]
    wide = [[x for x in axes if x.size > 1 or taken is None] for axes in known]
    if len(known) < len(keys) or len({tuple(x.size for x in axes) for axes in wide}) > 1:
        for key in keys:
            walk.freeze_value(key, "leaves a branch of it")
        return None
    joined = iter([walk.coupling.join(column) for column in zip(*wide, strict=True)])
    return tuple(next(joined) if x.size > 1 or taken is None else x for x in known[taken or 0])


def _taken(walk: Walk, node: Node, k: int) -> Axes | None:
    """The axes of input k as a box; a tensor of the file gets labels of its own."""
    key = node.inputs[k]
    if key in walk.alias:
        value = walk.take(len(walk.nodes) - 1, k, key)
        return None if value is None else value.axes
    return boxed(walk, key) if key else None


def boxed(walk: Walk, key: str) -> Axes | None:
    """The axes of a value as a box; a tensor of the file stays whole."""
    if key in walk.alias:
        walk.freeze_value(key, "is handed out")
        return unlabelled(walk.sources[walk.alias[key]].shape)
    value = walk.values.get(key)
    if value is None:
        return None
    if value.split_axis is not None:
        value = walk.values[key] = Value(choose_factor(walk.coupling, value, (), walk.heads))
    return value.axes


def _give(walk: Walk, node: Node, outputs: Sequence[Axes | None]) -> None:
    """What the node gives; without labels where nothing more is known than a shape."""
    for key, axes in zip(node.outputs, outputs, strict=True):
        if key:
            walk.values[key] = walk.unlabelled_value(key) if axes is None else Value(axes)
