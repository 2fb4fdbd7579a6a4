"""What a node is told beside its data: attributes, and numbers that are computed from weights or from sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onnxprune.operators.labels import LabelError, Labels, fixed
from onnxprune.operators.roles import Line


class Numbers(Protocol):
    """What is known of small constants: values that follow from weights or from sizes, by key."""

    def known(self, key: str) -> np.ndarray | None:
        """The value at the sizes of the analysis; None where it is computed from data."""

    def static(self, key: str) -> np.ndarray:
        """Which elements of a known value are the same at every size of the input, bool in its shape."""

    def constant(self, key: str) -> np.ndarray | None:
        """A known value that is the same at every size of the input."""

    def is_open(self, key: str, axis: int) -> bool:
        """Whether the length of an axis hangs on sizes that the model leaves open."""

    def at_other_sizes(self, key: str, numbers: str) -> list[tuple[tuple[int, ...] | None, np.ndarray | None]]:
        """The shape of one value and the known numbers of another at other sizes, very small and large ones too."""

    def is_float(self, key: str) -> bool:
        """Whether the elements of a value are known to be floating point numbers."""

    def centred(self, key: str) -> bool:
        """Whether a value, or what it is the square or size of, has its own mean subtracted from it somewhere."""

    def grid(self, data: str, indices: str) -> list[Line] | None:
        """Positions that a grid of indices names on the axes of a value; None where it is no grid."""


@dataclass
class NodeInfo:
    """A node with the shapes around it and the numbers that it takes."""

    names: Sequence[str]  # of the inputs, "" where one is left out
    made: Sequence[str]  # names of the outputs, "" where one is left out
    shapes: Sequence[tuple[int, ...] | None]  # of the outputs that are there
    attributes: Mapping[str, Any]
    opset: int
    arithmetic: Numbers  # numbers that are known, and whether they are so at every size of the model's inputs

    @property
    def given(self) -> list[bool]:
        """Which outputs the node has; a rule that knows them all may give them all."""
        return [bool(name) for name in self.made]

    def open_in(self, k: int, axis: int) -> bool:
        """Whether the length of an axis of input k hangs on sizes that the model leaves open."""
        return self.arithmetic.is_open(self.names[k], axis)

    def open_out(self, axis: int, k: int = 0) -> bool:
        """Whether the length of an axis of output k hangs on sizes that the model leaves open."""
        return self.arithmetic.is_open([name for name in self.made if name][k], axis)

    def shape_out(self, k: int = 0) -> tuple[int, ...]:
        """The shape of an output that is there.  Raises LabelError where it is unknown."""
        if k >= len(self.shapes) or (shape := self.shapes[k]) is None:
            raise LabelError("its output has a size that is not known")
        return shape

    def fixed_out(self, axis: int) -> Labels:
        """Labels of an axis of the first output that never shrinks.  Raises LabelError where its length is unknown."""
        return fixed(self.shape_out()[axis])

    def constant(self, k: int) -> np.ndarray | None:
        """The value of input k where it is known and the same at every size of the model's inputs."""
        return self.arithmetic.constant(self.names[k]) if k < len(self.names) else None

    def some_ints(self, k: int, attribute: Any = None) -> list[int | None] | None:
        """Integers that stand in an attribute or, in later opsets, in input k; None where left out.

        An integer that hangs on sizes that the model leaves open is None.  Raises LabelError where all are unknown.
        """
        if attribute is not None:
            return [int(v) for v in np.atleast_1d(attribute)]
        if k >= len(self.names) or not (key := self.names[k]):
            return None
        if (array := self.arithmetic.known(key)) is None:
            raise LabelError(f"its input {k} is computed from data")
        static = np.atleast_1d(self.arithmetic.static(key))
        return [int(v) if s else None for v, s in zip(np.atleast_1d(array), static, strict=True)]

    def ints(self, k: int, attribute: Any = None) -> list[int] | None:
        """Integers that stand in an attribute or, in later opsets, in input k; None where left out.

        Raises LabelError where one is unknown, or not the same at every size of the model's inputs.
        """
        found = self.some_ints(k, attribute)
        if found is not None and None in found:
            raise LabelError(f"its input {k} hangs on the sizes of the model's inputs")
        return None if found is None else [v for v in found if v is not None]

    def grid_lines(self, data: int, indices: int) -> list[Line] | None:
        """Positions on each axis of input `data` that the grid in input `indices` names; None where it is no grid."""
        return self.arithmetic.grid(self.names[data], self.names[indices])

    def required_ints(self, k: int) -> list[int]:
        """Like `ints`, but they must not be left out.  Raises LabelError."""
        if (found := self.ints(k)) is None:
            raise LabelError(f"its input {k} is left out")
        return found
