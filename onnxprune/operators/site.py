"""One node as the columns `bound` see it: what is known of its inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx

from onnxprune.operators.facts import INTEGERS, Facts, NothingKnown, Shape, aligned, expanded, known, unknown
from onnxprune.operators.node_info import NodeInfo
from onnxprune.operators.value_numbers import Ids, bits, mix, name_of

T = TypeVar("T")


@dataclass
class Site(NodeInfo):
    """A node, what is known of its inputs, and the numbers of those that depend on weights alone.

    A bound asks for what it needs: an error (`NothingKnown`, `LabelError`) is raised where that is missing, and nothing
    is known of the outputs.
    """

    node: onnx.NodeProto
    inputs: Sequence[Facts | None]  # None where an input is left out, or of unknown shape
    taken: Sequence[Shape | None]  # shapes of the inputs
    types: Sequence[int]  # of their elements, 0 where unknown
    arrays: Callable[[int], np.ndarray | None]  # input k where it depends on weights alone

    @property
    def token(self) -> Ids:
        """A name of this node's own."""
        return name_of(next(filter(None, self.made), ""))

    @property
    def kind(self) -> Ids:
        """A name that nodes of the same operator and attributes share."""
        parts = sorted(a.SerializeToString(deterministic=True).hex() for a in self.node.attribute)
        return name_of(" ".join([self.node.domain, self.node.op_type, *parts]))

    @property
    def whole(self) -> bool:
        """Whether it computes with integers, which overflow."""
        return bool(self.types) and self.types[0] in INTEGERS

    def has(self, k: int) -> bool:
        """Whether input k is given."""
        return k < len(self.names) and bool(self.names[k])

    def array(self, k: int) -> np.ndarray | None:
        """The numbers of input k; None where it depends on data or is left out."""
        return self.arrays(k) if self.has(k) else None

    def weight(self, k: int, left_out: np.ndarray | None = None) -> np.ndarray:
        """The numbers of input k.  Raises NothingKnown where it depends on data, or is left out and nothing is told."""
        found = self.array(k) if left_out is None or self.has(k) else left_out
        if found is None:
            raise NothingKnown
        return found

    def optional(self, k: int) -> np.ndarray | None:
        """The numbers of input k, None where it is left out.  Raises NothingKnown where it depends on data."""
        return self.weight(k) if self.has(k) else None

    def some_numbers(self, k: int, attribute: str = "") -> list[int | None] | None:
        """Integers in an attribute, or in input k, computed from sizes perhaps: None where these are open ones."""
        if attribute in self.attributes:
            return [int(v) for v in np.atleast_1d(self.attributes[attribute])]
        found, static = self.array(k), None
        if found is None and self.has(k) and (known := self.arithmetic.known(self.names[k])) is not None:
            found, static = known, self.arithmetic.static(self.names[k]).ravel()
        if found is None:
            return None
        return [int(v) if static is None or static[j] else None for j, v in enumerate(found.ravel())]

    def shape(self, k: int = 0) -> Shape:
        """The shape of an input.  Raises NothingKnown."""
        return _there(self.taken, k)

    def data(self, k: int = 0) -> Facts:
        """Facts of an input that depends on data.  Raises NothingKnown."""
        return _there(self.inputs, k)

    def fact(self, k: int) -> tuple[Facts, Shape]:
        """Facts and shape of input k, also where it is a tensor of the file.  Raises NothingKnown."""
        shape, array = self.shape(k), self.array(k)
        if array is None:
            return self.data(k), shape
        if array.dtype.kind not in "fiub":
            raise NothingKnown
        return known(array), array.shape

    def operands(self, *inputs: int) -> list[Facts]:
        """Facts of these inputs, by default all, as they broadcast with each other.  Raises NothingKnown."""
        return aligned([self.fact(k) for k in inputs or range(len(self.names))])

    def nothing(self, k: int = 0) -> Facts | None:
        """Facts of an output of which nothing is known."""
        shape = self.shapes[k] if k < len(self.shapes) else None
        return None if shape is None else unknown(len(shape), mix(self.token, k))


def _there(found: Sequence[T | None], k: int) -> T:
    if k >= len(found) or (one := found[k]) is None:
        raise NothingKnown
    return one


def numbers_name(site: Site, k: int, numbers: Sequence[int | None]) -> Ids:
    """A name for the numbers of input k: two of the same one are the same at every size of the input."""
    if None in numbers:
        return name_of(site.names[k])
    return mix(*bits(np.asarray(numbers, np.float64)), name_of("numbers"))


def spread(site: Site, axis: int) -> Facts:
    """Facts of input 0 with positions of their own on an axis.

    Raises NothingKnown, also where the model leaves its length open.
    """
    if site.open_in(0, axis):
        raise NothingKnown
    return expanded(site.data(), site.shape(), [axis])
