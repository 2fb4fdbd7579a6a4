"""What is known of the values of a network at one choice of input sizes, and whether it holds at others."""

from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.model.inference import Inference
from onnxprune.operators.registry import Shape


@dataclass
class Statics:
    """Concrete shapes, element types and small known values, by key (the name, behind the path of its graph)."""

    skeleton: onnx.ModelProto = field(default_factory=onnx.ModelProto, repr=False)  # the model without large tensors
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    sampled: set[str] = field(default_factory=set)  # constants that follow from the shape of a value
    tensors: set[str] = field(default_factory=set)  # tensors of the file, whose shapes hold for every input
    huge: int = 0  # elements of the largest value whose shape is left out for having too long an axis
    inconsistent: bool = False  # a Reshape would change the number of elements, or operands do not broadcast
    inferred: frozenset[str] = frozenset()  # values whose shapes no run has to show
    other_sizes: list["Statics"] = field(default_factory=list, repr=False, compare=False)  # of what is open
    accepted_sizes: list["Statics"] = field(default_factory=list, repr=False, compare=False)  # by the whole network
    extreme_sizes: list["Statics"] = field(default_factory=list, repr=False, compare=False)  # very small and large ones
    pinned: frozenset[tuple[str, int]] = frozenset()  # axes whose lengths the weights of their readers say
    inference: Inference = field(default_factory=Inference, repr=False, compare=False)

    @property
    def elsewhere(self) -> tuple["Statics", ...]:
        """What is known at all other sizes."""
        return (*self.other_sizes, *self.extreme_sizes)

    def fixed_constant(self, key: str) -> np.ndarray | None:
        """A value that holds for every input of the model."""
        return None if key in self.sampled else self.constants.get(key)

    def accepts(self, other: "Statics") -> bool:
        """Whether the network takes other sizes: no shape gets lost there, and no element."""
        return not other.inconsistent and other.shapes.keys() >= self.inferred

    def is_open(self, key: str, axis: int) -> bool:
        """Whether the length of an axis hangs on sizes that the model leaves open, or may do so."""
        if not self.other_sizes or (key, axis) in self.pinned:
            return False
        here, found = self.shapes.get(key), [s.shapes[key] for s in self.elsewhere if key in s.shapes]
        return here is None or not found or any(len(s) != len(here) or s[axis] != here[axis] for s in found)
