"""Tensors that several nodes share, apart while widths are rotated: each node may need other elements then.

Exporters keep one tensor of those that are equal, such as the scales of norms that were never trained, and language
models take the table of their tokens to give scores, too.
"""

from collections.abc import Collection, Mapping

import numpy as np

from onnxprune.channels.dependencies import Use
from onnxprune.model.elements import Tensor
from onnxprune.model.fresh_names import all_names, fresh_name
from onnxprune.model.graphs import refill
from onnxprune.model.network import Network
from onnxprune.operators.labels import is_fixed
from onnxprune.surgery.rotation.sites import Graph


def shared(graph: Graph, vectors: bool) -> list[str]:
    """Tensors with channels that several nodes of the main graph take, and nothing else does.

    Args:
        vectors: those alone that have one axis of more than one position.
    """
    found: dict[str, list[Use]] = {}
    for use in graph.deps.uses:
        found.setdefault(use.source, []).append(use)
    return [key for key, uses in found.items() if len(uses) > 1 and all(_may(graph, u, vectors) for u in uses)]


def _may(graph: Graph, use: Use, vectors: bool) -> bool:
    wide = [x for x in use.axes if x.size > 1 and not is_fixed(x)]
    inside = use.node >= 0 and not graph.deps.nodes[use.node].path and graph.may_change(use.source)
    return inside and bool(wide) and (len(wide) == 1 or not vectors)


def apart(graph: Graph, keys: Collection[str]) -> tuple[Network, dict[str, str]]:
    """The network in which all nodes but the first take copies of these tensors; and what each copy is of."""
    names, copies, taken, firsts = all_names(graph.network.graph), dict[str, str](), dict[tuple[int, int], str](), set()
    for use in graph.deps.uses:
        if use.source in keys and use.source in firsts:
            name = fresh_name(use.source, names)
            copies[name], taken[use.node, use.input] = use.source, name
        firsts.add(use.source)
    more: dict[str, list[tuple[str, Tensor | None]]] = {}
    for name, key in copies.items():
        more.setdefault(key, []).append((name, graph.network.tensor(key)))
    out = graph.network.with_copies(more).own()
    main = [k for k, node in enumerate(graph.deps.nodes) if not node.path]
    for k, node in zip(main, out.graph.graph.node, strict=True):
        for place in range(len(node.input)):
            node.input[place] = taken.get((k, place), node.input[place])
    return out, copies


def together(network: Network, copies: Mapping[str, str]) -> Network:
    """The network without those copies that equal the original or one of the others."""
    stand_in: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for name, key in copies.items():
        alike = several.setdefault(key, [key])
        same = next((other for other in alike if _equal(network, name, other)), None)
        if same is None:
            alike.append(name)
        else:
            stand_in[name] = same
    if not stand_in:
        return network
    out = network.own()
    graph = out.graph.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = stand_in.get(name, name)
    refill(graph.initializer, [t for t in graph.initializer if t.name not in stand_in])
    return Network(out.graph, {key: t for key, t in out.tensors.items() if key not in stand_in})


def _equal(network: Network, one: str, other: str) -> bool:
    first, second = network.tensor(one), network.tensor(other)
    return first is second or np.array_equal(first.array(), second.array())
