"""Graphs of a model and of the bodies inside it, gone through in one order, their tensors by key, and new names.

A key is the name of a value behind the path of its graph: nothing for the main graph, "{first output of the
node}.{attribute}/" for a body.

Short fields of nodes are sliced before they are gone through, here and in other loops over all nodes: protobuf's
iterators end by an exception, which takes 2 µs, and slices are lists.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

DEFAULT = ("", "ai.onnx")  # two names of the default domain
Put = Callable[[TensorProto, str], TensorProto | None]  # what is put in the place of a tensor; None for itself


def opset_of(model: ModelProto, without: int = 1) -> int:
    """Version of the default operator set, or a number for a model that imports only others."""
    return max((o.version for o in model.opset_import if o.domain in DEFAULT), default=without)


def subgraphs(node: NodeProto, path: str = "") -> Iterator[tuple[GraphProto, str]]:
    """Bodies of a control-flow node with the path that their values are keyed by."""
    for attribute in body_attributes(node):
        yield attribute.g, f"{path}{next(filter(None, node.output), node.name)}.{attribute.name}/"


def body_attributes(node: NodeProto) -> list[AttributeProto]:
    """Attributes of a node that hold a body."""
    return [a for a in node.attribute[:] if a.type == AttributeProto.GRAPH]


def graphs_of(graph: GraphProto, path: str = "") -> Iterator[tuple[GraphProto, str]]:
    """A graph and all bodies inside it, with the path that their values are keyed by."""
    yield graph, path
    for node in filter(body_attributes, graph.node):
        for body, below in subgraphs(node, path):
            yield from graphs_of(body, below)


def is_constant(node: NodeProto) -> bool:
    """Whether a node is a Constant of ONNX."""
    return node.op_type == "Constant" and node.domain in DEFAULT


def value_of(node: NodeProto) -> TensorProto | None:
    """The tensor in the attribute `value` of a node, such as a Constant has; None where there is none."""
    return next((a.t for a in node.attribute[:] if a.name == "value" and a.HasField("t")), None)


def constants_of(graph: GraphProto, path: str = "") -> Iterator[tuple[str, TensorProto]]:
    """Tensors that Constant nodes of a graph hold, by key."""
    for node in graph.node:
        for attribute in node.attribute[:] if is_constant(node) else ():
            if attribute.name == "value":
                yield path + node.output[0], attribute.t


def tensors_of(model: ModelProto) -> dict[str, TensorProto]:
    """Initializers and Constant nodes of a model by the key that the analysis gives them."""
    found: dict[str, TensorProto] = {}
    for graph, path in graphs_of(model.graph):
        found |= {path + t.name: t for t in graph.initializer}
        found.update(constants_of(graph, path))
    return found


def refill(field: Any, messages: Iterable[Message]) -> None:
    """Put messages, some of which may be among them, in the place of all that a repeated field has."""
    copies = list(messages)
    for k, message in enumerate(copies):
        copies[k] = type(message)()
        copies[k].CopyFrom(message)
    del field[:]
    field.extend(copies)


def remove(field: Any, names: Collection[str]) -> None:
    """Take what has one of these names out of a repeated field."""
    for k in [k for k, message in enumerate(field) if message.name in names][::-1]:
        del field[k]


def copied(model: ModelProto, put: Put) -> ModelProto:
    """A copy of a model; `put` says what becomes of each tensor of the graph and of the bodies inside it.

    Args:
        model: never changed.
        put: is given each tensor and its key; that is "" for one in an attribute of another node than Constant.
    """
    out = ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            out.graph.SetInParent()
            copy_graph(value, out.graph, "", put)
        else:
            set_field(out, field, value)
    return out


def copy_graph(graph: GraphProto, out: GraphProto, path: str, put: Put) -> None:
    """Fill an empty graph with what stands in another one; see `copied`."""
    for field, value in graph.ListFields():
        if field.name == "initializer":
            for tensor in value:
                new = put(tensor, path + tensor.name)
                out.initializer.append(tensor if new is None else new)
        elif field.name == "node":
            for node in value:
                _copy_node(node, out, path, put)
        else:
            set_field(out, field, value)


def _copy_node(node: NodeProto, out: GraphProto, path: str, put: Put) -> None:
    new: dict[int, TensorProto | None] = {}
    for k, attribute in enumerate(node.attribute[:]):
        if attribute.type == AttributeProto.TENSOR:
            held = is_constant(node) and attribute.name == "value"
            new[k] = put(attribute.t, path + node.output[0] if held else "")
    bodies = list(subgraphs(node, path))
    if not bodies and all(tensor is None for tensor in new.values()):
        out.node.append(node)
        return
    copy, left = out.node.add(), iter(bodies)
    for field, value in node.ListFields():
        if field.name != "attribute":
            set_field(copy, field, value)
    for k, attribute in enumerate(node.attribute[:]):
        if attribute.type == AttributeProto.GRAPH:
            body, below = next(left)
            inner = copy.attribute.add(name=attribute.name, type=attribute.type).g
            inner.SetInParent()
            copy_graph(body, inner, below, put)
        elif (tensor := new.get(k)) is not None:
            copy.attribute.add(name=attribute.name, type=attribute.type, t=tensor)
        else:
            copy.attribute.append(attribute)


def set_field(message: Any, field: Any, value: Any) -> None:
    """Set one field of a protobuf message to what another message of its type has there."""
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def all_names(model: ModelProto) -> set[str]:
    """Names of all values of a graph and of the bodies inside it: what a new value must not be called."""
    names: set[str] = set()
    for graph, _ in graphs_of(model.graph):
        names |= {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        names |= {v.name for v in (*graph.input, *graph.output)}
        names |= {name for node in graph.node for name in (*node.input[:], *node.output[:])}
    return names


def fresh_name(stem: str, names: set[str]) -> str:
    """The stem, or the stem and a number, that is not among the names; it is put among them."""
    name, k = stem, 0
    while name in names:
        k += 1
        name = f"{stem}.{k}"
    names.add(name)
    return name
