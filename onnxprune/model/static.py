"""Static shapes and small constants of every value, for one concrete choice of input shapes.

Symbolic sizes (batch, height, width) are normal: the analysis fixes them to a sample, since which axis is a channel
axis does not depend on them.  What follows from such a sample is marked as not fixed and never written into a model.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.model import contrib
from onnxprune.model.bodies import give_branch, walk_body
from onnxprune.model.evaluate import LARGEST, MALFORMED, evaluate
from onnxprune.model.inference import Inference
from onnxprune.model.skeleton import LONGEST, Shape, skeleton_of
from onnxprune.model.sound import is_well_formed, without_unsound

EIGHT_BIT = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


@dataclass
class Statics:
    """Concrete shapes, element types and small known values, by key (the name, behind the path of its graph)."""

    skeleton: onnx.ModelProto = field(default_factory=onnx.ModelProto, repr=False)  # the model without large tensors
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    sampled: set[str] = field(default_factory=set)  # constants that follow from the shape of a value
    tensors: set[str] = field(default_factory=set)  # tensors of the file, whose shapes hold for every input
    huge: int = 0  # elements of the largest value whose shape is left out for having too long an axis
    inference: Inference = field(default_factory=Inference, repr=False, compare=False)

    def fixed_constant(self, key: str) -> np.ndarray | None:
        """A value that holds for every input of the model."""
        return None if key in self.sampled else self.constants.get(key)


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
    skeleton = skeleton_of(model, input_shapes or {})
    # Known values are propagated by the walk below: onnx's own data_prop spends 2^34 elements on a long enough axis.
    # Only bodies need it, whose inputs get their shapes from nowhere else.
    bodies = any(True for node in skeleton.graph.node for _ in subgraphs(node))
    statics, opset = Statics(skeleton), opset_of(model)
    inferred = statics.inference.of_model(without_unsound(skeleton), data_prop=bodies)
    _fill(statics, inferred or skeleton, opset, observed or {})
    return statics


def _fill(statics: Statics, inferred: onnx.ModelProto, opset: int, observed: Mapping[str, np.ndarray]) -> None:
    """Take over what whole-graph inference found; it gives up on graphs that runtimes accept, so go node by node."""
    _read_types(inferred.graph, "", statics)
    for key, array in observed.items():
        statics.shapes.setdefault(key, array.shape)
        statics.types.setdefault(key, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    _walk(statics.skeleton.graph, "", statics, opset, [])


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def subgraphs(node: onnx.NodeProto, path: str = "") -> Iterator[tuple[onnx.GraphProto, str]]:
    """Bodies of a control-flow node with the path that their values are keyed by."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g, f"{path}{next(filter(None, node.output), node.name)}.{attribute.name}/"


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes as Python values, without bodies and references."""
    return {
        a.name: onnx.helper.get_attribute_value(a)
        for a in node.attribute
        if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) and not a.ref_attr_name
    }


def _elements(tensor: onnx.TensorProto) -> np.ndarray | None:
    """The value of a small tensor; None where it was left out or is damaged."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def _read_types(graph: onnx.GraphProto, path: str, statics: Statics) -> None:
    for value in (*graph.input, *graph.value_info, *graph.output):
        _note_type(path + value.name, value.type, statics)
    for tensor in graph.initializer:
        statics.shapes[path + tensor.name] = tuple(tensor.dims)
        statics.types[path + tensor.name] = tensor.data_type
    for node in graph.node:
        for body, below in subgraphs(node, path):
            _read_types(body, below, statics)


def _note_type(key: str, type_: onnx.TypeProto, statics: Statics) -> None:
    if not type_.HasField("tensor_type"):
        return
    tensor = type_.tensor_type
    if tensor.elem_type:
        statics.types[key] = tensor.elem_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in tensor.shape.dim):
        return
    shape = tuple(d.dim_value for d in tensor.shape.dim)
    if max(shape, default=0) <= LONGEST:
        statics.shapes[key] = shape
    else:
        statics.huge = max(statics.huge, math.prod(shape))


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
        keys = [find(scope, name) if name else "" for name in node.input]
        with suppress(*MALFORMED):  # what stays unknown, here and below, only makes the analysis more careful
            _walk_bodies(node, keys, path, statics, opset, scope)
        names.update({name: path + name for name in node.output if name})
        with suppress(*MALFORMED):
            _evaluate_node(node, keys, path, statics, opset, statics.shapes.get)
        with suppress(*MALFORMED):
            _infer_node(node, keys, path, statics, opset)


def _walk_bodies(
    node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int, scope: list[dict[str, str]]
) -> None:
    given: list[list[str]] = []
    for body, below in subgraphs(node, path):
        inside = partial(_walk, body, below, statics, opset, scope)
        walk_body(node, keys, body, (path, below), statics, inside)
        given.append([find([*scope, names_of(body, below)], value.name) for value in body.output])
    if node.op_type == "If" and len(given) == 2:
        give_branch(node, keys[0], path, given, statics)


def names_of(graph: onnx.GraphProto, path: str) -> dict[str, str]:
    """Keys of all names that a graph gives to values of its own."""
    names = {value.name: path + value.name for value in (*graph.input, *graph.initializer)}
    return names | {name: path + name for node in graph.node for name in node.output if name}


def find(scope: list[dict[str, str]], name: str) -> str:
    """Key of a name in the innermost graph that has it."""
    return next((names[name] for names in reversed(scope) if name in names), name)


def _evaluate_node(
    node: onnx.NodeProto,
    keys: list[str],
    path: str,
    statics: Statics,
    opset: int,
    shape_of: Callable[[str], Shape | None],
) -> None:
    attributes: dict[str, Any]
    constants = statics.constants
    if node.domain not in ("", "ai.onnx"):
        return
    if node.op_type == "Constant":
        statics.tensors.add(path + node.output[0])
        if (value := constant_value(node)) is not None and value.size <= LARGEST:
            constants[path + node.output[0]] = value
            statics.shapes.setdefault(path + node.output[0], value.shape)
        return
    if node.op_type in ("Shape", "Size"):
        if keys and (shape := shape_of(keys[0])) is not None:
            attributes = attributes_of(node)
            picked = shape[attributes.get("start", 0) : attributes.get("end", len(shape))]
            value = np.array(picked if node.op_type == "Shape" else np.prod(shape, dtype=np.int64), np.int64)
            constants[path + node.output[0]] = value
            if keys[0] not in statics.tensors:
                statics.sampled.add(path + node.output[0])
        return
    if node.op_type == "Identity" and keys and keys[0] in statics.tensors:
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
    for a in node.attribute:
        if a.name == "value" and a.HasField("t"):
            return _elements(a.t)
        if a.name in ("value_int", "value_ints"):
            return np.array(onnx.helper.get_attribute_value(a), np.int64)
        if a.name in ("value_float", "value_floats"):
            return np.array(onnx.helper.get_attribute_value(a), np.float32)
    return None


def _infer_node(node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int) -> None:
    """Shapes of the outputs of one node where whole-graph inference left them open."""
    missing = [name for name in node.output if name and path + name not in statics.shapes]
    if not missing or any(True for _ in subgraphs(node)):
        return
    if node.domain in ("", "ai.onnx"):
        _infer_standard(node, dict(zip(node.input, keys, strict=True)), path, statics, opset)
    if any(path + name not in statics.shapes for name in missing):
        _infer_contrib(node, keys, path, statics, opset)


def _infer_contrib(node: onnx.NodeProto, keys: list[str], path: str, statics: Statics, opset: int) -> None:
    """Shapes of operators that onnx's inference does not know."""
    dtype = contrib.type_of(node, [statics.types.get(key) for key in keys])
    if (copy := contrib.stand_in(node, opset)) is not None:
        last = contrib.channels_last(node)
        _infer_standard(copy, dict(zip(node.input, keys, strict=True)), path, statics, opset, EIGHT_BIT, last)
    else:
        found = contrib.shapes_of(node, [statics.shapes.get(key) for key in keys], attributes_of(node))
        for name, shape in zip(node.output, found, strict=False):
            if name and shape is not None and all(0 <= n <= LONGEST for n in shape):
                statics.shapes[path + name] = tuple(map(int, shape))
    if dtype is not None:
        statics.types.update({path + name: dtype for name in node.output if name and path + name in statics.shapes})


def _infer_standard(
    node: onnx.NodeProto,
    keys: Mapping[str, str],
    path: str,
    statics: Statics,
    opset: int,
    floats: frozenset[int] = frozenset(),
    channels_last: bool = False,
) -> None:
    """Shapes by the operator's own inference, from those of its inputs; its channels may be at the end.

    Inputs whose type is among `floats` are taken for float, which the standard operator wants.
    """
    keys = {name: keys[name] for name in node.input if name}
    if not all(key in statics.shapes and key in statics.types for key in keys.values()):
        return
    if not is_well_formed(node, opset):
        return  # the shape stays unknown, and the analysis freezes what it would need it for
    shapes = {name: statics.shapes[key] for name, key in keys.items()}
    if channels_last:
        x = shapes[node.input[0]]
        shapes[node.input[0]] = (x[0], x[-1], *x[1:-1])
    make = onnx.helper.make_tensor_type_proto
    given = {n: onnx.TensorProto.FLOAT if statics.types[k] in floats else statics.types[k] for n, k in keys.items()}
    types = {name: make(given[name], shapes[name]) for name in keys}
    known = {name: statics.constants[key] for name, key in keys.items() if key in statics.constants}
    data = {name: numpy_helper.from_array(value) for name, value in known.items() if value.dtype.kind != "O"}
    found = statics.inference.of_node(node, opset, types, data)
    for name, type_ in found.items():
        if path + name not in statics.shapes:
            _note_type(path + name, type_, statics)
            if channels_last and (y := statics.shapes.get(path + name)) is not None:
                statics.shapes[path + name] = (y[0], *y[2:], y[1])
