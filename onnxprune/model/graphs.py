"""Graphs of a model and of the bodies inside it, gone through in one order, and their tensors by key.

A key is the name of a value behind the path of its graph: nothing for the main graph, "{first output of the
node}.{attribute}/" for a body.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

Put = Callable[[TensorProto, TensorProto, str], None]  # fills an empty tensor from one of the file and its key, if any


def subgraphs(node: NodeProto, path: str = "") -> Iterator[tuple[GraphProto, str]]:
    """Bodies of a control-flow node with the path that their values are keyed by."""
    for attribute in body_attributes(node):
        yield attribute.g, f"{path}{next(filter(None, node.output), node.name)}.{attribute.name}/"


def body_attributes(node: NodeProto) -> list[AttributeProto]:
    """Attributes of a node that hold a body."""
    return [a for a in node.attribute if a.type == AttributeProto.GRAPH]


def graphs_of(graph: GraphProto, path: str = "") -> Iterator[tuple[GraphProto, str]]:
    """A graph and all bodies inside it, with the path that their values are keyed by."""
    yield graph, path
    for node in graph.node:
        for body, below in subgraphs(node, path):
            yield from graphs_of(body, below)


def constants_of(graph: GraphProto, path: str = "") -> Iterator[tuple[str, TensorProto]]:
    """Tensors that Constant nodes of a graph hold, by key."""
    for node in graph.node:
        values = [a.t for a in node.attribute if a.name == "value"] if node.op_type == "Constant" else []
        yield from ((path + node.output[0], value) for value in values)


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


def copied(model: ModelProto, put: Put) -> ModelProto:
    """A copy of a model; `put` says what becomes of each tensor of the graph and of the bodies inside it.

    Args:
        model: never changed.
        put: fills an empty tensor from one of the model and its key; that is "" for a tensor in an attribute of another
            node than Constant.
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
                put(out.initializer.add(), tensor, path + tensor.name)
        elif field.name == "node":
            for node in value:
                _copy_node(node, out, path, put)
        else:
            set_field(out, field, value)


def _copy_node(node: NodeProto, out: GraphProto, path: str, put: Put) -> None:
    if not any(a.type in (AttributeProto.TENSOR, AttributeProto.GRAPH) for a in node.attribute):
        out.node.append(node)
        return
    copy, paths = out.node.add(), (below for _, below in subgraphs(node, path))
    for field, value in node.ListFields():
        if field.name != "attribute":
            set_field(copy, field, value)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            new, below = copy.attribute.add(name=attribute.name, type=attribute.type), next(paths)
            new.g.SetInParent()
            copy_graph(attribute.g, new.g, below, put)
        elif attribute.type == AttributeProto.TENSOR:
            held = node.op_type == "Constant" and attribute.name == "value"
            new = copy.attribute.add(name=attribute.name, type=attribute.type)
            put(new.t, attribute.t, path + node.output[0] if held else "")
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
