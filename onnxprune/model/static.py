"""Static shapes and small constants of every value, for one concrete choice of input shapes.

Open sizes (batch, height, width) are normal: the analysis fixes them to a sample, since which axis is a channel axis
does not depend on them.  The same is inferred for other samples, in which open sizes are other ones: a size that
differs there is open too, and what is computed from it decides nothing and is never written into a model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.model.bodies import give_branch, walk_body
from onnxprune.model.evaluate import evaluate
from onnxprune.model.graphs import DEFAULT, body_attributes, graphs_of, is_constant, opset_of, subgraphs, value_of
from onnxprune.model.shapes import infer_node, note_type, sizes_given
from onnxprune.model.skeleton import other_sizes, sizes_of, skeleton_of
from onnxprune.model.sort import defined
from onnxprune.model.sound import without_unsound
from onnxprune.model.statics import Statics
from onnxprune.model.tensors import read_tensor
from onnxprune.model.thresholds import beyond, shortened, thresholds
from onnxprune.operators.registry import (
    LARGEST_VALUE,
    MALFORMED,
    Shape,
    Shapes,
    Taken,
    Trait,
    attributes_of,
    has,
    operator_of,
)

BROADCASTS = 7  # opset from which operands broadcast by themselves
COMBINES = Trait.ADDS | Trait.MULTIPLIES


def infer(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Shape] | None = None,
    observed: Mapping[str, np.ndarray] | None = None,
) -> Statics:
    """Shapes and constants of a model and of the bodies inside it.

    Args:
        model: never changed.
        input_shapes: concrete shapes of inputs; symbolic axes of others become 1 (the first) or 224.
        observed: arrays of the shape and type of values that inference cannot know, as a run has shown them.
    """
    statics = infer_once(model, input_shapes or {}, observed or {})
    statics.inferred = frozenset((infer_once(model, input_shapes or {}) if observed else statics).shapes)
    for several in other_sizes(model, statics.shapes):
        statics.other_sizes += [infer_once(model, shapes) for shapes in several]
        if any(map(statics.accepts, statics.other_sizes)):
            break
    statics.accepted_sizes = list(filter(statics.accepts, statics.other_sizes)) or statics.other_sizes
    if statics.other_sizes:  # the first eight rows are eight at all but smaller ones, max(H, 150) at all larger ones
        statics.extreme_sizes = [infer_once(model, shapes) for shapes in _edges(model, statics)]
        if _drops_ones(statics.skeleton.graph):  # ranks differ there
            statics.accepted_sizes = [*statics.accepted_sizes, *filter(statics.accepts, statics.extreme_sizes)]
        statics.pinned = _pins(statics)
    for other in {id(s): s for s in (*statics.other_sizes, *statics.accepted_sizes)}.values():
        other.other_sizes = other.accepted_sizes = [statics]
        other.extreme_sizes, other.pinned = statics.extreme_sizes, statics.pinned
    return statics


def _edges(model: onnx.ModelProto, statics: Statics) -> Iterator[Shapes]:
    """Sizes of 1, such as slices find too small, and such as lie beyond the numbers that sizes are compared with."""
    graph, constants = statics.skeleton.graph, statics.constants
    yield sizes_of(model, statics.shapes, lambda n: 1)
    if _drops_ones(graph):
        yield sizes_of(model, statics.shapes, lambda n: 1, last=0)
    for share in shortened(graph, constants, statics.shapes, statics.is_open):
        yield sizes_of(model, statics.shapes, lambda n, share=share: max(1, int(n * share)))  # type: ignore[misc]
    limits = thresholds(graph, constants, frozenset(statics.sampled))
    if limits:
        yield sizes_of(model, statics.shapes, partial(beyond, limits))


def runs_out(statics: Statics, input_shapes: Mapping[str, Shape]) -> bool:
    """Whether values have no elements at other sizes of the inputs, and a Reshape asks for some."""
    there = infer_once(statics.skeleton, input_shapes)
    return there.inconsistent and any(
        0 in shape and 0 not in statics.shapes.get(k, (0,)) for k, shape in there.shapes.items()
    )


def _drops_ones(graph: onnx.GraphProto) -> bool:
    """Whether a node is not told which axes it drops."""
    return any(has(node, Trait.DROPS_ONES) for node in graph.node)


def infer_once(
    model: onnx.ModelProto, input_shapes: Mapping[str, Shape], observed: Mapping[str, np.ndarray] | None = None
) -> Statics:
    """Like `infer`, at these sizes alone: what is open is not told from what is not."""
    skeleton = skeleton_of(model, input_shapes)
    # Known values are propagated by the walk below: onnx's own data_prop spends 2^34 elements on a long enough axis.
    # Only bodies need it, whose inputs get their shapes from nowhere else.
    bodies = any(map(body_attributes, skeleton.graph.node))
    statics, opset = Statics(skeleton), opset_of(model)
    inferred = statics.inference.of_model(without_unsound(skeleton), data_prop=bodies)
    _fill(statics, inferred or skeleton, opset, observed or {})
    return statics


def _fill(statics: Statics, inferred: onnx.ModelProto, opset: int, observed: Mapping[str, np.ndarray]) -> None:
    """Take over what whole-graph inference found; it gives up on graphs that runtimes accept, so go node by node."""
    for graph, path in graphs_of(inferred.graph):
        _read_types(graph, path, statics)
    for key, array in observed.items():
        statics.shapes.setdefault(key, array.shape)
        statics.types.setdefault(key, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    _walk(statics.skeleton.graph, "", statics, opset, [])


def _pins(statics: Statics) -> frozenset[tuple[str, int]]:
    """Axes that layers of the outermost graph sum over with weights of the file: (value, axis)."""
    return frozenset(pin for node in statics.skeleton.graph.node for pin in _pinned(statics, node))


def _pinned(statics: Statics, node: onnx.NodeProto) -> Iterator[tuple[str, int]]:
    if len(node.input) < 2 or not has(node, Trait.LINEAR):
        return
    data, weight = node.input[:2]
    ranks = {len(s.shapes[data]) for s in (statics, *statics.elsewhere) if data in s.shapes}
    if weight not in statics.tensors or len(statics.shapes.get(weight, ())) < 2 or len(ranks) != 1:
        return
    row, rank = operator_of(node), ranks.pop()
    if row.channel is not None:
        yield data, row.channel
    elif row.contracts is not None:
        taken = Taken(attributes_of(node), [statics.shapes.get(key) for key in node.input], lambda _: None)
        yield from ((data, axis) for axis in row.contracts(taken, 0, rank))


def _elements(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The value of a small tensor; None where it was left out or is damaged."""
    try:
        return read_tensor(tensor)
    except ModelError:
        return None


def _read_types(graph: onnx.GraphProto, path: str, statics: Statics) -> None:
    for value in (*graph.input, *graph.value_info, *graph.output):
        note_type(path + value.name, value.type, statics)
    for tensor in graph.initializer:
        statics.shapes[path + tensor.name] = tuple(tensor.dims)
        statics.types[path + tensor.name] = tensor.data_type


def _walk(graph: onnx.GraphProto, path: str, statics: Statics, opset: int, outer: list[dict[str, str]]) -> None:
    """Evaluate shape arithmetic and fill the gaps of shape inference, in the order of the nodes."""
    names: dict[str, str] = {value.name: path + value.name for value in graph.input}
    scope = [*outer, names]
    replaceable = {value.name for value in graph.input} if statics.skeleton.ir_version >= 4 else set()
    for tensor in graph.initializer:
        names[tensor.name] = path + tensor.name
        if tensor.name not in replaceable:
            statics.tensors.add(path + tensor.name)
        if (value := _elements(tensor)) is not None:
            statics.constants[path + tensor.name] = value
    for node in graph.node:
        keys, bodies = [find(scope, name) if name else "" for name in node.input[:]], body_attributes(node)
        if bodies:
            with suppress(*MALFORMED):  # what stays unknown, here and below, only makes the analysis more careful
                _walk_bodies(node, keys, path, statics, opset, scope)
        names.update({name: path + name for name in node.output[:] if name})
        with suppress(*MALFORMED):
            _evaluate_node(node, keys, path, statics, opset)
        if not bodies:
            with suppress(*MALFORMED):
                infer_node(node, keys, path, statics, opset)
        if has(node, Trait.RESHAPES) and keys and node.output:
            before, after = statics.shapes.get(keys[0]), statics.shapes.get(path + node.output[0])
            statics.inconsistent |= before is not None and after is not None and math.prod(before) != math.prod(after)
        if not path and opset >= BROADCASTS and has(node, COMBINES):
            statics.inconsistent |= not node.domain and not _broadcast([statics.shapes.get(key, ()) for key in keys])


def _broadcast(shapes: Sequence[Shape]) -> bool:
    """Whether operands of these shapes go together."""
    rank = max(map(len, shapes), default=0)
    return all(len(set(sizes) - {1}) < 2 for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True))


def _walk_bodies(
    node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int, scope: list[dict[str, str]]
) -> None:
    given: list[list[str]] = []
    for body, below in subgraphs(node, path):
        inside = partial(_walk, body, below, statics, opset, scope)
        walk_body(node, keys, body, (path, below), statics, inside)
        given.append([find([*scope, names_of(body, below)], value.name) for value in body.output])
    if has(node, Trait.BRANCHES) and len(given) == 2:
        give_branch(node, keys[0], path, given, statics)


def names_of(graph: onnx.GraphProto, path: str) -> dict[str, str]:
    """Keys of all names that a graph gives to values of its own."""
    return {name: path + name for name in defined(graph)}


def find(scope: list[dict[str, str]], name: str) -> str:
    """Key of a name in the innermost graph that has it."""
    for names in reversed(scope):
        if name in names:
            return names[name]
    return name


def _evaluate_node(node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int) -> None:
    constants = statics.constants
    if node.domain not in DEFAULT:
        return
    if is_constant(node):
        statics.tensors.add(path + node.output[0])
        if (value := constant_value(node)) is not None and value.size <= LARGEST_VALUE:
            constants[path + node.output[0]] = value
            statics.shapes.setdefault(path + node.output[0], value.shape)
        return
    if has(node, Trait.SIZES):
        if keys and (shape := statics.shapes.get(keys[0])) is not None:
            value = np.array(sizes_given(node, shape, partial(np.prod, dtype=np.int64)), np.int64)
            constants[path + node.output[0]] = value
            if keys[0] not in statics.tensors:
                statics.sampled.add(path + node.output[0])
        return
    if has(node, Trait.SAME) and keys and keys[0] in statics.tensors:
        statics.tensors.add(path + node.output[0])
    if not keys or not all(key in constants or not key for key in keys):
        return
    out = evaluate(node, [constants.get(key) for key in keys], attributes_of(node), opset)
    for name, value in zip(node.output, out or (), strict=False):
        constants[path + name] = value
        statics.shapes[path + name] = value.shape
        if any(key in statics.sampled for key in keys):
            statics.sampled.add(path + name)


def constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    """Value of a Constant node; None where its data was left out or is no tensor."""
    if (tensor := value_of(node)) is not None:
        return _elements(tensor)
    for a in node.attribute:
        if a.name in ("value_int", "value_ints"):
            return np.array(onnx.helper.get_attribute_value(a), np.int64)
        if a.name in ("value_float", "value_floats"):
            return np.array(onnx.helper.get_attribute_value(a), np.float32)
    return None
