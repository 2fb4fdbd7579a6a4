"""Operators that hold graphs, which the network runs step by step, and those of sequences, which are lists here."""

from typing import Any

import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.training.operators.native import native
from onnxprune.training.operators.table import Node, differentiable, numbers, without_gradient


@differentiable("If", "Loop", "Scan")
def bodies(node: Node, *inputs: Any) -> Any:
    raise ModelError(f"{node.op} is run by the network that it stands in")


@differentiable("SequenceConstruct")
def sequence_construct(node: Node, *x: Tensor) -> list[Tensor]:
    return list(x)


@without_gradient("SequenceEmpty")
def sequence_empty(node: Node) -> list[Tensor]:
    return []


@differentiable("SequenceAt", into=(0,), host=(1,))
def sequence_at(node: Node, sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[int(position)]


@differentiable("SequenceInsert", into=(0, 1), host=(2,))
def sequence_insert(node: Node, sequence: list[Tensor], x: Tensor, position: Tensor | None = None) -> list[Tensor]:
    at = len(sequence) if position is None else int(position) % (len(sequence) + 1)
    return [*sequence[:at], x, *sequence[at:]]


@differentiable("SequenceErase", into=(0,), host=(1,))
def sequence_erase(node: Node, sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = len(sequence) - 1 if position is None else int(position) % len(sequence)
    return sequence[:at] + sequence[at + 1 :]


@without_gradient("SequenceLength")
def sequence_length(node: Node, sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence))


@differentiable("ConcatFromSequence")
def concat_from_sequence(node: Node, sequence: list[Tensor]) -> Tensor:
    axis = node.get("axis")
    return torch.stack(sequence, axis) if node.get("new_axis") else torch.cat(sequence, axis)


@differentiable("SplitToSequence", into=(0,), host=(1,))
def split_to_sequence(node: Node, x: Tensor, split: Tensor | None = None) -> list[Tensor]:
    """Parts of one position each without their axis, unless it is kept or sizes are given."""
    axis = node.get("axis", 0)
    if split is None:
        parts = x.split(1, axis)
        return [part if node.get("keepdims", 1) else part.squeeze(axis) for part in parts]
    return list(x.split(numbers(split) if split.dim() else int(split), axis))


without_gradient("NonMaxSuppression", "Unique")(native)
without_gradient(
    *"Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split(), pure=False
)(native)
