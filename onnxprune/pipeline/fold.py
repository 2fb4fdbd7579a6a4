"""A network in its plain form: no calls of functions, no sequences, no weights that are computed from weights.

Weights that the graph computes by statistics over weights, or looks up in a table, become tensors of the file: a norm
over the fan-in of a filter (weight standardisation) would change with every input channel that goes, though what it
gives is constant; and no entry of a codebook stands for a channel.
"""

from collections.abc import Iterator

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.model.functions import inlined
from onnxprune.model.graphs import is_constant, refill, tensors_of
from onnxprune.model.network import Network
from onnxprune.model.tensors import nbytes_of
from onnxprune.model.unsequenced import without_sequences
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.session import make_session
from onnxprune.surgery.tidy import drop_unused

FLAT = "local functions were written out: each call is cut on its own"
PLAIN = "sequences of tensors were written out: Split and Concat in place of what makes and takes them"
FOLDED = "weights that the graph computes from weights alone were computed beforehand"


def plain_form(network: Network) -> tuple[Network, list[str]]:
    """The network as it is cut, itself where there is nothing to be written out; and what was."""
    flat = inlined(network)
    plain = without_sequences(flat)
    if plain is not flat:
        plain = _without_unused(plain, flat)  # such as places in a sequence
    whole = folded(plain)
    steps = ((network, flat, FLAT), (flat, plain, PLAIN), (plain, whole, FOLDED))
    return whole, [note for before, after, note in steps if after is not before]


def folded(network: Network) -> Network:
    """The network with such weights as initializers.

    Itself where there are none that onnxruntime can compute, or where they would take more bytes than what they come
    of.
    """
    model = network.graph
    names = list(dict.fromkeys(_computed(model))) if model.ir_version >= 4 else []
    if not names:
        return network
    try:
        arrays = make_session(network.with_graph(_only(model, names)), providers="cpu").run({})
    except ModelError:  # the analysis will find what can be done without
        return network
    out = network.own()
    refill(out.graph.graph.node, [node for node in model.graph.node if not set(node.output) & set(names)])
    out = _without_unused(out.with_more({name: np.ascontiguousarray(arrays[name]) for name in names}), network)
    return out if _weight(out) <= _weight(network) else network


def _without_unused(network: Network, before: Network) -> Network:
    """The network without what only parts used that were there before."""
    out = network.own().graph
    drop_unused(out, before.graph)
    return network.with_graph(out)


def _weight(network: Network) -> int:
    """Bytes of the elements of all tensors."""
    return sum(map(nbytes_of, tensors_of(network.graph).values()))


def _computed(model: onnx.ModelProto) -> Iterator[str]:
    """Weights of layers that statistics over tensors of the file alone, or codes, have gone into."""
    constant = {t.name for t in model.graph.initializer} - {v.name for v in model.graph.input}
    codes = {t.name for t in model.graph.initializer if len(t.dims) > 1}
    taken: set[str] = set()  # of these, what statistics have gone into
    single: set[str] = set()
    for node in model.graph.node:
        plain = not any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute) and not has(node, Trait.RANDOM)
        if is_constant(node) or (plain and node.input and all(not k or k in constant for k in node.input)):
            constant |= set(node.output)
            looks_up = has(node, Trait.LOOKS_UP) and node.input[1] in codes
            taken |= set(node.output) if has(node, Trait.STATISTICS) or looks_up or taken & set(node.input) else set()
            single |= set(node.output) if len(node.output) == 1 else set()
        elif has(node, Trait.LINEAR) and len(node.input) > 1 and node.input[1] in taken & single:
            yield node.input[1]


def _only(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The part of a model that computes these values from tensors of the file."""
    wanted, nodes = set(names), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(filter(None, node.input))
    graph = onnx.GraphProto(name="weights", node=nodes[::-1])
    graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
