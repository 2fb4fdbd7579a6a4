"""The outcome of the analysis: labels of every value, components, groups of channels, and reasons."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.channels.arithmetic import Arithmetic
from onnxprune.channels.combined import channels_of
from onnxprune.channels.nodes import Node, Source, Use
from onnxprune.channels.parameters import parameters
from onnxprune.channels.ties import Ties
from onnxprune.keyed import keyed
from onnxprune.model.static import Statics
from onnxprune.operators.boxes import FoldedShuffle, Value
from onnxprune.operators.labels import Axes, Kind, Labels, Product, is_fixed
from onnxprune.operators.roles import Balance, Multiplies, Role, Scaling


@dataclass(frozen=True)
class Slot:
    """Where the channels of a group sit on one axis of one tensor of the file."""

    source: str
    axis: int
    positions: np.ndarray  # (channels, repeats)
    role: Role
    node: int

    def energies(self, array: np.ndarray) -> np.ndarray:
        """Sums of the squares of what each channel has of the tensor there, (channels,)."""
        rows = np.moveaxis(array.astype(np.float64), self.axis, 0)
        return np.square(rows).reshape(len(rows), -1).sum(axis=1)[self.positions].sum(axis=1)


@dataclass(frozen=True)
class Group:
    """Channels that occupy the same slots, and so can be compared and removed one by one."""

    name: str
    components: np.ndarray  # (channels,)
    slots: tuple[Slot, ...]

    def __len__(self) -> int:
        return len(self.components)

    @cached_property
    def writers(self) -> tuple[Slot, ...]:
        return tuple(s for s in self.slots if s.role & Role.WRITE)

    @cached_property
    def readers(self) -> tuple[Slot, ...]:
        return tuple(s for s in self.slots if s.role & Role.READ)


@dataclass(frozen=True)
class Layer:
    """A node that multiplies by weights, and what it costs."""

    node: int
    costs: tuple[Multiplies, ...]


@dataclass(frozen=True)
class Dependencies:
    """Which positions of which tensors live and die together, in one network."""

    nodes: tuple[Node, ...]
    values: Mapping[str, Value | None]
    sources: Mapping[str, Source]
    uses: tuple[Use, ...]
    component: Labels  # (labels,), component of each label
    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    scalings: Mapping[tuple[int, int], Scaling]  # of quantised weights, by node and input
    folded_shuffles: Mapping[int, FoldedShuffle]
    fixed_sizes: frozenset[tuple[int, int]]  # (node, input) whose computed sizes must stay what they are
    known_arrays: Mapping[int, Mapping[int, Axes]]  # known arrays that are cut with channels, by node and input
    combined: Labels  # (factors, components) labels of the channels that a component combines, 0 where none
    products: tuple[Product, ...]  # axes of such components
    size_queries: Mapping[int, str]  # sources of which a node takes the sizes alone, by position of the node
    thawed: Mapping[int, Labels]  # nodes that take statistics over channels that may go -> these
    frozen_by_statistics: frozenset[int]  # nodes that take statistics over channels, which stay for that
    roles: np.ndarray  # (labels,), Role of each label
    zeroed: np.ndarray  # (labels,) bool, weights that masking sets to zero where they are dead
    ties: Ties
    balances: tuple[Balance, ...]
    arithmetic: Arithmetic = field(repr=False)
    unknown: Mapping[int, str] = field(default_factory=dict)  # nodes that froze all they touch, and why

    @property
    def statics(self) -> Statics:
        """Shapes and known numbers at the sizes of the analysis."""
        return self.arithmetic.statics

    # --- what a choice of channels means -------------------------------------

    def group(self, name: str) -> Group:
        """The group of that name.  Raises KeyError."""
        return next(g for g in self.groups if g.name == name)

    def dead(self, kept: Mapping[str, np.ndarray]) -> np.ndarray:
        """Components that go, (components,) bool, when each named group keeps these channels of its own."""
        dead = self.nothing
        for group in self.groups:
            if group.name in kept:
                gone = np.ones(len(group), bool)
                gone[np.asarray(kept[group.name], np.int64)] = False
                dead[group.components[gone]] = True
        return dead

    def live(self, labels: Labels, dead: np.ndarray) -> np.ndarray:
        """Which positions of an axis stay, (positions,) bool."""
        if is_fixed(labels):
            return _all(labels.shape)
        stays = (~dead[self.component[x]] for x in channels_of(labels, self.component, self.combined))
        return np.asarray(functools.reduce(np.logical_and, stays))

    def factors(self, labels: Labels) -> list[Labels]:
        """The labels of an axis; those of each factor where its positions combine channels."""
        found = (p for p in self.products if p.labels.size == labels.size and np.array_equal(p.labels.ravel(), labels))
        product = next(found, None)
        return [labels] if product is None else list(product.parts)

    def combines(self, group: Group) -> bool:
        """Whether some positions of a tensor go with a channel of the group and with those of another one."""
        return bool(np.isin(group.components, self.component[self.combined]).any())

    def box(self, key: str, dead: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Live positions of each axis of a value; None where its shape is unknown or what is left is no box."""
        value = self.values.get(key)
        if value is None:
            return None
        live = [self.live(x, dead) for x in value.axes]
        if (split := value.split_axis) is not None:
            grid = self.live(split.labels.ravel(), dead).reshape(split.labels.shape)
            for k, dim in enumerate(split.dims):
                live[dim] = np.asarray(grid.any(axis=tuple(j for j in range(grid.ndim) if j != k)))
            if math.prod(int(live[d].sum()) for d in split.dims) != int(grid.sum()):
                return None
        return tuple(live)

    @cached_property
    def owners(self) -> np.ndarray:
        """(components,) number of the group that a component belongs to, in their order; -1 for one of none."""
        found = np.full(int(self.component.max()) + 1, -1, np.int64)
        for k, group in enumerate(self.groups):
            found[group.components] = k
        return found

    @cached_property
    def uses_at(self) -> dict[int, list[Use]]:
        """Tensors of the file that a node takes, by its position."""
        return keyed((use.node, use) for use in self.uses)

    @cached_property
    def uses_of(self) -> dict[str, list[Use]]:
        """Where the tensors of the file are taken, by their keys."""
        return keyed((use.source, use) for use in self.uses)

    @cached_property
    def takers(self) -> dict[str, list[tuple[int, int]]]:
        """Nodes that take a value and at which input, by position."""
        rows = (((k, place), key) for k, node in enumerate(self.nodes) for place, key in enumerate(node.inputs))
        return keyed((key, where) for where, key in rows if key)

    def scaling(self, use: Use) -> Scaling | None:
        """How a quantised weight stands for real numbers; None for other tensors."""
        return self.scalings.get((use.node, use.input))

    def maker(self, key: str) -> Node | None:
        """The node that makes a value."""
        return self.arithmetic.makers.get(key)

    def approximated(self, dead: np.ndarray) -> list[int]:
        """Nodes that take statistics over fewer channels than in the original, by position."""
        return [k for k, labels in self.thawed.items() if not self.live(labels, dead).all()]

    def loses(self, key: str, dead: np.ndarray) -> bool:
        """Whether a value loses positions."""
        box = self.box(key, dead)
        return box is not None and not all(m.all() for m in box)

    def macs_frozen_by_statistics(self) -> tuple[float, list[int]]:
        """Share of the MACs in layers some of whose channels stay for statistics over them, and the nodes."""
        found, macs = dict[int, None](), 0
        for layer in self.layers:
            labels = [x for cost in layer.costs for x in cost.labels if not is_fixed(x)]
            causes = [self.ties.freezer(int(x[0])) for x in labels if self.component[x[0]] == self.frozen]
            nodes = [cause.node for cause in causes if cause is not None and cause.node in self.frozen_by_statistics]
            macs += self.layer_macs(layer, self.nothing) if nodes else 0
            found |= dict.fromkeys(nodes)
        return macs / max(1, self.macs()), list(found)

    def passed(self, index: int) -> list[str]:
        """Values between the origin of a folded shuffle, which ends at this node, and the node."""
        return passed(self.arithmetic.makers, self.folded_shuffles[index].origin.value, self.nodes[index])

    # --- what it costs -------------------------------------------------------

    def layer_macs(self, layer: Layer, dead: np.ndarray) -> int:
        return sum(c.times * math.prod(int(self.live(x, dead).sum()) for x in c.labels) for c in layer.costs)

    def macs(self, dead: np.ndarray | None = None) -> int:
        """Multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul and their kin at the sampled input shapes.

        Products of tensors of the file alone do not count: runtimes compute them once.
        """
        gone = self.nothing if dead is None else dead
        return sum(self.layer_macs(layer, gone) for layer in self.layers)

    @cached_property
    def weights(self) -> tuple[Use, ...]:
        """The first use of every tensor that holds parameters (`channels.parameters`)."""
        kept = parameters(self.nodes, self.sources, {layer.node for layer in self.layers})
        return tuple({use.source: use for use in reversed(self.uses) if use.source in kept}.values())

    def params(self, dead: np.ndarray | None = None) -> int:
        """Elements of the tensors that layers, norms and the like take as weights, biases and scales, each once.

        Constants that are no weights, such as grids of anchors, sizes and bounds, do not count.
        """
        return self.elements(self.weights, self.nothing if dead is None else dead)

    def elements(self, uses: Iterable[Use], dead: np.ndarray) -> int:
        """Elements that are left of the tensors that are used so."""
        return sum(math.prod(int(self.live(x, dead).sum()) for x in use.axes) for use in uses)

    @property
    def nothing(self) -> np.ndarray:
        """No component dead."""
        return np.zeros(int(self.component.max()) + 1, bool)

    # --- why -----------------------------------------------------------------

    @cached_property
    def frozen(self) -> int:
        """The component of all that can never be removed."""
        return int(self.component[0])

    def whole_writers(self) -> Iterator[tuple[Use, int, Labels]]:
        """Weights whose own channels cannot be removed: the use, its axis, and the labels of the channels."""
        for use in self.uses:
            axes = ((axis, x) for axis, x in enumerate(use.axes) if x.size > 1 and not is_fixed(x))
            for axis, labels in ((k, y) for k, x in axes for y in channels_of(x, self.component, self.combined)):
                if (self.roles[labels] & Role.WRITE).all() and np.unique(self.component[labels]).size == 1:
                    yield use, axis, labels

    def reason(self, labels: Labels) -> str:
        """Why these labels cannot be removed: the node that froze them and its words."""
        cause = self.ties.freezer(int(labels[0]))
        if cause is None:
            return "all of them live and die together, and something has to stay"
        if cause.node < 0:
            return f"it {cause.why}"
        node = self.nodes[cause.node]
        whole = f" {self._whole(node)}" if not cause.why or cause.kind is Kind.COMBINES else ""
        return f"{node} {cause.why or TIES}{whole}"

    def _whole(self, node: Node) -> str:
        """What a node takes that cannot shrink, such as a state that the caller gives."""
        still = (key for key in node.inputs if key and key not in self.sources and self._is_whole(key))
        if (key := next(still, None)) is None:
            return "what cannot shrink"
        start = key
        while (maker := self.maker(start)) is not None and maker.inputs and self._is_whole(maker.inputs[0]):
            start = maker.inputs[0]
        origin = f"comes from the input {start!r}" if maker is None else "cannot shrink"
        return f"{key.removeprefix(node.path)!r}, which {origin}"

    def _is_whole(self, key: str) -> bool:
        value = self.values.get(key)
        return value is not None and any(x.size > 1 for x in value.axes) and all(map(is_fixed, value.axes))


def passed(makers: Mapping[str, Node], origin: str, end: Node) -> list[str]:
    """Values on the way from `origin` to the first input of a node, through first inputs alone."""
    key, found = end.inputs[0], list[str]()
    while key != origin:
        found.append(key)
        key = makers[key].inputs[0]
    return found


@functools.lru_cache(maxsize=4096)
def _all(shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape that is true everywhere, and takes no memory."""
    return np.broadcast_to(np.True_, shape)


TIES = "ties it to"
