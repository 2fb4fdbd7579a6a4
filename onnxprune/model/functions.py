"""Local functions, written out: each call in its place, so that each can be cut on its own."""

import onnx
from onnx import inliner

from onnxprune.model.graphs import graphs_of
from onnxprune.model.network import Network


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose calls of local functions are replaced by the nodes of these; the model itself where it calls none.

    A function's body stands in the file once, while its calls may lose different channels: a count of channels that
    a call bakes into a Reshape can only follow the cut in a body of its own.

    Args:
        model: never changed; its tensors are copied once.
    """
    known = {(function.domain, function.name) for function in model.functions}
    if not any((n.domain, n.op_type) in known for graph, _ in graphs_of(model.graph) for n in graph.node):
        return model
    network = Network.of(model)
    return Network(inliner.inline_local_functions(network.graph), network.tensors).proto()
