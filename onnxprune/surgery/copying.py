"""A copy of a model in which some tensors are replaced, without ever holding their old data twice."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from onnxprune.model.static import subgraphs

Replaced = list[tuple[str, bool, np.ndarray]] | None  # (name, whether it is an extra copy, elements)


def graphs_of(graph: onnx.GraphProto, path: str = "") -> Iterator[tuple[onnx.GraphProto, str]]:
    """A graph and all bodies inside it, with the path that their values are keyed by."""
    yield graph, path
    for node in graph.node:
        for body, below in subgraphs(node, path):
            yield from graphs_of(body, below)


def tensors_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers and Constant nodes of a model by the key that the analysis gives them."""
    found: dict[str, onnx.TensorProto] = {}
    for graph, path in graphs_of(model.graph):
        found |= {path + t.name: t for t in graph.initializer}
        for node in graph.node:
            values = [a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"]
            found.update((path + node.output[0], value) for value in values)
    return found


def copy_model(
    model: onnx.ModelProto,
    replaced: Callable[[str, onnx.TensorProto], Replaced],
    write: Callable[[onnx.TensorProto, np.ndarray, onnx.TensorProto, str], None],
) -> onnx.ModelProto:
    """Copy a model field by field.

    Args:
        model: never changed.
        replaced: for the key of a tensor of the file, its new versions, or None to copy it as it is.
        write: fills an empty tensor from (elements, tensor that it replaces, name).
    """
    out = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            _copy_graph(value, out.graph, "", replaced, write)
        else:
            _copy_field(out, field, value)
    return out


def _copy_graph(graph: onnx.GraphProto, out: onnx.GraphProto, path: str, replaced: Callable, write: Callable) -> None:
    for field, value in graph.ListFields():
        if field.name == "initializer":
            for tensor in value:
                _copy_tensor(tensor, path + tensor.name, out, replaced, write)
        elif field.name == "node":
            for node in value:
                _copy_node(node, out, path, replaced, write)
        else:
            _copy_field(out, field, value)


def _copy_tensor(tensor: onnx.TensorProto, key: str, out: onnx.GraphProto, replaced: Callable, write: Callable) -> None:
    found = replaced(key, tensor)
    if found is None or all(copied for _, copied, _ in found):
        out.initializer.add().CopyFrom(tensor)
    for name, _, array in found or ():
        write(out.initializer.add(), array, tensor, name)


def _copy_node(node: onnx.NodeProto, out: onnx.GraphProto, path: str, replaced: Callable, write: Callable) -> None:
    heavy = [a for a in node.attribute if a.type in (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH)]
    if not heavy:
        out.node.append(node)
        return
    copy = out.node.add()
    bodies = dict(
        zip([a.name for a in heavy if a.type == onnx.AttributeProto.GRAPH], subgraphs(node, path), strict=True)
    )
    for field, value in node.ListFields():
        if field.name != "attribute":
            _copy_field(copy, field, value)
    for attribute in node.attribute:
        new = copy.attribute.add()
        if attribute.name in bodies:
            new.name, new.type = attribute.name, attribute.type
            _copy_graph(attribute.g, new.g, bodies[attribute.name][1], replaced, write)
        elif node.op_type == "Constant" and attribute.name == "value":
            _copy_constant(attribute, new, path + node.output[0], out, replaced, write)
        else:
            new.CopyFrom(attribute)


def _copy_constant(
    attribute: onnx.AttributeProto,
    new: onnx.AttributeProto,
    key: str,
    out: onnx.GraphProto,
    replaced: Callable,
    write: Callable,
) -> None:
    found = replaced(key, attribute.t) or []
    own = [array for _, copied, array in found if not copied]
    if own:
        new.name, new.type = attribute.name, attribute.type
        write(new.t, own[0], attribute.t, attribute.t.name)
    else:
        new.CopyFrom(attribute)
    for name, copied, array in found:
        if copied:
            write(out.initializer.add(), array, attribute.t, name)


def _copy_field(out: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto, field, value) -> None:  # type: ignore[no-untyped-def]
    if field.is_repeated:
        getattr(out, field.name).extend(value)
    elif field.message_type is not None:
        getattr(out, field.name).CopyFrom(value)
    else:
        setattr(out, field.name, value)
