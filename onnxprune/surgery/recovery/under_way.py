"""The two networks that a repair goes through, and what a layer of them takes and should give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.surgery.recovery.runner import MEMORY, Runner
from onnxprune.surgery.recovery.solvable import Finder, Solvable, value_of
from onnxprune.surgery.recovery.solve import Goal
from onnxprune.surgery.recovery.wanted import Affine, Path, Plus, Walker

HOLD = 8  # one batch of so many is held out


def held_batches(batches: int, distinct: int) -> list[int]:
    """Batches that nothing is solved on: one of `HOLD`, and its copies; none where there are fewer."""
    return [b for b in range(batches) if b % distinct % HOLD == HOLD - 1]


@dataclass(frozen=True)
class Lstsq:
    """Options of the layer-wise least squares.

    ridge: least pull toward the weights that stand, as a share of the mean variance of a layer's input.
    rounds: how often the aim of a layer is renewed where an activation behind it is flat on one side.
    budget: bytes for the input patches of one layer; rows are sampled to fit.
    memory: bytes of activations that both networks may hold; it limits the number of samples.
    seed: of that sampling.
    distinct: batches of samples of their own, where those that follow are altered copies of them in the same order.
    """

    ridge: float = 1e-3
    rounds: int = 4
    budget: int = 256 << 20
    memory: int = MEMORY
    seed: int = 0
    distinct: int | None = None


@dataclass
class UnderWay:
    """The original network and the one that loses channels, as far as they have been run."""

    finder: Finder
    original: Runner
    pruned: Runner
    options: Lstsq
    values: dict[str, np.ndarray]  # solved tensors by key
    unsolved: set[int]
    priors: dict[str, np.ndarray] = field(default_factory=dict)  # filters that layers start from, by key of the weights
    pins: dict[int, list[tuple[Runner, str]]] = field(default_factory=dict)  # values that are held, by layer
    alone: dict[str, str] = field(default_factory=dict)  # layers that turn out not to be solvable, and why

    @cached_property
    def held(self) -> list[int]:
        """Batches that nothing is solved on."""
        return held_batches(self.original.batches, self.options.distinct or self.original.batches)

    def ready(self, name: str) -> bool:
        """Whether a value of the pruned network depends on nothing that is still to be solved."""
        return not (self.pruned.network.needs([name], self.pruned.done) & self.unsolved)

    def walker(self, layer: Solvable) -> Walker:
        """What follows the output of a layer."""
        return Walker(self.finder.network, self.ready, layer.linear.axis, self.finder.deps.statics.shapes)

    def is_fixed(self, step: Plus) -> bool:
        """Whether what is added is a constant of the network."""
        return self.finder.network.is_constant(step.value)

    def hold(self, layer: Solvable, path: Path, *more: tuple[Runner, str]) -> None:
        """Run the end of a layer's path and its summands, and more; they stay until the layer is released."""
        added = [s for s in path.steps if not isinstance(s, Affine) and not self.is_fixed(s)]
        pins = [(self.original, path.end), *more, *((self.pruned, s.value) for s in added)]
        self.pins.setdefault(layer.node, []).extend(pins)
        for runner, name in pins:
            runner.pin(name)
            runner.get(name)

    def release(self, layer: Solvable) -> None:
        """Let go of what has been held for a layer."""
        for runner, name in self.pins.pop(layer.node, ()):
            runner.unpin(name)

    def filters(self, layer: Solvable) -> np.ndarray:
        """What the filters of a layer are drawn to, (groups, outputs, features), a copy."""
        if layer.weight in self.priors:
            return self.priors[layer.weight].copy()
        return layer.filters(self.array(layer.weight))

    def gauge(self, layer: Solvable, path: Path) -> np.ndarray:
        """The factor of each output of a layer at the end of its path, (outputs,)."""
        factor = np.ones(math.prod(layer.stays.shape[:2]))
        for s in path.steps:
            if isinstance(s, Affine):
                factor = factor * s.factor
        return factor

    def wanted(self, layer: Solvable, path: Path) -> list[np.ndarray]:
        """What the original network gives at the end of the path, batch by batch."""
        end = self.original.value(path.end)
        if not layer.recurrent:
            return end
        weight = self.array(layer.weight)
        return [array @ weight.reshape(-1, weight.shape[2]).T for array in end]

    def offset(
        self, layer: Solvable, path: Path, b: int, shape: Sequence[int], rows: np.ndarray, outs: np.ndarray
    ) -> np.ndarray | None:
        """What the steps behind the layer add to its output, (outputs, rows)."""
        total: np.ndarray | None = None
        for s in path.steps:
            if isinstance(s, Affine):
                total = s.summand[outs][:, None] + (0 if total is None else total * s.factor[outs][:, None])
                continue
            fixed = self.finder.network.tensor(s.value) if self.is_fixed(s) else None
            other = self.pruned.value(s.value)[b] if fixed is None else fixed
            term = s.sign * layer.linear.outputs(np.broadcast_to(other, shape), rows)[outs]
            total = term if total is None else total + term
        return None if total is None else np.broadcast_to(total, (int(outs.sum()), rows.size)).astype(np.float32)

    def goal(
        self,
        layer: Solvable,
        path: Path,
        outs: np.ndarray,
        wanted: Sequence[np.ndarray],
        offsets: Sequence[np.ndarray | None],
    ) -> Goal:
        """What the outputs of a layer that a mask names should give, from parts of (outputs, rows)."""
        there = [o for o in offsets if o is not None]
        offset = np.concatenate(there, axis=1) if there else None
        factor = self.gauge(layer, path)[outs].astype(np.float32)
        return Goal.of(np.concatenate(wanted, axis=1), factor, offset, path.low, path.high)

    def array(self, key: str) -> np.ndarray:
        """A tensor of the file, solved again where it has been."""
        return value_of(self.finder.network, self.values, key)

    def bias(self, layer: Solvable, outputs: int) -> np.ndarray:
        """What the layer adds now in units of its own output, (outputs,)."""
        if layer.bias is None or not layer.bias.inside:
            return np.zeros(outputs)
        return layer.bias.gain * self.array(layer.bias.key).astype(np.float64).ravel()[layer.bias.at]
