"""Before it is trained, the network in torch has to be the one that onnxruntime runs: shown on samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.operators.arrays import from_array
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant
from onnxprune.training.module import TorchModule
from onnxprune.training.program import every

LIMIT = 1e-3  # relative error
LIMIT_QUANTISED = 5e-2  # of the root mean square: rounding sends elements to the next step, layer after layer
SMALLEST = 1e-3  # unit where an output is smaller: onnxruntime's sigmoid is off by 1e-7
NUDGES = 3  # looks at what rounding does
SUMS = 16  # times as much as rounding a sum once does its order
LARGEST = 5e-2  # relative error that is put down to rounding
AT_ONCE = 32  # values that are looked at together in search of the first that differs

Sample = Mapping[str, np.ndarray]


def agreement(
    network: TorchModule, model: Source, samples: Iterable[Sample], limit: float | None = None
) -> dict[str, float]:
    """Compare the outputs of a network in torch with those of onnxruntime.

    Args:
        network: made of the model.
        model: never changed.
        samples: inputs by name; each is run on its own.
        limit: largest relative error; `LIMIT`, or `LIMIT_QUANTISED` where the network quantises what it computes.

    Returns:
        For each output the relative error of its worst sample: the largest difference in units of the largest element;
        where the network quantises, the root mean square of the difference in units of that of the output.

    Raises:
        ModelError: an output differs by more than the limit, and by more than rounding; the first node that differs is
            named.
    """
    coarse = quantises(network)
    limit = limit or (LIMIT_QUANTISED if coarse else LIMIT)
    session, worst = make_session(Variant(model, unsigned=True), providers="cpu"), dict[str, float]()
    for sample in samples:
        here, there = computed(network, sample), session.run(sample)
        found = {name: error(there[name], here[name], coarse) for name in here if name in there}
        for name, off in found.items():
            worst[name] = max(worst.get(name, 0.0), off)
        bad = [name for name, off in found.items() if not off <= limit]
        if bad and any(not found[name] <= off for name, off in rounding(network, sample, bad, coarse).items()):
            raise ModelError(
                f"the network cannot be trained: torch gives output {bad[0]!r} {found[bad[0]]:.1e} off what "
                f"onnxruntime gives, which is more than {limit:.0e}; {first_difference(network, model, sample, limit)}"
            )
    return worst


def computed(network: TorchModule, sample: Sample, watch: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Outputs of the network in torch, and watched values, as arrays."""
    with torch.no_grad():
        out = network({name: from_array(np.asarray(x)) for name, x in sample.items()}, watch)
    return {name: value.detach().cpu().numpy() for name, value in out.items() if isinstance(value, torch.Tensor)}


def rounding(network: TorchModule, sample: Sample, names: Sequence[str], coarse: bool) -> dict[str, float]:
    """How far outputs of this network may lie apart by rounding alone, up to `LARGEST`.

    What every node gives is moved by the least that it can be, some times over.  Where the outputs follow by far more
    than that, as behind a variance that is a difference of large numbers, another order of the same sums moves them,
    too.
    """
    right, worst = computed(network, sample), dict.fromkeys(names, 0.0)
    generator = torch.Generator().manual_seed(0)

    def nudged(value: Tensor) -> Tensor:
        signs = torch.randint(0, 2, value.shape, generator=generator).to(value) * 2 - 1
        return value * (1 + signs * torch.finfo(value.dtype).eps)

    network.disturb = nudged
    try:
        for _ in range(NUDGES):
            moved = computed(network, sample)
            worst = {name: max(off, error(right[name], moved[name], coarse)) for name, off in worst.items()}
    finally:
        network.disturb = None
    return {name: min(LARGEST, SUMS * off) for name, off in worst.items()}


def quantises(network: TorchModule) -> bool:
    """Whether activations become whole numbers on their way."""
    return any(has(step.proto, Trait.STEPS | Trait.ROUNDS) for step in every(network.steps))


def error(right: np.ndarray, found: np.ndarray, mean: bool = False) -> float:
    """The relative error of an array; see `agreement`.  Infinite where shapes differ."""
    if right.shape != found.shape:
        return float("inf")
    a, b = np.asarray(right, np.float64), np.asarray(found, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    gap, size = np.abs(np.where(same, 0, a - np.where(same, a, b))), np.abs(a[np.isfinite(a)])
    if mean:
        return float(np.sqrt(np.square(gap).mean() / max(np.square(size).mean(), SMALLEST**2))) if size.size else 0.0
    return float(gap.max(initial=0) / max(size.max(initial=0), SMALLEST))


def first_difference(network: TorchModule, model: Source, sample: Sample, limit: float) -> str:
    """The first node, in the order of the file, whose output differs, in words."""
    coarse = quantises(network)
    steps = [(step, name) for step in network.steps for name in step.writes if name and not step.path]
    for start in range(0, len(steps), AT_ONCE):
        part = steps[start : start + AT_ONCE]
        names = tuple(name for _, name in part)
        session: Session = make_session(Variant(model, unsigned=True), providers="cpu", taps=names)
        there, here = session.run(sample, names), computed(network, sample, names)
        for step, name in part:
            if name in there and name in here and not error(there[name], here[name], coarse) <= limit:
                return f"the first node that differs is {step}"
    return "no single node differs by as much, so the errors of many add up"
