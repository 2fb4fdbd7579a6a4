"""What is left to do once the nodes are cut: put new ones in their places, drop idle ones, refresh recorded shapes."""

from collections import Counter

import onnx
from onnx import helper

from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import all_names, graphs_of, refill, remove
from onnxprune.surgery.draft import Draft


def place(draft: Draft) -> None:
    """Put the new tensors and nodes of a draft where they belong in its model."""
    index = {id(draft.proto(k)): k for k in (*draft.before, *draft.after)}
    for graph, path in reversed(list(graphs_of(draft.out.graph))):  # bodies first: the graph around them is copied
        new = draft.initializers.get(path, ())
        graph.initializer.extend(new)
        places = [index.get(id(node), -1) for node in graph.node]
        if max(places, default=-1) < 0:
            continue
        ordered: list[onnx.NodeProto] = []
        for k, node in zip(places, graph.node, strict=True):
            ordered += [*draft.before.get(k, ()), node, *draft.after.get(k, ())]
        refill(graph.node, ordered)


def list_tensors(out: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Before IR version 4 every tensor is listed as an input too; so are the new ones.

    Args:
        out: the model with new tensors, at the end of the tensors of their graphs; changed.
        model: as it was without them.
    """
    if model.ir_version >= 4:
        return
    known = {path + t.name for graph, path in graphs_of(model.graph) for t in graph.initializer}
    for graph, path in graphs_of(out.graph):
        new = [t for t in graph.initializer if path + t.name not in known]
        graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in new)


def references(graph: onnx.GraphProto) -> Counter[str]:
    """How often each name is used, in a graph and in the bodies inside it."""
    found = Counter[str]()
    for part, _ in graphs_of(graph):
        found.update(v.name for v in part.output)
        found.update(name for node in part.node for name in node.input[:] if name)
    return found


def drop_unused(out: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Remove nodes and tensors that only the removed parts used, or nobody after all.

    What nobody used before stays, and so do inputs with defaults.

    Args:
        out: the model without these parts; changed.
        model: the model with them.
    """
    used = references(out.graph)
    kept = all_names(model) - references(model.graph).keys() | overridable(model)
    for graph, _ in reversed(list(graphs_of(out.graph))):  # bodies first: they use what is outside
        _drop_nodes(graph, kept, used)
        names = {t.name for t in graph.initializer if t.name not in kept and not used[t.name]}
        remove(graph.initializer, names)
        remove(graph.input, names)


def _drop_nodes(graph: onnx.GraphProto, kept: set[str], used: Counter[str]) -> None:
    """Remove nodes that nobody uses and that give none of what is kept, and count down what they used."""
    makers = {name: node for node in graph.node for name in node.output[:] if name}
    idle: set[int] = set()
    doubtful = list(graph.node)
    while doubtful:
        node = doubtful.pop()
        if id(node) in idle or any(used[o] for o in node.output) or all(o in kept for o in node.output if o):
            continue
        idle.add(id(node))
        dropped = references(onnx.GraphProto(node=[node]))
        used.subtract(dropped)
        doubtful += [makers[name] for name in dropped if name in makers]
    if idle:
        refill(graph.node, [node for node in graph.node if id(node) not in idle])


def refresh_shapes(draft: Draft) -> None:
    """Correct recorded sizes of values that lost channels; forget those of values that are gone."""
    for graph, path in graphs_of(draft.out.graph):
        made = {name for node in graph.node for name in node.output[:]} | {v.name for v in graph.input}
        tensors = {t.name: t.dims for t in graph.initializer}
        known = (made | tensors.keys()) - {key.removeprefix(path) for key in draft.in_one_piece if key.startswith(path)}
        if any(value.name not in known for value in graph.value_info):
            refill(graph.value_info, [value for value in graph.value_info if value.name in known])
        for value in (*graph.value_info, *graph.input, *(graph.output if path else ())):
            cut = [None if m.all() else int(m.sum()) for m in draft.box(path + value.name) or ()]
            for dim, size in zip(value.type.tensor_type.shape.dim, tensors.get(value.name, cut), strict=False):
                if size is not None and dim.HasField("dim_value"):
                    dim.dim_value = size
