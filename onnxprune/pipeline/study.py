"""A network and its analysis, which go together through all stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from onnx import ModelProto

from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.network import Network
from onnxprune.operators.registry import Shapes
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.unrunnable import recorded
from onnxprune.runtime.capture import missing_shapes, observe
from onnxprune.runtime.inputs import decided, random_inputs
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.rewrite import pruned

MOST_UNKNOWN = 8  # operators behind each other whose output shapes are told by the weights of the next layer

Kept = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Study:
    """A network and its analysis; neither changes.

    shapes: of its inputs, that it was analysed with.
    request: how heads and statistics are coupled, and whether the network may be run to find a shape.
    """

    network: Network
    deps: Dependencies
    shapes: Shapes
    request: Request

    @classmethod
    def of(cls, network: Network, shapes: Shapes, request: Request) -> Study:
        """Analyse a network."""
        return cls(network, analysis_of(network, shapes, request), shapes, request)

    @property
    def graph(self) -> ModelProto:
        """The network without the elements of large tensors."""
        return self.network.graph

    def analyse(self, network: Network) -> Dependencies:
        """The analysis of another network as this one was analysed."""
        return analysis_of(network, self.shapes, self.request)

    def reanalysed(self, network: Network, request: Request | None = None) -> Study:
        """Another network, analysed as this one was, or as another request wants."""
        return Study.of(network, self.shapes, request or self.request)

    def with_network(self, network: Network, deps: Dependencies | None = None) -> Study:
        """The same with other weights, of which the analysis holds as well, or with another analysis."""
        return replace(self, network=network, deps=deps or self.deps)

    def dead(self, kept: Kept) -> np.ndarray:
        """(components,) bool: what goes where groups keep these channels; groups that are not named keep all."""
        return self.deps.dead(kept)

    def pruned(self, kept: Kept) -> Network:
        """The network without the other channels."""
        return pruned(self.network, self.deps, self.dead(kept))


def analysis_of(network: Network, shapes: Shapes, request: Request) -> Dependencies:
    """Analyse; where nodes were given up for shapes that cannot be inferred, once more with those that a run shows."""
    proto = network.graph
    analysed = partial(analyse, proto, input_shapes=shapes, heads=request.heads != "dims", thaw=request.thaw)
    deps = analysed()
    missing = missing_shapes(proto, deps.statics.shapes)
    if not (deps.unknown and missing):
        return deps
    if request.verify or request.measure:
        feed = random_inputs(model_inputs(proto), shapes, seed=request.seed)[0]
        going = decided(feed, True)  # what a loop of no rounds stacks has no shape that the others have
        seen = observe(network, missing, going)
        if going is not feed:
            seen |= observe(network, [name for name in missing if name not in seen], feed)
        deps = analysed(observed=seen)
    return deps if request.verify else _without_runs(proto, deps, analysed)


def _without_runs(proto: ModelProto, deps: Dependencies, analysed: Callable[..., Dependencies]) -> Dependencies:
    """Analyse with the shapes that weights and the file tell, one unknown operator behind the other."""
    told: dict[str, np.ndarray] = {}
    for _ in range(MOST_UNKNOWN):
        missing = missing_shapes(proto, deps.statics.shapes)
        if not (new := recorded(proto, missing, deps.statics.shapes)):
            break
        told |= new
        deps = analysed(observed=told)
    return deps
