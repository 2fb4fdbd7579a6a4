"""Tensors that several nodes share, apart while widths are rotated: each node may need other elements then.

Exporters keep one tensor of those that are equal, such as the scales of norms that were never trained, and language
models take the table of their tokens to give scores, too.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from onnxprune.channels.dependencies import Use
from onnxprune.keyed import keyed
from onnxprune.model.graphs import all_names, fresh_name, refill
from onnxprune.model.network import Network
from onnxprune.operators.labels import is_fixed
from onnxprune.surgery.rotation.sites import Graph, RotationSite, WidthPlace
from onnxprune.surgery.tidy import list_tensors

PRECISE = 1e-12  # relative difference of what double precision computes in two ways


def shared(graph: Graph, vectors: bool) -> list[str]:
    """Tensors with channels that several nodes of the main graph take, and nothing else does.

    Args:
        vectors: those alone that have one axis of more than one position.
    """
    found = graph.deps.uses_of.items()
    return [key for key, uses in found if len(uses) > 1 and all(_may(graph, u, vectors) for u in uses)]


def _may(graph: Graph, use: Use, vectors: bool) -> bool:
    wide = [x for x in use.axes if x.size > 1]
    inside = use.node >= 0 and not graph.deps.nodes[use.node].path and graph.may_change(use.source)
    return inside and not all(map(is_fixed, wide)) and (len(wide) == 1 or not vectors)


def apart(graph: Graph, keys: Collection[str]) -> tuple[Network, dict[str, str]]:
    """The network in which all nodes but the first take copies of these tensors; and what each copy is of."""
    names, copies, taken, firsts = all_names(graph.network.graph), dict[str, str](), dict[tuple[int, int], str](), set()
    for use in graph.deps.uses:
        if use.source in keys and use.source in firsts:
            name = fresh_name(use.source, names)
            copies[name], taken[use.node, use.input] = use.source, name
        firsts.add(use.source)
    more = keyed((key, (name, graph.network.tensor(key))) for name, key in copies.items())
    out = graph.network.with_copies(more).own()
    main = [k for k, node in enumerate(graph.deps.nodes) if not node.path]
    for k, node in zip(main, out.graph.graph.node, strict=True):
        for place in range(len(node.input)):
            node.input[place] = taken.get((k, place), node.input[place])
    list_tensors(out.graph, graph.network.graph)
    return out, copies


def join(graph: Graph, sites: Sequence[RotationSite], copies: Mapping[str, str]) -> bool:
    """Whether copies of all tensors but vectors will equal the original, whichever of the widths are rotated.

    Args:
        graph: the network in which the nodes take copies, of which these are the widths.
        copies: what each copy is of.
    """
    several = {name: key for name, key in copies.items() if sum(n > 1 for n in graph.network.tensor(key).shape) > 1}
    return all(_together(site, name, key) for site in sites for name, key in several.items())


def _together(site: RotationSite, name: str, key: str) -> bool:
    one, two = ([p for p in site.places if p.key == k] for k in (name, key))
    return len(one) == len(two) and all(_same(p, q, site.orthogonal) for p, q in zip(one, two, strict=True))


def _same(one: WidthPlace, other: WidthPlace, orthogonal: bool) -> bool:
    """Whether two places of a width take the same change: making and taking in are one in an orthogonal basis."""
    if (one.axis, one.level) != (other.axis, other.level) or not (orthogonal or one.along == other.along):
        return False
    first, second = (np.ones(one.positions.shape[1]) if p.factor is None else p.factor for p in (one, other))
    return np.array_equal(one.positions, other.positions) and np.allclose(first, second, rtol=PRECISE, atol=0)


def together(network: Network, copies: Mapping[str, str]) -> Network:
    """The network without those copies that equal the original or one of the others, up to rounding."""
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
    out = network.own().graph
    for node in out.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = stand_in.get(name, name)
    refill(out.graph.initializer, [t for t in out.graph.initializer if t.name not in stand_in])
    refill(out.graph.input, [v for v in out.graph.input if v.name not in stand_in])
    return network.with_graph(out)


def _equal(network: Network, one: str, other: str) -> bool:
    first, second = network.tensor(one), network.tensor(other)
    if first is second:
        return True
    a, b = first.array(), second.array()
    return bool(np.abs(a - b).max() <= (np.finfo(a.dtype).eps + PRECISE) * np.abs(a).max())
