"""A model with other values and more outputs, without a copy of the weights that stay as they are."""

import math
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.specs import bits


class Blocks(Protocol):
    """An array that is not all in memory at once: `numpy.asarray` gives it whole, `blocks` a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __array__(self) -> np.ndarray: ...

    def blocks(self) -> Iterator[np.ndarray]: ...


Replacement = np.ndarray | Blocks


SPILL_TENSOR = 64 << 10  # smaller ones stay in the proto: they may be shapes that inference reads


def nbytes_of(tensor: TensorProto) -> int:
    """Bytes of the elements, from dims and type; 0 for a type that this onnx does not know."""
    try:
        return math.prod(tensor.dims) * bits(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) // 8
    except KeyError:
        return 0


def spills(tensor: TensorProto) -> bool:
    """Whether a tensor is worth being handed over through a file."""
    return (
        tensor.data_location != TensorProto.EXTERNAL
        and tensor.data_type != TensorProto.STRING
        and nbytes_of(tensor) >= SPILL_TENSOR
    )


def edited(
    model: onnx.ModelProto,
    taps: Iterable[str],
    values: Mapping[str, Replacement],
    *,
    weights: bool = True,
    skip: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of `model` with outputs added and values replaced, but for those in `skip`.

    Without `weights`, large ones are left out.
    """
    inside = [name for name in values if name not in skip]
    copy = onnx.ModelProto()
    for kind, content in model.ListFields():
        if kind.name != "graph":
            _put(copy, kind, content)
    for kind, content in model.graph.ListFields():
        if kind.name == "initializer":
            copy.graph.initializer.extend(t for t in content if t.name not in inside and (weights or not spills(t)))
        elif kind.name != "value_info":  # may contradict replaced or pruned shapes; onnxruntime infers its own
            _put(copy.graph, kind, content)
    _replace(copy.graph, {t.name: t for t in model.graph.initializer}, values, inside, weights)
    _tap(copy.graph, taps)
    return copy


def _put(message: Any, kind: Any, content: Any) -> None:
    """Set one field of a protobuf message to what another message of that type has there."""
    if isinstance(content, (str, bytes, int, float)):
        setattr(message, kind.name, content)
    elif hasattr(content, "CopyFrom"):
        getattr(message, kind.name).CopyFrom(content)
    else:
        getattr(message, kind.name).extend(content)


def _replace(
    graph: onnx.GraphProto,
    weights: Mapping[str, TensorProto],
    values: Mapping[str, Replacement],
    names: Iterable[str],
    inline: bool,
) -> None:
    """Put `values` where the graph defines them: as initializers, or as constants in place of a node's output."""
    producers = {name: (node, i) for node in graph.node for i, name in enumerate(node.output) if name}
    for name in names:
        if name in weights:
            if inline or not spills(weights[name]):
                graph.initializer.append(tensor_of(values[name], weights[name]))
        elif name in producers:
            node, position = producers[name]
            node.output[position] = f"{name}/replaced"
            graph.initializer.append(numpy_helper.from_array(np.asarray(values[name]), name))
        else:
            raise UsageError(f"the model has no initializer and no node output called '{name}'")


def check(value: Replacement, old: TensorProto) -> None:
    """Raises `UsageError` unless shape and type are those of the initializer that is replaced."""
    if list(value.shape) != list(old.dims) or onnx.helper.np_dtype_to_tensor_dtype(value.dtype) != old.data_type:
        was = f"{list(old.dims)} of {TensorProto.DataType.Name(old.data_type)}"
        raise UsageError(f"initializer '{old.name}' is {was}, not {list(value.shape)} of {value.dtype}")


def checked(value: Replacement, old: TensorProto) -> np.ndarray:
    """`value` in C order, once its shape and type are those of the initializer that it replaces."""
    check(value, old)
    return np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray turns scalars into vectors


def tensor_of(value: Replacement, old: TensorProto) -> TensorProto:
    return numpy_helper.from_array(checked(value, old), old.name)


def _tap(graph: onnx.GraphProto, taps: Iterable[str]) -> None:
    """Add values as outputs, without a type: onnxruntime infers it."""
    have = {o.name for o in graph.output}
    defined = {name for node in graph.node for name in node.output}
    for name in dict.fromkeys(taps):
        if name not in defined:
            raise UsageError(f"no node of the model gives a value called '{name}'")
        if name not in have:
            graph.output.add().name = name


def hand_over(graph: onnx.GraphProto, values: Mapping[str, int]) -> None:
    """Let these values be given by the caller (name → element type); what the graph makes itself becomes an output."""
    for node in graph.node:
        for k, name in enumerate(node.output):
            if name in values:
                node.output[k] = own(name)
    outputs = [o for o in graph.output if o.name not in values]
    holder = onnx.GraphProto()
    holder.output.extend(outputs)
    graph.ClearField("output")
    graph.output.extend(holder.output)
    for name, element in values.items():
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, None))
        graph.output.add().name = own(name)


def own(name: str) -> str:
    """What a graph makes itself of a value that is handed to it."""
    return f"{name}/own"


def draws(graph: onnx.GraphProto) -> bool:
    """Whether any node of a graph draws random numbers without a seed of its own."""
    return any(_unseeded(node) for node in _all_nodes(graph))


def sow(graph: onnx.GraphProto) -> None:
    """Give random operators a seed by the name of what they make: onnxruntime's own hangs on the place of the node."""
    for node in filter(_unseeded, _all_nodes(graph)):
        seed = float(zlib.crc32(node.output[0].encode()) % 65536)
        node.attribute.append(onnx.helper.make_attribute("seed", seed))


def _unseeded(node: onnx.NodeProto) -> bool:
    return has(node, Trait.RANDOM) and not any(a.name == "seed" for a in node.attribute)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)
