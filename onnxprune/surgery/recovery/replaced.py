"""A model with other values in some of its tensors, and biases of their own for layers that lack one."""

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.graphs import all_names, fresh_name, graphs_of, refill
from onnxprune.model.network import Network
from onnxprune.model.tensors import CUTTABLE
from onnxprune.operators.registry import operator_of
from onnxprune.surgery.recovery.layer_graph import LayerGraph, changed_nodes
from onnxprune.surgery.recovery.solvable import Finder, Solvable, is_solvable, multiplies_values, value_of
from onnxprune.surgery.tidy import list_tensors
from onnxprune.surgery.versions import versions


def spread(deps: Dependencies, dead: np.ndarray, pruned: Network) -> dict[str, np.ndarray]:
    """The weights of a pruned model, by key, in the layout of the original; zero where it has none.

    Args:
        deps: the analysis of the original, with the biases that the pruned model has.
        dead: (components,) bool, what the pruned model lacks.
    """
    live = {key: tuple(np.ones(n, bool) for n in source.shape) for key, source in deps.sources.items()}
    live |= {v.source.key: v.live for v in versions(deps, dead) if not v.copied}
    values = {}
    for key, source in deps.sources.items():
        if key not in pruned or source.dtype not in CUTTABLE | {onnx.TensorProto.INT32}:  # biases, behind integers
            continue
        array = pruned.array(key)
        if array.shape == tuple(np.count_nonzero(mask) for mask in live[key]):
            values[key] = np.zeros(source.shape, array.dtype)
            values[key][np.ix_(*live[key])] = array
    return values


def with_biases(original: Network, deps: Dependencies, dead: np.ndarray) -> Network:
    """The network, in which every layer that will be re-solved has a bias of its own; it computes the same.

    A Conv, ConvTranspose or Gemm without a bias, and without a BatchNormalization or an Add of a constant behind it
    that could hold one, gets zeros; one that shares its bias with other layers gets a copy of it.  The outcome has to
    be analysed again: its groups have the same names and channels.
    """
    network = LayerGraph(original, unpacked=True)
    finder = Finder(network, deps, dead)
    biases = {}
    for k in sorted(changed_nodes(network, deps, dead)):
        node = network.nodes[k]
        if not is_solvable(node) or operator_of(node).bias is None or finder.obstacle(k) is not None:
            continue
        layer = finder.layer(k)
        quantised = layer.weight in network.scaled  # runtimes want integers for the bias too, and then fuse
        made = _bias_for(network, layer) if layer.bias is None and not quantised else None
        if made is not None:
            biases[node.output[0]] = made
    return with_biases_at(original, biases)


def _bias_for(network: LayerGraph, layer: Solvable) -> np.ndarray | None:
    """Zeros, or a copy of a bias that other layers use too; None where it is no bias per channel."""
    node = network.nodes[layer.node]
    weight, outputs = value_of(network, {}, layer.weight), math.prod(layer.stays.shape[:2])
    if len(node.input) < 3 or not node.input[2]:
        return np.zeros(outputs, weight.dtype)
    bias = network.tensor(node.input[2])
    fits = bias is not None and bias.dtype == weight.dtype and bias.size == outputs == bias.shape[-1]
    return bias if fits else None


def with_biases_at(original: Network, biases: Mapping[str, np.ndarray]) -> Network:
    """The network in which layers have these biases, by the key of their output; behind a MatMul an Add does it."""
    names, added = all_names(original.graph), dict[str, np.ndarray]()
    out = original.own()
    for graph, path in reversed(list(graphs_of(out.graph.graph))):  # nodes are replaced together with bodies in them
        behind = dict[int, onnx.NodeProto]()
        for k, node in enumerate(graph.node):
            if not node.output or (array := biases.get(path + node.output[0])) is None:
                continue
            label = node.name or node.output[0]
            name = fresh_name(f"{label}.bias", names)
            added[name] = array
            if multiplies_values(node):
                inner, given = fresh_name(f"{label}.product", names), node.output[0]
                node.output[0] = inner
                behind[k] = helper.make_node("Add", [inner, name], [given], name=f"{label}.add")
            else:
                inputs = [*node.input[:2], name]
                del node.input[:]
                node.input.extend(inputs)
        if behind:
            row = [n for k, node in enumerate(graph.node) for n in (node, behind.get(k)) if n is not None]
            refill(graph.node, row)
    made = out.with_more(added)
    list_tensors(made.graph, original.graph)
    return made
