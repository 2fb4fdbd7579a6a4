"""Local functions, written out: each call in its place, so that each can be cut on its own."""

from onnx import inliner

from onnxprune.model.graphs import graphs_of
from onnxprune.model.network import Network


def inlined(network: Network) -> Network:
    """The network with the nodes of local functions in place of their calls; itself where it calls none.

    A function's body stands in the file once, while its calls may lose different channels: a count of channels that
    a call bakes into a Reshape can only follow the cut in a body of its own.
    """
    model = network.graph
    known = {(function.domain, function.name) for function in model.functions}
    if not any((n.domain, n.op_type) in known for graph, _ in graphs_of(model.graph) for n in graph.node):
        return network
    return network.with_graph(inliner.inline_local_functions(model))
