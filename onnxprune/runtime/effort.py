"""What a run of a network takes, from the shapes of its values: known before it runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnxprune.model.static import Statics, infer_once
from onnxprune.operators.registry import operator_of
from onnxprune.runtime.specs import Shape

MODEST_ELEMENTS = 1 << 28  # of all values together; 1 GiB of floats, of which a run holds a part at a time
MODEST_MACS = 1 << 36  # seconds on one core
MOST_ELEMENTS = 1 << 31  # 8 GiB, for a network that runs at no modest size
CHEAP_WORK = 1 << 37  # of all modest tries together
MOST_WORK = 1 << 40  # of all tries together


@dataclass(frozen=True)
class Effort:
    """elements: of all values of known shape; macs: of convolutions and products; unknown: values without a shape."""

    elements: int
    macs: int
    unknown: tuple[str, ...]

    @property
    def work(self) -> int:
        return self.elements + self.macs

    @property
    def modest(self) -> bool:
        """Whether a run is cheap enough for a try."""
        return self.elements <= MODEST_ELEMENTS and self.macs <= MODEST_MACS


def effort(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Effort:
    """An estimate for inputs of these shapes; of bodies, one turn."""
    statics = infer_once(model, shapes)
    values = [name for node in model.graph.node for name in node.output if name]
    elements = sum(math.prod(shape) for key, shape in statics.shapes.items() if key not in statics.tensors)
    macs = sum(_macs(node, statics) for node in model.graph.node)
    return Effort(elements + statics.huge, macs, tuple(name for name in values if name not in statics.shapes))


def _macs(node: onnx.NodeProto, statics: Statics) -> int:
    """Of a product with a filter or a matrix of known shape."""
    shapes = [statics.shapes.get(name, ()) for name in (*node.output[:1], *node.input[:2])]
    if not all(shapes) or len(shapes) < 3:
        return 0
    out, x, w = shapes
    work = operator_of(node).work
    return 0 if work is None else work(out, x, w)
