"""Local functions, written out: each call in its place, so that each can be cut on its own."""

from onnx import ModelProto, inliner

from onnxprune.model.graphs import graphs_of
from onnxprune.model.network import Network
from onnxprune.model.tensors import nodes


def inlined(network: Network) -> Network:
    """The network with the nodes of local functions in place of their calls; itself where it calls none.

    A function's body stands in the file once, while its calls may lose different channels: a count of channels that
    a call bakes into a Reshape can only follow the cut in a body of its own.
    """
    model = network.graph
    known = {(function.domain, function.name) for function in model.functions}
    if not any((n.domain, n.op_type) in known for graph, _ in graphs_of(model.graph) for n in graph.node):
        return network
    return network.with_graph(inliner.inline_local_functions(_with_defaults(model)))


def _with_defaults(model: ModelProto) -> ModelProto:
    """The model with the attributes of functions that have defaults at every call, since the inliner knows none."""
    out = ModelProto()
    out.CopyFrom(model)
    defaults = {(f.domain, f.name, f.overload): list(f.attribute_proto) for f in out.functions}
    for node in nodes(out.graph.node, *(f.node for f in out.functions)):
        said = {attribute.name for attribute in node.attribute}
        known = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(default for default in known if default.name not in said)
    return out
