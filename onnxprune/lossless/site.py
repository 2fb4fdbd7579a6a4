"""One node as the rules of this room see it, and the tables that the rules stand in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.lossless.facts import Facts, Shape, known, unknown
from onnxprune.lossless.likeness import Ids, mix, name_of


@dataclass(frozen=True)
class Site:
    """A node, what is known of its inputs, and the numbers of those that depend on weights alone."""

    node: onnx.NodeProto
    attributes: Mapping[str, Any]
    opset: int
    inputs: Sequence[Facts | None]  # None where an input is left out, or of unknown shape
    shapes: Sequence[Shape | None]  # of the inputs
    outputs: Sequence[Shape | None]
    arrays: Callable[[int], np.ndarray | None]  # input k where it depends on weights alone
    sizes: Callable[[int], np.ndarray | None]  # input k where it is known for the shapes of the analysis

    @property
    def token(self) -> Ids:
        """A name of this node's own."""
        return name_of(next(filter(None, self.node.output), ""))

    @property
    def kind(self) -> Ids:
        """A name that nodes of the same operator and attributes share."""
        parts = sorted(a.SerializeToString(deterministic=True).hex() for a in self.node.attribute)
        return name_of(" ".join([self.node.domain, self.node.op_type, *parts]))

    def has(self, k: int) -> bool:
        """Whether input k is given."""
        return k < len(self.node.input) and bool(self.node.input[k])

    def array(self, k: int) -> np.ndarray | None:
        """The numbers of input k; None where it depends on data or is left out."""
        return self.arrays(k) if self.has(k) else None

    def numbers(self, k: int, attribute: str = "") -> list[int] | None:
        """Integers in an attribute, or in input k, computed from the sizes of values perhaps."""
        if attribute in self.attributes:
            return [int(v) for v in np.atleast_1d(self.attributes[attribute])]
        found = self.array(k)
        if found is None and self.has(k):
            found = self.sizes(k)
        return None if found is None else [int(v) for v in found.ravel()]

    def fact(self, k: int) -> tuple[Facts, Shape] | None:
        """Facts and shape of input k, also where it is a tensor of the file."""
        shape = self.shapes[k] if k < len(self.shapes) else None
        if shape is None:
            return None
        if (array := self.array(k)) is not None:
            return (known(array), array.shape) if array.dtype.kind in "fiub" else None
        found = self.inputs[k]
        return None if found is None else (found, shape)

    def nothing(self, k: int = 0) -> Facts | None:
        """Facts of an output of which nothing is known."""
        shape = self.outputs[k] if k < len(self.outputs) else None
        return None if shape is None else unknown(len(shape), mix(self.token, k))


Rule = Callable[[Site], "list[Facts | None] | Facts | None"]

RULES: dict[str, Rule] = {}
PASSES: set[str] = set()  # operators behind which each channel is what it was before, whatever the others are


def rule(*operators: str, passes: bool = True) -> Callable[[Rule], Rule]:
    """Register what is known of an operator's outputs; `passes`: no channel of its input has a part in another one."""

    def register(fn: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, fn))
        if passes:
            PASSES.update(operators)
        return fn

    return register
