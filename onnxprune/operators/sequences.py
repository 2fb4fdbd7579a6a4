"""Sequences of tensors: what they hold, and the nodes without sequences that take their place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.operators.forward import Forward, TorchCall, numbers
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.registry import define
from onnxprune.operators.sizes import opaque

MOST = 4096  # elements of a sequence


@dataclass(frozen=True)
class Sequenced:
    """A node that makes a sequence or takes one, and what is known around it.

    known: names of the tensors in each sequence, by its name.
    number: the value of an input where it is the same at all sizes, None where it is not.
    length: of an axis of an input, None where it hangs on sizes that are open.
    opset: of the default operator set.
    """

    node: onnx.NodeProto
    known: Mapping[str, list[str]]
    number: Callable[[str], np.ndarray | None]
    length: Callable[[str, int], int | None]
    opset: int

    @property
    def given(self) -> list[str] | None:
        """Names of the tensors in the sequence that it takes; None where they are not known."""
        return self.known.get(self.node.input[0]) if self.node.input else None

    @property
    def made(self) -> str:
        return self.node.output[0]

    def attribute(self, name: str, default: int) -> int:
        return next((int(a.i) for a in self.node.attribute if a.name == name), default)

    def place(self, k: int, default: int, last: int) -> int | None:
        """A place in the sequence that it takes, that input k says; None where it is computed, or behind the last."""
        found: np.ndarray | None = np.array(default)
        if k < len(self.node.input) and self.node.input[k]:
            found = self.number(self.node.input[k])
        place, count = None if found is None or found.size != 1 else int(found.reshape(())), len(self.given or ())
        if place is None or not -count <= place <= last:
            return None
        return place + count if place < 0 else place

    @property
    def singly(self) -> bool:
        """Whether input 0 is split into parts of one position, as no sizes are given."""
        return len(self.node.input) < 2 or not self.node.input[1]

    def sizes(self) -> list[int] | None:
        """Sizes of the parts that input 0 is split into; None where they hang on sizes that are open."""
        length = self.length(self.node.input[0], self.attribute("axis", 0))
        told = np.array(1) if self.singly else self.number(self.node.input[1])
        if length is None or told is None or not 0 < length <= MOST or told.size == 0 or told.min() <= 0:
            return None
        found = told.tolist() if told.ndim else [min(int(told), length - k) for k in range(0, length, int(told))]
        return found if sum(found) == length else None


Nodes = list[onnx.NodeProto]


def number_node(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array.astype(np.int64)))


def all_inputs(site: Sequenced) -> list[str] | None:
    return list(site.node.input) if len(site.node.input) <= MOST else None


define("SequenceConstruct", elements=all_inputs, forward=Forward(lambda node, *x: list(x)))
define("SequenceEmpty", elements=all_inputs, forward=Forward(lambda node: [], into=()))


def forward_split_to_sequence(node: TorchCall, x: Tensor, split: Tensor | None = None) -> list[Tensor]:
    """Parts of one position each without their axis, unless it is kept or sizes are given."""
    axis = node.get("axis", 0)
    if split is None:
        parts = x.split(1, axis)
        return [part if node.get("keepdims", 1) else part.squeeze(axis) for part in parts]
    return list(x.split(numbers(split) if split.dim() else int(split), axis))


def parts_of(site: Sequenced) -> list[str] | None:
    """Not known where the axis is to be dropped though a size is given: runtimes do not agree on that."""
    sizes = site.sizes()
    given = None if site.singly else site.number(site.node.input[1])
    unsure = given is not None and not given.ndim and not site.attribute("keepdims", 1)
    return None if sizes is None or unsure else [f"{site.made}/{k}" for k in range(len(sizes))]


def split_nodes(site: Sequenced) -> Nodes | None:
    parts, axis, sizes, node = parts_of(site), site.attribute("axis", 0), site.sizes(), site.node
    if parts is None:
        return None
    if site.singly and not site.attribute("keepdims", 1):
        places = [(number_node(f"{part}/place", np.array(k)), part) for k, part in enumerate(parts)]
        return [
            made
            for place, part in places
            for made in (place, helper.make_node("Gather", [node.input[0], place.output[0]], [part], axis=axis))
        ]
    if site.opset < 13:
        return [helper.make_node("Split", node.input[:1], parts, name=node.name, axis=axis, split=sizes)]
    told = number_node(f"{site.made}/sizes", np.array(sizes))
    return [told, helper.make_node("Split", [node.input[0], told.output[0]], parts, name=node.name, axis=axis)]


define(
    "SplitToSequence", couple=opaque, elements=parts_of, unsequenced=split_nodes,
    forward=Forward(forward_split_to_sequence, into=(0,), host=(1,)),
)  # fmt: skip


def forward_sequence_insert(
    node: TorchCall, sequence: list[Tensor], x: Tensor, position: Tensor | None = None
) -> list[Tensor]:
    at = len(sequence) if position is None else int(position) % (len(sequence) + 1)
    return [*sequence[:at], x, *sequence[at:]]


def with_one_more(site: Sequenced) -> list[str] | None:
    given = site.given
    place = None if given is None or len(given) == MOST else site.place(2, len(given), len(given))
    return None if given is None or place is None else [*given[:place], site.node.input[1], *given[place:]]


define(
    "SequenceInsert", elements=with_one_more, forward=Forward(forward_sequence_insert, into=(0, 1), host=(2,)),
)  # fmt: skip


def forward_sequence_erase(node: TorchCall, sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = len(sequence) - 1 if position is None else int(position) % len(sequence)
    return sequence[:at] + sequence[at + 1 :]


def with_one_less(site: Sequenced) -> list[str] | None:
    given = site.given or []
    place = site.place(1, -1, len(given) - 1)
    return None if place is None else [*given[:place], *given[place + 1 :]]


define("SequenceErase", elements=with_one_less, forward=Forward(forward_sequence_erase, into=(0,), host=(1,)))


def element_node(site: Sequenced) -> Nodes | None:
    given = site.given or []
    if (place := site.place(1, 0, len(given) - 1)) is None:
        return None
    return [helper.make_node("Identity", [given[place]], site.node.output, name=site.node.name)]


define(
    "SequenceAt", couple=opaque, unsequenced=element_node,
    forward=Forward(lambda node, sequence, position: sequence[int(position)], into=(0,), host=(1,)),
)  # fmt: skip


def length_node(site: Sequenced) -> Nodes | None:
    return None if site.given is None else [number_node(site.made, np.array(len(site.given)))]


define(
    "SequenceLength", couple=opaque, unsequenced=length_node,
    forward=Forward(lambda node, sequence: torch.tensor(len(sequence)), into=()),
)  # fmt: skip


def forward_concat_from_sequence(node: TorchCall, sequence: list[Tensor]) -> Tensor:
    axis = node.get("axis")
    return torch.stack(sequence, axis) if node.get("new_axis") else torch.cat(sequence, axis)


def concat_nodes(site: Sequenced) -> Nodes | None:
    """One Concat, of elements with a new axis where that is wanted; before opset 13 axes are attributes."""
    elements, axis, nodes = site.given, site.attribute("axis", 0), Nodes()
    if not elements:
        return None
    if site.attribute("new_axis", 0):
        told = number_node(f"{site.made}/axis", np.array([axis]))
        nodes += [told] * (site.opset >= 13)
        for k, element in enumerate(elements):
            inputs = [element, told.output[0]] if site.opset >= 13 else [element]
            axes: dict[str, Any] = {} if site.opset >= 13 else {"axes": [axis]}
            nodes.append(helper.make_node("Unsqueeze", inputs, [f"{site.made}/{k}"], **axes))
        elements = [f"{site.made}/{k}" for k in range(len(elements))]
    return [*nodes, helper.make_node("Concat", elements, site.node.output, name=site.node.name, axis=axis)]


define("ConcatFromSequence", couple=opaque, unsequenced=concat_nodes, forward=Forward(forward_concat_from_sequence))
