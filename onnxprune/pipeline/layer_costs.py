"""What each layer of a network costs, before and after a cut."""

import math

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.registry import operator_of
from onnxprune.operators.roles import Role
from onnxprune.report.layers import LayerRow


def layer_rows(deps: Dependencies, dead: np.ndarray) -> tuple[LayerRow, ...]:
    """A row for each node that multiplies by weights or holds some, in the order of the network.

    Weights that are computed from weights alone, such as dequantized ones, count at the node that takes them.

    Args:
        dead: (components,) bool, what goes.
    """
    homes = _homes(deps)
    owner = {int(c): group.name for group in deps.groups for c in group.components}
    uses: dict[int, list[Use]] = {}
    for use in deps.uses:
        if use.node >= 0:  # a graph that hands a weight out has it at no node
            uses.setdefault(homes[use.node], []).append(use)
    held: dict[int, list[Use]] = {}
    for use in deps.weights:
        if use.node >= 0:
            held.setdefault(homes[use.node], []).append(use)
    layers = {layer.node: layer for layer in deps.layers}
    rows = []
    for k in sorted(layers.keys() | held.keys()):
        written = _written(deps, uses.get(k, []))
        shown = written if written is not None else _carried(held.get(k, []))
        components = np.unique(deps.component[written]) if written is not None else ()
        macs = (deps.layer_macs(layers[k], d) if k in layers else 0 for d in (deps.nothing, dead))
        params = (sum(_elements(deps, use, d) for use in held.get(k, [])) for d in (deps.nothing, dead))
        before, after = (_width(deps, shown, d, operator_of(deps.nodes[k].proto).gates) for d in (deps.nothing, dead))
        groups = tuple(dict.fromkeys(owner[int(c)] for c in components if int(c) in owner))
        node = deps.nodes[k]
        rows.append(LayerRow(node.label, node.proto.op_type, groups, before, after, *macs, *params))
    return tuple(rows)


def _homes(deps: Dependencies) -> dict[int, int]:
    """For each node the one at which its weights count: the first that takes what is computed from weights alone."""
    readers: dict[str, int] = {}
    for k in reversed(range(len(deps.nodes))):
        readers.update(dict.fromkeys(deps.nodes[k].inputs, k))
    made: set[str] = set(deps.sources)
    alone = []
    for k, node in enumerate(deps.nodes):
        given = [key for key in node.inputs if key]
        if given and all(key in made for key in given) and any(key in readers for key in node.outputs):
            made.update(node.outputs)
            alone.append(k)
    homes = {k: k for k in range(len(deps.nodes))}
    for k in reversed(alone):
        homes[k] = homes[next(readers[key] for key in deps.nodes[k].outputs if key in readers)]
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


def _elements(deps: Dependencies, use: Use, dead: np.ndarray) -> int:
    return math.prod(int(deps.live(x, dead).sum()) for x in use.axes)
