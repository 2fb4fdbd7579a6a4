"""What a layer should give: the original value at the end of the straight way that its output goes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxprune.model.static import attributes_of
from onnxprune.operators.registry import Trait, has, operator_of, traits_of
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
        if (signs := operator_of(node).signs) is not None and list(node.input).count(value) == 1:
            place = list(node.input).index(value)
            other = node.input[1 - place]
            shapes = [self.shapes.get(v) for v in (node.output[0], value)]
            if signs[place] < 0 or None in shapes or shapes[0] != shapes[1]:
                return None
            if self.network.is_constant(other) and self.network.tensor(other) is None:
                return None
            return [Plus(other, float(signs[1 - place]))] if self.ready(other) else None
        return None

    def _range(self, end: str) -> tuple[float, float]:
        """Where the activation that follows is not flat, if all that take the value are the same activation."""
        if end in self.network.outputs:
            return -np.inf, np.inf
        ranges = {self._flat(k) for k in self.network.consumers.get(end, ())}
        return ranges.pop() if len(ranges) == 1 else (-np.inf, np.inf)

    def _flat(self, k: int) -> tuple[float, float]:
        node = self.network.nodes[k]
        if (flat := operator_of(node).flat) is None:
            return -np.inf, np.inf
        held = [self.network.tensor(name) if name else None for name in node.input]
        return flat(attributes_of(node), lambda place: held[place] if place < len(held) else None)
