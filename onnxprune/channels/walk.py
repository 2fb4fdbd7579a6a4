"""The walk over a model: every node is visited once, by its rule."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.arithmetic import Arithmetic, Origins, Place, centred
from onnxprune.channels.dependencies import Layer
from onnxprune.channels.nodes import Node, Source, Use
from onnxprune.channels.unite import paired_otherwise, sizes_to_look_at
from onnxprune.channels.zero_points import Zeros
from onnxprune.model.graphs import body_attributes, is_constant, subgraphs, value_of
from onnxprune.model.sort import captured
from onnxprune.model.static import Statics, find
from onnxprune.model.tensors import CUTTABLE
from onnxprune.operators.boxes import FoldedShuffle, Value
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import LARGEST_AXIS, Axes, LabelError, Labels, fixed, is_fixed, unlabelled
from onnxprune.operators.op import Op
from onnxprune.operators.registry import MALFORMED, Operator, Trait, attributes_of, has, operator_of
from onnxprune.operators.roles import Scaling

LARGEST_FILL = 1 << 28  # elements; a fill is a few bytes in the file, and cutting or masking it may write it out


@dataclass
class Walk:
    """The analysis under way."""

    statics: Statics
    opset: int
    heads: bool
    thaw: bool = False
    enter: Callable[["Walk", Node], None] | None = None  # visits a node that has bodies
    coupling: Coupling = field(default_factory=Coupling)
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value | None] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)  # value -> the source that it is
    weights: set[str] = field(default_factory=set)  # values made of weights alone
    uses: list[Use] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    scalings: dict[tuple[int, int], Scaling] = field(default_factory=dict)  # by node and input
    folded_shuffles: dict[int, FoldedShuffle] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    thawed: dict[int, Labels] = field(default_factory=dict)  # nodes with statistics over channels that may go
    frozen_by_statistics: set[int] = field(default_factory=set)  # nodes with statistics over channels that stay
    other_sizes: dict[int, int] = field(default_factory=dict)  # other sizes to look at as well -> a node that wants it
    fixed_sizes: set[tuple[int, int]] = field(default_factory=set)  # inputs whose computed sizes must stay
    known_arrays: dict[int, dict[int, Axes]] = field(default_factory=dict)  # labels of known arrays, by node and input
    size_queries: dict[int, str] = field(default_factory=dict)  # sources of which a node takes the sizes alone
    scope: list[dict[str, str]] = field(default_factory=list)
    pinned: frozenset[str] = frozenset()

    @cached_property
    def zeros(self) -> Zeros:
        return Zeros(self.statics)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.statics, self.opset)

    def key(self, name: str) -> str:
        return find(self.scope, name)

    # --- graphs --------------------------------------------------------------

    def graph(
        self, graph: onnx.GraphProto, path: str, outer: list[dict[str, str]], overridable: frozenset[str] = frozenset()
    ) -> dict[str, str]:
        """Visit all nodes of a graph; gives the keys of its names."""
        names = {t.name: path + t.name for t in graph.initializer}
        names |= {v.name: path + v.name for v in graph.input}
        before, self.scope = self.scope, [*outer, names]
        self.pinned |= {path + name for name in overridable}
        for tensor in graph.initializer:
            self.source(path + tensor.name, "initializer", tuple(tensor.dims), tensor.data_type, path)
        for value in graph.input:
            if path + value.name not in self.sources and path + value.name not in self.values:
                self.values[path + value.name] = self.unlabelled_value(path + value.name)
        self.arithmetic.without_mean |= {path + name for name in centred(graph)}
        for proto in graph.node:
            inputs = tuple([self.key(name) if name else "" for name in proto.input[:]])
            outputs = tuple([path + name if name else "" for name in proto.output[:]])
            names.update({key[len(path) :]: key for key in outputs if key})
            self.nodes.append(Node(proto, path, inputs, outputs))
            self.arithmetic.makers.update(dict.fromkeys(filter(None, outputs), self.nodes[-1]))
            self.coupling.node = len(self.nodes) - 1
            self.node(self.nodes[-1])
        self.coupling.node = -1
        self.scope = before
        return names

    def unlabelled_value(self, key: str) -> Value | None:
        """A value without labels; None where its shape is not known."""
        shape = self.statics.shapes.get(key)
        return None if shape is None else Value(unlabelled(shape))

    def source(self, key: str, kind: str, shape: tuple[int, ...], dtype: int, path: str) -> None:
        self.sources[key] = Source(key, kind, shape, dtype, path)
        self.alias[key] = key
        self.weights.add(key)

    # --- nodes ---------------------------------------------------------------

    def node(self, node: Node) -> None:
        index, scope = len(self.nodes) - 1, self.scope
        try:
            self.visit(node)
        except MALFORMED as error:
            self.scope = scope
            self.give_up(node, index, f"its inputs, attributes or bodies do not suit it ({type(error).__name__})")

    def give_up(self, node: Node, index: int, why: str) -> None:
        """Freeze all around a node that makes no sense."""
        self.coupling.node, self.unknown[index] = index, why
        self.freeze_around(node, index, f"freezes it: {why}", f"freezes it: {why}")
        self.values.update(dict.fromkeys(filter(None, node.outputs)))

    def freeze_around(self, node: Node, index: int, takes: str, captures: str) -> None:
        """Freeze what a node takes, and what its bodies capture, with a reason for each."""
        for k, key in enumerate(node.inputs):
            if key:
                self.freeze_taken(index, k, key, takes)
        for body, _ in subgraphs(node.proto, node.path):
            for name in sorted(captured(body)):
                self.freeze_taken(index, -1, self.key(name), captures)

    def visit(self, node: Node) -> None:
        proto = node.proto
        if is_constant(proto):
            self.constant(node)
        elif has(proto, Trait.SAME) and len(node.inputs) == len(node.outputs) == 1 and node.inputs[0] in self.alias:
            self.alias[node.outputs[0]] = self.alias[node.inputs[0]]
            self.weights.add(node.outputs[0])
        elif body_attributes(proto):
            self.enter(self, node) if self.enter else self.give_up(node, len(self.nodes) - 1, "runs a body")
        else:
            self.plain(node)

    def constant(self, node: Node) -> None:
        if (tensor := value_of(node.proto)) is not None:
            self.source(node.outputs[0], "constant", tuple(tensor.dims), tensor.data_type, node.path)
            return
        self.values[node.outputs[0]] = self.unlabelled_value(node.outputs[0])
        self.weights.add(node.outputs[0])

    def take(self, node: int, k: int, key: str) -> Value | None:
        """The value of input k; a tensor of the file gets labels of its own at each use."""
        if key not in self.alias:
            return self.values.get(key)
        source, consumer = self.sources[self.alias[key]], self.nodes[node].proto
        if has(consumer, Trait.SIZES):
            self.size_queries[node] = source.key
            return Value(unlabelled(source.shape))
        whole = source.dtype == onnx.TensorProto.INT32 and operator_of(consumer).labels_int32
        cuttable = (source.dtype in CUTTABLE or whole) and max(source.shape, default=0) <= LARGEST_AXIS
        axes = tuple(map(self.coupling.label if cuttable else fixed, source.shape))
        if source.key in self.pinned:
            self.coupling.freeze(*axes, why="takes a tensor that the caller may replace at run time")
        self.uses.append(Use(source.key, node, k, axes))
        return Value(axes)

    def plain(self, node: Node) -> None:
        index, proto = len(self.nodes) - 1, node.proto
        values = [self.take(index, k, key) if key else None for k, key in enumerate(node.inputs)]
        labelled = [value is not None and value.has_labels for value in values]
        for k, sizes in self.arithmetic.arrays(node, labelled):
            axes = self.known_arrays.setdefault(index, {})[k] = tuple(map(self.coupling.label, sizes))
            values[k] = Value(axes)
        for k, where in self.arithmetic.escapes(node, labelled):
            if k not in self.known_arrays.get(index, ()):
                self.fix_sizes(index, k, where)
        for k in operator_of(proto).follows & set(range(len(node.inputs))):
            key = node.inputs[k]
            if key in self.statics.sampled and not self.arithmetic.stays_in(key, node.path):
                self.fix_sizes(-1, k, self.arithmetic.origins(key)[self.arithmetic.uneven(key)])
        shapes = [self.statics.shapes.get(key) for key in node.outputs if key]
        if self.skips(proto, values):
            out = [self.unlabelled_value(key) for key in node.outputs if key]
            if all(key in self.weights for key in node.inputs if key):
                self.weights.update(node.outputs)
        else:
            out = self.apply(node, index, values, shapes)
        self.values.update(zip(filter(None, node.outputs), out, strict=True))
        filled = shapes[0] if has(proto, Trait.FILLS) else None
        if filled is not None and math.prod(filled) <= LARGEST_FILL and node.inputs[0] in self.weights:
            tensor = value_of(proto)
            dtype = onnx.TensorProto.FLOAT if tensor is None else tensor.data_type
            self.source(node.outputs[0], "fill", filled, dtype, node.path)

    def counts(self, proto: onnx.NodeProto) -> bool:
        """Whether a node gives small integers: sizes or indices, not channels."""
        known = self.statics.constants.get(self.key(proto.output[0])) if proto.output else None
        return known is not None and known.dtype.kind in "iub" and known.dtype.itemsize != 1

    def fix_sizes(self, node: int, k: int, where: Origins) -> None:
        """Sizes of channels that end in the data stay what they were, or where they cannot, the channels do."""
        can_shrink = {place: not is_fixed(x) for places in where.flat for place in places for x in self.axes_at(place)}
        if not any(can_shrink.values()):
            return
        alone = all(can_shrink.get(p) and not self.statics.is_open(*p) for places in where.flat for p in places)
        if node >= 0 and (alone or self.arithmetic.stays_in(self.nodes[node].inputs[k], self.nodes[node].path)):
            self.fixed_sizes.add((node, k))
            return
        for place in filter(can_shrink.get, can_shrink):
            self.coupling.freeze(*self.axes_at(place), why="computes with its size")

    def axes_at(self, place: Place) -> list[Labels]:
        """The labels of an axis of a value."""
        key, axis = place
        value = self.values.get(key)
        return [] if value is None else [value.along(axis)]

    def skips(self, proto: onnx.NodeProto, values: Sequence[Value | None]) -> bool:
        """Whether no input has labels: then neither have the outputs, whatever the operator does."""
        if has(proto, Trait.REPEATS) and not self.counts(proto):
            return False
        return not any(value is not None and value.has_labels for value in values)

    def apply(
        self, node: Node, index: int, values: list[Value | None], shapes: Sequence[tuple[int, ...] | None]
    ) -> list[Value | None]:
        arrays = self.known_arrays.get(index, {})
        op = Op(
            node.inputs, node.outputs, shapes, attributes_of(node.proto), self.opset, self.arithmetic, self.coupling,
            values,
            [not key or (key in self.weights and k not in arrays) for k, key in enumerate(node.inputs)],
            [not key or (self.zeros.reads_zero(node, k) and k not in arrays) for k, key in enumerate(node.inputs)],
            self.heads, self.thaw,
        )  # fmt: skip
        row = operator_of(node.proto)
        try:
            out = self.outputs(op, node, row)
        except LabelError as error:
            self.unknown[index] = str(error)
            op.freeze_inputs(f"freezes it: {error}")
            out = [self.unlabelled_value(key) for key in node.outputs if key]
        for k, key in enumerate(node.inputs):
            if key and key not in self.alias and k not in arrays:
                self.values[key] = op.values[k]
        if index not in self.unknown and op.keeps_zeros(row):
            self.zeros.note(node.outputs, self.zeros.given(node))
            # a slice of a weight is one, whatever its bounds come from
            if op.selects or all(made or k in row.follows for k, made in enumerate(op.weights)):
                self.weights.update(node.outputs)
        self.note(op, index)
        for labels in paired_otherwise(self.statics, node, values[0]) if values[0] is not None else ():
            self.coupling.freeze(labels, why="merges it with axes that are of other lengths in small or large inputs")
        for k in sizes_to_look_at(self.statics, node, out):
            self.other_sizes.setdefault(k, index)
        return out

    def outputs(self, op: Op, node: Node, row: Operator) -> list[Value | None]:
        if row.couple is None:
            raise LabelError("the operator is not known to onnxprune")
        lost = [k for k, key in enumerate(node.inputs) if key and op.values[k] is None]
        if lost:
            raise LabelError(f"the shape of its input {lost[0]} is unknown")
        return op.outputs(row)

    def note(self, op: Op, index: int) -> None:
        self.scalings |= {(index, k): scaling for k, scaling in op.scalings.items()}
        if op.thawed:
            self.thawed[index] = np.concatenate(op.thawed)
        if op.freezes_statistics:
            self.frozen_by_statistics.add(index)
        if op.costs:
            self.layers.append(Layer(index, tuple(op.costs)))
        if op.folded_shuffle is not None:
            self.folded_shuffles[index] = op.folded_shuffle

    def freeze_taken(self, node: int, k: int, key: str, why: str) -> None:
        """Freeze what a node takes."""
        if key in self.alias:
            source = self.sources[self.alias[key]]
            self.uses.append(Use(source.key, node, k, unlabelled(source.shape)))
        self.freeze_value(key, why)

    def freeze_value(self, key: str, why: str) -> None:
        value = self.values.get(key)
        if key in self.statics.sampled and not (value is not None and value.has_labels):
            self.fix_sizes(-1, -1, self.arithmetic.origins(key))
        if key in self.alias:
            source = self.sources[self.alias[key]]
            self.uses.append(Use(source.key, -1, -1, unlabelled(source.shape)))
        elif value is not None:
            split = () if value.split_axis is None else (value.split_axis.labels,)
            self.coupling.freeze(*value.axes, *split, why=why)
