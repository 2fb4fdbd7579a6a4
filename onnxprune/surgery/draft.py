"""The pruned model under way: what is known of its values, and what is put beside its nodes."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.channels.dependencies import Dependencies, Node
from onnxprune.model.evaluate import evaluate
from onnxprune.model.graphs import all_names, fresh_name, graphs_of, opset_of
from onnxprune.model.shapes import sizes_given
from onnxprune.operators.labels import is_fixed
from onnxprune.operators.registry import Trait, attributes_of, has

Nodes = Mapping[tuple[str, tuple[str, ...]], onnx.NodeProto]  # of a model, by path and outputs

NewNodes = dict[int, list[onnx.NodeProto]]  # beside others, by position of these in the analysis


def nodes_of(model: onnx.ModelProto) -> Nodes:
    """All nodes, those in bodies too."""
    return {(path, tuple(node.output[:])): node for graph, path in graphs_of(model.graph) for node in graph.node}


@dataclass
class Draft:
    """The pruned model under way: what is known of its values, and nodes to be put beside others.

    out: the model; changed by those who have the draft.
    deps: the analysis of the original.
    dead: (components,) bool.
    """

    out: onnx.ModelProto
    deps: Dependencies
    dead: np.ndarray
    boxes: dict[str, tuple[np.ndarray, ...] | None] = field(default_factory=dict)
    restated: dict[str, np.ndarray] = field(default_factory=dict)  # computed constants that come out differently now
    initializers: dict[str, list[onnx.TensorProto]] = field(default_factory=dict)  # new ones, by path of the graph
    added: dict[tuple[str, str, tuple[int, ...], bytes], str] = field(default_factory=dict)  # names of these
    retraced: dict[str, str] = field(default_factory=dict)  # new names of sizes as the original has them
    before: NewNodes = field(default_factory=lambda: defaultdict(list))
    after: NewNodes = field(default_factory=lambda: defaultdict(list))
    in_one_piece: set[str] = field(default_factory=set)  # values that a shuffle no longer splits

    def __post_init__(self) -> None:
        self.opset, self.nodes = opset_of(self.out), nodes_of(self.out)

    @cached_property
    def names(self) -> set[str]:
        """Names that are taken."""
        return all_names(self.out)

    def proto(self, index: int) -> onnx.NodeProto:
        """The node of the pruned model at this place in the analysis."""
        node = self.deps.nodes[index]
        return self.nodes[node.path, tuple(node.proto.output[:])]

    def box(self, key: str) -> tuple[np.ndarray, ...] | None:
        """Live positions of each axis of a value."""
        if key not in self.boxes:
            self.boxes[key] = self.deps.box(key, self.dead)
        return self.boxes[key]

    def live_arrays(self, index: int) -> dict[int, tuple[np.ndarray, ...]]:
        """Live positions of the known arrays that a node takes, by input."""
        arrays = self.deps.known_arrays.get(index, {})
        return {k: tuple(self.deps.live(x, self.dead) for x in axes) for k, axes in arrays.items()}

    def touched(self, node: Node) -> bool:
        """Whether any value around a node loses positions, or is told by another number than before."""
        return any(key in self.restated for key in node.inputs) or any(
            box is None or not all(m.all() for m in box)
            for key in (*node.inputs, *node.outputs)
            if key and key in self.deps.values and self.deps.values[key] is not None
            for box in (self.box(key),)
        )

    def fresh_name(self, stem: str) -> str:
        """A name that no value of the model has."""
        return fresh_name(stem, self.names)

    def add_initializer(self, path: str, stem: str, array: np.ndarray) -> str:
        """The name of a new tensor of a graph; what another new one holds already is not put in twice."""
        array = np.asarray(array, order="C")
        mark = (path, array.dtype.str, array.shape, array.tobytes())
        if mark not in self.added:
            self.added[mark] = self.fresh_name(stem)
            self.initializers.setdefault(path, []).append(numpy_helper.from_array(array, self.added[mark]))
        return self.added[mark]

    def restate(self) -> None:
        """Evaluate shape arithmetic again, on the shapes of the pruned network."""
        statics = self.deps.statics
        for index, node in enumerate(self.deps.nodes):
            outputs = [key for key in node.outputs if key in statics.sampled]
            if not outputs or any(map(self._has_channels, outputs)):
                continue
            values: list[np.ndarray] | None = None
            if has(node.proto, Trait.SIZES):
                values = self._sizes(node)
            elif any(key in self.restated for key in node.inputs):
                inputs = [self._taken(index, k, key) for k, key in enumerate(node.inputs)]
                values = evaluate(node.proto, inputs, attributes_of(node.proto), self.opset)
            for key, value in zip(outputs, values or (), strict=False):
                if not np.array_equal(value, statics.constants[key]) or self.unsteady(key).any():
                    self.restated[key] = value

    def unsteady(self, key: str) -> np.ndarray:
        """Which elements of a computed integer hang on axes that are cut, and not in proportion to what they were.

        `H mod C` is such a one: that it is the same at one size of the input says nothing of the others.
        """
        found = self.deps.arithmetic.uneven(key)
        if found.any():
            places = self.deps.arithmetic.origins(key).flat
            found &= np.array([any(map(self._is_cut, where)) for where in places]).reshape(found.shape)
        return found

    def _is_cut(self, place: tuple[str, int]) -> bool:
        value, axis = place
        box = self.box(value)
        return box is not None and not box[axis].all()

    def _taken(self, index: int, k: int, key: str) -> np.ndarray | None:
        """What a node of the pruned model takes; sizes that are to stay are those of the original."""
        stays = (index, k) in self.deps.fixed_sizes
        return self.deps.statics.constants.get(key) if stays else self.known(key)

    def _has_channels(self, key: str) -> bool:
        value = self.deps.values.get(key)
        return value is not None and not all(map(is_fixed, value.axes))

    def _sizes(self, node: Node) -> list[np.ndarray] | None:
        """What a Shape or Size node gives; None where it is not known."""
        box, array = self.box(node.inputs[0]), self.restated.get(node.inputs[0])
        if box is None and array is None:
            return None
        sizes = [int(m.sum()) for m in box or ()] if array is None else list(array.shape)
        return [np.asarray(sizes_given(node.proto, sizes, math.prod), np.int64)]

    def known(self, key: str) -> np.ndarray | None:
        """A small constant as the pruned model computes it."""
        return self.restated.get(key, self.deps.statics.constants.get(key))
