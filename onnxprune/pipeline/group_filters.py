"""The weights of a network as the criteria see them: one `Filters` for each group of channels."""

from functools import cached_property

import numpy as np

from onnxprune.channels.dependencies import Dependencies, Group, Slot
from onnxprune.channels.nodes import fill_of
from onnxprune.criteria.filters import Filters
from onnxprune.model.network import Network
from onnxprune.operators.labels import line
from onnxprune.operators.registry import Trait, has
from onnxprune.operators.roles import Role

REMEMBERED = 32 << 20  # weights of all groups together whose filters are kept for the next one who asks


class Weights:
    """Tensors of a model by key, read when they are asked for."""

    def __init__(self, network: Network, deps: Dependencies) -> None:
        self.network, self.deps = network, deps
        self._filters, self._room = dict[str, Filters](), REMEMBERED

    def raw(self, key: str) -> np.ndarray:
        """Elements of a tensor of the file in their own type."""
        source = self.deps.sources[key]
        return fill_of(source, self.deps.maker(key)) if source.kind == "fill" else self.network.array(key)

    def read(self, key: str) -> np.ndarray:
        """Elements of a tensor of the file, quantised ones as the real numbers that they stand for."""
        if (source := self.deps.sources[key]).kind == "fill":
            return np.zeros(source.shape, np.float32)
        array = self.network.array(key)
        if array.dtype in (np.int8, np.uint8) and (scaling := self._scaling(key)) is not None:
            return scaling.astype(np.float32)
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)

    def _scaling(self, key: str) -> np.ndarray | None:
        """Real values of a quantised weight."""
        use = next(iter(self.deps.uses_of.get(key, ())), None)
        found = None if use is None else self.deps.scaling(use)
        if found is None or found.scale not in self.network:
            return None
        rank = len(use.axes) if use else 0
        scale = self.network.array(found.scale)
        zero = self.network.array(found.zero_point) if found.zero_point in self.network else np.zeros((), np.int32)
        if found.axis is not None:
            shape = line(rank, found.axis)
            scale, zero = scale.reshape(shape), (zero.reshape(shape) if zero.ndim else zero)
        return (self.network.array(key).astype(np.float32) - zero.astype(np.float32)) * scale

    def filters(self, group: Group) -> Filters:
        """All weights that write the channels of a group, and the scales of its BatchNormalizations."""
        if group.name in self._filters:
            return self._filters[group.name]
        weights = tuple(self._rows(slot) for slot in group.writers)
        scales = tuple(self._rows(slot).reshape(len(group)) for slot in group.slots if self._is_scale(slot))
        filters = Filters(weights, scales)
        if (size := filters.channels * filters.width) <= self._room:
            self._filters[group.name], self._room = filters, self._room - size
        return filters

    def _rows(self, slot: Slot) -> np.ndarray:
        """A tensor with the channels of a slot first: (channels, inputs, *kernel)."""
        array = np.moveaxis(self.read(slot.source), slot.axis, 0)
        channels, repeats = slot.positions.shape
        picks = slot.positions.ravel()
        if not np.array_equal(picks, np.arange(array.shape[0])):
            array = array[picks]
        if has(self.deps.nodes[slot.node].proto, Trait.CONVOLVES) and array.ndim > 2:
            return array.reshape(channels, repeats * array.shape[1], *array.shape[2:])
        return array.reshape(channels, -1)

    def _is_scale(self, slot: Slot) -> bool:
        node = self.deps.nodes[slot.node]
        if not has(node.proto, Trait.AFFINE) or not slot.role & Role.ADD or slot.positions.shape[1] != 1:
            return False
        return (slot.source, slot.node) in self._scales

    @cached_property
    def _scales(self) -> frozenset[tuple[str, int]]:
        """Vectors that are the second input of a node, with that node: γ, if it is a BatchNormalization."""
        return frozenset((u.source, u.node) for u in self.deps.uses if u.input == 1 and len(u.axes) == 1)
