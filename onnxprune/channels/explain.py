"""Chains of nodes through which labels came to be tied, in words: for `explain` and for reports."""

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.errors import UsageError
from onnxprune.model.graphs import is_constant
from onnxprune.model.tensors import quoted
from onnxprune.operators.labels import FIXED, Cause, Kind, Labels, is_fixed
from onnxprune.operators.roles import Role


@dataclass(frozen=True)
class Link:
    """One node of a chain; `why` is set where it freezes what it touches."""

    node: str
    operator: str
    why: str = ""


@dataclass(frozen=True)
class Partner:
    """A layer whose channels live and die with those that were asked about, and the nodes that couple them."""

    node: str
    chain: tuple[Link, ...]


@dataclass(frozen=True)
class Explanation:
    """Why two layers are coupled or one is frozen: a verdict, the groups concerned, and the chain of nodes."""

    verdict: str
    groups: tuple[str, ...] = ()
    chain: tuple[Link, ...] = ()
    partners: tuple[Partner, ...] = ()


def explain(deps: Dependencies, first: str, second: str | None = None) -> Explanation:
    """Why the channels of one layer cannot be removed, or what they live and die with; or why two layers are coupled.

    Args:
        deps: the analysis of the network.
        first, second: nodes by name, by an output, or by a weight that they use; groups by name.

    Raises:
        UsageError: there is no such node; the message names similar ones.
    """
    one, two = find_node(deps, first), find_node(deps, first if second is None else second)
    return _of_one(deps, one) if one == two else _of_two(deps, one, two)


def nodes_by_name(deps: Dependencies) -> dict[str, int]:
    """Positions of nodes by their names, outputs and weights, and by the groups that they write."""
    known: dict[str, int] = {}
    for index, node in enumerate(deps.nodes):
        known.setdefault(node.label, index)
    for use in sorted(deps.uses, key=lambda u: not _writes(deps, u)):
        if use.node >= 0:
            known.setdefault(use.source, use.node)
    for index, node in enumerate(deps.nodes):
        for key in filter(None, node.outputs):
            known.setdefault(key, index)
    return known | {g.name: g.writers[0].node for g in deps.groups if g.name not in known}


def find_node(deps: Dependencies, name: str) -> int:
    """Position of the node of that name, output, weight or group.  Raises UsageError naming similar ones."""
    known = nodes_by_name(deps)
    if name in known:
        return known[name]
    worth = {k for k, index in known.items() if not is_constant(deps.nodes[index].proto)}
    inside = [k for k in known if k in worth and name and name.lower() in k.lower()]
    near = list(dict.fromkeys([*inside[:5], *get_close_matches(name, sorted(worth), 5, 0.5)]))[:5]
    hint = f"; near it: {', '.join(map(quoted, near))}" if near else "; `onnxprune inspect -v` lists the layers"
    raise UsageError(f"no node, output or weight is called {quoted(name)}{hint}")


def _writes(deps: Dependencies, use: Use) -> bool:
    return any(_has(deps, labels, Role.WRITE) for labels in use.axes)


def _has(deps: Dependencies, labels: Labels, role: Role) -> bool:
    return not is_fixed(labels) and bool((deps.roles[labels] & role).all())


def _labels(deps: Dependencies, node: int, role: Role) -> Labels:
    """Labels of the channels that a node writes or reads; of one without weights, those that pass through it."""
    uses = deps.uses_at.get(node, ())
    axes = [x for use in uses for x in use.axes if _has(deps, x, role)]
    if not axes and not any(_writes(deps, use) for use in uses):
        values = [deps.values.get(key) for key in deps.nodes[node].outputs if key]
        axes = [x for v in values if v is not None for x in v.axes if not is_fixed(x)]
    return np.concatenate(axes) if axes else np.zeros(0, np.int64)


def _links(deps: Dependencies, causes: list[Cause] | None, freezes: bool = False) -> tuple[Link, ...]:
    links = []
    for k, cause in enumerate(causes or ()):
        why = cause.why if freezes and k == len(causes or ()) - 1 else ""
        why += " what cannot shrink" if why and cause.kind is Kind.COMBINES else ""
        if cause.node >= 0:
            node = deps.nodes[cause.node]
            links.append(Link(node.label, node.proto.op_type, why))
        elif why:
            links.append(Link("", "", why))
    return tuple(links)


def _groups(deps: Dependencies, labels: Labels) -> tuple[str, ...]:
    found = np.unique(deps.component[labels])
    return tuple(g.name for g in deps.groups if np.isin(g.components, found).any())


def _of_one(deps: Dependencies, node: int) -> Explanation:
    name, labels = str(deps.nodes[node]), _labels(deps, node, Role.WRITE)
    if node in deps.unknown:
        return Explanation(f"{name} freezes all that it touches: {deps.unknown[node]}")
    if labels.size == 0:
        return Explanation(f"{name} has no channels that could be removed: nothing that it gives can shrink")
    stuck = labels[deps.component[labels] == deps.frozen]
    free = np.setdiff1d(labels, stuck)
    if stuck.size:
        chain = _links(deps, deps.ties.chain(int(stuck[0]), np.array([FIXED])), freezes=True)
        some = "" if not free.size else f"{stuck.size} of "
        verdict = f"{some}the {labels.size} channels of {name} cannot be removed: {deps.reason(stuck)}"
        return Explanation(verdict, _groups(deps, free), chain, _partners(deps, node, free))
    partners = _partners(deps, node, free)
    count = np.unique(deps.component[free]).size
    if count == 1:
        chain = _links(deps, deps.ties.chain(int(free[0]), free[1:]))
        return Explanation(
            f"none of the {labels.size} channels of {name} can be removed: {deps.reason(free)}", (), chain
        )
    fate = f"together with those of {len(partners)} other layer{'s' * (len(partners) != 1)}" if partners else "alone"
    return Explanation(f"the {count} channels of {name} can be removed, {fate}", _groups(deps, free), (), partners)


def _partners(deps: Dependencies, node: int, labels: Labels) -> tuple[Partner, ...]:
    """Other layers that write channels of the same components."""
    mine = np.unique(deps.component[labels])
    found: dict[int, Partner] = {}
    for use in deps.uses:
        for axis in use.axes:
            if use.node in (node, -1) or use.node in found or not _has(deps, axis, Role.WRITE):
                continue
            shared = axis[np.isin(deps.component[axis], mine)]
            if shared.size:
                start = labels[deps.component[labels] == deps.component[shared[0]]][0]
                chain = _links(deps, deps.ties.chain(int(start), shared))
                found[use.node] = Partner(str(deps.nodes[use.node]), chain)
    return tuple(found.values())


def _of_two(deps: Dependencies, one: int, two: int) -> Explanation:
    first, second = str(deps.nodes[one]), str(deps.nodes[two])
    ways = (
        (one, two, Role.WRITE, f"{first} and {second} are coupled: {{n}} of their channels live and die together"),
        (one, two, Role.READ, f"{second} reads {{n}} of the channels that {first} writes, and is cut along with them"),
        (two, one, Role.READ, f"{first} reads {{n}} of the channels that {second} writes, and is cut along with them"),
    )
    for start, end, role, verdict in ways:
        a, b = _labels(deps, start, Role.WRITE), _labels(deps, end, role)
        shared = np.setdiff1d(np.intersect1d(deps.component[a], deps.component[b]), [deps.frozen])
        if shared.size:
            begin, ends = a[deps.component[a] == shared[0]][0], b[deps.component[b] == shared[0]]
            chain = _links(deps, deps.ties.chain(int(begin), ends))
            return Explanation(verdict.format(n=shared.size), _groups(deps, begin[None]), chain)
    parts = [_of_one(deps, node) for node in (one, two)]
    said = "; ".join(p.verdict for p in parts)
    groups = tuple(dict.fromkeys(name for p in parts for name in p.groups))
    return Explanation(f"{first} and {second} are not coupled: {said}", groups)
