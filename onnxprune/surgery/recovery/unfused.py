"""Integer and fused layers written out as a layer of real numbers with what goes before and behind it, to be solved.

The tensors of the file keep their names: what is solved for the written out network holds for the original.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.keyed import keyed
from onnxprune.model.graphs import opset_of, refill
from onnxprune.model.network import Network
from onnxprune.model.static import attributes_of
from onnxprune.operators.registry import Trait, has, operator_of
from onnxprune.operators.written import Written
from onnxprune.surgery.recovery.flattened import branches_with_layers, flattened
from onnxprune.surgery.recovery.layer_graph import taken

FLOAT = onnx.TensorProto.FLOAT


def unfused(network: Network) -> Network:
    """The network with the integer and fused layers of its main graph written out; itself where it has none."""
    model = network.graph
    opset = opset_of(model)
    if not any(_way(node, opset) for node in model.graph.node):
        return network
    out = network.proto()
    tensors = {t.name: t for t in out.graph.initializer}
    sums = _sums(model.graph)
    del out.graph.node[:]
    for node in model.graph.node:
        way = _way(node, opset)
        whole = way is None or (way.sums and not _is_plain(node, tensors, sums))
        nodes, scale = ([node], None) if way is None or whole else way.nodes(node, tensors)
        out.graph.node.extend(nodes)
        if scale is not None:
            out.graph.initializer.append(scale)
    refill(out.graph.value_info, [v for v in out.graph.value_info if v.name not in sums])  # no integers any more
    return Network.of(out)


def _way(node: onnx.NodeProto, opset: int) -> Written | None:
    """How a node is written out, if it can be."""
    way = operator_of(node).written
    return way if way is not None and opset >= way.opset else None


def _sums(graph: onnx.GraphProto) -> frozenset[str]:
    """Sums of products of integers that are made real numbers at once, by all that take them."""
    casts = ((node, has(node, Trait.CASTS) and attributes_of(node).get("to") == FLOAT) for node in graph.node)
    outputs, readers = {v.name for v in graph.output}, keyed((n, real) for node, real in casts for n in taken(node))
    ways = ((operator_of(node).written, node) for node in graph.node)
    made = (name for way, node in ways if way is not None and way.sums for name in node.output)
    return frozenset(name for name in made if name not in outputs and all(readers.get(name, [False])))


def _is_plain(node: onnx.NodeProto, tensors: Mapping[str, onnx.TensorProto], sums: Collection[str]) -> bool:
    """Whether an integer layer is one of real numbers as well, with one zero point for all weights and all data."""
    points = [name for name in node.input[2:4] if name]
    single = all(name not in tensors or not tensors[name].dims or list(tensors[name].dims) == [1] for name in points)
    held = all(name in tensors for name in node.input[3:4] if name)
    return node.output[0] in sums and node.input[1] in tensors and single and held


def written_out(
    network: Network,
    deps: Dependencies,
    analyse: Callable[[Network], Dependencies],
    feed: Mapping[str, np.ndarray] | None = None,
) -> tuple[Network, Dependencies]:
    """The network with integer layers and branches written out, and its analysis, as far as the groups stay the same.

    Args:
        feed: some samples, which branches have to run on; without them they stay where they are.
    """
    for write in (partial(_unbranched, feed=feed) if feed else None, unfused):
        if write and (written := write(network)) is not network and alike(deps, analysed := analyse(written)):
            network, deps = written, analysed
    return network, deps


def _unbranched(network: Network, feed: Mapping[str, np.ndarray]) -> Network:
    """The network with its branches written out; itself where it has none that can be."""
    if not any(branches_with_layers(network.graph.graph)):
        return network
    whole = network.proto()
    flat = flattened(whole, feed)
    return network if flat is whole else Network.of(flat)


def alike(deps: Dependencies, other: Dependencies) -> bool:
    """Whether two analyses have the same groups, channel by channel, in whatever order."""
    theirs = {group.name: group for group in other.groups}
    return len(deps.groups) == len(theirs) and all(
        a.name in theirs
        and len(a) == len(b := theirs[a.name])
        and np.array_equal(a.writers[0].positions, b.writers[0].positions)
        for a in deps.groups
    )
