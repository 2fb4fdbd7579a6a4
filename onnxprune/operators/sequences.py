"""Bodies, sequences and optionals, which hide values."""

from typing import Any

from onnxprune.errors import ModelError
from onnxprune.operators.forward import Forward, Node, numbers
from onnxprune.operators.labels import Axes
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Trait, define
from onnxprune.operators.zeros import first


def opaque(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("hides values that cannot be followed")


define("OptionalGetElement Optional", couple=opaque, zero=first)


def forward_sequence_at(node: Node, sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[int(position)]


def forward_sequence_length(node: Node, sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence))


def forward_split_to_sequence(node: Node, x: Tensor, split: Tensor | None = None) -> list[Tensor]:
    """Parts of one position each without their axis, unless it is kept or sizes are given."""
    axis = node.get("axis", 0)
    if split is None:
        parts = x.split(1, axis)
        return [part if node.get("keepdims", 1) else part.squeeze(axis) for part in parts]
    return list(x.split(numbers(split) if split.dim() else int(split), axis))


def forward_concat_from_sequence(node: Node, sequence: list[Tensor]) -> Tensor:
    axis = node.get("axis")
    return torch.stack(sequence, axis) if node.get("new_axis") else torch.cat(sequence, axis)


define("SequenceAt", couple=opaque, forward=Forward(forward_sequence_at, into=(0,), host=(1,)))
define("SequenceLength", couple=opaque, forward=Forward(forward_sequence_length, into=()))
define("SplitToSequence", couple=opaque, forward=Forward(forward_split_to_sequence, into=(0,), host=(1,)))
define("ConcatFromSequence", couple=opaque, forward=Forward(forward_concat_from_sequence))


def forward_bodies(node: Node, *inputs: Any) -> Any:
    raise ModelError(f"{node.op} is run by the network that it stands in")


define("If Loop Scan", couple=opaque, traits=Trait.BODIES, forward=Forward(forward_bodies))


def forward_sequence_construct(node: Node, *x: Tensor) -> list[Tensor]:
    return list(x)


def forward_sequence_empty(node: Node) -> list[Tensor]:
    return []


def forward_sequence_insert(
    node: Node, sequence: list[Tensor], x: Tensor, position: Tensor | None = None
) -> list[Tensor]:
    at = len(sequence) if position is None else int(position) % (len(sequence) + 1)
    return [*sequence[:at], x, *sequence[at:]]


def forward_sequence_erase(node: Node, sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = len(sequence) - 1 if position is None else int(position) % len(sequence)
    return sequence[:at] + sequence[at + 1 :]


define("SequenceConstruct", forward=Forward(forward_sequence_construct))
define("SequenceEmpty", forward=Forward(forward_sequence_empty, into=()))
define("SequenceInsert", forward=Forward(forward_sequence_insert, into=(0, 1), host=(2,)))
define("SequenceErase", forward=Forward(forward_sequence_erase, into=(0,), host=(1,)))
