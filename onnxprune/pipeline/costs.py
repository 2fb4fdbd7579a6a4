"""What a network and each layer cost, from labels: as a function of the channels that groups keep, and after a cut."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxprune.budget.cost import Axis, Costs, Term
from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.channels.parameters import INTEGERS, computed_once
from onnxprune.keyed import keyed
from onnxprune.model.tensors import BITS
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.registry import Trait, has, operator_of
from onnxprune.operators.roles import Role
from onnxprune.report.summary import LayerRow


def costs_of(deps: Dependencies, size: int) -> Costs:
    """Costs "macs" (multiply-accumulates), "params" (elements) and "size" (bytes of a file that now has `size`)."""
    widths = [len(g) for g in deps.groups]
    known: dict[bytes, Axis] = {}  # most axes stand in terms of several costs

    def axis(labels: Labels) -> Axis:
        if is_fixed(labels):
            return labels.size, ()
        if (mark := labels.tobytes()) not in known:
            fixed, *counts = np.bincount(deps.owners[deps.component[labels]] + 1).tolist()
            known[mark] = fixed, tuple((g, n / widths[g]) for g, n in enumerate(counts) if n)
        return known[mark]

    def term(times: float, axes: Sequence[Labels]) -> Term:
        return Term(times, tuple(axis(y) for x in axes for y in deps.factors(x)))

    macs = tuple(term(c.times, c.labels) for layer in deps.layers for c in layer.costs)
    first = {use.source: use for use in reversed(deps.uses)}
    weights = [use for use in first.values() if deps.sources[use.source].dtype not in INTEGERS]
    params = tuple(term(1, use.axes) for use in deps.weights)
    sizes = [onnx.helper.tensor_dtype_to_np_dtype(deps.sources[use.source].dtype).itemsize for use in weights]
    held = [k for k, use in enumerate(weights) if deps.sources[use.source].kind != "fill"]
    stored = tuple(term(sizes[k], weights[k].axes) for k in held)
    rest = size - sum(sizes[k] * int(np.prod(deps.sources[weights[k].source].shape, dtype=np.int64)) for k in held)
    return Costs(
        {g.name: len(g) for g in deps.groups},
        {"macs": macs, "params": params, "size": (*stored, Term(max(0, rest), ()))},
    )


def peak_activations(deps: Dependencies, dead: np.ndarray, *, stored: bool = False) -> int:
    """Bytes of the largest set of values that are alive at once, each from its maker to its last user.

    Values whose shape is unknown count nothing; runtimes that work in place need less.  Real numbers between integers
    (Q/DQ nodes) count as the integers, which is what kernels hold.  What is computed from weights alone counts as none,
    since runtimes compute it when they load; with `stored` it does, and so do the real numbers, as the proof has them.
    """
    return max((size for size, _ in _moments(deps, dead, stored)), default=0)


def alive_beyond(deps: Dependencies, limit: float) -> list[str]:
    """Groups whose channels are in values that live at a moment when more bytes than `limit` do."""
    values = {key for size, alive in _moments(deps, deps.nothing, False) if size > limit for key in alive}
    axes = [labels.ravel() for key in values if (v := deps.values.get(key)) is not None for labels in v.axes]
    held = np.unique(deps.component[np.concatenate([np.zeros(0, np.int64), *(x for x in axes if not is_fixed(x))])])
    return [group.name for group in deps.groups if np.isin(group.components, held).any()]


def _moments(deps: Dependencies, dead: np.ndarray, stored: bool) -> Iterator[tuple[int, Collection[str]]]:
    """As each node runs, the bytes that are alive and the values that they are."""
    alone = set[str]() if stored else from_weights(deps)
    same = {} if stored else _integers(deps)
    last = {same.get(key, key): k for k, node in enumerate(deps.nodes) for key in node.inputs if key}
    dying: dict[int, list[str]] = {}
    alive: dict[str, int] = {}
    seen = {*deps.sources, *alone}
    now = 0
    for k, node in enumerate(deps.nodes):
        for key in (same.get(key, key) for key in node.outputs if key):
            if key not in seen:
                seen.add(key)
                alive[key] = _bytes(deps, key, dead)
                now += alive[key]
                dying.setdefault(last.get(key, len(deps.nodes)), []).append(key)
        yield now, alive.keys()
        now -= sum(alive.pop(key) for key in dying.pop(k, ()))


def from_weights(deps: Dependencies) -> set[str]:
    """Values that are computed from weights and constants alone, such as dequantized weights."""
    return computed_once(deps.nodes, deps.sources) - deps.sources.keys()


def _quantises(node: onnx.NodeProto) -> bool:
    """Whether a node rounds by a scale that it is given; one that computes it has to see all of the real numbers."""
    return has(node, Trait.ROUNDS) and has(node, Trait.SHIFTS)


def _integers(deps: Dependencies) -> dict[str, str]:
    """For real numbers beside Q/DQ nodes the integers that they are, or become and nothing else."""
    ends = {value.name for value in deps.statics.skeleton.graph.output}
    readers = Counter(key for node in deps.nodes for key in node.inputs) + Counter(ends)
    found: dict[str, str] = {}
    for node in deps.nodes:
        given, made = node.inputs[:1], node.outputs[:1]
        if has(node.proto, Trait.DEQUANTIZES):
            found[made[0]] = found.get(given[0], given[0])
        elif _quantises(node.proto) and readers[given[0]] == 1 and deps.maker(given[0]) is not None:
            found.setdefault(given[0], made[0])
    return {key: integers for key, integers in found.items() if key not in ends}


def _bytes(deps: Dependencies, key: str, dead: np.ndarray) -> int:
    value = deps.values.get(key)
    if value is None:
        return 0
    size = math.prod(int(deps.live(labels, dead).sum()) for labels in value.axes)
    dtype = deps.statics.types.get(key, onnx.TensorProto.FLOAT)
    return size * BITS.get(dtype, 32) // 8


def layer_rows(deps: Dependencies, dead: np.ndarray) -> tuple[LayerRow, ...]:
    """A row for each node that multiplies by weights or holds some, in the order of the network.

    Weights that are computed from weights alone, such as dequantized ones, count at the node that takes them.

    Args:
        dead: (components,) bool, what goes.
    """
    homes = homes_of(deps)
    uses, held = _at_home(homes, deps.uses), _at_home(homes, deps.weights)
    costs = [layer_costs(deps, d) for d in (deps.nothing, dead)]
    rows = []
    for k in sorted(costs[0][0].keys() | held.keys()):
        written = _written(deps, uses.get(k, []))
        shown = written if written is not None else _carried(held.get(k, []))
        owners = deps.owners[np.unique(deps.component[written])] if written is not None else ()
        macs, params = ([cost[kind].get(k, 0) for cost in costs] for kind in (0, 1))
        before, after = (_width(deps, shown, d, operator_of(deps.nodes[k].proto).gates) for d in (deps.nothing, dead))
        groups = tuple(dict.fromkeys(deps.groups[k].name for k in owners if k >= 0))
        node = deps.nodes[k]
        rows.append(LayerRow(node.label, node.proto.op_type, groups, before, after, *macs, *params))
    return tuple(rows)


def layer_costs(deps: Dependencies, dead: np.ndarray) -> tuple[dict[int, int], dict[int, int]]:
    """Multiply-accumulates and parameters of each node that has some, those of weights where they are taken."""
    held = _at_home(homes_of(deps), deps.weights)
    params = {k: deps.elements(uses, dead) for k, uses in held.items()}
    return {layer.node: deps.layer_macs(layer, dead) for layer in deps.layers}, params


def _at_home(homes: Mapping[int, int], uses: Iterable[Use]) -> dict[int, list[Use]]:
    """Uses of weights by the node at which they count."""
    return keyed((homes[use.node], use) for use in uses if use.node >= 0)  # a graph hands some out, at no node


def homes_of(deps: Dependencies) -> dict[int, int]:
    """For each node the one at which its weights count: the first that takes what is computed from weights alone."""
    alone = from_weights(deps)
    homes = {k: k for k in range(len(deps.nodes))}
    for k in reversed(homes):
        read = [key for key in deps.nodes[k].outputs if key in deps.takers]
        if read and alone.issuperset(read):
            homes[k] = homes[deps.takers[read[0]][0][0]]
    return homes


def _written(deps: Dependencies, uses: list[Use]) -> Labels | None:
    """Labels of the channels that the weights of a node make."""
    axes = (x for use in uses for x in use.axes if x.size and not is_fixed(x))
    return next((x for x in axes if (deps.roles[x] & Role.WRITE).all()), None)


def _carried(uses: list[Use]) -> Labels | None:
    """Labels of the channels that weights scale or shift, as those of a norm do."""
    return next((use.axes[0] for use in uses if len(use.axes) == 1), None)


def _width(deps: Dependencies, labels: Labels | None, dead: np.ndarray, gates: int) -> int | None:
    return None if labels is None else int(deps.live(labels, dead).sum()) // gates
