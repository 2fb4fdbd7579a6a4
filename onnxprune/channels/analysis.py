"""From a model to the channels that live and die together."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxprune.channels.alternatives import finest
from onnxprune.channels.combined import solved
from onnxprune.channels.control import enter
from onnxprune.channels.dependencies import Dependencies, passed
from onnxprune.channels.grouping import groups_of
from onnxprune.channels.nodes import Use
from onnxprune.channels.parameters import INTEGERS, computed_once
from onnxprune.channels.ties import Ties
from onnxprune.channels.unite import unite
from onnxprune.channels.walk import Walk
from onnxprune.keyed import keyed
from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.model.static import Statics, infer
from onnxprune.operators.boxes import Value, choose_factor
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Choices, Labels, is_fixed
from onnxprune.operators.roles import WEIGHS, Role


def analyse(
    model: onnx.ModelProto | Network,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    observed: Mapping[str, np.ndarray] | None = None,
    heads: bool = True,
    thaw: bool = False,
) -> Dependencies:
    """Find which channels of a network are coupled, and what can be removed.

    Args:
        model: the network; never changed.
        input_shapes: concrete shapes of inputs whose sizes are symbolic; the couplings do not depend on them, the
            multiply-accumulate counts do.
        observed: arrays of the shape and type of values that inference cannot know, as a run has shown them.
        heads: attention loses whole heads; otherwise the same share of every head.  Where that leaves weights whole
            that the other way would cut, the other way is taken (`channels.alternatives`).
        thaw: channels over which a norm or another operator takes statistics may go too.  The statistics are then
            those of the channels that stay, which only approximates the original; `Dependencies.approximated` names
            the nodes.
    """
    model = model.graph if isinstance(model, Network) else model
    shapes = {name: tuple(int(n) for n in shape) for name, shape in (input_shapes or {}).items()}
    statics = infer(model, shapes, observed)
    opset, pinned = opset_of(model), overridable(model)

    def analysed(choices: Choices) -> tuple[Walk, Dependencies]:
        def walked(at: Statics) -> Walk:
            walk = Walk(at, opset, heads, thaw, enter, Coupling(choices))
            _go(walk, pinned)
            return walk

        walk = walked(statics)
        for k, node in walk.other_sizes.items():
            other = walked(statics.accepted_sizes[k])
            box_dead_ends(other)
            unite(walk.coupling, walk.uses, other.coupling, other.uses, node)
        return walk, conclude(walk)

    return finest(analysed)


def _go(walk: Walk, pinned: frozenset[str]) -> None:
    """Walk over a whole model."""
    graph = walk.statics.skeleton.graph  # nothing refers to the weights, so that they can be given up
    walk.graph(graph, "", [], overridable=pinned)
    for value in graph.output:
        walk.freeze_value(walk.key(value.name), "is an output of the network")


def conclude(walk: Walk) -> Dependencies:
    """Solve what a finished walk has stated."""
    box_dead_ends(walk)
    roles = np.zeros(walk.coupling.size, np.int64)
    for role, labels in walk.coupling.roles:
        if not is_fixed(labels):
            roles[labels] |= int(role)
    roles[0] = 0
    _tie_shared(walk, roles)
    _tie_idle(walk)
    component, combined = solved(walk.coupling)
    zeroed = _zeroed(walk, roles, component, combined)
    groups = groups_of(walk.uses, walk.coupling.parts, component, roles, combined)
    once = computed_once(walk.nodes, walk.sources.keys() - walk.pinned)
    layers = tuple(x for x in walk.layers if not once.issuperset(walk.nodes[x.node].outputs))
    thawed = {k: labels for k, labels in walk.thawed.items() if (component[labels] != component[0]).any()}
    ties = Ties(*walk.coupling.edges(), tuple(walk.coupling.causes), walk.coupling.size)
    return Dependencies(
        nodes=tuple(walk.nodes), values=walk.values, sources=walk.sources, uses=tuple(walk.uses),
        component=component, groups=groups, layers=layers, scalings=walk.scalings,
        folded_shuffles=walk.folded_shuffles, fixed_sizes=frozenset(walk.fixed_sizes), thawed=thawed,
        size_queries=walk.size_queries, known_arrays=walk.known_arrays,
        frozen_by_statistics=frozenset(walk.frozen_by_statistics), roles=roles, zeroed=zeroed, ties=ties,
        combined=combined, products=tuple(walk.coupling.products.values()),
        balances=tuple(walk.coupling.balances), arithmetic=walk.arithmetic, unknown=walk.unknown,
    )  # fmt: skip


def _zeroed(walk: Walk, roles: np.ndarray, component: Labels, combined: Labels) -> np.ndarray:
    """Positions of weights that are zero in the masked network once they are dead, (labels,) bool.

    Those that read always; those that write, shift or scale only where something relies on zeros.
    """
    needed = np.zeros(int(component.max()) + 1, bool)
    for labels in walk.coupling.must_be_zero:
        needed[component[labels]] = True
    needed |= (needed[component[combined]] & (combined > 0)).any(axis=0)
    makes = (roles & int(Role.WRITE | Role.ADD)) != 0
    return ((roles & int(Role.READ)) != 0) | (makes & needed[component])


def box_dead_ends(walk: Walk) -> None:
    """Split values that no folded shuffle goes round have to be boxes."""
    makers = walk.arithmetic.makers
    inside = {
        key
        for k, shuffle in walk.folded_shuffles.items()
        for key in passed(makers, shuffle.origin.value, walk.nodes[k])
    }
    for key, value in walk.values.items():
        if value is not None and value.split_axis is not None and key not in inside:
            if value.split_axis.root in walk.coupling.products:  # any part of a product is a box
                continue
            walk.values[key] = Value(choose_factor(walk.coupling, value, (), walk.heads))


def _tie_shared(walk: Walk, roles: np.ndarray) -> None:
    """One weight that several layers filter with stays one weight; shared biases and tables may be copied.

    Where one of the layers takes a part of it only, the rest has the roles that the other layers give it.
    """
    filters = (use for use in walk.uses if use.weighs(roles) and walk.sources[use.source].dtype not in INTEGERS)
    for first, *others in keyed((use.source, use) for use in filters).values():
        for use in others:
            walk.coupling.node = use.node
            for a, b in zip(first.axes, use.axes, strict=True):
                walk.coupling.tie(a, b, why="filters with a weight that another layer uses too")
        if others:
            _share_roles([first, *others], roles)


def _tie_idle(walk: Walk) -> None:
    """What one layer takes of a tensor and does not use follows what another layer makes of it.

    Slices of one weight or bias would each be cut from a copy of their own otherwise.
    """
    uses = keyed((use.source, use) for use in walk.uses)
    several = [found for found in uses.values() if len(found) > 1]
    if not several:
        return
    left, right, _ = walk.coupling.edges()
    tied = np.zeros(walk.coupling.size, bool)
    tied[left] = tied[right] = True
    for found in several:
        for axes in zip(*(use.axes for use in found), strict=True):
            lively = [x for x in axes if not is_fixed(x)]
            if len(lively) < len(axes):
                continue
            leader = functools.reduce(lambda a, b: np.where(tied[a], a, b), lively)
            for x in lively:
                idle = ~tied[x] & (x != leader)
                walk.coupling.tie(x[idle], leader[idle])


def _share_roles(uses: list[Use], roles: np.ndarray) -> None:
    for axes in zip(*(use.axes for use in uses), strict=True):
        lively = [x for x in axes if not is_fixed(x)]
        given = np.bitwise_or.reduce([roles[x] for x in lively]) if lively else 0
        for x in lively:
            roles[x] = np.where(roles[x] & WEIGHS, roles[x], roles[x] | given)
    roles[0] = 0
