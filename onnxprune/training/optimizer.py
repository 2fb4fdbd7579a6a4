"""Steps of training: the size of a weight's step, the rate over time, and weights averaged over the last steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

WARM, WARM_STEPS = 0.1, 200  # share of the steps in which the rate rises, and how many these are at the most
AVERAGED = 100  # steps over which weights are averaged, or a tenth of all where these are fewer
BETAS, MOMENTUM = (0.9, 0.99), 0.95
WIDE = 256  # rows or columns, whichever are fewer, of a matrix up to which evening costs little beside its gradient
ROUNDS, QUINTIC = 5, (3.4445, -4.7750, 2.0315)  # of the iteration that evens singular values, and its coefficients
SHARE = 0.4  # root mean square of an evened step, in units: about that of a step by Adam
GAP = 0.007  # largest step for a distance of one from the original
LEAST, MOST = 0.001, 0.01
TINY = 1e-12
FAINT = 0.1  # share of the usual size that a vector is taken to have at least


def units(parameters: Sequence[Tensor]) -> list[float]:
    """What a step of each tensor is measured in: the root mean square of its elements, to the next power of two.

    A vector that is nearly zero, such as biases that a repair has just added, is taken for a usual one.
    """
    sizes = [float(p.detach().double().square().mean().sqrt()) for p in parameters]
    usual = {
        flat: sorted(s for s, p in zip(sizes, parameters, strict=True) if (p.ndim < 2) == flat and s > 0)
        for flat in (True, False)
    }
    found = []
    for size, parameter in zip(sizes, parameters, strict=True):
        flat = parameter.ndim < 2
        middle = usual[flat][len(usual[flat]) // 2] if usual[flat] else 1.0
        size = max(size, FAINT * middle) if flat or not size else size
        found.append(2.0 ** round(math.log2(size)))
    return found


class Optimizer:
    """Steps whose size is a share of that of each tensor.  Nothing decays: the weights have been trained before.

    Filters and matrices move along their momentum with all its singular values made alike, so that no direction waits
    for others: Jordan et al. 2024, Muon (kellerjordan.github.io/posts/muon), with steps of the same root mean square
    for all shapes, after Liu et al. 2025, arXiv 2502.16982.  Vectors, filters of depthwise convolutions and what is
    wider than `WIDE` move by Adam: Kingma, Ba 2015, arXiv 1412.6980.

    Args:
        parameters: to be moved in place, by their gradients; one without a gradient stays.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters, self.units = parameters, units(parameters)
        self.momenta = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        self.steps = [0] * len(parameters)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every weight: by at most about `rate` units."""
        for k, parameter in enumerate(self.parameters):
            if (gradient := parameter.grad) is None:
                continue
            self.steps[k] += 1
            move = self._muon(k, gradient) if is_matrix(parameter) else self._adam(k, gradient)
            parameter.sub_(move, alpha=rate * self.units[k])

    def _muon(self, k: int, gradient: Tensor) -> Tensor:
        momentum = self.momenta[k].lerp_(gradient, 1 - MOMENTUM)
        wide = even(gradient.lerp(momentum, MOMENTUM).flatten(1))
        return (wide * SHARE * math.sqrt(max(wide.shape))).reshape(gradient.shape)

    def _adam(self, k: int, gradient: Tensor) -> Tensor:
        first, second = (1 - beta ** self.steps[k] for beta in BETAS)
        momentum = self.momenta[k].lerp_(gradient, 1 - BETAS[0])
        square = self.squares[k].lerp_(gradient.square(), 1 - BETAS[1])
        return momentum / first / (square / second).sqrt().add_(TINY)

    def state(self) -> dict[str, list[Tensor] | list[int]]:
        """What it goes on with."""
        return {"momenta": self.momenta, "squares": self.squares, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with a state."""
        self.momenta, self.squares, self.steps = state["momenta"], state["squares"], state["steps"]


def is_matrix(parameter: Tensor) -> bool:
    """Whether rows and columns of a weight are channels that are mixed, as few as can be made even in little time."""
    return parameter.ndim > 1 and min(parameter.shape[:2]) > 1 and min(parameter.flatten(1).shape) <= WIDE


def even(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors, and singular values between about 0.7 and 1.2.

    Args:
        matrix: (rows, columns).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / matrix.norm().clamp_min(TINY)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = QUINTIC[0] * x + (QUINTIC[1] * square + QUINTIC[2] * square @ square) @ x
    return x.T if tall else x


def largest_step(gap: float) -> float:
    """How far a weight may move at once, in units, where nobody says it: the farther, the more there is to learn.

    Args:
        gap: divergence from the original, or squared distance as a share of the variance, on held-out samples.
    """
    return min(max(GAP * math.sqrt(max(gap, 0.0)), LEAST), MOST) if math.isfinite(gap) else LEAST


def rate(step: int, steps: int, done: float) -> float:
    """Share of the largest step: up in a line over the first steps, and down in half a cosine over all of the training.

    Args:
        step, steps: taken so far, and in all.
        done: share of the training that is done, by steps or by time.
    """
    rising = min(1.0, (step + 1) / max(1.0, min(WARM_STEPS, WARM * steps)))
    return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def average(averages: Iterable[Tensor], parameters: Iterable[Tensor], step: int, steps: int) -> None:
    """Move the averages towards the weights after a step, exponentially; Polyak, Juditsky 1992, doi 10.1137/0330046."""
    horizon = max(1, min(AVERAGED, steps // 10, (step + 9) // 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(averages), list(parameters), 1 / horizon)
