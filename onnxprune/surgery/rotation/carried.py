"""Channels that a stream carries: in which values they lie on which axis, and in which tensors at which positions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import numpy_helper

from onnxprune.channels.dependencies import Group
from onnxprune.operators.registry import Trait, attributes_of, has
from onnxprune.surgery.rotation.sites import Array, Graph

ALIKE = 1e-6  # relative difference of factors that have to be the same


class Bent(Exception):
    """Something that is no linear map, or no map that is the same for all channels, touches the channels."""


@dataclass(frozen=True)
class StreamPart:
    """That one value is another one times a factor per channel.

    through: whether that holds of the other one divided by its size, or without its mean, alone.
    """

    one: str
    other: str
    factor: Array | None = None
    through: bool = False


@dataclass
class Carried:
    """A group of channels under examination."""

    graph: Graph
    group: Group
    links: list[StreamPart] = field(default_factory=list)
    making: list[tuple[str, int, str]] = field(default_factory=list)  # (tensor, axis, value that it is part of)
    taking: list[tuple[str, int, str]] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)  # tensors that take other elements
    shifts: list[tuple[str, Array, str]] = field(default_factory=list)  # (tensor, constant as it is, value)
    squares: set[str] = field(default_factory=set)  # values that are the squares of others, and get summed up
    merged: set[str] = field(default_factory=set)  # values with the channels on one axis with other positions

    def __post_init__(self) -> None:
        deps = self.graph.deps
        self.channel = np.full(int(deps.component.max()) + 1, -1)
        self.channel[self.group.components] = np.arange(len(self.group))
        self.axes: dict[str, tuple[int, Array]] = {}

    def carrying(self, axes: Sequence[Array]) -> list[int]:
        """Those of some axes that have the channels."""
        return [k for k, x in enumerate(axes) if (self.channel[self.graph.deps.component[x]] >= 0).any()]

    def axis(self, key: str) -> int | None:
        """The axis of a value on which the channels lie; None where it has none of them.  Raises Bent."""
        value = self.graph.deps.values.get(key)
        if value is None:
            return None
        lies = self.carrying(value.axes)
        if not lies:
            return None
        order = self.channel[self.graph.deps.component[value.axes[lies[0]]]]
        if len(lies) > 1 or value.split_axis is not None:
            raise Bent
        if not self._whole(order):
            if not self._repeated(order):
                raise Bent
            self.merged.add(key)
        self.axes[key] = lies[0], order
        return lies[0]

    def _whole(self, order: Array) -> bool:
        return order.size == len(self.group) and np.array_equal(np.sort(order), np.arange(len(self.group)))

    def _repeated(self, order: Array) -> bool:
        """Whether an axis is one of the channels between others: all that moves it moves them alike."""
        inner = int((order == order[0]).argmin()) or order.size
        one = order[::inner]
        outer = one.size // len(self.group)
        return (
            outer > 0
            and self._whole(one[: len(self.group)])
            and np.array_equal(order, np.tile(np.repeat(one[: len(self.group)], inner), outer))
        )

    def own(self, k: int, place: int) -> tuple[str, int] | None:
        """The tensor that node k takes there and its axis of the channels; None where it has none.  Raises Bent."""
        uses = [u for u in self.graph.deps.uses_at.get(k, ()) if u.input == place]
        for use in uses:
            lies = self.carrying(use.axes)
            if not lies or (self.graph.deps.sources[use.source].kind == "fill" and self.nothing(use.source)):
                return None
            if self.graph.use(k, place) is None or len(lies) > 1:
                raise Bent
            return use.source, lies[0]
        return None

    def positions(self, key: str, axis: int) -> Array:
        """(1, width): where the channels lie in a tensor, in the order of the group."""
        slot = next((s for s in self.group.slots if s.source == key and s.axis == axis), None)
        if slot is None or slot.positions.shape[1] != 1:
            raise Bent
        return slot.positions[:, 0][None]

    def data(self, k: int) -> tuple[list[str], str]:
        """Values with channels that a node takes, and the one that it gives.  Raises Bent where that has none."""
        node = self.graph.deps.nodes[k]
        taken = [key for key in node.inputs if key and key in self.axes]
        if not all(key in self.axes for key in node.outputs if key):
            raise Bent
        return taken, node.outputs[0]

    def nothing(self, key: str) -> bool:
        """Whether a value is zero everywhere."""
        maker = self.graph.deps.maker(key)
        known = self.graph.known(key)
        filled = maker is not None and has(maker.proto, Trait.FILLS)
        fill = attributes_of(maker.proto).get("value") if maker is not None and filled else None
        if filled:
            return fill is None or not np.any(numpy_helper.to_array(fill))
        return known is not None and not known.any()

    def linked(self, out: str, value: str, factor: Array, through: bool = False) -> None:
        """That a value is another one times a factor for each channel.  Raises Bent where that cannot be undone."""
        if not (np.isfinite(factor).all() and factor.all()):
            raise Bent
        self.links.append(StreamPart(out, value, factor, through))

    def factors(self, even: list[str]) -> dict[str, Array]:
        """What each value is times the stream.

        Args:
            even: values that have to be one number times the stream.

        Raises Bent where two ways to a value disagree.
        """
        near: dict[str, list[tuple[str, Array]]] = {}
        ones = np.ones(len(self.group))
        for link in self.links:
            factor = ones if link.factor is None else link.factor
            near.setdefault(link.other, []).append((link.one, factor))
            near.setdefault(link.one, []).append((link.other, 1 / factor))
        carrying = self.axes.keys() - self.squares
        roots = even[:1] or sorted(carrying, key=list(self.axes).index)
        root = max(roots, key=lambda v: sum(f is ones or bool((f == 1).all()) for _, f in near.get(v, ())))
        found, todo = {root: ones}, [root]
        while todo:
            value = todo.pop()
            for other, factor in near.get(value, ()):
                if other not in found:
                    found[other] = found[value] * factor
                    todo.append(other)
                elif not _alike(found[other], found[value] * factor):
                    raise Bent
        if not carrying <= set(found) or not all(_alike(found[v], found[v][:1]) for v in even):
            raise Bent
        return found


def _alike(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= ALIKE * np.abs(one).max())
