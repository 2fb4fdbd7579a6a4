"""From a model to the channels that live and die together."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxprune.channels.alternatives import finest
from onnxprune.channels.conclude import box_dead_ends, conclude
from onnxprune.channels.control import enter
from onnxprune.channels.dependencies import Dependencies
from onnxprune.channels.unite import unite
from onnxprune.channels.walk import Walk
from onnxprune.model.defaults import overridable
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.model.static import Statics, infer
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Choices


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
