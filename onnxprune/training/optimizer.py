"""Steps of training: the size of a weight's step, the rate over time, and weights averaged over the last steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

WARM, WARM_STEPS = 0.1, 200  # share of the steps in which the rate rises, and how many these are at the most
AVERAGED = 100  # steps over which weights are averaged, or a tenth of all where these are fewer
BETAS = (0.9, 0.99)
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


def optimizer(parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """AdamW whose step is a share of the size of each tensor; Loshchilov, Hutter 2019, arXiv 1711.05101.

    Nothing decays: the weights are those of a trained network already.
    """
    groups: dict[float, list[Tensor]] = {}
    for unit, parameter in zip(units(parameters), parameters, strict=True):
        groups.setdefault(unit, []).append(parameter)
    made = [{"params": group, "unit": unit} for unit, group in groups.items()]
    return torch.optim.AdamW(made, lr=0.0, betas=BETAS, eps=1e-12, weight_decay=0.0)


def rate(step: int, steps: int, done: float) -> float:
    """Share of the largest step: up in a line over the first steps, and down in half a cosine over all of the training.

    Args:
        step, steps: taken so far, and in all.
        done: share of the training that is done, by steps or by time.
    """
    rising = min(1.0, (step + 1) / max(1.0, min(WARM_STEPS, WARM * steps)))
    return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_rate(made: torch.optim.Optimizer, lr: float) -> None:
    for group in made.param_groups:
        group["lr"] = lr * group["unit"]


def average(averages: Iterable[Tensor], parameters: Iterable[Tensor], step: int, steps: int) -> None:
    """Move the averages towards the weights after a step, exponentially; Polyak, Juditsky 1992, doi 10.1137/0330046."""
    horizon = max(1, min(AVERAGED, steps // 10, (step + 9) // 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(averages), list(parameters), 1 / horizon)
