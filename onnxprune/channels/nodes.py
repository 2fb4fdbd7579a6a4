"""Nodes and tensors of a network, as the analysis meets them."""

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.model.graphs import value_of
from onnxprune.model.tensors import read_tensor
from onnxprune.operators.labels import Axes, is_fixed
from onnxprune.operators.roles import WEIGHS


@dataclass(frozen=True)
class Node:
    """A node in the order of the analysis, with the keys of what it takes and gives."""

    proto: onnx.NodeProto
    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How messages call the node: its name, else its first output."""
        return self.proto.name or next(filter(None, self.outputs), self.proto.op_type)

    def __str__(self) -> str:
        return f"{self.label} ({self.proto.op_type})"


@dataclass(frozen=True)
class Source:
    """A tensor that the file holds: an initializer, a Constant node, or a fill by ConstantOfShape."""

    key: str
    kind: str  # "initializer", "constant" or "fill"
    shape: tuple[int, ...]
    dtype: int
    path: str


def fill_of(source: Source, maker: Node | None) -> np.ndarray:
    """The elements of a fill, which a ConstantOfShape makes."""
    value = None if maker is None else value_of(maker.proto)
    return np.full(source.shape, np.float32(0) if value is None else read_tensor(value).ravel()[0])


@dataclass(frozen=True)
class Use:
    """One place that takes a source: labels of its own, so that a shared tensor can be cut differently."""

    source: str
    node: int
    input: int
    axes: Axes

    def weighs(self, roles: np.ndarray) -> bool:
        """Whether a layer filters with it: some position makes a channel or takes one in.  roles: (labels,)."""
        return any(not is_fixed(x) and (roles[x] & WEIGHS).any() for x in self.axes)
