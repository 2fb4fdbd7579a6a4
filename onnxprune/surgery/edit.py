"""What a repair sees of a node in the pruned model, and what it may change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.channels.dependencies import Dependencies, Node
from onnxprune.channels.labels import is_fixed
from onnxprune.errors import ModelError
from onnxprune.model.evaluate import evaluate
from onnxprune.model.static import attributes_of

LARGEST_SIZE = 1 << 31  # larger integers are no sizes: "to the end" is such a one


@dataclass
class Draft:
    """The pruned model under way: what is known of its values, and nodes to be put beside others."""

    deps: Dependencies
    dead: np.ndarray
    opset: int
    boxes: dict[str, tuple[np.ndarray, ...] | None] = field(default_factory=dict)
    restated: dict[str, np.ndarray] = field(default_factory=dict)  # computed constants that come out differently now
    names: set[str] = field(default_factory=set)
    initializers: dict[str, list[onnx.TensorProto]] = field(default_factory=dict)  # new ones, by path of the graph
    before: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)  # by position in the analysis
    after: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)

    def box(self, key: str) -> tuple[np.ndarray, ...] | None:
        """Live positions of each axis of a value."""
        if key not in self.boxes:
            self.boxes[key] = self._find_box(key)
        return self.boxes[key]

    def _find_box(self, key: str) -> tuple[np.ndarray, ...] | None:
        return self.deps.box(key, self.dead)

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
        name, k = stem, 0
        while name in self.names:
            k += 1
            name = f"{stem}.{k}"
        self.names.add(name)
        return name

    def add_initializer(self, path: str, stem: str, array: np.ndarray) -> str:
        name = self.fresh_name(stem)
        self.initializers.setdefault(path, []).append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def restate(self) -> None:
        """Evaluate shape arithmetic again, on the shapes of the pruned network."""
        statics = self.deps.statics
        for index, node in enumerate(self.deps.nodes):
            outputs = [key for key in node.outputs if key in statics.sampled]
            if not outputs or any(map(self._has_channels, outputs)):
                continue
            values: list[np.ndarray] | None = None
            if node.proto.op_type in ("Shape", "Size"):
                values = self._sizes(index, node)
            elif any(key in self.restated for key in node.inputs):
                inputs = [self.known(key) if key else None for key in node.inputs]
                values = evaluate(node.proto, inputs, attributes_of(node.proto), self.opset)
            for key, value in zip(outputs, values or (), strict=False):
                if not np.array_equal(value, statics.constants[key]):
                    self.restated[key] = value

    def _has_channels(self, key: str) -> bool:
        value = self.deps.values.get(key)
        return value is not None and not all(map(is_fixed, value.axes))

    def _sizes(self, index: int, node: Node) -> list[np.ndarray] | None:
        """What a Shape or Size node gives; None where it is not known."""
        box = self.box(node.inputs[0])
        if box is None:
            use = next(iter(self.deps.uses_at.get(index, ())), None)
            box = None if use is None else tuple(self.deps.live(x, self.dead) for x in use.axes)
        if box is None:
            return None
        sizes, a = [int(m.sum()) for m in box], attributes_of(node.proto)
        told = math.prod(sizes) if node.proto.op_type == "Size" else sizes[a.get("start", 0) : a.get("end", len(sizes))]
        return [np.asarray(told, np.int64)]

    def known(self, key: str) -> np.ndarray | None:
        """A small constant as the pruned model computes it."""
        return self.restated.get(key, self.deps.statics.constants.get(key))


@dataclass
class Edit:
    """One node of the pruned model."""

    draft: Draft
    index: int
    source: Node
    node: onnx.NodeProto  # of the pruned model; may be changed
    uses: Mapping[int, tuple[np.ndarray, ...]]  # live positions of inputs that are tensors of the file

    # --- what may be asked ---------------------------------------------------

    def _box(self, keys: tuple[str, ...], k: int) -> tuple[np.ndarray, ...]:
        box = self.uses.get(k) if keys is self.source.inputs else None
        box = self.draft.box(keys[k]) if box is None else box
        if box is None:
            raise ModelError(f"internal: {self.source} was left with channels that no shape can hold; please report it")
        return box

    def live_in(self, k: int, axis: int) -> np.ndarray:
        return self._box(self.source.inputs, k)[axis]

    def live_out(self, k: int, axis: int) -> np.ndarray:
        return self._box(self.source.outputs, k)[axis]

    def count_in(self, k: int, axis: int) -> int:
        return int(self.live_in(k, axis).sum())

    def count_out(self, k: int, axis: int) -> int:
        return int(self.live_out(k, axis).sum())

    def size_in(self, k: int, axis: int) -> int:
        return self.live_in(k, axis).size

    def rank_in(self, k: int) -> int:
        return len(self._box(self.source.inputs, k))

    def shape_in(self, k: int) -> tuple[int, ...]:
        return tuple(int(m.sum()) for m in self._box(self.source.inputs, k))

    def shape_out(self, k: int) -> tuple[int, ...]:
        return tuple(int(m.sum()) for m in self._box(self.source.outputs, k))

    def renumber(self, k: int, axis: int) -> np.ndarray:
        """New position of every old one of an axis (dead ones get that of the last live one before)."""
        return np.cumsum(self.live_in(k, axis)) - 1

    def ints(self, k: int, attribute: str | None = None) -> list[int] | None:
        """Integers as the pruned model has them, from an attribute or an input; None where left out or unknown."""
        array = self._attribute(attribute) if attribute else None
        if array is None and k < len(self.source.inputs) and self.source.inputs[k]:
            array = self.draft.known(self.source.inputs[k])
        return None if array is None else [int(v) for v in np.atleast_1d(array)]

    def tensor(self, k: int) -> np.ndarray | None:
        """The constant in input k, in its own rank."""
        return self.draft.deps.statics.constants.get(self.source.inputs[k])

    def now(self, k: int, attribute: Any = None) -> list[int] | None:
        """Like `ints`, for attributes given by value."""
        return [int(v) for v in np.atleast_1d(attribute)] if attribute is not None else self.ints(k)

    def original(self, k: int, attribute: Any = None) -> list[int] | None:
        """Integers as the original model has them."""
        if attribute is None:
            key = self.source.inputs[k] if k < len(self.source.inputs) else ""
            attribute = self.draft.deps.statics.constants.get(key)
        return None if attribute is None else [int(v) for v in np.atleast_1d(attribute)]

    def attribute(self, name: str) -> Any:
        """Value of an attribute; None where left out."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return None if found is None else helper.get_attribute_value(found)

    def _attribute(self, name: str) -> np.ndarray | None:
        found = next((a for a in self.node.attribute if a.name == name), None)
        return None if found is None else np.asarray(helper.get_attribute_value(found))

    # --- what may be changed -------------------------------------------------

    def set_attribute(self, name: str, value: int | float | list[int]) -> None:
        self.drop_attribute(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        for a in [a for a in self.node.attribute if a.name == name]:
            self.node.attribute.remove(a)

    def set_ints(self, k: int, attribute: str | None, changes: Mapping[int, int]) -> None:
        """Change some of the integers of an attribute or of input k; what is computed there is corrected behind."""
        if not changes:
            return
        if attribute and (given := self._attribute(attribute)) is not None:
            self.set_attribute(attribute, [changes.get(j, int(v)) for j, v in enumerate(given)])
            return
        key = self.source.inputs[k]
        known = self.draft.known(key)
        assert known is not None
        if self.draft.deps.statics.fixed_constant(key) is not None:
            new = [changes.get(j, int(v)) for j, v in enumerate(known.flat)]
            self.set_tensor(k, np.array(new, known.dtype).reshape(known.shape))
        else:
            self._correct(k, known, changes)

    def set_tensor(self, k: int, array: np.ndarray) -> None:
        """Give input k a constant of its own, in the type of the old one."""
        old = self.tensor(k)
        array = np.asarray(array, np.int64 if old is None else old.dtype)
        stem = f"{self.source.label}.{k}"
        self.node.input[k] = self.draft.add_initializer(self.source.path, stem, array)

    def add_ints(self, k: int, attribute: str, values: list[int]) -> None:
        """Give integers where the node had none: an input where the operator set takes one, else an attribute."""
        if self.draft.opset >= 13:
            while len(self.node.input) <= k:
                self.node.input.append("")
            stem = f"{self.source.label}.{attribute}"
            self.node.input[k] = self.draft.add_initializer(self.source.path, stem, np.array(values, np.int64))
        else:
            self.set_attribute(attribute, values)

    def _correct(self, k: int, told: np.ndarray, changes: Mapping[int, int]) -> None:
        """Correct some entries of integers that are computed at run time, and leave the others computed.

        What has to be 4 and would come out as 8 is multiplied by 4 / 8: a symbolic size may be a factor of it.
        """
        draft, label, path = self.draft, self.source.label, self.source.path
        if (joined := self._joined_anew(k, told.dtype, changes)) is not None:
            draft.before.setdefault(self.index, []).append(joined)
            self.node.input[k] = joined.output[0]
            return
        times, over, plus = np.ones_like(told), np.ones_like(told), np.zeros_like(told)
        for j, v in changes.items():
            factor = 0 < told.flat[j] < LARGEST_SIZE
            times.flat[j], over.flat[j], plus.flat[j] = (v, told.flat[j], 0) if factor else (0, 1, v)
        for op, operand in (("Mul", times), ("Div", over), ("Add", plus)):
            if np.any(operand != (op != "Add")):
                stem = f"{label}.{k}.{op.lower()}"
                name, out = draft.add_initializer(path, stem, operand), draft.fresh_name(f"{stem}.out")
                draft.before.setdefault(self.index, []).append(helper.make_node(op, [self.node.input[k], name], [out]))
                self.node.input[k] = out

    def _joined_anew(self, k: int, dtype: np.dtype, changes: Mapping[int, int]) -> onnx.NodeProto | None:
        """The Concat that makes input k, its constant parts rewritten; None where the wrong entries lie elsewhere."""
        deps = self.draft.deps
        maker = deps.maker(self.source.inputs[k])
        if maker is None or maker.proto.op_type != "Concat" or maker.path != self.source.path:
            return None
        inputs, start, left = list(maker.proto.input), 0, dict(changes)
        for j, key in enumerate(maker.inputs):
            part = self.draft.known(key)
            if part is None or part.ndim != 1:
                return None
            inside = {i - start: v for i, v in changes.items() if start <= i < start + part.size}
            if inside and deps.statics.fixed_constant(key) is not None:
                new = np.array([inside.get(i, int(v)) for i, v in enumerate(part)], dtype)
                inputs[j] = self.draft.add_initializer(self.source.path, f"{self.source.label}.{k}.{j}", new)
                left = {i: v for i, v in left.items() if i - start not in inside}
            start += part.size
        if left:
            return None
        output = self.draft.fresh_name(f"{self.source.label}.{k}.joined")
        return helper.make_node("Concat", inputs, [output], axis=0)

    def then_gather(self, axis: int, indices: np.ndarray) -> None:
        """Pick positions of an axis of the output, in a node of their own behind this one."""
        draft, label = self.draft, self.source.label
        name = self.node.output[0]
        self.node.output[0] = between = draft.fresh_name(f"{name}.all")
        picks = draft.add_initializer(self.source.path, f"{label}.picks", np.asarray(indices, np.int64))
        behind = draft.after.setdefault(self.index, [])
        behind.append(helper.make_node("Gather", [between, picks], [name], axis=axis))
