"""What a layer should give: the original value at the end of the straight way that its output goes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.operators.registry import Trait, has, traits_of
from onnxprune.surgery.recovery.layer_graph import LayerGraph
from onnxprune.surgery.recovery.solvable import folded_norm

THROUGH = Trait.PASSES | Trait.UNARY  # both: what hands its input on


@dataclass(frozen=True)
class Affine:
    """Per-channel factor and summand of a BatchNormalization."""

    factor: np.ndarray
    summand: np.ndarray


@dataclass(frozen=True)
class Plus:
    """A value that is added (sign 1) or subtracted (−1)."""

    value: str
    sign: float = 1.0


@dataclass(frozen=True)
class Path:
    """From a layer's output on: `end = steps(y)`, and the range outside of which an activation flattens the end."""

    end: str
    steps: tuple[Affine | Plus, ...] = ()
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Walker:
    """Follows an output through normalisation and residual sums.

    ready: whether the pruned network's value of that name is known before the layer is solved.
    """

    network: LayerGraph
    ready: Callable[[str], bool]
    axis: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def path(self, y: str) -> Path:
        end, steps = y, []
        while (k := self.network.follow(end)) is not None:
            step = self._step(k, end)
            if step is None:
                break
            steps += step
            end = self.network.nodes[k].output[0]
        return Path(end, tuple(steps), *self._range(end))

    def _step(self, k: int, value: str) -> list[Affine | Plus] | None:
        """What a node does to the value; None where the straight way ends."""
        node = self.network.nodes[k]
        if THROUGH in traits_of(node):
            return []
        if has(node, Trait.AFFINE) and node.input[0] == value and self.axis == 1:
            folded = folded_norm(self.network, k)
            return None if folded is None else [Affine(*folded)]
        if node.op_type in ("Add", "Sub") and list(node.input).count(value) == 1:
            place = list(node.input).index(value)
            other = node.input[1 - place]
            shapes = [self.shapes.get(v) for v in (node.output[0], value)]
            if (node.op_type == "Sub" and place == 1) or None in shapes or shapes[0] != shapes[1]:
                return None
            if self.network.is_constant(other) and self.network.tensor(other) is None:
                return None
            return [Plus(other, 1.0 if node.op_type == "Add" else -1.0)] if self.ready(other) else None
        return None

    def _range(self, end: str) -> tuple[float, float]:
        """Where the activation that follows is not flat, if all that take the value are the same activation."""
        if end in self.network.outputs:
            return -np.inf, np.inf
        ranges = {self._flat(k) for k in self.network.consumers.get(end, ())}
        return ranges.pop() if len(ranges) == 1 else (-np.inf, np.inf)

    def _flat(self, k: int) -> tuple[float, float]:
        node = self.network.nodes[k]
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type == "QuantizeLinear":
            return self._quantised(node)
        if node.op_type == "Clip":
            attributes = {a.name: a.f for a in node.attribute}
            bounds = [attributes.get("min", -np.inf), attributes.get("max", np.inf)]
            for place in (1, 2):
                if len(node.input) > place and node.input[place]:
                    found = self.network.tensor(node.input[place])
                    bounds[place - 1] = float(found) if found is not None else (-np.inf, np.inf)[place - 1]
            return bounds[0], bounds[1]
        return -np.inf, np.inf

    def _quantised(self, node: onnx.NodeProto) -> tuple[float, float]:
        """What the integers of a QuantizeLinear with one scale can stand for."""
        scale, zero = (self.network.tensor(n) if n else None for n in (*node.input[1:], "")[:2])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
            return -np.inf, np.inf
        kind, step, at = np.iinfo(zero.dtype), float(scale.reshape(())), int(zero.reshape(()))
        return (kind.min - at) * step, (kind.max - at) * step
