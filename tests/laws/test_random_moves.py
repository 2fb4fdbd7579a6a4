"""masked = pruned where random moves mix the samples with split channels."""

import math

import numpy as np
import onnx
import pytest
from law import agree, run
from onnx import ModelProto
from patterns.builder import NONE, Net

from onnxprune.channels import analyse
from onnxprune.surgery import cut, mask

STEPS, SEEDS = 12, 25


class Moves:
    """A feature map on its way: its name and shape, and the network so far."""

    def __init__(self, seed: int) -> None:
        self.rng, self.net = np.random.default_rng(seed), Net(rng=np.random.default_rng(seed))
        self.samples, self.channels = int(self.rng.choice([2, 3])), int(self.rng.choice([4, 6, 8, 12]))
        self.name = self.net.conv("x", 3, self.channels, 1, dead=NONE)
        self.shape = [self.samples, self.channels, 2, 2]

    def reshape(self, *shape: int) -> None:
        self.name, self.shape = self.net.reshape(self.name, *shape), list(shape)

    def split(self) -> None:
        axis = int(self.rng.integers(0, len(self.shape)))
        size = self.shape[axis]
        factors = [d for d in range(2, size) if size % d == 0]
        if factors and len(self.shape) < 6:
            d = int(self.rng.choice(factors))
            self.reshape(*self.shape[:axis], d, size // d, *self.shape[axis + 1 :])

    def merge(self) -> None:
        if len(self.shape) > 2:
            axis = int(self.rng.integers(0, len(self.shape) - 1))
            self.reshape(*self.shape[:axis], self.shape[axis] * self.shape[axis + 1], *self.shape[axis + 2 :])

    def transpose(self) -> None:
        perm = [int(k) for k in self.rng.permutation(len(self.shape))]
        self.name, self.shape = self.net.transpose(self.name, *perm), [self.shape[k] for k in perm]

    def activate(self) -> None:
        self.name = self.net.op(str(self.rng.choice(["Relu", "Tanh"])), self.name)

    def pick(self) -> None:
        axis = int(self.rng.integers(0, len(self.shape)))
        kept = self.rng.permutation(self.shape[axis])[: self.rng.integers(1, self.shape[axis] + 1)]
        self.name = self.net.op("Gather", self.name, self.net.tensor(kept.astype(np.int64)), axis=axis)
        self.shape[axis] = len(kept)

    def convolve(self) -> None:
        if math.prod(self.shape) == self.samples * self.channels * 4:
            self.reshape(self.samples, self.channels, 2, 2)
            self.name = self.net.conv(self.name, self.channels, self.channels, 1, dead=NONE)

    def model(self) -> ModelProto:
        moves = (self.split, self.split, self.merge, self.transpose, self.activate, self.pick, self.convolve)
        for k in self.rng.integers(0, len(moves), STEPS):
            moves[k]()
        width = self.shape[-1]
        self.reshape(math.prod(self.shape[:-1]), width)
        shape = (self.samples, 3, 2, 2)
        return self.net.model(shape, [self.net.op("MatMul", self.name, self.net.weight(width, 5))], 1, shape)


@pytest.mark.parametrize("heads", [True, False], ids=["heads", "dims"])
@pytest.mark.parametrize("start", range(0, 4 * SEEDS, SEEDS))
def test_samples_among_channels(start: int, heads: bool) -> None:
    removed = 0
    for seed in range(start, start + SEEDS):
        model, rng = Moves(seed).model(), np.random.default_rng(seed)
        deps = analyse(model, heads=heads)
        assert not deps.unknown
        dead = deps.nothing
        for group in deps.groups:
            dead[rng.choice(group.components, rng.integers(0, len(group)), replace=False)] = True
        pruned = cut(model, deps, dead)
        onnx.checker.check_model(pruned, full_check=True)
        samples = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        x = {"x": rng.standard_normal((samples, 3, 2, 2)).astype(np.float32)}
        (masked,), (small,) = run(mask(model, deps, dead), x), run(pruned, x)
        agree(f"seed {seed}", masked, small, 1e-4)
        removed += bool(dead.any())
    assert removed > SEEDS // 4
