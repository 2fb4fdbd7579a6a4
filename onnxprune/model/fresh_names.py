"""The names that a model has, and new ones beside them."""

from onnx import ModelProto

from onnxprune.model.graphs import graphs_of


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
