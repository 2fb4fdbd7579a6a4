"""Widths that only linear maps touch, and where in the file and in the values of the network such a width lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies, Use
from onnxprune.model.network import Network
from onnxprune.operators.registry import operator_of

Array = np.ndarray

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE})  # precise enough to hold a product of weights


@dataclass(frozen=True)
class WidthPlace:
    """Where a width lies on one axis of a tensor of the file.

    positions: (blocks, width); blocks are the heads of an attention, each with a basis of its own.
    along: whether the tensor makes the width (u becomes Aᵀu) or takes it in (u becomes A⁻¹u).
    factor: (width,), what its elements are multiplied by before.
    level: whether their mean over the width is taken away then.
    """

    key: str
    axis: int
    positions: Array
    along: bool
    factor: Array | None = None
    level: bool = False

    def turned(self, tensor: Array, basis: Array, inverse: Array) -> Array:
        """The tensor in the other basis; basis and inverse are (blocks, width, width)."""
        out = np.moveaxis(tensor.astype(np.float64), self.axis, -1).copy()
        for at, a, b in zip(self.positions, basis, inverse, strict=True):
            part = out[..., at] if self.factor is None else out[..., at] * self.factor
            part = part - part.mean(axis=-1, keepdims=True) if self.level else part
            out[..., at] = part @ (a if self.along else b.T)
        return np.moveaxis(out, -1, self.axis)

    def rows(self, tensor: Array) -> Array:
        """What the tensor makes of the width, or makes the width of: (blocks, width, all else)."""
        lines = np.moveaxis(tensor.astype(np.float64), self.axis, 0).reshape(tensor.shape[self.axis], -1)
        found = lines[self.positions]
        return found if self.factor is None else found * self.factor[:, None]


@dataclass(frozen=True)
class Sensor:
    """A value in which a width can be seen.

    axis: that of the width; block: that of its blocks, or None where these stand behind each other on the same axis.
    order: (width,), positions on the axis.
    factor: (width,), what the value has to be divided by.
    through: (features, blocks · width), what makes the width of the value inside a node.
    shift: (blocks, width), what is added there.
    """

    value: str
    axis: int
    block: int | None = None
    blocks: int = 1
    order: Array | None = None
    factor: Array | None = None
    through: Array | None = None
    shift: Array | None = None

    def rows(self, array: Array) -> Array:
        """(blocks, rows, width), in double precision."""
        found = array.astype(np.float64)
        if self.block is None:
            found = np.moveaxis(found, self.axis, -1)
            found = found if self.through is None else found @ self.through
            found = found.reshape(*found.shape[:-1], self.blocks, -1)
        else:  # other samples may lie on the same axis, ahead of the blocks of each
            found = np.moveaxis(found, (self.block, self.axis), (-2, -1))
        found = found.reshape(-1, self.blocks, found.shape[-1]).transpose(1, 0, 2)
        found = found if self.order is None else found[..., self.order]
        found = found if self.shift is None else found + self.shift[:, None]
        return found if self.factor is None else found / self.factor


@dataclass(frozen=True)
class RotationSite:
    """A width of a group of channels that may take any basis.

    group: that loses it, channel by channel.
    channels: (width,), which channel of the group each position of the width is.
    places: tensors that change with the basis.
    values: tensors that take other elements before, such as the scales of a BatchNormalization.
    made: where the width is seen as it is made.
    read: where it is seen as it is read, if by another value, the keys of an attention; else it is by weights.
    still: axis of `read` along which a constant makes no difference, that of the tokens under a softmax.
    orthogonal: whether the basis has to be, for other groups whose errors are measured in it.
    norms: how many norms take the size of the width, which what goes is missing from.
    centred: whether every layer that reads it holds a bias, for what is lost in the mean.
    level: values that norms give, which take no mean away any more since the width is made without one.
    """

    group: str
    channels: Array
    places: tuple[WidthPlace, ...]
    made: tuple[Sensor, ...]
    read: Sensor | None = None
    still: int | None = None
    centred: bool = True
    values: Mapping[str, Array] = field(default_factory=dict)
    orthogonal: bool = False
    norms: int = 0
    level: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(blocks, width)."""
        blocks, width = self.places[0].positions.shape
        return blocks, width


@dataclass(frozen=True)
class Graph:
    """What both searches want to know of a network."""

    network: Network
    deps: Dependencies

    @cached_property
    def outputs(self) -> frozenset[str]:
        return frozenset(v.name for v in self.network.graph.graph.output)

    @cached_property
    def touched(self) -> Mapping[str, list[int]]:
        """Nodes that take or give something of a group of channels, by its name and in their order."""
        deps = self.deps
        inside = {key: _owners(deps, v.axes) for key, v in deps.values.items() if v is not None}
        found: dict[str, list[int]] = {g.name: [] for g in deps.groups}
        for k, node in enumerate(deps.nodes):
            axes = [u.axes for u in deps.uses_at.get(k, ())]
            near = {g for key in (*node.inputs, *node.outputs) for g in inside.get(key, ())}
            for g in sorted(near.union(*(_owners(deps, a) for a in axes))):
                found[deps.groups[g].name].append(k)
        return found

    def use(self, k: int, place: int) -> Use | None:
        """The tensor of the main graph that node k takes there, and nobody else: one that may change."""
        found = next((u for u in self.deps.uses_at.get(k, ()) if u.input == place), None)
        if found is None or len(self.deps.uses_of[found.source]) != 1:
            return None
        return found if self.may_change(found.source) else None

    def may_change(self, key: str) -> bool:
        """Whether a tensor of the file is one of the main graph that can hold a product of weights."""
        source = self.deps.sources[key]
        return source.dtype in FLOATS and source.kind != "fill" and not source.path and key in self.network

    def holds_bias(self, k: int) -> bool:
        """Whether a layer has, or may get, a bias that takes over what is lost in the mean."""
        node = self.deps.nodes[k]
        after = self.deps.takers.get(node.outputs[0], [])
        added = len(after) == 1 and operator_of(self.deps.nodes[after[0][0]].proto).signs == (1, 1)
        own = operator_of(node.proto).bias is not None
        return own or (added and self.use(after[0][0], 1 - after[0][1]) is not None)

    def read(self, key: str) -> Array:
        """The elements of a tensor of the file."""
        return self.network.array(key)

    def known(self, key: str) -> Array | None:
        """A small constant, at the sizes of the analysis."""
        found = self.deps.statics.constants.get(key)
        return self.read(key) if found is None and key in self.network else found

    def shape(self, key: str) -> tuple[int, ...] | None:
        """The shape of a value, at the sizes of the analysis."""
        found = self.deps.statics.shapes.get(key)
        return None if found is None else tuple(found)


def _owners(deps: Dependencies, axes: Sequence[Array]) -> set[int]:
    """The groups that have channels on some axes."""
    wide = [np.unique(deps.owners[deps.component[x]]) for x in axes if x.size > 1]
    return {int(g) for found in wide for g in found if g >= 0}
