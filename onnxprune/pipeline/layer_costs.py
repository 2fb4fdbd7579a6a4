"""What each layer of a network costs, before and after a cut."""

from collections.abc import Iterable, Mapping

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.keyed import keyed
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.registry import operator_of
from onnxprune.operators.roles import Role
from onnxprune.pipeline.costs import from_weights
from onnxprune.report.summary import LayerRow


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
