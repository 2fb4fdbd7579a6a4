"""Local functions, written out: each call in its place, so that each can be cut on its own."""

import onnx
from onnx import inliner

from onnxprune.model.static import subgraphs


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose calls of local functions are replaced by the nodes of these; the model itself where it calls none.

    A function's body stands in the file once, while its calls may lose different channels: a count of channels that
    a call bakes into a Reshape can only follow the cut in a body of its own.

    Args:
        model: never changed; its tensors are copied once.
    """
    known = {(function.domain, function.name) for function in model.functions}
    if not known or not _calls(model.graph, known):
        return model
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            _without_data(value, light.graph)
        elif field.is_repeated:
            getattr(light, field.name).extend(value)
        else:
            setattr(light, field.name, value)
    out = inliner.inline_local_functions(light)
    for tensor, original in zip(out.graph.initializer, model.graph.initializer, strict=True):
        tensor.CopyFrom(original)
    return out


def _calls(graph: onnx.GraphProto, known: set[tuple[str, str]]) -> bool:
    return any(
        (node.domain, node.op_type) in known or any(_calls(body, known) for body, _ in subgraphs(node))
        for node in graph.node
    )


def _without_data(graph: onnx.GraphProto, out: onnx.GraphProto) -> None:
    """Copy a graph but for the elements of its initializers, which the inliner would pass around."""
    for field, value in graph.ListFields():
        if field.name == "initializer":
            for tensor in value:
                out.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        elif field.is_repeated:
            getattr(out, field.name).extend(value)
        else:
            setattr(out, field.name, value)
