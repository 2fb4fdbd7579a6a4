"""Which tensors of a file are trained, what they stand for, and what is written back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from onnx import helper
from torch import Tensor

from onnxprune.channels.dependencies import Source
from onnxprune.channels.nodes import Node
from onnxprune.channels.parameters import parameters
from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.operators.arrays import FLOATS, RANGES, from_array, to_array
from onnxprune.operators.forward import Units
from onnxprune.operators.quantization import quantised
from onnxprune.operators.registry import Trait, has
from onnxprune.training.program import Program, ProgramStep, computed, every, reached


@dataclass(frozen=True)
class Weight:
    """A tensor of the file that is trained.

    Args:
        key: its name, behind the path of its graph.
        kind: its element type in the file.
        scaling: scale and zero point of a quantised one; it is trained as the real numbers that it stands for.
    """

    key: str
    kind: int
    scaling: Units | None = None

    def real(self, elements: Tensor) -> Tensor:
        """What is trained, from what the file holds."""
        if self.scaling is None:
            return elements.clone()
        scale, zero = self.scaling
        return ((elements.double() - zero.double()) * scale.double()).float()

    def value(self, parameter: Tensor) -> Tensor:
        """What the network reads: of a quantised weight the whole numbers, with a straight-through gradient."""
        if self.scaling is None:
            return parameter
        scale, zero = (s.to(parameter.device) for s in self.scaling)
        return quantised(parameter, scale, zero, RANGES[self.kind])

    def elements(self, parameter: Tensor, before: np.ndarray) -> np.ndarray:
        """What is written: elements that training has not moved stay what they were, to the last bit."""
        still = self.real(from_array(before)) == parameter.detach().cpu()
        value = self.value(parameter.detach().cpu())
        return np.where(still.numpy(), before, to_array(value, self.kind))


def choose(program: Program) -> tuple[dict[str, Weight], dict[str, str], tuple[str, ...]]:
    """The weights that get a gradient, by key, why others do not, and the `ends` that it comes from.

    Raises ModelError where an operator that the table lacks stands behind a weight, so that none can come back.
    """
    steps = list(every(program.steps))
    held = {key for key in program.kinds if isinstance(program.constants.get(key), Tensor)}
    sources = {
        key: Source(key, "initializer", tuple(program.constants[key].shape), program.kinds[key], "") for key in held
    }
    nodes = [Node(step.proto, step.path, step.reads, tuple(filter(None, step.writes))) for step in steps]
    layers = {k for k, step in enumerate(steps) if has(step.proto, Trait.LAYER)}
    wanted = parameters(nodes, sources, layers) - program.defaults
    refuse_unknown(program, {key for key in wanted if program.kinds[key] in FLOATS})
    last = ends(program, wanted)
    alive = reached(program.steps, last)

    def verdict(key: str) -> Weight | str | None:
        """A weight, why a tensor is none, or nothing where that is not worth a word."""
        kind, floating = program.kinds[key], program.kinds[key] in FLOATS
        if key not in wanted:
            told = floating and program.constants[key].numel() > 1
            return "the network computes with it, and it is no weight of a layer" if told else None
        if key not in alive:
            return _why(key, steps)
        scaling = None if floating else _scaling(key, steps, program)
        if floating or scaling is not None:
            return Weight(key, kind, scaling)
        return "whole numbers of which the file does not say what they stand for" if kind in RANGES else None

    found = {key: verdict(key) for key in sorted(held)}
    weights = {key: given for key, given in found.items() if isinstance(given, Weight)}
    frozen = {key: why for key, why in found.items() if isinstance(why, str)}
    frozen |= {str(step): "the table has no row for it: onnxruntime computes it" for step in steps if not step.known}
    return weights, frozen, last


def ends(program: Program, weights: Iterable[str]) -> tuple[str, ...]:
    """Keys of the values that training compares: the outputs, and of those without a gradient what they are made from.

    A class that ArgMax picks has no gradient, and the scores that it picks from do.
    """
    behind = computed(program.steps, weights, gradient=True)
    found, waiting, seen = list[str](), [*program.outputs][::-1], set[str]()
    makers = {key: step for step in program.steps for key in step.writes}
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        if key in behind:
            found.append(key)
        elif key in makers:
            waiting += sorted(makers[key].needs, reverse=True)
    return tuple(found)


def refuse_unknown(program: Program, weights: Iterable[str]) -> None:
    """Raises ModelError where an operator without a row takes what a weight has gone into."""
    behind = computed(program.steps, weights, gradient=True)
    for step in every(program.steps):
        if not step.known and not behind.isdisjoint(step.reads):
            raise ModelError(
                f"the network cannot be trained: no gradient is known for {step}, and weights stand before it"
            )


def _why(key: str, steps: Iterable[ProgramStep]) -> str:
    """Why no gradient reaches a weight: the first node that takes it."""
    first = next((step for step in steps if key in step.reads), None)
    if first is None:
        return "no output hangs on it"
    if not first.forward.passes(first.node, first.reads.index(key)):
        return f"{first} takes it as a number without a gradient, such as a statistic or a scale"
    return "no gradient of an output reaches it"


def _scaling(key: str, steps: Iterable[ProgramStep], program: Program) -> Units | None:
    """Scale and zero point of a quantised weight, where all that read it agree and the file holds them."""
    found = list[Units]()
    for step in steps:
        for position, read in enumerate(step.reads):
            if read != key:
                continue
            inputs = [program.constants.get(k) if k else None for k in step.reads]
            scaling = step.forward.units and step.forward.units(step.node, position, inputs)
            if scaling is None:
                return None
            found.append(scaling)
    same = all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    return found[0] if found and same else None


def rewritten(network: Network, values: dict[str, tuple[Weight, Tensor]]) -> Network:
    """The network with other elements in these tensors, each in its own type; all else as it was."""
    changed = dict[str, np.ndarray]()
    for key, (weight, parameter) in values.items():
        if key not in network:
            raise ModelError(f"the model has no tensor {key!r}, which was trained")
        tensor = network.tensor(key)
        before = tensor.array()
        if tensor.shape != tuple(parameter.shape) or helper.np_dtype_to_tensor_dtype(before.dtype) != weight.kind:
            raise ModelError(f"tensor {key!r} of the model has another shape or type than the one that was trained")
        after = weight.elements(parameter, before)
        if not np.array_equal(before, after):
            changed[key] = after
    return network.with_tensors(changed)
